//! Configurations of `fanq run` that are tried: values along some axes.
//!
//! Invariant: the first value of each axis is fanq's default, and the first combination is the defaults.

use std::fmt;

/// One configuration: each axis's option with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) options: Vec<(&'static str, &'static str)>,
}

impl Candidate {
    /// How many options are other than the defaults.
    pub(super) fn distance(&self) -> usize {
        self.others().count()
    }

    pub(super) fn is_default(&self) -> bool {
        self.distance() == 0
    }

    /// Whether it copies whole packets.
    pub(super) fn copies_all(&self) -> bool {
        self.options.iter().all(|(option, value)| *option != COPY_RANGE || *value == "full")
    }

    /// As the bench names it in a sweep, in which options stand in the order of the alphabet.
    pub(super) fn target(&self) -> String {
        let words: Vec<_> =
            self.options.iter().map(|(option, value)| format!("--{option} {value}")).collect();
        format!("fanq:{}", words.join(" "))
    }

    /// Whether it waits by spinning, so that others cannot be measured beside it.
    pub(super) fn spins(&self) -> bool {
        self.options.iter().any(|(_, value)| value.starts_with("spin"))
    }

    fn others(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        self.options.iter().filter(|(option, value)| default_of(option) != Some(*value))
    }
}

/// What is other than the defaults.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            return f.write_str("the defaults");
        }
        for (index, (option, value)) in self.others().enumerate() {
            write!(f, "{}{option} {value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// How many values of each axis are tried.
#[derive(Debug, Clone)]
pub(super) struct Axes {
    /// Of [`AXES`], how many have all their values; the others have their default only.
    open: usize,
}

impl Axes {
    pub(super) fn all() -> Self {
        Self { open: AXES.len() }
    }

    pub(super) fn defaults() -> Self {
        Self { open: 0 }
    }

    /// Leaves out the axis that is worth the least. Says whether there was one.
    pub(super) fn drop_last(&mut self) -> bool {
        let any = self.open > 0;
        self.open = self.open.saturating_sub(1);
        any
    }

    /// Options that are tried with their default only.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &'static str> {
        AXES.iter().skip(self.open).map(|(option, _)| *option)
    }

    /// All axes with the values that are tried, by their names.
    fn sorted(&self) -> Vec<(&'static str, &'static [&'static str])> {
        let values =
            |(index, (option, values)): (usize, &(&'static str, &'static [&'static str]))| {
                let tried = if index < self.open { values.len() } else { 1 };
                (*option, values.get(..tried).unwrap_or_default())
            };
        let mut sorted: Vec<_> = AXES.iter().enumerate().map(values).collect();
        sorted.sort_unstable_by_key(|(option, _)| *option);
        sorted
    }

    /// The file of axes that `fanq-bench sweep` reads.
    pub(super) fn toml(&self) -> String {
        let line = |(option, values): &(&str, &[&str])| {
            let quoted: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
            format!("{option} = [{}]\n", quoted.join(", "))
        };
        self.sorted().iter().map(line).collect()
    }

    pub(super) fn combinations(&self) -> Vec<Candidate> {
        let mut all = vec![Candidate { options: Vec::new() }];
        for (option, values) in self.sorted() {
            let with = |rest: &Candidate| {
                let longer = |value: &&'static str| Candidate {
                    options: [&rest.options[..], &[(option, *value)]].concat(),
                };
                values.iter().map(longer).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        all
    }
}

fn default_of(option: &str) -> Option<&'static str> {
    AXES.iter().find(|(name, _)| *name == option)?.1.first().copied()
}

const COPY_RANGE: &str = "copy-range";

/// Options with the values to try, the default first; those that are worth the most first.
const AXES: [(&str, &[&str]); 5] = [
    ("batch", &["64", "32", "256"]),
    ("wait", &["block", "spin:50"]),
    (COPY_RANGE, &["full", "128"]),
    ("queue-maxlen", &["16384", "4096"]),
    ("rcvbuf", &["64MiB", "16MiB"]),
];

#[cfg(test)]
mod tests {
    use fanq::EngineConfig;

    use super::*;

    #[test]
    fn the_defaults_are_the_engines_own() {
        let engine = EngineConfig::new("0".parse().unwrap());
        assert_eq!(default_of("batch"), Some(engine.batch.to_string().as_str()));
        assert_eq!(default_of("queue-maxlen"), Some(engine.queue.maxlen.to_string().as_str()));
        assert_eq!((default_of("rcvbuf"), engine.queue.rcvbuf), (Some("64MiB"), 64 * fanq::MIB));
        assert_eq!(default_of(COPY_RANGE), Some("full"));
        assert_eq!(engine.queue.copy_range, fanq::CopyRange::Full);
        assert_eq!((default_of("wait"), engine.wait), (Some("block"), fanq::Wait::Block));
    }

    #[test]
    fn all_combinations_are_what_a_sweep_takes_and_the_first_is_the_defaults() {
        let mut axes = Axes::all();
        let all = axes.combinations();
        assert_eq!(all.len(), 48);
        assert!(all[0].is_default() && all[0].copies_all());
        assert_eq!(
            all[0].target(),
            "fanq:--batch 64 --copy-range full --queue-maxlen 16384 --rcvbuf 64MiB --wait block"
        );
        let last = all.last().unwrap();
        assert_eq!((last.distance(), last.copies_all(), last.spins()), (5, false, true));
        assert_eq!(
            last.to_string(),
            "batch 256, copy-range 128, queue-maxlen 4096, rcvbuf 16MiB, wait spin:50"
        );
        assert!(axes.toml().contains("batch = [\"64\", \"32\", \"256\"]\n"));
        assert!(axes.drop_last() && axes.drop_last());
        assert_eq!(axes.combinations().len(), 12);
        assert_eq!(axes.left_out().collect::<Vec<_>>(), ["queue-maxlen", "rcvbuf"]);
        assert!(axes.toml().contains("rcvbuf = [\"64MiB\"]\n"));
        assert_eq!(Axes::defaults().combinations().len(), 1);
        assert!(!Axes::defaults().drop_last());
    }
}
