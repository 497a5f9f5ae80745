//! The notations in a rules file: prefixes, ports, protocols, hooks, patterns. Each reads one value, or says what it
//! should have been.
//!
//! Invariant: pure functions from text to value; none of them panics on any text.

use std::net::IpAddr;

use fanq::nfq::Hook;

use super::schema::{PatternText, Scalar};
use crate::mark::MarkBits;

/// A network: an address whose bits behind the first `length` are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    /// 0 to 32 or 128.
    pub(crate) length: u8,
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Bytes that are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    /// 1 to [`PATTERN_BYTES_MAX`].
    pub(crate) bytes: Vec<u8>,
    /// Whether ASCII letters match in either case.
    pub(crate) ignore_case: bool,
}

pub(super) fn prefix(value: &Scalar) -> Result<Prefix, String> {
    let text = match value {
        Scalar::Text(text) => text,
        other => return Err(format!("{} is no address: write it as a text", shown(other))),
    };
    let bad = || {
        format!(
            "`{text}` is no address or prefix: write one like 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
        )
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        // `parse` takes a sign as well.
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            digits.parse().map_err(|_| bad())?
        }
        Some(_) => return Err(bad()),
        None => bits,
    };
    if length > bits {
        return Err(format!("`{text}` is too long a prefix: this address has {bits} bits"));
    }
    let network = network_of(address, length);
    if network != address {
        return Err(format!("`{text}` has bits behind its prefix: write {network}/{length}"));
    }
    Ok(Prefix { address, length })
}

/// The address with the bits behind the first `length` at 0.
fn network_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::from(std::net::Ipv4Addr::from(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::from(std::net::Ipv6Addr::from(v6.to_bits() & mask))
        }
    }
}

pub(super) fn ports(value: &Scalar) -> Result<PortRange, String> {
    let bad = || {
        let shown = shown(value);
        format!(
            "{shown} is no port or range: write a number from 0 to 65535, or a text like \"1024-2047\""
        )
    };
    let port = |digits: &str| {
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten().ok_or_else(bad)
    };
    let (first, last) = match value {
        Scalar::Integer(number) => {
            let port = u16::try_from(*number).map_err(|_| bad())?;
            (port, port)
        }
        Scalar::Text(text) => match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        },
        Scalar::Pattern(_) => return Err(bad()),
    };
    if first > last {
        return Err(format!("the range {first}-{last} is reversed: write {last}-{first}"));
    }
    Ok(PortRange { first, last })
}

/// The number that stands in the IP header (IANA "Assigned Internet Protocol Numbers").
pub(super) fn protocol(value: &Scalar) -> Result<u8, String> {
    let known = match value {
        Scalar::Integer(number) => u8::try_from(*number).ok(),
        Scalar::Text(text) => {
            PROTOCOLS.iter().find(|(name, _)| name == text).map(|(_, number)| *number)
        }
        Scalar::Pattern(_) => None,
    };
    known.ok_or_else(|| {
        let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!(
            "{} is no protocol: write {} or a number from 0 to 255",
            shown(value),
            names.join(", ")
        )
    })
}

pub(super) fn hook(value: &Scalar) -> Result<Hook, String> {
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let mut named = hooks.into_iter().zip(Hook::NAMES);
    let found = named.find(|(_, name)| matches!(value, Scalar::Text(text) if text == name));
    found.map(|(hook, _)| hook).ok_or_else(|| {
        format!("{} is no direction: write {}", shown(value), Hook::NAMES.join(", "))
    })
}

/// A name as the kernel takes it (`dev_valid_name`): 1 to 15 bytes, no `/`, no `:`, no blank.
pub(super) fn interface(value: &Scalar) -> Result<String, String> {
    let valid = |name: &str| {
        let bad_byte = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
        (1..=15).contains(&name.len())
            && ![".", ".."].contains(&name)
            && !name.bytes().any(bad_byte)
    };
    match value {
        Scalar::Text(name) if valid(name) => Ok(name.clone()),
        other => Err(format!(
            "{} is no interface: write a name of 1 to 15 bytes, such as \"eth0\"",
            shown(other)
        )),
    }
}

pub(super) fn mark(value: &Scalar) -> Result<MarkBits, String> {
    match value {
        Scalar::Text(text) => text.parse(),
        Scalar::Integer(number) => number.to_string().parse(),
        Scalar::Pattern(_) => Err("this is no mark: write a text like \"0x10/0xf0\"".to_owned()),
    }
}

/// Text, and bytes in hexadecimal between bars, as in Suricata's rules: `GET |2f|admin|0d 0a|`.
pub(super) fn pattern(value: &Scalar) -> Result<Pattern, String> {
    let (text, ignore_case) = match value {
        Scalar::Text(text) => (text, false),
        Scalar::Pattern(PatternText { text, ignore_case }) => (text, *ignore_case),
        Scalar::Integer(number) => {
            return Err(format!("{number} is no pattern: write it as a text"));
        }
    };
    if text.matches('|').count() % 2 == 1 {
        return Err(
            "the pattern's last bar has no partner: write hexadecimal bytes between two, such as \
                    |0d 0a|, and a bar itself as |7c|"
                .to_owned(),
        );
    }
    let mut bytes = Vec::new();
    for (index, part) in text.split('|').enumerate() {
        // Every second part lies between bars.
        if index % 2 == 0 {
            bytes.extend(part.bytes());
        } else {
            bytes.extend(hexadecimal(part).ok_or_else(|| {
                format!(
                    "`|{part}|` in the pattern is no bytes: between bars stand pairs of hexadecimal digits, such as \
                     |0d 0a|, and a bar itself is written |7c|"
                )
            })?);
        }
    }
    match bytes.len() {
        0 => Err("the pattern is empty: write at least one byte".to_owned()),
        1..=PATTERN_BYTES_MAX => Ok(Pattern { bytes, ignore_case }),
        length => {
            Err(format!("the pattern has {length} bytes: at most {PATTERN_BYTES_MAX} are taken"))
        }
    }
}

/// Pairs of digits, with blanks between pairs or without.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.split_ascii_whitespace() {
        let digits: Option<Vec<_>> = group.chars().map(|digit| digit.to_digit(16)).collect();
        let pairs = digits.filter(|digits| digits.len() % 2 == 0)?;
        bytes.extend(pairs.chunks(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()));
    }
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

fn shown(value: &Scalar) -> String {
    match value {
        Scalar::Integer(number) => number.to_string(),
        Scalar::Text(text) => format!("`{text}`"),
        Scalar::Pattern(_) => "a table".to_owned(),
    }
}

/// Protocols with a name; others by number.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];

/// Long enough for any signature; the automaton grows with each byte.
const PATTERN_BYTES_MAX: usize = 1024;
