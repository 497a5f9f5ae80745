//! What can be said of a handful of trials: medians with their intervals, tests of a change, delays put together.
//!
//! Invariant: the same values and the same seed give the same figures. Nothing here panics or answers with NaN: where
//! there are no values, or one is not finite, there is no figure. Which trials count is for the caller to say; void
//! ones must be left out before.

#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds, far below 2^53")]

mod change;
mod delays;
mod spread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub(crate) use change::{least_p, p_beside_noise, permutation_test, shift, shift_of_logarithms};
pub(crate) use delays::Delays;
pub(crate) use spread::{spread_of_logarithms, spread_warning};

use crate::result::Estimate;

/// For whoever has no reason to take another.
pub(crate) const SEED: u64 = 0xfa_0001;

/// The middle value, or the mean of the two middle ones; none without values or if one is not finite.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    Some(middle_of(&mut values.to_vec()))
}

/// The median with its 95 % interval, from 10,000 resamples (percentile bootstrap).
///
/// A single value is its own interval: what one trial says of the next is unknown, and `n` tells so.
pub(crate) fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    let median = median(values)?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut resample = vec![0.0; values.len()];
    let mut medians: Vec<_> = (0..RESAMPLES)
        .map(|_| {
            resample.fill_with(|| values[rng.random_range(0..values.len())]);
            middle_of(&mut resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let (low, high) = (medians[RESAMPLES / 40], medians[RESAMPLES - 1 - RESAMPLES / 40]);
    Some(Estimate { median, low, high, n: values.len() })
}

/// The median of `a / b` over rounds in which both were measured, with its interval.
///
/// Whole rounds are drawn, so that what slowed a round down slows both sides of its ratio. None if the rounds do not
/// match in number or one of `b` is zero.
pub(crate) fn ratio_of_pairs(a: &[f64], b: &[f64], seed: u64) -> Option<Estimate> {
    if a.len() != b.len() {
        return None;
    }
    let ratios: Vec<_> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    estimate(&ratios, seed)
}

const RESAMPLES: usize = 10_000;

/// Of at least one value, all finite; their order is lost.
fn middle_of(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if even => f64::midpoint(lower, upper),
        _ => upper,
    }
}

#[cfg(test)]
mod tests;
