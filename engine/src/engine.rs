//! The engine: one worker for each queue of a range, started together, watched, and stopped together.
//!
//! ```text
//!            start                                            shutdown
//!   plan CPUs -> threads, pinned, inspectors made     order all -> wake all -> join
//!             -> queues bound, one after the other              -> last look at the kernel's rows
//!             -> handed to the threads                          -> sockets closed
//! ```
//!
//! Invariant: either all queues of the range are bound and served, or none is bound. Everything that can fail
//! without a queue (pinning, making inspectors) is done before the first is bound, since what waits in a bound
//! queue is lost when it is given up. It deliberately installs no rules and writes no reports.

mod prepared;
mod release;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::config::EngineConfig;
use crate::deferral::{Answers, Gate};
use crate::fault::{FaultReport, FaultReports};
use crate::inspect::{Inspector, WorkerInfo};
use crate::kernel_table::{KernelRow, KernelTable};
use crate::monitor::{Monitor, Watched};
use crate::nfq::{ConfigFlags, CopyRange, PacketId, QueueFlag};
use crate::placement::Assignment;
use crate::queue::{Past, Queue, QueueWaker};
use crate::start::{StartError, StartWarning};
use crate::stats::{Counts, EngineStats, QueueStats};
use crate::sys::{self, Timestamp};
use crate::watchdog::{Watchdog, WatchdogConfig};
use crate::worker::{Recovery, Worker, WorkerError, WorkerShared, run_guarded};

pub use prepared::PreparedEngine;
pub use release::{Released, ReleasedQueue};

/// A running engine. Dropping it stops it at once, as [`shutdown`](Self::shutdown) with no time to drain.
#[derive(Debug)]
pub struct Engine {
    workers: Vec<WorkerHandle>,
    /// The kernel's own view; missing where the file may not be read, as in other users' namespaces.
    table: Option<Arc<KernelTable>>,
    copy_range: CopyRange,
    warnings: Vec<StartWarning>,
    granted: ConfigFlags,
    poll: Poll,
    waker: Arc<mio::Waker>,
    reports: Arc<FaultReports>,
    watchdog: Option<Watchdog>,
}

/// Why [`Engine::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The time is over.
    TimedOut,
    /// [`Interrupter::interrupt`] was called.
    Interrupted,
    /// An inspector panicked, or is stuck, or is back: [`Engine::take_faults`] tells. (If the engine was interrupted at
    /// the same time, this is what is said.)
    Fault,
    /// A worker ended by itself: [`Engine::shutdown`] tells why.
    WorkerEnded,
}

/// How a stopped engine ended.
#[derive(Debug)]
pub struct Stopped {
    /// The last statistics, with the kernel's rows as they were just before the queues were given up.
    pub stats: EngineStats,
    /// Workers that failed.
    pub failures: Vec<WorkerError>,
    /// What went wrong with inspectors and was not asked for before.
    pub faults: Vec<FaultReport>,
    answers: Vec<Arc<Answers>>,
}

impl Stopped {
    /// Answers for deferred packets that came after the engine had stopped, so far: the packets have their fallback.
    /// More may come while any [`Deferred`](crate::Deferred) exists.
    pub fn late_answers(&self) -> u64 {
        self.answers.iter().map(|answers| answers.late()).sum()
    }
}

/// Ends an [`Engine::wait`] from another thread.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<mio::Waker>);

impl Interrupter {
    /// Makes the engine's `wait` return.
    ///
    /// # Errors
    /// The kernel refuses to write to an eventfd.
    pub fn interrupt(&self) -> io::Result<()> {
        self.0.wake()
    }
}

#[derive(Debug)]
struct WorkerHandle {
    assignment: Assignment,
    shared: Arc<WorkerShared>,
    waker: QueueWaker,
    /// Where answers for deferred packets come in.
    answers: Option<Arc<Answers>>,
    /// What was counted by those who served the queue before.
    carried: Counts,
    thread: JoinHandle<Option<WorkerEnd>>,
}

/// What a worker's thread leaves: its queue, still bound, so that the kernel's row can be read once more.
struct WorkerEnd {
    queue: Queue,
    next_id: PacketId,
    result: Result<(), WorkerError>,
}

impl Engine {
    /// What the operator should know about this start.
    pub fn warnings(&self) -> &[StartWarning] {
        &self.warnings
    }

    /// The flags that all queues have: those asked for, without what the kernel refused.
    pub fn granted_flags(&self) -> ConfigFlags {
        self.granted
    }

    /// Which queue is served where.
    pub fn assignments(&self) -> impl ExactSizeIterator<Item = &Assignment> {
        self.workers.iter().map(|worker| &worker.assignment)
    }

    /// A handle that ends [`wait`](Self::wait).
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.waker))
    }

    /// What went wrong with inspectors since the last time this was asked, oldest first.
    pub fn take_faults(&self) -> Vec<FaultReport> {
        self.reports.take()
    }

    /// Sleeps until the time is over, someone interrupts, there is a fault to be told of, or a worker ends by itself.
    ///
    /// # Errors
    /// The kernel's poll fails.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Event> {
        let mut events = Events::with_capacity(4);
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if self.workers.iter().any(|worker| worker.shared.has_ended()) {
            return Ok(Event::WorkerEnded);
        }
        if !self.reports.is_empty() {
            return Ok(Event::Fault);
        }
        Ok(if events.is_empty() { Event::TimedOut } else { Event::Interrupted })
    }

    /// Reads all counters, with the kernel's beside them.
    pub fn stats(&self) -> EngineStats {
        self.monitor().stats()
    }

    /// A handle by which other threads read the counters and change what may change while packets flow.
    pub fn monitor(&self) -> Monitor {
        let watched = |worker: &WorkerHandle| Watched {
            assignment: worker.assignment.clone(),
            shared: Arc::clone(&worker.shared),
            waker: worker.waker.downgrade(),
            carried: worker.carried.clone(),
        };
        Monitor {
            workers: self.workers.iter().map(watched).collect(),
            table: self.table.clone(),
            copy_range_max: self.copy_range,
        }
    }

    /// Stops: each worker answers what it has received and what is queued, for `limit` at most, then gives its
    /// queue up. What there was no time for gets the `on_exit` verdict, or the inspector's `unseen`, and is counted as
    /// flushed. A worker that the watchdog has found stuck is left behind.
    pub fn shutdown(mut self, limit: Duration) -> Stopped {
        self.stop(limit)
    }

    fn stop(&mut self, limit: Duration) -> Stopped {
        for worker in &self.workers {
            worker.shared.order_stop(limit);
            // A send that fails leaves a worker that some later packet wakes; nothing better can be done.
            let _ = worker.waker.wake();
        }
        let mut stopped = Stopped {
            stats: EngineStats { queues: Vec::new() },
            failures: Vec::new(),
            faults: Vec::new(),
            answers: Vec::new(),
        };
        let stop_by = Timestamp::now();
        let stop_by = Timestamp(
            stop_by.0.saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)),
        );
        for mut worker in self.workers.drain(..) {
            stopped.answers.extend(worker.answers.take());
            let table = self.table.as_deref();
            let stuck = self.watchdog.as_ref().is_some_and(|_| worker.stays_stuck_until(stop_by));
            let (stats, result) = match self.watchdog.as_ref().filter(|_| stuck) {
                Some(watchdog) => worker.abandon(watchdog, table),
                None => worker.join(table),
            };
            stopped.stats.queues.push(stats);
            stopped.failures.extend(result.err());
        }
        self.watchdog = None;
        stopped.faults = self.reports.take();
        stopped
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl WorkerHandle {
    fn stats(&self, kernel: Option<KernelRow>) -> QueueStats {
        let Assignment { queue, cpu, .. } = self.assignment;
        QueueStats { queue, cpu, counts: self.counts(), kernel }
    }

    fn counts(&self) -> Counts {
        let mut counts = self.carried.clone();
        counts += &self.shared.snapshot();
        counts
    }

    /// Waits for the worker's end. True if it is stuck when its time is over.
    fn stays_stuck_until(&self, stop_by: Timestamp) -> bool {
        // One that only waits for answers hears the order a little later, and ends by itself.
        let patience = Timestamp(stop_by.0.saturating_add(HEARING_NS));
        while !self.shared.has_ended() {
            if self.shared.is_stuck() && Timestamp::now() >= patience {
                return true;
            }
            std::thread::sleep(END_LOOK);
        }
        false
    }

    /// Leaves the thread behind, without its queue.
    fn abandon(
        self,
        watchdog: &Watchdog,
        table: Option<&KernelTable>,
    ) -> (QueueStats, Result<(), WorkerError>) {
        let queue = self.assignment.queue;
        let kernel = table.and_then(|table| table.row(queue).ok().flatten());
        let error = watchdog.abandon(queue);
        (self.stats(kernel), Err(error))
    }

    /// Waits for the thread's end. The queue is given up only after the kernel's last word about it.
    fn join(self, table: Option<&KernelTable>) -> (QueueStats, Result<(), WorkerError>) {
        let Assignment { queue, cpu, .. } = self.assignment;
        let end = self.thread.join();
        let kernel = table.and_then(|table| table.row(queue).ok().flatten());
        let result = match end {
            Ok(Some(WorkerEnd { queue: bound, next_id, result })) => {
                if let Some(row) = kernel {
                    // Whoever failed left packets unread, which go with the queue: the socket has not lost them.
                    let unread = if result.is_ok() { 0 } else { row.queue_total };
                    self.shared.count_last_gap(next_id, row.id_sequence, unread);
                }
                drop(bound);
                result
            }
            Ok(None) | Err(_) => Err(WorkerError::Panicked { queue }),
        };
        let mut counts = self.carried;
        counts += &self.shared.snapshot();
        (QueueStats { queue, cpu, counts, kernel }, result)
    }
}

/// Sets someone to watch over the workers, if that is asked for. Where it is asked for, and not required, and cannot
/// be done, that is a warning.
fn start_watchdog(
    config: &EngineConfig,
    seats: &[Seat],
    queues: &[Queue],
    reports: &Arc<FaultReports>,
) -> Result<(Option<Watchdog>, Option<StartWarning>), StartError> {
    let Some(deadline) = config.fault.deadline else { return Ok((None, None)) };
    let outside = |(seat, queue): (&Seat, &Queue)| {
        let number = seat.assignment.queue;
        Ok((number, queue.outside(number)?, Arc::clone(&seat.shared)))
    };
    let watched = match seats.iter().zip(queues).map(outside).collect::<io::Result<Vec<_>>>() {
        Ok(watched) => watched,
        Err(source) if deadline.required => {
            let what = "reading /proc/net/netfilter/nfnetlink_queue, which inspect-deadline needs";
            return Err(StartError::Io { what, source });
        }
        Err(error) => {
            return Ok((None, Some(StartWarning::NoWatchdog { reason: error.to_string() })));
        }
    };
    let config = WatchdogConfig {
        deadline: deadline.limit,
        on_fault: config.fault.on_fault,
        on_exit: config.on_exit,
        deferring: config.deferral.is_some(),
        begins: config.watchdog_begins,
    };
    let started = Watchdog::start(config, watched, Arc::clone(reports));
    let watchdog =
        started.map_err(|source| StartError::Io { what: "starting the watchdog's thread", source });
    Ok((Some(watchdog?), None))
}

/// What the kernel granted a worker's thread.
struct Placed {
    pinned: bool,
    prioritised: bool,
}

/// A worker's thread before it has its queue.
#[derive(Debug)]
struct Seat {
    assignment: Assignment,
    shared: Arc<WorkerShared>,
    placed: mpsc::Receiver<Placed>,
    queue: mpsc::SyncSender<(Queue, Option<Gate>)>,
    thread: JoinHandle<Option<WorkerEnd>>,
}

impl Seat {
    /// Starts the thread, which pins itself, makes its inspector and waits for its queue.
    fn prepare<I, F>(
        index: u16,
        assignment: Assignment,
        config: &EngineConfig,
        make: Arc<F>,
        reports: &Arc<FaultReports>,
    ) -> Result<Self, StartError>
    where
        I: Inspector + 'static,
        F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
    {
        let (placed_sender, placed) = mpsc::channel();
        let (queue, queue_receiver) = mpsc::sync_channel::<(Queue, Option<Gate>)>(1);
        let info = WorkerInfo { queue: assignment.queue, index, cpu: assignment.cpu };
        let (wait, nice) = (config.wait, config.nice);
        let worker_config = config.clone();
        let shared = Arc::new(WorkerShared::new(false));
        let thread_shared = Arc::clone(&shared);
        let bell = EndBell(Arc::clone(reports), Arc::clone(&shared));
        let recovery = Recovery::new(config.fault, Arc::clone(reports));
        let body = move || {
            let _bell = bell;
            let placed = Placed {
                pinned: info.cpu.is_none_or(|cpu| thread_shared.pin.hold(cpu)),
                prioritised: sys::prefer_short_turns(nice),
            };
            let inspector = placed.pinned.then(|| make(info));
            placed_sender.send(placed).ok()?;
            let (inspector, (queue, gate)) = (inspector?, queue_receiver.recv().ok()?);
            // Before the worker first looks at it.
            thread_shared.heartbeat.continue_at(queue.past().next_id);
            let worker = Worker::new(info.queue, queue, inspector, wait, thread_shared, gate)
                .watching(&worker_config);
            let (queue, next_id, result) = run_guarded(worker, recovery, || make(info));
            Some(WorkerEnd { queue, next_id, result })
        };
        let thread =
            std::thread::Builder::new()
                .name(format!("fanq-{}", info.queue))
                .spawn(body)
                .map_err(|source| StartError::Io { what: "starting a worker's thread", source })?;
        Ok(Self { assignment, shared, placed, queue, thread })
    }

    /// Waits until the thread sits where it is to run. False if it got no priority there.
    fn wait_until_placed(&self) -> Result<bool, StartError> {
        let queue = self.assignment.queue;
        match (self.placed.recv(), self.assignment.cpu) {
            (Ok(Placed { pinned: true, prioritised }), _) => Ok(prioritised),
            (Ok(_), Some(cpu)) => Err(StartError::PinningRefused { queue, cpu }),
            (Ok(_), None) | (Err(_), _) => Err(StartError::InspectorPanicked { queue }),
        }
    }

    fn serve(self, queue: Queue, config: &EngineConfig) -> WorkerHandle {
        let waker = queue.waker();
        let gate = config.deferral.map(|deferral| {
            let answers = Answers::new(waker.downgrade(), deferral.outstanding_max);
            Gate::new(Arc::new(answers), deferral, config.batch)
        });
        let answers = gate.as_ref().map(|gate| Arc::clone(&gate.answers));
        self.shared.set_fail_open(queue.granted().contains(QueueFlag::FailOpen));
        let Past { carried, orphaned, .. } = queue.past().clone();
        // Still ours to write: the worker has not got its queue.
        self.shared.counters.orphaned.add(orphaned);
        // The thread waits for exactly this; if it has died, the engine's first `wait` says so.
        let _ = self.queue.send((queue, gate));
        WorkerHandle {
            assignment: self.assignment,
            shared: self.shared,
            waker,
            answers,
            carried,
            thread: self.thread,
        }
    }
}

/// Tells the engine's `wait` that a worker's thread is about to end, also by a panic.
struct EndBell(Arc<FaultReports>, Arc<WorkerShared>);

impl Drop for EndBell {
    fn drop(&mut self) {
        self.1.end();
        self.0.wake();
    }
}

const WAKE: Token = Token(0);

/// How often an engine that stops looks whether its workers have.
const END_LOOK: Duration = Duration::from_micros(200);

/// How much later than its time a worker that was taken for stuck is left behind: several times as long as one that
/// waits for answers may be deaf.
const HEARING_NS: u64 = 100_000_000;
