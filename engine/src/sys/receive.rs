//! Many datagrams in one system call: `recvmmsg` into buffers that are allocated once.
//!
//! ```text
//! arena    | slot 0: stride bytes | slot 1 | ...             | slot batch-1 |
//!            ^                      ^
//! vectors  | base, stride         | base, stride | ...
//!            ^                      ^
//! headers  | vector, length, flags| ...                       what recvmmsg reads and fills
//! ```
//!
//! Invariant: the three arrays never move or grow after [`ReceiveRing::new`], so the pointers between them stay
//! good; slots are read only up to the length that the kernel wrote. Pages of the arena are touched first by the
//! worker's own receive, so they lie in its memory node, and only as many as packets fill.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

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

/// Buffers for one batch of datagrams.
#[derive(Debug)]
pub(crate) struct ReceiveRing {
    arena: NonNull<[u8]>,
    /// Read by the kernel through `headers`; held so that it lives as long as they point to it.
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    stride: usize,
    received: usize,
}

// SAFETY: the pointers lead to memory that this value alone owns; nothing is tied to a thread.
unsafe impl Send for ReceiveRing {}

impl ReceiveRing {
    /// Room for `batch` datagrams of up to `datagram_bytes` each. A longer one is cut and says so.
    pub(crate) fn new(batch: usize, datagram_bytes: usize) -> Self {
        assert!(batch > 0 && datagram_bytes > 0, "an empty ring can receive nothing");
        let stride = datagram_bytes.next_multiple_of(CACHE_LINE);
        // calloc'ed: pages that no packet reaches are never backed by memory.
        let arena = NonNull::from(Box::leak(vec![0_u8; batch * stride].into_boxed_slice()));
        let mut vectors: Vec<libc::iovec> = (0..batch)
            .map(|slot| {
                // SAFETY: slot < batch, so the offset stays inside the arena's batch * stride bytes.
                let base = unsafe { arena.cast::<u8>().add(slot * stride) };
                libc::iovec { iov_base: base.as_ptr().cast(), iov_len: stride }
            })
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
        Self { arena, _vectors: vectors, headers, stride, received: 0 }
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
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let batch = libc::c_uint::try_from(self.headers.len()).expect("batches are small");
        // SAFETY: recvmmsg reads and writes `batch` headers, which is how many there are; each header's one
        // vector is in `_vectors` and names a slot of the arena, and both live as long as self. `&mut self`
        // means that no slot is lent out. No timeout is passed.
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

    /// One datagram of the last receive.
    ///
    /// # Panics
    /// If fewer were received.
    #[inline]
    pub(crate) fn datagram(&self, index: usize) -> &[u8] {
        assert!(index < self.received, "only received slots can be read");
        let length = (self.headers[index].msg_len as usize).min(self.stride);
        // SAFETY: index < received <= batch, so the slot lies inside the arena.
        let start = unsafe { self.arena.cast::<u8>().add(index * self.stride) };
        // SAFETY: the slot has `stride` bytes and `length` is no more; they are initialised (zeroed at the
        // start, then written by the kernel); the borrow of self keeps `receive` from writing to it.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        // SAFETY: `arena` came from Box::leak in `new`, is freed only here, and no slot outlives self.
        drop(unsafe { Box::from_raw(self.arena.as_ptr()) });
    }
}

/// Slots begin on cache lines of their own. How far apart they lie beyond that showed no difference in cost.
const CACHE_LINE: usize = 64;
