//! The worker: receives a batch, has each packet decided, answers all of them, and again.
//!
//! ```text
//! loop:
//!   n = receive                       one system call, up to `batch` packets; sleeps in it if nothing waits
//!   now = clock                       once a batch
//!   for each message in order:
//!      decode                         in place; what cannot be decoded is counted, and answered if it has an id
//!      note its id                    a jump is loss in the socket's buffer
//!      verdict = inspector.inspect    the user's code
//!      coalescer.push                 equal neighbours join
//!   send                              one system call, below one page
//!   clock                             how long the batch took
//! ```
//!
//! A packet that the inspector deferred is answered in a later turn ([`late`]). What a panic leaves is taken up by
//! [`guard`]; what a worker that does not come back has in hand, by the watchdog ([`heartbeat`]).
//!
//! Invariants: what is received in a turn is answered in that turn, so batching never waits for a timer. After
//! the first turn nothing is allocated, locked or logged, and no cache line is written that another thread
//! writes. Refused verdicts are counted; only the loss of CAP_NET_ADMIN ends a worker, since nothing could be
//! answered any more.

mod drain;
mod guard;
pub(crate) mod heartbeat;
mod late;
mod overload;
mod release;
mod shared;
pub(crate) mod stand_in;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::Backoff;

use crate::config::{EngineConfig, Wait};
use crate::deferral::{Answer, Gate};
use crate::edits::Edits;
use crate::fault::Fate;
use crate::inspect::{Inspector, Packet, Place};
use crate::nfq::{self, KernelReply, Message, PacketId, Request, Verdict, VerdictCode};
use crate::queue::Port;
use crate::stats::WorkerCounters;
use crate::sys::{ReceiveError, Timestamp};
use crate::verdicts::Coalescer;

pub(crate) use guard::{Recovery, run_guarded};
use overload::LoadWatch;
pub use shared::WorkerError;
pub(crate) use shared::WorkerShared;

/// One queue's loop.
pub(crate) struct Worker<P, I> {
    port: P,
    wait: Wait,
    desk: Desk<I>,
    /// Answers of other threads, while they are read.
    letters: Vec<Answer>,
    watch: Option<LoadWatch>,
    /// What packets get that are still queued when the time to stop is over; the inspector's `unseen` if nothing.
    on_exit: Option<Verdict>,
}

/// What happens to one message: all of the worker but its port, so that a message can be borrowed from there.
struct Desk<I> {
    queue: u16,
    inspector: I,
    /// What the inspector changes about the packet at hand.
    edits: Edits,
    coalescer: Coalescer,
    shared: Arc<WorkerShared>,
    /// When the batch at hand was received.
    batch_time: Timestamp,
    capability_lost: bool,
    stage: Stage,
    /// What packets get that the inspector failed to judge.
    on_fault: Verdict,
}

/// Where the packets come from that are being decided: what a panic would leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None are.
    Elsewhere,
    /// One that came before the worker ran.
    Early,
    /// The last receive.
    Batch,
    /// It was deferred, and its answer is being read.
    Answer(PacketId),
}

impl<P: Port, I: Inspector> Worker<P, I> {
    pub(crate) fn new(
        queue: u16,
        port: P,
        inspector: I,
        wait: Wait,
        shared: Arc<WorkerShared>,
        gate: Option<Gate>,
    ) -> Self {
        let outstanding_max = gate.as_ref().map_or(0, |gate| gate.config.outstanding_max);
        let desk = Desk {
            queue,
            inspector,
            edits: Edits::with_gate(gate),
            coalescer: Coalescer::with_held_max(queue, outstanding_max),
            shared,
            batch_time: Timestamp::now(),
            capability_lost: false,
            stage: Stage::Elsewhere,
            on_fault: Verdict::DROP,
        };
        let letters = Vec::with_capacity(outstanding_max);
        Self { port, wait, desk, letters, watch: None, on_exit: None }
    }

    /// Lets the worker relieve its queue under load, and tells it what packets get that nobody judges.
    pub(crate) fn watching(mut self, config: &EngineConfig) -> Self {
        let usual = config.queue.copy_range;
        let watch = |overload| LoadWatch::new(overload, usual, config.batch);
        self.desk.on_fault = config.fault.on_fault.verdict();
        let on_exit = config.on_exit.map(Fate::verdict);
        Self { watch: config.overload.map(watch), on_exit, ..self }
    }

    /// Serves the queue until it is told to stop, then drains it, or leaves it to another.
    pub(crate) fn run(&mut self) -> Result<(), WorkerError> {
        while let Some(datagram) = self.port.take_early() {
            self.desk.begin_batch(Stage::Early);
            self.desk.take(&datagram, Place::Alone(&datagram));
            self.send_verdicts()?;
            self.desk.end_batch();
        }
        loop {
            if let Some(stop_by) = self.desk.shared.stop_order() {
                let released = self.desk.shared.is_released();
                return if released { self.release(stop_by) } else { self.drain(stop_by) };
            }
            if let Some(range) = self.desk.shared.take_copy_range() {
                self.change_copy_range(range)?;
            }
            self.turn(true)?;
        }
    }

    /// Gives the port back, and the id that the next packet would have had.
    pub(crate) fn into_parts(mut self) -> (P, PacketId) {
        // The inspector's end, which follows, may take its time.
        self.desk.dismiss_watchdog();
        (self.port, self.desk.shared.heartbeat.next_id())
    }

    /// Receives and answers one batch, and what other threads have answered. Returns how many datagrams and answers
    /// there were.
    #[inline]
    fn turn(&mut self, may_wait: bool) -> Result<usize, WorkerError> {
        if self.desk.edits.gate_mut().is_some() {
            return self.turn_with_answers(may_wait);
        }
        let received = self.receive(may_wait)?;
        self.serve(received)?;
        self.watch_load(received)?;
        Ok(received)
    }

    /// Decides and answers what was received.
    #[inline]
    fn serve(&mut self, received: usize) -> Result<(), WorkerError> {
        if received == 0 {
            return Ok(());
        }
        self.desk.batch_time = Timestamp::now();
        self.desk.begin_batch(Stage::Batch);
        let packets_before = self.desk.shared.counters.packets.read();
        for index in 0..received {
            let ring = self.port.ring();
            self.desk.take(ring.datagram(index), Place::Ring(ring, index));
            self.send_if_full()?;
        }
        let packets = self.desk.shared.counters.packets.read() - packets_before;
        self.send_verdicts()?;
        let took = Timestamp::now().since(self.desk.batch_time);
        self.desk.shared.counters.count_batch(packets, took);
        self.desk.end_batch();
        if self.desk.capability_lost {
            return Err(WorkerError::CapabilityLost { queue: self.desk.queue });
        }
        Ok(())
    }

    #[inline]
    fn send_if_full(&mut self) -> Result<(), WorkerError> {
        if !self.desk.coalescer.is_full() {
            return Ok(());
        }
        self.desk.shared.counters.send_calls.add(1);
        let messages = self.desk.coalescer.take();
        send(&mut self.port, messages, self.desk.queue, &self.desk.shared.counters)
    }

    #[inline]
    fn send_verdicts(&mut self) -> Result<(), WorkerError> {
        let messages = self.desk.coalescer.finish();
        if messages.is_empty() {
            return Ok(());
        }
        self.desk.shared.counters.send_calls.add(1);
        send(&mut self.port, messages, self.desk.queue, &self.desk.shared.counters)
    }

    /// Receives what waits. Waiting is the receive itself or, to spare the wake-up, some looking before it.
    #[inline]
    fn receive(&mut self, may_wait: bool) -> Result<usize, WorkerError> {
        match self.wait {
            Wait::Spin(limit) if may_wait => match self.spin(limit)? {
                0 => self.receive_once(true),
                received => Ok(received),
            },
            _ => self.receive_once(may_wait),
        }
    }

    fn spin(&mut self, limit: Duration) -> Result<usize, WorkerError> {
        let backoff = Backoff::new();
        let start = Timestamp::now();
        loop {
            let received = self.receive_once(false)?;
            let over = Timestamp::now().since(start) >= limit;
            if received > 0 || over || self.desk.shared.stop_order().is_some() {
                return Ok(received);
            }
            // Yields after a few rounds: on its queue's own CPU, a worker that spins keeps packets from coming.
            backoff.snooze();
        }
    }

    #[inline]
    fn receive_once(&mut self, block: bool) -> Result<usize, WorkerError> {
        loop {
            match self.port.receive(block) {
                Ok(received) => return Ok(received),
                Err(ReceiveError::Nothing) => return Ok(0),
                Err(ReceiveError::Overrun) => {
                    self.desk.shared.counters.overruns.add(1);
                    if block {
                        return Ok(0);
                    }
                    // What there was room for waits behind it: whoever asks whether anything does must not hear no.
                }
                Err(ReceiveError::Fatal(source)) => {
                    return Err(WorkerError::Receive { queue: self.desk.queue, source });
                }
            }
        }
    }
}

impl<I: Inspector> Desk<I> {
    /// Packets are being decided from here on.
    #[inline]
    fn begin_batch(&mut self, stage: Stage) {
        self.stage = stage;
        self.shared.heartbeat.begin_batch();
    }

    /// All of them have their verdicts, and these are sent.
    #[inline]
    fn end_batch(&mut self) {
        self.stage = Stage::Elsewhere;
        self.shared.heartbeat.mark_answered();
        self.inspector.batch_end(self.batch_time);
        self.rest();
    }

    /// Handles one datagram: as a rule one packet.
    #[inline]
    fn take(&mut self, datagram: &[u8], place: Place<'_>) {
        let mut rest = datagram;
        loop {
            match nfq::decode(rest) {
                Ok((message, next)) => {
                    match message {
                        Message::Packet(packet) => self.decide(packet, place),
                        Message::Reply(reply) => self.note_reply(reply),
                        Message::Unknown(_) => self.shared.counters.malformed.add(1),
                    }
                    rest = next;
                }
                Err(undecodable) => {
                    self.answer_undecodable(undecodable.id);
                    return;
                }
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    #[inline]
    fn decide(&mut self, message: nfq::PacketMessage<'_>, place: Place<'_>) {
        let counters = &self.shared.counters;
        counters.packets.add(1);
        counters.bytes.add(u64::from(message.length()));
        let hook = usize::from(message.hook().number()).min(nfq::Hook::NAMED);
        counters.hooks[hook].add(1);
        let id = message.id();
        self.note_id(id);
        let mut packet = Packet::with_clear_edits(message, &mut self.edits, Some(place));
        let verdict = self.inspector.inspect(&mut packet);
        if self.shared.outside.is_claimed() && self.forgoes(id) {
            return;
        }
        if self.edits.is_touched() {
            self.answer_edited(id, verdict);
        } else {
            self.answer(id, verdict);
        }
    }

    #[expect(
        clippy::inline_always,
        reason = "two callers, of which one is cold; the other is per packet"
    )]
    #[inline(always)]
    fn answer(&mut self, id: PacketId, verdict: Verdict) {
        self.shared.counters.count_verdict(verdict);
        self.coalescer.push(id, verdict);
    }

    /// Answers a packet about which the inspector changed something, or wanted to.
    #[cold]
    fn answer_edited(&mut self, id: PacketId, verdict: Verdict) {
        if self.edits.is_deferred() {
            return self.hold(id, verdict);
        }
        let counters = &self.shared.counters;
        let is_drop = verdict.code() == VerdictCode::Drop;
        let refused = if is_drop { self.edits.refused() } else { self.edits.settle() };
        let verdict = match refused {
            Some(error) => {
                counters.rewrites_refused.add(1);
                self.inspector.rewrite_refused(error, verdict)
            }
            None => verdict,
        };
        counters.count_verdict(verdict);
        let payload = self.edits.payload().filter(|_| refused.is_none());
        if verdict.code() == VerdictCode::Drop {
            self.coalescer.push(id, verdict);
        } else {
            counters.rewritten.add(u64::from(payload.is_some()));
            self.coalescer.push_edited(id, verdict, self.edits.conntrack(), payload);
        }
        self.edits.clear();
    }

    /// Ids count up by one. A jump means packets that the socket had no room for: the kernel dropped them or,
    /// under fail-open, let them pass.
    #[inline]
    fn note_id(&mut self, id: PacketId) {
        if id != self.shared.heartbeat.next_id() {
            self.shared.note_jump(id);
        }
        self.shared.heartbeat.set_next_id(id.next());
    }

    #[cold]
    fn answer_undecodable(&mut self, id: Option<PacketId>) {
        let Some(id) = id else {
            self.shared.counters.malformed.add(1);
            return;
        };
        self.shared.counters.undecodable.add(1);
        self.shared.counters.packets.add(1);
        self.note_id(id);
        if self.shared.outside.is_claimed() && self.forgoes(id) {
            return;
        }
        let verdict = self.inspector.unseen();
        self.answer(id, verdict);
    }

    fn note_reply(&mut self, reply: KernelReply) {
        let is_verdict = matches!(reply.request, Request::Verdict | Request::VerdictBatch);
        if reply.errno == 0 || !is_verdict || reply.is_about_orphans() {
            return;
        }
        self.shared.counters.count_verdict_error(reply.errno);
        self.capability_lost |= reply.errno == libc::EPERM;
    }
}

/// The id of the packet that a message tells of, also if the rest of the message is broken.
fn packet_id(datagram: &[u8]) -> Option<PacketId> {
    match nfq::decode(datagram) {
        Ok((Message::Packet(packet), _)) => Some(packet.id()),
        Ok(_) => None,
        Err(undecodable) => undecodable.id,
    }
}

/// Sends; when the kernel has no memory for the moment, tries again, so that no verdict is lost.
#[inline]
fn send<P: Port>(
    port: &mut P,
    messages: &[u8],
    queue: u16,
    counters: &WorkerCounters,
) -> Result<(), WorkerError> {
    for _ in 0..SEND_TRIES {
        match port.send(messages) {
            Ok(()) => return Ok(()),
            Err(error) if is_passing(&error) => counters.send_retries.add(1),
            Err(source) => return Err(WorkerError::Send { queue, source }),
        }
        std::thread::yield_now();
    }
    Err(WorkerError::Send { queue, source: io::Error::from_raw_os_error(libc::ENOBUFS) })
}

/// Whether a send that failed so may succeed when tried again.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EINTR, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

/// A kernel that has had no memory for so many tries in a row will not get well by more of them.
const SEND_TRIES: u32 = 10_000;

#[cfg(test)]
mod tests;
