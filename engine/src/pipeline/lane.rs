//! One lane: a thread with an inspector of its own, and the packets on their way to it.
//!
//! Invariant: packets leave in the order in which they were added. Whatever happens to the thread, every packet that
//! it has comes back to the worker: decided, or without an answer. After a panic it has a new inspector, up to a number
//! of times a minute.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Deferred;
use crate::cpus::CpuList;
use crate::deferral::{Answer, Answers, Mailbox, Wake};
use crate::edits::Edits;
use crate::inspect::{Inspector, Packet};
use crate::sys::{Timestamp, allow_cpus};

/// The worker's end of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    inbox: Arc<Inbox>,
    /// Of this turn's batch.
    pending: Vec<Deferred>,
    thread: Option<JoinHandle<()>>,
}

type Inbox = Mailbox<Deferred, Nobody>;

/// A lane sleeps in its inbox and nowhere else.
#[derive(Debug)]
struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

impl Lane {
    /// Starts the thread, which makes its inspector.
    pub(super) fn start<I: Inspector + 'static>(
        queue: u16,
        number: usize,
        cpus: Option<CpuList>,
        make: impl Fn() -> I + Send + 'static,
    ) -> Self {
        let inbox = Arc::new(Inbox::new(Nobody, ROOM));
        let at_work = AtWork(Arc::clone(&inbox));
        let body = move || {
            if let Some(cpus) = cpus {
                // Refused: it stays where the worker is, which is slower and not wrong.
                let _ = allow_cpus(&cpus);
            }
            let mut panics = VecDeque::with_capacity(PANICS_MAX);
            // A panic was told of by its hook. Packets that it cut off have been dropped, which answers them.
            while catch_unwind(AssertUnwindSafe(|| inspect_all(&at_work.0, make()))).is_err() {
                panics.push_back(Instant::now());
                let oldest = if panics.len() < PANICS_MAX { None } else { panics.pop_front() };
                if oldest.is_some_and(|then: Instant| then.elapsed() < MINUTE) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("fanq-{queue}-{number}"))
            .spawn(body)
            .expect("the system has room for a thread");
        Self { inbox, pending: Vec::with_capacity(ROOM), thread: Some(thread) }
    }

    /// Adds a packet to this turn's batch.
    pub(super) fn add(&mut self, deferred: Deferred) {
        self.pending.push(deferred);
    }

    /// Hands the batch over. If the thread is gone, its packets get their fallback.
    pub(super) fn hand_over(&mut self) {
        if !self.pending.is_empty() {
            self.inbox.post_all(self.pending.drain(..));
        }
    }
}

impl Drop for Lane {
    /// Lets the thread end. One that does not come back from an inspector is left behind.
    fn drop(&mut self) {
        self.inbox.close();
        let Some(thread) = self.thread.take() else { return };
        let patience = Instant::now() + JOIN_MAX;
        while !thread.is_finished() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // A panic was told of by its hook, and its packets have their fallback.
            let _ = thread.join();
        }
    }
}

/// Closes the inbox when the thread ends, also by a panic: what comes then is answered at once.
struct AtWork(Arc<Inbox>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The thread's loop.
fn inspect_all<I: Inspector>(inbox: &Inbox, mut inspector: I) {
    let mut edits = Edits::new();
    let mut packets = Vec::with_capacity(ROOM);
    let mut decided = Decided::default();
    while inbox.is_open() {
        inbox.wait(PATIENCE);
        inbox.collect(&mut packets);
        let now = Timestamp::now();
        for deferred in packets.drain(..) {
            let answers = Arc::clone(deferred.answers());
            let message = deferred.message();
            let mut packet = Packet::with_clear_edits(message, &mut edits, None);
            let verdict = inspector.inspect(&mut packet);
            let mut answer = deferred.into_answer(Some(verdict));
            if edits.is_touched() {
                edits.move_into(&mut answer);
                answer.settle();
            }
            decided.add(answer, answers);
        }
        decided.post();
        inspector.batch_end(now);
    }
}

/// Answers to be posted together. Also those that were given before a panic are posted.
#[derive(Default)]
struct Decided {
    letters: Vec<Answer>,
    to: Option<Arc<Answers>>,
}

impl Decided {
    fn add(&mut self, answer: Answer, to: Arc<Answers>) {
        self.letters.push(answer);
        self.to = Some(to);
        if self.letters.len() >= POSTED_TOGETHER {
            self.post();
        }
    }

    fn post(&mut self) {
        if let Some(to) = self.to.take() {
            to.post_all(self.letters.drain(..));
        }
    }
}

impl Drop for Decided {
    fn drop(&mut self) {
        self.post();
    }
}

/// Packets for which there is room without allocating.
const ROOM: usize = 1024;

/// Posting one by one would take the worker's lock once a packet; posting late would let the worker idle.
const POSTED_TOGETHER: usize = 32;

/// How long an idle thread sleeps at most.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Panics within a minute after which a thread ends.
const PANICS_MAX: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// How long the end of a worker waits for the end of its lanes.
const JOIN_MAX: Duration = Duration::from_secs(1);
