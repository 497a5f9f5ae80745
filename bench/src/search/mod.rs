//! The highest rate that a target bears, by short trials repeated: MLRsearch
//! (draft-ietf-bmwg-mlrsearch-15, RFC 9971) with all trials of one length.
//!
//! ```text
//! for each phase (few trials a load and a wide goal, more and narrower, all and the goal asked for)
//!     for each share of loss that is allowed
//!         until (upper - lower) / upper <= width
//!             take a bound of the phase before that is not proven yet, else go on from the only bound
//!             (in doubled steps), else halve the distance between both (of logarithms)
//!             repeat trials there until the load is decided
//! ```
//!
//! A trial is good if it lost no more than is allowed and the generator kept to its rate. A load is decided as borne
//! once it would stay so if all the trials still due were bad, and as not borne once too many are: more than the exceed
//! ratio. So one bad second does not end a search on a machine that stutters. Every trial counts for every
//! allowance, so the second search starts where the first has been.
//!
//! Invariant: the lower bound lies below every load found not borne; both bounds were measured; no more than
//! `trials_max` trials are run; the search itself draws no random number. It does not judge a rate with longer trials
//! afterwards, nor retry a trial that was disturbed: that is for whoever implements [`Trials`].

#![expect(clippy::cast_precision_loss, reason = "counts of trials and rates, far below 2^53")]

mod found;
mod loads;
mod stepwise;

use anyhow::ensure;

pub(crate) use found::Found;
use loads::{Bounds, Loads, Rule};
pub(crate) use stepwise::{Step, Stepwise};

/// What one trial showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) lost_share: f64,
    /// Whether the generator kept to its rate; if not, the rate counts as not borne.
    pub(crate) reached: bool,
    pub(crate) delivered_pps: f64,
}

/// Where a trial is run.
trait Trials {
    /// Offers `pps` for `seconds` and says what became of it; an error ends the search.
    fn measure(&mut self, pps: f64, seconds: f64) -> anyhow::Result<Outcome>;
}

/// What is searched for, and how thoroughly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The shares of packets that may be lost, one search each.
    pub(crate) losses_allowed: Vec<f64>,
    /// How far apart the bounds may be, relative to the upper one.
    pub(crate) width: f64,
    pub(crate) trial_seconds: f64,
    /// Trials at one load add up to this.
    pub(crate) duration_sum: f64,
    /// The share of a load's trials that may be bad.
    pub(crate) exceed_ratio: f64,
    /// The rate that is tried first.
    pub(crate) first_pps: f64,
    pub(crate) min_pps: f64,
    pub(crate) max_pps: f64,
    /// Trials of the whole search.
    pub(crate) trials_max: usize,
}

impl Plan {
    /// CSIT's: no loss and 0.5 %, 21 trials of a second, half of which may be bad, bounds 0.5 % apart.
    pub(crate) fn standard(first_pps: f64, max_pps: f64) -> Self {
        Self {
            losses_allowed: vec![0.0, 0.005],
            width: 0.005,
            trial_seconds: 1.0,
            duration_sum: 21.0,
            exceed_ratio: 0.5,
            first_pps,
            min_pps: 100.0,
            max_pps,
            trials_max: 400,
        }
    }

    /// A coarse answer in about ten trials of a quarter of a second.
    pub(crate) fn smoke(first_pps: f64, max_pps: f64) -> Self {
        let (width, trial_seconds, duration_sum, trials_max) = (0.05, 0.25, 0.25, 30);
        let standard = Self::standard(first_pps, max_pps);
        Self { width, trial_seconds, duration_sum, trials_max, ..standard }
    }

    fn check(&self) -> anyhow::Result<()> {
        let Self { width, exceed_ratio, min_pps, max_pps, losses_allowed, .. } = self;
        ensure!(!losses_allowed.is_empty(), "no share of loss is allowed; give at least 0");
        for loss in losses_allowed {
            ensure!((0.0..1.0).contains(loss), "a loss of {loss} is allowed; give a share below 1");
            ensure!(
                loss <= width,
                "the width of {width} is below the loss allowed, {loss}: such bounds say nothing; give at least that"
            );
        }
        ensure!(*width > 0.0 && *width < 0.5, "the width is {width}; give a share below 0.5");
        ensure!(
            *exceed_ratio >= 0.0 && *exceed_ratio < 1.0,
            "the exceed ratio is {exceed_ratio}; give a share below 1"
        );
        ensure!(
            *min_pps >= 1.0 && min_pps <= max_pps && *max_pps <= 1e12,
            "the search goes from {min_pps}/s to {max_pps}/s; give two rates from 1 to 1e12, the smaller first"
        );
        ensure!(self.first_pps.is_finite(), "the first rate is {}", self.first_pps);
        ensure!(
            self.trial_seconds > 0.0 && self.trials_per_load() <= 10_000.0,
            "trials of {} s do not add up to {} s; give a length above 0 and at most 10,000 trials",
            self.trial_seconds,
            self.duration_sum
        );
        ensure!(self.trials_max > 0, "no trial is allowed; give at least one");
        Ok(())
    }

    fn trials_per_load(&self) -> f64 {
        // A sum of 2.1 s takes 21 trials of 0.1 s, whatever the last bits say.
        (self.duration_sum / self.trial_seconds - 1e-9).ceil().max(1.0)
    }

    /// From coarse to fine; the last is what was asked for.
    fn phases(&self) -> Vec<Phase> {
        let all = self.trials_per_load();
        // An odd number, so that half of it is no tie.
        let some = 2.0 * (all.sqrt() / 2.0).floor() + 1.0;
        let phases = [(1.0, 4.0), (some, 2.0), (all, 1.0)].map(|(trials, widths): (f64, f64)| {
            let width = (self.width * widths).min(0.5);
            Phase { rule: Rule { trials, exceed_ratio: self.exceed_ratio }, width }
        });
        let (last, coarser) = (phases[2], &phases[..2]);
        let coarser = coarser.iter().filter(|phase| phase.rule.trials < last.rule.trials);
        coarser.copied().chain([last]).collect()
    }
}

/// How much has to be known before the search goes on.
#[derive(Debug, Clone, Copy)]
struct Phase {
    rule: Rule,
    width: f64,
}

/// Searches for all shares of loss at once and answers in their order.
fn search(target: &str, plan: &Plan, trials: &mut impl Trials) -> anyhow::Result<Vec<Found>> {
    plan.check()?;
    let mut search = Search { plan, trials, loads: Loads::default() };
    let phases = plan.phases();
    // The number of the phase whose bounds stand, for each share of loss.
    let mut settled = vec![None; plan.losses_allowed.len()];
    'phases: for (number, phase) in phases.iter().enumerate() {
        let coarser = number.checked_sub(1);
        // What one search measures may move the other's bounds.
        loop {
            let before = search.loads.trials();
            for (&loss, settled) in plan.losses_allowed.iter().zip(&mut settled) {
                if !search.narrow(loss, *phase, coarser.map(|number| phases[number]))? {
                    *settled = coarser;
                    break 'phases;
                }
                *settled = Some(number);
            }
            if search.loads.trials() == before {
                break;
            }
        }
    }
    let found = plan.losses_allowed.iter().zip(settled).map(|(&loss, settled)| {
        let rule = phases[settled.unwrap_or(0)].rule;
        let complete = settled == Some(phases.len() - 1);
        Found::new(target, loss, &search.loads, rule, plan, complete)
    });
    Ok(found.collect())
}

struct Search<'a, T> {
    plan: &'a Plan,
    trials: &'a mut T,
    loads: Loads,
}

impl<T: Trials> Search<'_, T> {
    /// Brings the bounds as close together as the phase asks. False if there are no trials left for it.
    fn narrow(&mut self, loss: f64, phase: Phase, coarser: Option<Phase>) -> anyhow::Result<bool> {
        let hints =
            coarser.map(|coarser| self.loads.bounds(loss, coarser.rule)).unwrap_or_default();
        let mut step = if coarser.is_some() { phase.width } else { std::f64::consts::LN_2 };
        loop {
            let bounds = self.loads.bounds(loss, phase.rule);
            let Some(pps) = self.next_load(bounds, hints, phase.width, &mut step) else {
                return Ok(true);
            };
            while self.loads.undecided(pps, loss, phase.rule) {
                if self.loads.trials() == self.plan.trials_max {
                    return Ok(false);
                }
                let outcome = self.trials.measure(pps as f64, self.plan.trial_seconds)?;
                self.loads.add(pps, outcome);
            }
        }
    }

    /// None once the bounds are close enough, or the search's own end is reached.
    fn next_load(&self, bounds: Bounds, hints: Bounds, width: f64, step: &mut f64) -> Option<u64> {
        let (min, max) = (whole(self.plan.min_pps), whole(self.plan.max_pps));
        let done = match (bounds.lower, bounds.upper) {
            (Some(lower), Some(upper)) => narrow_enough(lower, upper, width),
            (Some(lower), None) => lower >= max,
            (None, Some(upper)) => upper <= min,
            (None, None) => false,
        };
        if done {
            return None;
        }
        let mut unproven = [hints.lower, hints.upper].into_iter().flatten();
        if let Some(hint) = unproven.find(|pps| bounds.enclose(*pps)) {
            return Some(hint);
        }
        Some(match (bounds.lower, bounds.upper) {
            (None, None) => whole(self.plan.first_pps).clamp(min, max),
            (Some(lower), None) => whole(lower as f64 * growth(step)).clamp(lower + 1, max),
            (None, Some(upper)) => whole(upper as f64 / growth(step)).min(upper - 1).max(min),
            (Some(lower), Some(upper)) => {
                let middle = whole((lower as f64 * upper as f64).sqrt());
                middle.clamp(lower + 1, upper - 1)
            }
        })
    }
}

/// The factor of a step of logarithms, which is twice as long the next time.
fn growth(step: &mut f64) -> f64 {
    let factor = step.exp();
    // Far beyond any distance between two rates.
    *step = (*step * 2.0).min(50.0);
    factor
}

fn narrow_enough(lower: u64, upper: u64, width: f64) -> bool {
    upper - lower <= 1 || (upper - lower) as f64 <= width * upper as f64
}

/// Loads are whole packets a second, so that two are equal or not.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and rates lie between 1 and 1e12 a second"
)]
fn whole(pps: f64) -> u64 {
    pps.round() as u64
}

#[cfg(test)]
mod tests;
