//! Interfaces by name: rules name them, packets carry their numbers.
//!
//! Invariant: a table knows every interface that was there when it was read, those that no rule names too; so a number
//! that it does not know is one that came later, and the table is to be read again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

/// From an interface's number to its bit among the names of a policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InterfaceTable {
    /// Numbers, ascending, with their bits; 0 for an interface that no rule names.
    bits: Box<[(u32, u64)]>,
}

/// Asks the kernel about interfaces of this network namespace.
#[derive(Debug)]
pub(crate) struct InterfaceNames {
    socket: OwnedFd,
}

impl InterfaceTable {
    /// The bit of an interface: 0 if no rule names it, none if it is not known.
    #[inline]
    pub(crate) fn bit(&self, index: u32) -> Option<u64> {
        let place = self.bits.binary_search_by_key(&index, |(known, _)| *known).ok()?;
        Some(self.bits[place].1)
    }

    /// A table of these interfaces.
    fn new(interfaces: impl Iterator<Item = (u32, String)>, named: &[String]) -> Self {
        let bit =
            |name: &str| named.iter().position(|known| known == name).map_or(0, |slot| 1 << slot);
        let mut bits: Vec<_> = interfaces.map(|(index, name)| (index, bit(&name))).collect();
        bits.sort_unstable();
        Self { bits: bits.into() }
    }
}

impl InterfaceNames {
    pub(crate) fn open() -> anyhow::Result<Self> {
        // Any socket will do: netdevice(7).
        let socket =
            socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .context("opening a socket to look up interfaces")?;
        Ok(Self { socket })
    }

    /// The interfaces that are there now; empty names need no table.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub(crate) fn table(&self, named: &[String]) -> io::Result<InterfaceTable> {
        if named.is_empty() {
            return Ok(InterfaceTable::default());
        }
        // Of the reading thread's own namespace, where /sys may show that of whoever mounted it.
        let list = fs::read_to_string("/proc/thread-self/net/dev")?;
        let listed =
            list.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        // One that is gone since is not there.
        let interfaces = listed
            .filter_map(|name| Some((netdevice::name_to_index(&self.socket, &name).ok()?, name)));
        Ok(InterfaceTable::new(interfaces, named))
    }

    /// The name of an interface, if it is there.
    pub(crate) fn name(&self, index: u32) -> Option<String> {
        netdevice::index_to_name(&self.socket, index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_interfaces_have_a_bit_and_others_are_known() {
        let named = ["a".to_owned(), "b".to_owned()];
        let interfaces = [(7, "b"), (1, "lo"), (3, "a")];
        let table = InterfaceTable::new(
            interfaces.map(|(n, name)| (n, name.to_owned())).into_iter(),
            &named,
        );
        assert_eq!([1, 3, 7, 2].map(|index| table.bit(index)), [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn the_kernel_tells_its_interfaces() {
        let names = InterfaceNames::open().unwrap();
        assert_eq!(names.table(&[]).unwrap(), InterfaceTable::default());
        let table = names.table(&["lo".to_owned()]).unwrap();
        // Every network namespace has a loopback interface, and its number is 1.
        assert_eq!((table.bit(1), names.name(1).as_deref()), (Some(1), Some("lo")));
        assert_eq!(names.name(u32::MAX >> 1), None);
    }
}
