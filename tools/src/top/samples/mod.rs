//! What is read from the system at one moment: the kernel's queues, their sockets, who owns them, what the owners'
//! threads used, and what network cards' packets were lost before any queue.
//!
//! Invariant: reads only, below the root that it was given, and never fails for what is missing but for the table of
//! queues itself: a process that has gone, or may not be looked into, is a queue without an owner. The tables are
//! opened once and read again from the start each time, into buffers that are kept. Owners are looked for only when
//! a netlink port appears or a process goes, threads at most once a second.
//!
//! It does not compute: `rates` does.

mod owners;
mod tables;
mod threads;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fanq::KernelRow;

use super::detail::{Details, QueueDetail};
pub(super) use owners::Owner;
use owners::Owners;
pub(super) use tables::{SocketRow, SoftnetRow};
use tables::{TableFile, parse_netlink, parse_softnet};
pub(super) use threads::ProcessSample;
use threads::Processes;
#[cfg(test)]
pub(super) use threads::ThreadSample;

/// What was read at one moment. Kept and filled again, so that it allocates only to grow.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// When, on a clock that never steps, from any beginning.
    pub(super) at: Duration,
    /// In rising order of their numbers.
    pub(super) queues: Vec<QueueSample>,
    /// One for each online CPU; empty where it cannot be read.
    pub(super) softnet: Vec<SoftnetRow>,
}

/// One queue, with what belongs to it.
#[derive(Debug, Clone)]
pub(super) struct QueueSample {
    pub(super) row: KernelRow,
    /// The socket that it is bound to, where the kernel lists it.
    pub(super) socket: Option<SocketRow>,
    pub(super) owner: Option<Arc<Owner>>,
    /// The owner's threads, as they were read last.
    pub(super) process: Option<Arc<ProcessSample>>,
    /// What a fanq with a control socket says of this queue: its owner, or the one that accelerates its owner.
    pub(super) detail: Option<Arc<QueueDetail>>,
}

/// Which queues are looked at: those within any of the ranges, or all.
pub(super) type Wanted = Vec<fanq::QueueRange>;

/// Reads samples.
#[derive(Debug)]
pub(super) struct Sampler {
    table: TableFile,
    netlink: Option<TableFile>,
    softnet: Option<TableFile>,
    sockets: Vec<SocketRow>,
    owners: Owners,
    processes: Processes,
    details: Details,
    wanted: Wanted,
}

impl Sampler {
    /// Opens the tables below `root`: of the network namespace of `process`, or of the caller.
    ///
    /// # Errors
    /// The table of queues is not there or may not be read. The message says what to do.
    pub(super) fn open(
        root: &Path,
        process: Option<u32>,
        wanted: Wanted,
        details: Details,
    ) -> anyhow::Result<Self> {
        let proc = root.join("proc");
        let net = match process {
            Some(id) => proc.join(id.to_string()).join("net"),
            None => proc.join("net"),
        };
        let path = net.join("netfilter/nfnetlink_queue");
        let table = TableFile::open(&path).map_err(|error| explained(error, &path, process))?;
        Ok(Self {
            table,
            netlink: TableFile::open(&net.join("netlink")).ok(),
            softnet: TableFile::open(&net.join("softnet_stat")).ok(),
            sockets: Vec::new(),
            owners: Owners::new(proc.clone()),
            processes: Processes::new(proc),
            details,
            wanted,
        })
    }

    /// Reads everything, at the time `at`. With `whole`, threads are read and programs asked even if they were a
    /// moment ago.
    ///
    /// # Errors
    /// The table of queues cannot be read any more.
    pub(super) fn read(
        &mut self,
        at: Duration,
        whole: bool,
        sample: &mut Sample,
    ) -> anyhow::Result<()> {
        sample.at = at;
        sample.queues.clear();
        let text = self.table.read().context("reading the kernel's table of queues")?;
        let is_wanted = |queue: u16| {
            self.wanted.is_empty()
                || self.wanted.iter().any(|range| (range.first()..=range.last()).contains(&queue))
        };
        let rows = text.lines().filter_map(KernelRow::parse).filter(|row| is_wanted(row.queue));
        let bare =
            |row| QueueSample { row, socket: None, owner: None, process: None, detail: None };
        sample.queues.extend(rows.map(bare));
        sample.queues.sort_by_key(|queue| queue.row.queue);

        self.sockets.clear();
        if let Some(text) = self.netlink.as_mut().and_then(|table| table.read().ok()) {
            parse_netlink(text, &mut self.sockets);
        }
        for queue in &mut sample.queues {
            let port = queue.row.port_id;
            let found = self.sockets.binary_search_by_key(&port, |socket| socket.port_id);
            queue.socket = found.ok().map(|index| self.sockets[index]);
        }
        sample.softnet.clear();
        if let Some(text) = self.softnet.as_mut().and_then(|table| table.read().ok()) {
            parse_softnet(text, &mut sample.softnet);
        }
        self.join_owners(sample, whole);
        Ok(())
    }

    fn join_owners(&mut self, sample: &mut Sample, whole: bool) {
        let sockets = sample.queues.iter().filter_map(|queue| queue.socket);
        self.owners.update(sockets.map(|socket| socket.inode), sample.at);
        for queue in &mut sample.queues {
            queue.owner = queue.socket.and_then(|socket| self.owners.of(socket.inode));
        }
        let pids = sample.queues.iter().filter_map(|queue| queue.owner.as_ref());
        let gone = self.processes.update(pids.map(|owner| owner.pid), sample.at, whole);
        if gone {
            // Its socket may be another process's now.
            self.owners.forget();
        }
        let owners = sample.queues.iter().filter_map(|queue| queue.owner.as_ref());
        self.details.update(owners, sample.at, whole);
        for queue in &mut sample.queues {
            let Some(owner) = &queue.owner else { continue };
            queue.process = self.processes.of(owner.pid);
            queue.detail = owner.fanq.and_then(|fanq| self.details.of(fanq, queue.row.queue));
        }
    }
}

/// Says why there is no table, and what helps.
fn explained(error: io::Error, path: &Path, process: Option<u32>) -> anyhow::Error {
    let remedy = match (error.kind(), process) {
        (io::ErrorKind::PermissionDenied, _) => {
            "the network namespace belongs to another user, and only root may look into it: try `sudo fanq top`"
        }
        (io::ErrorKind::NotFound, Some(_)) => {
            "there is no such process, or its kernel has no nfnetlink_queue: `modprobe nfnetlink_queue`"
        }
        (io::ErrorKind::NotFound, None) => {
            "the kernel has no queues: `modprobe nfnetlink_queue`, and see that /proc is mounted"
        }
        _ => "it is the kernel's list of queues",
    };
    anyhow::Error::new(error).context(format!("{} cannot be read ({remedy})", path.display()))
}

/// A path of a process.
fn process_path(proc: &Path, pid: u32, name: &str) -> PathBuf {
    let mut path = proc.join(pid.to_string());
    path.push(name);
    path
}

#[cfg(test)]
mod tests;
