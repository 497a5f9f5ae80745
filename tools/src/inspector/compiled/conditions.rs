//! The conditions of a rule, in the form in which packets are held against them.
//!
//! Invariant: [`CompiledConditions::hold_for`] says of any packet what the rule's words say, patterns and limit apart.
//! An empty set stands for any, so the sets of a rule that names only IPv4 addresses still refuse IPv6.

use fanq::nfq::Hook;

use crate::inspector::packet::{Addresses, PacketFacts};
use crate::inspector::rules_file::{Conditions, PortRange, Prefix};

/// Where a packet was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// As [`hook_bit`] has it.
    pub(crate) hook: u8,
    /// The named interface that it came in by, as one bit; 0 for one that no rule names.
    pub(crate) in_interface: u64,
    /// The one that it leaves by.
    pub(crate) out_interface: u64,
}

/// A rule's conditions but for patterns and limit.
#[derive(Debug)]
pub(super) struct CompiledConditions {
    /// Bits as [`hook_bit`] has them; 0 for any.
    hooks: u8,
    /// Bits in the order of the policy's names; 0 for any.
    in_interfaces: u64,
    out_interfaces: u64,
    /// A bit for each protocol; all set for any.
    pub(super) protocols: ProtocolSet,
    sources: AddressSet,
    destinations: AddressSet,
    source_ports: PortSet,
    destination_ports: PortSet,
}

impl CompiledConditions {
    /// `interfaces` are the policy's names.
    pub(super) fn new(conditions: &Conditions, interfaces: &[String]) -> Self {
        let slots = |names: &[String]| {
            let slot = |name| interfaces.iter().position(|known| known == name);
            names.iter().filter_map(slot).fold(0, |bits, slot| bits | 1 << slot)
        };
        Self {
            hooks: conditions.hooks.iter().fold(0, |bits, hook| bits | hook_bit(*hook)),
            in_interfaces: slots(&conditions.in_interfaces),
            out_interfaces: slots(&conditions.out_interfaces),
            protocols: ProtocolSet::new(&conditions.protocols),
            sources: AddressSet::new(&conditions.sources),
            destinations: AddressSet::new(&conditions.destinations),
            source_ports: PortSet::new(&conditions.source_ports),
            destination_ports: PortSet::new(&conditions.destination_ports),
        }
    }

    #[inline]
    pub(super) fn hold_for(&self, facts: &PacketFacts<'_>, around: Surroundings) -> bool {
        (self.hooks == 0 || self.hooks & around.hook != 0)
            && (self.in_interfaces == 0 || self.in_interfaces & around.in_interface != 0)
            && (self.out_interfaces == 0 || self.out_interfaces & around.out_interface != 0)
            && self.protocols.has(facts)
            && self.source_ports.has(facts.ports.map(|(source, _)| source))
            && self.destination_ports.has(facts.ports.map(|(_, destination)| destination))
            && self.addresses_hold(facts.addresses)
    }

    #[inline]
    fn addresses_hold(&self, addresses: Option<Addresses>) -> bool {
        match addresses {
            Some(Addresses::V4 { source, destination }) => {
                self.sources.has_v4(source) && self.destinations.has_v4(destination)
            }
            Some(Addresses::V6 { source, destination }) => {
                self.sources.has_v6(source) && self.destinations.has_v6(destination)
            }
            None => self.sources.any && self.destinations.any,
        }
    }
}

/// A hook as a bit; all hooks without a name share one.
#[inline]
pub(crate) fn hook_bit(hook: Hook) -> u8 {
    1 << hook.number().min(7)
}

/// Protocol numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProtocolSet {
    bits: [u64; 4],
    any: bool,
}

impl ProtocolSet {
    fn new(protocols: &[u8]) -> Self {
        let mut set = Self { bits: [0; 4], any: protocols.is_empty() };
        for protocol in protocols {
            set.bits[usize::from(protocol / 64)] |= 1 << (protocol % 64);
        }
        set
    }

    /// What is no IP packet has no protocol.
    #[inline]
    pub(super) fn has(&self, facts: &PacketFacts<'_>) -> bool {
        let protocol = facts.protocol;
        let bit = self.bits[usize::from(protocol / 64)] >> (protocol % 64) & 1;
        self.any || (bit == 1 && facts.addresses.is_some())
    }

    /// What is in either.
    pub(super) fn join(&mut self, other: Self) {
        for (bits, others) in self.bits.iter_mut().zip(other.bits) {
            *bits |= others;
        }
        self.any |= other.any;
    }

    pub(super) const NONE: Self = Self { bits: [0; 4], any: false };
}

/// Addresses as ranges that do not overlap, ascending.
#[derive(Debug)]
struct AddressSet {
    any: bool,
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl AddressSet {
    fn new(prefixes: &[Prefix]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Prefix { address, length } in prefixes {
            match address {
                std::net::IpAddr::V4(address) => {
                    let first = address.to_bits();
                    v4.push((first, first | u32::MAX.checked_shr(u32::from(*length)).unwrap_or(0)));
                }
                std::net::IpAddr::V6(address) => {
                    let first = address.to_bits();
                    v6.push((
                        first,
                        first | u128::MAX.checked_shr(u32::from(*length)).unwrap_or(0),
                    ));
                }
            }
        }
        Self { any: prefixes.is_empty(), v4: joined(v4), v6: joined(v6) }
    }

    #[inline]
    fn has_v4(&self, address: u32) -> bool {
        self.any || is_in(&self.v4, address)
    }

    #[inline]
    fn has_v6(&self, address: u128) -> bool {
        self.any || is_in(&self.v6, address)
    }
}

/// Ports as such ranges.
#[derive(Debug)]
pub(super) struct PortSet {
    ranges: Box<[(u16, u16)]>,
}

impl PortSet {
    pub(super) fn new(ranges: &[PortRange]) -> Self {
        Self { ranges: joined(ranges.iter().map(|range| (range.first, range.last)).collect()) }
    }

    /// A packet without ports is in no set but that of any.
    #[inline]
    pub(super) fn has(&self, port: Option<u16>) -> bool {
        self.ranges.is_empty() || port.is_some_and(|port| is_in(&self.ranges, port))
    }

    pub(super) fn is_any(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Every port, one by one.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// Whether a value lies in one of the ranges.
#[inline]
fn is_in<T: Copy + Ord>(ranges: &[(T, T)], value: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= value);
    behind > 0 && value <= ranges[behind - 1].1
}

/// Sorts ranges and joins those that overlap.
fn joined<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}
