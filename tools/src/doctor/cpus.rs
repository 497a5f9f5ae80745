//! The CPUs of the queues: whether the program may use them, how it uses them, and how they are clocked.
//!
//! Invariant: judged only where something is queued or asked for. A machine without frequency control (most virtual
//! ones) has no governor to judge.

use std::collections::BTreeMap;

use fanq::{CpuId, CpuList};

use super::finding::{Finding, Topic};
use super::view::{View, counted, named_cpus, numbers, queue_of, range};
use crate::machine::{Limits, Process};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 5] = [ALLOWED, QUOTA, WORKERS, GOVERNOR, ISOLATED];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    if !view.in_use() {
        return Vec::new();
    }
    vec![allowed(view), quota(view), workers(view), governor(view), isolated(view)]
}

/// The programs that serve the queues, each once.
fn owners<'a>(view: &'a View<'_>) -> BTreeMap<u32, &'a Process> {
    let servers = view.bound().flat_map(|row| view.machine.queues.servers(row.port_id));
    servers.map(|process| (process.pid, process)).collect()
}

/// The limits of the programs that serve the queues; of this process, which stands for one, where none does.
fn limited<'a>(view: &'a View<'_>) -> Vec<(String, &'a Limits)> {
    let owners = owners(view);
    if owners.is_empty() {
        return vec![("this shell".to_owned(), &view.machine.limits)];
    }
    let named = |process: &&'a Process| {
        (format!("process {} ({})", process.pid, process.name), &process.limits)
    };
    owners.values().map(named).collect()
}

const ALLOWED: Topic = Topic {
    id: "cpus-allowed",
    why: "a worker has to run on the CPU that fills its queue; a cpuset may forbid it",
};

fn allowed(view: &View<'_>) -> Finding {
    let ranges = view.fanout_ranges();
    if ranges.is_empty() {
        return ALLOWED.ok("no queue belongs to a CPU, so any will do");
    }
    // Of the CPUs that share a queue, fanq takes one: it is enough that it may use that.
    let mut evidence = Vec::new();
    for (who, limits) in limited(view) {
        let allowed = limits.allowed();
        let Some(allowed_cpus) = allowed.known() else {
            let why = allowed.why_unseen().unwrap_or_default();
            return ALLOWED.unseen("which CPUs may be used is not known").seen(why);
        };
        let forbidden = forbidden(view, &ranges, allowed_cpus);
        if !forbidden.is_empty() {
            evidence
                .push(format!("{who} may use CPUs {allowed_cpus}, not {}", named_cpus(forbidden)));
            let group = limits.group.as_deref().filter(|group| !group.is_empty());
            evidence.extend(group.map(|group| format!("control group {group}")));
        }
    }
    if evidence.is_empty() {
        return ALLOWED.ok("the program may use every CPU that fills a queue");
    }
    let group = limited(view).first().and_then(|(_, limits)| limits.group.clone());
    let service = group.and_then(|group| {
        group.split('/').rev().find(|part| part.ends_with(".service")).map(str::to_owned)
    });
    let all = view.online();
    ALLOWED.fail("the program may not use CPUs that fill its queues").seen_all(evidence).mend(
        match service {
            Some(service) => format!(
                "systemctl set-property {service} AllowedCPUs={all}   # and no CPUAffinity= in it"
            ),
            None => format!("taskset -c {all} fanq run ...   # or widen the cpuset of its group"),
        },
    )
}

/// The CPUs whose queue has no CPU that may be used.
fn forbidden(view: &View<'_>, ranges: &[(u16, u16)], allowed: &CpuList) -> Vec<u16> {
    let filling = view.filling_cpus();
    let lacks = |cpu: &CpuId| {
        ranges.iter().any(|queues| {
            let queue = queue_of(*cpu, *queues);
            let mut sharing = view
                .online()
                .iter()
                .filter(|other| queue_of(*other, *queues) == queue)
                .collect::<Vec<_>>();
            sharing.retain(|cpu| allowed.contains(*cpu));
            sharing.is_empty()
        })
    };
    filling.iter().filter(lacks).map(|cpu| cpu.0).collect()
}

const QUOTA: Topic = Topic {
    id: "cpus-quota",
    why: "a program that has used up its quota stands still, and its queues fill",
};

fn quota(view: &View<'_>) -> Finding {
    let queues = match view.bound().count() {
        0 => view.asked.map_or(view.filling_cpus().len(), |asked| usize::from(asked.count())),
        bound => bound,
    };
    for (who, limits) in limited(view) {
        let quota = match limits.quota.known() {
            Some(None) => continue,
            Some(Some(quota)) => *quota,
            None => {
                let why = limits.quota.why_unseen().unwrap_or_default();
                return QUOTA.unseen("whether there is a quota is not known").seen(why);
            }
        };
        // At least one CPU a worker, or the group is stopped while packets wait.
        #[expect(clippy::cast_precision_loss, reason = "there are at most 65,536 queues")]
        let too_small = quota < queues as f64;
        if too_small {
            let group = limits.group.as_deref().unwrap_or_default();
            let service = group.rsplit('/').find(|part| part.ends_with(".service"));
            return QUOTA
                .warn(format!(
                    "{who} may use {quota} CPUs' time, for {}",
                    counted(queues, "worker")
                ))
                .seen(format!("cpu.max, in or above /sys/fs/cgroup{group}"))
                .mend(match service {
                    Some(service) => format!("systemctl set-property {service} CPUQuota="),
                    None => format!("echo max > /sys/fs/cgroup{group}/cpu.max"),
                });
        }
    }
    QUOTA.ok("no quota stops the program")
}

const WORKERS: Topic = Topic {
    id: "cpus-workers",
    why: "a packet costs about twice as much if its worker runs on another CPU",
};

/// fanq calls its workers `fanq-QUEUE`. How other programs share out their work cannot be seen.
fn workers(view: &View<'_>) -> Finding {
    let (mut stray, mut seen) = (Vec::new(), 0);
    let owners = owners(view);
    for thread in owners.values().flat_map(|process| &process.threads) {
        let queue = thread.name.strip_prefix("fanq-").and_then(|queue| queue.parse::<u16>().ok());
        let Some(queue) = queue.filter(|queue| view.asks_for(*queue)) else { continue };
        let Some(queues) = range_with(view, queue) else { continue };
        seen += 1;
        let fills = |cpu: CpuId| queue_of(cpu, queues) == queue;
        // Pinned to a CPU that fills no queue at all: put there on purpose (`--placement spare`).
        let spare = |cpu: CpuId| !view.filling_cpus().contains(cpu);
        // Where no CPU fills the queue, there is no place to be.
        let unfilled = !view.online().iter().any(fills);
        let placed = unfilled
            || match thread.affinity.iter().collect::<Vec<_>>().as_slice() {
                [cpu] => fills(*cpu) || spare(*cpu),
                _ => false,
            };
        if !placed {
            stray.push(format!("the worker of queue {queue} may run on CPUs {}", thread.affinity));
        }
    }
    if !stray.is_empty() {
        let bound = numbers(view.bound().map(|row| row.queue));
        return WORKERS
            .warn(format!("{} not on the CPU that fills the queue", counted(stray.len(), "worker")))
            .seen_all(stray)
            .mend(format!("fanq run --queues {bound} --placement same"));
    }
    WORKERS.ok(if seen == 0 {
        "no worker of fanq's on a queue with fanout".to_owned()
    } else {
        format!("{}, each on the CPU that fills its queue", counted(seen, "worker"))
    })
}

fn range_with(view: &View<'_>, queue: u16) -> Option<(u16, u16)> {
    let ranges = view.fanout_ranges();
    ranges.into_iter().find(|(first, last)| (*first..=*last).contains(&queue))
}

const GOVERNOR: Topic =
    Topic { id: "cpus-governor", why: "a clock that follows the load is slow when a burst begins" };

fn governor(view: &View<'_>) -> Finding {
    let governors = &view.machine.cpus.governors;
    if governors.is_empty() {
        return GOVERNOR.ok("this machine's clock is not set here");
    }
    let filling = view.filling_cpus();
    let mut slow: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for (cpu, governor) in governors {
        if governor != "performance" && filling.contains(*cpu) {
            slow.entry(governor).or_default().push(cpu.0);
        }
    }
    if slow.is_empty() {
        return GOVERNOR.ok("the CPUs that fill queues run at full clock (performance)");
    }
    let all: Vec<u16> = slow.values().flatten().copied().collect();
    let file = "/sys/devices/system/cpu/cpu$c/cpufreq/scaling_governor";
    let words: Vec<_> = all.iter().map(u16::to_string).collect();
    GOVERNOR
        .warn(format!("{}: not at full clock", named_cpus(all)))
        .seen_all(slow.into_iter().map(|(name, list)| format!("{}: {name}", named_cpus(list))))
        .mend(format!("for c in {}; do echo performance > {file}; done", words.join(" ")))
}

const ISOLATED: Topic = Topic {
    id: "cpus-isolated",
    why: "the scheduler puts nothing on isolated CPUs: only a program that pins itself runs there",
};

fn isolated(view: &View<'_>) -> Finding {
    let list = &view.machine.cpus.isolated;
    let Some(isolated) = list.known() else {
        let why = list.why_unseen().unwrap_or_default();
        return ISOLATED.unseen("which CPUs are isolated is not known").seen(why);
    };
    let filling = view.filling_cpus();
    let both: Vec<u16> =
        filling.iter().filter(|cpu| isolated.contains(*cpu)).map(|cpu| cpu.0).collect();
    if both.is_empty() {
        return ISOLATED.ok("no CPU that fills a queue is isolated");
    }
    let owners = owners(view);
    // Whether some thread of the program is pinned to that CPU.
    let pinned = |cpu: u16| {
        let mut threads = owners.values().flat_map(|process| &process.threads);
        threads.any(|thread| thread.affinity.len() == 1 && thread.affinity.contains(CpuId(cpu)))
    };
    let left: Vec<u16> = both.iter().copied().filter(|cpu| !pinned(*cpu)).collect();
    if left.is_empty() {
        return ISOLATED
            .ok(format!("workers are pinned to what is isolated: {}", named_cpus(both)));
    }
    let queues = view.fanout_ranges().first().copied().map_or("0-3".to_owned(), range);
    ISOLATED
        .warn(format!(
            "{}: isolated, to fill queues, and no worker is pinned there",
            named_cpus(left)
        ))
        .seen(format!("/sys/devices/system/cpu/isolated: {isolated}"))
        .mend(format!("taskset -c {} fanq run --queues {queues}", view.online()))
}
