//! Numbers as the page shows them: three significant digits, thousands apart, an en dash for what is missing.
//!
//! Invariant: any `f64` gives a short text; one that is not finite is missing.

/// What stands where a value is missing.
pub(crate) const MISSING: &str = "–";

/// A narrow space that does not break, between groups of digits and before a unit.
const THIN: char = '\u{202f}';

/// Three significant digits.
pub(crate) fn three(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.to_owned();
    }
    let rounded = format!("{value:.2e}");
    let exponent = rounded.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    let rounded: f64 = rounded.parse().unwrap_or(value);
    match exponent {
        _ if rounded.abs() < f64::MIN_POSITIVE => "0".to_owned(),
        -4..=1 => {
            let decimals = usize::try_from(2 - exponent).unwrap_or(0);
            format!("{rounded:.decimals$}")
        }
        2..=14 => grouped(&format!("{rounded:.0}")),
        _ => format!("{value:.1e}"),
    }
}

/// Three significant digits, or the sign for a missing value.
pub(crate) fn three_or_missing(value: Option<f64>) -> String {
    value.map_or_else(|| MISSING.to_owned(), three)
}

/// A count, to the last digit.
pub(crate) fn count(value: impl Into<i128>) -> String {
    grouped(&value.into().to_string())
}

/// A share as per cent.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = match value {
        _ if !value.is_finite() => return MISSING.to_owned(),
        _ if value.abs() < f64::MIN_POSITIVE => "0".to_owned(),
        _ if value.abs() < 0.01 => format!("under{THIN}0.01"),
        _ if value.abs() < 1.0 => plain(value, 2),
        _ if value.abs() < 99.95 => plain(value, 1),
        _ => three(value),
    };
    format!("{digits}{THIN}%")
}

/// A rate on an axis: 50 k, 1.5 M.
pub(crate) fn axis_rate(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}{THIN}M", plain(value / 1e6, 3)),
        size if size >= 1e3 => format!("{}{THIN}k", plain(value / 1e3, 3)),
        _ => plain(value, 3),
    }
}

/// A time on an axis, given in microseconds: 500 ns, 20 µs, 5 ms, 1 s.
pub(crate) fn axis_time(us: f64) -> String {
    let (value, unit) = match us.abs() {
        size if size >= 1e6 => (us / 1e6, "s"),
        size if size >= 1e3 => (us / 1e3, "ms"),
        size if size > 0.0 && size < 1.0 => (us * 1e3, "ns"),
        _ => (us, "µs"),
    };
    format!("{}{THIN}{unit}", plain(value, 3))
}

/// A number on an axis, without zeros at its end.
pub(crate) fn axis_plain(value: f64) -> String {
    plain(value, 6)
}

/// Seconds, as people say them.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => MISSING.to_owned(),
        s if s < 120.0 => format!("{s:.0}{THIN}s"),
        s if s < 7200.0 => format!("{:.0}{THIN}min", s / 60.0),
        s => format!("{}{THIN}h", plain(s / 3600.0, 1)),
    }
}

/// As a real number; counts of packets stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a figure on a page has three digits")]
pub(crate) fn real(value: u64) -> f64 {
    value as f64
}

/// As a real number.
#[expect(clippy::cast_precision_loss, reason = "a figure on a page has three digits")]
pub(crate) fn real_len(value: usize) -> f64 {
    value as f64
}

/// At most so many decimals, no zeros at the end.
fn plain(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return MISSING.to_owned();
    }
    if value.abs() >= 1e15 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { grouped(text) }
}

/// Digits before the point in groups of three; four stand together.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_once('.').map_or((text, None), |(w, r)| (w, Some(r)));
    let digits = whole.trim_start_matches('-');
    let mut out = String::with_capacity(text.len() + 8);
    if whole.len() > digits.len() {
        out.push('−');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len() > 4 && (digits.len() - index).is_multiple_of(3) {
            out.push(THIN);
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_at_every_size() {
        let cases = [
            (0.0, "0"),
            (0.8412, "0.841"),
            (0.03126, "0.0313"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (999.6, "1000"),
            (412_345.0, "412\u{202f}000"),
            (1_234_567.0, "1\u{202f}230\u{202f}000"),
            (-250.4, "−250"),
            (1e300, "1.0e300"),
            (1e-9, "1.0e-9"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(three(value), text, "{value}");
        }
    }

    #[test]
    fn shares_say_that_they_are_small() {
        let cases = [
            (0.0, "0 %"),
            (0.000_012, "under 0.01 %"),
            (0.005, "0.5 %"),
            (0.123_45, "12.3 %"),
            (0.9999, "100 %"),
            (f64::NAN, "–"),
        ];
        for (share, text) in cases {
            assert_eq!(percent(share), text.replace(' ', "\u{202f}"), "{share}");
        }
    }

    #[test]
    fn axes_have_short_labels_with_units() {
        assert_eq!(axis_rate(250_000.0), "250\u{202f}k");
        assert_eq!(axis_rate(1_500_000.0), "1.5\u{202f}M");
        assert_eq!(axis_rate(0.0), "0");
        assert_eq!(axis_time(0.5), "500\u{202f}ns");
        assert_eq!(axis_time(20.0), "20\u{202f}µs");
        assert_eq!(axis_time(5000.0), "5\u{202f}ms");
        assert_eq!(axis_time(2e6), "2\u{202f}s");
        assert_eq!(axis_plain(0.600_000_000_000_000_1), "0.6");
        assert_eq!(duration(95.0), "95\u{202f}s");
        assert_eq!(duration(1710.0), "28\u{202f}min");
        assert_eq!(count(1_234_567_u64), "1\u{202f}234\u{202f}567");
        assert_eq!(count(-17_i64), "−17");
    }
}
