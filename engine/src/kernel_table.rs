//! What the kernel says about its queues: `/proc/net/netfilter/nfnetlink_queue`, and who owns a netlink port.
//!
//! Invariant: reads only. A line that it does not understand is left out, never an error: the file's shape
//! belongs to the kernel. The table is opened once, which fixes the network namespace that it shows, and read
//! again from the start each time.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One queue, as the kernel counts it (`net/netfilter/nfnetlink_queue.c: seq_show`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRow {
    /// The queue's number.
    pub queue: u16,
    /// The netlink port of the socket that is bound to it.
    pub port_id: u32,
    /// Packets that wait in it now.
    pub queue_total: u64,
    /// How much of a packet is sent: 0 while the queue is bound and not configured (its packets are dropped), 1 for
    /// everything but the payload, 2 for the payload too.
    pub copy_mode: u8,
    /// Most bytes of a payload.
    pub copy_range: u32,
    /// Packets that it had no room for.
    pub queue_dropped: u64,
    /// Packets that the socket's buffer had no room for.
    pub user_dropped: u64,
    /// The last id given.
    pub id_sequence: u32,
}

impl KernelRow {
    /// Reads one line: queue, port, total, copy mode, copy range, queue dropped, user dropped, id sequence, 1.
    /// None if it is of another shape.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next()?.parse::<u64>().ok();
        let queue = u16::try_from(next()?).ok()?;
        let port_id = u32::try_from(next()?).ok()?;
        let queue_total = next()?;
        let copy_mode = u8::try_from(next()?).ok()?;
        let copy_range = u32::try_from(next()?).ok()?;
        let (queue_dropped, user_dropped) = (next()?, next()?);
        let id_sequence = u32::try_from(next()?).ok()?;
        Some(Self {
            queue,
            port_id,
            queue_total,
            copy_mode,
            copy_range,
            queue_dropped,
            user_dropped,
            id_sequence,
        })
    }
}

/// The queues of the network namespace in which it was opened.
#[derive(Debug)]
pub struct KernelTable {
    file: File,
}

impl KernelTable {
    /// Opens the table of the calling thread's network namespace.
    ///
    /// # Errors
    /// There is none: the kernel has no nfnetlink_queue, or /proc is not mounted.
    pub fn open() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/net/netfilter/nfnetlink_queue")? })
    }

    /// The queues bound now.
    ///
    /// # Errors
    /// As for reading a file.
    pub fn rows(&self) -> io::Result<Vec<KernelRow>> {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = self.file.read_at(&mut part, text.len() as u64)?;
            if read == 0 {
                break;
            }
            text.extend_from_slice(&part[..read]);
        }
        Ok(String::from_utf8_lossy(&text).lines().filter_map(KernelRow::parse).collect())
    }

    /// One queue's row, if it is bound.
    ///
    /// # Errors
    /// As for reading a file.
    pub fn row(&self, queue: u16) -> io::Result<Option<KernelRow>> {
        // Read for every few batches of a queue under load, so on the stack.
        let mut part = [0; 4096];
        let (mut offset, mut kept) = (0, 0);
        loop {
            let read = self.file.read_at(&mut part[kept..], offset)?;
            if read == 0 {
                return Ok(None);
            }
            offset += read as u64;
            let filled = kept + read;
            let whole =
                part[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = part[..whole].split(|byte| *byte == b'\n');
            let rows = lines.filter_map(|line| KernelRow::parse(str::from_utf8(line).ok()?));
            if let Some(row) = rows.into_iter().find(|row| row.queue == queue) {
                return Ok(Some(row));
            }
            part.copy_within(whole..filled, 0);
            kept = filled - whole;
            if kept == part.len() {
                return Ok(None); // No line is that long.
            }
        }
    }
}

/// Who holds a netlink port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// The port.
    pub port_id: u32,
    /// The process, where it can be seen: its id and its name.
    pub process: Option<(u32, String)>,
}

impl PortOwner {
    /// Looks for the process that has the netfilter socket with this port open. Without the right to look into
    /// other users' processes it is found only among one's own. The first process is named only where no other has
    /// the socket: as a service manager it keeps sockets for those that it starts.
    pub fn find(port_id: u32) -> Self {
        let process =
            socket_inode(port_id).and_then(|inode| process_with_socket(Path::new("/proc"), &inode));
        Self { port_id, process }
    }
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "process {pid} ({name}), netlink port {}", self.port_id),
            None => write!(
                f,
                "netlink port {}, of a process that cannot be seen from here",
                self.port_id
            ),
        }
    }
}

/// The inode of the netfilter socket with this port, from `/proc/net/netlink` (sk, protocol, port, ..., inode).
fn socket_inode(port_id: u32) -> Option<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    let inode = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let ours = fields.get(1) == Some(&"12") && fields.get(2)?.parse() == Ok(port_id);
        if ours { fields.last().map(|inode| (*inode).to_owned()) } else { None }
    });
    inode.filter(|inode| inode != "0")
}

fn process_with_socket(proc: &Path, inode: &str) -> Option<(u32, String)> {
    let target = PathBuf::from(format!("socket:[{inode}]"));
    let holds_it = |process: &Path| {
        let descriptors = std::fs::read_dir(process.join("fd")).ok()?;
        let mut links = descriptors.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.any(|link| link == target).then_some(())
    };
    let pid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut pids: Vec<_> =
        std::fs::read_dir(proc).ok()?.filter_map(Result::ok).filter_map(pid).collect();
    pids.sort_unstable_by_key(|pid| (*pid == FIRST_PROCESS, *pid));
    pids.into_iter().find_map(|pid| {
        let process = proc.join(pid.to_string());
        holds_it(&process)?;
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some((pid, name.trim().to_owned()))
    })
}

/// What the kernel starts first: the service manager, as a rule.
const FIRST_PROCESS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd's store of descriptors has a copy of the socket.
    #[test]
    fn a_service_manager_that_keeps_the_socket_is_not_named_in_the_place_of_its_service() {
        let proc = std::env::temp_dir().join(format!("fanq-proc-{}", std::process::id()));
        let hold = |pid: u32, name: &str| {
            let process = proc.join(pid.to_string());
            std::fs::create_dir_all(process.join("fd")).unwrap();
            std::fs::write(process.join("comm"), format!("{name}\n")).unwrap();
            std::os::unix::fs::symlink("socket:[77]", process.join("fd/5")).unwrap();
        };
        hold(1, "systemd");
        let alone = process_with_socket(&proc, "77");
        hold(12, "fanq");
        let kept = process_with_socket(&proc, "77");
        let other = process_with_socket(&proc, "78");
        std::fs::remove_dir_all(&proc).unwrap();
        assert_eq!(alone, Some((1, "systemd".to_owned())));
        assert_eq!((kept, other), (Some((12, "fanq".to_owned())), None));
    }

    #[test]
    fn a_row_as_the_kernel_prints_it() {
        let row = KernelRow::parse("    1   3302     5 2 65531 121120    7   378880  1").unwrap();
        let expected = KernelRow {
            queue: 1,
            port_id: 3302,
            queue_total: 5,
            copy_mode: 2,
            copy_range: 65_531,
            queue_dropped: 121_120,
            user_dropped: 7,
            id_sequence: 378_880,
        };
        assert_eq!(row, expected);
    }

    #[test]
    fn a_port_above_the_signed_range_is_read() {
        let row = KernelRow::parse("0 3249936261 0 2 65531 0 0 1 1").unwrap();
        assert_eq!(row.port_id, 3_249_936_261);
    }

    #[test]
    fn lines_of_another_shape_are_left_out() {
        for line in ["", "0", "a b c d e f g h i", "70000 1 0 2 65531 0 0 0 1", "0 1 0 2 65531 0 0"]
        {
            assert_eq!(KernelRow::parse(line), None, "{line:?}");
        }
    }
}
