//! How many packets of each flow came by, in a table of fixed size.
//!
//! Invariant: counting allocates nothing and never counts too much: a flow that loses its place to another begins
//! anew, and so does one whose ports are used for a new TCP connection. Both directions are one flow.
//!
//! A flow is two addresses, a protocol and two ports; of a protocol without ports, all that lies between two hosts. It
//! deliberately follows no extension headers and puts no fragments together: what lies behind them belongs to some flow
//! that cannot be told from others, so those packets have none.

use std::hash::{BuildHasher, RandomState};

/// A packet's ends: address and port, IPv4 addresses in front.
type End = [u8; ADDRESS_BYTES + 2];

/// Packets by flow.
#[derive(Debug)]
pub(super) struct FlowCounts {
    /// Random, so that nobody outside can tell which flows share a place.
    hasher: RandomState,
    places: Box<[Place]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The hash of the flow that is counted here.
    flow: u64,
    packets: u32,
}

impl FlowCounts {
    pub(super) fn new() -> Self {
        let places = vec![Place::default(); PLACES].into_boxed_slice();
        Self { hasher: RandomState::new(), places }
    }

    /// Counts a packet, given from its network header on, and returns how many of its flow there were, this one
    /// included. None for what has no flow.
    #[inline]
    pub(super) fn count(&mut self, packet: &[u8]) -> Option<u32> {
        let flow = Flow::of(packet)?;
        let hash = self.hasher.hash_one((flow.ends, flow.protocol));
        let index = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let place = &mut self.places[index];
        if place.flow != hash || flow.begins {
            *place = Place { flow: hash, packets: 0 };
        }
        place.packets = place.packets.saturating_add(1);
        Some(place.packets)
    }
}

/// What a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    /// In rising order, whatever the direction.
    ends: [End; 2],
    protocol: u8,
    /// Whether the packet asks for a new TCP connection.
    begins: bool,
}

impl Flow {
    fn of(packet: &[u8]) -> Option<Self> {
        let (protocol, addresses, transport) = match packet.first()? >> 4 {
            4 => {
                let header = packet.get(..20)?;
                let rest = packet.get(usize::from(header[0] & 0xf) * 4..)?;
                // More fragments, or not the first.
                let fragment = header[6] & 0x3f != 0 || header[7] != 0;
                if fragment {
                    return None;
                }
                (header[9], &header[12..20], rest)
            }
            6 => {
                let header = packet.get(..40)?;
                (header[6], &header[8..40], &packet[40..])
            }
            _ => return None,
        };
        if EXTENSIONS.contains(&protocol) {
            return None;
        }
        let has_ports = matches!(protocol, TCP | UDP | SCTP | DCCP | UDP_LITE);
        let ports = if has_ports { transport.get(..4) } else { None }.unwrap_or(&[0; 4]);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let mut ends = [end(source, &ports[..2]), end(destination, &ports[2..])];
        ends.sort_unstable();
        let flags = if protocol == TCP { transport.get(13) } else { None };
        let begins = flags.is_some_and(|flags| flags & (TCP_SYN | TCP_ACK) == TCP_SYN);
        Some(Self { ends, protocol, begins })
    }
}

fn end(address: &[u8], port: &[u8]) -> End {
    let mut end = [0; ADDRESS_BYTES + 2];
    end[..address.len()].copy_from_slice(address);
    end[ADDRESS_BYTES..].copy_from_slice(port);
    end
}

const ADDRESS_BYTES: usize = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// Headers that stand between IP's and the transport's: hop-by-hop options, routing, fragment, authentication,
/// destination options, mobility, HIP, shim6 (IANA, "IPv6 Extension Header Types"; without ESP, behind which nothing
/// can be read). IPv4 has the authentication header, too; the other numbers here are of IPv6 alone.
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// 1 MiB a worker.
const PLACES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    fn ipv4(from: (u8, u16), to: (u8, u16), protocol: u8, flags: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, from.0, 10, 0, 0, to.0]);
        packet[20..22].copy_from_slice(&from.1.to_be_bytes());
        packet[22..24].copy_from_slice(&to.1.to_be_bytes());
        packet[33] = flags;
        packet
    }

    #[test]
    fn both_directions_are_one_flow_and_other_ports_another() {
        let mut flows = FlowCounts::new();
        let mut count = |from, to| flows.count(&ipv4(from, to, TCP, ACK));
        assert_eq!(count((1, 1000), (2, 80)), Some(1));
        assert_eq!(count((2, 80), (1, 1000)), Some(2));
        assert_eq!(count((1, 1001), (2, 80)), Some(1));
        assert_eq!(count((1, 80), (2, 1000)), Some(1));
        assert_eq!(count((1, 1000), (2, 80)), Some(3));
        assert_eq!(flows.count(&ipv4((1, 1000), (2, 80), UDP, 0)), Some(1));
    }

    #[test]
    fn ports_that_are_used_again_begin_anew() {
        let mut flows = FlowCounts::new();
        let packet = |flags| ipv4((1, 1000), (2, 80), TCP, flags);
        let counts = [SYN, ACK, ACK, SYN | ACK, SYN, ACK].map(|flags| flows.count(&packet(flags)));
        assert_eq!(counts, [1, 2, 3, 4, 1, 2].map(Some));
    }

    #[test]
    fn what_hides_its_ports_has_no_flow() {
        let mut flows = FlowCounts::new();
        for offset in [0x20, 0x01] {
            let mut packet = ipv4((1, 1000), (2, 80), UDP, 0);
            packet[6] = offset;
            assert_eq!(flows.count(&packet), None, "a fragment");
        }
        assert_eq!(flows.count(&ipv4((1, 1000), (2, 80), 51, 0)), None);
        for (next, has_flow) in [
            (0, false),
            (43, false),
            (44, false),
            (60, false),
            (140, false),
            (58, true),
            (50, true),
        ] {
            let mut packet = vec![0; 80];
            (packet[0], packet[6], packet[40]) = (0x60, next, TCP);
            assert_eq!(flows.count(&packet).is_some(), has_flow, "{next}");
        }
    }

    #[test]
    fn every_protocol_with_ports_is_told_by_them() {
        let mut flows = FlowCounts::new();
        for protocol in [TCP, UDP, SCTP, DCCP, UDP_LITE] {
            for port in [1000, 1001] {
                assert_eq!(flows.count(&ipv4((1, port), (2, 80), protocol, 0)), Some(1));
            }
        }
    }

    #[test]
    fn ipv6_counts_too_and_what_is_cut_short_or_no_ip_does_not() {
        let mut flows = FlowCounts::new();
        let mut packet = vec![0; 60];
        (packet[0], packet[6]) = (0x60, TCP);
        (packet[23], packet[39], packet[41]) = (1, 2, 80);
        assert_eq!((flows.count(&packet), flows.count(&packet)), (Some(1), Some(2)));
        // Without ports it is another flow, but still one.
        assert_eq!(flows.count(&packet[..42]), Some(1));
        let mut long_header = vec![0; 20];
        long_header[0] = 0x4f;
        for cut in [&packet[..39], &[], &[0x45], &long_header, &[0x75; 64]] {
            assert_eq!(flows.count(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn a_full_table_forgets_but_never_counts_too_much() {
        let mut flows = FlowCounts::new();
        let flow = |n: u32| ipv4((1, (n >> 16) as u16), (2, (n & 0xffff) as u16), TCP, ACK);
        for n in 0..200_000 {
            assert_eq!(flows.count(&flow(n)), Some(1));
        }
    }
}
