//! Memory for slots, from the kernel itself.
//!
//! Invariant: zeroed, unmapped when the last slot of it is gone, and backed by pages only where it was written to. What
//! an allocator gives is not: a zeroed block that is too small for a mapping of its own is cleared, and so touched, by
//! whoever asks for it (glibc's calloc), the whole ring of each worker before its first packet. It deliberately hands
//! out pointers only: who may use which part is for [`Slot`](super::slot::Slot).

use std::io;
use std::ptr::NonNull;

/// A private, anonymous mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is this value's alone and tied to no thread; the value itself reads and writes none of it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// So many bytes, at least 1.
    ///
    /// # Errors
    /// `ENOMEM`: there is no room in the address space, or a limit (`RLIMIT_AS`) is reached.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: no address is asked for (MAP_FIXED), so nothing that is mapped already is replaced.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at 0 unasked");
        Ok(Self { base, bytes })
    }

    /// The part of so many bytes behind that many others.
    ///
    /// # Panics
    /// If it is not all in here.
    pub(super) fn part(&self, offset: usize, bytes: usize) -> NonNull<[u8]> {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.bytes), "a part of the mapping");
        // SAFETY: the offset is inside of the mapping, by the line above.
        let start = unsafe { self.base.add(offset) };
        NonNull::slice_from_raw_parts(start, bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is mapped, with this length, and nobody has a pointer into it any more: slots keep it alive.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "what was mapped can be unmapped");
    }
}
