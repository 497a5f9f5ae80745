//! The decision on one packet: the first rule that matches.
//!
//! ```text
//! lists of rules that the headers lead to
//! loop:
//!   next = lowest rule number in all lists
//!   next is not below the first rule with patterns, and patterns matter here:
//!      look for patterns (once); the rules they lead to are one more list
//!   conditions, patterns, limit hold?     log it or decide; else on to the next
//! none left: the default
//! ```
//!
//! Invariant: nothing is allocated, and no clock is read unless a rule with a limit is reached, and then once a batch.

use std::ops::{ControlFlow, Range};

use fanq::Timestamp;

use super::compiled::{CompiledPolicy, Surroundings};
use super::handover::Assignment;
use super::packet::PacketFacts;
use super::rate::Rates;
use super::rules_file::Action;
use super::stream::StreamScanner;

/// What one worker remembers from packet to packet under one policy.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) streams: StreamScanner,
    pub(crate) rates: Rates,
    /// What is left of each list, for the packet at hand.
    lists: Vec<Range<u32>>,
}

/// The time, read when it is first asked for in a batch.
#[derive(Debug, Default)]
pub(crate) struct BatchClock(Option<Timestamp>);

impl BatchClock {
    #[inline]
    pub(crate) fn read(&mut self) -> Timestamp {
        *self.0.get_or_insert_with(Timestamp::now)
    }

    /// The next batch has a time of its own.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    /// A clock that stands.
    #[cfg(test)]
    pub(crate) const fn at(now: Timestamp) -> Self {
        Self(Some(now))
    }
}

impl Matcher {
    /// Makes all that is needed to decide packets by these rules.
    pub(crate) fn new(policy: &CompiledPolicy) -> Self {
        let rates = if policy.uses_limits { policy.settings.limit_table } else { 0 };
        Self {
            streams: StreamScanner::new(policy),
            rates: Rates::new(rates),
            // At least as long as two cache lines, as another worker's may lie next to it.
            lists: Vec::with_capacity(policy.lists_max().max(32)),
        }
    }

    /// Takes over from the matcher of the rules before what still holds: the flows, if the patterns are the same.
    /// Limits begin anew. What both had to give up is counted on.
    pub(crate) fn inherit(&mut self, policy: &CompiledPolicy, earlier: &mut Assignment) {
        let before = &earlier.version.policy;
        let keeps_flows = policy.patterns.same_as(&before.patterns)
            && policy.settings.flow_table == before.settings.flow_table;
        self.streams.inherit(&mut earlier.matcher.streams, keeps_flows);
        self.rates.count_on_from(&earlier.matcher.rates);
    }

    /// Decides a packet: the rule's action, or none where the default is to be taken. `matched` is called for each rule
    /// that matches, those that only log included, in order.
    #[inline]
    pub(crate) fn decide(
        &mut self,
        policy: &CompiledPolicy,
        facts: &PacketFacts<'_>,
        around: Surroundings,
        clock: &mut BatchClock,
        matched: impl FnMut(u32, &mut BatchClock),
    ) -> Option<Action> {
        self.lists.clear();
        policy.lists_of(facts, &mut self.lists);
        if self.lists.is_empty() && policy.first_pattern_rule() == u32::MAX {
            return None;
        }
        self.try_rules(policy, facts, around, clock, matched)
    }

    fn try_rules(
        &mut self,
        policy: &CompiledPolicy,
        facts: &PacketFacts<'_>,
        around: Surroundings,
        clock: &mut BatchClock,
        mut matched: impl FnMut(u32, &mut BatchClock),
    ) -> Option<Action> {
        let mut pattern_rules = 0;
        let mut scanned = false;
        let decision = loop {
            let listed = self.lowest_listed(policy);
            if !scanned
                && listed.unwrap_or(u32::MAX) >= policy.first_pattern_rule()
                && policy.patterns_matter(facts, around)
            {
                scanned = true;
                self.streams.scan(policy, facts);
            }
            let found =
                if scanned { self.streams.rules().get(pattern_rules).copied() } else { None };
            let Some(number) = listed.into_iter().chain(found).min() else { break None };
            if found == Some(number) {
                // A rule may stand there once for each of its patterns.
                let same = self.streams.rules()[pattern_rules..]
                    .iter()
                    .take_while(|rule| **rule == number);
                pattern_rules += same.count();
            }
            self.pass(policy, number);
            let tried = self.try_rule(policy, number, facts, around, clock, &mut matched);
            if let ControlFlow::Break(action) = tried {
                break Some(action);
            }
        };
        if scanned {
            let is_let_on = match decision {
                Some(Action::Drop | Action::Reject) => false,
                Some(_) => true,
                None => !policy.settings.default_drops,
            };
            self.streams.commit(policy, is_let_on);
        }
        decision
    }

    #[inline]
    fn try_rule(
        &mut self,
        policy: &CompiledPolicy,
        number: u32,
        facts: &PacketFacts<'_>,
        around: Surroundings,
        clock: &mut BatchClock,
        matched: &mut impl FnMut(u32, &mut BatchClock),
    ) -> ControlFlow<Action> {
        let rule = policy.rule(number);
        if !rule.conditions_hold(facts, around)
            || !(rule.patterns.is_empty() || self.streams.has_all(&rule.patterns))
        {
            return ControlFlow::Continue(());
        }
        if let Some(limit) = rule.limit
            && !self.rates.is_beyond(number, limit, facts, clock.read())
        {
            return ControlFlow::Continue(());
        }
        matched(number, clock);
        match rule.action {
            Action::Log => ControlFlow::Continue(()),
            action => ControlFlow::Break(action),
        }
    }

    /// The lowest rule at the head of any list.
    #[inline]
    fn lowest_listed(&self, policy: &CompiledPolicy) -> Option<u32> {
        let heads = self.lists.iter().filter(|list| list.start < list.end);
        heads.map(|list| policy.rule_at(list.start)).min()
    }

    /// Takes a rule out of all lists.
    #[inline]
    fn pass(&mut self, policy: &CompiledPolicy, number: u32) {
        for list in &mut self.lists {
            if list.start < list.end && policy.rule_at(list.start) == number {
                list.start += 1;
            }
        }
    }
}
