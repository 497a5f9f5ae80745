//! The kernel's text tables: `/proc/net/netlink`, `/proc/net/softnet_stat`; that of the queues is the engine's.
//!
//! Invariant: a line that is not understood is left out. Nothing is allocated per reading but to grow.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A table that is read again and again. Opened once, which fixes the network namespace that it shows.
#[derive(Debug)]
pub(super) struct TableFile {
    file: File,
    bytes: Vec<u8>,
}

impl TableFile {
    /// Opens it, and reads it once, since a table may be opened and yet not be read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut table = Self { file: File::open(path)?, bytes: vec![0; 16 * 1024] };
        table.read()?;
        Ok(table)
    }

    /// The whole text of now; up to the first byte that is none, which no kernel writes.
    pub(super) fn read(&mut self) -> io::Result<&str> {
        let mut filled = 0;
        loop {
            if filled == self.bytes.len() {
                if filled >= TABLE_BYTES_MAX {
                    break;
                }
                self.bytes.resize(filled * 2, 0);
            }
            match self.file.read_at(&mut self.bytes[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        let text = &self.bytes[..filled];
        Ok(str::from_utf8(text).unwrap_or_else(|error| {
            str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default()
        }))
    }
}

/// A netfilter netlink socket (`net/netlink/af_netlink.c: netlink_native_seq_show`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::top) struct SocketRow {
    pub(in crate::top) port_id: u32,
    /// Bytes that wait in its receive buffer, as the kernel accounts for memory.
    pub(in crate::top) rmem: u64,
    /// Messages that it had no room for; a 32-bit counter.
    pub(in crate::top) drops: u32,
    /// 0 for a socket of the kernel's own.
    pub(in crate::top) inode: u64,
}

/// Adds the sockets of `NETLINK_NETFILTER`, in rising order of their ports.
pub(super) fn parse_netlink(text: &str, sockets: &mut Vec<SocketRow>) {
    let row = |line: &str| {
        // sk, protocol, port, groups, rmem, wmem, dump, locks, drops, inode
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().filter(|protocol| *protocol == NETLINK_NETFILTER)?;
        let port_id = fields.next()?.parse().ok()?;
        let rmem = fields.nth(1)?.parse().ok()?;
        let drops = fields.nth(3)?.parse().ok()?;
        let inode = fields.next()?.parse().ok()?;
        Some(SocketRow { port_id, rmem, drops, inode })
    };
    sockets.extend(text.lines().filter_map(row));
    sockets.sort_unstable_by_key(|socket| socket.port_id);
}

/// One CPU's receive path (`net/core/net-procfs.c: softnet_seq_show`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::top) struct SoftnetRow {
    pub(in crate::top) cpu: u32,
    /// Packets that its backlog had no room for; a 32-bit counter.
    pub(in crate::top) dropped: u32,
}

/// Adds a row for each line. Offline CPUs have none, so the CPU's number is read where the kernel prints it (5.10 and
/// later), not counted.
pub(super) fn parse_softnet(text: &str, rows: &mut Vec<SoftnetRow>) {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok();
    let row = |(index, line): (usize, &str)| {
        let mut fields = line.split_ascii_whitespace();
        let dropped = hex(fields.nth(1)?)?;
        let cpu = match fields.nth(10) {
            Some(field) => hex(field)?,
            None => u32::try_from(index).ok()?,
        };
        Some(SoftnetRow { cpu, dropped })
    };
    rows.extend(text.lines().enumerate().filter_map(row));
}

/// `NETLINK_NETFILTER` of include/uapi/linux/netlink.h, as the table prints it.
const NETLINK_NETFILTER: &str = "12";

/// More than any machine's table: 65,536 queues of 80 bytes.
const TABLE_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netfilter_socket_is_read_and_others_are_not() {
        let text = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000062e57a85 0   77         00000000 0        0        0     2        0        4
000000001c5ee1a3 12  3249936261 00000000 2304     0        0     2        51       184467
00000000fa72ea37 12  4711       00000000 0        0        0     2        0        1508
00000000fa72ea37 12  x
";
        let mut sockets = Vec::new();
        parse_netlink(text, &mut sockets);
        let expected = SocketRow { port_id: 3_249_936_261, rmem: 2304, drops: 51, inode: 184_467 };
        assert_eq!(sockets.len(), 2);
        assert_eq!((sockets[0].port_id, sockets[1]), (4711, expected));
    }

    #[test]
    fn the_cpu_is_taken_from_its_field_where_there_is_one() {
        let line = |dropped: &str, tail: &str| {
            format!("2bc65df4 {dropped} 00000190 0 0 0 0 0 0 00000000 00000000 00000000{tail}\n")
        };
        let new = line("0000000a", " 00000004 00000000 00000000") + &line("0", " 00000006 0 0");
        let mut rows = Vec::new();
        parse_softnet(&new, &mut rows);
        let expected = [SoftnetRow { cpu: 4, dropped: 10 }, SoftnetRow { cpu: 6, dropped: 0 }];
        assert_eq!(rows, expected);
        rows.clear();
        parse_softnet(&(line("1", "") + "\n" + &line("2", "")), &mut rows);
        assert_eq!(rows.iter().map(|row| row.dropped).collect::<Vec<_>>(), [1, 2]);
    }
}
