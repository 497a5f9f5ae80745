//! What a rule says, a word at a time: what the compiled rules are held against, in tests and in the fuzz target
//! `rules`.
//!
//! Invariant: it shares nothing with the compiled rules but the words and the packet. Patterns are looked for in this
//! packet alone, and limits are left out: the first packet is below all of them.

use std::net::IpAddr;

use fanq::nfq::Hook;

use super::packet::{Addresses, PacketFacts};
use super::rules_file::{Pattern, PortRange, Prefix, Rule};

/// Whether the rule's conditions hold for a packet taken at this hook, with these interfaces.
pub(crate) fn holds_in_words(
    rule: &Rule,
    facts: &PacketFacts<'_>,
    hook: Hook,
    interfaces: [&str; 2],
) -> bool {
    let conditions = &rule.conditions;
    let covers = |prefixes: &[Prefix], address: Option<IpAddr>| {
        let covers = |prefix: &Prefix| match (prefix.address, address) {
            (IpAddr::V4(network), Some(IpAddr::V4(address))) => {
                let shift = 32 - u32::from(prefix.length);
                shift == 32 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V6(network), Some(IpAddr::V6(address))) => {
                let shift = 128 - u32::from(prefix.length);
                shift == 128 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            _ => false,
        };
        prefixes.is_empty() || prefixes.iter().any(covers)
    };
    let has_port = |ranges: &[PortRange], port: Option<u16>| {
        let has =
            |range: &PortRange| port.is_some_and(|port| range.first <= port && port <= range.last);
        ranges.is_empty() || ranges.iter().any(has)
    };
    let named =
        |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let has_pattern = |pattern: &Pattern| {
        facts.payload.windows(pattern.bytes.len()).any(|window| {
            window == pattern.bytes
                || pattern.ignore_case && window.eq_ignore_ascii_case(&pattern.bytes)
        })
    };
    let (source, destination) = facts.addresses.map(Addresses::both).unzip();
    let (source_port, destination_port) = facts.ports.unzip();
    (conditions.protocols.is_empty()
        || facts.addresses.is_some() && conditions.protocols.contains(&facts.protocol))
        && covers(&conditions.sources, source)
        && covers(&conditions.destinations, destination)
        && has_port(&conditions.source_ports, source_port)
        && has_port(&conditions.destination_ports, destination_port)
        && named(&conditions.in_interfaces, interfaces[0])
        && named(&conditions.out_interfaces, interfaces[1])
        && (conditions.hooks.is_empty() || conditions.hooks.contains(&hook))
        && conditions.patterns.iter().all(has_pattern)
}
