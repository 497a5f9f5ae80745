//! What a worker shares with the rest of the engine: its counters and its orders; and how it can end.
//!
//! Invariant: the counters are written by the worker alone while its thread lives, the order by anyone.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::heartbeat::{Heartbeat, Outside};
use crate::nfq::{CopyRange, PacketId};
use crate::pin::Pin;
use crate::stats::{Counts, WorkerCounters};
use crate::sys::Timestamp;

/// What other threads share with a worker: its counters, which it writes, and its orders, which it reads.
#[derive(Debug)]
pub(crate) struct WorkerShared {
    pub(crate) counters: CachePadded<WorkerCounters>,
    /// Whether packets that do not fit pass unseen rather than being dropped.
    fail_open: AtomicBool,
    orders: CachePadded<Orders>,
    pub(crate) heartbeat: CachePadded<Heartbeat>,
    pub(crate) outside: CachePadded<Outside>,
    /// Whether the watchdog answers in the worker's place.
    stuck: AtomicBool,
    /// Whether the worker is at its end.
    ended: AtomicBool,
    /// Where the worker's thread belongs.
    pub(crate) pin: Pin,
}

/// What a worker is told to do. It looks at each once a turn; both lie in one cache line.
#[derive(Debug, Default)]
struct Orders {
    /// 0 while the worker is to run, else the time ([`Timestamp`]) by which it must have stopped.
    stop_by: AtomicU64,
    /// 0 while nothing is to change, else a copy range ([`CopyRange`] as a number).
    copy_range: AtomicU32,
    /// Whether stopping leaves the queue as it is, for another to go on with.
    released: AtomicBool,
}

impl WorkerShared {
    pub(crate) fn new(fail_open: bool) -> Self {
        Self {
            counters: CachePadded::default(),
            fail_open: AtomicBool::new(fail_open),
            orders: CachePadded::default(),
            heartbeat: CachePadded::new(Heartbeat::new(FIRST_ID)),
            outside: CachePadded::default(),
            stuck: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            pin: Pin::default(),
        }
    }

    /// What was counted for the queue, by its worker and in its place.
    pub(crate) fn snapshot(&self) -> Counts {
        let mut counts = self.counters.snapshot();
        counts += &self.outside.counters.snapshot();
        counts
    }

    /// Notes whether the worker is stuck.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Release);
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Notes that the worker is at its end: nobody need see to it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Says whether the queue has the flag, once that is known: before the worker has its queue.
    pub(crate) fn set_fail_open(&self, on: bool) {
        // Relaxed: the queue reaches the worker through a channel afterwards.
        self.fail_open.store(on, Ordering::Relaxed);
    }

    /// Counts ids that the kernel gave and that never came.
    pub(super) fn count_gap(&self, missing: u32) {
        self.count_gap_in(&self.counters, missing);
    }

    /// The same, by whoever owns these counters.
    pub(crate) fn count_gap_in(&self, counters: &WorkerCounters, missing: u32) {
        counters.id_gaps.add(u64::from(missing));
        if self.fail_open.load(Ordering::Relaxed) {
            counters.uninspected.add(u64::from(missing));
        }
    }

    /// Counts what lies between the id that was expected and this one, except for what was received from outside.
    #[cold]
    pub(super) fn note_jump(&self, id: PacketId) {
        let mut expected = self.heartbeat.next_id();
        if self.outside.is_claimed()
            && let Some((first, last)) = self.outside.lock().drained
            && let (Some(lost_before), Some(_)) =
                (first.distance_from(expected), id.distance_from(last))
        {
            self.count_gap(lost_before);
            expected = last.next();
        }
        if let Some(missing) = id.distance_from(expected) {
            self.count_gap(missing);
        }
    }

    /// For a worker with nothing in hand: goes on behind what was received from outside.
    #[cold]
    pub(super) fn pass_what_was_taken(&self) {
        let mut taken = self.outside.lock();
        let expected = self.heartbeat.next_id();
        if let Some((first, last)) = taken.drained
            && let Some(lost_before) = first.distance_from(expected)
        {
            self.count_gap(lost_before);
            self.heartbeat.set_next_id(last.next());
        }
        self.outside.release(&mut taken);
    }

    /// Counts what got lost behind the last packet that came: `next_id` was awaited, `id_sequence` is the last
    /// that the kernel gave, and so many may still be unread. Only for a worker whose thread has ended, since it writes
    /// the worker's counters.
    pub(crate) fn count_last_gap(&self, next_id: PacketId, id_sequence: u32, unread: u64) {
        if let Some(missing) = PacketId(id_sequence).next().distance_from(next_id) {
            let unread = u32::try_from(unread).unwrap_or(u32::MAX);
            self.count_gap(missing.saturating_sub(unread));
        }
    }

    /// Orders the worker to stop within `limit`. It sees this after its current receive: wake it.
    pub(crate) fn order_stop(&self, limit: Duration) {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let stop_by = Timestamp::now().0.saturating_add(limit_ns).max(1);
        // Release, with the Acquire in `stop_order`: the worker sees all that was written before the order.
        self.orders.stop_by.store(stop_by, Ordering::Release);
    }

    /// Orders the worker to stop within `limit` and to leave its queue as it is.
    pub(crate) fn order_release(&self, limit: Duration) {
        // Relaxed: the order to stop, below, is what makes it seen.
        self.orders.released.store(true, Ordering::Relaxed);
        self.order_stop(limit);
    }

    /// Whether the order to stop, once it is seen, is one to leave the queue.
    pub(super) fn is_released(&self) -> bool {
        self.orders.released.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn stop_order(&self) -> Option<Timestamp> {
        let stop_by = self.orders.stop_by.load(Ordering::Acquire);
        (stop_by != 0).then_some(Timestamp(stop_by))
    }

    /// Orders the worker to change how much of each packet is copied. It sees this after its current receive: wake
    /// it. Of two orders it may see only the later.
    pub(crate) fn order_copy_range(&self, range: CopyRange) {
        let number = match range {
            CopyRange::Full => COPY_FULL,
            CopyRange::Meta => COPY_META,
            CopyRange::Bytes(bytes) => u32::from(bytes).max(1),
        };
        // Relaxed: the number is all that there is to see.
        self.orders.copy_range.store(number, Ordering::Relaxed);
    }

    /// Takes the order to change the copy range, if there is one.
    #[inline]
    pub(super) fn take_copy_range(&self) -> Option<CopyRange> {
        let order = &self.orders.copy_range;
        // Looked at first: a swap writes the line even where there is nothing to take.
        if order.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match order.swap(0, Ordering::Relaxed) {
            0 => None,
            COPY_FULL => Some(CopyRange::Full),
            COPY_META => Some(CopyRange::Meta),
            bytes => Some(CopyRange::Bytes(u16::try_from(bytes).unwrap_or(CopyRange::BYTES_MAX))),
        }
    }
}

/// Numbers of copy ranges that are no number of bytes.
const COPY_FULL: u32 = 1 << 16;
const COPY_META: u32 = 1 << 17;

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The socket broke.
    #[error("queue {queue}: receiving: {source}")]
    Receive {
        /// The queue.
        queue: u16,
        /// The error.
        source: io::Error,
    },
    /// Verdicts could not be sent.
    #[error("queue {queue}: sending verdicts: {source}")]
    Send {
        /// The queue.
        queue: u16,
        /// The error.
        source: io::Error,
    },
    /// The kernel refuses verdicts for want of the capability.
    #[error(
        "queue {queue}: the kernel refuses verdicts: CAP_NET_ADMIN is gone; a program that answers packets must keep it"
    )]
    CapabilityLost {
        /// The queue.
        queue: u16,
    },
    /// The worker itself panicked: a fault of fanq's, as an inspector's panic does not end it.
    #[error("queue {queue}: its worker panicked")]
    Panicked {
        /// The queue.
        queue: u16,
    },
    /// The worker did not end when it was told to.
    #[error("queue {queue}: its worker did not come back: its inspector is busy with a packet")]
    NotBack {
        /// The queue.
        queue: u16,
    },
    /// The inspector did not come back, not even to stop. Its thread is left behind; its queue was answered and given
    /// up.
    #[error("queue {queue}: the inspector has not come back{}, and was left behind", at_packet(*packet))]
    Stuck {
        /// The queue.
        queue: u16,
        /// The packet that it was shown.
        packet: Option<PacketId>,
    },
}

fn at_packet(packet: Option<PacketId>) -> String {
    packet.map_or_else(String::new, |id| format!(" from packet {}", id.0))
}

/// The id that the kernel gives to a queue's first packet (`++queue->id_sequence` from 0).
const FIRST_ID: PacketId = PacketId(1);
