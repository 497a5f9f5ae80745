//! What a worker shows of itself while it works, and what was done in its place meanwhile.
//!
//! ```text
//!   worker: writes            watchdog: reads            watchdog: writes            worker: reads
//!   beat, next id             beat the same for long?    claims ids, answers them    claimed? once a packet,
//!                                                                                    after the inspector
//! ```
//!
//! Invariant: an id that was claimed is answered and counted by one side only: the worker forgoes its own verdict for
//! it. The kernel sees to the rest: a second verdict for a packet is refused (`ENOENT`) and touches no other, as an
//! id comes again only after 2^32 packets. Each side writes a cache line of its own; the worker pays one load a packet
//! and three stores a batch.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nfq::PacketId;
use crate::stats::WorkerCounters;

/// Written by the worker.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    /// Odd while the worker has packets in hand, even while it receives. Changes with every turn.
    beat: AtomicU64,
    /// The id that the next packet is expected to have.
    next_id: AtomicU32,
    /// The same when the batch at hand began, or when all of it had been answered: if it equals `next_id`, no packet
    /// is at hand.
    first_id: AtomicU32,
}

impl Heartbeat {
    pub(super) fn new(first: PacketId) -> Self {
        let id = || AtomicU32::new(first.0);
        Self { beat: AtomicU64::new(0), next_id: id(), first_id: id() }
    }

    /// Awaits this id next rather than a queue's first: before the worker has its queue.
    pub(crate) fn continue_at(&self, id: PacketId) {
        self.next_id.store(id.0, Ordering::Relaxed);
        self.first_id.store(id.0, Ordering::Relaxed);
    }

    // Relaxed, here and below: only the worker writes these; the watchdog reads them behind its fence, in
    // `Outside::claim`.
    #[inline]
    pub(crate) fn next_id(&self) -> PacketId {
        PacketId(self.next_id.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_next_id(&self, id: PacketId) {
        self.next_id.store(id.0, Ordering::Relaxed);
    }

    /// The worker has packets in hand.
    #[inline]
    pub(crate) fn begin_batch(&self) {
        self.mark_answered();
        let beat = self.beat.load(Ordering::Relaxed);
        self.beat.store((beat | 1).wrapping_add((beat & 1) * 2), Ordering::Release);
    }

    /// All that came is answered: what follows is no packet's.
    #[inline]
    pub(super) fn mark_answered(&self) {
        self.first_id.store(self.next_id.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The worker is about to receive.
    #[inline]
    pub(crate) fn end_batch(&self) {
        let beat = self.beat.load(Ordering::Relaxed);
        // SeqCst, with the fence in `Outside::claim`: either the watchdog sees that the worker has moved and does
        // nothing, or the worker sees its claim and waits for what it does.
        self.beat.swap((beat | 1).wrapping_add(1), Ordering::SeqCst);
    }

    /// The worker is alive, with nothing in hand.
    #[inline]
    pub(super) fn tick(&self) {
        self.beat.store(self.beat.load(Ordering::Relaxed).wrapping_add(2), Ordering::Relaxed);
    }

    /// For the watchdog: a number that changes with every turn.
    pub(crate) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Acquire)
    }

    /// Whether a worker with this beat has packets in hand.
    pub(crate) const fn is_at_work(beat: u64) -> bool {
        beat & 1 == 1
    }

    /// The packet that is at hand, and whether others of its batch lie before it, whose verdicts may not have been
    /// sent.
    pub(crate) fn at_hand(&self) -> Option<(PacketId, bool)> {
        let (next, first) = (self.next_id(), self.first_id.load(Ordering::Relaxed));
        let at_work = Self::is_at_work(self.beat());
        (at_work && next.0 != first)
            .then(|| PacketId(next.0.wrapping_sub(1)))
            .map(|id| (id, id.0 != first))
    }
}

/// Written by the watchdog.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    claimed: AtomicBool,
    taken: Mutex<Taken>,
    pub(crate) counters: WorkerCounters,
}

/// What was answered from outside.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The first and the last id.
    pub(crate) range: Option<(PacketId, PacketId)>,
    /// The first and the last id whose message was received from outside.
    pub(crate) drained: Option<(PacketId, PacketId)>,
}

impl Taken {
    /// Whether this id is among them.
    pub(crate) fn covers(&self, id: PacketId) -> bool {
        self.range.is_some_and(|(from, to)| {
            id.distance_from(from).is_some() && to.distance_from(id).is_some()
        })
    }
}

impl Outside {
    /// Whoever holds this may answer the worker's packets, after a claim.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims what is queued, if the worker still has this beat.
    pub(crate) fn claim(&self, heartbeat: &Heartbeat, beat: u64, taken: &Taken) -> bool {
        self.claimed.store(true, Ordering::Release);
        // With the swap in `Heartbeat::end_batch`: see there.
        fence(Ordering::SeqCst);
        let claimed = heartbeat.beat() == beat;
        if !claimed && taken.range.is_none() {
            self.claimed.store(false, Ordering::Release);
        }
        claimed
    }

    /// Whether something was claimed that the worker has not passed yet.
    #[inline]
    pub(super) fn is_claimed(&self) -> bool {
        // Acquire, with the Release in `claim`.
        self.claimed.load(Ordering::Acquire)
    }

    /// For the worker: forgets what lies behind it.
    pub(super) fn release(&self, taken: &mut Taken) {
        *taken = Taken::default();
        self.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_at_hand_is_known_only_while_there_is_one() {
        let heartbeat = Heartbeat::new(PacketId(1));
        assert_eq!(heartbeat.at_hand(), None);
        heartbeat.begin_batch();
        assert_eq!(heartbeat.at_hand(), None, "none was looked at yet");
        heartbeat.set_next_id(PacketId(2));
        assert_eq!(heartbeat.at_hand(), Some((PacketId(1), false)));
        heartbeat.set_next_id(PacketId(3));
        assert_eq!(heartbeat.at_hand(), Some((PacketId(2), true)));
        heartbeat.mark_answered();
        assert_eq!(heartbeat.at_hand(), None);
        heartbeat.end_batch();
        assert_eq!(heartbeat.at_hand(), None);
    }

    #[test]
    fn every_turn_changes_the_beat_and_only_work_makes_it_odd() {
        let heartbeat = Heartbeat::new(PacketId(1));
        let mut seen = vec![heartbeat.beat()];
        for step in [
            Heartbeat::begin_batch,
            Heartbeat::end_batch,
            Heartbeat::tick,
            Heartbeat::begin_batch,
            Heartbeat::begin_batch,
            Heartbeat::end_batch,
        ] {
            step(&heartbeat);
            seen.push(heartbeat.beat());
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        let odd: Vec<_> = seen.iter().map(|beat| Heartbeat::is_at_work(*beat)).collect();
        assert_eq!(odd, [false, true, false, false, true, true, false]);
    }

    #[test]
    fn a_claim_is_void_once_the_worker_has_moved() {
        let (heartbeat, outside) = (Heartbeat::new(PacketId(1)), Outside::default());
        heartbeat.begin_batch();
        let beat = heartbeat.beat();
        let mut taken = outside.lock();
        assert!(outside.claim(&heartbeat, beat, &taken) && outside.is_claimed());
        outside.release(&mut taken);
        heartbeat.end_batch();
        assert!(!outside.claim(&heartbeat, beat, &taken) && !outside.is_claimed());
    }

    #[test]
    fn ids_are_covered_across_the_wrap() {
        let range = Some((PacketId(u32::MAX - 1), PacketId(1)));
        let taken = Taken { range, drained: None };
        for (id, covered) in
            [(u32::MAX - 2, false), (u32::MAX, true), (0, true), (1, true), (2, false)]
        {
            assert_eq!(taken.covers(PacketId(id)), covered, "{id}");
        }
    }
}
