//! Which process holds a socket: the inode of `/proc/net/netlink`, found among the descriptors of all processes.
//!
//! Invariant: /proc is walked only when an inode appears that was not there, and again for those that were not found,
//! at most every [`RETRY`]; an unchanged set of sockets costs no system call. The first process owns a socket only
//! where no other has it: as a service manager it keeps sockets for those that it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::process_path;
use crate::machine::FIRST_PROCESS;

/// A process that owns a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::top) struct Owner {
    pub(in crate::top) pid: u32,
    /// Its short name, at most 15 characters.
    pub(in crate::top) name: String,
    /// Its command line; empty where it cannot be read.
    pub(in crate::top) command: String,
    /// The fanq that can be asked about its queues: itself, or the one that it descends from (`fanq accel`).
    #[serde(skip)]
    pub(in crate::top) fanq: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Owners {
    proc: PathBuf,
    /// By inode, in rising order.
    known: Vec<(u64, Option<Arc<Owner>>)>,
    /// The inodes of this reading.
    inodes: Vec<u64>,
    looked_at: Option<Duration>,
}

impl Owners {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self { proc, known: Vec::new(), inodes: Vec::new(), looked_at: None }
    }

    /// Sees to it that the owners of these sockets are known, as far as they can be.
    pub(super) fn update(&mut self, inodes: impl Iterator<Item = u64>, now: Duration) {
        self.inodes.clear();
        self.inodes.extend(inodes.filter(|inode| *inode != 0));
        self.inodes.sort_unstable();
        self.inodes.dedup();
        let same = self.inodes.iter().eq(self.known.iter().map(|(inode, _)| inode));
        let some_unknown = self.known.iter().any(|(_, owner)| owner.is_none());
        let waited = self.looked_at.is_none_or(|then| now.saturating_sub(then) >= RETRY);
        if same && !(some_unknown && waited) {
            return;
        }
        let known = self.inodes.iter().map(|inode| (*inode, self.of(*inode)));
        self.known = known.collect();
        if self.known.iter().any(|(_, owner)| owner.is_none()) {
            self.look();
            self.looked_at = Some(now);
        }
    }

    pub(super) fn of(&self, inode: u64) -> Option<Arc<Owner>> {
        let index = self.known.binary_search_by_key(&inode, |(inode, _)| *inode).ok()?;
        self.known[index].1.clone()
    }

    /// Looks for all of them anew, the next time.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    fn look(&mut self) {
        let Ok(entries) = fs::read_dir(&self.proc) else { return };
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut pids: Vec<u32> = entries.filter_map(Result::ok).filter_map(pid).collect();
        pids.sort_unstable_by_key(|pid| (*pid == FIRST_PROCESS, *pid));
        for pid in pids {
            if self.known.iter().all(|(_, owner)| owner.is_some()) {
                return;
            }
            self.look_into(pid);
        }
    }

    /// Takes this process as the owner of every unowned socket that it holds.
    fn look_into(&mut self, pid: u32) {
        let Ok(descriptors) = fs::read_dir(process_path(&self.proc, pid, "fd")) else { return };
        let mut owner = None;
        for descriptor in descriptors.filter_map(Result::ok) {
            let Some(inode) = socket_inode(&descriptor.path()) else { continue };
            let found = self.known.binary_search_by_key(&inode, |(inode, _)| *inode);
            let Ok(index) = found else { continue };
            if self.known[index].1.is_none() {
                let owner = owner.get_or_insert_with(|| Arc::new(describe(&self.proc, pid)));
                self.known[index].1 = Some(Arc::clone(owner));
            }
        }
    }
}

/// The inode in a link such as `socket:[184467]`.
fn socket_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn describe(proc: &Path, pid: u32) -> Owner {
    let text = |name| fs::read(process_path(proc, pid, name)).unwrap_or_default();
    let fanq = fanq_of(proc, pid);
    Owner { pid, name: printable(&text("comm")), command: printable(&text("cmdline")), fanq }
}

/// The nearest of the process and those that it descends from that is called fanq.
fn fanq_of(proc: &Path, pid: u32) -> Option<u32> {
    let is_fanq = |pid: &u32| {
        fs::read(process_path(proc, *pid, "comm"))
            .is_ok_and(|comm| comm.trim_ascii_end() == b"fanq")
    };
    let line = std::iter::successors(Some(pid), |pid| parent(proc, *pid));
    line.take(GENERATIONS_MAX).find(is_fanq)
}

/// Field 4 of its line in `stat` (proc_pid_stat(5)); the name before it may hold anything. None for the first process.
fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read(process_path(proc, pid, "stat")).ok()?;
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(&stat[name_ends + 1..]).ok()?.split_ascii_whitespace();
    fields.nth(1)?.parse().ok().filter(|parent| *parent != 0)
}

/// What a process calls itself may hold anything: the ends of words become blanks, what would steer a terminal `?`.
pub(super) fn printable(bytes: &[u8]) -> String {
    let end = bytes.len().min(COMMAND_BYTES_MAX);
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text = text.trim_end_matches(['\0', '\n']);
    let shown = |c: char| match c {
        '\0' => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// How long a socket without a visible owner is left alone.
const RETRY: Duration = Duration::from_secs(5);

const COMMAND_BYTES_MAX: usize = 1024;

/// More than lie between `fanq accel` and a program that it started by way of others.
const GENERATIONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable(b"fanq\0run\0\x1b[2J\0"), "fanq run ?[2J");
        assert_eq!(printable(b"a\xff\n"), "a\u{fffd}");
    }
}
