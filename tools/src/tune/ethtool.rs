//! The tables that `ethtool -g` and `ethtool -l` print: what is set, and where it stands in the text.
//!
//! ```text
//! Ring parameters for eth0:
//! Pre-set maximums:
//! RX:             4096
//! Current hardware settings:
//! RX:             512
//! ```
//!
//! Invariant: pure text. A row that says `n/a`, or no number, is not there.

use std::ops::Range;

/// The number in the table of what is, by the word that sets it (`rx`, `tx`, `combined`).
pub(super) fn current<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.get(place(text, key)?)
}

/// The text with another number in the table of what is.
pub(super) fn with_current(text: &str, key: &str, value: &str) -> Option<String> {
    let place = place(text, key)?;
    let mut changed = text.to_owned();
    changed.replace_range(place, value);
    Some(changed)
}

/// Where a number stands.
fn place(text: &str, key: &str) -> Option<Range<usize>> {
    let mut inside = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let row = line.trim_end();
        if row.ends_with(':') && !row.contains('\t') {
            inside = row == CURRENT;
        } else if let Some((name, value)) = row.split_once(':').filter(|_| inside)
            && name.eq_ignore_ascii_case(key)
        {
            let value = value.trim();
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let end = start + row.len();
            return is_number.then(|| end - value.len()..end);
        }
        start += line.len();
    }
    None
}

const CURRENT: &str = "Current hardware settings:";

#[cfg(test)]
mod tests {
    use super::*;

    const RINGS: &str = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\n\
                         TX:\t\t4096\nCurrent hardware settings:\nRX:\t\t512\nRX Mini:\tn/a\nTX:\t\t256\n\
                         RX Buf Len:\t\tn/a\nTX Push:\toff\n";

    #[test]
    fn the_table_of_what_is_set_is_read() {
        assert_eq!(current(RINGS, "rx"), Some("512"));
        assert_eq!(current(RINGS, "tx"), Some("256"));
        for missing in ["combined", "RX Mini", "tx push"] {
            assert_eq!(current(RINGS, missing), None, "{missing}");
        }
        for text in
            ["", "Current hardware settings:", "RX: 5", "netlink error: Operation not supported"]
        {
            assert_eq!(current(text, "rx"), None, "{text:?}");
        }
    }

    #[test]
    fn a_number_is_changed_alone() {
        let changed = with_current(RINGS, "rx", "4096").unwrap();
        assert_eq!(changed, RINGS.replace("RX:\t\t512", "RX:\t\t4096"));
        assert_eq!(with_current(&changed, "rx", "512").as_deref(), Some(RINGS));
        assert_eq!(with_current(RINGS, "combined", "1"), None);
    }
}
