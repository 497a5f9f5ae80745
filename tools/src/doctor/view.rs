//! What the checks look at: the machine, a later sample, and what was asked for.
//!
//! Invariant: what it derives (which queues are in use, which CPUs fill them) is derived here and nowhere else, so that
//! no two checks disagree about it.

use fanq::{CpuId, CpuList, KernelRow, QueueRange};

use crate::machine::{Device, Machine, QueueRule, Sample};

/// The machine under the eyes of the checks.
pub(super) struct View<'a> {
    pub(super) machine: &'a Machine,
    /// The counters, a moment after `machine.sample`.
    pub(super) later: &'a Sample,
    /// The queues that are to be served; none means those in use.
    pub(super) asked: Option<QueueRange>,
    /// Whether devices were named.
    pub(super) devices_named: bool,
    /// Whether packets are to be dropped while nobody inspects them.
    pub(super) fail_closed: bool,
}

impl View<'_> {
    /// The rules that packets can come to, within what was asked for.
    pub(super) fn rules(&self) -> impl Iterator<Item = &QueueRule> {
        self.machine.rules.found.iter().filter(|rule| {
            let touches = |(first, last)| {
                self.asked.is_none_or(|asked| first <= asked.last() && last >= asked.first())
            };
            !rule.hooks.is_empty() && rule.queues.is_none_or(touches)
        })
    }

    /// The queues that are bound, within what was asked for.
    pub(super) fn bound(&self) -> impl Iterator<Item = &KernelRow> {
        let rows = self.machine.queues.table.known();
        rows.into_iter().flatten().filter(|row| self.asks_for(row.queue))
    }

    pub(super) fn row(&self, queue: u16) -> Option<&KernelRow> {
        self.bound().find(|row| row.queue == queue)
    }

    pub(super) fn asks_for(&self, queue: u16) -> bool {
        self.asked.is_none_or(|asked| (asked.first()..=asked.last()).contains(&queue))
    }

    /// Whether anything queues packets here, or is to.
    pub(super) fn in_use(&self) -> bool {
        self.asked.is_some() || self.rules().next().is_some() || self.bound().next().is_some()
    }

    /// The ranges that packets are spread over by CPU: those of rules with fanout; without any rule, what was asked
    /// for. Each once.
    pub(super) fn fanout_ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<_> = (self.rules())
            .filter(|rule| rule.fanout)
            .filter_map(|rule| rule.queues)
            .filter(|(first, last)| last > first)
            .collect();
        if self.rules().next().is_none() {
            ranges.extend(self.asked.map(|asked| (asked.first(), asked.last())));
        }
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    pub(super) fn online(&self) -> CpuList {
        self.machine.cpus.online.known().cloned().unwrap_or_default()
    }

    /// The CPUs on which packets come to the rules: those that handle what the devices receive; where that is not
    /// known, or where packets of this machine itself are queued, all.
    pub(super) fn filling_cpus(&self) -> CpuList {
        let is_local = |hook: &String| hook == "output" || hook == "postrouting";
        let local = self.rules().any(|rule| rule.hooks.iter().any(is_local));
        let handled: Vec<_> = self.hardware().filter_map(Device::handling_cpus).collect();
        if local || handled.is_empty() || handled.len() < self.hardware().count() {
            return self.online();
        }
        let online = self.online();
        let all = handled.iter().flat_map(CpuList::iter);
        all.filter(|cpu| online.contains(*cpu)).collect()
    }

    pub(super) fn hardware(&self) -> impl Iterator<Item = &Device> {
        self.machine.devices().filter(|device| device.hardware)
    }
}

/// The queue that a CPU fills, by the kernel's rule.
pub(super) fn queue_of(cpu: CpuId, (first, last): (u16, u16)) -> u16 {
    match (last - first).checked_add(1) {
        Some(count) => first + cpu.0 % count,
        None => cpu.0,
    }
}

/// `0-3,7`, of numbers in any order.
pub(super) fn numbers(all: impl IntoIterator<Item = u16>) -> String {
    // CPU numbers are written the same way.
    all.into_iter().map(CpuId).collect::<CpuList>().to_string()
}

/// `CPU 2`, `CPUs 0-3`.
pub(super) fn named_cpus(all: impl IntoIterator<Item = u16>) -> String {
    named("CPU", all)
}

/// `queue 2`, `queues 0-3`.
pub(super) fn named_queues(all: impl IntoIterator<Item = u16>) -> String {
    named("queue", all)
}

fn named(what: &str, all: impl IntoIterator<Item = u16>) -> String {
    let list: CpuList = all.into_iter().map(CpuId).collect();
    let plural = if list.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {list}")
}

/// `0-3` or `5`.
pub(super) fn range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// `1 queue`, `4 queues`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
