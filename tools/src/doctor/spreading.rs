//! How rules spread packets: by CPU, over as many queues as there are CPUs, each packet once, and what they do without
//! a program.
//!
//! Invariant: the queue of a CPU is computed as the kernel does (`first + cpu % count`), by CPU numbers, holes and all.

use std::collections::BTreeMap;

use fanq::CpuId;

use super::finding::{Finding, Topic};
use super::rule_text::{described, install, remade};
use super::view::{View, named_cpus, named_queues, queue_of, range};
use crate::machine::QueueRule;

#[cfg(test)]
pub(super) const TOPICS: [Topic; 5] = [FANOUT, COUNT, OVERLAP, TWICE, BYPASS];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    if view.rules().next().is_none() {
        // What there will be is asked for, and can be held against the CPUs.
        return view.asked.map(|_| count(view)).into_iter().collect();
    }
    vec![fanout(view), count(view), overlap(view), twice(view), bypass(view)]
}

const FANOUT: Topic = Topic {
    id: "queue-fanout",
    why: "without fanout a hash of the addresses chooses: one busy pair of hosts fills one queue",
};

fn fanout(view: &View<'_>) -> Finding {
    let hashed =
        |rule: &&QueueRule| !rule.fanout && rule.queues.is_some_and(|(first, last)| last > first);
    let hashed: Vec<_> = view.rules().filter(hashed).collect();
    if hashed.is_empty() {
        return FANOUT.ok("rules with several queues choose by CPU");
    }
    let remake = |rule: &&QueueRule| Some(remade(rule, rule.queues?, true, rule.bypass));
    FANOUT
        .warn("a rule with several queues has no fanout")
        .mend_all(hashed.iter().filter_map(remake).collect::<Vec<_>>())
        .seen_all(hashed.into_iter().map(described))
}

const COUNT: Topic = Topic {
    id: "queue-count",
    why: "CPUs that share a queue share its lock and its worker; others' workers idle",
};

fn count(view: &View<'_>) -> Finding {
    let filling = view.filling_cpus();
    let highest = view.online().iter().map(|cpu| cpu.0).max();
    let (Some(highest), false) = (highest, filling.is_empty()) else {
        return COUNT.unseen("which CPUs are online is not known");
    };
    let (mut evidence, mut first_odd) = (Vec::new(), None);
    for (rule, queues) in spread_ranges(view) {
        let odd = oddities(queues, &filling.iter().collect::<Vec<_>>(), highest);
        if !odd.is_empty() {
            first_odd = first_odd.or(Some((rule, queues.0)));
            evidence.extend(odd);
        }
    }
    let Some((rule, first)) = first_odd else {
        return COUNT.ok(format!(
            "{}: each fills a queue of its own",
            named_cpus(filling.iter().map(|cpu| cpu.0))
        ));
    };
    let more = (filling.len()..=usize::from(highest) + 1)
        .find(|count| distinct(filling.iter(), *count))
        .and_then(|count| u16::try_from(count - 1).ok());
    let queues = (first, first.saturating_add(more.unwrap_or(highest)));
    let command = rule.map_or_else(
        || install(None, queues, true, true),
        |rule| remade(rule, queues, true, rule.bypass),
    );
    COUNT
        .warn("the number of queues does not fit the CPUs")
        .seen(format!("packets come to {}", named_cpus(filling.iter().map(|cpu| cpu.0))))
        .seen_all(evidence)
        .mend(format!("fanq run --queues {}   # first, then:", range(queues)))
        .mend(command)
}

/// The ranges that CPUs are spread over, each once, with the first rule that has it; without any rule, what was asked
/// for. One queue for all is a range of one.
fn spread_ranges<'a>(view: &'a View<'_>) -> Vec<(Option<&'a QueueRule>, (u16, u16))> {
    let spread = |rule: &'a QueueRule| {
        let queues = rule.queues.filter(|(first, last)| rule.fanout || first == last)?;
        Some((Some(rule), queues))
    };
    let mut ranges: Vec<_> = view.rules().filter_map(spread).collect();
    if view.rules().next().is_none() {
        ranges.extend(view.asked.map(|asked| (None, (asked.first(), asked.last()))));
    }
    ranges.sort_by_key(|(_, queues)| *queues);
    ranges.dedup_by_key(|(_, queues)| *queues);
    ranges
}

/// Queues that several CPUs fill, and those beyond the last CPU.
fn oddities(queues: (u16, u16), filling: &[CpuId], highest: u16) -> Vec<String> {
    let mut fillers: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for cpu in filling {
        fillers.entry(queue_of(*cpu, queues)).or_default().push(cpu.0);
    }
    let shared: Vec<_> = fillers.iter().filter(|(_, cpus)| cpus.len() > 1).collect();
    let mut odd = Vec::new();
    for (queue, list) in shared.iter().take(SHOWN) {
        odd.push(format!("queue {queue} is filled by {}", named_cpus(list.iter().copied())));
    }
    if shared.len() > SHOWN {
        odd.push(format!("and {} more queues likewise", shared.len() - SHOWN));
    }
    let (first, last) = queues;
    if let Some(idle) = first.checked_add(highest).and_then(|used| used.checked_add(1))
        && idle <= last
    {
        odd.push(format!("{}: filled by no CPU", named_queues(idle..=last)));
    }
    odd
}

fn distinct(cpus: impl Iterator<Item = CpuId>, count: usize) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut remainders = cpus.map(|cpu| usize::from(cpu.0) % count.max(1));
    remainders.all(|remainder| seen.insert(remainder))
}

/// So many lines are enough to see what is meant.
const SHOWN: usize = 4;

const OVERLAP: Topic = Topic {
    id: "queue-overlap",
    why: "two rules with different ranges mix their packets where they overlap",
};

fn overlap(view: &View<'_>) -> Finding {
    let ranged: Vec<_> =
        view.rules().filter_map(|rule| rule.queues.map(|queues| (rule, queues))).collect();
    let crossing = pairs(&ranged)
        .find(|((_, one), (_, other))| one != other && one.0 <= other.1 && other.0 <= one.1);
    let Some(((one, queues), (other, others))) = crossing else {
        return OVERLAP.ok("no two rules have ranges that overlap");
    };
    let next = queues.1.max(others.1).saturating_add(1);
    let apart = (next, next.saturating_add(others.1 - others.0));
    OVERLAP
        .warn(format!("the ranges {} and {} overlap", range(*queues), range(*others)))
        .seen(described(one))
        .seen(described(other))
        .mend(remade(other, apart, other.fanout, other.bypass))
}

const TWICE: Topic = Topic {
    id: "queue-twice",
    why: "an accepted packet goes on to the hook's next chain: there it is queued again",
};

fn twice(view: &View<'_>) -> Finding {
    let rules: Vec<_> = view.rules().collect();
    let same_packets = |one: &QueueRule, other: &QueueRule| {
        let family = one.family == other.family
            || [&one.family, &other.family].contains(&&"inet".to_owned());
        let place = (one.by, &one.family, &one.table) != (other.by, &other.family, &other.table);
        let overlap = match (one.queues, other.queues) {
            (Some(one), Some(other)) => one.0 <= other.1 && other.0 <= one.1,
            _ => true,
        };
        let bridged = (one.family == "bridge") != (other.family == "bridge");
        family
            && place
            && overlap
            && !bridged
            && one.hooks.iter().any(|hook| other.hooks.contains(hook))
    };
    let found = pairs(&rules).find(|(one, other)| same_packets(one, other));
    let Some((one, other)) = found else {
        return TWICE.ok("no hook has two queue rules in two tables");
    };
    let backend = match one.by {
        crate::machine::Backend::Nft => "nft",
        crate::machine::Backend::Iptables => "iptables",
    };
    TWICE
        .warn("two tables queue at the same hook: a packet may be queued twice")
        .seen(described(one))
        .seen(described(other))
        .mend(if one.of_fanq {
            format!("fanq rules remove --backend {backend}")
        } else {
            "# take one of the two rules out, if both match the same packets".to_owned()
        })
}

const BYPASS: Topic = Topic {
    id: "queue-bypass",
    why: "bypass decides what happens while no program reads: pass unseen, or nothing passes",
};

fn bypass(view: &View<'_>) -> Finding {
    let wrong: Vec<_> = view.rules().filter(|rule| rule.bypass == view.fail_closed).collect();
    if wrong.is_empty() {
        return BYPASS.ok(if view.fail_closed {
            "no rule lets packets pass without a program"
        } else {
            "rules let packets pass while no program reads"
        });
    }
    let title = if view.fail_closed {
        "a rule lets packets pass unseen while no program reads"
    } else {
        "a rule drops everything while no program reads"
    };
    let remake =
        |rule: &&QueueRule| Some(remade(rule, rule.queues?, rule.fanout, !view.fail_closed));
    let found = BYPASS
        .warn(title)
        .mend_all(wrong.iter().filter_map(remake).collect::<Vec<_>>())
        .seen_all(wrong.into_iter().map(described));
    if view.fail_closed {
        found
    } else {
        found.mend("fanq doctor --fail-closed   # if that is meant")
    }
}

fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    all.iter().enumerate().flat_map(|(at, one)| all[at + 1..].iter().map(move |other| (one, other)))
}
