//! What a panic of the inspector costs: the packets that it left unanswered get the `on_fault` verdict, and it is
//! replaced by a new one.
//!
//! ```text
//!   a batch:   decided ............ | at hand | not looked at ........
//!   verdicts:  as decided           | on_fault for all of these
//!   deferred:  before, stay with who has them
//! ```
//!
//! Invariant: a panic ends neither the worker nor any other, and each packet of its batch gets one verdict. After
//! `panics_max` panics in a minute, or if making an inspector panics, no new one is made: the worker answers everything
//! by the policy. One `catch_unwind` lies around the whole loop, so a batch costs nothing for it. It deliberately
//! leaves the panic hook alone: the message is what the panic carries, the place is what the hook prints.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Desk, Stage, Worker, WorkerError, WorkerShared};
use crate::edits::RewriteError;
use crate::fault::{FaultConfig, FaultReport, FaultReports};
use crate::inspect::{Inspector, Packet, Place};
use crate::nfq::{self, Message, PacketId, Verdict};
use crate::queue::Port;
use crate::sys::Timestamp;

/// What a worker needs beyond itself to go on after a panic.
#[derive(Debug)]
pub(crate) struct Recovery {
    config: FaultConfig,
    reports: Arc<FaultReports>,
    /// When the panics of the last minute were.
    panics: VecDeque<Timestamp>,
}

/// A worker's end: its queue, the next id, and how it went.
pub(crate) type Ended<P> = (P, PacketId, Result<(), WorkerError>);

/// Runs the worker to its end, with a new inspector after each panic.
pub(crate) fn run_guarded<P: Port, I: Inspector>(
    mut worker: Worker<P, I>,
    mut recovery: Recovery,
    make: impl Fn() -> I,
) -> Ended<P> {
    loop {
        // What a panic leaves half-done is the inspector, which is thrown away; between two calls of it the worker
        // is whole.
        let panic = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(result) => return worker.end(result),
            Err(panic) => panic,
        };
        recovery.note(&worker.desk, &*panic);
        let queue = worker.desk.queue;
        let policy = worker.desk.policy();
        let (mut idle, broken) = worker.with_inspector(policy);
        throw_away(panic);
        throw_away(Box::new(AssertUnwindSafe(broken)));
        if let Err(error) = idle.finish_interrupted_batch() {
            return idle.end(Err(error));
        }
        let renewed = recovery.another_chance().then(|| catch_unwind(AssertUnwindSafe(&make)));
        match renewed {
            Some(Ok(inspector)) => worker = idle.with_inspector(inspector).0,
            failed => {
                if let Some(Err(panic)) = failed {
                    recovery.note(&idle.desk, &*panic);
                    throw_away(panic);
                }
                recovery.give_up(queue);
                idle.on_exit.get_or_insert(idle.desk.on_fault);
                let result = idle.run();
                return idle.end(result);
            }
        }
    }
}

impl Recovery {
    pub(crate) fn new(config: FaultConfig, reports: Arc<FaultReports>) -> Self {
        Self { config, reports, panics: VecDeque::new() }
    }

    /// Counts and reports a panic.
    fn note<I: Inspector>(&mut self, desk: &Desk<I>, panic: &(dyn Any + Send)) {
        desk.shared.counters.panics.add(1);
        self.panics.push_back(Timestamp::now());
        let packet = desk.packet_in_question();
        let message = said(panic);
        self.reports.post(FaultReport::Panicked { queue: desk.queue, packet, message });
    }

    /// Whether there were few enough panics within the last minute.
    fn another_chance(&mut self) -> bool {
        let now = Timestamp::now();
        while self.panics.front().is_some_and(|then| now.since(*then) > MINUTE) {
            self.panics.pop_front();
        }
        self.panics.len() < self.config.panics_max as usize
    }

    fn give_up(&self, queue: u16) {
        let panics = u32::try_from(self.panics.len()).unwrap_or(u32::MAX);
        let on_fault = self.config.on_fault;
        self.reports.post(FaultReport::GaveUp { queue, panics, on_fault });
    }
}

/// The words of a panic: `panic!` carries a text of one of these kinds.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// Drops what was in a panic, which may panic again.
fn throw_away<T: ?Sized>(value: Box<T>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// Gives every packet the `on_fault` verdict, in an inspector's place.
#[derive(Debug)]
pub(super) struct FaultPolicy {
    verdict: Verdict,
    shared: Arc<WorkerShared>,
}

impl Inspector for FaultPolicy {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        // What was answered from outside is counted where that is found out.
        let outside = &self.shared.outside;
        if !(outside.is_claimed() && outside.lock().covers(packet.id())) {
            self.shared.counters.faulted.add(1);
        }
        self.verdict
    }

    fn unseen(&mut self) -> Verdict {
        self.shared.counters.faulted.add(1);
        self.verdict
    }

    fn rewrite_refused(&mut self, _error: RewriteError, _verdict: Verdict) -> Verdict {
        self.shared.counters.faulted.add(1);
        self.verdict
    }
}

impl<P, I> Worker<P, I> {
    /// The same worker with another inspector, and the one that it had.
    fn with_inspector<J>(self, inspector: J) -> (Worker<P, J>, I) {
        let Self { port, wait, desk, letters, watch, on_exit } = self;
        let Desk {
            queue,
            inspector: old,
            edits,
            coalescer,
            shared,
            batch_time,
            capability_lost,
            stage,
            on_fault,
        } = desk;
        let desk = Desk {
            queue,
            inspector,
            edits,
            coalescer,
            shared,
            batch_time,
            capability_lost,
            stage,
            on_fault,
        };
        (Worker { port, wait, desk, letters, watch, on_exit }, old)
    }
}

impl<P: Port, I: Inspector> Worker<P, I> {
    fn end(self, result: Result<(), WorkerError>) -> Ended<P> {
        let (port, next_id) = self.into_parts();
        (port, next_id, result)
    }
}

impl<P: Port> Worker<P, FaultPolicy> {
    /// Answers what a panic left of the batch.
    fn finish_interrupted_batch(&mut self) -> Result<(), WorkerError> {
        let stage = std::mem::replace(&mut self.desk.stage, Stage::Elsewhere);
        let at_hand = self.desk.packet_at_hand();
        match stage {
            Stage::Elsewhere => {}
            Stage::Answer(_) => self.forgo_answer(),
            Stage::Early | Stage::Batch => self.desk.answer_at_hand(at_hand),
        }
        self.desk.edits.clear();
        if stage == Stage::Batch {
            let mut behind = false;
            for index in 0..self.port.ring().received() {
                let datagram = self.port.ring().datagram(index);
                let rest = if behind { Some(datagram) } else { behind_packet(datagram, at_hand) };
                behind |= rest.is_some();
                if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                    self.desk.take(rest, Place::Alone(rest));
                }
                self.send_if_full()?;
            }
            let received = self.port.ring().received() as u64;
            let took = Timestamp::now().since(self.desk.batch_time);
            self.desk.shared.counters.count_batch(received, took);
        }
        self.send_verdicts()?;
        self.desk.rest();
        Ok(())
    }

    /// Gives the deferred packet about whose answer the inspector was asked the policy's verdict instead.
    fn forgo_answer(&mut self) {
        let Some(answer) = self.letters.pop() else { return };
        let Desk { coalescer, shared, on_fault, .. } = &mut self.desk;
        if let Some(verdict) = coalescer.answer_held(answer.id, Some(*on_fault)) {
            shared.counters.faulted.add(1);
            shared.counters.count_verdict(verdict);
        }
        self.port.ring_mut().give_back(answer.datagram);
    }
}

impl<I: Inspector> Desk<I> {
    fn policy(&self) -> FaultPolicy {
        FaultPolicy { verdict: self.on_fault, shared: Arc::clone(&self.shared) }
    }

    /// The last packet that was shown to the inspector.
    fn packet_at_hand(&self) -> PacketId {
        PacketId(self.shared.heartbeat.next_id().0.wrapping_sub(1))
    }

    /// The packet that the inspector is shown, or asked about.
    fn packet_in_question(&self) -> Option<PacketId> {
        match self.stage {
            Stage::Elsewhere => None,
            Stage::Answer(id) => Some(id),
            Stage::Early | Stage::Batch => Some(self.packet_at_hand()),
        }
    }

    /// Gives the packet that the inspector panicked at its verdict, also if it had just been deferred: what it is to
    /// get if nobody answers was not said.
    fn answer_at_hand(&mut self, id: PacketId) {
        if self.shared.outside.is_claimed() && self.forgoes(id) {
            return;
        }
        self.shared.counters.faulted.add(1);
        self.answer(id, self.on_fault);
    }

    /// Whether this packet was answered from outside, while the inspector had it: then it is counted, and the
    /// inspector's verdict is forgotten.
    #[cold]
    pub(super) fn forgoes(&mut self, id: PacketId) -> bool {
        let answered = self.shared.outside.lock().covers(id);
        if answered {
            self.shared.counters.faulted.add(1);
            self.shared.counters.count_verdict(self.on_fault);
            self.edits.clear();
        }
        answered
    }

    /// From here on nobody answers in the worker's place; what was answered so far is passed.
    pub(super) fn dismiss_watchdog(&mut self) {
        self.shared.end();
        self.rest();
    }

    /// Nothing is in hand any more.
    #[inline]
    pub(super) fn rest(&mut self) {
        self.shared.heartbeat.end_batch();
        if self.shared.outside.is_claimed() {
            self.shared.pass_what_was_taken();
        }
    }
}

/// What a datagram holds behind the packet with this id, if that is in it: as a rule nothing.
fn behind_packet(datagram: &[u8], id: PacketId) -> Option<&[u8]> {
    let mut rest = datagram;
    loop {
        match nfq::decode(rest) {
            Ok((Message::Packet(packet), next)) if packet.id() == id => return Some(next),
            Ok((_, [])) => return None,
            Ok((_, next)) => rest = next,
            Err(undecodable) => return (undecodable.id == Some(id)).then_some(&[]),
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
