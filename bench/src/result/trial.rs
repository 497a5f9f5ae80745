//! One target's run over one load: what was sent, what became of it, what it cost.
//!
//! Invariant: an [`Account`] has a place for every packet; what has none is `unaccounted`, and then the trial is an
//! error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Trial {
    /// What it was for: `cpu`, `ndr`, `curve`, `latency`, `tcp`, `connections`.
    pub(crate) purpose: String,
    pub(crate) target: String,
    /// Counts up over the run; targets of one round are neighbours.
    pub(crate) round: usize,
    /// The rate asked for, all senders together; none for "as fast as it goes".
    pub(crate) intended_pps: Option<f64>,
    /// From the first packet to the last, as sent.
    pub(crate) seconds: f64,
    pub(crate) account: Account,
    /// Why it does not count; none if it does.
    pub(crate) void: Option<String>,
    /// How late the generator was: 99th percentile, in microseconds.
    pub(crate) lateness_us_p99: Option<f64>,
    /// Share of CPU time that the host took from this machine meanwhile.
    pub(crate) stolen_share: f64,
    /// How long the bench had rested before this trial, in seconds, since the host had taken CPU time from an earlier
    /// one; none where it had not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rested_seconds: Option<f64>,
    /// None where there is no process to measure.
    pub(crate) cpu: Option<CpuUse>,
    pub(crate) queues: Vec<QueueShare>,
    /// One-way delays; empty where they were not asked for.
    pub(crate) latency: Vec<Bucket>,
    /// Bulk TCP only.
    pub(crate) gbit_per_s: Option<f64>,
    /// Short TCP connections only.
    #[serde(default)]
    pub(crate) connections_per_s: Option<f64>,
}

/// Where each packet went: offered = delivered + all the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Account {
    pub(crate) offered: u64,
    /// Different packets that reached the sink.
    pub(crate) delivered: u64,
    /// Dropped by the target's own verdict.
    pub(crate) policy_drops: u64,
    /// Dropped by the target unseen, since there were too many; also what it dropped of its own accord where the two
    /// are known only together.
    #[serde(default)]
    pub(crate) shed: u64,
    /// The queue was full (`queue_dropped`).
    pub(crate) queue_drops: u64,
    /// The socket's buffer was full (`user_dropped`, seen by the target as a gap in the ids).
    pub(crate) socket_drops: u64,
    /// Still queued when the target ended.
    pub(crate) flushed: u64,
    /// Lost by the interfaces or the backlog before the rule.
    pub(crate) device_drops: u64,
    /// Captures only: packets that the engine's namespace did not forward, so that they came to no rule.
    #[serde(default)]
    pub(crate) unrouted: u64,
    /// Loads with fragments only: packets that arrived beside one that is lost, so that their datagram did not.
    #[serde(default)]
    pub(crate) incomplete: u64,
    /// Lost by the sink's own socket.
    pub(crate) sink_drops: u64,
    /// What is left over.
    pub(crate) unaccounted: i64,
    /// Came more than once.
    pub(crate) duplicates: u64,
    /// Came behind a later packet of its flow.
    pub(crate) reordered: u64,
}

/// What the target's processes used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CpuUse {
    /// User and system time, in microseconds.
    pub(crate) us: f64,
    /// Packets that it answered; one that it repeats comes to its queue again and counts each time.
    pub(crate) answered: u64,
    /// Where the target counts them.
    pub(crate) receive_calls: Option<u64>,
    pub(crate) send_calls: Option<u64>,
    pub(crate) resident_kib_max: u64,
}

/// What one queue got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct QueueShare {
    pub(crate) queue: u16,
    pub(crate) packets: u64,
    pub(crate) queue_drops: u64,
    pub(crate) socket_drops: u64,
}

/// So many delays of about this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Bucket {
    pub(crate) ns: u64,
    pub(crate) count: u64,
}
