//! A queue as its watchdog has it: the same socket, from another thread.
//!
//! The kernel takes verdicts from the port that bound the queue and from no other (`verdict_instance_lookup` in
//! net/netfilter/nfnetlink_queue.c: `EPERM`), and a port is a socket's. So whoever answers in a worker's place must
//! send through the worker's own socket; which thread does is all the same to the kernel.
//!
//! Invariant: it does not keep the queue: when its worker has let go of the socket, every call says so. Messages are
//! received for their ids, so long ones are cut.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use netlink_sys::Socket;

use super::{Port, Queue};
use crate::kernel_table::{KernelRow, KernelTable};
use crate::nfq::wake_request;
use crate::sys::{self, ReceiveError, ReceiveRing};

/// A bound queue, seen from outside its worker.
#[derive(Debug)]
pub(crate) struct OutsideQueue {
    number: u16,
    socket: Weak<Socket>,
    table: KernelTable,
    ring: ReceiveRing,
}

impl Queue {
    /// The same queue, for the watchdog.
    ///
    /// # Errors
    /// The kernel's table cannot be opened.
    pub(crate) fn outside(&self, number: u16) -> io::Result<OutsideQueue> {
        let ring = ReceiveRing::new(BATCH, DATAGRAM_BYTES, 0)?;
        Ok(OutsideQueue {
            number,
            socket: Arc::downgrade(&self.socket),
            table: KernelTable::open()?,
            ring,
        })
    }
}

impl OutsideQueue {
    fn socket(&self) -> io::Result<Arc<Socket>> {
        self.socket.upgrade().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

impl Port for OutsideQueue {
    fn receive(&mut self, _block: bool) -> Result<usize, ReceiveError> {
        let socket = self.socket().map_err(ReceiveError::Fatal)?;
        self.ring.receive(socket.as_fd(), false)
    }

    fn wait(&self, limit: Duration) -> io::Result<()> {
        sys::wait_readable(self.socket()?.as_fd(), limit).map(|_| ())
    }

    fn ring(&self) -> &ReceiveRing {
        &self.ring
    }

    fn ring_mut(&mut self) -> &mut ReceiveRing {
        &mut self.ring
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.socket()?.send(messages, 0).map(|_| ())
    }

    fn kernel_row(&self) -> Option<KernelRow> {
        self.table.row(self.number).ok()?
    }

    fn is_readable(&self) -> bool {
        let readable = |socket: Arc<Socket>| sys::wait_readable(socket.as_fd(), Duration::ZERO);
        self.socket().and_then(readable).unwrap_or(false)
    }

    fn wake(&self) {
        // A send that fails leaves a worker that the next packet wakes.
        let _ = self.socket().and_then(|socket| socket.send(&wake_request(), 0));
    }
}

/// Messages in one receive.
const BATCH: usize = 64;

/// Headers and the attributes before a payload, with the beginning of it.
const DATAGRAM_BYTES: usize = 1024;
