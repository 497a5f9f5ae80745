//! Many datagrams in one system call: `recvmmsg` into buffers that are allocated once.
//!
//! ```text
//! slots    | slot 0            | slot 1 | ...             | slot batch-1 |   parts of one mapping, `stride` bytes each
//!            ^                   ^
//! vectors  | base, stride      | base, stride | ...
//!            ^                   ^
//! headers  | vector, length... | ...                       what recvmmsg reads and fills
//! ```
//!
//! Invariant: vectors and headers never move or grow after [`ReceiveRing::new`], so the pointers between them stay
//! good; slots are read only up to the length that the kernel wrote. A slot that was lent is replaced by a spare
//! before the next receive, so the kernel writes only where nobody else looks. Pages of a slot are touched first by
//! the worker's own receive, so they lie in its memory node, and only as many as packets fill.

mod mapping;
mod slot;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mapping::Mapping;
pub(crate) use slot::LentDatagram;
use slot::Slot;

/// Why nothing was received.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// Nothing waits (asked without blocking), or a signal came in between: ask again.
    Nothing,
    /// The socket overran since the last call. With `NETLINK_NO_ENOBUFS` the kernel does not send this.
    Overrun,
    /// The socket can no longer be used.
    Fatal(io::Error),
}

impl ReceiveError {
    /// The one place where errnos of a receive get their meaning.
    fn classify(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Self::Nothing,
            Some(libc::ENOBUFS) => Self::Overrun,
            _ => Self::Fatal(error),
        }
    }
}

/// Waits until a receive on `socket` would not block, `limit` at most, or until a signal comes. False if it still
/// would.
pub(crate) fn wait_readable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Rounded up: a wait that ends a little early would only be begun anew.
    let milliseconds = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: poll reads and writes one pollfd, which is what it is given, and it lives through the call.
    let result = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() != Some(libc::EINTR) => Err(error),
        _ => Ok(result > 0),
    }
}

/// Buffers for one batch of datagrams.
#[derive(Debug)]
pub(crate) struct ReceiveRing {
    slots: Vec<Arc<Slot>>,
    /// Memory for the slots that are lent. Nobody else has it.
    spares: Vec<Arc<Slot>>,
    /// Which slots were lent since the last receive.
    lent: RefCell<Vec<usize>>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    stride: usize,
    received: usize,
}

// SAFETY: the pointers in `vectors` and `headers` lead to memory that this value owns, wherever it moves; nothing is
// tied to a thread.
unsafe impl Send for ReceiveRing {}

impl ReceiveRing {
    /// Room for `batch` datagrams of up to `datagram_bytes` each, and for `lent_max` more that are lent at a time. A
    /// longer datagram is cut and says so.
    ///
    /// # Errors
    /// There is no room for it in the address space.
    pub(crate) fn new(batch: usize, datagram_bytes: usize, lent_max: usize) -> io::Result<Self> {
        assert!(batch > 0 && datagram_bytes > 0, "an empty ring can receive nothing");
        let stride = (datagram_bytes.div_ceil(CACHE_LINE) | 1) * CACHE_LINE;
        let count = batch.saturating_add(lent_max);
        let mapping = Arc::new(Mapping::new(count.saturating_mul(stride))?);
        let slot = |index| Arc::new(Slot::of(&mapping, index * stride, stride));
        let slots: Vec<_> = (0..batch).map(slot).collect();
        let mut vectors: Vec<libc::iovec> = slots
            .iter()
            .map(|slot| libc::iovec { iov_base: slot.base().cast(), iov_len: stride })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: mmsghdr is integers and pointers, for which all zeroes are valid values.
                let mut header = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        let lent = RefCell::new(Vec::with_capacity(batch));
        let spares = (batch..count).map(slot).collect();
        Ok(Self { slots, spares, lent, vectors, headers, stride, received: 0 })
    }

    /// Receives what waits, up to a batch, and returns how many datagrams. With `block` it waits for the first
    /// one; it never waits for a second (`MSG_WAITFORONE`).
    ///
    /// Blocking in the receive itself rather than in a poll before it saves a system call a batch, and leaves
    /// the kernel without a poller to call on every packet.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        block: bool,
    ) -> Result<usize, ReceiveError> {
        self.received = 0;
        if !self.lent.get_mut().is_empty() {
            self.replace_lent();
        }
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let batch = libc::c_uint::try_from(self.headers.len()).expect("batches are small");
        // SAFETY: recvmmsg reads and writes `batch` headers, which is how many there are; each header's one
        // vector is in `vectors` and names the memory of a slot, and both live as long as self. Nobody reads that
        // memory meanwhile: `&mut self` means that no `datagram` is borrowed, and slots that were lent have just
        // been replaced. No timeout is passed.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                batch,
                flags,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(result) {
            Ok(received) => {
                self.received = received;
                Ok(received)
            }
            Err(_) => Err(ReceiveError::classify(io::Error::last_os_error())),
        }
    }

    /// How many datagrams the last receive brought.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// One datagram of the last receive.
    ///
    /// # Panics
    /// If fewer were received.
    #[inline]
    pub(crate) fn datagram(&self, index: usize) -> &[u8] {
        let length = self.length(index);
        // SAFETY: nothing writes to the slot while self is borrowed: only `receive` does, which borrows it mutably.
        unsafe { self.slots[index].bytes(length) }
    }

    #[inline]
    fn length(&self, index: usize) -> usize {
        assert!(index < self.received, "only received slots can be read");
        (self.headers[index].msg_len as usize).min(self.stride)
    }

    /// Lends a datagram for as long as the borrower likes: its memory moves, nothing is copied. It may also still
    /// be read here until the next receive.
    ///
    /// # Panics
    /// If fewer were received.
    pub(crate) fn lend(&self, index: usize) -> LentDatagram {
        let length = self.length(index);
        self.lent.borrow_mut().push(index);
        LentDatagram::new(Arc::clone(&self.slots[index]), length)
    }

    /// Takes back what was lent, to be used again. (Dropping it is no fault, but then its memory is gone for this
    /// ring, and other memory is allocated when it is missing.)
    pub(crate) fn give_back(&mut self, datagram: LentDatagram) {
        // Two owners: it came back before the next receive, and this ring still has it in its place.
        if let Some(slot) = datagram.into_only_owner(self.stride) {
            self.spares.push(slot);
        }
    }

    /// Puts spares where slots were lent and are not back.
    fn replace_lent(&mut self) {
        for index in self.lent.get_mut().drain(..) {
            let slot = &mut self.slots[index];
            if Arc::get_mut(slot).is_some() {
                continue;
            }
            *slot = self.spares.pop().unwrap_or_else(|| Arc::new(Slot::alone(self.stride)));
            self.vectors[index].iov_base = slot.base().cast();
        }
    }

    /// Puts a datagram where a receive would.
    #[cfg(test)]
    pub(crate) fn simulate_receive(&mut self, datagrams: &[Vec<u8>]) {
        self.replace_lent();
        self.received = datagrams.len();
        for (index, datagram) in datagrams.iter().enumerate() {
            let slot = Slot::holding(datagram, self.stride);
            self.vectors[index].iov_base = slot.base().cast();
            self.slots[index] = Arc::new(slot);
            self.headers[index].msg_len = u32::try_from(datagram.len()).expect("short");
        }
    }
}

/// Slots begin on cache lines of their own, an odd number of them apart, so that their first lines, which every packet
/// takes, spread over all sets of a cache. How far apart they lie beyond that showed no difference in cost.
const CACHE_LINE: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// How many pages of it are backed by memory (proc_pid_pagemap(5): bit 63).
    fn backed_pages(slot: &Slot, bytes: usize) -> usize {
        let pagemap = std::fs::File::open("/proc/self/pagemap").expect("it is one's own");
        // SAFETY: sysconf takes a number and touches no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).expect("pages have a size");
        let first = slot.base().addr() / page;
        let last = (slot.base().addr() + bytes - 1) / page;
        let is_backed = |number: &usize| {
            let mut entry = [0; 8];
            let at = u64::try_from(number * 8).expect("it is an offset");
            pagemap.read_exact_at(&mut entry, at).expect("it has an entry for each page");
            u64::from_ne_bytes(entry) >> 63 == 1
        };
        (first..=last).filter(is_backed).count()
    }

    #[test]
    fn memory_that_no_packet_was_in_is_no_memory() {
        let bytes = 66_560;
        let ring = ReceiveRing::new(64, bytes, 128).unwrap();
        let backed = || -> usize {
            ring.slots.iter().chain(&ring.spares).map(|slot| backed_pages(slot, bytes)).sum()
        };
        assert_eq!(backed(), 0);
        // As a receive would, in the midst of the slot's pages.
        // SAFETY: the slot has that many bytes, and nobody else reads or writes them.
        unsafe { ring.slots[3].base().wrapping_add(30_000).write_bytes(7, 10) };
        assert!((1..=2).contains(&backed()), "{}", backed());
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error() {
        assert!(ReceiveRing::new(1 << 30, 1 << 30, 0).is_err());
    }

    #[test]
    fn lent_memory_is_not_received_into_and_comes_back() {
        let mut ring = ReceiveRing::new(2, 64, 1).unwrap();
        ring.simulate_receive(&[vec![1; 10], vec![2; 20]]);
        let lent = ring.lend(1);
        assert_eq!(ring.datagram(1), &lent[..], "it is still read where it lies");
        let memory = lent.as_ptr();
        ring.replace_lent();
        assert_ne!(ring.slots[1].base().cast_const(), memory);
        assert_eq!(ring.vectors[1].iov_base.cast::<u8>(), ring.slots[1].base());
        assert!(ring.spares.is_empty());
        assert_eq!(&lent[..], [2; 20]);
        ring.give_back(lent);
        assert_eq!(ring.spares[0].base().cast_const(), memory);
    }

    #[test]
    fn what_comes_back_before_the_next_receive_stays_in_its_place() {
        let mut ring = ReceiveRing::new(1, 64, 1).unwrap();
        ring.simulate_receive(&[vec![1; 10]]);
        let place = ring.slots[0].base();
        let mut lent = ring.lend(0);
        assert!(lent.get_mut().is_none(), "the ring may still be reading it");
        ring.give_back(lent);
        ring.replace_lent();
        assert_eq!((ring.slots[0].base(), ring.spares.len()), (place, 1));
    }
}
