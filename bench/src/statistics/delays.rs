//! Delays, counted by length: 1 ns to 60 s in three significant digits.
//!
//! Invariant: counts are added, percentiles are not: whoever wants those of several trials merges the trials first.
//! A delay outside the range counts at its end, so none is lost. A percentile is given only where at least ten delays
//! lie beyond it.

use hdrhistogram::Histogram;

use crate::result::{Bucket, Percentile};

/// The longest delay told from longer ones.
const NS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 3;
/// In ten thousandths, so that "ten beyond it" is counted in whole numbers.
const PERCENTILES: [(f64, u64); 5] =
    [(50.0, 5_000), (90.0, 9_000), (99.0, 9_900), (99.9, 9_990), (99.99, 9_999)];

/// A histogram of delays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delays {
    histogram: Histogram<u64>,
}

impl Delays {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, NS_MAX, DIGITS);
        Self { histogram: histogram.expect("the bounds are constants that fit") }
    }

    /// From what a result document holds.
    pub(crate) fn from_buckets(buckets: &[Bucket]) -> Self {
        let mut delays = Self::new();
        for bucket in buckets {
            delays.histogram.saturating_record_n(bucket.ns.max(1), bucket.count);
        }
        delays
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// What a result document holds: the lengths that occur, each with the upper end of its bucket.
    pub(crate) fn to_buckets(&self) -> Vec<Bucket> {
        let recorded = self.histogram.iter_recorded();
        recorded
            .map(|step| Bucket { ns: step.value_iterated_to(), count: step.count_at_value() })
            .collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// In microseconds; 100 is the greatest. None without delays.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let ns = self.histogram.value_at_percentile(percent);
        (!self.histogram.is_empty()).then(|| ns as f64 / 1e3)
    }

    /// 50, 90, 99, 99.9 and 99.99, as far as ten delays lie beyond them, and the greatest.
    pub(crate) fn percentiles(&self) -> Vec<Percentile> {
        let told = PERCENTILES.iter().filter(|(_, ten_thousandths)| {
            self.count().saturating_mul(10_000 - ten_thousandths) >= 10 * 10_000
        });
        let told = told.map(|(percent, _)| *percent).chain([100.0]);
        told.filter_map(|percent| Some(Percentile { percent, us: self.percentile(percent)? }))
            .collect()
    }
}
