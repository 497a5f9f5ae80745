//! The loads tried so far, and what their trials say of them.
//!
//! Invariant: within one rule, a load once decided stays so until it has had all its trials, whatever these are.

use std::collections::BTreeMap;

use super::Outcome;

/// When a load is decided.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rule {
    /// Trials that a load has at most, unless it had more already.
    pub(super) trials: f64,
    pub(super) exceed_ratio: f64,
}

/// The lowest load that was not borne, and the highest below it that was.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    pub(super) lower: Option<u64>,
    pub(super) upper: Option<u64>,
}

impl Bounds {
    pub(super) fn enclose(self, pps: u64) -> bool {
        self.lower.is_none_or(|lower| lower < pps) && self.upper.is_none_or(|upper| pps < upper)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Class {
    Borne,
    NotBorne,
    Undecided,
}

/// Every trial, by load.
#[derive(Debug, Default)]
pub(super) struct Loads {
    outcomes: BTreeMap<u64, Vec<Outcome>>,
    trials: usize,
}

impl Loads {
    pub(super) fn add(&mut self, pps: u64, outcome: Outcome) {
        self.outcomes.entry(pps).or_default().push(outcome);
        self.trials += 1;
    }

    pub(super) fn trials(&self) -> usize {
        self.trials
    }

    pub(super) fn of(&self, pps: u64) -> &[Outcome] {
        self.outcomes.get(&pps).map_or(&[], Vec::as_slice)
    }

    pub(super) fn undecided(&self, pps: u64, loss: f64, rule: Rule) -> bool {
        classify(self.of(pps), loss, rule) == Class::Undecided
    }

    /// The lowest and the highest load of all that had a trial.
    pub(super) fn tried(&self) -> Option<(u64, u64)> {
        let (lowest, _) = self.outcomes.first_key_value()?;
        let (highest, _) = self.outcomes.last_key_value()?;
        Some((*lowest, *highest))
    }

    pub(super) fn bounds(&self, loss: f64, rule: Rule) -> Bounds {
        let is = |class| {
            move |(pps, outcomes): (&u64, &Vec<Outcome>)| {
                (classify(outcomes, loss, rule) == class).then_some(*pps)
            }
        };
        let upper = self.outcomes.iter().find_map(is(Class::NotBorne));
        let below = self.outcomes.range(..upper.unwrap_or(u64::MAX));
        Bounds { lower: below.rev().find_map(is(Class::Borne)), upper }
    }
}

/// MLRsearch's rule, for trials of one length.
fn classify(outcomes: &[Outcome], loss: f64, rule: Rule) -> Class {
    let good = outcomes.iter().filter(|outcome| outcome.is_good(loss)).count();
    let (bad, good) = ((outcomes.len() - good) as f64, good as f64);
    let all = (bad + good).max(rule.trials);
    let bad_allowed = all * rule.exceed_ratio;
    if bad > bad_allowed {
        Class::NotBorne
    } else if all - good <= bad_allowed {
        Class::Borne
    } else {
        Class::Undecided
    }
}

impl Outcome {
    pub(super) fn is_good(&self, loss: f64) -> bool {
        self.reached && self.lost_share <= loss
    }
}
