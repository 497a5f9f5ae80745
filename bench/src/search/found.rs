//! What a search came to, as a figure and in words.
//!
//! Invariant: a rate of 0 with an upper bound means that none was borne; without one, that the search ended before it
//! could say.

use super::loads::{Loads, Rule};
use super::{Outcome, Plan};
use crate::result::{Limit, RateFinding};

/// The answer for one share of loss.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) finding: RateFinding,
    /// Whether the bounds came as close as the plan asks; if not, the trials ran out before.
    pub(crate) complete: bool,
    /// The lowest and the highest rate of the whole search.
    tried: (u64, u64),
}

impl Found {
    pub(super) fn new(
        target: &str,
        loss: f64,
        loads: &Loads,
        rule: Rule,
        plan: &Plan,
        complete: bool,
    ) -> Self {
        let bounds = loads.bounds(loss, rule);
        let limited_by = bounds.upper.map_or(Limit::Search, |upper| cause(loads.of(upper), loss));
        let delivered = bounds
            .lower
            .map_or(0.0, |lower| delivered_at_least(loads.of(lower), plan.exceed_ratio));
        let finding = RateFinding {
            target: target.to_owned(),
            loss_allowed: loss,
            pps: bounds.lower.unwrap_or(0) as f64,
            upper_pps: bounds.upper.map(|upper| upper as f64),
            delivered_pps: delivered,
            limited_by,
            trials: loads.trials(),
        };
        Self { finding, complete, tried: loads.tried().unwrap_or_default() }
    }

    /// One line for people.
    pub(crate) fn in_words(&self) -> String {
        let RateFinding { target, loss_allowed, pps, upper_pps, limited_by, trials, .. } =
            &self.finding;
        let loss = match loss_allowed * 100.0 {
            0.0 => "without loss".to_owned(),
            percent => format!("with at most {percent} % lost"),
        };
        let cause = match limited_by {
            Limit::Loss => "more was lost",
            Limit::Generator => "the generator did not keep to its rate",
            Limit::Search => "nothing higher was tried",
        };
        let (lowest, highest) = self.tried;
        let early =
            if self.complete { "" } else { "; the trials ran out before it was as near as asked" };
        match upper_pps {
            Some(upper) if *pps > 0.0 => {
                format!(
                    "{target} bears {pps:.0}/s {loss}; at {upper:.0}/s {cause} ({trials} trials{early})"
                )
            }
            Some(upper) => {
                format!(
                    "{target} bears no rate {loss}: already at {upper:.0}/s {cause}, the lowest tried is {lowest}/s \
                     ({trials} trials{early})"
                )
            }
            None if *pps > 0.0 => {
                format!("{target} bears {pps:.0}/s {loss}, and {cause} ({trials} trials{early})")
            }
            None => format!(
                "what {target} bears {loss} is not known: no load between {lowest}/s and {highest}/s was decided \
                 ({trials} trials{early})"
            ),
        }
    }
}

/// The generator is blamed before the target.
fn cause(outcomes: &[Outcome], loss: f64) -> Limit {
    let bad = outcomes.iter().filter(|outcome| !outcome.is_good(loss));
    let reached = bad.clone().filter(|outcome| outcome.reached);
    if reached.count() * 2 > bad.count() { Limit::Loss } else { Limit::Generator }
}

/// What all but the share of bad trials delivered (MLRsearch's conditional throughput).
fn delivered_at_least(outcomes: &[Outcome], exceed_ratio: f64) -> f64 {
    let mut delivered: Vec<_> = outcomes.iter().map(|outcome| outcome.delivered_pps).collect();
    delivered.sort_by(|left, right| right.total_cmp(left));
    let counted = delivered.iter().enumerate().take_while(|(number, _)| {
        *number == 0 || (*number as f64) < delivered.len() as f64 * (1.0 - exceed_ratio)
    });
    counted.last().map_or(0.0, |(_, pps)| *pps)
}
