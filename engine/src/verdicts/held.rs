//! Packets whose verdict comes later: which they are, what each gets if nobody answers, and by when.
//!
//! ```text
//!   oldest                                  newest
//!   | 17 waits | 18 answered | 19 waits | 23 waits |
//! ```
//!
//! Invariant: ids rise from the front (in serial-number order), and the front waits. So the oldest packet that is
//! held is the front, and a verdict for it covers nobody else's packet. It deliberately writes no message and knows no
//! clock: a deadline is a number that its owner compares with others.

use std::collections::VecDeque;

use crate::nfq::{PacketId, Verdict};

#[derive(Debug)]
pub(super) struct HeldPackets {
    entries: VecDeque<Entry>,
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    id: PacketId,
    fallback: Verdict,
    deadline: u64,
    answered: bool,
}

/// A packet that was held until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) id: PacketId,
    /// What it was to get if nobody answered.
    pub(super) fallback: Verdict,
    /// Whether no older packet is held.
    pub(super) oldest: bool,
}

impl HeldPackets {
    /// Room for `most` packets at a time; beyond that it allocates.
    pub(super) fn with_capacity(most: usize) -> Self {
        // Twice, so that making room (`compact`) happens once in `most` packets at the most.
        Self { entries: VecDeque::with_capacity(2 * most), waiting: 0 }
    }

    /// How many wait for their verdict.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Holds one more packet. It is newer than all that are held.
    pub(super) fn hold(&mut self, id: PacketId, fallback: Verdict, deadline: u64) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.retain(|entry| !entry.answered);
        }
        self.entries.push_back(Entry { id, fallback, deadline, answered: false });
        self.waiting += 1;
    }

    /// Where the packet stands, answered or not.
    fn position(&self, id: PacketId) -> Option<usize> {
        let first = self.entries.front()?.id;
        if id == first {
            return Some(0);
        }
        let place = id.0.wrapping_sub(first.0);
        self.entries.binary_search_by_key(&place, |e| e.id.0.wrapping_sub(first.0)).ok()
    }

    /// Whether the packet waits.
    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.position(id).is_some_and(|index| !self.entries[index].answered)
    }

    /// Ends the wait of every packet up to `last`, and returns how many waited.
    pub(super) fn release_up_to(&mut self, last: PacketId) -> usize {
        let mut released = 0;
        while let Some(entry) = self.entries.front() {
            // Distances as the kernel takes them: an id behind `last` is less than half the numbers away.
            if !entry.answered && last.distance_from(entry.id).is_none() {
                break;
            }
            released += usize::from(!entry.answered);
            self.entries.pop_front();
        }
        self.waiting -= released;
        released
    }

    /// Ends a packet's wait. `None` if it was not held, or no longer is.
    pub(super) fn release(&mut self, id: PacketId) -> Option<Released> {
        let index = self.position(id)?;
        let entry = &mut self.entries[index];
        if std::mem::replace(&mut entry.answered, true) {
            return None;
        }
        let released = Released { id, fallback: entry.fallback, oldest: index == 0 };
        self.waiting -= 1;
        while self.entries.front().is_some_and(|entry| entry.answered) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            // Begins anew at the front of its memory, so that short lists stay in the cache rather than walk round.
            self.entries.clear();
        }
        Some(released)
    }

    /// Ends the wait of the oldest packet, if its time is over.
    pub(super) fn release_overdue(&mut self, now: u64) -> Option<Released> {
        let oldest = self.entries.front().filter(|entry| entry.deadline <= now)?.id;
        self.release(oldest)
    }

    /// When the oldest packet's time is over.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.deadline)
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.waiting = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: u64 = 100;

    #[test]
    fn the_oldest_is_known_whatever_order_answers_come_in() {
        let mut held = HeldPackets::with_capacity(4);
        let ids = [u32::MAX - 1, u32::MAX, 0, 5].map(PacketId);
        for id in ids {
            held.hold(id, Verdict::DROP, LATER);
        }
        let oldest = |held: &mut HeldPackets, id| held.release(id).map(|released| released.oldest);
        assert_eq!(oldest(&mut held, PacketId(3)), None, "never held");
        assert_eq!(oldest(&mut held, ids[1]), Some(false));
        assert_eq!(oldest(&mut held, ids[1]), None, "answered already");
        assert_eq!(oldest(&mut held, ids[0]), Some(true));
        assert_eq!(oldest(&mut held, ids[2]), Some(true), "the one before it was answered");
        assert_eq!(held.len(), 1);
        assert_eq!(held.release_overdue(99), None);
        let overdue = held.release_overdue(LATER).unwrap();
        assert_eq!((overdue.id, overdue.fallback), (ids[3], Verdict::DROP));
        assert_eq!((held.len(), held.next_deadline()), (0, None));
    }

    #[test]
    fn a_batch_ends_the_wait_of_all_up_to_its_id_and_of_no_other() {
        let mut held = HeldPackets::with_capacity(4);
        let ids = [u32::MAX - 1, u32::MAX, 0, 5].map(PacketId);
        for id in ids {
            held.hold(id, Verdict::DROP, LATER);
        }
        held.release(ids[1]).unwrap();
        assert_eq!(held.release_up_to(PacketId(u32::MAX - 2)), 0);
        assert_eq!(held.release_up_to(PacketId(3)), 2);
        assert!(!held.contains(ids[0]) && !held.contains(ids[2]) && held.contains(ids[3]));
        assert_eq!((held.len(), held.release(ids[3]).unwrap().oldest), (1, true));
    }

    #[test]
    fn answered_packets_behind_an_old_one_take_no_room() {
        let mut held = HeldPackets::with_capacity(4);
        let capacity = held.entries.capacity();
        held.hold(PacketId(1), Verdict::DROP, LATER);
        for id in 2..1000 {
            held.hold(PacketId(id), Verdict::DROP, LATER);
            held.release(PacketId(id)).unwrap();
        }
        assert_eq!((held.entries.capacity(), held.len()), (capacity, 1));
    }
}
