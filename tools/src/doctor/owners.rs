//! Who reads the queues, and how they are set up.
//!
//! Invariant: a queue belongs to a socket; a process is named only where it was seen to hold it.

use std::collections::BTreeMap;

use super::finding::{Finding, Topic};
use super::view::{View, named_queues, range};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 3] = [OWNER, MIXED, COPY_MODE];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    if view.bound().next().is_none() {
        return Vec::new();
    }
    vec![owner(view), mixed(view), copy_mode(view)]
}

const OWNER: Topic = Topic {
    id: "queue-owner",
    why: "a queue that another program has cannot be bound, and its verdicts are that program's",
};

fn owner(view: &View<'_>) -> Finding {
    let mut queues: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    let mut hidden = Vec::new();
    for row in view.bound() {
        let holders = view.machine.queues.holders(row.port_id);
        if holders.is_empty() {
            hidden.push(row.queue);
            continue;
        }
        let names =
            holders.iter().map(|process| format!("process {} ({})", process.pid, process.name));
        queues.entry(names.collect::<Vec<_>>().join(" and ")).or_default().push(row.queue);
    }
    let lines = queues.into_iter().map(|(who, list)| format!("{}: {who}", named_queues(list)));
    if hidden.is_empty() {
        return OWNER.ok("every bound queue's program is seen").seen_all(lines);
    }
    let ports: Vec<_> = (view.bound())
        .filter(|row| hidden.contains(&row.queue))
        .map(|row| format!("queue {}: netlink port {}", row.queue, row.port_id))
        .collect();
    OWNER
        .unseen(format!(
            "{}: whose it is cannot be seen from here",
            named_queues(hidden.iter().copied())
        ))
        .seen_all(lines.chain(ports))
        .mend("sudo fanq doctor   # or ask in the process namespace of the program")
}

const MIXED: Topic = Topic {
    id: "queue-range-owners",
    why: "programs that share a rule's range each see a part of every flow's packets",
};

fn mixed(view: &View<'_>) -> Finding {
    for queues in view.rules().filter_map(|rule| rule.queues) {
        let (first, last) = queues;
        let mut owners: BTreeMap<u32, (String, Vec<u16>)> = BTreeMap::new();
        for row in view.bound().filter(|row| (first..=last).contains(&row.queue)) {
            let Some(process) = view.machine.queues.servers(row.port_id).first() else { continue };
            let owner = owners.entry(process.pid).or_insert_with(|| (process.name.clone(), vec![]));
            owner.1.push(row.queue);
        }
        if owners.len() > 1 {
            let lines = owners.iter().map(|(pid, (name, list))| {
                format!("{}: process {pid} ({name})", named_queues(list.iter().copied()))
            });
            return MIXED
                .warn(format!("{} programs share the range {}", owners.len(), range(queues)))
                .seen_all(lines)
                .mend("# give each program a range and a rule of its own");
        }
    }
    MIXED.ok("each rule's range has one program")
}

const COPY_MODE: Topic = Topic {
    id: "queue-configured",
    why: "a queue that is bound and not configured drops every packet, also with bypass",
};

fn copy_mode(view: &View<'_>) -> Finding {
    let bare: Vec<_> = view.bound().filter(|row| row.copy_mode == 0).map(|row| row.queue).collect();
    if bare.is_empty() {
        return COPY_MODE.ok("every bound queue is configured");
    }
    COPY_MODE
        .fail(format!(
            "{}: bound and not configured (COPY_NONE)",
            named_queues(bare.iter().copied())
        ))
        .mend(
            "# restart the program that bound it: it ended half way, or forgot to set a copy mode",
        )
}
