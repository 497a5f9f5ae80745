//! How `fanq run` comes by its queues, and how it leaves them.
//!
//! ```text
//!   comes by    somebody who serves them and hands them over     --handover PATH
//!               the service manager, who kept them               LISTEN_FDS
//!               the kernel: nobody had them
//!   leaves      to whoever asks at PATH
//!               to the service manager, for the next start       SIGUSR2, or after a failure
//!               to nobody: they are drained and given up         SIGTERM, SIGINT
//! ```
//!
//! Invariant: the queues are asked for when all else is ready, so that they wait as short as can be. A process that
//! gives its queues away keeps them until they are served, and takes them back if they are not.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fanq::{BoundQueue, Counts, Engine, EngineStats, Fate, PreparedEngine, Released, WorkerError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::RunOptions;
use crate::confine;
use crate::handover::{Door, Left, LeftQueue, Predecessor, Request, Taken};
use crate::service_manager::ServiceManager;

/// The queues' past and future.
#[derive(Debug)]
pub(super) struct Succession {
    path: Option<PathBuf>,
    /// What becomes of packets that a process had read and not answered when it died.
    on_orphan: Fate,
    release_max: Duration,
    settings: String,
    range: fanq::QueueRange,
    pub(super) manager: ServiceManager,
    door: Option<Door>,
    /// Our own, which the next process did not serve.
    back: Vec<BoundQueue>,
}

/// Which CPUs there are (sysfs).
const CPUS: &str = "/sys/devices/system/cpu";

/// What became of queues that were given away.
pub(super) enum Given {
    /// They are served; this is the account up to then, and what failed.
    Away(EngineStats, Vec<WorkerError>),
    /// They are ours as before: start again.
    Back,
}

impl Succession {
    pub(super) fn new(options: &RunOptions) -> Self {
        allow_many_descriptors();
        let engine = &options.engine;
        confine::allow_sockets(options.handover.clone());
        if options.handover.is_some() {
            // A start that comes after a handover in vain looks at the CPUs again.
            confine::allow([PathBuf::from(CPUS)], []);
        }
        Self {
            path: options.handover.clone(),
            on_orphan: options.on_orphan,
            release_max: options.drain_limit,
            settings: format!("batch {}, queue-maxlen {}", engine.batch, engine.queue.maxlen),
            range: engine.queues,
            manager: ServiceManager::find(),
            door: None,
            back: Vec::new(),
        }
    }

    /// Starts the engine with the queues as they can be had. `complete` is what else can fail of a start: only after it
    /// the process that had the queues hears that they are served, and until then they are that process's again if
    /// anything fails.
    pub(super) fn start<T>(
        &mut self,
        prepared: PreparedEngine,
        complete: impl FnOnce(&Engine) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Engine, T)> {
        let are_back = !self.back.is_empty();
        let (bound, mut taken) = self.come_by(&prepared)?;
        let adopted = bound.len();
        let engine = confine::while_opening(|| prepared.adopt(bound, self.on_orphan.into()))?;
        match &taken {
            Some(taken) => eprintln!("handover: {}", taken.described),
            None if adopted > 0 => eprintln!("{adopted} of the queues were kept, and go on"),
            None => {}
        }
        let completed = match self.settle(&engine) {
            // Nobody else serves them.
            Err(error) if are_back => {
                eprintln!("warning: the queues cannot go to another process: {error:#}");
                complete(&engine)
            }
            settled => settled.and_then(|()| complete(&engine)),
        };
        let served = completed.and_then(|completed| {
            taken.as_mut().map_or(Ok(()), Taken::serving)?;
            Ok(completed)
        });
        let completed = match served {
            Ok(completed) => completed,
            Err(error) => {
                self.withdraw(engine, taken.is_some());
                return Err(error);
            }
        };
        let orphans = engine.stats().totals().orphaned;
        if orphans > 0 {
            let what = match self.on_orphan {
                Fate::Accept => "accepted",
                Fate::Drop => "dropped",
            };
            eprintln!(
                "warning: {orphans} packets were left unanswered by who died; they are {what}"
            );
        }
        self.manager.ready(&format!("serving queues {}", self.range));
        Ok((engine, completed))
    }

    /// Ends an engine that has failed to start. Queues of which others have descriptors go on as they are, with all
    /// that waits in them; the connection to who had them is open still.
    fn withdraw(&mut self, engine: Engine, is_taken: bool) {
        self.door = None;
        if is_taken || self.manager.keeps() {
            for failure in engine.release(self.release_max).failures {
                eprintln!("fanq: {failure}");
            }
        }
    }

    fn come_by(
        &mut self,
        prepared: &PreparedEngine,
    ) -> anyhow::Result<(Vec<BoundQueue>, Option<Taken>)> {
        if !self.back.is_empty() {
            return Ok((std::mem::take(&mut self.back), None));
        }
        let kept = self.manager.take_back(self.range);
        let asked = self.path.as_deref().map(Predecessor::ask).transpose()?.flatten();
        let Some(predecessor) = asked else { return Ok((kept, None)) };
        prepared.check(predecessor.queues()).context("the queues that would be taken over")?;
        let (mut queues, taken) = predecessor.take()?;
        // Of a queue that comes by both ways, the one who served it knows more.
        let is_new = |kept: &BoundQueue| queues.iter().all(|queue| queue.queue() != kept.queue());
        let more: Vec<_> = kept.into_iter().filter(is_new).collect();
        queues.extend(more);
        Ok((queues, Some(taken)))
    }

    /// Sees to it that the queues can go on without this process.
    fn settle(&mut self, engine: &Engine) -> anyhow::Result<()> {
        let sockets = || engine.bound_queues().context("copying the queues' descriptors");
        self.manager.keep(&sockets()?);
        if let Some(path) = &self.path {
            let (settings, interrupter) = (self.settings.clone(), engine.interrupter());
            let door = Door::open(path, sockets()?, settings, self.release_max, interrupter)?;
            self.door = Some(door);
        }
        Ok(())
    }

    /// Who has come for the queues, if anyone has.
    pub(super) fn request(&self) -> Option<Request> {
        self.door.as_ref()?.request()
    }

    /// Gives the queues to the next process.
    pub(super) fn give(&mut self, engine: Engine, request: Request) -> Given {
        let who = format!("process {} (fanq {})", request.pid, request.program);
        // Of the door, through which the request came: no descriptor has to be had for it now.
        let kept = self.door.take().map(Door::close).unwrap_or_default();
        let Released { queues, failures } = engine.release(self.release_max);
        let left = queues.iter().map(|queue| LeftQueue {
            queue: queue.stats.queue,
            next_id: queue.next_id.map(|id| id.0),
            account: (&queue.stats.counts).into(),
        });
        let result = request.give(Left { queues: left.collect() });
        let stats = EngineStats { queues: queues.into_iter().map(|queue| queue.stats).collect() };
        match result {
            Ok(()) => {
                let packets = stats.totals().packets;
                eprintln!(
                    "handover: {who} serves the queues and goes on with the account of {packets} packets"
                );
                Given::Away(stats, failures)
            }
            Err(error) => {
                eprintln!("fanq: {error:#}: they are served here again");
                let counts_of = |queue: u16| {
                    let stats = stats.queues.iter().find(|stats| stats.queue == queue);
                    stats.map_or_else(Counts::default, |stats| stats.counts.clone())
                };
                let back = kept.into_iter().map(|kept| {
                    let counts = counts_of(kept.queue());
                    kept.counted(counts)
                });
                self.back = back.collect();
                Given::Back
            }
        }
    }

    /// The queues are to end with this process.
    pub(super) fn give_up(&mut self) {
        self.manager.stopping();
        self.door = None;
        self.manager.let_go();
    }

    /// The queues are to wait for the next start. False if nobody keeps them.
    pub(super) fn leave(&mut self) -> bool {
        self.door = None;
        self.manager.stopping();
        self.manager.keeps()
    }
}

/// Each queue's socket is open up to three times; the usual limit of 1024 is for programs that use select(2).
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it stays as it is, and whatever lacks a descriptor says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
