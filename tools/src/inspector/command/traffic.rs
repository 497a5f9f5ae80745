//! Packets for the bench: kernel messages as `fanq run` would receive them, made from the rules at hand.
//!
//! Invariant: the same rules give the same packets. Half of the addresses lie in prefixes that rules name. Each packet
//! is the next segment of a TCP flow of its own, in order.

use std::net::IpAddr;

use anyhow::Context;
use etherparse::PacketBuilder;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::inspector::rules_file::{Prefix, Rule};

/// A round of packets, one a flow.
pub(super) struct Traffic {
    messages: Vec<Vec<u8>>,
    payload_bytes: u32,
}

impl Traffic {
    /// So many packets.
    ///
    /// # Errors
    /// If the payload is too long for a packet.
    pub(super) fn new(packets: usize, payload_bytes: u16, rules: &[Rule]) -> anyhow::Result<Self> {
        let mut random = SmallRng::seed_from_u64(SEED);
        let prefixes = |of: fn(&Rule) -> &Vec<Prefix>| -> Vec<Prefix> {
            rules.iter().flat_map(|rule| of(rule).iter().copied()).collect()
        };
        let sources = prefixes(|rule| &rule.conditions.sources);
        let destinations = prefixes(|rule| &rule.conditions.destinations);
        let mut messages = Vec::with_capacity(packets);
        for number in 0..packets {
            let builder =
                match (address(&sources, &mut random), address(&destinations, &mut random)) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
                    }
                    (source, destination) => {
                        PacketBuilder::ipv6(wide(source), wide(destination), 64)
                    }
                };
            let payload: Vec<u8> =
                (0..payload_bytes).map(|_| random.random_range(b' '..=b'~')).collect();
            let mut packet = Vec::new();
            builder
                .tcp(random.random_range(1024..=u16::MAX), PORT, random.random(), 1024)
                .ack(1)
                .write(&mut packet, &payload)
                .context("a packet of this payload cannot be built")?;
            messages.push(message(u32::try_from(number).unwrap_or(0), 2, 0, &packet));
        }
        Ok(Self { messages, payload_bytes: u32::from(payload_bytes) })
    }

    pub(super) fn messages(&self) -> &[Vec<u8>] {
        &self.messages
    }

    /// Each flow's next segment.
    pub(super) fn advance(&mut self) {
        for message in &mut self.messages {
            let ip = if message[PACKET_AT] >> 4 == 4 { 20 } else { 40 };
            let at = PACKET_AT + ip + 4;
            let place: &mut [u8] = &mut message[at..at + 4];
            let sequence = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
            place.copy_from_slice(&sequence.wrapping_add(self.payload_bytes).to_be_bytes());
        }
    }

    /// The payloads, as a rule would look at them.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let payload = |message: &Vec<u8>| message.len() - self.payload_bytes as usize;
        self.messages.iter().map(move |message| &message[payload(message)..])
    }
}

/// Every other one in a prefix that rules name.
fn address(prefixes: &[Prefix], random: &mut SmallRng) -> IpAddr {
    let anywhere = std::net::Ipv4Addr::from_bits(random.random());
    if prefixes.is_empty() || random.random_bool(0.5) {
        return anywhere.into();
    }
    let Prefix { address, length } = prefixes[random.random_range(0..prefixes.len())];
    match address {
        IpAddr::V4(network) => {
            let host =
                u32::MAX.checked_shr(u32::from(length)).unwrap_or(0) & random.random::<u32>();
            std::net::Ipv4Addr::from_bits(network.to_bits() | host).into()
        }
        IpAddr::V6(network) => {
            let host =
                u128::MAX.checked_shr(u32::from(length)).unwrap_or(0) & random.random::<u128>();
            std::net::Ipv6Addr::from_bits(network.to_bits() | host).into()
        }
    }
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What the kernel sends for a packet (`nfqnl_build_packet_message`): id, hook forward, interface, packet, mark.
pub(in crate::inspector) fn message(id: u32, interface: u32, mark: u32, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[4..6].copy_from_slice(&PACKET_MESSAGE.to_ne_bytes());
    bytes[16] = 2;
    let mut attribute = |kind: u16, value: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    };
    let id = id.to_be_bytes();
    attribute(1, &[id[0], id[1], id[2], id[3], 0x08, 0x00, 2]);
    attribute(5, &interface.to_be_bytes());
    attribute(10, packet);
    if mark != 0 {
        attribute(3, &mark.to_be_bytes());
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// `NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET`.
const PACKET_MESSAGE: u16 = 0x0300;

/// Where the packet stands in its message: behind 20 bytes of headers, attributes of 12 and 8 bytes, its own header.
const PACKET_AT: usize = 44;

const PORT: u16 = 80;
const SEED: u64 = 7;

#[cfg(test)]
mod tests {
    use fanq::nfq::Message;

    use super::*;
    use crate::inspector::PacketFacts;

    #[test]
    fn messages_are_packets_in_order_of_their_flows() {
        let mut traffic = Traffic::new(50, 100, &[]).unwrap();
        let facts_of = |traffic: &Traffic| -> Vec<u32> {
            let facts =
                traffic.messages().iter().zip(traffic.payloads()).map(|(message, payload)| {
                    let Ok((Message::Packet(packet), [])) = fanq::nfq::decode(message) else {
                        panic!("no packet in {message:?}");
                    };
                    let facts = PacketFacts::read(packet.payload());
                    assert_eq!(facts.payload, payload);
                    facts.tcp.unwrap().sequence
                });
            facts.collect()
        };
        let first = facts_of(&traffic);
        traffic.advance();
        let second = facts_of(&traffic);
        assert!(
            first.iter().zip(&second).all(|(first, second)| first.wrapping_add(100) == *second)
        );
    }
}
