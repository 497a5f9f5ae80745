//! What is being lost: counters of which two samples are compared, and tables that fill.
//!
//! Invariant: what moved between the samples is a failure; what was counted before, and stands still, is said. Counters
//! of queues begin when they are bound, all others when the machine starts.

use super::finding::{Finding, Topic};
use super::view::{View, named_cpus, named_queues};
use crate::machine::{Conntrack, NetlinkSocket, Sample};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 7] =
    [QUEUE_FULL, SOCKET_FULL, ANSWERED, BACKLOG, SQUEEZED, MISSED, CONNTRACK];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if view.bound().next().is_some() {
        found.extend([queue_full(view), socket_full(view), answered(view)]);
    }
    found.extend([backlog(view), squeezed(view)]);
    found.extend(missed(view));
    found.extend(conntrack(view.later));
    found
}

/// A counter of a queue, before and after.
struct Moved {
    queue: u16,
    before: u64,
    after: u64,
}

/// Each bound queue's counter in both samples. A queue that was bound anew is left out.
fn of_queues(view: &View<'_>, count: impl Fn(&fanq::KernelRow) -> u64) -> Vec<Moved> {
    let later = view.later.queues.known();
    let pair = |row: &fanq::KernelRow| {
        let mut rows = later.into_iter().flatten();
        let after = rows.find(|one| one.queue == row.queue && one.port_id == row.port_id)?;
        Some(Moved { queue: row.queue, before: count(row), after: count(after) })
    };
    view.bound().filter_map(pair).collect()
}

/// Moving now is a failure, counted before a warning.
fn judged(topic: &Topic, all: &[Moved], what: &str, mend: &str) -> Finding {
    let moving: Vec<_> = all.iter().filter(|one| one.after > one.before).collect();
    let counted: Vec<_> = all.iter().filter(|one| one.after > 0).collect();
    let lines = |of: &[&Moved]| -> Vec<String> {
        of.iter()
            .take(SHOWN)
            .map(|one| {
                format!(
                    "queue {}: {}, {} more now",
                    one.queue,
                    one.after,
                    one.after.wrapping_sub(one.before)
                )
            })
            .collect()
    };
    if !moving.is_empty() {
        let queues = named_queues(moving.iter().map(|one| one.queue));
        return topic
            .fail(format!("{queues}: packets are being lost now: {what}"))
            .seen_all(lines(&moving))
            .mend(mend)
            .mend(TOO_SLOW);
    }
    if !counted.is_empty() {
        let queues = named_queues(counted.iter().map(|one| one.queue));
        return topic
            .warn(format!("{queues}: packets were lost: {what}"))
            .seen_all(lines(&counted))
            .mend(mend);
    }
    topic.ok(format!("nothing lost: {what}"))
}

const SHOWN: usize = 8;

/// What is full is the last thing to mend where more comes than is answered.
const TOO_SLOW: &str =
    "# if that lasts, no room is enough: a queue and a worker for each CPU first (see queue-count)";

const QUEUE_FULL: Topic = Topic {
    id: "counters-queue-full",
    why: "the program does not answer as fast as packets come, and its queue has an end",
};

fn queue_full(view: &View<'_>) -> Finding {
    let all = of_queues(view, |row| row.queue_dropped);
    judged(
        &QUEUE_FULL,
        &all,
        "queue full",
        "fanq run --queue-maxlen 32768 --nice -5 ...   # then look at what its inspector does",
    )
}

const SOCKET_FULL: Topic = Topic {
    id: "counters-socket-full",
    why: "the socket's buffer is full before the queue is: packets are lost while the queue has room",
};

fn socket_full(view: &View<'_>) -> Finding {
    let all = of_queues(view, |row| row.user_dropped);
    let mend = "fanq run --rcvbuf 64MiB ...   # others: their buffer's size, and net.core.rmem_max";
    let found = judged(&SOCKET_FULL, &all, "socket buffer full", mend);
    // With fail-open the queue's own counter stands still, and the packets have passed.
    let passed: Vec<_> = (view.bound())
        .filter_map(|row| {
            let (before, after) = (
                socket_of(&view.machine.sample, row.port_id)?,
                socket_of(view.later, row.port_id)?,
            );
            (after.drops > before.drops).then(|| (row, after.drops, after.drops - before.drops))
        })
        .filter(|(row, ..)| all.iter().any(|one| one.queue == row.queue && one.after == one.before))
        .collect();
    if all.iter().any(|one| one.after > one.before) || passed.is_empty() {
        return found;
    }
    let queues = named_queues(passed.iter().map(|(row, ..)| row.queue));
    SOCKET_FULL
        .fail(format!("{queues}: the socket's buffer is full, packets pass unseen (fail-open)"))
        .seen_all(passed.iter().map(|(row, all, now)| {
            format!("queue {}: {all} messages lost by its socket, {now} more now", row.queue)
        }))
        .mend(mend)
}

fn socket_of(sample: &Sample, port_id: u32) -> Option<NetlinkSocket> {
    sample.sockets.known()?.iter().find(|one| one.port_id == port_id).copied()
}

const ANSWERED: Topic = Topic {
    id: "counters-answered",
    why: "packets wait for a program that hangs or is stopped, with no limit of time",
};

/// What waits in both samples, while not one packet was answered between them.
fn answered(view: &View<'_>) -> Finding {
    let waiting = of_queues(view, |row| row.queue_total);
    let given = of_queues(view, |row| u64::from(row.id_sequence));
    let stuck = |(waits, ids): &(&Moved, &Moved)| {
        let new = ids.after.wrapping_sub(ids.before) & u64::from(u32::MAX);
        let room = waits.after.wrapping_sub(waits.before);
        // Answered = given less those that found no room in the socket, and those that wait more than before.
        let entered = || new.saturating_sub(lost_at_socket(view, waits.queue));
        waits.before > 0 && waits.after >= waits.before && room >= entered()
    };
    let stuck: Vec<_> = waiting.iter().zip(&given).filter(stuck).map(|(waits, _)| waits).collect();
    if stuck.is_empty() {
        return ANSWERED.ok("no queue waits for a program that does not answer");
    }
    let owner = |queue: u16| {
        let row = view.row(queue)?;
        let process = view.machine.queues.servers(row.port_id).first()?;
        Some(format!(" of process {} ({})", process.pid, process.name))
    };
    let lines = stuck.iter().map(|one| {
        let owner = owner(one.queue).unwrap_or_default();
        format!("queue {}{owner}: {} packets wait", one.queue, one.after)
    });
    ANSWERED
        .fail(format!(
            "{}: packets wait, and none is answered",
            named_queues(stuck.iter().map(|one| one.queue))
        ))
        .seen_all(lines.take(SHOWN))
        .mend("# let the program go on (kill -CONT PID), or restart it: what waits is lost then")
}

/// Packets of a queue that took an id between the samples and found no room in its socket. Where fail-open let them
/// pass only the socket counts them, so what it has lost counts where all of it is this queue's.
fn lost_at_socket(view: &View<'_>, queue: u16) -> u64 {
    let moved = of_queues(view, |row| row.user_dropped).into_iter().find(|one| one.queue == queue);
    let dropped = moved.map_or(0, |one| one.after.wrapping_sub(one.before) & u64::from(u32::MAX));
    let Some(row) = view.row(queue) else { return dropped };
    let all = view.machine.queues.table.known().into_iter().flatten();
    if all.filter(|other| other.port_id == row.port_id).count() > 1 {
        return dropped;
    }
    let drops = |sample: &Sample| Some(socket_of(sample, row.port_id)?.drops);
    let both = drops(&view.machine.sample).zip(drops(view.later));
    dropped.max(both.map_or(0, |(before, after)| after.saturating_sub(before)))
}

const BACKLOG: Topic = Topic {
    id: "counters-softnet-dropped",
    why: "packets that RPS or a virtual device hands over are lost when a CPU's backlog is full",
};

fn backlog(view: &View<'_>) -> Finding {
    let moved = softnet(view, |row| row.dropped);
    let Some(moved) = moved else { return BACKLOG.unseen("/proc/net/softnet_stat is not known") };
    if moved.is_empty() {
        return BACKLOG.ok("no CPU drops from its backlog now");
    }
    let now = view.machine.sysctl("net.core.netdev_max_backlog").unwrap_or(1000);
    BACKLOG
        .fail(format!(
            "{}: packets are dropped from the backlog now",
            named_cpus(moved.iter().map(|(cpu, _)| *cpu))
        ))
        .seen_all(moved.iter().take(SHOWN).map(|(cpu, more)| format!("CPU {cpu}: {more} more now")))
        .mend(format!("sysctl -w net.core.netdev_max_backlog={}", now.max(1000) * 4))
}

const SQUEEZED: Topic = Topic {
    id: "counters-softnet-squeezed",
    why: "a CPU stops receiving with work left: its budget is too small for the load",
};

fn squeezed(view: &View<'_>) -> Finding {
    let moved = softnet(view, |row| row.squeezed);
    let Some(moved) = moved else { return SQUEEZED.unseen("/proc/net/softnet_stat is not known") };
    if moved.is_empty() {
        return SQUEEZED.ok("no CPU runs out of its receive budget now");
    }
    let budget = view.machine.sysctl("net.core.netdev_budget").unwrap_or(300);
    let usecs = view.machine.sysctl("net.core.netdev_budget_usecs").unwrap_or(2000);
    SQUEEZED
        .warn(format!(
            "{}: out of receive budget now",
            named_cpus(moved.iter().map(|(cpu, _)| *cpu))
        ))
        .seen_all(
            moved.iter().take(SHOWN).map(|(cpu, more)| format!("CPU {cpu}: {more} times more now")),
        )
        .mend(format!(
            "sysctl -w net.core.netdev_budget={} net.core.netdev_budget_usecs={}",
            budget * 2,
            usecs * 2
        ))
}

/// The CPUs whose counter moved, and by how much.
fn softnet(
    view: &View<'_>,
    count: impl Fn(&crate::machine::SoftnetRow) -> u32,
) -> Option<Vec<(u16, u32)>> {
    let (before, after) = (view.machine.sample.softnet.known()?, view.later.softnet.known()?);
    let more = |row: &crate::machine::SoftnetRow| {
        let first = before.iter().find(|one| one.cpu == row.cpu)?;
        Some((row.cpu.0, count(row).wrapping_sub(count(first))))
    };
    Some(after.iter().filter_map(more).filter(|(_, more)| *more > 0).collect())
}

const MISSED: Topic = Topic {
    id: "counters-device-missed",
    why: "the device's ring had no room: packets are lost before any rule sees them",
};

fn missed(view: &View<'_>) -> Vec<Finding> {
    let moved = |(name, after): (&String, &u64)| {
        let before = view.machine.sample.missed.get(name)?;
        let finding = if after > before {
            MISSED
                .fail("its ring is full: packets are lost now")
                .seen(format!("rx_missed_errors: {after}, {} more now", after - before))
                .mend(format!(
                    "ethtool -G {name} rx 4096   # at most what `ethtool -g {name}` says"
                ))
        } else {
            MISSED.ok("its ring loses nothing now")
        };
        Some(finding.of(name))
    };
    view.later.missed.iter().filter_map(moved).collect()
}

const CONNTRACK: Topic = Topic {
    id: "counters-conntrack",
    why: "once the table of connections is full, packets of new ones are dropped",
};

fn conntrack(later: &Sample) -> Option<Finding> {
    let Conntrack { count, max } = later.conntrack?;
    if max == 0 {
        return Some(CONNTRACK.ok(format!("{count} connections, without a limit")));
    }
    let percent = count.saturating_mul(100) / max;
    let mend = format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 2);
    let seen = format!("{count} of {max}");
    let title = format!("the table of connections is {percent} % full");
    Some(match percent {
        0..80 => CONNTRACK.ok(title),
        80..95 => CONNTRACK.warn(title).seen(seen).mend(mend),
        _ => CONNTRACK.fail(title).seen(seen).mend(mend),
    })
}
