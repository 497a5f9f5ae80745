//! The worker's inspector: from a packet to its verdict by the rules.
//!
//! | action | verdict |
//! |---|---|
//! | accept | accept |
//! | drop | drop |
//! | mark | accept, with the bits put into the packet's mark |
//! | reject | repeat, with the reject mark; a rule in front of the queue rule answers and drops it |
//! | bypass | repeat, with the bypass mark; such rules accept it and mark its connection |
//!
//! Invariant: a packet that comes back with one of these marks is not sent round again: nobody took it, so one to be
//! rejected is dropped, one to be let past is accepted, and both are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;
use fanq::nfq::PacketMessage;
use fanq::{Inspector, Packet, Timestamp, Verdict};

use super::compiled::{Surroundings, hook_bit};
use super::handover::{Assignment, Handover, WorkerCounts, add};
use super::matcher::BatchClock;
use super::packet::PacketFacts;
use super::rules_file::Action;
use crate::eve::{EveRecord, EveSender, Judged};

/// Decides one worker's packets by the rules.
#[derive(Debug)]
pub(crate) struct RuleInspector {
    assignment: Box<Assignment>,
    desk: Desk,
    in_batch: bool,
    seen_changes: u64,
}

/// What stays when the rules change.
#[derive(Debug)]
struct Desk {
    worker: usize,
    handover: Arc<Handover>,
    counts: Arc<CachePadded<WorkerCounts>>,
    log: Option<EveSender>,
    clock: BatchClock,
}

impl RuleInspector {
    /// The inspector of the worker of this number, whose slot has its first assignment and its way to the log, or what
    /// an earlier inspector of this worker left there.
    ///
    /// # Panics
    /// If the slot is empty.
    pub(crate) fn new(worker: usize, handover: Arc<Handover>) -> Self {
        let log = handover.take_log(worker);
        let seen_changes = handover.changes();
        let assignment =
            handover.take_first(worker).expect("rules are published before workers start");
        let counts = Arc::clone(handover.counts(worker));
        let desk = Desk { worker, handover, counts, log, clock: BatchClock::default() };
        Self { assignment, desk, in_batch: false, seen_changes }
    }

    /// Takes new rules, if there are any, before a batch's first packet.
    #[inline]
    fn begin_batch(&mut self) {
        self.in_batch = true;
        let changes = self.desk.handover.changes();
        if changes != self.seen_changes {
            self.seen_changes = changes;
            self.desk.handover.exchange(self.desk.worker, &mut self.assignment);
        }
    }

    #[inline]
    fn decide(&mut self, message: &PacketMessage<'_>) -> Verdict {
        let Assignment { version, matcher, interfaces, tally } = &mut *self.assignment;
        let (policy, desk) = (&version.policy, &mut self.desk);
        let settings = &policy.settings;
        if (settings.reject_mark.is_some() || settings.bypass_mark.is_some())
            && let Some(verdict) = desk.judge_returned(settings, message)
        {
            return verdict;
        }
        let around = desk.surroundings(message, !policy.interfaces.is_empty(), interfaces);
        let facts = PacketFacts::read(message.payload());
        let Desk { log, counts, clock, .. } = desk;
        let length = message.length();
        let mut note = |rule, action, clock: &mut BatchClock| {
            if let Some(log) = log.as_mut() {
                let judged = Judged { version: version.number, rule, action };
                if !log.send(EveRecord::new(clock.read(), judged, message, &facts)) {
                    add(&counts.log_lost, judged.lines());
                }
            }
        };
        let action = matcher.decide(policy, &facts, around, clock, |rule, clock| {
            tally.count(rule, length);
            let compiled = policy.rule(rule);
            if compiled.log {
                note(Some(rule), compiled.action, clock);
            }
        });
        match action {
            Some(Action::Drop) => Verdict::DROP,
            Some(Action::Reject) => repeat(settings.reject_mark, message),
            Some(Action::Bypass) => repeat(settings.bypass_mark, message),
            Some(Action::Mark(bits)) => Verdict::ACCEPT.with_mark(bits.put_into(message.mark())),
            None if settings.default_drops => {
                if settings.default_log {
                    note(None, Action::Drop, clock);
                }
                Verdict::DROP
            }
            None | Some(Action::Accept | Action::Log) => Verdict::ACCEPT,
        }
    }
}

impl Desk {
    /// The verdict for a packet that this or another worker has sent round before.
    #[inline]
    fn judge_returned(
        &self,
        settings: &super::rules_file::Settings,
        message: &PacketMessage<'_>,
    ) -> Option<Verdict> {
        let mark = message.mark();
        let has = |bits: Option<crate::mark::MarkBits>| bits.is_some_and(|bits| bits.is_in(mark));
        if has(settings.reject_mark) {
            add(&self.counts.rejects_returned, 1);
            return Some(Verdict::DROP);
        }
        if has(settings.bypass_mark) {
            add(&self.counts.bypasses_returned, 1);
            return Some(Verdict::ACCEPT);
        }
        None
    }

    #[inline]
    fn surroundings(
        &self,
        message: &PacketMessage<'_>,
        with_interfaces: bool,
        interfaces: &super::interfaces::InterfaceTable,
    ) -> Surroundings {
        let hook = hook_bit(message.hook());
        if !with_interfaces {
            return Surroundings { hook, in_interface: 0, out_interface: 0 };
        }
        let bit = |index: Option<u32>| {
            index.map_or(0, |index| {
                interfaces.bit(index).unwrap_or_else(|| {
                    self.handover.ask_for_interfaces();
                    0
                })
            })
        };
        Surroundings {
            hook,
            in_interface: bit(message.indev()),
            out_interface: bit(message.outdev()),
        }
    }
}

/// Round again, with the mark by which the rules know what to do. Without a mark no rule of that action is read.
#[inline]
fn repeat(bits: Option<crate::mark::MarkBits>, message: &PacketMessage<'_>) -> Verdict {
    bits.map_or(Verdict::DROP, |bits| Verdict::REPEAT.with_mark(bits.put_into(message.mark())))
}

impl Drop for RuleInspector {
    /// Leaves what another inspector can go on with, after a panic: the rules, not what was known of flows.
    fn drop(&mut self) {
        let Desk { worker, handover, log, .. } = &mut self.desk;
        handover.leave(*worker, &self.assignment, log.take());
    }
}

impl Inspector for RuleInspector {
    #[inline]
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if !self.in_batch {
            self.begin_batch();
        }
        self.decide(&packet.message())
    }

    fn batch_end(&mut self, _now: Timestamp) {
        self.in_batch = false;
        self.desk.clock.forget();
        let (matcher, counts) = (&self.assignment.matcher, &self.desk.counts);
        counts.flows_evicted.store(matcher.streams.evicted(), Ordering::Relaxed);
        counts.limits_evicted.store(matcher.rates.evicted(), Ordering::Relaxed);
    }

    /// What no rule can look at gets the default.
    fn unseen(&mut self) -> Verdict {
        let drops = self.assignment.version.policy.settings.default_drops;
        if drops { Verdict::DROP } else { Verdict::ACCEPT }
    }
}

#[cfg(test)]
mod tests;
