//! What other threads see of a run and may change about it: behind the control socket and
//! the metrics.
//!
//! Invariant: answering needs neither a worker nor the main thread, but for a reload, which the main thread carries
//! out as it does for SIGHUP. Whatever can be refused about where it is served is refused before a queue is bound.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use fanq::{CopyRange, Engine, EngineStats, Monitor, cpu_time};
use serde_json::{Value, json};

use super::options::{CopyRangeText, RunOptions, check_headers_are_copied};
use super::summary::{self, Extras, LogAccount};
use super::watch::{Asker, Orders};
use crate::confine;
use crate::control::{ControlPlace, Controlled};
use crate::doors::{Doors, Serving, statistics};
use crate::eve::{EveLog, EveTally};
use crate::inspector::SharedPolicy;
use crate::metrics::{Scraped, Snapshot, process_start};
use crate::notice::{self, LogLevel};

/// The engine that serves now.
#[derive(Clone)]
struct Live {
    monitor: Monitor,
    policy: Option<SharedPolicy>,
}

/// A run, for any thread.
#[derive(Clone)]
pub(super) struct RunView(Arc<Seen>);

struct Seen {
    /// Changes when the engine starts again.
    live: Mutex<Live>,
    log: Option<EveTally>,
    orders: Orders,
    began: Instant,
    started: SystemTime,
    queues: String,
    queue_maxlen: u32,
    /// What was set at the start and cannot change.
    settings: Value,
    copy_range: Mutex<CopyRange>,
    /// Whether flows are told by their headers.
    needs_headers: bool,
}

impl RunView {
    pub(super) fn new(
        options: &RunOptions,
        engine: &Engine,
        policy: Option<SharedPolicy>,
        log: Option<&EveLog>,
        orders: Orders,
    ) -> Self {
        let config = &options.engine;
        let settings = json!({
            "queues": config.queues.to_string(),
            "batch": config.batch,
            "queue-maxlen": config.queue.maxlen,
            "rcvbuf": config.queue.rcvbuf,
            "flags": engine.granted_flags().to_string(),
            "nice": config.nice,
            "policy": options.policy.to_string(),
            "inspect-threads": options.inspect_threads,
        });
        Self(Arc::new(Seen {
            live: Mutex::new(Live { monitor: engine.monitor(), policy }),
            log: log.map(EveLog::tally),
            orders,
            began: Instant::now(),
            started: process_start(),
            queues: config.queues.to_string(),
            queue_maxlen: config.queue.maxlen,
            settings,
            copy_range: Mutex::new(config.queue.copy_range),
            needs_headers: options.bypass.is_some(),
        }))
    }

    /// From now on shows this engine.
    fn follow(&self, engine: &Engine, policy: Option<SharedPolicy>) {
        let live = Live { monitor: engine.monitor(), policy };
        *self.0.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    fn live(&self) -> Live {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stats(&self) -> EngineStats {
        self.live().monitor.stats()
    }

    fn extras(&self) -> Extras {
        let policy = self.live().policy.map(|policy| policy.lock().account());
        let in_rings = policy.as_ref().map_or(0, |account| account.log_lost);
        let eve = self.0.log.as_ref().map(|log| {
            let (written, lost) = log.counts();
            LogAccount { written, lost: lost + in_rings }
        });
        Extras { policy, eve, queue_full_passed: None, cpu: None }
    }

    fn set_copy_range(&self, text: &str) -> Result<String, String> {
        let range: CopyRangeText = text.parse()?;
        if self.0.needs_headers {
            check_headers_are_copied(range.0).map_err(|error| error.to_string())?;
        }
        let mut current = self.0.copy_range.lock().unwrap_or_else(PoisonError::into_inner);
        self.live().monitor.set_copy_range(range.0).map_err(|error| {
            format!(
                "{error}: the buffers were made for what it was started with; start it with --copy-range {text}"
            )
        })?;
        *current = range.0;
        Ok(format!("copy-range {range}"))
    }
}

impl Controlled for RunView {
    fn statistics(&self) -> Value {
        let account = summary::value(&self.stats(), &self.extras());
        let beside = json!({ "queue_range": self.0.queues });
        statistics(account, self.0.began, &self.settings(), beside)
    }

    fn settings(&self) -> Value {
        let mut settings = self.0.settings.clone();
        let copy_range = *self.0.copy_range.lock().unwrap_or_else(PoisonError::into_inner);
        settings["copy-range"] = CopyRangeText(copy_range).to_string().into();
        settings["log-level"] = notice::level().name().into();
        settings
    }

    fn set(&self, key: &str, value: &str) -> Result<String, String> {
        let done = match key {
            "copy-range" => self.set_copy_range(value),
            "log-level" => match LogLevel::ALL.into_iter().find(|level| level.name() == value) {
                Some(level) => {
                    notice::set_level(level);
                    Ok(format!("log-level {value}"))
                }
                None => Err(format!("`{value}` is no level: write quiet, normal or verbose")),
            },
            _ => Err(format!("`{key}` cannot be set while it runs: copy-range and log-level can")),
        }?;
        notice::normal(format_args!("fanq: set by control: {done}"));
        Ok(done)
    }

    fn reload(&self, tell: Asker) {
        self.0.orders.reload(tell);
    }
}

impl Scraped for RunView {
    fn snapshot(&self) -> Snapshot {
        let Extras { policy, eve, .. } = self.extras();
        Snapshot {
            stats: self.stats(),
            queue_maxlen: Some(self.0.queue_maxlen),
            policy,
            eve: eve.map(|log| (log.written, log.lost)),
            started: Some(self.0.started),
            cpu: Some(cpu_time()),
            scrapes: 0,
            accelerated: None,
            uncounted: &[],
        }
    }
}

/// The places where others may ask, from the first engine on.
pub(super) struct Views {
    doors: Option<Doors>,
    shown: Option<(RunView, Serving)>,
}

impl Views {
    pub(super) fn new(doors: Doors) -> Self {
        Self { doors: Some(doors), shown: None }
    }

    /// Shows this engine, with the view that is made of the first.
    pub(super) fn show(
        &mut self,
        engine: &Engine,
        policy: Option<SharedPolicy>,
        make: impl FnOnce() -> RunView,
    ) -> anyhow::Result<()> {
        if let Some((view, _)) = &self.shown {
            view.follow(engine, policy);
        } else if let Some(doors) = self.doors.take() {
            let view = make();
            self.shown = Some((view.clone(), doors.serve(&view)?));
        }
        Ok(())
    }

    /// The queues are ours: so are the places where others ask.
    pub(super) fn take_places(&mut self) {
        if let Some((_, serving)) = &mut self.shown {
            serving.take_places();
        }
    }
}

/// Takes the places where others may ask.
///
/// # Errors
/// As [`Doors::open`].
pub(super) fn open_doors(options: &RunOptions) -> anyhow::Result<Doors> {
    if let ControlPlace::File(path) = &options.control {
        confine::allow_sockets([path.clone()]);
    }
    Doors::open(&options.control, options.metrics, options.handover.is_some())
}
