//! The queues that are bound, their sockets, and who holds them.
//!
//! Invariant: of one network namespace, that of the files read. A queue's owner is its socket; the processes are those
//! that have it open and can be seen.

use fanq::KernelRow;

use super::fact::Fact;
use super::processes::{FIRST_PROCESS, Process, Processes};
use super::root::Root;

/// The queues of the network namespace.
#[derive(Debug)]
pub(crate) struct Queues {
    /// By number. Unseen also where the kernel has no nfnetlink_queue (loaded).
    pub(crate) table: Fact<Vec<KernelRow>>,
    /// Netfilter's sockets.
    pub(crate) sockets: Fact<Vec<NetlinkSocket>>,
    /// Who holds them.
    pub(crate) processes: Fact<Processes>,
}

/// A netlink socket of netfilter's protocol (`net/netlink/af_netlink.c: netlink_native_seq_show`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetlinkSocket {
    pub(crate) port_id: u32,
    /// Bytes that wait in its receive buffer, by the kernel's way of counting.
    pub(crate) receive_bytes: u64,
    /// Messages that had no room in it, since it was opened.
    pub(crate) drops: u64,
    pub(crate) inode: u64,
}

impl Queues {
    pub(crate) fn read(root: &Root) -> Self {
        let table = table(root);
        let sockets = sockets(root);
        let bound = |socket: &&NetlinkSocket| {
            table.known().is_some_and(|rows| rows.iter().any(|row| row.port_id == socket.port_id))
        };
        let of_queues = sockets.known().into_iter().flatten().filter(bound);
        let inodes: Vec<_> = of_queues.map(|socket| socket.inode).collect();
        Self { processes: Processes::read(root, &inodes), table, sockets }
    }

    /// The socket with this port.
    pub(crate) fn socket(&self, port_id: u32) -> Option<&NetlinkSocket> {
        self.sockets.known()?.iter().find(|socket| socket.port_id == port_id)
    }

    /// The processes that may serve the queues of the socket with this port: those that hold it, but for the first
    /// process where it only keeps it for another.
    pub(crate) fn servers(&self, port_id: u32) -> &[Process] {
        match self.holders(port_id) {
            [servers @ .., keeper] if keeper.pid == FIRST_PROCESS && !servers.is_empty() => servers,
            all => all,
        }
    }

    /// The processes that hold the socket with this port, the first process last. None where none can be seen.
    pub(crate) fn holders(&self, port_id: u32) -> &[Process] {
        let inode = self.socket(port_id).map(|socket| socket.inode);
        let processes = self.processes.known();
        let holders = inode.zip(processes).and_then(|(inode, found)| found.holders.get(&inode));
        holders.map_or(&[], Vec::as_slice)
    }
}

/// The kernel's table of queues, by their numbers.
pub(super) fn table(root: &Root) -> Fact<Vec<KernelRow>> {
    root.text("proc/net/netfilter/nfnetlink_queue").map(|text| {
        let mut rows: Vec<_> = text.lines().filter_map(KernelRow::parse).collect();
        rows.sort_by_key(|row| row.queue);
        rows
    })
}

pub(super) fn sockets(root: &Root) -> Fact<Vec<NetlinkSocket>> {
    let text = root.text("proc/net/netlink");
    text.map(|text| text.lines().filter_map(socket).collect())
}

/// A line `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`, of netfilter's sockets.
fn socket(line: &str) -> Option<NetlinkSocket> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, "12", port_id, _, receive_bytes, .., drops, inode] = fields.as_slice() else {
        return None;
    };
    Some(NetlinkSocket {
        port_id: port_id.parse().ok()?,
        receive_bytes: receive_bytes.parse().ok()?,
        drops: drops.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_netfilter_is_read_and_others_are_not() {
        let line = "00000000aa0f 12  4113 00000000 1664 0 0 2 7 4929979";
        let expected =
            NetlinkSocket { port_id: 4113, receive_bytes: 1664, drops: 7, inode: 4_929_979 };
        assert_eq!(socket(line), Some(expected));
        for other in
            ["", "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode", &line.replace("12", "15")]
        {
            assert_eq!(socket(other), None, "{other}");
        }
    }
}
