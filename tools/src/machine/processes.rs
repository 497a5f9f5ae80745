//! The processes: who holds the sockets of the queues, and which daemons run.
//!
//! Invariant: one walk over /proc, the first process last. A process that ends meanwhile, or that may not be looked
//! into, is left out, and the latter are counted.

use std::collections::HashMap;

use fanq::CpuList;

use super::fact::Fact;
use super::limits::{Limits, affinity_in};
use super::root::Root;

/// What the walk has found.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    /// Those that hold a socket that was looked for, by its inode; the first process, which may keep it for another,
    /// comes last.
    pub(crate) holders: HashMap<u64, Vec<Process>>,
    /// The numbers of processes by name, of the names that were looked for.
    pub(crate) named: HashMap<&'static str, u32>,
    /// How many could not be looked into.
    pub(crate) hidden: usize,
}

/// A process that holds a queue's socket.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// Its command line, a word each.
    pub(crate) command: Vec<String>,
    pub(crate) threads: Vec<Thread>,
    pub(crate) limits: Limits,
}

/// One of its threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// At most 15 bytes; fanq calls a queue's worker `fanq-QUEUE`.
    pub(crate) name: String,
    /// Where it may run.
    pub(crate) affinity: CpuList,
}

impl Processes {
    /// Looks for the holders of sockets with these inodes.
    pub(crate) fn read(root: &Root, inodes: &[u64]) -> Fact<Self> {
        root.names("proc").map(|names| {
            let mut found = Self::default();
            let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
            pids.sort_unstable_by_key(|pid| (*pid == FIRST_PROCESS, *pid));
            for pid in pids {
                found.look_at(root, pid, inodes);
            }
            found
        })
    }

    fn look_at(&mut self, root: &Root, pid: u32, inodes: &[u64]) {
        let Fact::Known(name) = root.text(&format!("proc/{pid}/comm")) else { return };
        if let Some(daemon) = DAEMONS.into_iter().find(|daemon| *daemon == name) {
            self.named.insert(daemon, pid);
        }
        if inodes.is_empty() {
            return;
        }
        let folder = format!("proc/{pid}/fd");
        let Fact::Known(descriptors) = root.names(&folder) else {
            self.hidden += 1;
            return;
        };
        let inode = |fd: &String| {
            let link = root.link(&format!("{folder}/{fd}"));
            link.known()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        };
        let mut held: Vec<_> =
            descriptors.iter().filter_map(inode).filter(|inode| inodes.contains(inode)).collect();
        held.sort_unstable();
        held.dedup();
        if held.is_empty() {
            return;
        }
        let limits = Limits::of(root, &pid.to_string());
        let command = root.text(&format!("proc/{pid}/cmdline"));
        let words = command.known().map(|text| text.trim_end_matches('\0').split('\0'));
        let command = words.into_iter().flatten().map(str::to_owned).collect();
        let process = Process { pid, name, command, threads: threads(root, pid), limits };
        for inode in held {
            self.holders.entry(inode).or_default().push(process.clone());
        }
    }
}

fn threads(root: &Root, pid: u32) -> Vec<Thread> {
    let folder = format!("proc/{pid}/task");
    let thread = |id: &String| {
        let name = root.text(&format!("{folder}/{id}/comm")).known()?.clone();
        let status = root.text(&format!("{folder}/{id}/status"));
        Some(Thread { name, affinity: affinity_in(status.known()?)? })
    };
    let ids = root.names(&folder);
    ids.known().into_iter().flatten().filter_map(thread).collect()
}

/// What the kernel starts first: as a service manager it keeps sockets for those that it starts (systemd's
/// `FileDescriptorStoreMax=`), and serves none of them.
pub(crate) const FIRST_PROCESS: u32 = 1;

/// Those that change the settings that are looked at.
const DAEMONS: [&str; 2] = [IRQBALANCE, "tuned"];

/// Spreads interrupts over the CPUs again and again.
pub(crate) const IRQBALANCE: &str = "irqbalance";
