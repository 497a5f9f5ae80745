//! What each CPU's receive path has counted: `/proc/net/softnet_stat`.
//!
//! Invariant: a row is given to the CPU that it is about. The file skips offline CPUs; since 5.10 each row names its
//! CPU, and before that rows stand for the online CPUs in their order (`net/core/net-procfs.c: softnet_seq_show`).

use fanq::{CpuId, CpuList};

use super::fact::Fact;
use super::root::Root;

/// One CPU's counts since the machine was started, modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SoftnetRow {
    pub(crate) cpu: CpuId,
    pub(crate) processed: u32,
    /// Packets for which its backlog had no room.
    pub(crate) dropped: u32,
    /// How often it stopped with work left, for want of budget or time.
    pub(crate) squeezed: u32,
    /// Packets that other CPUs handed to it (RPS), or that were sent to it by interrupt.
    pub(crate) received_rps: u32,
}

pub(super) fn read(root: &Root, online: &Fact<CpuList>) -> Fact<Vec<SoftnetRow>> {
    let text = root.text("proc/net/softnet_stat");
    text.map(|text| rows(&text, online.known().unwrap_or(&CpuList::default())))
}

fn rows(text: &str, online: &CpuList) -> Vec<SoftnetRow> {
    let by_order = online.iter().map(Some).chain(std::iter::repeat(None));
    let row = |(line, by_order): (&str, Option<CpuId>)| {
        let number = |word| u32::from_str_radix(word, 16).ok();
        let fields: Vec<_> = line.split_ascii_whitespace().map_while(number).collect();
        let named = fields.get(12).and_then(|cpu| u16::try_from(*cpu).ok()).map(CpuId);
        Some(SoftnetRow {
            cpu: named.or(by_order)?,
            processed: *fields.first()?,
            dropped: *fields.get(1)?,
            squeezed: *fields.get(2)?,
            received_rps: fields.get(9).copied().unwrap_or(0),
        })
    };
    text.lines().zip(by_order).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_width_find_their_cpus() {
        let online = "0,4".parse().unwrap();
        let zeroes = " 00000000".repeat(6);
        let old = format!("0000000a 00000001 00000002{zeroes} 00000003 00000000\n");
        let new = format!("0000000a 00000001 00000002{zeroes} 00000003 00000000 00000000");
        let expected = |cpu| SoftnetRow {
            cpu: CpuId(cpu),
            processed: 10,
            dropped: 1,
            squeezed: 2,
            received_rps: 3,
        };
        assert_eq!(rows(&old.repeat(2), &online), [expected(0), expected(4)]);
        let named = format!("{new} 00000004 00000000 00000000\n{new} 00000007\n");
        assert_eq!(rows(&named, &online), [expected(4), expected(7)]);
        assert_eq!(rows("\nx\n", &online), []);
    }
}
