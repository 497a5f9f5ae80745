//! What a worker does about deferred packets: holds them, collects the answers, and gives up on those that come too
//! late.
//!
//! Invariant: answers are taken in the kernel's order, so that the coalescer can join them; one that comes after its
//! packet's deadline is counted and changes nothing. A worker that may receive no more and holds no packet is only as
//! alive as those who have the handles: while none comes back it shows no life, so that the
//! [watchdog](crate::watchdog) takes it for stuck and answers its queue. A worker that does not defer never gets here.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Desk, Stage, Worker};
use crate::deferral::{Answer, WhenFull};
use crate::inspect::Inspector;
use crate::nfq::{PacketId, Verdict, VerdictCode};
use crate::queue::Port;
use crate::sys::Timestamp;
use crate::worker::WorkerError;

impl<P: Port, I: Inspector> Worker<P, I> {
    /// A turn that begins with what other threads have answered. Sleeps only when there was nothing.
    ///
    /// ```text
    ///   collect answers
    ///   somebody who answers is idle:   verdicts; receive, sleeping; hand over
    ///   all are busy:                   receive, not sleeping; verdicts; hand over; and when neither answers nor
    ///                                   packets are left: sleep until answers come
    /// ```
    ///
    /// So what comes while all are busy is received at once when they are not, and each side is woken once a batch.
    pub(super) fn turn_with_answers(&mut self, may_wait: bool) -> Result<usize, WorkerError> {
        let collected = self.collect()?;
        let full = self.desk.is_full_of_deferred();
        if full && collected == 0 && may_wait && self.desk.coalescer.held() == 0 {
            self.desk.show_no_life();
            self.await_answers(Timestamp(u64::MAX));
            return Ok(0);
        }
        self.desk.show_life();
        if full {
            self.send_verdicts()?;
            if may_wait && collected == 0 {
                self.await_answers(Timestamp(u64::MAX));
            }
            return Ok(collected);
        }
        let all_are_busy = self.desk.coalescer.held() > 0 && self.desk.inspector.awaits_answers();
        let received = if !may_wait {
            self.receive(false)?
        } else if !all_are_busy {
            self.send_verdicts()?;
            self.sleep_and_receive()?
        } else if collected > 0 || !self.desk.took_all() {
            self.receive(false)?
        } else {
            self.await_answers(Timestamp(u64::MAX));
            // None may have come: then it is time to look what else has.
            self.desk.note_received(usize::MAX);
            return Ok(0);
        };
        self.desk.note_received(received);
        if received == 0 {
            self.send_verdicts()?;
        }
        self.serve(received)?;
        self.watch_load(received)?;
        Ok(collected + received)
    }

    /// Receives; if there is nothing, waits for packets and for answers, and for the next deadline. If answers wait it
    /// does not.
    fn sleep_and_receive(&mut self) -> Result<usize, WorkerError> {
        let Some(gate) = self.desk.edits.gate_mut() else { return Ok(0) };
        if !gate.answers.fall_asleep() {
            return self.receive(false);
        }
        let received = match self.desk.coalescer.next_deadline() {
            None => self.receive(true),
            Some(deadline) => {
                let queue = self.desk.queue;
                let waited = self.port.wait(Timestamp(deadline).since(Timestamp::now()));
                waited
                    .map_err(|source| WorkerError::Receive { queue, source })
                    .and_then(|()| self.receive(false))
            }
        };
        if let Some(gate) = self.desk.edits.gate_mut() {
            gate.answers.wake_up();
        }
        received
    }

    /// Waits for an answer, for a deadline, or until `stop_by`, but not for long: an order to stop is not heard here.
    pub(super) fn await_answers(&mut self, stop_by: Timestamp) {
        let now = Timestamp::now();
        let deadline = self.desk.coalescer.next_deadline().map_or(stop_by, Timestamp);
        let limit = deadline.min(stop_by).since(now).min(DEAF_MAX);
        if let Some(gate) = self.desk.edits.gate_mut() {
            #[cfg(test)]
            if let Some(meanwhile) = gate.meanwhile {
                return meanwhile();
            }
            gate.answers.wait(limit);
        }
    }

    /// Takes in all answers that have come, and gives their fallback to packets whose deadline has passed. Returns
    /// how many packets got a verdict.
    pub(super) fn collect(&mut self) -> Result<usize, WorkerError> {
        if self.letters.is_empty() {
            self.fetch_letters();
        }
        // Otherwise the inspector panicked at one of them, and these lay behind it.
        let collected = self.letters.len();
        while let Some(answer) = self.letters.last() {
            self.desk.settle(answer);
            if let Some(answer) = self.letters.pop() {
                self.port.ring_mut().give_back(answer.datagram);
            }
            self.send_if_full()?;
        }
        let overdue = match self.desk.coalescer.held() {
            0 => 0,
            _ => self.give_fallbacks(Timestamp::now())?,
        };
        Ok(collected + overdue)
    }

    /// Takes the answers that have come, the kernel's first packet last: they are read from the end.
    fn fetch_letters(&mut self) {
        let Some(gate) = self.desk.edits.gate_mut() else { return };
        gate.answers.collect(&mut self.letters);
        gate.outstanding -= self.letters.len();
        let next = self.desk.shared.heartbeat.next_id();
        // All of them lie behind the next id, so their distances to it sort them, also where ids wrap.
        self.letters.sort_unstable_by_key(|answer| Reverse(answer.id.0.wrapping_sub(next.0)));
    }

    /// Gives their fallback to all packets whose deadline is at or before `now`, and returns how many.
    fn give_fallbacks(&mut self, now: Timestamp) -> Result<usize, WorkerError> {
        let mut given = 0;
        while let Some(verdict) = self.desk.coalescer.answer_overdue(now.0) {
            self.desk.shared.counters.overdue.add(1);
            self.desk.shared.counters.count_verdict(verdict);
            self.send_if_full()?;
            given += 1;
        }
        Ok(given)
    }

    /// Gives all deferred packets their fallback, whatever their deadline.
    pub(super) fn give_up_on_answers(&mut self) -> Result<(), WorkerError> {
        self.give_fallbacks(Timestamp(u64::MAX))?;
        self.send_verdicts()
    }
}

impl<I: Inspector> Desk<I> {
    /// Notes that the packet at hand is answered later.
    pub(super) fn hold(&mut self, id: PacketId, fallback: Verdict) {
        let limit = self.edits.gate_mut().map_or(Duration::ZERO, |gate| gate.config.deadline);
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let deadline = self.batch_time.0.saturating_add(limit);
        self.shared.counters.deferred.add(1);
        self.coalescer.hold(id, fallback, deadline);
        self.edits.clear();
    }

    /// Whether another batch might bring more packets than may be deferred.
    pub(super) fn is_full_of_deferred(&mut self) -> bool {
        self.edits.gate_mut().is_some_and(|gate| {
            let waits = gate.config.when_full == WhenFull::Wait;
            waits && gate.outstanding + gate.batch > gate.config.outstanding_max
        })
    }

    /// The worker goes on. What was done in its place while it showed no life is passed before it receives.
    fn show_life(&mut self) {
        if self.edits.gate_mut().is_some_and(|gate| std::mem::take(&mut gate.deserted)) {
            self.rest();
        } else {
            self.shared.heartbeat.tick();
        }
    }

    /// The worker does nothing until others do, who have had their time.
    fn show_no_life(&mut self) {
        if let Some(gate) = self.edits.gate_mut() {
            gate.deserted = true;
        }
    }

    /// Whether the last receive left nothing behind.
    fn took_all(&mut self) -> bool {
        self.edits.gate_mut().is_some_and(|gate| gate.took_all)
    }

    /// Notes how many datagrams a receive brought: less than it has room for is all that there was.
    fn note_received(&mut self, received: usize) {
        if let Some(gate) = self.edits.gate_mut() {
            gate.took_all = received < gate.batch;
        }
    }

    /// Gives a deferred packet the verdict that came for it, if it still waits for one.
    fn settle(&mut self, answer: &Answer) {
        let counters = &self.shared.counters;
        let verdict = match (answer.refused, answer.verdict) {
            (Some(error), Some(verdict)) if self.coalescer.is_held(answer.id) => {
                counters.rewrites_refused.add(1);
                self.stage = Stage::Answer(answer.id);
                let verdict = self.inspector.rewrite_refused(error, verdict);
                self.stage = Stage::Elsewhere;
                Some(verdict)
            }
            (_, verdict) => verdict,
        };
        let payload = answer.payload().filter(|_| answer.refused.is_none());
        let edited = payload.is_some() || !answer.conntrack.is_empty();
        let given = match verdict {
            Some(verdict) if edited && verdict.code() != VerdictCode::Drop => {
                let conntrack = &answer.conntrack;
                let held =
                    self.coalescer.answer_held_edited(answer.id, verdict, conntrack, payload);
                counters.rewritten.add(u64::from(held && payload.is_some()));
                held.then_some(verdict)
            }
            verdict => self.coalescer.answer_held(answer.id, verdict),
        };
        match given {
            Some(given) => {
                counters.count_verdict(given);
                counters.unanswered.add(u64::from(verdict.is_none()));
            }
            None => counters.late_answers.add(1),
        }
    }
}

/// How long a worker that waits for answers may be deaf to orders.
const DEAF_MAX: Duration = Duration::from_millis(10);
