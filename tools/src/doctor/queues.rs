//! Rules against queues: what is fed and not read, read and not fed.
//!
//! Invariant: nothing is said to be missing where rules could not be seen. On a machine that queues nothing, and of
//! which nothing is asked, there is nothing to judge.

use super::finding::{Finding, Topic};
use super::rule_text::{described, install};
use super::view::{View, counted, named_queues, numbers, range};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 5] = [SEEN, IN_USE, SERVED, FED, REACHED];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let mut found = vec![seen(view), in_use(view)];
    if view.in_use() {
        found.extend([served(view), fed(view), reached(view)]);
    }
    found
}

const SEEN: Topic = Topic {
    id: "rules-seen",
    why: "a rule that is not seen may feed queues, or queue packets a second time",
};

fn seen(view: &View<'_>) -> Finding {
    let rules = &view.machine.rules;
    if rules.unseen.is_empty() {
        return SEEN
            .ok(format!("{} found", counted(rules.found.len(), "queue rule")))
            .seen_all(rules.found.iter().map(described));
    }
    // A program that is not installed has most likely made no rules.
    let missing = rules.unseen.iter().all(|why| why.ends_with("is not installed"));
    if missing && !rules.found.is_empty() {
        return SEEN
            .ok(format!("{} found", counted(rules.found.len(), "queue rule")))
            .seen_all(rules.found.iter().map(described))
            .seen_all(rules.unseen.clone());
    }
    SEEN.unseen("some rules cannot be seen")
        .seen_all(rules.unseen.clone())
        .mend("sudo fanq doctor   # and: apt-get install nftables iptables")
}

const IN_USE: Topic = Topic {
    id: "queues-in-use",
    why: "rules feed queues by number, and programs read them by number",
};

fn in_use(view: &View<'_>) -> Finding {
    let bound = numbers(view.bound().map(|row| row.queue));
    let ranges: Vec<_> = view.rules().filter_map(|rule| rule.queues).map(range).collect();
    let asked = view.asked.map(|asked| asked.to_string());
    let table = &view.machine.queues.table;
    if !view.in_use() {
        let title = "nothing is queued here, and nothing was asked for (--queues)";
        return if view.machine.rules.unseen.is_empty() {
            IN_USE.ok(title)
        } else {
            IN_USE.unseen("no queue is bound; which rules there are is not seen")
        };
    }
    let words = |list: &str| if list.is_empty() { "none".to_owned() } else { list.to_owned() };
    let mut fed: Vec<String> = Vec::new();
    for range in ranges {
        if !fed.contains(&range) {
            fed.push(range);
        }
    }
    let title = format!("queues fed: {}; queues bound: {}", words(&fed.join(", ")), words(&bound));
    let found = if table.known().is_none() && view.machine.kernel.release.known().is_none() {
        IN_USE.unseen(title)
    } else {
        IN_USE.ok(title)
    };
    found.seen_all(asked.map(|asked| format!("asked for: {asked}")))
}

const SERVED: Topic = Topic {
    id: "queue-served",
    why: "a packet for a queue that nobody reads is dropped, or passes unseen with bypass",
};

/// Queues that are fed, or asked for, and not bound.
fn served(view: &View<'_>) -> Finding {
    let unbound = |queue: &u16| view.asks_for(*queue) && view.row(*queue).is_none();
    let (mut dropped, mut passed, mut evidence) = (Vec::new(), Vec::new(), Vec::new());
    for rule in view.rules() {
        let Some((first, last)) = rule.queues else { continue };
        let missing: Vec<u16> = (first..=last).filter(unbound).collect();
        if !missing.is_empty() {
            evidence.push(described(rule));
            if rule.bypass { passed.extend(missing) } else { dropped.extend(missing) }
        }
    }
    let asked: Vec<u16> =
        view.asked.into_iter().flat_map(|asked| asked.iter().collect::<Vec<_>>()).collect();
    let waiting: Vec<u16> = asked.into_iter().filter(unbound).collect();
    let all = dropped.iter().chain(&passed).chain(&waiting).copied();
    let (Some(first), Some(last)) = (all.clone().min(), all.clone().max()) else {
        return SERVED.ok("every queue that is fed has a program");
    };
    let run = |range| format!("fanq run --queues {range}");
    let start = match view.asked {
        Some(asked) => run(asked.to_string()),
        None => run(range((first, last))),
    };
    let bound = numbers(view.bound().map(|row| row.queue));
    let evidence = evidence.into_iter().chain([format!(
        "bound: {}",
        if bound.is_empty() { "no queue".to_owned() } else { bound }
    )]);
    let found = if dropped.is_empty() && passed.is_empty() {
        SERVED.fail(format!(
            "no program serves {}, as asked for",
            named_queues(waiting.iter().copied())
        ))
    } else if dropped.is_empty() && view.asked.is_none() {
        SERVED.warn(format!(
            "{}: packets pass unseen, no program reads them",
            named_queues(passed.iter().copied())
        ))
    } else if dropped.is_empty() {
        SERVED.fail(format!(
            "{}: packets pass unseen, no program reads them",
            named_queues(passed.iter().copied())
        ))
    } else {
        SERVED.fail(format!(
            "{}: packets are dropped, no program reads them",
            named_queues(dropped.iter().copied())
        ))
    };
    found.seen_all(evidence).mend(start)
}

const FED: Topic =
    Topic { id: "queue-fed", why: "a program whose queue no rule fills inspects nothing" };

/// Queues that are bound, or asked for, and no rule feeds.
fn fed(view: &View<'_>) -> Finding {
    let is_fed = |queue: u16| {
        let ranges = view.rules().filter_map(|rule| rule.queues);
        ranges.into_iter().any(|(first, last)| (first..=last).contains(&queue))
    };
    let bound = view.bound().map(|row| row.queue);
    let asked = view.asked.into_iter().flat_map(|asked| asked.iter().collect::<Vec<_>>());
    let unfed: Vec<u16> = bound.chain(asked).filter(|queue| !is_fed(*queue)).collect();
    if unfed.is_empty() {
        return FED.ok("every queue that is bound has a rule");
    }
    let title = format!("{}: no rule sends packets there", named_queues(unfed.iter().copied()));
    if view.rules().any(|rule| rule.queues.is_none()) {
        return FED.unseen(format!(
            "{}: a rule decides by an expression",
            named_queues(unfed.iter().copied())
        ));
    }
    if !view.machine.rules.unseen.is_empty() {
        let title = format!("{}: not every rule can be seen", named_queues(unfed.iter().copied()));
        return FED.unseen(title).seen_all(view.machine.rules.unseen.clone());
    }
    let wanted = view.asked.map_or_else(
        || {
            let bound = || view.bound().map(|row| row.queue);
            (bound().min().unwrap_or(0), bound().max().unwrap_or(0))
        },
        |asked| (asked.first(), asked.last()),
    );
    let holders = view.bound().filter(|row| unfed.contains(&row.queue));
    let evidence: Vec<_> = holders
        .filter_map(|row| {
            let process = view.machine.queues.servers(row.port_id).first()?;
            Some(format!("queue {}: process {} ({})", row.queue, process.pid, process.name))
        })
        .collect();
    FED.warn(title).seen_all(evidence).mend(install(None, wanted, true, !view.fail_closed))
}

const REACHED: Topic = Topic {
    id: "queue-rule-reached",
    why: "a rule in a chain that no hook leads to queues nothing",
};

fn reached(view: &View<'_>) -> Finding {
    let lost = view.machine.rules.found.iter().filter(|rule| rule.hooks.is_empty());
    let lost: Vec<_> = lost.collect();
    match lost.first() {
        None => REACHED.ok("packets come to every queue rule"),
        Some(rule) => REACHED
            .warn("no packet comes to a queue rule: nothing leads to its chain")
            .mend(match rule.by {
                crate::machine::Backend::Iptables => {
                    format!("iptables -t {} -I FORWARD 1 -j {}", rule.table, rule.chain)
                }
                crate::machine::Backend::Nft => format!(
                    "# nft: let a chain with a hook jump to {} {} {}",
                    rule.family, rule.table, rule.chain
                ),
            })
            .seen_all(lost.into_iter().map(described)),
    }
}
