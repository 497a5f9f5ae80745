//! Delays of many trials put together, and what can be read from them.
//!
//! Invariant: histograms are merged, percentiles never averaged; a percentile with fewer than ten packets beyond it
//! is not given; void trials count for nothing.

use std::collections::BTreeMap;

use super::number::{axis_rate, real};
use crate::result::{Document, LatencyFinding, Trial};

/// Packets beyond a percentile that it takes to name it.
const BEYOND_MIN: f64 = 10.0;

/// Sorted, merged delays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

/// All delays of one target at one load.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured<'a> {
    pub(crate) target: &'a str,
    pub(crate) load: String,
    /// For the order of loads.
    pub(crate) pps: f64,
    pub(crate) all: Histogram,
    trials: Vec<Histogram>,
}

impl Histogram {
    fn add(&mut self, trial: &Trial) {
        for bucket in &trial.latency {
            let count = self.counts.entry(bucket.ns).or_default();
            *count = count.saturating_add(bucket.count);
            self.total = self.total.saturating_add(bucket.count);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Delays and how many of `1 / (1 - share)` lie at or below each: what a percentile curve is drawn from.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let total = real(self.total);
        let mut below = 0;
        let mut points = Vec::with_capacity(self.counts.len());
        for (ns, count) in &self.counts {
            let beyond = total - real(below);
            if beyond < BEYOND_MIN {
                break;
            }
            points.push((total / beyond, real(*ns) / 1000.0));
            below = below.saturating_add(*count);
        }
        points
    }

    /// The least delay, in microseconds, that this share of all does not exceed.
    pub(crate) fn percentile_us(&self, percent: f64) -> Option<f64> {
        let total = real(self.total);
        let share = percent / 100.0;
        // Rounded, as 1 - 0.999 is not quite 0.001.
        if total <= 0.0 || (total * (1.0 - share) * 1e6).round() / 1e6 < BEYOND_MIN {
            return None;
        }
        let mut below = 0_u64;
        for (ns, count) in &self.counts {
            below = below.saturating_add(*count);
            if real(below) >= total * share - 1e-6 {
                return Some(real(*ns) / 1000.0);
            }
        }
        None
    }
}

impl Measured<'_> {
    /// A 95 % interval for the median of the trials' own percentiles: order statistics, and the whole range where
    /// there are fewer than six. None if any trial is too short for it.
    pub(crate) fn interval_us(&self, percent: f64) -> Option<(f64, f64)> {
        let percentiles: Option<Vec<_>> =
            self.trials.iter().map(|trial| trial.percentile_us(percent)).collect();
        let mut sorted = percentiles.filter(|all| all.len() > 1)?;
        sorted.sort_by(f64::total_cmp);
        let skipped = skipped_each_side(sorted.len());
        Some((sorted[skipped], sorted[sorted.len() - 1 - skipped]))
    }
}

/// How many of `n` values, on each side, a 95 % interval of their median leaves out.
fn skipped_each_side(n: usize) -> usize {
    let steps = u32::try_from(n).unwrap_or(u32::MAX).min(1000);
    // Chances of 0, 1, 2, ... heads in n throws.
    let mut chance = 0.5_f64.powi(steps.cast_signed());
    let mut sum = 0.0;
    let mut outside = 0_usize;
    for k in 0..steps {
        sum += chance;
        if sum > 0.025 {
            break;
        }
        outside += 1;
        chance *= f64::from(steps - k) / f64::from(k + 1);
    }
    outside.saturating_sub(1)
}

/// Everything measured, in the order of the trials.
pub(crate) fn measured(document: &Document) -> Vec<Measured<'_>> {
    let mut all: Vec<Measured<'_>> = Vec::new();
    let with_delays =
        |trial: &&Trial| trial.void.is_none() && trial.latency.iter().any(|b| b.count > 0);
    for trial in document.trials.iter().filter(with_delays) {
        let (load, pps) = load_of(trial, &document.findings.latencies);
        let index = all.iter().position(|m| m.target == trial.target && m.load == load);
        let index = index.unwrap_or_else(|| {
            let (whole, trials) = (Histogram::default(), Vec::new());
            all.push(Measured { target: &trial.target, load, pps, all: whole, trials });
            all.len() - 1
        });
        let mut own = Histogram::default();
        own.add(trial);
        all[index].all.add(trial);
        all[index].trials.push(own);
    }
    all
}

/// The load's name: that of the target's finding nearest to it, or its rate.
fn load_of(trial: &Trial, findings: &[LatencyFinding]) -> (String, f64) {
    let Some(pps) = trial.intended_pps else {
        return ("as fast as it goes".to_owned(), f64::MAX);
    };
    let distance = |finding: &LatencyFinding| (finding.offered_pps / pps).ln().abs();
    let own = findings.iter().filter(|finding| finding.target == trial.target);
    let nearest = own.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.filter(|finding| distance(finding) < 0.2).map_or_else(
        || (format!("{}/s", axis_rate(pps)), pps),
        |finding| (finding.load.clone(), finding.offered_pps),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::result::Bucket;

    fn of(buckets: &[(u64, u64)]) -> Histogram {
        let mut trial = sample::document().trials[0].clone();
        trial.latency =
            buckets.iter().map(|(ns, count)| Bucket { ns: *ns, count: *count }).collect();
        let mut histogram = Histogram::default();
        histogram.add(&trial);
        histogram
    }

    #[test]
    fn percentiles_are_those_of_the_merged_histogram() {
        let histogram = of(&[(1000, 500), (2000, 400), (3000, 90), (9000, 10)]);
        let us = |percent| histogram.percentile_us(percent);
        assert_eq!(us(50.0), Some(1.0));
        assert_eq!(us(90.0), Some(2.0));
        assert_eq!(us(99.0), Some(3.0));
        assert_eq!(us(99.9), None, "only one packet beyond it");
    }

    #[test]
    fn a_curve_ends_where_fewer_than_ten_are_beyond() {
        let histogram = of(&[(3000, 90), (1000, 500), (2000, 400), (8000, 5), (9000, 5)]);
        assert_eq!(histogram.curve(), [(1.0, 1.0), (2.0, 2.0), (10.0, 3.0), (100.0, 8.0)]);
        assert!(of(&[]).curve().is_empty());
        assert_eq!(of(&[]).percentile_us(50.0), None);
    }

    #[test]
    fn an_interval_leaves_out_what_order_statistics_say() {
        let wanted = [(2, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (100, 39)];
        for (n, skipped) in wanted {
            assert_eq!(skipped_each_side(n), skipped, "{n}");
        }
    }

    #[test]
    fn void_trials_count_for_nothing() {
        let mut document = sample::document();
        let untouched = document.clone();
        let before = measured(&untouched);
        let trial = document.trials.iter().find(|t| !t.latency.is_empty()).unwrap().clone();
        document.trials.push(Trial { void: Some("late".to_owned()), ..trial });
        assert_eq!(measured(&document).len(), before.len());
        assert_eq!(measured(&document)[0].all, before[0].all);
    }

    #[test]
    fn a_trial_without_a_finding_is_named_by_its_rate() {
        let mut document = sample::document();
        let named = measured(&document).iter().any(|m| m.load == "1000/s");
        document.findings.latencies.clear();
        assert!(named && measured(&document).iter().any(|m| m.load == "1\u{202f}k/s"));
    }
}
