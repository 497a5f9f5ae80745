//! What the main thread does while workers serve: signals, tables, statistics, new rules.
//!
//! Invariant: a signal is never lost. Its handler's thread sets a flag and wakes the main thread, which looks at the
//! flags whenever it wakes; so a signal that comes before the engine runs, or while rules are read, is carried out
//! after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use fanq::{Engine, EngineStats, Event, FaultReport, Interrupter};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::options::RunOptions;
use super::reading::Reading;
use super::succession::Succession;
use super::summary;
use crate::confine::{self, Role};
use crate::eve::EveLog;
use crate::handover::Request;
use crate::inspector::{PolicyAccount, SharedPolicy};
use crate::notice;

/// What signals have asked for.
#[derive(Clone, Default)]
pub(super) struct Orders(Arc<Asked>);

/// Is told how a reload went.
pub(super) type Asker = Box<dyn FnOnce(Result<String, String>) + Send>;

#[derive(Default)]
struct Asked {
    stop: AtomicBool,
    reload: AtomicBool,
    leave: AtomicBool,
    /// Who wants to know how the next reload went.
    askers: Mutex<Vec<Asker>>,
    waker: Mutex<Option<Interrupter>>,
}

impl Asked {
    fn nudge(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            // If the eventfd cannot be written, whoever comes next tries again.
            let _ = waker.interrupt();
        }
    }
}

impl Orders {
    /// Takes SIGINT, SIGTERM, SIGUSR2 and, where there is something to read again, SIGHUP.
    pub(super) fn listen(with_reload: bool) -> anyhow::Result<Self> {
        let stops = [SIGINT, SIGTERM, SIGUSR2];
        let reload = with_reload.then_some(SIGHUP);
        let mut signals = Signals::new(stops.into_iter().chain(reload))
            .context("installing the signal handlers")?;
        let orders = Self::default();
        let asked = Arc::clone(&orders.0);
        std::thread::spawn(move || {
            confine::thread(Role::Signals);
            for signal in &mut signals {
                let flag = match signal {
                    SIGHUP => &asked.reload,
                    SIGUSR2 => &asked.leave,
                    _ => &asked.stop,
                };
                // Before the waker is looked at: an engine that comes later looks at the flag by itself.
                flag.store(true, Ordering::SeqCst);
                asked.nudge();
            }
        });
        Ok(orders)
    }

    /// From now on signals wake this engine's wait.
    pub(super) fn wake(&self, interrupter: Interrupter) {
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupter);
    }

    /// Has the main thread read again what there is to read, as SIGHUP does, and tell how that went. If the program
    /// ends first, the asker is dropped.
    pub(super) fn reload(&self, asker: Asker) {
        self.0.askers.lock().unwrap_or_else(PoisonError::into_inner).push(asker);
        self.0.reload.store(true, Ordering::SeqCst);
        self.nudge();
    }

    /// Wakes the main thread, if the engine runs.
    pub(super) fn nudge(&self) {
        self.0.nudge();
    }

    fn take_askers(&self) -> Vec<Asker> {
        std::mem::take(&mut self.0.askers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    fn leave(&self) -> bool {
        self.0.leave.load(Ordering::SeqCst)
    }

    fn take_reload(&self) -> bool {
        self.0.reload.swap(false, Ordering::SeqCst)
    }
}

/// Why the queues are no longer served.
#[derive(Debug)]
pub(super) enum End {
    /// They are to be given up.
    Stop,
    /// They are to wait for the next start.
    Leave,
    /// Another process wants them.
    GiveAway(Request),
    /// A worker ended by itself.
    WorkerEnded,
}

/// The main thread's affairs.
pub(super) struct Watch {
    orders: Orders,
    control: Option<SharedPolicy>,
    log: Option<EveLog>,
    /// Rules that are being read again.
    reading: Option<Reading>,
    began: Instant,
    table: Option<Every>,
    eve_stats: Option<Every>,
    housekeeping: Option<Every>,
    watchdog: Option<Every>,
}

/// Something to be done every so often.
#[derive(Debug, Clone, Copy)]
struct Every {
    period: Duration,
    due: Instant,
}

impl Every {
    fn new(period: Duration) -> Self {
        Self { period, due: Instant::now() + period }
    }

    /// Whether it is due; then it is due next a period later. What was missed is not made up for.
    fn take(every: &mut Option<Self>) -> Option<Duration> {
        let now = Instant::now();
        let every = every.as_mut().filter(|every| now >= every.due)?;
        every.due += every.period;
        if every.due <= now {
            every.due = now + every.period;
        }
        Some(every.period)
    }
}

impl Watch {
    pub(super) fn new(
        options: &RunOptions,
        orders: Orders,
        control: Option<SharedPolicy>,
        log: Option<EveLog>,
        watchdog: Option<Duration>,
    ) -> Self {
        Self {
            watchdog: watchdog.map(Every::new),
            housekeeping: control.is_some().then(|| Every::new(HOUSEKEEPING)),
            orders,
            control,
            log,
            reading: None,
            began: Instant::now(),
            table: options.stats_every.map(Every::new),
            eve_stats: options.eve_stats_every.map(Every::new),
        }
    }

    /// Waits for the end and sees to everything else.
    pub(super) fn until_stopped(
        &mut self,
        engine: &mut Engine,
        succession: &mut Succession,
    ) -> anyhow::Result<End> {
        let mut shown = engine.stats();
        let mut pulse = self.watchdog.map(|_| engine.monitor().pulse());
        loop {
            if self.orders.stop() {
                return Ok(End::Stop);
            }
            if self.orders.leave() {
                return Ok(End::Leave);
            }
            if let Some(request) = succession.request() {
                return Ok(End::GiveAway(request));
            }
            self.end_reload();
            if self.reading.is_none() && self.orders.take_reload() {
                self.begin_reload();
            }
            let nexts = [self.table, self.eve_stats, self.housekeeping, self.watchdog];
            let next = nexts.into_iter().flatten().map(|every| every.due).min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let event = engine.wait(left).context("waiting")?;
            self.tell(&engine.take_faults());
            if event == Event::WorkerEnded {
                return Ok(End::WorkerEnded);
            }
            if let (Some(_), Some(pulse)) = (Every::take(&mut self.watchdog), &mut pulse) {
                succession.manager.alive(&pulse.silent());
            }
            if let Some(period) = Every::take(&mut self.table) {
                let now = engine.stats();
                notice::normal(summary::progress(&shown, &now, period).trim_end());
                shown = now;
            }
            if Every::take(&mut self.eve_stats).is_some() {
                self.log_stats(&engine.stats());
            }
            if let (Some(_), Some(control)) = (Every::take(&mut self.housekeeping), &self.control) {
                control.lock().tend();
            }
        }
    }

    /// Says what went wrong with inspectors.
    pub(super) fn tell(&self, faults: &[FaultReport]) {
        for fault in faults {
            eprintln!("fanq: {fault}");
            if let Some(log) = &self.log {
                let level =
                    if matches!(fault, FaultReport::Resumed { .. }) { "Info" } else { "Error" };
                log.event(level, fault.to_string());
            }
        }
    }

    /// Opens the log's file anew and begins to read the rules again.
    fn begin_reload(&mut self) {
        // Taken first: who asks while the rules are read gets the next reading.
        let askers = self.orders.take_askers();
        if let Some(log) = &self.log {
            log.reopen();
        }
        if let Some(control) = &self.control {
            self.reading = Some(Reading::begin(control.clone(), askers, self.orders.clone()));
            return;
        }
        let outcome = match self.log {
            Some(_) => Ok("the log is opened anew".to_owned()),
            None => {
                Err("there is nothing to read again: run it with --policy FILE.toml".to_owned())
            }
        };
        for tell in askers {
            tell(outcome.clone());
        }
    }

    /// If rules have been read again, has workers take them, and tells who asked.
    fn end_reload(&mut self) {
        let (Some(reading), Some(control)) = (&mut self.reading, &self.control) else { return };
        let Some(next) = reading.outcome() else { return };
        let askers = std::mem::take(&mut reading.askers);
        self.reading = None;
        let outcome = control.lock().adopt(next, self.log.as_ref());
        let outcome = outcome.map_err(|error| format!("the rules stay as they are: {error:#}"));
        let (level, message) = match &outcome {
            Ok(done) => ("Info", done),
            Err(error) => ("Error", error),
        };
        if outcome.is_ok() {
            notice::normal(format_args!("fanq: {message}"));
        } else {
            eprintln!("fanq: {message}");
        }
        if let Some(log) = &self.log {
            log.event(level, message.clone());
        }
        for tell in askers {
            tell(outcome.clone());
        }
    }

    /// The log, for whoever goes on with it. Rules that are being read are read again.
    pub(super) fn into_log(self) -> Option<EveLog> {
        if let Some(reading) = self.reading {
            self.orders.0.reload.store(true, Ordering::SeqCst);
            reading.askers.into_iter().for_each(|asker| self.orders.reload(asker));
        }
        self.log
    }

    /// The last statistics, then the end of the log. Returns the rules' account, and lines written and lost.
    pub(super) fn finish(self, stats: &EngineStats) -> (Option<PolicyAccount>, Option<(u64, u64)>) {
        if self.eve_stats.is_some() {
            self.log_stats(stats);
        }
        let account = self.control.as_ref().map(|control| control.lock().account());
        (account, self.log.map(EveLog::close))
    }

    fn log_stats(&self, stats: &EngineStats) {
        let Some(log) = &self.log else { return };
        let account = self.control.as_ref().map(|control| control.lock().account());
        let eve = log.counts();
        log.stats(eve_stats(stats, account.as_ref(), eve, self.began.elapsed()));
    }
}

/// Suricata's keys as far as they have a meaning here, and ours below `fanq`.
fn eve_stats(
    stats: &EngineStats,
    account: Option<&PolicyAccount>,
    (written, lost): (u64, u64),
    uptime: Duration,
) -> Value {
    let totals = stats.totals();
    let rows = stats.queues.iter().filter_map(|queue| queue.kernel);
    let queue_full: u64 = rows.map(|row| row.queue_dropped).sum();
    let socket_full = totals.id_gaps.saturating_sub(totals.uninspected);
    let of_rules = |count: fn(&PolicyAccount) -> u64| account.map_or(0, count);
    let rejected = of_rules(|account| account.rejected);
    json!({
        "uptime": uptime.as_secs(),
        "capture": {
            "kernel_packets": totals.packets + totals.id_gaps,
            "kernel_drops": queue_full + socket_full,
        },
        "decoder": { "pkts": totals.packets, "bytes": totals.bytes, "invalid": totals.undecodable },
        "ips": {
            "accepted": totals.answered() - totals.dropped - rejected.min(totals.answered() - totals.dropped),
            "blocked": totals.dropped,
            "rejected": rejected,
            "replaced": totals.rewritten,
        },
        "fanq": {
            "uninspected": totals.uninspected,
            "faulted": totals.faulted,
            "panics": totals.panics,
            "hangs": totals.hangs,
            "verdict_errors": totals.verdict_errors,
            "flows_evicted": of_rules(|account| account.flows_evicted),
            "limits_evicted": of_rules(|account| account.limits_evicted),
            "eve_written": written,
            "eve_lost": lost + of_rules(|account| account.log_lost),
        },
    })
}

/// How often what workers gave back is freed, and unknown interfaces are looked up.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let period = Duration::from_secs(20);
        let now = Instant::now();
        let due = now.checked_sub(period * 5 / 2).expect("the machine runs for longer");
        let mut every = Some(Every { period, due });
        assert_eq!(Every::take(&mut every), Some(period));
        assert_eq!(Every::take(&mut every), None);
        assert!(every.is_some_and(|every| every.due >= now + period));
    }
}
