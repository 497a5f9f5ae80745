//! What the threads of this process do with one socket.
//!
//! Invariant: a thread counts from before its call into the kernel until what it received was noted; one that is
//! cancelled in between counts for ever. It deliberately knows nothing of other processes: those are
//! `crate::readers`'s.

/// How many threads are in the kernel for the socket, and how it is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    /// Those that receive.
    pub(crate) receiving: u32,
    /// Those that wait for it to be readable.
    pub(crate) waiting: u32,
    /// Whether an epoll was told to report it once only. Whoever arms that again expects the kernel to report what is
    /// left, and the kernel does not know of what is in the ring: so nothing may be there.
    pub(crate) one_shot: bool,
}

impl Threads {
    pub(crate) const NONE: Self = Self { receiving: 0, waiting: 0, one_shot: false };

    /// Whether nobody is to be woken by what is taken beyond what was asked for.
    pub(crate) fn may_fill(self) -> bool {
        self.receiving == 0 && self.waiting == 0 && !self.one_shot
    }

    /// Asked by one that receives: whether others do, too, who may have packets that are not noted yet.
    pub(crate) fn others_receive(self) -> bool {
        self.receiving > 1
    }

    /// In a child: it has none of its parent's threads.
    pub(crate) fn forked(&mut self) {
        *self = Self { one_shot: self.one_shot, ..Self::NONE };
    }
}
