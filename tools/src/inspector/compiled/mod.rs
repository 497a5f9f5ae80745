//! The rules of a file, compiled: what all workers read and none writes.
//!
//! Invariant: for every packet the compiled rules decide what the rules in words do, the first that matches first
//! (`the_first_match_decides_as_the_words_say`). Nothing here changes once it is made; what a worker remembers from
//! packet to packet is in the matcher.

mod candidates;
mod conditions;
mod patterns;
mod prefix_index;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::packet::PacketFacts;
use super::rules_file::{Action, Limit, LimitScope, Rule, RulesFile, Settings};
use crate::usage;
use candidates::Candidates;
use conditions::{CompiledConditions, ProtocolSet};

pub(crate) use conditions::{Surroundings, hook_bit};
pub(crate) use patterns::{PatternSet, ScanState, ScannerAccount};

/// All rules of a file.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    rules: Box<[CompiledRule]>,
    candidates: Candidates,
    pub(crate) patterns: PatternSet,
    scope: PatternScope,
    pub(crate) settings: Settings,
    /// The interfaces that rules name; a packet's are told by their places here.
    pub(crate) interfaces: Vec<String>,
    pub(crate) uses_limits: bool,
    /// How many files the rules stand in.
    pub(crate) files: usize,
    /// The rules in words, for the log and for counts.
    pub(crate) words: Arc<Vec<Rule>>,
}

/// One rule.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    conditions: CompiledConditions,
    /// Numbers of the patterns that must all be found.
    pub(crate) patterns: Box<[u32]>,
    pub(crate) limit: Option<CompiledLimit>,
    pub(crate) action: Action,
    pub(crate) log: bool,
}

/// A rate, as the time that each packet takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompiledLimit {
    pub(crate) per: LimitScope,
    /// Nanoseconds for one packet.
    pub(crate) packet_ns: u64,
    /// How far ahead of its time a packet may be, in nanoseconds.
    pub(crate) ahead_ns: u64,
}

/// What a packet must be for any pattern to matter.
#[derive(Debug)]
struct PatternScope {
    /// The first rule with patterns; `u32::MAX` if there is none.
    first_rule: u32,
    protocols: ProtocolSet,
    /// Hooks as bits; 0 for any.
    hooks: u8,
    /// Bits by destination port; none if any port may matter.
    destination_ports: Option<Box<[u64; 1024]>>,
}

impl CompiledPolicy {
    /// Compiles rules that were read.
    ///
    /// # Errors
    /// If there are too many interfaces or patterns.
    pub(crate) fn new(file: &RulesFile) -> anyhow::Result<Self> {
        let interfaces = interfaces(&file.rules)?;
        let patterns =
            PatternSet::new(file.rules.iter().flat_map(|rule| &rule.conditions.patterns))?;
        let numbers = patterns.numbers();
        let patterns_of =
            |rule: &Rule| rule.conditions.patterns.iter().map(|p| numbers[p]).collect();
        let rule_patterns: Vec<Box<[u32]>> = file.rules.iter().map(patterns_of).collect();
        let candidates = Candidates::new(&file.rules, &rule_patterns, patterns.count());
        let compiled = file.rules.iter().zip(rule_patterns).map(|(rule, patterns)| CompiledRule {
            conditions: CompiledConditions::new(&rule.conditions, &interfaces),
            patterns,
            limit: rule.limit.map(CompiledLimit::new),
            action: rule.action,
            log: rule.log,
        });
        let rules: Box<[_]> = compiled.collect();
        Ok(Self {
            scope: PatternScope::new(&file.rules, &rules),
            candidates,
            patterns,
            settings: file.settings.clone(),
            interfaces,
            uses_limits: file.rules.iter().any(|rule| rule.limit.is_some()),
            files: file.files.len(),
            words: Arc::new(file.rules.clone()),
            rules,
        })
    }

    #[inline]
    pub(crate) fn rule(&self, number: u32) -> &CompiledRule {
        &self.rules[number as usize]
    }

    /// Lists of rules that a packet's headers lead to, for [`rule_at`](Self::rule_at).
    #[inline]
    pub(crate) fn lists_of(&self, facts: &PacketFacts<'_>, lists: &mut Vec<Range<u32>>) {
        self.candidates.of_headers(facts, lists);
    }

    /// The rule at a place in a list.
    #[inline]
    pub(crate) fn rule_at(&self, place: u32) -> u32 {
        self.candidates.rule_at(place)
    }

    /// The rules that have this pattern.
    #[inline]
    pub(crate) fn rules_with(&self, pattern: u32) -> &[u32] {
        self.candidates.of_pattern(pattern)
    }

    /// The first rule with patterns; `u32::MAX` if there is none.
    #[inline]
    pub(crate) const fn first_pattern_rule(&self) -> u32 {
        self.scope.first_rule
    }

    /// Whether a pattern in this packet could make any rule match, or a stream begins in which one could.
    #[inline]
    pub(crate) fn patterns_matter(&self, facts: &PacketFacts<'_>, around: Surroundings) -> bool {
        let begins = || facts.tcp.is_some_and(|place| place.begins);
        (!facts.payload.is_empty() || begins()) && self.scope.admits(facts, around)
    }

    /// The most lists that [`lists_of`](Self::lists_of) gives.
    pub(crate) fn lists_max(&self) -> usize {
        self.candidates.lists_max()
    }

    /// The most rules that the patterns of one packet lead to.
    pub(crate) fn pattern_rules_max(&self) -> usize {
        self.candidates.pattern_rules()
    }

    /// Rules that are tried for every packet, as nothing tells which packets they are for.
    pub(crate) fn for_all_count(&self) -> usize {
        self.candidates.for_all_count()
    }

    /// What index and rules take, in bytes; automatons and tables apart.
    pub(crate) fn index_bytes(&self) -> usize {
        self.candidates.bytes() + size_of_val(&*self.rules)
    }
}

impl CompiledRule {
    /// Whether its conditions hold, patterns and limit apart.
    #[inline]
    pub(crate) fn conditions_hold(&self, facts: &PacketFacts<'_>, around: Surroundings) -> bool {
        self.conditions.hold_for(facts, around)
    }
}

impl CompiledLimit {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "86,400 seconds at most, in nanoseconds, and never below 0"
    )]
    fn new(limit: Limit) -> Self {
        let packet_ns = (limit.seconds * 1e9 / f64::from(limit.count)).round().max(1.0) as u64;
        // Of a whole burst the last packet comes this far ahead of its time.
        let ahead_ns = packet_ns.saturating_mul(u64::from(limit.burst) - 1);
        Self { per: limit.per, packet_ns, ahead_ns }
    }
}

impl PatternScope {
    fn new(words: &[Rule], rules: &[CompiledRule]) -> Self {
        let mut scope = Self {
            first_rule: u32::MAX,
            protocols: ProtocolSet::NONE,
            hooks: 0,
            destination_ports: Some(Box::new([0; 1024])),
        };
        let (mut hooks, mut any_hook) = (0, false);
        let with_patterns = (0_u32..)
            .zip(words.iter().zip(rules))
            .filter(|(_, (_, rule))| !rule.patterns.is_empty());
        for (number, (words, rule)) in with_patterns {
            scope.first_rule = scope.first_rule.min(number);
            scope.protocols.join(rule.conditions.protocols);
            any_hook |= words.conditions.hooks.is_empty();
            hooks |= words.conditions.hooks.iter().fold(0, |bits, hook| bits | hook_bit(*hook));
            let set = conditions::PortSet::new(&words.conditions.destination_ports);
            if set.is_any() {
                scope.destination_ports = None;
            }
            if let Some(bits) = &mut scope.destination_ports {
                for port in set.ports() {
                    bits[usize::from(port / 64)] |= 1 << (port % 64);
                }
            }
        }
        scope.hooks = if any_hook { 0 } else { hooks };
        scope
    }

    #[inline]
    fn admits(&self, facts: &PacketFacts<'_>, around: Surroundings) -> bool {
        let port_matters = match (&self.destination_ports, facts.ports) {
            (None, _) => true,
            (Some(bits), Some((_, port))) => bits[usize::from(port / 64)] >> (port % 64) & 1 == 1,
            (Some(_), None) => false,
        };
        port_matters
            && self.protocols.has(facts)
            && (self.hooks == 0 || self.hooks & around.hook != 0)
    }
}

/// The interfaces that rules name, each once.
fn interfaces(rules: &[Rule]) -> anyhow::Result<Vec<String>> {
    let names = rules.iter().flat_map(|rule| {
        rule.conditions.in_interfaces.iter().chain(&rule.conditions.out_interfaces)
    });
    let names: Vec<_> = names.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if names.len() > INTERFACES_MAX {
        return Err(usage(format!(
            "the rules name {} interfaces: at most {INTERFACES_MAX} can be told apart; leave some to the rule that \
             fills the queue (`fanq rules --in-iface`)",
            names.len()
        )));
    }
    Ok(names)
}

/// Bits in a word.
const INTERFACES_MAX: usize = 64;

#[cfg(test)]
pub(crate) mod tests;
