//! Whether trials lie close enough together to be worth a figure.
//!
//! Invariant: warns, and removes nothing: an outlier stays in every figure.

use super::median;

/// A median absolute deviation is this share of the standard deviation of normal values.
const SIGMA_OF_MAD: f64 = 1.4826;
/// The same for the mean absolute deviation, which steps in where more than half of the values are equal.
const SIGMA_OF_MEAN_DEVIATION: f64 = 1.2533;
/// Beyond so many deviations a value counts as an outlier (Iglewicz and Hoaglin).
const OUTLIER_DEVIATIONS: f64 = 3.5;
/// More outliers than this are worth a word.
const OUTLIER_SHARE_MAX: f64 = 0.1;
/// So is a wider spread than this.
const SPREAD_MAX: f64 = 0.1;

/// The share of values that lie far from the others; 0 without values.
pub(super) fn outlier_share(values: &[f64]) -> f64 {
    let Some((middle, sigma)) = centre_and_sigma(values) else { return 0.0 };
    let far = |value: &&f64| (*value - middle).abs() > OUTLIER_DEVIATIONS * sigma;
    values.iter().filter(far).count() as f64 / values.len() as f64
}

/// What to tell beside a figure drawn from these trials; none if they are steady.
pub(crate) fn spread_warning(values: &[f64]) -> Option<String> {
    let (middle, sigma) = centre_and_sigma(values)?;
    let (outliers, spread) = (outlier_share(values), sigma / middle.abs());
    if outliers > OUTLIER_SHARE_MAX {
        let (percent, n) = (outliers * 100.0, values.len());
        return Some(format!(
            "{percent:.0} % of {n} trials lie far from the others; something else ran meanwhile, measure again"
        ));
    }
    (spread > SPREAD_MAX).then(|| {
        let (percent, n) = (spread * 100.0, values.len());
        format!("{n} trials spread by {percent:.0} %; take more rounds or a quieter machine")
    })
}

/// The spread of the values' logarithms, robust against outliers: 0.05 where trials differ by about 5 %.
pub(crate) fn spread_of_logarithms(values: &[f64]) -> Option<f64> {
    let logarithms: Vec<_> = values.iter().map(|value| value.ln()).collect();
    centre_and_sigma(&logarithms).map(|(_, sigma)| sigma)
}

fn centre_and_sigma(values: &[f64]) -> Option<(f64, f64)> {
    let middle = median(values)?;
    let deviations: Vec<_> = values.iter().map(|value| (value - middle).abs()).collect();
    let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
    let mad = median(&deviations)?;
    let sigma = if mad > 0.0 { SIGMA_OF_MAD * mad } else { SIGMA_OF_MEAN_DEVIATION * mean };
    Some((middle, sigma))
}
