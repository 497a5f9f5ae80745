//! The memory of one datagram, which may be lent to another thread.
//!
//! Invariant: a slot's memory is written by the kernel, through a receive, or by its only owner. Whoever else has
//! it reads.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::mapping::Mapping;

/// Memory for one datagram. Held by raw pointer, since the kernel writes to it behind the compiler's back.
#[derive(Debug)]
pub(super) struct Slot {
    memory: NonNull<[u8]>,
    /// What the memory is a part of. Without one it is a box of its own.
    mapping: Option<Arc<Mapping>>,
}

// SAFETY: the memory is this value's alone; who may read and write it when is the invariant above, which `bytes`
// and `get_mut` ask of their callers.
unsafe impl Send for Slot {}
// SAFETY: as above; a shared slot is only read.
unsafe impl Sync for Slot {}

impl Slot {
    /// So many bytes of the mapping, behind that many others, which are no other slot's.
    pub(super) fn of(mapping: &Arc<Mapping>, offset: usize, bytes: usize) -> Self {
        Self { memory: mapping.part(offset, bytes), mapping: Some(Arc::clone(mapping)) }
    }

    /// So many bytes of its own, zeroed.
    pub(super) fn alone(bytes: usize) -> Self {
        let memory = Box::leak(vec![0_u8; bytes].into_boxed_slice());
        Self { memory: NonNull::from(memory), mapping: None }
    }

    /// So many bytes, beginning with these.
    pub(super) fn holding(datagram: &[u8], bytes: usize) -> Self {
        let mut memory = datagram.to_vec();
        memory.resize(bytes.max(datagram.len()), 0);
        Self { memory: NonNull::from(Box::leak(memory.into_boxed_slice())), mapping: None }
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
        // kernel), and lives as long as self; that nothing writes to it is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast().as_ptr(), length) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.mapping.is_none() {
            // SAFETY: the memory came from Box::leak, is freed only here, and no borrow outlives self.
            drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
        }
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
