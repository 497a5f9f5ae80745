//! What `fanq accel` was asked for, as it reaches this library: by environment variables.
//!
//! Invariant: read once, when the program opens its first netfilter socket; a value that is not understood is as one
//! that is not there, since `fanq accel` has checked it. It deliberately reads nothing else.

use std::sync::OnceLock;

use fanq::{CpuId, CpuList, nfq::CopyRange};

/// The wishes of whoever started the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Datagrams a receive, 1 to 256.
    pub(crate) batch: usize,
    /// Receive buffer of each socket in bytes, at least.
    pub(crate) rcvbuf: Option<u32>,
    /// Packets that wait in one queue.
    pub(crate) queue_maxlen: Option<u32>,
    pub(crate) fail_open: bool,
    pub(crate) gso: bool,
    pub(crate) copy_range: Option<CopyRange>,
    pub(crate) cpus: Cpus,
    /// The niceness that the threads that read are to have, if somebody has said so; 0 for the program's own.
    pub(crate) nice: Option<i8>,
    /// The file that counters go to.
    pub(crate) counts_file: Option<String>,
}

/// Where the thread that reads a queue runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Cpus {
    /// Where the program lets it.
    #[default]
    Unchanged,
    /// On the CPU that fills it under a fanout which begins at this queue.
    Same(u16),
    /// The queues in order, from this one on, on these CPUs.
    List(u16, CpuList),
}

impl Cpus {
    /// The CPU for this queue.
    pub(crate) fn of(&self, queue: u16) -> Option<CpuId> {
        match self {
            Self::Unchanged => None,
            Self::Same(first) => queue.checked_sub(*first).map(CpuId),
            Self::List(first, cpus) => {
                let place = usize::from(queue.checked_sub(*first)?);
                (!cpus.is_empty()).then(|| cpus.iter().nth(place % cpus.len()))?
            }
        }
    }

    /// `same:FIRST` or `list:FIRST:CPUS`.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match (kind, rest.split_once(':')) {
            ("same", None) => rest.parse().ok().map(Self::Same),
            ("list", Some((first, cpus))) => {
                Some(Self::List(first.parse().ok()?, cpus.parse().ok()?))
            }
            _ => None,
        }
    }
}

impl Settings {
    /// Those of this process.
    pub(crate) fn of_this_process() -> &'static Self {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        SETTINGS.get_or_init(|| Self::read(|name| std::env::var(format!("FANQ_ACCEL_{name}")).ok()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| variable(name)?.parse::<u32>().ok();
        let batch = number("BATCH").and_then(|batch| usize::try_from(batch).ok());
        Self {
            batch: batch.unwrap_or(BATCH).clamp(1, BATCH_MAX),
            rcvbuf: number("RCVBUF"),
            queue_maxlen: number("QUEUE_MAXLEN"),
            fail_open: variable("FAIL_OPEN").is_some(),
            gso: variable("GSO").is_some(),
            copy_range: number("COPY_RANGE").map(|bytes| match u16::try_from(bytes) {
                Ok(0) | Err(_) => CopyRange::Full,
                Ok(bytes) => CopyRange::Bytes(bytes.min(CopyRange::BYTES_MAX)),
            }),
            cpus: variable("CPUS").and_then(|text| Cpus::parse(&text)).unwrap_or_default(),
            nice: variable("NICE").and_then(|nice| nice.parse().ok()),
            counts_file: variable("COUNTS"),
        }
    }
}

const BATCH: usize = 64;

/// More has shown no gain.
pub(crate) const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_not_understood_changes_nothing() {
        let nothing = Settings::read(|_| None);
        assert_eq!(nothing, Settings { batch: 64, ..Settings::default() });
        let nonsense = Settings::read(|name| {
            (!["FAIL_OPEN", "GSO", "COUNTS"].contains(&name)).then(|| "fnord".to_owned())
        });
        assert_eq!(nonsense, nothing);
    }

    #[test]
    fn each_variable_has_its_place() {
        let settings = Settings::read(|name| {
            let value = match name {
                "BATCH" => "1000",
                "RCVBUF" => "4096",
                "COPY_RANGE" => "128",
                "NICE" => "-11",
                "CPUS" => "list:4:2,3",
                _ => "1",
            };
            Some(value.to_owned())
        });
        assert_eq!((settings.batch, settings.rcvbuf), (BATCH_MAX, Some(4096)));
        assert_eq!(settings.copy_range, Some(CopyRange::Bytes(128)));
        assert!(settings.fail_open && settings.gso);
        assert_eq!(settings.nice, Some(-11));
        let cpus: Vec<_> = (3..8).map(|queue| settings.cpus.of(queue)).collect();
        assert_eq!(cpus, [None, Some(CpuId(2)), Some(CpuId(3)), Some(CpuId(2)), Some(CpuId(3))]);
        assert_eq!(Cpus::parse("same:4").unwrap().of(7), Some(CpuId(3)));
    }
}
