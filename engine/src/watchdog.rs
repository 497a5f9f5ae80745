//! The watchdog: a thread that looks whether workers come back from their inspectors, and answers for those that do
//! not.
//!
//! ```text
//!   look (a few times within the deadline):
//!      the beat has changed                      -> well; if it was stuck, say that it is back
//!      the same, at work, for a deadline         -> stuck: say so, answer its queue, and again every few ms
//!      the same, and the socket unread for one   -> stuck, too: its thread does not run, or it may receive no more
//!                                                   before others give back what was deferred, and they do not
//! ```
//!
//! It also sees to it that a worker whose CPU was away runs there again ([`pin`](crate::pin)).
//!
//! A watchdog that was itself kept from looking, as when the whole process was stopped, has seen nothing: it begins
//! anew.
//!
//! Invariant: it reads what workers write anyway, so they pay nothing for being looked at; other queues than a stuck
//! worker's are not touched. It deliberately does not end a thread that is stuck: nothing can do that safely. What is
//! answered, and what not, is [`stand_in`](crate::worker::stand_in)'s.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::ThreadBegins;
use crate::fault::{Fate, FaultReport, FaultReports};
use crate::queue::{OutsideQueue, Port};
use crate::sys::Timestamp;
use crate::worker::heartbeat::Heartbeat;
use crate::worker::stand_in::{Pass, StandIn};
use crate::worker::{WorkerError, WorkerShared};

/// What the watchdog is to see to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchdogConfig {
    pub(crate) deadline: Duration,
    pub(crate) on_fault: Fate,
    pub(crate) on_exit: Option<Fate>,
    /// Whether workers may hold packets back.
    pub(crate) deferring: bool,
    /// Called first on the watchdog's thread.
    pub(crate) begins: Option<ThreadBegins>,
}

/// The thread, and what it looks at.
#[derive(Debug)]
pub(crate) struct Watchdog {
    kennel: Arc<Kennel>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Kennel {
    over: AtomicBool,
    watched: Mutex<Vec<Watched<OutsideQueue>>>,
}

/// One worker under watch.
#[derive(Debug)]
pub(crate) struct Watched<P> {
    queue: u16,
    port: P,
    shared: Arc<WorkerShared>,
    config: WatchdogConfig,
    /// The last beat, and since when it has been that.
    beat: u64,
    since: Timestamp,
    /// When it was last looked at.
    looked: Timestamp,
    /// Since when the socket has had something that nobody reads.
    unread_since: Option<Timestamp>,
    stuck: Option<StandIn>,
    /// What packets get, so that a test knows it from other verdicts.
    #[cfg(test)]
    verdict: Option<crate::nfq::Verdict>,
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for one.
    pub(crate) fn start(
        config: WatchdogConfig,
        queues: impl IntoIterator<Item = (u16, OutsideQueue, Arc<WorkerShared>)>,
        reports: Arc<FaultReports>,
    ) -> io::Result<Self> {
        let watched = queues
            .into_iter()
            .map(|(queue, port, shared)| Watched::new(queue, port, shared, config))
            .collect();
        let kennel =
            Arc::new(Kennel { over: AtomicBool::new(false), watched: Mutex::new(watched) });
        let theirs = Arc::clone(&kennel);
        let thread =
            std::thread::Builder::new().name("fanq-watchdog".to_owned()).spawn(move || {
                if let Some(ThreadBegins(begin)) = config.begins {
                    begin();
                }
                theirs.watch(config.deadline, &reports);
            })?;
        Ok(Self { kennel, thread: Some(thread) })
    }

    /// Gives up on a worker that is stuck although it was to stop.
    pub(crate) fn abandon(&self, queue: u16) -> WorkerError {
        let mut watched = self.kennel.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let place = watched.iter().position(|watched| watched.queue == queue);
        match place.map(|place| watched.swap_remove(place)) {
            Some(mut watched) => watched.give_up(),
            None => WorkerError::Stuck { queue, packet: None },
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Release, with the Acquire in `watch`.
        self.kennel.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics only by a fault of ours, which its hook has told of.
            let _ = thread.join();
        }
    }
}

impl Kennel {
    fn watch(&self, deadline: Duration, reports: &FaultReports) {
        let usual = (deadline / LOOKS_IN_A_DEADLINE).clamp(LOOK_MIN, LOOK_MAX);
        while !self.over.load(Ordering::Acquire) {
            let mut any_stuck = false;
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            for watched in &mut *watched {
                if let Some(report) = watched.look(Timestamp::now()) {
                    reports.post(report);
                }
                any_stuck |= watched.stuck.is_some();
                watched.keep_in_place();
            }
            drop(watched);
            std::thread::park_timeout(if any_stuck { usual.min(PASS_EVERY) } else { usual });
        }
    }
}

impl<P: Port> Watched<P> {
    pub(crate) fn new(
        queue: u16,
        port: P,
        shared: Arc<WorkerShared>,
        config: WatchdogConfig,
    ) -> Self {
        let (beat, since) = (shared.heartbeat.beat(), Timestamp::now());
        Self {
            queue,
            port,
            shared,
            config,
            beat,
            since,
            looked: since,
            unread_since: None,
            stuck: None,
            #[cfg(test)]
            verdict: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn answer_with(&mut self, verdict: crate::nfq::Verdict) {
        self.verdict = Some(verdict);
    }

    /// Looks at the worker and does what is to be done about it. Returns what is to be said.
    pub(crate) fn look(&mut self, now: Timestamp) -> Option<FaultReport> {
        let beat = self.shared.heartbeat.beat();
        if beat != self.beat || self.shared.has_ended() {
            return self.came_back(beat, now);
        }
        if now.since(std::mem::replace(&mut self.looked, now)) > self.absence_max() {
            (self.since, self.unread_since) = (now, None);
        }
        if let Some(stand_in) = &mut self.stuck {
            // One that failed is tried again at the next look; one that has moved is seen by its beat.
            stand_in.pass(&mut self.port, &self.shared);
            return None;
        }
        let since = if Heartbeat::is_at_work(beat) {
            self.since
        } else if self.port.is_readable() {
            *self.unread_since.get_or_insert(now)
        } else {
            self.unread_since = None;
            return None;
        };
        if now.since(since) < self.config.deadline {
            return None;
        }
        self.since = since;
        let WatchdogConfig { on_fault, deferring, .. } = self.config;
        let mut stand_in =
            StandIn::new(self.queue, beat, on_fault, &self.shared.heartbeat, deferring);
        #[cfg(test)]
        if let Some(verdict) = self.verdict {
            stand_in.answer_with(verdict);
        }
        let packet = stand_in.packet();
        if stand_in.pass(&mut self.port, &self.shared) == Pass::Moved {
            return None;
        }
        self.shared.set_stuck(true);
        self.shared.outside.counters.hangs.add(1);
        self.stuck = Some(stand_in);
        Some(FaultReport::Stuck { queue: self.queue, packet, since: now.since(since), on_fault })
    }

    /// How long it may be between two looks before the watchdog takes itself to have been stopped.
    fn absence_max(&self) -> Duration {
        (self.config.deadline / 2).max(LATE_MAX)
    }

    /// Sees to it that the worker's thread runs where it belongs.
    fn keep_in_place(&self) {
        // An ended thread's number may be another's.
        if !self.shared.has_ended() {
            self.shared.pin.keep(Timestamp::now());
        }
    }

    fn came_back(&mut self, beat: u64, now: Timestamp) -> Option<FaultReport> {
        let after = now.since(self.since);
        (self.beat, self.since, self.unread_since) = (beat, now, None);
        self.looked = now;
        let StandIn { answered, .. } = self.stuck.take()?;
        self.shared.set_stuck(false);
        Some(FaultReport::Resumed { queue: self.queue, after, answered })
    }

    fn give_up(&mut self) -> WorkerError {
        let queue = self.queue;
        let Some(stand_in) = &mut self.stuck else {
            return WorkerError::Stuck { queue, packet: None };
        };
        let packet = stand_in.packet();
        match stand_in.give_up(&mut self.port, &self.shared, self.config.on_exit) {
            Ok(()) => WorkerError::Stuck { queue, packet },
            Err(error) => error,
        }
    }
}

/// A worker is found stuck at most so much later than its deadline: an eighth of it.
const LOOKS_IN_A_DEADLINE: u32 = 8;
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// A look may be so late on a busy machine, also where that is longer than a short deadline.
const LATE_MAX: Duration = Duration::from_millis(10);

/// A queue of 16,384 packets fills in 10 ms at 1.6 million a second.
const PASS_EVERY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_table::KernelRow;
    use crate::nfq::PacketId;
    use crate::sys::{ReceiveError, ReceiveRing};

    /// A socket with nothing in it, or something that nobody reads.
    struct Silent {
        ring: ReceiveRing,
        readable: bool,
    }

    impl Port for Silent {
        fn receive(&mut self, _block: bool) -> Result<usize, ReceiveError> {
            Err(ReceiveError::Nothing)
        }

        fn wait(&self, _limit: Duration) -> io::Result<()> {
            Ok(())
        }

        fn ring(&self) -> &ReceiveRing {
            &self.ring
        }

        fn ring_mut(&mut self) -> &mut ReceiveRing {
            &mut self.ring
        }

        fn send(&mut self, _messages: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn kernel_row(&self) -> Option<KernelRow> {
            Some(KernelRow {
                queue: 1,
                port_id: 1,
                queue_total: 1,
                copy_mode: 2,
                copy_range: 1,
                queue_dropped: 0,
                user_dropped: 0,
                id_sequence: 1,
            })
        }

        fn is_readable(&self) -> bool {
            self.readable
        }
    }

    fn watched(readable: bool) -> (Watched<Silent>, Arc<WorkerShared>) {
        watched_for(Duration::from_millis(100), readable)
    }

    fn watched_for(deadline: Duration, readable: bool) -> (Watched<Silent>, Arc<WorkerShared>) {
        let shared = Arc::new(WorkerShared::new(false));
        let config = WatchdogConfig {
            deadline,
            on_fault: Fate::Drop,
            on_exit: None,
            deferring: false,
            begins: None,
        };
        let port = Silent { ring: ReceiveRing::new(1, 64, 0).expect("it is small"), readable };
        (Watched::new(1, port, Arc::clone(&shared), config), shared)
    }

    const fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn a_worker_is_stuck_after_its_deadline_and_not_before() {
        let (mut watched, shared) = watched(false);
        shared.heartbeat.begin_batch();
        shared.heartbeat.set_next_id(PacketId(2));
        for time in [0, 40, 80] {
            assert_eq!(watched.look(ms(time)), None);
        }
        let since = Duration::from_millis(100);
        let packet = Some(PacketId(1));
        let stuck = FaultReport::Stuck { queue: 1, packet, since, on_fault: Fate::Drop };
        assert_eq!(watched.look(ms(100)), Some(stuck));
        assert!(shared.is_stuck());
        assert_eq!(watched.look(ms(105)), None, "said once");
        shared.heartbeat.end_batch();
        let after = Duration::from_millis(110);
        let resumed = FaultReport::Resumed { queue: 1, after, answered: 1 };
        assert_eq!(watched.look(ms(110)), Some(resumed));
        assert!(!shared.is_stuck());
    }

    #[test]
    fn a_worker_that_sleeps_is_well_while_there_is_nothing_to_read() {
        for readable in [false, true] {
            let (mut watched, _shared) = watched(readable);
            let reports: Vec<_> = (0..20).filter_map(|look| watched.look(ms(10 * look))).collect();
            assert_eq!(reports.len(), usize::from(readable), "{reports:?}");
        }
    }

    #[test]
    fn a_deadline_as_short_as_the_time_between_two_looks_is_kept() {
        for deadline in [1, 2, 5] {
            let (mut watched, shared) = watched_for(Duration::from_millis(deadline), false);
            shared.heartbeat.begin_batch();
            let looks = [0, 3, 6, 9].map(|time| watched.look(ms(time)).is_some());
            assert_eq!(looks.iter().filter(|stuck| **stuck).count(), 1, "{deadline} ms: {looks:?}");
        }
    }

    #[test]
    fn a_watchdog_that_was_stopped_blames_nobody_for_that_time() {
        let (mut watched, shared) = watched(true);
        shared.heartbeat.begin_batch();
        for time in [0, 40, 5000, 5040, 5080] {
            assert_eq!(watched.look(ms(time)), None);
        }
        assert!(watched.look(ms(5100)).is_some());
    }
}
