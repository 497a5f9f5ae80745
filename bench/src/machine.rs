//! The machine: what it is, for the record, and how much of it the host took away.
//!
//! Invariant: names no host, user or folder. What cannot be read is left out.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;

use crate::result::Machine;

/// CPU time of all CPUs at one moment, in clock ticks (`/proc/stat`, proc_stat(5)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct StolenTime {
    all: u64,
    stolen: u64,
}

impl StolenTime {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line for all CPUs")
    }

    /// From the text of `/proc/stat`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        // The ninth and tenth are time of guests, which the first two hold already.
        Some(Self { all: ticks.iter().take(8).sum(), stolen: *ticks.get(7)? })
    }

    /// The share that the host took since then.
    pub(crate) fn share_since(self) -> anyhow::Result<f64> {
        Ok(self.until(Self::now()?).share)
    }

    /// What the host took from then to a later moment.
    #[expect(clippy::cast_precision_loss, reason = "clock ticks, far below 2^53")]
    pub(crate) fn until(self, later: Self) -> Taken {
        let ticks = later.stolen.saturating_sub(self.stolen);
        let all = later.all.saturating_sub(self.all).max(1);
        Taken { ticks, share: ticks as f64 / all as f64 }
    }
}

/// What the host took of the time of all CPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Taken {
    /// Whole clock ticks, as a rule hundredths of a second: of a short time one says little.
    pub(crate) ticks: u64,
    pub(crate) share: f64,
}

/// Describes this machine.
pub(crate) fn describe(stolen_share: f64) -> Machine {
    Machine {
        kernel: format!("{} {}", read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH),
        cpu: cpu_model(&read("/proc/cpuinfo")),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: memory_mib(&read("/proc/meminfo")),
        governor: fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
            .ok()
            .map(|governor| governor.trim().to_owned()),
        stolen_share,
        mitigations: files_of("/sys/devices/system/cpu/vulnerabilities"),
        sysctls: SYSCTLS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), sysctl(name)?)))
            .collect(),
    }
}

fn cpu_model(info: &str) -> String {
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.trim().to_owned())
}

fn memory_mib(info: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) / 1024
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path)
        .ok()
        .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn files_of(folder: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let pair = |entry: fs::DirEntry| {
        let value = fs::read_to_string(entry.path()).ok()?;
        Some((entry.file_name().into_string().ok()?, value.trim().to_owned()))
    };
    entries.filter_map(pair).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What moves the figures of a queue.
const SYSCTLS: [&str; 9] = [
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.busy_read",
    "kernel.sched_rt_runtime_us",
    "net.netfilter.nf_conntrack_max",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let before = StolenTime::parse("cpu  10 0 10 70 0 0 5 5 3 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!((before.all, before.stolen), (100, 5));
        assert!(StolenTime::parse("cpu0 1 2").is_none());
        let after = StolenTime::parse("cpu  20 0 20 140 0 0 5 15 3 0\n").unwrap();
        assert_eq!(before.until(after), Taken { ticks: 10, share: 0.1 });
    }

    #[test]
    fn files_of_the_kernel_are_read_as_they_are() {
        assert_eq!(cpu_model("processor : 0\nmodel name\t: A CPU\n"), "A CPU");
        assert_eq!(memory_mib("MemTotal:       2048000 kB\n"), 2000);
        assert!(describe(0.0).kernel.ends_with(std::env::consts::ARCH));
    }
}
