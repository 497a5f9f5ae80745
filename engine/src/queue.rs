//! One queue: its netlink socket, set up whole, and the calls that a worker makes on it.
//!
//! Invariant: a [`Queue`] that exists is bound and configured; dropping it closes the socket, and with it the
//! kernel releases the queue. Packets that come before the acknowledgement of the set-up are kept for the
//! worker, none is thrown away. It deliberately decides nothing about packets.

mod adopted;
mod outside;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use netlink_sys::Socket;

use crate::config::QueueConfig;
use crate::deferral::Wake;
use crate::kernel_table::{KernelRow, KernelTable, PortOwner};
use crate::nfq::{
    self, ConfigFlags, Message, PacketId, QueueFlag, QueueRequest, Request, wake_request,
};
use crate::stats::Counts;
use crate::sys::{self, ReceiveBuffer, ReceiveError, ReceiveRing};

pub(crate) use outside::OutsideQueue;

/// What a worker needs of a queue; the seam where tests put a simulated kernel.
pub(crate) trait Port {
    /// Receives up to a batch and returns how many datagrams; with `block`, waits for the first.
    fn receive(&mut self, block: bool) -> Result<usize, ReceiveError>;

    /// Waits until there is something to receive, `limit` at most.
    fn wait(&self, limit: Duration) -> io::Result<()>;

    /// Where the datagrams of the last receive are.
    fn ring(&self) -> &ReceiveRing;

    /// The same, to give back what was lent.
    fn ring_mut(&mut self) -> &mut ReceiveRing;

    /// Sends messages, which the kernel carries out before this returns.
    fn send(&mut self, messages: &[u8]) -> io::Result<()>;

    /// What the kernel says about the queue, where that can be read.
    fn kernel_row(&self) -> Option<KernelRow> {
        None
    }

    /// Whether a receive would find something.
    fn is_readable(&self) -> bool {
        false
    }

    /// Makes a receive that blocks return.
    fn wake(&self) {}

    /// Takes a datagram that came while the queue was set up.
    fn take_early(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// A bound queue.
#[derive(Debug)]
pub(crate) struct Queue {
    socket: Arc<Socket>,
    ring: ReceiveRing,
    /// Packets that came before the set-up was acknowledged, oldest last.
    early: Vec<Vec<u8>>,
    receive_buffer: ReceiveBuffer,
    granted: ConfigFlags,
    /// Its number, and where the kernel tells about it, if that is looked at while it is served.
    watched: Option<(u16, KernelTable)>,
    past: Past,
}

/// What there was of a queue before it was taken.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// The id of the first packet that its worker is to receive.
    pub(crate) next_id: PacketId,
    /// What those who served it have counted.
    pub(crate) carried: Counts,
    /// Packets that were read and not answered: they have got their verdict.
    pub(crate) orphaned: u64,
}

impl Past {
    /// A queue's that was bound just now.
    fn none() -> Self {
        Self { next_id: PacketId::FIRST, carried: Counts::default(), orphaned: 0 }
    }
}

impl Queue {
    /// Takes queue `number` of the calling thread's network namespace and configures it in one message, with those
    /// of the flags asked for that the kernel grants. Of the packets that it receives up to `lent_max` may be lent at
    /// a time.
    pub(crate) fn open(
        number: u16,
        config: &QueueConfig,
        batch: usize,
        lent_max: usize,
    ) -> Result<Self, QueueError> {
        let failed = |call| move |source| QueueError::Socket { call, source };
        let (mut socket, _port) = sys::open_netfilter().map_err(|source| {
            // No netfilter sockets at all: nfnetlink itself is missing.
            match source.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => QueueError::NoKernelSupport { queue: number },
                _ => failed("opening the socket")(source),
            }
        })?;
        let receive_buffer = sys::set_receive_buffer(&socket, config.rcvbuf)
            .map_err(failed("setting the receive buffer"))?;
        let (granted, mut early) = bind(&mut socket, number, config)?;
        early.reverse();
        let ring = ring(number, config, granted, batch, lent_max)?;
        let (socket, past) = (Arc::new(socket), Past::none());
        Ok(Self { socket, ring, early, receive_buffer, granted, watched: None, past })
    }

    /// What was before it was taken.
    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    /// Lets the worker see how many packets wait.
    ///
    /// # Errors
    /// The kernel's table cannot be opened.
    pub(crate) fn watch(&mut self, number: u16) -> io::Result<()> {
        self.watched = Some((number, KernelTable::open()?));
        Ok(())
    }

    /// The flags that the kernel granted.
    pub(crate) fn granted(&self) -> ConfigFlags {
        self.granted
    }

    /// The receive buffer that the kernel granted.
    pub(crate) fn receive_buffer(&self) -> ReceiveBuffer {
        self.receive_buffer
    }

    /// A handle that wakes whoever blocks on this queue's socket.
    pub(crate) fn waker(&self) -> QueueWaker {
        QueueWaker { socket: Arc::clone(&self.socket) }
    }
}

impl Port for Queue {
    #[inline]
    fn receive(&mut self, block: bool) -> Result<usize, ReceiveError> {
        self.ring.receive(self.socket.as_fd(), block)
    }

    fn wait(&self, limit: Duration) -> io::Result<()> {
        sys::wait_readable(self.socket.as_fd(), limit).map(|_| ())
    }

    #[inline]
    fn ring(&self) -> &ReceiveRing {
        &self.ring
    }

    fn ring_mut(&mut self) -> &mut ReceiveRing {
        &mut self.ring
    }

    #[inline]
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.socket.send(messages, 0).map(|_| ())
    }

    fn kernel_row(&self) -> Option<KernelRow> {
        let (number, table) = self.watched.as_ref()?;
        table.row(*number).ok()?
    }

    fn take_early(&mut self) -> Option<Vec<u8>> {
        self.early.pop()
    }
}

/// Wakes a worker that blocks in a receive. Keeps the socket open for as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct QueueWaker {
    socket: Arc<Socket>,
}

impl QueueWaker {
    /// The queue's socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn downgrade(&self) -> WeakQueueWaker {
        WeakQueueWaker(Arc::downgrade(&self.socket))
    }

    /// Makes the blocked receive return. If the buffer is so full that the answer does not fit, then the worker
    /// does not block either.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.socket.send(&wake_request(), 0).map(|_| ())
    }
}

/// The same without keeping the socket open: a bound queue ends with its socket.
#[derive(Debug)]
pub(crate) struct WeakQueueWaker(Weak<Socket>);

impl WeakQueueWaker {
    /// Wakes nobody: for a worker that never sleeps.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self(Weak::new())
    }

    /// Wakes the worker, if its queue is still bound.
    pub(crate) fn wake(&self) {
        if let Some(socket) = self.0.upgrade() {
            // A send that fails leaves a worker that the next packet wakes; nothing better can be done. While the
            // call lasts the socket stays open.
            let _ = QueueWaker { socket }.wake();
        }
    }
}

impl Wake for WeakQueueWaker {
    fn wake(&self) {
        Self::wake(self);
    }
}

/// Room for what comes from a queue configured so.
fn ring(
    queue: u16,
    config: &QueueConfig,
    granted: ConfigFlags,
    batch: usize,
    lent_max: usize,
) -> Result<ReceiveRing, QueueError> {
    let context = granted.contains(QueueFlag::SecurityContext);
    let metadata_bytes = METADATA_BYTES + if context { SECURITY_CONTEXT_BYTES } else { 0 };
    let datagram_bytes = usize::from(config.copy_range.bytes()) + metadata_bytes;
    ReceiveRing::new(batch, datagram_bytes, lent_max)
        .map_err(|source| QueueError::NoMemory { queue, source })
}

/// Binds and configures the queue, without the flags that the kernel refuses if the start can do without them.
/// Returns the flags that it has now, and what came before the acknowledgement.
///
/// The kernel looks at the flags before anything else and refuses the message whole, so while any of them is
/// refused nothing is bound, and no packet can come in between.
fn bind(
    socket: &mut Socket,
    queue: u16,
    config: &QueueConfig,
) -> Result<(ConfigFlags, Vec<Vec<u8>>), QueueError> {
    let request = |flags| QueueRequest::bind(queue, config.copy_range, config.maxlen, flags);
    let asked = config.flags.asked();
    let (mut errno, mut early) = ask(socket, request(asked))?;
    let mut granted = asked;
    if errno == libc::EOPNOTSUPP {
        let refused = refused_flags(socket, queue, asked)?;
        let missing = refused.and(config.flags.required());
        if !missing.is_empty() {
            return Err(QueueError::FlagsRefused { queue, flags: missing });
        }
        granted = asked.without(refused);
        (errno, early) = ask(socket, request(granted))?;
    }
    if errno == 0 { Ok((granted, early)) } else { Err(QueueError::refused(queue, errno)) }
}

/// Which of the flags the kernel cannot do, found out one by one on a queue that is not bound by this socket.
fn refused_flags(
    socket: &mut Socket,
    queue: u16,
    asked: ConfigFlags,
) -> Result<ConfigFlags, QueueError> {
    let mut refused = ConfigFlags::NONE;
    for flag in asked.iter() {
        let (errno, _) = ask(socket, QueueRequest::probe(queue, flag))?;
        if errno == libc::EOPNOTSUPP {
            refused = refused.with(flag);
        }
    }
    Ok(refused)
}

/// Sends a configuration request and waits for its acknowledgement. Returns the errno, and the datagrams that
/// came before it, in order.
fn ask(socket: &mut Socket, request: QueueRequest) -> Result<(i32, Vec<Vec<u8>>), QueueError> {
    let failed = |call| move |source| QueueError::Socket { call, source };
    let mut buffer = [0; QueueRequest::BYTES_MAX];
    let length = request.numbered(SETUP_SEQUENCE).encode(&mut buffer);
    socket.send(&buffer[..length], 0).map_err(failed("sending the configuration"))?;

    let mut poll = Poll::new().map_err(failed("creating a poll"))?;
    poll.registry()
        .register(socket, Token(0), Interest::READABLE)
        .map_err(failed("polling the socket"))?;
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let mut events = Events::with_capacity(1);
    let mut early = Vec::new();
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, libc::MSG_DONTWAIT) {
            Ok(_) => match nfq::decode(&datagram) {
                Ok((Message::Reply(reply), _)) if reply.request == Request::Config => {
                    return Ok((reply.errno, early));
                }
                _ => early.push(datagram.clone()),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(QueueError::NoAnswer { port: socket.as_raw_fd() });
                }
                match poll.poll(&mut events, Some(left)) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                        return Err(failed("waiting for the acknowledgement")(error));
                    }
                    _ => {}
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("receiving the acknowledgement")(error)),
        }
    }
}

/// Why a queue could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A system call on the socket failed.
    #[error("netlink socket: {call}: {source}")]
    Socket {
        /// What was being done.
        call: &'static str,
        /// The error.
        source: io::Error,
    },
    /// A limit on the process's addresses is too low for its receive memory (`RLIMIT_AS`).
    #[error(
        "queue {queue}: no memory to receive into: {source}; raise the limit (ulimit -v), or use fewer queues, a smaller --batch or --copy-range, or no deferral"
    )]
    NoMemory {
        /// The queue.
        queue: u16,
        /// The error.
        source: io::Error,
    },
    /// Another socket is bound to the queue.
    #[error(
        "queue {queue} is taken by {owner}; stop that program, or choose other queues with --queues"
    )]
    Taken {
        /// The queue.
        queue: u16,
        /// Who has it.
        owner: PortOwner,
    },
    /// The process may not configure queues.
    #[error(
        "queue {queue}: not permitted; run as root or give the program CAP_NET_ADMIN in this network namespace (setcap cap_net_admin+ep PROGRAM)"
    )]
    NotPermitted {
        /// The queue.
        queue: u16,
    },
    /// The kernel says no, and what would tell why cannot be read.
    #[error(
        "queue {queue}: not permitted; either another program has the queue (choose others with --queues) or CAP_NET_ADMIN is missing (run as root); /proc/net/netfilter/nfnetlink_queue, which would tell, cannot be read here"
    )]
    TakenOrNotPermitted {
        /// The queue.
        queue: u16,
    },
    /// The kernel has no nfnetlink_queue.
    #[error(
        "queue {queue}: this kernel has no nfnetlink_queue; load it (modprobe nfnetlink_queue) or use a kernel built with CONFIG_NETFILTER_NETLINK_QUEUE"
    )]
    NoKernelSupport {
        /// The queue.
        queue: u16,
    },
    /// The kernel cannot do what is required of it.
    #[error("queue {queue}: this kernel refuses {}", required(*flags))]
    FlagsRefused {
        /// The queue.
        queue: u16,
        /// The flags that are required and refused.
        flags: ConfigFlags,
    },
    /// The kernel refused for another reason.
    #[error("queue {queue}: the kernel refused the configuration: {source}")]
    Refused {
        /// The queue.
        queue: u16,
        /// Its errno.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the kernel did not acknowledge the configuration within {ANSWER_TIME_MAX:?}")]
    NoAnswer {
        /// The socket's descriptor.
        port: i32,
    },
}

impl QueueError {
    /// Tells the reasons for an errno apart. `EPERM` is both "not yours" and "not allowed"; the kernel's table
    /// knows which (`net/netfilter/nfnetlink_queue.c: nfqnl_recv_config`).
    fn refused(queue: u16, errno: i32) -> Self {
        let no_table =
            || KernelTable::open().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        match errno {
            libc::EPERM | libc::EBUSY => {
                match KernelTable::open().and_then(|table| table.row(queue)) {
                    Ok(Some(row)) => Self::Taken { queue, owner: PortOwner::find(row.port_id) },
                    Ok(None) => Self::NotPermitted { queue },
                    Err(_) => Self::TakenOrNotPermitted { queue },
                }
            }
            // nfnetlink's answer for a subsystem that is not there (nfnetlink_rcv_msg).
            libc::EINVAL if no_table() => Self::NoKernelSupport { queue },
            _ => Self::Refused { queue, source: io::Error::from_raw_os_error(errno) },
        }
    }
}

/// Each flag with what it needs, and how to start without it.
fn required(flags: ConfigFlags) -> String {
    let each: Vec<_> = flags
        .iter()
        .map(|flag| {
            format!(
                "{flag}, which is required: it needs {}; --{flag}=wanted starts without it",
                flag.needs()
            )
        })
        .collect();
    each.join("; and ")
}

/// What a message needs beside its payload: headers and every attribute of packet.rs at its largest (conntrack
/// and security context are the long ones).
const METADATA_BYTES: usize = 1024;

/// What a security context may need more: it stands in the message and in the connection.
const SECURITY_CONTEXT_BYTES: usize = 2 * 4096;

/// Room for the largest datagram during set-up.
const DATAGRAM_BYTES_MAX: usize = 65_536 + METADATA_BYTES + SECURITY_CONTEXT_BYTES;

/// The kernel answers before the send returns; this is for a kernel that is broken.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Numbers the set-up request.
const SETUP_SEQUENCE: u32 = 1;
