//! The kernel's parameters: socket buffers, the backlog and budget of the receive path, the table of connections.
//!
//! Invariant: nothing is lowered. What counts drops or squeezes is proposed only where some were counted, or where
//! the path that it belongs to is in use.

use super::{Draft, Target};
use crate::machine::{Fact, Machine};

/// `steered` says whether packets are handed to other CPUs (RPS) when the plan is done.
pub(super) fn plan(draft: &mut Draft<'_>, machine: &Machine, target: Target, steered: bool) {
    buffers(draft, machine, target);
    backlog(draft, machine, target, steered);
    budget(draft, machine);
    connections(draft, machine);
}

/// What a program without the right to go past the limit gets; and one that asks for nothing.
fn buffers(draft: &mut Draft<'_>, machine: &Machine, target: Target) {
    draft.at_least(
        "net.core.rmem_max",
        target.rcvbuf.into(),
        |now| {
            format!(
                "a queue's program that may not go past this limit (in a container, without CAP_NET_ADMIN) gets a \
                 buffer for {} packets of 1500 bytes or {} small ones; {} may wait in a queue",
                2 * now / LARGE_CHARGE,
                2 * now / SMALL_CHARGE,
                target.maxlen
            )
        },
        "any program may take as much memory for a socket",
    );
    let others = other_programs(machine, target);
    if !others.is_empty() {
        draft.at_least(
            "net.core.rmem_default",
            u64::from(OTHERS_MAXLEN) * LARGE_CHARGE,
            |now| {
                format!(
                    "{} may ask for no buffer and then has room for {} packets of 1500 bytes, less than the {} that a \
                     queue holds as made; it counts for sockets opened from then on: restart it",
                    others.join(", "),
                    now / LARGE_CHARGE,
                    OTHERS_MAXLEN
                )
            },
            "every socket that asks for nothing (UDP's too) may hold as much: memory, and older data under overload",
        );
    }
}

/// Programs other than fanq that serve one of the queues, by name.
fn other_programs(machine: &Machine, target: Target) -> Vec<String> {
    let rows = machine.queues.table.known().map(Vec::as_slice).unwrap_or_default();
    let ours = |queue| (target.queues.first()..=target.queues.last()).contains(&queue);
    let servers = rows
        .iter()
        .filter(|row| ours(row.queue))
        .flat_map(|row| machine.queues.servers(row.port_id));
    let mut names: Vec<_> =
        servers.map(|process| process.name.clone()).filter(|name| name != "fanq").collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The queue between the CPU that took a packet from the card and the one that it is handed to.
fn backlog(draft: &mut Draft<'_>, machine: &Machine, target: Target, steered: bool) {
    let rows = machine.sample.softnet.known().map(Vec::as_slice).unwrap_or_default();
    let dropped: u64 = rows.iter().map(|row| u64::from(row.dropped)).sum();
    if dropped == 0 && !steered {
        return;
    }
    draft.at_least(
        "net.core.netdev_max_backlog",
        target.maxlen.into(),
        |now| match dropped {
            0 => format!(
                "packets are handed from CPU to CPU, and {now} of them may wait there, where a queue holds {}",
                target.maxlen
            ),
            _ => format!("{dropped} packets found no room among {now} on their way from CPU to CPU"),
        },
        "under overload packets wait longer before they are dropped",
    );
}

/// How much one turn of the receive path takes in.
fn budget(draft: &mut Draft<'_>, machine: &Machine) {
    let Fact::Known(rows) = &machine.sample.softnet else { return };
    let (squeezed, processed) = rows.iter().fold((0, 0), |(squeezed, processed), row| {
        (squeezed + u64::from(row.squeezed), processed + u64::from(row.processed))
    });
    let Some(now) = machine.sysctl("net.core.netdev_budget") else { return };
    // Of the turns that took in all they may, more than one in ten left something behind.
    let many = squeezed.saturating_mul(now).saturating_mul(10) > processed;
    if many && squeezed >= SQUEEZES_MIN && now < BUDGET_MAX {
        draft.at_least(
            "net.core.netdev_budget",
            (2 * now).min(BUDGET_MAX),
            |now| {
                format!(
                    "the receive path stopped {squeezed} times with packets left, {now} or the time used up, over \
                     {processed} packets"
                )
            },
            "a worker waits longer for its turn on the CPU that it shares with the receive path",
        );
    }
}

/// A table that is full drops what opens a connection.
fn connections(draft: &mut Draft<'_>, machine: &Machine) {
    let Some(table) = machine.sample.conntrack else { return };
    if table.count.saturating_mul(10) < table.max.saturating_mul(8) {
        return;
    }
    draft.at_least(
        "net.netfilter.nf_conntrack_max",
        table.max.saturating_mul(2),
        |now| {
            format!(
                "{} of {now} connections are in the table; the packets of those that do not fit are dropped",
                table.count
            )
        },
        "some hundred bytes of memory for each connection more",
    );
}

/// What a packet of 1500 bytes and one of up to 92 are charged with (docs/NFQUEUE.md, "How much fits").
const LARGE_CHARGE: u64 = 2304;
const SMALL_CHARGE: u64 = 832;

/// What a queue holds if its program says nothing (`NFQNL_QMAX_DEFAULT` in net/netfilter/nfnetlink_queue.c).
const OTHERS_MAXLEN: u32 = 1024;

/// Fewer say nothing about a machine that has been up for a while.
const SQUEEZES_MIN: u64 = 100;

/// Above it a turn is bound by its time (`netdev_budget_usecs`).
const BUDGET_MAX: u64 = 1200;
