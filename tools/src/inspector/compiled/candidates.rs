//! Which rules may match a packet, found by what distinguishes them.
//!
//! Each rule without patterns stands in one list, or in one for each value that it names: by source prefix, destination
//! prefix, source port or destination port, whichever it shares with fewest rules, or in the list of those that are
//! tried for all packets. A rule with patterns stands in the list of each of its patterns. What a packet's addresses
//! and ports, and the patterns found in it, lead to is merged by rule number.
//!
//! Invariant: every rule that matches a packet is among its candidates. Candidates are held against the packet whole,
//! so a list may have too many rules, never too few.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use super::conditions::PortSet;
use super::prefix_index::{IndexedPrefix, ListPlace, PrefixIndex};
use crate::inspector::packet::{Addresses, PacketFacts};
use crate::inspector::rules_file::{Prefix, Rule};

/// Lists of rule numbers, each ascending, and the ways to them.
#[derive(Debug)]
pub(super) struct Candidates {
    /// All lists, one behind the other.
    lists: Box<[u32]>,
    for_all: ListPlace,
    sources: FamilyIndexes,
    destinations: FamilyIndexes,
    source_ports: PortIndex,
    destination_ports: PortIndex,
    /// By number of the pattern.
    patterns: Box<[ListPlace]>,
}

#[derive(Debug)]
struct FamilyIndexes {
    v4: PrefixIndex<u32>,
    v6: PrefixIndex<u128>,
}

/// Ports that rules name, ascending.
#[derive(Debug)]
struct PortIndex {
    ports: Box<[u16]>,
    lists: Box<[ListPlace]>,
}

/// What tells a rule from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Source(IpAddr, u8),
    Destination(IpAddr, u8),
    SourcePort(u16),
    DestinationPort(u16),
}

impl Candidates {
    /// `patterns` has the numbers of each rule's patterns, `pattern_count` how many there are in all.
    pub(super) fn new(rules: &[Rule], patterns: &[Box<[u32]>], pattern_count: usize) -> Self {
        let plain =
            || rules.iter().zip(patterns).map(|(rule, patterns)| (rule, patterns.is_empty()));
        let mut shared: HashMap<Key, usize> = HashMap::new();
        for (rule, _) in plain().filter(|(_, is_plain)| *is_plain) {
            for key in choices(rule).into_iter().flatten() {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut by_key: HashMap<Key, Vec<u32>> = HashMap::new();
        let mut for_all = Vec::new();
        let mut by_pattern = vec![Vec::new(); pattern_count];
        for (number, (rule, is_plain)) in (0_u32..).zip(plain()) {
            if !is_plain {
                for pattern in &patterns[number as usize] {
                    by_pattern[*pattern as usize].push(number);
                }
                continue;
            }
            let crowd =
                |keys: &Vec<Key>| keys.iter().map(|key| shared[key]).max().unwrap_or(usize::MAX);
            let best = choices(rule).into_iter().filter(|keys| !keys.is_empty()).min_by_key(crowd);
            match best {
                Some(keys) => keys.into_iter().for_each(|key| {
                    let list = by_key.entry(key).or_default();
                    // A rule may name a value twice.
                    if list.last() != Some(&number) {
                        list.push(number);
                    }
                }),
                None => for_all.push(number),
            }
        }
        Self::place(by_key, &for_all, &by_pattern)
    }

    fn place(by_key: HashMap<Key, Vec<u32>>, for_all: &[u32], by_pattern: &[Vec<u32>]) -> Self {
        let mut lists = Lists(Vec::new());
        let for_all = lists.add(for_all);
        let patterns = by_pattern.iter().map(|rules| lists.add(rules)).collect();
        let (mut sources, mut destinations) = (Vec::new(), Vec::new());
        let (mut source_ports, mut destination_ports) = (Vec::new(), Vec::new());
        for (key, rules) in by_key {
            let list = lists.add(&rules);
            match key {
                Key::Source(address, length) => sources.push((address, length, list)),
                Key::Destination(address, length) => destinations.push((address, length, list)),
                Key::SourcePort(port) => source_ports.push((port, list)),
                Key::DestinationPort(port) => destination_ports.push((port, list)),
            }
        }
        Self {
            lists: lists.0.into(),
            for_all,
            sources: FamilyIndexes::new(sources),
            destinations: FamilyIndexes::new(destinations),
            source_ports: PortIndex::new(source_ports),
            destination_ports: PortIndex::new(destination_ports),
            patterns,
        }
    }

    /// Puts the lists that a packet's addresses and ports lead to into `places`.
    #[inline]
    pub(super) fn of_headers(&self, facts: &PacketFacts<'_>, places: &mut Vec<ListPlace>) {
        let mut add = |place: ListPlace| {
            if place.start < place.end {
                places.push(place);
            }
        };
        add(self.for_all.clone());
        match facts.addresses {
            Some(Addresses::V4 { source, destination }) => {
                self.sources.v4.covering(source).for_each(&mut add);
                self.destinations.v4.covering(destination).for_each(&mut add);
            }
            Some(Addresses::V6 { source, destination }) => {
                self.sources.v6.covering(source).for_each(&mut add);
                self.destinations.v6.covering(destination).for_each(&mut add);
            }
            None => {}
        }
        if let Some((source, destination)) = facts.ports {
            self.source_ports.find(source).into_iter().for_each(&mut add);
            self.destination_ports.find(destination).into_iter().for_each(&mut add);
        }
    }

    /// The rules that have this pattern, ascending.
    #[inline]
    pub(super) fn of_pattern(&self, pattern: u32) -> &[u32] {
        let place = &self.patterns[pattern as usize];
        &self.lists[place.start as usize..place.end as usize]
    }

    /// The rule at a place in the lists.
    #[inline]
    pub(super) fn rule_at(&self, place: u32) -> u32 {
        self.lists[place as usize]
    }

    /// The most lists that a packet's headers lead to.
    pub(super) fn lists_max(&self) -> usize {
        let depth = |indexes: &FamilyIndexes| indexes.v4.depth().max(indexes.v6.depth());
        depth(&self.sources) + depth(&self.destinations) + 3
    }

    /// The most rules that a packet's patterns lead to, those counted twice that have two of them.
    pub(super) fn pattern_rules(&self) -> usize {
        self.patterns.iter().map(ExactSizeIterator::len).sum()
    }

    /// How many rules are tried for every packet.
    pub(super) fn for_all_count(&self) -> usize {
        self.for_all.len()
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let of_family = |indexes: &FamilyIndexes| indexes.v4.bytes() + indexes.v6.bytes();
        let of_ports = |index: &PortIndex| size_of_val(&*index.ports) + size_of_val(&*index.lists);
        size_of_val(&*self.lists)
            + size_of_val(&*self.patterns)
            + of_family(&self.sources)
            + of_family(&self.destinations)
            + of_ports(&self.source_ports)
            + of_ports(&self.destination_ports)
    }
}

/// The ways in which a rule can be found: all values of one condition. One without values, or with too many, is none.
fn choices(rule: &Rule) -> [Vec<Key>; 4] {
    let conditions = &rule.conditions;
    let prefixes = |prefixes: &[Prefix], key: fn(IpAddr, u8) -> Key| {
        prefixes.iter().map(|prefix| key(prefix.address, prefix.length)).collect()
    };
    let ports = |ranges, key: fn(u16) -> Key| {
        let set = PortSet::new(ranges);
        let keys: Vec<_> = set.ports().take(PORTS_MAX + 1).map(key).collect();
        if set.is_any() || keys.len() > PORTS_MAX { Vec::new() } else { keys }
    };
    [
        prefixes(&conditions.sources, Key::Source),
        prefixes(&conditions.destinations, Key::Destination),
        ports(&conditions.source_ports, Key::SourcePort),
        ports(&conditions.destination_ports, Key::DestinationPort),
    ]
}

struct Lists(Vec<u32>);

impl Lists {
    fn add(&mut self, rules: &[u32]) -> ListPlace {
        let end = |lists: &Vec<u32>| {
            u32::try_from(lists.len())
                .expect("a rules file of 64 MiB has fewer values in its rules")
        };
        let start = end(&self.0);
        self.0.extend(rules);
        start..end(&self.0)
    }
}

impl FamilyIndexes {
    fn new(prefixes: Vec<(IpAddr, u8, ListPlace)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (address, length, rules) in prefixes {
            match address {
                IpAddr::V4(address) => {
                    v4.push(IndexedPrefix { address: address.to_bits(), length, rules });
                }
                IpAddr::V6(address) => {
                    v6.push(IndexedPrefix { address: address.to_bits(), length, rules });
                }
            }
        }
        Self { v4: PrefixIndex::new(v4), v6: PrefixIndex::new(v6) }
    }
}

impl PortIndex {
    fn new(mut ports: Vec<(u16, ListPlace)>) -> Self {
        ports.sort_unstable_by_key(|(port, _)| *port);
        let (ports, lists): (Vec<_>, Vec<_>) = ports.into_iter().unzip();
        Self { ports: ports.into(), lists: lists.into() }
    }

    #[inline]
    fn find(&self, port: u16) -> Option<ListPlace> {
        self.ports.binary_search(&port).ok().map(|index| self.lists[index].clone())
    }
}

/// A rule with more ports than this is not found by them.
const PORTS_MAX: usize = 64;
