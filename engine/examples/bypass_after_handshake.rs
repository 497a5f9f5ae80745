//! Once a flow's first packets were seen, its later ones pass before the queue: its connection is marked.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout --bypass-mark 0x1`, then run this with `0-3`.

use std::hash::{BuildHasher, RandomState};

use fanq::{Engine, Inspector, Packet, Verdict};

/// What the rules know a bypassed packet by, and mark its connection with.
const MARK: u32 = 0x1;
/// TCP's handshake, and the first that is said.
const PACKETS: u8 = 10;

/// A table of fixed size: of two flows in one place the later one begins anew.
struct BypassAfterHandshake {
    hasher: RandomState,
    seen: Vec<(u64, u8)>,
}

impl BypassAfterHandshake {
    fn new() -> Self {
        Self { hasher: RandomState::new(), seen: vec![(0, 0); 1 << 16] }
    }

    /// How many packets of its flow came, this one included. TCP and UDP over IPv4 without options.
    fn count(&mut self, packet: &[u8]) -> Option<u8> {
        let (&[0x45, .., 6 | 17, _, _], ports) = (packet.get(..12)?, packet.get(20..24)?) else {
            return None;
        };
        // Both directions are one flow.
        let mut ends = [(&packet[12..16], &ports[..2]), (&packet[16..20], &ports[2..])];
        ends.sort_unstable();
        let flow = self.hasher.hash_one((ends, packet[9]));
        let [low, high, ..] = flow.to_le_bytes();
        let place = &mut self.seen[usize::from(u16::from_le_bytes([low, high]))];
        // A SYN is a new connection, on whatever ports.
        let begins = packet[9] == 6 && packet.get(33)? & 0x12 == 0x02;
        let before = if place.0 == flow && !begins { place.1 } else { 0 };
        *place = (flow, before.saturating_add(1));
        Some(place.1)
    }
}

impl Inspector for BypassAfterHandshake {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        match self.count(packet.payload()) {
            Some(PACKETS..) => Verdict::REPEAT.with_mark(packet.mark() | MARK),
            _ => Verdict::ACCEPT,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let make = |_worker| BypassAfterHandshake::new();
    Engine::builder().queues(queues).start(make)?.wait(None)?;
    Ok(())
}
