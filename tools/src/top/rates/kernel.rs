//! What the kernel's counters did between two samples.
//!
//! Invariant: no difference is negative, whatever the counters did.

use fanq::KernelRow;

use super::super::samples::QueueSample;
use super::float;

/// Differences of one queue's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KernelDelta {
    /// The queue is another one than before: bound anew, or not there before.
    pub(super) fresh: bool,
    /// Ids given: packets that the queue took, and those that the socket then had no room for.
    pub(super) ids: u64,
    /// Packets that the queue had no room for.
    pub(super) queue_full: u64,
    /// Packets that the socket had no room for.
    pub(super) socket_full: u64,
    /// Messages that the socket had no room for; with fail-open they are no losses.
    pub(super) socket_drops: u64,
    /// Packets that left the queue with a verdict. Negative readings, from counters read one after the other, are 0.
    pub(super) answered: u64,
}

impl KernelDelta {
    /// Between two samples of a queue's number. Without an earlier one, since the queue was bound, which was later
    /// than the last look at the table. Of a socket that is not its own nothing is said.
    pub(super) fn between(
        before: Option<&QueueSample>,
        now: &QueueSample,
        seconds: f64,
        own_socket: bool,
    ) -> Self {
        let zero = KernelRow {
            queue_total: 0,
            queue_dropped: 0,
            user_dropped: 0,
            id_sequence: 0,
            ..now.row
        };
        let same_port = before.filter(|before| before.row.port_id == now.row.port_id);
        let same = same_port.filter(|before| is_continued(&before.row, &now.row, seconds));
        let then = same.map_or(&zero, |before| &before.row);
        let ids = u64::from(now.row.id_sequence.wrapping_sub(then.id_sequence));
        let socket_full = wrapped(then.user_dropped, now.row.user_dropped);
        // A socket may be older than its binding, so one seen for the first time has lost nothing that is known of.
        let drops = same_port.and_then(|before| before.socket).zip(now.socket);
        let drops = drops.filter(|_| own_socket);
        let socket_drops =
            drops.map_or(0, |(then, now)| u64::from(now.drops.wrapping_sub(then.drops)));
        let unseen = socket_drops.saturating_sub(socket_full);
        let entered = ids.saturating_sub(socket_full).saturating_sub(unseen);
        Self {
            fresh: same.is_none(),
            ids,
            queue_full: wrapped(then.queue_dropped, now.row.queue_dropped),
            socket_full,
            socket_drops,
            answered: entered.saturating_add(then.queue_total).saturating_sub(now.row.queue_total),
        }
    }

    /// Packets that fail-open let pass as the socket was full.
    pub(super) fn unseen(&self) -> u64 {
        self.socket_drops.saturating_sub(self.socket_full)
    }
}

/// Whether these are counters of one binding, where they may have wrapped. One that would have gone on faster than any
/// machine can, or half way round, has begun anew.
fn is_continued(then: &KernelRow, now: &KernelRow, seconds: f64) -> bool {
    let most = (RATE_MAX * seconds.max(1.0)).min(HALF_WAY_ROUND);
    let possible = |count: u64| float(count) <= most;
    possible(u64::from(now.id_sequence.wrapping_sub(then.id_sequence)))
        && possible(wrapped(then.queue_dropped, now.queue_dropped))
        && possible(wrapped(then.user_dropped, now.user_dropped))
}

/// How far a counter went that the kernel keeps in 32 bits (`struct nfqnl_instance`).
fn wrapped(then: u64, now: u64) -> u64 {
    now.wrapping_sub(then) & u64::from(u32::MAX)
}

/// Packets per second that no queue reaches: a hundred times the fastest that was measured.
const RATE_MAX: f64 = 1e8;

/// Of counters of 32 bits: beyond it, forwards and backwards are the same.
const HALF_WAY_ROUND: f64 = 2_147_483_648.0;
