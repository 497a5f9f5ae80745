//! A range of queue numbers, as rules and programs write it.
//!
//! Invariant: never empty, never reversed, at most [`QueueRange::COUNT_MAX`] queues.

use std::fmt;
use std::str::FromStr;

/// Queues `first` to `last`, both included. Written `0-3` (nftables), `0:3` (iptables, Suricata) or `5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRange {
    first: u16,
    last: u16,
}

impl QueueRange {
    /// The most queues that one engine serves: one for each of the CPUs that pinning can name.
    pub const COUNT_MAX: u16 = 1024;

    /// # Errors
    /// The range is reversed or too long.
    pub fn new(first: u16, last: u16) -> Result<Self, QueueRangeError> {
        if last < first {
            return Err(QueueRangeError::Reversed { first, last });
        }
        if last - first >= Self::COUNT_MAX {
            return Err(QueueRangeError::TooMany { count: u32::from(last - first) + 1 });
        }
        Ok(Self { first, last })
    }

    /// The first queue's number.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last queue's number.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many queues, 1 to [`COUNT_MAX`](Self::COUNT_MAX).
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// The queue numbers, in rising order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u16> {
        self.first..=self.last
    }
}

impl FromStr for QueueRange {
    type Err = QueueRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let value: u32 = part.trim().parse().map_err(|_| QueueRangeError::NotANumber {
                part: part.to_owned(),
                text: text.to_owned(),
            })?;
            u16::try_from(value).map_err(|_| QueueRangeError::NoSuchQueue { value })
        };
        match text.split_once(['-', ':']) {
            Some((first, last)) => Self::new(number(first)?, number(last)?),
            None => number(text).and_then(|queue| Self::new(queue, queue)),
        }
    }
}

impl fmt::Display for QueueRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Why a text or a pair of numbers is no range of queues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueRangeError {
    /// Something other than a number.
    #[error("`{part}` in `{text}` is no queue number: write `0-3`, `0:3` or `5`")]
    NotANumber {
        /// The part that is no number.
        part: String,
        /// The whole text.
        text: String,
    },
    /// Queue numbers have 16 bits.
    #[error("queue {value} does not exist: queue numbers go from 0 to 65535")]
    NoSuchQueue {
        /// The number given.
        value: u32,
    },
    /// The first is above the last.
    #[error("the range {first}-{last} is reversed: write {last}-{first}")]
    Reversed {
        /// As given.
        first: u16,
        /// As given.
        last: u16,
    },
    /// More queues than one engine serves.
    #[error("{count} queues are more than the {max} that one engine serves", max = QueueRange::COUNT_MAX)]
    TooMany {
        /// How many were asked for.
        count: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_and_single_queues_are_taken() {
        for (text, first, last) in [
            ("0-3", 0, 3),
            ("0:3", 0, 3),
            ("5", 5, 5),
            ("100-103", 100, 103),
            ("65535", 65535, 65535),
        ] {
            assert_eq!(text.parse(), QueueRange::new(first, last), "{text}");
        }
    }

    #[test]
    fn bad_ranges_say_what_is_wrong() {
        for (text, part) in [
            ("3-0", "write 0-3"),
            ("", "no queue number"),
            ("-", "no queue number"),
            ("0-", "no queue number"),
            ("a-b", "`a`"),
            ("65536", "65535"),
            ("0-70000", "65535"),
            ("0-1024", "1024"),
            ("0-3-5", "`3-5`"),
            ("-1", "no queue number"),
        ] {
            let error = text.parse::<QueueRange>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_range_counts_and_prints_itself() {
        let range: QueueRange = "100:103".parse().unwrap();
        assert_eq!(range.count(), 4);
        assert_eq!(range.iter().collect::<Vec<_>>(), [100, 101, 102, 103]);
        assert_eq!(range.to_string(), "100-103");
        assert_eq!(QueueRange::new(7, 7).unwrap().to_string(), "7");
    }
}
