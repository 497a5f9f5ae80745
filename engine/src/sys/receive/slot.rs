//! The memory of one datagram, which may be lent to another thread.
//!
//! ```text
//! slab     | slot 0 | slot 1 | slot 2 | ...     one allocation, freed with the last slot in it
//! ```
//!
//! Invariants: a slot's memory is written by the kernel, through a receive, or by its only owner. Whoever else has
//! it reads. Slots do not overlap. A page that nothing was received into is not backed by memory.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory for one datagram. Held by raw pointer, since the kernel writes to it behind the compiler's back.
#[derive(Debug)]
pub(super) struct Slot {
    memory: NonNull<[u8]>,
    /// What keeps it.
    _slab: Arc<Slab>,
}

// SAFETY: the memory is this value's alone; who may read and write it when is the invariant above, which `bytes`
// and `get_mut` ask of their callers.
unsafe impl Send for Slot {}
// SAFETY: as above; a shared slot is only read.
unsafe impl Sync for Slot {}

/// What several slots lie in.
#[derive(Debug)]
struct Slab {
    memory: NonNull<[u8]>,
}

// SAFETY: it reads and writes nothing; it only frees, once, when no slot is left.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(memory: Vec<u8>) -> Self {
        Self { memory: NonNull::from(Box::leak(memory.into_boxed_slice())) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the memory came from Box::leak and is freed only here; every slot in it keeps self alive.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

impl Slot {
    /// `count` slots of `bytes` each, zeroed. All are one allocation: one so large comes from the kernel as pages that
    /// are not backed by memory until they are touched, while calloc writes zeroes over small ones.
    pub(super) fn many(count: usize, bytes: usize) -> Vec<Self> {
        let slab = Arc::new(Slab::new(vec![0; count * bytes]));
        (0..count).map(|number| Self::within(&slab, number * bytes, bytes)).collect()
    }

    /// A slot that begins with these bytes.
    pub(super) fn holding(datagram: &[u8], bytes: usize) -> Self {
        let mut memory = datagram.to_vec();
        memory.resize(bytes.max(datagram.len()), 0);
        let length = memory.len();
        Self::within(&Arc::new(Slab::new(memory)), 0, length)
    }

    /// The slot at `start`. To be made once for each place.
    fn within(slab: &Arc<Slab>, start: usize, bytes: usize) -> Self {
        assert!(start + bytes <= slab.memory.len(), "a slot lies within its slab");
        // SAFETY: `start` is within the slab's allocation, as was just asserted.
        let base = unsafe { slab.memory.cast::<u8>().add(start) };
        Self { memory: NonNull::slice_from_raw_parts(base, bytes), _slab: Arc::clone(slab) }
    }

    /// Where the kernel is to write.
    pub(super) fn base(&self) -> *mut u8 {
        self.memory.cast().as_ptr()
    }

    /// The first bytes, no more than there are.
    ///
    /// # Safety
    /// Nothing may write to the slot while they are borrowed.
    #[inline]
    pub(super) unsafe fn bytes(&self, length: usize) -> &[u8] {
        let length = length.min(self.memory.len());
        // SAFETY: the memory has at least `length` bytes, initialised (zeroed at the start, then written by the
        // kernel), and its slab lives as long as self; that nothing writes to it is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast().as_ptr(), length) }
    }
}

/// A datagram that was lent: owned memory, which goes to other threads and back without being copied.
#[derive(Debug)]
pub(crate) struct LentDatagram {
    slot: Arc<Slot>,
    length: usize,
}

impl LentDatagram {
    pub(super) fn new(slot: Arc<Slot>, length: usize) -> Self {
        Self { slot, length }
    }

    /// A datagram that is in no ring. Copies.
    pub(crate) fn copied(datagram: &[u8]) -> Self {
        Self::new(Arc::new(Slot::holding(datagram, datagram.len())), datagram.len())
    }

    /// The bytes, to be changed; `None` while the ring that lent them has not moved on.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [u8]> {
        let length = self.length;
        let slot = Arc::get_mut(&mut self.slot)?;
        // SAFETY: the memory has at least `length` bytes (they were received into it), initialised, and living as
        // long as self; `slot` is its only owner and borrowed mutably, so nobody else reads or writes it.
        Some(unsafe { std::slice::from_raw_parts_mut(slot.base(), length) })
    }

    /// The memory, if nobody else has it and it is a ring's of this stride.
    pub(super) fn into_only_owner(mut self, stride: usize) -> Option<Arc<Slot>> {
        let fits = self.slot.memory.len() == stride;
        (Arc::get_mut(&mut self.slot).is_some() && fits).then_some(self.slot)
    }
}

impl Deref for LentDatagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a ring receives into no slot that is lent, and `get_mut` is for an only owner that borrows self.
        unsafe { self.slot.bytes(self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_apart_and_outlive_each_other() {
        let mut slots = Slot::many(3, 128);
        let last = slots.pop().unwrap();
        let starts: Vec<usize> = slots.iter().map(|slot| slot.base().addr()).collect();
        assert_eq!(starts[1] - starts[0], 128);
        assert_eq!(last.base().addr() - starts[1], 128);
        drop(slots);
        let mut lent = LentDatagram::new(Arc::new(last), 128);
        lent.get_mut().unwrap().fill(7);
        assert_eq!(lent[..], [7; 128]);
    }

    #[test]
    fn memory_backs_slots_only_where_something_was_written() {
        const BYTES: usize = 66_560;
        let slots = Slot::many(512, BYTES);
        let all = slots[0].base();
        assert!(resident_pages(all, 512 * BYTES) <= 1, "the page of the allocation's own header");
        let mut written = LentDatagram::new(Arc::new(slots.into_iter().nth(300).unwrap()), 100);
        written.get_mut().unwrap().fill(1);
        assert!((1..=3).contains(&resident_pages(all, 512 * BYTES)));
    }

    /// How many pages of a mapping are backed by memory.
    fn resident_pages(start: *mut u8, bytes: usize) -> usize {
        const PAGE: usize = 4096;
        let first = start.map_addr(|address| address & !(PAGE - 1));
        let length = start.addr() + bytes - first.addr();
        let mut pages = vec![0_u8; length.div_ceil(PAGE)];
        // SAFETY: mincore reads no memory at `first` and writes one byte for each page of `length`, for which `pages`
        // has room.
        let result = unsafe { libc::mincore(first.cast(), length, pages.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 != 0).count()
    }
}
