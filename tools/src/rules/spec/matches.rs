//! The parts of a match: interface names, protocols, ports, and raw text.
//!
//! Invariant: each is checked when it is read, so the backends can write it down as it is.

use std::fmt;
use std::str::FromStr;

/// The name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) struct IfaceName(String);

impl IfaceName {
    /// IFNAMSIZ is 16 and counts the closing zero byte.
    const BYTES_MAX: usize = 15;
}

impl FromStr for IfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > Self::BYTES_MAX || text == "." || text == ".." {
            return Err(format!("an interface name has 1 to {} bytes", Self::BYTES_MAX));
        }
        if text.starts_with(['-', '!']) {
            return Err("an interface name does not begin with `-` or `!`".to_owned());
        }
        if let Some(bad) = text.chars().find(|c| {
            c.is_whitespace()
                || c.is_control()
                || matches!(c, '/' | '\\' | '"' | '\'' | ';' | '{' | '}')
        }) {
            return Err(format!("an interface name holds no {bad:?}"));
        }
        // `+` is iptables' wildcard and `*` is nft's: the same text would mean two things.
        if text.contains(['+', '*', '#', '$', '@']) {
            return Err(
                "this takes one plain name. For a pattern, write it with --match".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) struct Proto(u8);

impl Proto {
    /// Whether its header begins with two ports.
    pub(in crate::rules) fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }

    /// Names that nft and iptables know without /etc/protocols.
    const NAMES: [(&'static str, u8); 5] =
        [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];
}

impl FromStr for Proto {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        // 0 means "any" to iptables and the hop-by-hop header to nft.
        let number = named.or_else(|| text.parse().ok().filter(|number| *number != 0));
        let bad = || "write tcp, udp, icmp, icmpv6, sctp, or a number from 1 to 255".to_owned();
        number.map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Ports and ranges of ports, in rising order, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// First and last of each range.
    pub(in crate::rules) fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Written with `dash` in ranges and `comma` between them: nft and iptables differ.
    pub(in crate::rules) fn text(&self, dash: &str, comma: &str) -> String {
        let range = |&(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}{dash}{last}") }
        };
        self.0.iter().map(range).collect::<Vec<_>>().join(comma)
    }

    /// `XT_MULTI_PORTS`: what iptables' multiport match holds. A range takes two.
    const SLOTS_MAX: usize = 15;
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad =
            |part: &str| format!("`{part}` is no port: write 53, 1000-2000 or 53,80,8000-8080");
        let port = |part: &str| part.parse::<u16>().map_err(|_| bad(part));
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once(['-', ':']).unwrap_or((part, part));
            let (first, last) = (port(first)?, port(last)?);
            if last < first {
                return Err(format!("the range {part} is reversed: write {last}-{first}"));
            }
            ranges.push((first, last));
        }
        let ranges = joined(ranges);
        let slots: usize =
            ranges.iter().map(|(first, last)| if first == last { 1 } else { 2 }).sum();
        if slots > Self::SLOTS_MAX {
            return Err(format!(
                "at most {} ports, a range counting as two, fit into one rule",
                Self::SLOTS_MAX
            ));
        }
        Ok(Self(ranges))
    }
}

/// Joins what overlaps or touches: nft refuses a set with conflicting intervals.
fn joined(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// A match in a backend's own syntax, handed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) struct RawMatch(String);

impl RawMatch {
    pub(in crate::rules) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RawMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err("there is nothing in it: leave --match out".to_owned());
        }
        if text.contains(char::is_control) {
            return Err("a match is one line, without control characters".to_owned());
        }
        // Each would end the rule early, and the queue statement with it.
        if let Some(bad) = text.chars().find(|c| matches!(c, ';' | '#' | '\\')) {
            return Err(format!("a match holds no `{bad}`"));
        }
        Ok(Self(text.to_owned()))
    }
}
