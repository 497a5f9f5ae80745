//! `fanq rules remove`: takes the rule out, lets the queues run empty, then deletes what install
//! made.
//!
//! Invariant: no base chain is deleted while a packet waits in any queue of the network namespace,
//! unless `--force` says so. The kernel would throw that packet away and count it nowhere
//! (docs/NFQUEUE.md, section 4).

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use fanq::KernelTable;

use super::installed::find;
use super::{PlaceArgs, iptables};
use crate::usage;

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// How many seconds to wait for the queues to run empty
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    drain_limit: f64,
    /// Delete even if packets still wait after that: the kernel drops them
    #[arg(long)]
    force: bool,
}

pub(super) fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    if !(0.0..=DRAIN_LIMIT_S_MAX).contains(&args.drain_limit) {
        bail!(usage(format!(
            "--drain-limit {} is out of range: 0 to {DRAIN_LIMIT_S_MAX} seconds",
            args.drain_limit
        )));
    }
    let (tables, chains) = find(&args.place)?;
    if tables.is_empty() && chains.is_empty() {
        eprintln!("nothing to remove: nothing of fanq's is called {}", args.place.table);
        return Ok(());
    }
    for table in &tables {
        table.take_out().with_context(|| format!("taking the queue rule out of {table}"))?;
    }
    for chain in &chains {
        chain.take_out().with_context(|| format!("taking the jumps to {chain} out"))?;
    }

    // The iptables chains that can go without harm go first, whatever becomes of the rest.
    let (risky, harmless): (Vec<_>, Vec<_>) =
        chains.into_iter().partition(iptables::Chain::may_unhook);
    for chain in &harmless {
        chain.delete().with_context(|| format!("deleting {chain}"))?;
        eprintln!("removed: {chain}");
    }
    if tables.is_empty() && risky.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = tables
        .iter()
        .map(ToString::to_string)
        .chain(risky.iter().map(ToString::to_string))
        .collect();
    drain(args, &names.join(", "))?;
    for table in &tables {
        table.delete().with_context(|| format!("deleting {table}"))?;
        eprintln!("removed: {table}");
    }
    for chain in &risky {
        chain.delete().with_context(|| format!("deleting {chain}"))?;
        eprintln!("removed: {chain}");
    }
    Ok(())
}

/// Waits until no packet waits in any queue. Any queue: deleting drops the packets of all of them.
fn drain(args: &RemoveArgs, names: &str) -> anyhow::Result<()> {
    let limit = Duration::from_secs_f64(args.drain_limit);
    let started = Instant::now();
    while let Some(waiting) = what_waits().context("reading which packets wait in queues")? {
        if started.elapsed() < limit {
            std::thread::sleep(DRAIN_STEP);
        } else if args.force {
            eprintln!("warning: the kernel drops what waits: {waiting}");
            break;
        } else {
            bail!(
                "packets still wait after {} s: {waiting}. The queue rule is switched off, no new \
                 packets come. To delete {names} now would drop those that wait: once their \
                 program has answered them, run this again, or drop them with --force",
                args.drain_limit
            );
        }
    }
    Ok(())
}

/// `queue 0: 3, queue 7: 12`, or nothing if no packet waits.
fn what_waits() -> io::Result<Option<String>> {
    let table = match KernelTable::open() {
        Ok(table) => table,
        // No nfnetlink_queue: no queues.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // In a user namespace the table cannot be read, even by its root. But a queue is there only
        // while a netfilter socket owns it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let unknown = "nobody may count them here, and a program has a netfilter socket open";
            return Ok(has_netfilter_socket()?.then(|| unknown.to_owned()));
        }
        Err(error) => return Err(error),
    };
    let mut rows = table.rows()?;
    rows.retain(|row| row.queue_total != 0);
    rows.sort_unstable_by_key(|row| row.queue);
    let counts = rows.iter().map(|row| format!("queue {}: {}", row.queue, row.queue_total));
    Ok(Some(counts.collect::<Vec<_>>().join(", ")).filter(|counts| !counts.is_empty()))
}

/// Whether a program of this network namespace has one. Protocol 12 is netfilter's, port 0 the
/// kernel's own.
fn has_netfilter_socket() -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink")?;
    Ok(table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some("12") && fields.next() != Some("0")
    }))
}

/// A day, as for `fanq run`.
const DRAIN_LIMIT_S_MAX: f64 = 86_400.0;

const DRAIN_STEP: Duration = Duration::from_millis(10);
