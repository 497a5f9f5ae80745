//! The builder: an [`EngineConfig`], field by field, and the start.
//!
//! Invariant: nothing is checked and nothing happens before [`EngineBuilder::start`]; the settings are documented
//! here and nowhere else.

use crate::config::{EngineConfig, ThreadBegins, Wait};
use crate::deferral::DeferralConfig;
use crate::engine::{Engine, PreparedEngine};
use crate::fault::{Fate, FaultConfig};
use crate::inspect::{Inspector, WorkerInfo};
use crate::nfq::{CopyRange, QueueFlag};
use crate::overload::OverloadConfig;
use crate::placement::Placement;
use crate::queue_range::QueueRange;
use crate::start::StartError;
use crate::wish::FlagWish;

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

    /// What a worker does when its queue grows faster than it is answered. By default nothing: the queue's own limit
    /// decides.
    #[must_use]
    pub fn overload(mut self, overload: OverloadConfig) -> Self {
        self.config.overload = Some(overload);
        self
    }

    /// What happens when an inspector panics or does not come back. By default its packets are dropped, it is made
    /// anew up to five times a minute, and nobody looks whether it comes back.
    #[must_use]
    pub fn fault(mut self, fault: FaultConfig) -> Self {
        self.config.fault = fault;
        self
    }

    /// What packets get that are still queued when the time to stop is over. By default what the inspector's
    /// [`unseen`](Inspector::unseen) says.
    #[must_use]
    pub fn on_exit(mut self, fate: Fate) -> Self {
        self.config.on_exit = Some(fate);
        self
    }

    /// Called on the watchdog's thread before it looks at anything: to give up there what the program gives up. It
    /// sends verdicts, so it needs CAP_NET_ADMIN as workers do, and puts workers back on their CPUs
    /// (sched_setaffinity(2)).
    #[must_use]
    pub fn on_watchdog_start(mut self, begin: fn()) -> Self {
        self.config.watchdog_begins = Some(ThreadBegins(begin));
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

    /// Asks for a queue flag, or no longer: [`FlagWish::Wanted`], or [`FlagWish::Required`] and its short form
    /// `true`. By default none is asked for. What the kernel refuses is in [`Engine::warnings`]; what is required
    /// and refused stops the start, before any queue is bound. [`Engine::granted_flags`] has what came of it.
    #[must_use]
    pub fn flag(mut self, flag: QueueFlag, wish: impl Into<FlagWish>) -> Self {
        self.config.queue.flags.set(flag, wish.into());
        self
    }

    /// Packets pass unseen when a queue or a socket is full, rather than being dropped.
    #[must_use]
    pub fn fail_open(self, wish: impl Into<FlagWish>) -> Self {
        self.flag(QueueFlag::FailOpen, wish)
    }

    /// Large segmented packets come whole, with their checksums unfinished.
    #[must_use]
    pub fn gso(self, wish: impl Into<FlagWish>) -> Self {
        self.flag(QueueFlag::Gso, wish)
    }

    /// Packets come with their connection, where they are tracked: only in a network namespace in which some rule
    /// uses connection tracking.
    #[must_use]
    pub fn conntrack(self, wish: impl Into<FlagWish>) -> Self {
        self.flag(QueueFlag::Conntrack, wish)
    }

    /// Packets of local sockets come with the socket's user and group.
    #[must_use]
    pub fn uid_gid(self, wish: impl Into<FlagWish>) -> Self {
        self.flag(QueueFlag::UidGid, wish)
    }

    /// Packets of local sockets come with their security context, where a rule gave them one (SECMARK).
    #[must_use]
    pub fn security_context(self, wish: impl Into<FlagWish>) -> Self {
        self.flag(QueueFlag::SecurityContext, wish)
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

    /// Starts the engine. `make` is called for each worker, on the worker's own thread and CPU, and makes the
    /// inspector that the worker keeps; it is called again after that one has panicked, and been dropped.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing stays bound.
    pub fn start<I, F>(self, make: F) -> Result<Engine, StartError>
    where
        I: Inspector + 'static,
        F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
    {
        self.prepare(make)?.bind()
    }

    /// Does all of the start but taking queues: for an engine that goes on where another one stops.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn prepare<I, F>(self, make: F) -> Result<PreparedEngine, StartError>
    where
        I: Inspector + 'static,
        F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
    {
        PreparedEngine::new(&self.config, make)
    }
}

impl From<EngineConfig> for EngineBuilder {
    fn from(config: EngineConfig) -> Self {
        Self { config }
    }
}
