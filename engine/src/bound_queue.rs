//! A queue that is bound already: its socket, from the process that served it before.
//!
//! ```text
//!   one process                       the kernel                        the next process
//!   socket, port 4711 ------------->  queue 0 belongs to port 4711
//!   passes a descriptor of it  ----------------------------------->     the same socket, port 4711
//!   ends                              the queue stays, as do the        may answer what waits
//!                                     packets and unread messages
//! ```
//!
//! The kernel takes verdicts only from the port that bound the queue, and gives the queue up when the last descriptor
//! of its socket is closed (`net/netfilter/nfnetlink_queue.c: nfqnl_rcv_nl_event`). So whoever holds a descriptor
//! holds the queue with all that waits in it.
//!
//! Invariant: a [`BoundQueue`] is a socket that owned its queue, in this thread's network namespace, when it was
//! checked; the check reads nothing from the socket and changes nothing, so its present owner may go on meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use crate::kernel_table::{KernelTable, PortOwner};
use crate::nfq::PacketId;
use crate::stats::Counts;
use crate::sys;

/// A descriptor of a socket that owns a queue, with what is known of its past.
#[derive(Debug)]
pub struct BoundQueue {
    queue: u16,
    socket: OwnedFd,
    next_id: Option<PacketId>,
    carried: Counts,
}

impl BoundQueue {
    /// Checks that the descriptor owns this queue.
    ///
    /// # Errors
    /// See [`BoundQueueError`]. The descriptor is closed.
    pub fn check(queue: u16, descriptor: OwnedFd) -> Result<Self, BoundQueueError> {
        let table = KernelTable::open().map_err(BoundQueueError::NoTable)?;
        let row = table.row(queue).map_err(BoundQueueError::NoTable)?;
        let kind = sys::is_netfilter(descriptor.as_fd());
        if !matches!(kind, Ok(true)) {
            return Err(BoundQueueError::NotNetfilter { queue });
        }
        let port = sys::netlink_port(descriptor.as_fd()).map_err(BoundQueueError::Descriptor)?;
        let Some(row) = row else { return Err(BoundQueueError::NobodysQueue { queue }) };
        // A port is one socket's, but only in its namespace.
        let here = is_of_this_namespace(&descriptor).map_err(BoundQueueError::Descriptor)?;
        if row.port_id != port || !here {
            let owner = PortOwner::find(row.port_id);
            return Err(BoundQueueError::OthersQueue { queue, owner });
        }
        Ok(Self { queue, socket: descriptor, next_id: None, carried: Counts::default() })
    }

    /// A queue of a running engine's.
    pub(crate) fn of_engine(queue: u16, socket: OwnedFd) -> Self {
        Self { queue, socket, next_id: None, carried: Counts::default() }
    }

    /// Says how far the queue was served: every packet before `next_id` is answered, and none from there on was
    /// received; `counts` stands at the beginning of the next server's account.
    ///
    /// Without this the one before is taken to have died: packets that it had read are looked for
    /// ([`PreparedEngine::adopt`](crate::PreparedEngine::adopt)).
    #[must_use]
    pub fn served_up_to(self, next_id: PacketId, counts: Counts) -> Self {
        Self { next_id: Some(next_id), carried: counts, ..self }
    }

    /// Says what was counted so far of a queue whose packets may be half answered.
    #[must_use]
    pub fn counted(self, counts: Counts) -> Self {
        Self { carried: counts, ..self }
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Another descriptor of the same socket, with the same past.
    ///
    /// # Errors
    /// The process has too many open.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { socket, carried: self.carried.clone(), ..*self })
    }

    pub(crate) fn into_parts(self) -> (OwnedFd, Option<PacketId>, Counts) {
        (self.socket, self.next_id, self.carried)
    }
}

impl AsFd for BoundQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_of_this_namespace(descriptor: &OwnedFd) -> io::Result<bool> {
    let theirs = File::from(sys::net_namespace(descriptor.as_fd())?).metadata()?;
    let ours = std::fs::metadata("/proc/thread-self/ns/net")?;
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

/// Why a descriptor cannot be taken for a queue's.
#[derive(Debug, thiserror::Error)]
pub enum BoundQueueError {
    /// Who owns which queue cannot be read.
    #[error(
        "/proc/net/netfilter/nfnetlink_queue, which tells who owns a queue, cannot be read: {0}; run as root, with /proc mounted"
    )]
    NoTable(io::Error),
    /// The descriptor cannot be used.
    #[error("the descriptor of a queue: {0}")]
    Descriptor(io::Error),
    /// It leads elsewhere.
    #[error("the descriptor given for queue {queue} is no netlink socket to netfilter")]
    NotNetfilter {
        /// The queue.
        queue: u16,
    },
    /// The queue is not bound.
    #[error(
        "queue {queue} is bound by nobody in this network namespace, so the descriptor given for it does not own it; was it made in another namespace?"
    )]
    NobodysQueue {
        /// The queue.
        queue: u16,
    },
    /// The queue is another socket's.
    #[error("the descriptor given for queue {queue} does not own it: it belongs to {owner}")]
    OthersQueue {
        /// The queue.
        queue: u16,
        /// Whose it is.
        owner: PortOwner,
    },
}
