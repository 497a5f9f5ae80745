//! The builder: an [`EngineConfig`], field by field, and the start.
//!
//! Invariant: nothing is checked and nothing happens before [`EngineBuilder::start`]; the settings are documented
//! here and nowhere else.

use crate::config::{EngineConfig, Wait};
use crate::deferral::DeferralConfig;
use crate::engine::Engine;
use crate::inspect::{Inspector, WorkerInfo};
use crate::nfq::CopyRange;
use crate::placement::Placement;
use crate::queue_range::QueueRange;
use crate::start::StartError;

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

    /// Lets inspectors defer packets ([`Packet::defer`](crate::Packet::defer)). By default not.
    #[must_use]
    pub fn deferral(mut self, deferral: DeferralConfig) -> Self {
        self.config.deferral = Some(deferral);
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
    /// CPU: a queue that is behind must be emptied faster than it is filled, or it grows out of its bounds. 0 leaves
    /// it to the scheduler.
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
