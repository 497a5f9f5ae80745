//! Numbers as people read them.
//!
//! Invariant: never wider than promised, whatever the number.

/// A whole number with its thousands parted: `1,234,567`.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", &digits[..]),
    };
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number in at most 9 columns: parted thousands, or millions and more with a letter.
pub(super) fn count(number: f64) -> String {
    if number < 9_999_999.5 { grouped(number) } else { scaled(number) }
}

/// Three digits and a letter, at most 5 columns: `6.61M`, `12.3k`, `999`.
pub(super) fn scaled(number: f64) -> String {
    let mut value = number;
    for letter in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            return match letter {
                "" => format!("{value:.0}"),
                _ if value < 9.995 => format!("{value:.2}{letter}"),
                _ if value < 99.95 => format!("{value:.1}{letter}"),
                _ => format!("{value:.0}{letter}"),
            };
        }
        value /= 1000.0;
    }
    "much".to_owned()
}

/// A time in at most 6 columns: `12us`, `3.4ms`, `1.2s`.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 999.5e-6 => format!("{:.0}us", s * 1e6),
        s if s < 9.995e-3 => format!("{:.1}ms", s * 1e3),
        s if s < 999.5e-3 => format!("{:.0}ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1}s"),
        s if s < 9999.5 => format!("{s:.0}s"),
        _ => "hours".to_owned(),
    }
}

/// A share in at most 5 columns: `42%`, `1600%`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", (share * 100.0).clamp(0.0, 9999.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        for (number, grouped_as, count_as, scaled_as) in [
            (0.0, "0", "0", "0"),
            (999.4, "999", "999", "999"),
            (999.6, "1,000", "1,000", "1.00k"),
            (12_345.0, "12,345", "12,345", "12.3k"),
            (9_999_999.0, "9,999,999", "9,999,999", "10.0M"),
            (123_456_789.0, "123,456,789", "123M", "123M"),
            (1e30, "1,000,000,000,000,000,019,884,624,838,656", "much", "much"),
        ] {
            let written = (grouped(number), count(number), scaled(number));
            assert_eq!(written, (grouped_as.into(), count_as.into(), scaled_as.into()), "{number}");
        }
    }

    #[test]
    fn times_and_shares_fit_their_columns() {
        for (seconds, text) in [
            (12e-6, "12us"),
            (3.44e-3, "3.4ms"),
            (0.25, "250ms"),
            (1.23, "1.2s"),
            (100.0, "100s"),
            (1e9, "hours"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(
            (percent(0.424), percent(16.0), percent(1e9)),
            ("42%".into(), "1600%".into(), "9999%".into())
        );
    }
}
