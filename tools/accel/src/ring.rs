//! Datagrams that were received and not yet handed to the program.
//!
//! ```text
//!   slots   | handed out | handed out | waits | waits | free | free |
//!                                       ^ next          ^ filled
//! ```
//!
//! Invariant: they are handed out whole and in the order received, each with the address, the flags and the control
//! messages that the kernel gave it. Memory is taken once; only what datagrams fill is touched. It deliberately does
//! not receive: the system call writes into [`Ring::free_slots`].

/// The datagrams of one socket.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Vec<u8>,
    slots: Vec<Slot>,
    next: usize,
    filled: usize,
}

/// What the kernel says about a datagram, beside its bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Slot {
    /// First, for its alignment as `struct cmsghdr`.
    pub(crate) control: [u8; CONTROL_BYTES_MAX],
    pub(crate) control_length: usize,
    pub(crate) name: [u8; NAME_BYTES_MAX],
    pub(crate) name_length: usize,
    /// How long it was, which may be more than a slot holds.
    pub(crate) length: usize,
    /// `msg_flags`
    pub(crate) flags: i32,
    /// Whether the program is not to see it.
    hidden: bool,
}

/// A datagram that waits for the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) slot: &'a Slot,
}

impl Ring {
    /// Room for `batch` datagrams.
    pub(crate) fn new(batch: usize) -> Self {
        let empty = Slot {
            control: [0; CONTROL_BYTES_MAX],
            control_length: 0,
            name: [0; NAME_BYTES_MAX],
            name_length: 0,
            length: 0,
            flags: 0,
            hidden: false,
        };
        // calloc'ed: pages are backed once a datagram reaches them.
        Self { memory: vec![0; batch * STRIDE], slots: vec![empty; batch], next: 0, filled: 0 }
    }

    /// Whether the program has everything that was received.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.filled
    }

    /// Memory for the next receive, once the ring is empty: each datagram's bytes, and what is said about it.
    pub(crate) fn free_slots(&mut self) -> impl ExactSizeIterator<Item = (&mut [u8], &mut Slot)> {
        debug_assert!(self.is_empty(), "what waits would be written over");
        self.memory.chunks_exact_mut(STRIDE).zip(&mut self.slots)
    }

    /// Takes note that the first `count` slots were filled.
    pub(crate) fn received(&mut self, count: usize) {
        self.next = 0;
        self.filled = count.min(self.slots.len());
        for slot in &mut self.slots[..self.filled] {
            slot.hidden = false;
        }
    }

    /// What was received last, by place.
    pub(crate) fn datagram(&self, index: usize) -> &[u8] {
        let begin = index * STRIDE;
        &self.memory[begin..begin + self.slots[index].length.min(STRIDE)]
    }

    /// The program is not to see this one.
    pub(crate) fn hide(&mut self, index: usize) {
        self.slots[index].hidden = true;
        self.skip_hidden();
    }

    /// The oldest that waits.
    #[inline]
    pub(crate) fn front(&self) -> Option<Datagram<'_>> {
        if self.is_empty() {
            return None;
        }
        Some(Datagram { bytes: self.datagram(self.next), slot: &self.slots[self.next] })
    }

    /// The program has the oldest.
    #[inline]
    pub(crate) fn pop(&mut self) {
        self.next = (self.next + 1).min(self.filled);
        self.skip_hidden();
    }

    /// Forgets what waits: another process has it too.
    pub(crate) fn clear(&mut self) {
        self.next = self.filled;
    }

    fn skip_hidden(&mut self) {
        while self.next < self.filled && self.slots[self.next].hidden {
            self.next += 1;
        }
    }
}

/// The longest datagram: a payload of 65,531 bytes, what the kernel says beside it (1 KiB is ample) and two security
/// contexts; no power of two, so that the beginnings of neighbours do not share a set of the cache.
pub(crate) const STRIDE: usize = 65_536 + 1024 + 8192 + 64;

/// `sizeof(struct sockaddr_nl)`
pub(crate) const NAME_BYTES_MAX: usize = 12;

/// Credentials, packet information and timestamps together take less.
pub(crate) const CONTROL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ring: &mut Ring, datagrams: &[&[u8]]) {
        for ((memory, slot), datagram) in ring.free_slots().zip(datagrams) {
            memory[..datagram.len()].copy_from_slice(datagram);
            slot.length = datagram.len();
        }
        ring.received(datagrams.len());
    }

    #[test]
    fn datagrams_come_out_as_they_went_in_without_those_that_are_hidden() {
        let mut ring = Ring::new(4);
        assert!(ring.front().is_none());
        fill(&mut ring, &[b"own", b"a", b"own", b""]);
        ring.hide(0);
        ring.hide(2);
        assert_eq!(ring.front().unwrap().bytes, b"a");
        ring.pop();
        assert_eq!(ring.front().unwrap().bytes, b"", "an empty datagram is one, too");
        ring.pop();
        assert!(ring.is_empty() && ring.front().is_none());
        fill(&mut ring, &[b"b"]);
        assert_eq!(ring.front().unwrap().bytes, b"b");
        ring.clear();
        assert!(ring.is_empty());
    }

    #[test]
    fn a_ring_of_nothing_but_hidden_ones_is_empty() {
        let mut ring = Ring::new(2);
        fill(&mut ring, &[b"x", b"y"]);
        ring.hide(1);
        ring.hide(0);
        assert!(ring.is_empty());
    }
}
