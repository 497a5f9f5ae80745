//! Samples and /proc trees to try the parts on, without queues.
//!
//! Invariant: a tree has the shape of the kernel's, as far as it is read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanq::KernelRow;

use super::detail::QueueDetail;
use super::samples::{
    Owner, ProcessSample, QueueSample, Sample, SocketRow, SoftnetRow, ThreadSample,
};

/// A queue that has been idle since it was bound, by the socket with this port.
pub(super) fn row(queue: u16, port_id: u32) -> KernelRow {
    KernelRow {
        queue,
        port_id,
        queue_total: 0,
        copy_mode: 2,
        copy_range: 65_531,
        queue_dropped: 0,
        user_dropped: 0,
        id_sequence: 0,
    }
}

/// A queue without an owner that is seen.
pub(super) fn queue(row: KernelRow) -> QueueSample {
    let socket = SocketRow { port_id: row.port_id, rmem: 0, drops: 0, inode: 1 };
    QueueSample { row, socket: Some(socket), owner: None, process: None, detail: None }
}

pub(super) fn sample(ms: u64, queues: &[QueueSample]) -> Sample {
    let softnet = vec![SoftnetRow { cpu: 0, dropped: 0 }, SoftnetRow { cpu: 1, dropped: 0 }];
    Sample { at: Duration::from_millis(ms), queues: queues.to_vec(), softnet }
}

/// A process with threads of these names, which have each used so many ms; the n-th runs on CPU n.
pub(super) fn process(pid: u32, at_ms: u64, threads: &[(&str, u64)]) -> Arc<ProcessSample> {
    let thread = |(id, (name, ms)): (u32, &(&str, u64))| ThreadSample {
        id,
        name: (*name).to_owned(),
        state: 'S',
        used: Duration::from_millis(*ms),
        cpu: id - pid,
    };
    let threads = (pid..).zip(threads).map(thread).collect();
    Arc::new(ProcessSample { pid, at: Duration::from_millis(at_ms), threads })
}

pub(super) fn owner(pid: u32, name: &str, command: &str) -> Arc<Owner> {
    Arc::new(Owner { pid, name: name.to_owned(), command: command.to_owned(), fanq: None })
}

/// What a fanq says then, after so many packets of 64 bytes, one in ten dropped, in batches of 32.
pub(super) fn detail(ms: u64, packets: u64, cpu: u32) -> Arc<QueueDetail> {
    Arc::new(QueueDetail {
        at: Duration::from_millis(ms),
        pid: 9,
        accelerated: false,
        policy: Some("drop:10".to_owned()),
        cpu: Some(cpu),
        maxlen: Some(16_384),
        packets,
        bytes: packets * 64,
        accepted: packets - packets / 10,
        dropped: packets / 10,
        other: 0,
        recv_calls: packets / 32,
        batch_times: vec![0, 0, 0, 0, 0, packets / 32, 0],
    })
}

/// A directory that looks like `/`, as far as `fanq top` looks.
pub(super) struct Tree(tempfile::TempDir);

impl Tree {
    pub(super) fn new() -> Self {
        let tree = Self(tempfile::tempdir().expect("a temporary directory can be made"));
        fs::create_dir_all(tree.path("proc/net/netfilter")).expect("it can be written");
        tree.write("proc/net/netlink", NETLINK_HEAD);
        tree.write("proc/net/softnet_stat", "");
        tree.write("proc/net/netfilter/nfnetlink_queue", "");
        tree
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// In place, since the reader has it open.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it can be written");
    }

    /// Queues as `seq_show` prints them: number, port, waiting, ids.
    pub(super) fn queues(&self, rows: impl Iterator<Item = (u16, u32, u64, u32)>) {
        let line = |(queue, port, waiting, ids)| {
            format!("{queue:5} {port:6} {waiting:5} 2 65531     0     0 {ids:8}  1\n")
        };
        let text: String = rows.map(line).collect();
        self.write("proc/net/netfilter/nfnetlink_queue", &text);
    }

    /// Netfilter sockets: port and inode.
    pub(super) fn sockets(&self, rows: impl Iterator<Item = (u32, u64)>) {
        let line = |(port, inode)| {
            format!(
                "00000000fa72ea37 12  {port:<10} 00000000 0        0        0     2        0        {inode:<8}\n"
            )
        };
        let text: String = rows.map(line).collect();
        self.write("proc/net/netlink", &format!("{NETLINK_HEAD}{text}"));
    }

    /// Makes `child`, a process of the tree, one that `parent` has started.
    pub(super) fn descends(&self, child: u32, parent: u32) {
        fs::create_dir_all(self.path(&format!("proc/{child}"))).expect("it can be written");
        self.write(&format!("proc/{child}/stat"), &format!("{child} (a) b) S {parent} 1 1 0\n"));
    }

    /// A process that holds these sockets, with threads that have each used so many ticks of 10 ms.
    pub(super) fn process(&self, pid: u32, name: &str, inodes: &[u64], threads: &[(&str, u64)]) {
        let folder = format!("proc/{pid}");
        fs::create_dir_all(self.path(&folder).join("fd")).expect("it can be written");
        self.write(&format!("{folder}/comm"), &format!("{name}\n"));
        self.write(&format!("{folder}/cmdline"), &format!("{name}\0run\0"));
        for (number, inode) in inodes.iter().enumerate() {
            let link = self.path(&folder).join(format!("fd/{number}"));
            symlink(format!("socket:[{inode}]"), link).expect("a link can be made");
        }
        for (tid, (name, ticks)) in (pid..).zip(threads) {
            fs::create_dir_all(self.path(&folder).join(format!("task/{tid}"))).expect("as above");
            let cpu = tid - pid;
            let line = format!(
                "{tid} ({name}) S 1 1 1 0 -1 4194304 100 0 0 0 {ticks} 0 0 0 20 0 1 0 3647058 3133440 412 1 2 3 4 0 \
                 0 0 0 0 0 0 0 0 17 {cpu} 0 0 0 0 0 1 2 3 4 5 6 7 0\n"
            );
            self.write(&format!("{folder}/task/{tid}/stat"), &line);
        }
    }
}

const NETLINK_HEAD: &str =
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
