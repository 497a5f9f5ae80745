//! Scales: which pixel a value has, and which values get a line of the grid.
//!
//! Invariant: every scale has a width above zero and gives a finite pixel for any number; ticks lie within its
//! ends, rise, and are 1, 2 or 5 times a power of ten.

use crate::report::number::real_len;

/// From values to pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    log: bool,
    low: f64,
    high: f64,
    /// Pixels at `low` and at `high`.
    pixels: (f64, f64),
}

/// Values beyond this are drawn at it.
const GREATEST: f64 = 1e15;
/// Where a logarithmic scale begins at the lowest.
const LEAST_LOG: f64 = 1e-6;

impl Scale {
    /// From 0 to at least `high`, ending at a tick.
    pub(crate) fn from_zero(high: f64, ticks: usize, pixels: (f64, f64)) -> Self {
        let high = if high.is_finite() && high > 0.0 { high.min(GREATEST) } else { 1.0 };
        let step = step(high, ticks);
        // A hair less, so that a value that lies on a tick ends there.
        let high = (high / step - 1e-9).ceil() * step;
        Self { log: false, low: 0.0, high, pixels }
    }

    /// From `low` to `high`, whose ends it keeps.
    pub(crate) fn linear(low: f64, high: f64, pixels: (f64, f64)) -> Self {
        let high = if high.is_finite() && high > low { high.min(GREATEST) } else { low + 1.0 };
        Self { log: false, low, high, pixels }
    }

    /// Logarithmic, from `low` to `high`, whose ends it keeps.
    pub(crate) fn log(low: f64, high: f64, pixels: (f64, f64)) -> Self {
        let low = if low.is_finite() { low.clamp(LEAST_LOG, GREATEST / 10.0) } else { 1.0 };
        let high = if high.is_finite() && high > low { high.min(GREATEST) } else { low * 10.0 };
        Self { log: true, low, high, pixels }
    }

    /// Logarithmic, both ends moved outwards to the next 1, 2 or 5.
    pub(crate) fn log_rounded(low: f64, high: f64, pixels: (f64, f64)) -> Self {
        let scale = Self::log(low, high, pixels);
        Self::log(round_log(scale.low, false), round_log(scale.high, true), pixels)
    }

    /// The pixel of a value; of one beyond an end, that end's.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value.clamp(self.low, self.high) };
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// About so many values for the grid, never many more.
    pub(crate) fn ticks(&self, about: usize) -> Vec<f64> {
        if self.log { self.log_ticks(about) } else { self.linear_ticks(about) }
    }

    fn linear_ticks(&self, about: usize) -> Vec<f64> {
        let step = step(self.high - self.low, about);
        let first = (self.low / step - 1e-9).ceil();
        (0..=about.max(1) * 2)
            .map(|index| (first + real_len(index)) * step)
            .take_while(|tick| *tick <= self.high + step * 1e-9)
            .collect()
    }

    fn log_ticks(&self, about: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor(), self.high.log10().ceil());
        let within = |factors: &[f64], stride: f64| {
            let mut ticks = Vec::new();
            let mut power = first;
            while power <= last {
                let decade = 10_f64.powf(power);
                ticks.extend(factors.iter().map(|factor| factor * decade).filter(|tick| {
                    *tick >= self.low * (1.0 - 1e-9) && *tick <= self.high * (1.0 + 1e-9)
                }));
                power += stride;
            }
            ticks
        };
        let mut ticks = within(&[1.0, 2.0, 5.0], 1.0);
        let mut stride = 1.0;
        while ticks.len() > about.max(2) && stride < 32.0 {
            ticks = within(&[1.0], stride);
            stride += 1.0;
        }
        ticks
    }
}

/// The least of 1, 2 and 5 times a power of ten that cuts `span` into at most `parts`.
fn step(span: f64, parts: usize) -> f64 {
    let raw = span / real_len(parts.max(1));
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// The next 1, 2 or 5 times a power of ten, above or below.
fn round_log(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let slack = if up { 1.0 - 1e-9 } else { 1.0 + 1e-9 };
    let fits = |step: &f64| if up { *step >= value * slack } else { *step <= value * slack };
    let found = if up { steps.iter().find(|s| fits(s)) } else { steps.iter().rfind(|s| fits(s)) };
    found.copied().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(got: f64, wanted: f64) {
        assert!((got - wanted).abs() <= wanted.abs() * 1e-9 + 1e-9, "{got} for {wanted}");
    }

    fn assert_all_near(got: &[f64], wanted: &[f64]) {
        assert_eq!(got.len(), wanted.len(), "{got:?} for {wanted:?}");
        for (got, wanted) in got.iter().zip(wanted) {
            assert_near(*got, *wanted);
        }
    }

    #[test]
    fn a_linear_scale_has_each_value_at_its_pixel() {
        let scale = Scale::linear(0.0, 200.0, (50.0, 250.0));
        assert_near(scale.at(0.0), 50.0);
        assert_near(scale.at(50.0), 100.0);
        assert_near(scale.at(200.0), 250.0);
        let upwards = Scale::linear(0.0, 100.0, (300.0, 0.0));
        assert_near(upwards.at(25.0), 225.0);
    }

    #[test]
    fn a_logarithmic_scale_has_equal_widths_for_equal_factors() {
        let scale = Scale::log(1.0, 1000.0, (0.0, 300.0));
        assert_near(scale.at(1.0), 0.0);
        assert_near(scale.at(10.0), 100.0);
        assert_near(scale.at(100.0), 200.0);
        assert_near(scale.at(1000.0), 300.0);
    }

    #[test]
    fn what_lies_beyond_is_drawn_at_the_end() {
        let scale = Scale::log(1.0, 1000.0, (0.0, 300.0));
        assert_near(scale.at(1e9), 300.0);
        assert_near(scale.at(-5.0), 0.0);
        assert_near(scale.at(f64::NAN), 0.0);
        assert_near(scale.at(f64::INFINITY), 300.0);
    }

    #[test]
    fn ticks_are_1_2_5() {
        assert_all_near(
            &Scale::linear(0.0, 1.0, (0.0, 1.0)).ticks(5),
            &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        );
        assert_all_near(
            &Scale::linear(0.0, 430.0, (0.0, 1.0)).ticks(5),
            &[0.0, 100.0, 200.0, 300.0, 400.0],
        );
        assert_all_near(&Scale::linear(0.0, 12.0, (0.0, 1.0)).ticks(3), &[0.0, 5.0, 10.0]);
        assert_all_near(
            &Scale::log(5.0, 200.0, (0.0, 1.0)).ticks(6),
            &[5.0, 10.0, 20.0, 50.0, 100.0, 200.0],
        );
        assert_all_near(&Scale::log(1.0, 1e6, (0.0, 1.0)).ticks(4), &[1.0, 100.0, 1e4, 1e6]);
    }

    #[test]
    fn a_scale_from_zero_ends_at_a_tick() {
        for (high, end) in [(0.84, 1.0), (430.0, 500.0), (500.0, 500.0), (1.3, 1.5)] {
            assert_near(Scale::from_zero(high, 5, (0.0, 1.0)).high(), end);
        }
        let scale = Scale::log_rounded(17.0, 1300.0, (0.0, 1.0));
        assert_near(scale.low, 10.0);
        assert_near(scale.high, 2000.0);
    }

    #[test]
    fn no_number_makes_a_scale_without_width() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300, 1e-300];
        for low in odd {
            for high in odd {
                let log = Scale::log_rounded(low, high, (0.0, 100.0));
                let linear = Scale::from_zero(high, 5, (0.0, 100.0));
                for scale in [log, linear] {
                    for value in odd {
                        assert!((0.0..=100.0).contains(&scale.at(value)), "{scale:?} at {value}");
                    }
                    assert!(scale.ticks(6).len() <= 13, "{scale:?}: {:?}", scale.ticks(6));
                    assert!(!scale.ticks(6).is_empty(), "{scale:?}");
                }
            }
        }
    }
}
