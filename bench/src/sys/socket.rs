//! System calls of the senders and the sink that no crate here has: `sendmmsg`, a signal to a thread, a socket option.

#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{SockAddr, Socket};

/// Datagrams of one call.
#[derive(Debug)]
pub(crate) struct SendBatch {
    payloads: Vec<Vec<u8>>,
    lengths: [usize; BATCH],
    addresses: Vec<SockAddr>,
}

impl SendBatch {
    /// Room for payloads of up to so many bytes.
    pub(crate) fn new(payload_bytes: usize) -> Self {
        let payloads = vec![vec![0; payload_bytes]; BATCH];
        Self { payloads, lengths: [0; BATCH], addresses: Vec::with_capacity(BATCH) }
    }

    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        self.addresses.clear();
    }

    /// Whether the next call takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.addresses.len() == BATCH
    }

    /// Adds a datagram of so many bytes, and gives its payload to be written.
    ///
    /// # Panics
    /// If it [`is_full`](Self::is_full), or the payload is longer than [`new`](Self::new) was told.
    pub(crate) fn push(&mut self, bytes: usize, to: SocketAddr) -> &mut [u8] {
        let index = self.addresses.len();
        self.lengths[index] = bytes;
        self.addresses.push(to.into());
        &mut self.payloads[index][..bytes]
    }

    /// Sends all of them, in as many calls as the kernel wants.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut vectors: [libc::iovec; BATCH] =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: mmsghdr is integers and pointers, for which all zeroes are valid values.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let count = self.addresses.len();
        for index in 0..count {
            let payload = &mut self.payloads[index][..self.lengths[index]];
            vectors[index] =
                libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = self.addresses[index].as_ptr().cast_mut().cast();
            header.msg_namelen = self.addresses[index].len();
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
        }
        let mut sent = 0;
        while sent < count {
            let rest = &mut headers[sent..count];
            let length = libc::c_uint::try_from(rest.len()).map_err(io::Error::other)?;
            // SAFETY: `length` headers, each with one vector and one address that live in this function or in self,
            // which it borrows; sendmmsg only reads them, and writes msg_len.
            let result =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), length, 0) };
            match usize::try_from(result) {
                Ok(taken) => sent += taken,
                Err(_) => match io::Error::last_os_error() {
                    // The device's or the socket's buffer is full for the moment.
                    error if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        std::thread::yield_now();
                    }
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// `UDP_NO_CHECK6_RX`, udp(7).
pub(crate) fn accept_no_checksum(socket: &Socket) -> std::io::Result<()> {
    let yes: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&yes)).map_err(std::io::Error::other)?;
    // SAFETY: the option's value is one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_NO_CHECK6_RX,
            (&raw const yes).cast(),
            size,
        )
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

const UDP_NO_CHECK6_RX: libc::c_int = 102;

/// Sends [`INTERRUPTION`] to a thread of this process, if it still lives.
pub(crate) fn interrupt(thread: rustix::thread::Pid) {
    let (process, thread) = (std::process::id(), thread.as_raw_nonzero().get());
    // SAFETY: tgkill takes numbers only; a thread that has ended is ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, INTERRUPTION) };
}

/// The signal that ends a run on live frames. A handler must be in place.
pub(crate) const INTERRUPTION: libc::c_int = libc::SIGUSR1;

const BATCH: usize = 64;
