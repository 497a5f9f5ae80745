//! Reads what `ethtool -l`, `-g`, `-x` and `-k` print about a device.
//!
//! Invariant: what a device does not have (`n/a`, `Operation not supported`) is none, never 0.

use std::collections::BTreeMap;

/// A setting with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounded {
    pub(crate) now: Option<u32>,
    pub(crate) max: Option<u32>,
}

/// Its hardware queues (`ethtool -l`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Channels {
    pub(crate) rx: Bounded,
    pub(crate) tx: Bounded,
    pub(crate) combined: Bounded,
}

impl Channels {
    /// None if the device has none that it tells of.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bounded = |name| two_sections(text, name);
        let channels = Self { rx: bounded("RX"), tx: bounded("TX"), combined: bounded("Combined") };
        (channels != Self::default()).then_some(channels)
    }

    /// How many queues receive.
    pub(crate) fn receiving(self) -> Option<u32> {
        match (self.rx.now, self.combined.now) {
            (None, None) => None,
            (rx, combined) => Some(rx.unwrap_or(0) + combined.unwrap_or(0)),
        }
    }

    /// How many could.
    pub(crate) fn receiving_max(self) -> Option<u32> {
        self.rx.max.max(self.combined.max)
    }
}

/// Its rings, in packets (`ethtool -g`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rings {
    pub(crate) rx: Bounded,
    pub(crate) tx: Bounded,
}

impl Rings {
    pub(super) fn read(text: &str) -> Option<Self> {
        let rings = Self { rx: two_sections(text, "RX"), tx: two_sections(text, "TX") };
        (rings != Self::default()).then_some(rings)
    }
}

/// How it spreads what it receives over its queues (`ethtool -x`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spreading {
    /// The queue of each hash value.
    pub(crate) indirection: Vec<u32>,
    /// The hash key; empty where it is not told.
    pub(crate) key: Vec<u8>,
    /// `toeplitz`, `xor`, `crc32`: the one that is on.
    pub(crate) function: Option<String>,
    /// Whether it makes the hash of both directions the same by itself (`symmetric-xor`, `symmetric-or-xor`).
    pub(crate) symmetric_by_input: bool,
}

impl Spreading {
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut read = Self::default();
        let mut part = "";
        for line in text.lines() {
            if let Some(title) =
                line.trim_end().strip_suffix(':').filter(|_| !line.starts_with(' '))
            {
                part = title;
            }
            let trimmed = line.trim();
            if part == "RSS hash key" && trimmed.contains(':') && !trimmed.ends_with(':') {
                read.key = hex_bytes(trimmed).unwrap_or_default();
            } else if let Some((name, "on")) = trimmed.split_once(": ") {
                match part {
                    "RSS hash function" => read.function = Some(name.to_owned()),
                    "RSS input transformation" => {
                        read.symmetric_by_input |= name.starts_with("symmetric");
                    }
                    _ => {}
                }
            } else if let Some((index, queues)) = trimmed.split_once(':')
                && index.trim().parse::<u32>().is_ok()
            {
                let queues = queues.split_ascii_whitespace().map_while(|queue| queue.parse().ok());
                read.indirection.extend::<Vec<u32>>(queues.collect());
            }
        }
        (!read.indirection.is_empty() || !read.key.is_empty()).then_some(read)
    }

    /// Whether both directions of a connection come to the same queue: the input is made symmetric, or the key repeats
    /// every 16 bits, which makes Toeplitz symmetric in addresses and ports. None where it cannot be told.
    pub(crate) fn is_symmetric(&self) -> Option<bool> {
        if self.symmetric_by_input || self.function.as_deref() == Some("xor") {
            return Some(true);
        }
        if self.key.len() < 4 || self.function.as_deref().is_some_and(|name| name != "toeplitz") {
            return None;
        }
        Some(self.key.iter().zip(self.key.iter().skip(2)).all(|(a, b)| a == b))
    }
}

/// Its features (`ethtool -k`): name, and whether it is on.
pub(super) fn features(text: &str) -> BTreeMap<String, Feature> {
    let feature = |line: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        let on = match value.split(' ').next()? {
            "on" => true,
            "off" => false,
            _ => return None,
        };
        Some((name.to_owned(), Feature { on, fixed: value.contains("[fixed]") }))
    };
    text.lines().filter_map(feature).collect()
}

/// One feature of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) on: bool,
    /// Whether it cannot be changed.
    pub(crate) fixed: bool,
}

/// A value under `Pre-set maximums:` and under `Current hardware settings:`.
fn two_sections(text: &str, name: &str) -> Bounded {
    let mut read = Bounded::default();
    let mut current = false;
    for line in text.lines() {
        if line.starts_with("Current hardware settings") {
            current = true;
        }
        let Some((label, value)) = line.split_once(':') else { continue };
        if label.trim() == name {
            let value = value.trim().parse().ok();
            if current { read.now = value } else { read.max = value }
        }
    }
    read
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_rings_are_read_and_what_is_not_there_is_none() {
        let text = "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\n\
                    Combined:\t63\nCurrent hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t4\n";
        let channels = Channels::read(text).unwrap();
        assert_eq!(channels.combined, Bounded { now: Some(4), max: Some(63) });
        assert_eq!((channels.receiving(), channels.receiving_max()), (Some(4), Some(63)));
        let apart = text.replace("n/a", "2").replace("Combined:\t63", "Combined:\tn/a");
        assert_eq!(Channels::read(&apart).unwrap().receiving(), Some(6));

        let text = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nTX:\t\t4096\n\
                    Current hardware settings:\nRX:\t\t512\nRX Mini:\tn/a\nTX:\t\t256\n";
        let rings = Rings::read(text).unwrap();
        assert_eq!(rings.rx, Bounded { now: Some(512), max: Some(4096) });
        assert_eq!(rings.tx, Bounded { now: Some(256), max: Some(4096) });
        for text in ["", "netlink error: Operation not supported\n"] {
            assert_eq!((Channels::read(text), Rings::read(text)), (None, None));
        }
    }

    #[test]
    fn the_hash_is_symmetric_by_its_key_or_by_its_input() {
        let text = |key: &str, input: &str| {
            format!(
                "RX flow hash indirection table for eth0 with 4 RX ring(s):\n\
                 \x20   0:      0     1     2     3     0     1     2     3\n\
                 \x20   8:      0     1     2     3     0     1     2     3\n\
                 RSS hash key:\n{key}\nRSS hash function:\n    toeplitz: on\n    xor: off\n{input}"
            )
        };
        let input = "RSS input transformation:\n    symmetric-xor: on\n    symmetric-or-xor: off\n";
        for (key, input, symmetric) in [
            ("6d:5a:6d:5a:6d:5a:6d:5a", "", Some(true)),
            ("be:ac:01:fa:6a:42:b7:3b", "", Some(false)),
            ("be:ac:01:fa:6a:42:b7:3b", input, Some(true)),
            ("Operation not supported", "", None),
        ] {
            let spreading = Spreading::read(&text(key, input)).unwrap();
            assert_eq!(spreading.is_symmetric(), symmetric, "{key} {input}");
            assert_eq!(spreading.indirection.len(), 16);
        }
        // As virtio_net says it.
        let none = "RX flow hash indirection table for eth0 with 1 RX ring(s):\nOperation not supported\n\
                    RSS hash key:\nOperation not supported\nRSS hash function:\n    toeplitz: on\n";
        assert_eq!(Spreading::read(none), None);
    }

    #[test]
    fn features_are_on_off_and_fixed() {
        let read = features(
            "Features for eth0:\nrx-checksumming: on [fixed]\n\ttx-tcp: off\nlarge-receive-offload: off [fixed]\n",
        );
        assert_eq!(read.len(), 3);
        assert_eq!(read["rx-checksumming"], Feature { on: true, fixed: true });
        assert_eq!(read["tx-tcp"], Feature { on: false, fixed: false });
    }
}
