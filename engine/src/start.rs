//! What can go wrong with the start of an engine, and what can be odd about it.
//!
//! Invariant: every error says what, where, and what to do next; after any of them nothing is bound.

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::cpus::CpuId;
use crate::nfq::QueueFlag;
use crate::placement::{PlacementError, PlacementWarning};
use crate::queue::{Queue, QueueError};
use crate::queue_range::QueueRange;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The workers cannot be placed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The kernel refused to pin a worker.
    #[error(
        "queue {queue}: the kernel refuses to pin its worker to CPU {cpu}; widen the cpuset, or use placement `none`"
    )]
    PinningRefused {
        /// The worker's queue.
        queue: u16,
        /// The CPU.
        cpu: CpuId,
    },
    /// The user's function that makes inspectors panicked.
    #[error("queue {queue}: making its inspector panicked")]
    InspectorPanicked {
        /// The worker's queue.
        queue: u16,
    },
    /// A queue could not be taken; those taken before it are released.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A bound queue that this engine does not serve, or was given twice.
    #[error(
        "queue {queue} is bound already and is not, or not once, among the queues {range} to be served; name all of them with --queues"
    )]
    NotOurQueue {
        /// The queue.
        queue: u16,
        /// What is to be served.
        range: QueueRange,
    },
    /// The system refused something ordinary.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The error.
        source: io::Error,
    },
}

/// Something that the operator should know about a start that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartWarning {
    /// Odd placement.
    Placement(PlacementWarning),
    /// The receive buffers are smaller than asked for.
    SmallReceiveBuffer {
        /// What was asked for, in bytes as `SO_RCVBUF` counts.
        wanted: u32,
        /// What the kernel granted, in the same count.
        granted: u64,
        /// Whether `SO_RCVBUFFORCE` was refused.
        not_forced: bool,
    },
    /// The kernel refuses something that is wanted.
    FlagRefused {
        /// What.
        flag: QueueFlag,
    },
    /// What the kernel counts cannot be seen.
    NoKernelTable {
        /// Why.
        reason: String,
    },
    /// Nobody sees to it that inspectors come back.
    NoWatchdog {
        /// Why.
        reason: String,
    },
    /// The workers run at the priority that they were started with.
    NoPriority {
        /// The niceness that was asked for.
        nice: i8,
    },
}

impl fmt::Display for StartWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placement(warning) => warning.fmt(f),
            Self::FlagRefused { flag } => write!(
                f,
                "this kernel refuses {flag} (it needs {}): {}",
                flag.needs(),
                without(*flag)
            ),
            Self::NoKernelTable { reason } => write!(
                f,
                "/proc/net/netfilter/nfnetlink_queue cannot be read ({reason}): packets that a full queue drops, and those lost behind the last one received, are not in the account; run as root to see them"
            ),
            Self::NoWatchdog { reason } => write!(
                f,
                "what is queued cannot be seen ({reason}), so the queue of an inspector that does not come back is not answered in its place; run as root, or use --inspect-deadline 0 to leave it at that"
            ),
            Self::NoPriority { nice } => write!(
                f,
                "the kernel refuses niceness {nice} to the workers (it needs CAP_SYS_NICE): under overload a queue may run full sooner; use --nice 0 to leave it at that"
            ),
            Self::SmallReceiveBuffer { wanted, granted, not_forced } => {
                let charged = 2 * granted;
                let reason = if *not_forced {
                    "SO_RCVBUFFORCE was refused, so net.core.rmem_max limits it; raise that (sysctl -w net.core.rmem_max=BYTES) or run with CAP_NET_ADMIN in the first user namespace"
                } else {
                    "the kernel limits it"
                };
                write!(
                    f,
                    "receive buffer is {granted} bytes instead of {wanted}: about {} small packets or {} of 1400 bytes fit before the socket overflows; {reason}",
                    charged / SMALL_PACKET_CHARGE,
                    charged / LARGE_PACKET_CHARGE,
                )
            }
        }
    }
}

/// What it means to run without the flag.
fn without(flag: QueueFlag) -> &'static str {
    match flag {
        QueueFlag::FailOpen => "packets that a full queue has no room for are dropped",
        QueueFlag::Conntrack => "packets come without their connection",
        QueueFlag::Gso => "large packets come cut into segments",
        QueueFlag::UidGid => "packets come without user and group of their socket",
        QueueFlag::SecurityContext => "packets come without their security context",
    }
}

/// All queues get the same buffer, so one warning speaks for all.
pub(crate) fn small_buffer_warning(wanted: u32, queues: &[Queue]) -> Option<StartWarning> {
    let granted = queues.iter().map(Queue::receive_buffer).min_by_key(|buffer| buffer.bytes)?;
    let (bytes, not_forced) = (granted.bytes / 2, !granted.forced);
    (bytes < u64::from(wanted)).then_some(StartWarning::SmallReceiveBuffer {
        wanted,
        granted: bytes,
        not_forced,
    })
}

/// What a queued packet of up to about 100 bytes is charged against the buffer, measured on kernel 6.18, x86-64
/// (docs/NFQUEUE.md, "The receive buffer").
const SMALL_PACKET_CHARGE: u64 = 832;

/// The same for 1400 bytes.
const LARGE_PACKET_CHARGE: u64 = 2304;
