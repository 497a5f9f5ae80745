//! Starting an engine: the builder, and what can go wrong or be odd about a start.
//!
//! Invariant: every error says what, where, and what to do next; after any of them nothing is bound.

use std::fmt;
use std::io;

use crate::config::{ConfigError, EngineConfig, Wait};
use crate::cpus::CpuId;
use crate::engine::Engine;
use crate::inspect::{Inspector, WorkerInfo};
use crate::nfq::CopyRange;
use crate::placement::{Placement, PlacementError, PlacementWarning};
use crate::queue::{Queue, QueueError};
use crate::queue_range::QueueRange;

/// Sets an engine up. Made by [`Engine::builder`].
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    config: EngineConfig,
}

impl Engine {
    /// Begins to set up an engine for queue 0.
    pub fn builder() -> EngineBuilder {
        let queues = QueueRange::new(0, 0).expect("one queue is a range");
        EngineBuilder { config: EngineConfig::new(queues) }
    }
}

impl EngineBuilder {
    /// The queues to serve, one worker each.
    #[must_use]
    pub fn queues(mut self, queues: QueueRange) -> Self {
        self.config.queues = queues;
        self
    }

    /// Where the workers run. By default each on the CPU that fills its queue.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.config.placement = placement;
        self
    }

    /// The most packets that one receive takes, 1 to 1024. By default 64.
    #[must_use]
    pub fn batch(mut self, packets: usize) -> Self {
        self.config.batch = packets;
        self
    }

    /// How much of each packet the kernel copies. By default all of it.
    #[must_use]
    pub fn copy_range(mut self, range: CopyRange) -> Self {
        self.config.queue.copy_range = range;
        self
    }

    /// The most packets that wait in one queue, at least 1. By default 16,384.
    #[must_use]
    pub fn queue_maxlen(mut self, packets: u32) -> Self {
        self.config.queue.maxlen = packets;
        self
    }

    /// The receive buffer of each socket in bytes, as `SO_RCVBUF` counts (the kernel doubles it). By default
    /// 64 MiB.
    #[must_use]
    pub fn rcvbuf(mut self, bytes: u32) -> Self {
        self.config.queue.rcvbuf = bytes;
        self
    }

    /// Whether packets pass unseen when a queue or a socket is full, rather than being dropped. By default not.
    #[must_use]
    pub fn fail_open(mut self, on: bool) -> Self {
        self.config.queue.flags.fail_open = on;
        self
    }

    /// Whether large segmented packets come whole. By default not.
    #[must_use]
    pub fn gso(mut self, on: bool) -> Self {
        self.config.queue.flags.gso = on;
        self
    }

    /// What a worker does when nothing waits. By default it sleeps.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.config.wait = wait;
        self
    }

    /// The workers' niceness, -20 to 19; the default, -5, lets a worker go before what fills its queue on the same
    /// CPU: a queue that is behind must be emptied faster than it is filled, or it grows out of the cache and then
    /// out of its bounds. 0 leaves it to the scheduler.
    #[must_use]
    pub fn nice(mut self, nice: i8) -> Self {
        self.config.nice = nice;
        self
    }

    /// Starts the engine. `make` is called once for each worker, on the worker's own thread and CPU, and makes
    /// the inspector that the worker keeps.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing stays bound.
    pub fn start<I, F>(self, make: F) -> Result<Engine, StartError>
    where
        I: Inspector + 'static,
        F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
    {
        Engine::start(&self.config, make)
    }
}

impl From<EngineConfig> for EngineBuilder {
    fn from(config: EngineConfig) -> Self {
        Self { config }
    }
}

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
