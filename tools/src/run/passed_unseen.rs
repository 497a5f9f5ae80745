//! Packets that passed because a fail-open queue was full: the kernel counts them nowhere but in the rule.
//!
//! ```text
//!   came to the rules   = ids given + dropped by a full queue + passed unseen         since the start
//! ```
//!
//! Invariant: it is never too much. What the kernel counts is read in such an order that packets which come between
//! two readings make it less; and where anything is not known, nothing is said.

use fanq::{Engine, EngineStats, QueueFlag, QueueRange};

use crate::rule_counters::RuleCounters;

/// What had been counted when it began.
#[derive(Debug)]
pub(super) struct PassedUnseen {
    counters: RuleCounters,
    queues: QueueRange,
    came: u64,
    taken: Vec<Taken>,
}

/// Of one queue.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// The last id that the kernel gave; it counts on from 2^32 at 0.
    id: u32,
    /// Packets for which the worker answers, which it counts without a limit.
    known: u64,
    dropped: u64,
}

impl PassedUnseen {
    /// Begins to look, if the queues are fail-open and their rules count.
    pub(super) fn begin(engine: &Engine, queues: QueueRange) -> Option<Self> {
        if !engine.granted_flags().contains(QueueFlag::FailOpen) {
            return None;
        }
        let counters = RuleCounters::open().ok()?;
        let taken = taken(&engine.stats())?;
        let came = counters.came_to(queues)?;
        Some(Self { counters, queues, came, taken })
    }

    /// At least so many have passed since. None if that is not known any more: rules may be gone, or others.
    pub(super) fn count(&self, engine: &Engine) -> Option<u64> {
        let came = self.counters.came_to(self.queues)?.checked_sub(self.came)?;
        let taken = taken(&engine.stats())?;
        let known = self.taken.iter().zip(&taken).map(|(before, now)| now.since(*before));
        Some(came.saturating_sub(known.sum()))
    }
}

impl Taken {
    /// Packets that were given an id or dropped since then.
    fn since(self, before: Self) -> u64 {
        let known = self.known - before.known;
        let given = self.id.wrapping_sub(before.id);
        // The worker is behind the kernel by what waits, and never by half of all ids.
        #[expect(clippy::cast_possible_truncation, reason = "ids are numbers modulo 2^32")]
        let behind = given.wrapping_sub(known as u32).cast_signed();
        known.saturating_add_signed(behind.into()) + self.dropped.saturating_sub(before.dropped)
    }
}

fn taken(stats: &EngineStats) -> Option<Vec<Taken>> {
    let of_one = |queue: &fanq::QueueStats| {
        let (row, counts) = (queue.kernel?, &queue.counts);
        let known = counts.packets + counts.id_gaps + counts.shed + counts.flushed;
        Some(Taken { id: row.id_sequence, known, dropped: row.queue_dropped })
    };
    stats.queues.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_across_the_wrap_and_what_waits_with_them() {
        let taken = |id, known, dropped| Taken { id, known, dropped };
        let none = taken(0, 0, 0);
        assert_eq!(taken(12, 12, 0).since(none), 12);
        assert_eq!(taken(20, 12, 3).since(none), 23, "8 wait, and 3 were dropped");
        assert_eq!(taken(5, (1 << 32) - 3, 0).since(none), (1 << 32) + 5, "over the wrap");
        assert_eq!(taken(2, 4, 0).since(taken(u32::MAX, 1, 0)), 3);
        assert_eq!(taken(10, 12, 0).since(none), 10, "counted between the two readings");
    }
}
