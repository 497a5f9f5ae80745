//! Counters, where `fanq accel --stats` reads them: one block a queue, in a file that both have.
//!
//! ```text
//!   0                                        4096                     4096 + block
//!   | fanq.accel/1 BLOCKS name,name,...\n    | queue + 1, name, ...   | queue + 1, name, ...     64-bit numbers
//! ```
//!
//! Invariant: the file names its own numbers, in the spelling of `fanq run`'s account. Any process of the program adds
//! to a block at any time; readers read what is there. Without a file nothing is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fanq::nfq::{Hook, PacketMessage};
use fanq::{BATCH_SIZE_CLASSES, Verdict, VerdictCode};

/// The numbers of the file behind its head, for as long as the process lives.
static BLOCKS: OnceLock<&'static [AtomicU64]> = OnceLock::new();

/// Where the numbers begin; before them stands [`head`].
pub(crate) const HEAD_BYTES: usize = 4096;

/// How many bytes of the file are numbers.
pub(crate) const NUMBER_BYTES: usize = QUEUES_MAX * BLOCK * 8;

/// Counts into this memory from now on.
pub(crate) fn count_into(numbers: &'static [AtomicU64]) {
    let _ = BLOCKS.set(numbers);
}

/// What stands at the front of the file.
pub(crate) fn head() -> String {
    format!("fanq.accel/1 {QUEUES_MAX} {}\n", NAMES.join(","))
}

/// One queue's counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueCounters(Option<&'static [AtomicU64]>);

impl QueueCounters {
    /// The block of a queue: its own from before, or a free one.
    pub(crate) fn of(queue: u16) -> Self {
        let name = u64::from(queue) + 1;
        let take = |block: &&[AtomicU64]| {
            let known = block[0].compare_exchange(0, name, Ordering::Relaxed, Ordering::Relaxed);
            known.is_ok() || known == Err(name)
        };
        Self(BLOCKS.get().and_then(|blocks| blocks.chunks_exact(BLOCK).find(take)))
    }

    /// Whether anything is counted.
    #[inline]
    pub(crate) fn are_kept(self) -> bool {
        self.0.is_some()
    }

    /// A receive that brought packets.
    pub(crate) fn receive(self, packets: usize) {
        if let Some(class) = packets.checked_ilog2() {
            self.add(RECV_CALLS, 1);
            self.add(BATCHES + (class as usize).min(BATCH_SIZE_CLASSES - 1), 1);
        }
    }

    /// A packet that was received.
    #[inline]
    pub(crate) fn packet(self, packet: &PacketMessage<'_>) {
        self.add(PACKETS, 1);
        self.add(BYTES, u64::from(packet.length()));
        let hook = match packet.hook() {
            Hook::Other(_) => Hook::NAMED,
            named => usize::from(named.number()),
        };
        self.add(HOOKS + hook, 1);
    }

    /// A packet whose message could not be decoded, but for its id.
    pub(crate) fn undecodable(self) {
        self.add(PACKETS, 1);
        self.add(UNDECODABLE, 1);
    }

    /// Verdicts that were given.
    #[inline]
    pub(crate) fn verdicts(self, verdict: Verdict, count: usize) {
        let place = match verdict.code() {
            VerdictCode::Accept => ACCEPTED,
            VerdictCode::Drop => ACCEPTED + 1,
            VerdictCode::Repeat => ACCEPTED + 2,
            VerdictCode::Stop => ACCEPTED + 3,
            VerdictCode::Queue { .. } => ACCEPTED + 4,
        };
        self.add(place, count as u64);
        if verdict.mark().is_some() {
            self.add(MARKED, count as u64);
        }
    }

    /// A packet whose bytes were replaced.
    pub(crate) fn rewritten(self) {
        self.add(REWRITTEN, 1);
    }

    /// A send with verdicts.
    pub(crate) fn send(self) {
        self.add(SEND_CALLS, 1);
    }

    /// Ids that the socket had no room for.
    pub(crate) fn lost(self, ids: u32) {
        self.add(ID_GAPS, ids.into());
    }

    /// A verdict that the kernel refused.
    pub(crate) fn verdict_error(self) {
        self.add(VERDICT_ERRORS, 1);
    }

    #[inline]
    fn add(self, place: usize, count: u64) {
        if let Some(block) = self.0 {
            // Several may write at once: processes that share a socket, and sockets that share a queue's number.
            block[1 + place].fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// More queues than these are served and not counted.
const QUEUES_MAX: usize = 128;

/// Numbers of a block: its queue, then the counters.
const BLOCK: usize = 1 + NAMES.len();

/// As `fanq run` spells them; the last two groups are its lists.
const NAMES: [&str; HOOKS + Hook::NAMED + 1] = [
    "packets",
    "bytes",
    "accepted",
    "dropped",
    "repeated",
    "stopped",
    "requeued",
    "marked",
    "rewritten",
    "recv_calls",
    "send_calls",
    "id_gaps",
    "undecodable",
    "verdict_errors",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "batch_sizes",
    "hooks",
    "hooks",
    "hooks",
    "hooks",
    "hooks",
    "hooks",
];

const PACKETS: usize = 0;
const BYTES: usize = 1;
const ACCEPTED: usize = 2;
const MARKED: usize = 7;
const REWRITTEN: usize = 8;
const RECV_CALLS: usize = 9;
const SEND_CALLS: usize = 10;
const ID_GAPS: usize = 11;
const UNDECODABLE: usize = 12;
const VERDICT_ERRORS: usize = 13;
const BATCHES: usize = 14;
const HOOKS: usize = BATCHES + BATCH_SIZE_CLASSES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_have_their_names() {
        for (place, name) in [
            (MARKED, "marked"),
            (RECV_CALLS, "recv_calls"),
            (ID_GAPS, "id_gaps"),
            (VERDICT_ERRORS, "verdict_errors"),
            (ACCEPTED + 4, "requeued"),
            (BATCHES, "batch_sizes"),
            (HOOKS - 1, "batch_sizes"),
            (HOOKS, "hooks"),
        ] {
            assert_eq!(NAMES[place], name);
        }
        assert!(head().len() < HEAD_BYTES);
    }
}
