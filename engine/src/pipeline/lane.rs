//! One lane: a thread with an inspector of its own, and the packets on their way to it.
//!
//! ```text
//!   worker                                   thread
//!   turn's end: hand over a batch  ------->  (woken, if it sleeps) takes all that there is, inspects it,
//!   (woken, if it sleeps)  <---------------  leaves all answers at once
//! ```
//!
//! Invariant: packets leave in the order in which they were added. Whatever happens to the thread, every packet that
//! it has comes back to the worker: decided, or without an answer. After a panic it has a new inspector, up to a number
//! of times a minute. A lane that [is busy](Lane::is_busy) has answers to leave yet, so whoever waits for them does not
//! wait in vain.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::Deferred;
use crate::cpus::CpuList;
use crate::deferral::{Answer, Answers, Mailbox, Wake};
use crate::edits::Edits;
use crate::inspect::{Inspector, Packet};
use crate::sys::{Timestamp, allow_cpus};

/// The worker's end of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    shared: Arc<Shared>,
    /// Of this turn's batch.
    pending: Vec<Deferred>,
    /// How many were handed over, ever.
    handed_over: u64,
    thread: Option<JoinHandle<()>>,
}

/// What both ends of a lane have.
#[derive(Debug)]
struct Shared {
    inbox: Mailbox<Deferred, Nobody>,
    /// How many packets the thread is done with, ever; [`GONE`] once it has ended. Written by the thread alone.
    done: CachePadded<AtomicU64>,
}

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
        let (inbox, done) = (Mailbox::new(Nobody, ROOM), CachePadded::default());
        let shared = Arc::new(Shared { inbox, done });
        let at_work = AtWork(Arc::clone(&shared));
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
        Self { shared, pending: Vec::with_capacity(ROOM), handed_over: 0, thread: Some(thread) }
    }

    /// Adds a packet to this turn's batch.
    pub(super) fn add(&mut self, deferred: Deferred) {
        self.pending.push(deferred);
    }

    /// Hands the batch over. If the thread is gone, its packets get their fallback.
    pub(super) fn hand_over(&mut self) {
        if !self.pending.is_empty() {
            self.handed_over += self.pending.len() as u64;
            self.shared.inbox.post_all(self.pending.drain(..));
        }
    }

    /// Whether the thread has packets, of which the answers have not been left yet.
    pub(super) fn is_busy(&self) -> bool {
        // Acquire, with the Release in `Decided::post`; what matters more is that the thread writes this before it
        // leaves the answers, and the worker reads it after it has collected them.
        self.shared.done.load(Ordering::Acquire) < self.handed_over
    }
}

impl Drop for Lane {
    /// Lets the thread end.
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

/// Ends all lanes and waits for their threads, a little. One that does not come back from an inspector is left behind.
pub(super) fn end(lanes: &mut [Lane]) {
    for lane in &*lanes {
        lane.shared.inbox.close();
    }
    let patience = Instant::now() + JOIN_MAX;
    for lane in lanes {
        let Some(thread) = lane.thread.take() else { continue };
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
struct AtWork(Arc<Shared>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.done.store(GONE, Ordering::Release);
        self.0.inbox.close();
    }
}

/// The thread's loop.
fn inspect_all<I: Inspector>(shared: &Shared, mut inspector: I) {
    let mut edits = Edits::new();
    let mut packets = Vec::with_capacity(ROOM);
    let mut decided = Decided { letters: Vec::with_capacity(ROOM), to: None, in_hand: 0, shared };
    while shared.inbox.is_open() {
        shared.inbox.wait(Duration::MAX);
        shared.inbox.collect(&mut packets);
        decided.in_hand = packets.len() as u64;
        let now = Timestamp::now();
        for deferred in packets.drain(..) {
            decided.address(deferred.answers());
            let message = deferred.message();
            let mut packet = Packet::with_clear_edits(message, &mut edits, None);
            let verdict = inspector.inspect(&mut packet);
            decided.add(if edits.is_touched() {
                let refused = |error, verdict| inspector.rewrite_refused(error, verdict);
                deferred.into_edited(verdict, &mut edits, refused)
            } else {
                deferred.into_answer(Some(verdict))
            });
        }
        decided.post();
        inspector.batch_end(now);
    }
}

/// Answers to be left together. Also those that were given before a panic are left.
struct Decided<'a> {
    letters: Vec<Answer>,
    to: Option<Arc<Answers>>,
    /// Packets that the thread has and is not done with.
    in_hand: u64,
    shared: &'a Shared,
}

impl Decided<'_> {
    /// The next answer goes there. As a rule all do.
    fn address(&mut self, answers: &Arc<Answers>) {
        if !self.to.as_ref().is_some_and(|to| Arc::ptr_eq(to, answers)) {
            self.post();
            self.to = Some(Arc::clone(answers));
        }
    }

    fn add(&mut self, answer: Answer) {
        self.letters.push(answer);
        if self.letters.len() >= POSTED_TOGETHER {
            self.post();
        }
    }

    fn post(&mut self) {
        // Taken, so that empty hands wake nobody.
        let Some(to) = self.to.take() else { return };
        let count = self.letters.len() as u64;
        self.in_hand -= count;
        self.note_done(count);
        to.post_all(self.letters.drain(..));
    }

    fn note_done(&self, count: u64) {
        let done = self.shared.done.load(Ordering::Relaxed);
        self.shared.done.store(done + count, Ordering::Release);
    }
}

impl Drop for Decided<'_> {
    /// What a panic left has been dropped, which answered it.
    fn drop(&mut self) {
        self.post();
        self.note_done(self.in_hand);
    }
}

/// Packets for which there is room without allocating.
const ROOM: usize = 1024;

/// A worker's usual batch. One by one they would wake the worker for each packet; all that there is at once would let
/// it idle behind a long backlog.
const POSTED_TOGETHER: usize = 64;

/// More than any number of packets.
const GONE: u64 = u64::MAX;

/// Panics within a minute after which a thread ends.
const PANICS_MAX: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// How long the end of a worker waits for the end of its lanes, all together: less than who leaves a queue to another
/// waits for the worker.
const JOIN_MAX: Duration = Duration::from_millis(250);
