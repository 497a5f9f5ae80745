//! Answering in the place of a worker that does not come back.
//!
//! ```text
//!   ids       .. decided, not sent | at hand | unread: in the worker's hands, in the socket | not given yet
//!   answered  no: they keep their  | by on_fault, up to the last id given                   | in a later pass
//!             own verdicts
//! ```
//!
//! One batch verdict does it where nothing below waits for a verdict of its own. Where something may (packets of the
//! batch that were decided and not sent, packets that are deferred), the coalescer's first rule holds as ever, and each
//! packet is answered by itself. So a packet that has its verdict keeps it, and comes when the worker does.
//!
//! Invariants: nothing is answered but under a claim (see [`heartbeat`](super::heartbeat)), from the packet at hand on
//! and up to an id that the kernel has given. Messages of packets that were answered are taken out of the socket, or it
//! would overflow and the kernel would drop what the policy is to decide about.

use super::heartbeat::{Heartbeat, Taken};
use super::{WorkerError, WorkerShared, send};
use crate::fault::Fate;
use crate::nfq::{self, Message, PacketId, QueueRequest, Verdict};
use crate::queue::Port;
use crate::stats::WorkerCounters;
use crate::sys::ReceiveError;
use crate::verdicts::Coalescer;

/// Answers one worker's queue while the worker is stuck at one beat.
#[derive(Debug)]
pub(crate) struct StandIn {
    queue: u16,
    beat: u64,
    on_fault: Verdict,
    /// The packet that the inspector was shown.
    packet: Option<PacketId>,
    coalescer: Coalescer,
    /// Packets answered so far.
    pub(crate) answered: u64,
}

/// How a pass went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Done,
    /// The worker has come back.
    Moved,
    /// The kernel's table or the socket failed.
    Failed,
}

impl StandIn {
    /// Takes the place of a worker whose last beat was this one. `deferring` tells whether it may hold packets back.
    pub(crate) fn new(
        queue: u16,
        beat: u64,
        on_fault: Fate,
        heartbeat: &Heartbeat,
        deferring: bool,
    ) -> Self {
        let at_hand = heartbeat.at_hand();
        let packet = at_hand.map(|(id, _)| id);
        let mut coalescer = Coalescer::with_held_max(queue, 1);
        if deferring || at_hand.is_some_and(|(_, others_before)| others_before) {
            // Stands for all that waits below: nothing is joined while it is held.
            let below = PacketId(heartbeat.next_id().0.wrapping_sub(2));
            coalescer.hold(below, Verdict::DROP, u64::MAX);
        }
        let on_fault = on_fault.verdict();
        Self { queue, beat, on_fault, packet, coalescer, answered: 0 }
    }

    #[cfg(test)]
    pub(crate) fn answer_with(&mut self, verdict: Verdict) {
        self.on_fault = verdict;
    }

    /// The packet that the inspector was shown, if it was at one.
    pub(crate) fn packet(&self) -> Option<PacketId> {
        self.packet
    }

    /// Answers all that is queued now, from the packet at hand on.
    pub(crate) fn pass(&mut self, port: &mut impl Port, shared: &WorkerShared) -> Pass {
        let mut taken = shared.outside.lock();
        if !shared.outside.claim(&shared.heartbeat, self.beat, &taken) {
            return Pass::Moved;
        }
        let Some(row) = port.kernel_row() else { return Pass::Failed };
        let first = self.packet.unwrap_or_else(|| shared.heartbeat.next_id());
        if taken.range.is_some_and(|(_, to)| first.distance_from(to.next()).is_some()) {
            // Of an earlier time, which the worker has passed, without coming to the end of a batch since.
            *taken = Taken::default();
        }
        let from = taken.range.map_or(first, |(_, to)| to.next());
        let last = PacketId(row.id_sequence);
        // What was given before the row was read is in the socket once the verdicts are carried out: the kernel does
        // both under the queue's lock.
        let result = self
            .answer(from, last, port, &mut taken, &shared.outside.counters)
            .and_then(|()| self.drain(last, port, &mut taken, shared));
        if !Heartbeat::is_at_work(self.beat) {
            // Among what was drained may have been what was to wake it.
            port.wake();
        }
        if result.is_ok() { Pass::Done } else { Pass::Failed }
    }

    /// Gives the ids from `from` to `last` the verdict.
    fn answer(
        &mut self,
        from: PacketId,
        last: PacketId,
        port: &mut impl Port,
        taken: &mut Taken,
        counters: &WorkerCounters,
    ) -> Result<(), WorkerError> {
        let Some(distance) = last.distance_from(from) else { return Ok(()) };
        let mut id = from;
        for _ in 0..=distance {
            if self.coalescer.is_full() {
                counters.send_calls.add(1);
                send(port, self.coalescer.take(), self.queue, counters)?;
            }
            self.coalescer.push(id, self.on_fault);
            id = id.next();
        }
        counters.send_calls.add(1);
        send(port, self.coalescer.finish(), self.queue, counters)?;
        self.answered += u64::from(distance) + 1;
        taken.range = Some((taken.range.map_or(from, |(first, _)| first), last));
        Ok(())
    }

    /// Takes the messages of answered packets out of the socket, and answers what has come since.
    fn drain(
        &mut self,
        last: PacketId,
        port: &mut impl Port,
        taken: &mut Taken,
        shared: &WorkerShared,
    ) -> Result<(), WorkerError> {
        loop {
            let received = match port.receive(false) {
                Ok(received) => received,
                Err(ReceiveError::Nothing | ReceiveError::Overrun) => 0,
                Err(ReceiveError::Fatal(source)) => {
                    return Err(WorkerError::Receive { queue: self.queue, source });
                }
            };
            for index in 0..received {
                self.note(port.ring().datagram(index), taken, shared);
            }
            let Some((_, newest)) = taken.drained.filter(|_| received > 0) else { return Ok(()) };
            let answered_to = taken.range.map_or(last, |(_, to)| to);
            if newest.distance_from(answered_to.next()).is_some() {
                let counters = &shared.outside.counters;
                self.answer(answered_to.next(), newest, port, taken, counters)?;
            }
            if newest.distance_from(last).is_some() {
                return Ok(());
            }
        }
    }

    /// Counts one message.
    fn note(&self, datagram: &[u8], taken: &mut Taken, shared: &WorkerShared) {
        let counters = &shared.outside.counters;
        let id = match nfq::decode(datagram) {
            Ok((Message::Packet(packet), _)) => {
                counters.bytes.add(u64::from(packet.length()));
                let hook = usize::from(packet.hook().number()).min(nfq::Hook::NAMED);
                counters.hooks[hook].add(1);
                packet.id()
            }
            Ok((Message::Reply(reply), _)) => {
                if reply.errno != 0 {
                    counters.count_verdict_error(reply.errno);
                }
                return;
            }
            Err(nfq::Undecodable { id: Some(id), .. }) => {
                counters.hooks[nfq::Hook::NAMED].add(1);
                id
            }
            _ => return counters.malformed.add(1),
        };
        if let Some((_, newest)) = taken.drained
            && let Some(missing) = id.distance_from(newest.next())
        {
            shared.count_gap_in(counters, missing);
        }
        taken.drained = Some((taken.drained.map_or(id, |(first, _)| first), id));
        counters.packets.add(1);
        counters.faulted.add(1);
        counters.count_verdict(self.on_fault);
    }

    /// Ends the queue of a worker that did not come back to stop: what came last gets the `on_fault` verdict like all
    /// before it, what was decided or deferred and never sent gets `on_exit`, and the queue is given up.
    pub(crate) fn give_up(
        &mut self,
        port: &mut impl Port,
        shared: &WorkerShared,
        on_exit: Option<Fate>,
    ) -> Result<(), WorkerError> {
        let counters = &shared.outside.counters;
        self.request(QueueRequest::set_maxlen(self.queue, 0), port, counters)?;
        self.pass(port, shared);
        let taken = shared.outside.lock();
        if let Some((from, to)) = taken.range {
            // In the worker's hands: it would have counted them.
            let end = taken.drained.map_or(to.next(), |(first, _)| first);
            let count = end.distance_from(from).unwrap_or(0).into();
            let at_hand = u64::from(self.packet.is_some());
            counters.packets.add(u64::saturating_sub(count, at_hand));
            counters.faulted.add(count);
            for _ in 0..count {
                counters.count_verdict(self.on_fault);
            }
        }
        let verdict = on_exit.map_or(self.on_fault, Fate::verdict);
        let last = port
            .kernel_row()
            .map_or_else(|| shared.heartbeat.next_id(), |row| PacketId(row.id_sequence));
        counters.send_calls.add(1);
        let all = self.coalescer.everything_up_to(last, verdict);
        send(port, all, self.queue, counters)?;
        drop(taken);
        self.request(QueueRequest::unbind(self.queue), port, counters)
    }

    fn request(
        &self,
        request: QueueRequest,
        port: &mut impl Port,
        counters: &WorkerCounters,
    ) -> Result<(), WorkerError> {
        let mut buffer = [0; QueueRequest::BYTES_MAX];
        let length = request.encode(&mut buffer);
        send(port, &buffer[..length], self.queue, counters)
    }
}
