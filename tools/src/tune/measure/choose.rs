//! Chooses among what was measured.
//!
//! Invariant: a configuration that lost a packet is not chosen; what cannot be told apart from something simpler is
//! not chosen either. Simpler is what has fewer options other than the defaults.

use anyhow::{Context, ensure};

use super::candidate::Candidate;
use super::document::{CpuFinding, Document};

/// What the sweep says.
#[derive(Debug)]
pub(super) struct Screening {
    /// All that were measured, the cheapest first.
    pub(super) ranked: Vec<Ranked>,
    /// The one to hold against the defaults; none if everything lost packets.
    pub(super) best: Option<Candidate>,
    /// Rounds in which everything was measured.
    pub(super) rounds: usize,
}

/// A configuration with its figures.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    pub(super) candidate: Candidate,
    /// By round, where the trial counts.
    costs: Vec<Option<f64>>,
    /// Median CPU time per packet in microseconds.
    pub(super) us: f64,
    pub(super) lost: u64,
}

/// Draws the best from a sweep.
pub(super) fn screen(
    sweep: &Document,
    combinations: &[Candidate],
    headers_only: bool,
) -> anyhow::Result<Screening> {
    let rounds = sweep.trials.iter().map(|trial| trial.round + 1).max().unwrap_or(0);
    let mut ranked: Vec<_> =
        combinations.iter().filter_map(|one| rank(sweep, one, rounds)).collect();
    ranked.sort_by(|one, other| one.us.total_cmp(&other.us));
    ensure!(
        ranked.iter().any(|one| one.candidate.is_default()),
        "no trial of the defaults counts; the machine is too busy: try again in a quieter hour"
    );
    let allowed = |one: &&Ranked| one.lost == 0 && (headers_only || one.candidate.copies_all());
    let lossless: Vec<_> = ranked.iter().filter(allowed).collect();
    let best = lossless.first().map(|cheapest| {
        let ties = lossless.iter().filter(|one| !one.is_dearer_than(cheapest));
        // In the order of cost, of which the first of the simplest is taken.
        ties.min_by_key(|one| one.candidate.distance()).unwrap_or(cheapest).candidate.clone()
    });
    Ok(Screening { ranked, best, rounds })
}

fn rank(sweep: &Document, candidate: &Candidate, rounds: usize) -> Option<Ranked> {
    let target = candidate.target();
    let mut costs = vec![None; rounds];
    let mut lost = 0;
    for trial in sweep.trials.iter().filter(|trial| trial.target == target) {
        if let Some(cost) = trial.cost() {
            *costs.get_mut(trial.round)? = Some(cost);
            lost += trial.lost();
        }
    }
    let us = median(&costs.iter().flatten().copied().collect::<Vec<_>>())?;
    Some(Ranked { candidate: candidate.clone(), costs, us, lost })
}

impl Ranked {
    /// Whether it costs more than the other in nearly every round that both have.
    fn is_dearer_than(&self, other: &Self) -> bool {
        let pairs =
            self.costs.iter().zip(&other.costs).filter_map(|(own, other)| (*own).zip(*other));
        let (mut dearer, mut all) = (0, 0);
        for (own, other) in pairs {
            all += 1;
            dearer += usize::from(own > other);
        }
        is_more_than_chance(dearer, all)
    }
}

/// Whether so many of all would come by tossing a coin in less than one of twenty tries (a sign test, one-sided).
fn is_more_than_chance(heads: usize, tosses: usize) -> bool {
    // tosses over k, summed from `heads` on, over 2^tosses.
    let mut ways = 1.0;
    let mut at_least = 0.0;
    let mut all = 0.0;
    for k in 0..=tosses {
        all += ways;
        if k >= heads {
            at_least += ways;
        }
        #[expect(clippy::cast_precision_loss, reason = "rounds, at most some hundred")]
        let (left, next) = ((tosses - k) as f64, (k + 1) as f64);
        ways *= left / next;
    }
    at_least / all < CHANCE
}

/// What becomes of the best of the sweep.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// Everything lost packets.
    AllLost,
    /// Nothing was cheaper than the defaults beyond noise.
    DefaultsTie,
    /// The comparison did not bear out what the sweep had said.
    NotBorneOut { best: Candidate, figures: Option<Figures> },
    /// It is cheaper.
    Better { best: Candidate, figures: Figures },
}

/// What the comparison says.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) best: CpuFinding,
    pub(super) defaults: CpuFinding,
    /// The defaults beside themselves.
    pub(super) again: CpuFinding,
}

impl Verdict {
    /// Where the sweep leaves nothing to be compared.
    pub(super) fn of_sweep(screening: &Screening) -> Self {
        if screening.best.is_some() { Self::DefaultsTie } else { Self::AllLost }
    }

    /// The best has to be below the defaults with its whole interval, by more than these differ from themselves.
    pub(super) fn of_comparison(document: &Document, best: &Candidate) -> Self {
        let figures = figures(document, best);
        let bears_out = |figures: &Figures| {
            let ratio = figures.best.ratio_to_first?;
            let noise = (1.0 - figures.again.ratio_to_first?.median).abs();
            Some(ratio.high < 1.0 && 1.0 - ratio.median > noise && figures.best.lost_share == 0.0)
        };
        let best = best.clone();
        match figures {
            Ok(figures) if bears_out(&figures) == Some(true) => Self::Better { best, figures },
            other => Self::NotBorneOut { best, figures: other.ok() },
        }
    }

    /// What to run with.
    pub(super) fn chosen<'a>(&'a self, screening: &'a Screening) -> &'a Candidate {
        let defaults =
            || screening.ranked.iter().map(|one| &one.candidate).find(|one| one.is_default());
        match self {
            Self::Better { best, .. } => best,
            Self::NotBorneOut { best, .. } => defaults().unwrap_or(best),
            Self::AllLost | Self::DefaultsTie => {
                defaults().unwrap_or(&screening.ranked[0].candidate)
            }
        }
    }

    /// In words, a line.
    pub(super) fn words(&self, screening: &Screening) -> String {
        let rounds = screening.rounds;
        match self {
            Self::AllLost => format!(
                "every configuration lost packets at this load in {rounds} rounds, so the defaults stay"
            ),
            Self::DefaultsTie => {
                format!(
                    "nothing costs less than the defaults, as far as {rounds} rounds tell: they stay"
                )
            }
            Self::NotBorneOut { best, figures } => {
                let figures =
                    figures.as_ref().map_or_else(String::new, |figures| format!(": {figures}"));
                format!(
                    "{best} came out first, but not in a measurement of its own{figures}; the defaults stay"
                )
            }
            Self::Better { best, figures } => format!("chosen: {best}; {figures}"),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (best, defaults) = (&self.best.us_per_packet, &self.defaults.us_per_packet);
        write!(f, "{:.3} us a packet, the defaults {:.3}", best.median, defaults.median)?;
        if let Some(ratio) = self.best.ratio_to_first {
            write!(f, ", {:.3} of them ({:.3} to {:.3})", ratio.median, ratio.low, ratio.high)?;
        }
        if let Some(again) = self.again.ratio_to_first {
            write!(f, "; they beside themselves {:.3}", again.median)?;
        }
        Ok(())
    }
}

fn figures(document: &Document, best: &Candidate) -> anyhow::Result<Figures> {
    let find = |what: &str, is: &dyn Fn(&str) -> bool| {
        let found = document.cpu.iter().find(|finding| is(&finding.target)).cloned();
        found.with_context(|| format!("the comparison has no figures of {what}"))
    };
    let target = best.target();
    Ok(Figures {
        best: find("the best", &|name| name == target)?,
        defaults: find("the defaults", &|name| name == "fanq")?,
        again: find("the defaults again", &|name| name.contains("again"))?,
    })
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len().is_multiple_of(2) {
        return Some(f64::midpoint(*sorted.get(sorted.len() / 2 - 1)?, upper));
    }
    Some(upper)
}

const CHANCE: f64 = 0.05;

#[cfg(test)]
mod tests;
