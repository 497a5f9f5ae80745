//! Which flow a packet belongs to, as one number.
//!
//! Invariant: both directions of a flow have the same hash, and every packet of a flow has, unless some of them are
//! fragments: a fragment goes by its addresses alone, since only the first knows ports. (Where conntrack is in use,
//! packets are put together before they are queued.) It deliberately answers for any bytes: what is no IP packet
//! is one flow.

/// The hash of the addresses and, where there are some, the ports.
pub(super) fn symmetric_hash(packet: &[u8]) -> u64 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        _ => 0,
    }
}

fn ipv4(packet: &[u8]) -> u64 {
    let Some((header, _)) = packet.split_first_chunk::<20>() else { return 0 };
    let transport = usize::from(header[0] & 0x0f) * 4;
    let fragment = header[6] & 0x3f != 0 || header[7] != 0;
    let ports = if fragment { [0; 2] } else { ports(packet, header[9], transport) };
    let address = |at: usize| {
        u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    join(end(address(12), 0, ports[0]), end(address(16), 0, ports[1]))
}

fn ipv6(packet: &[u8]) -> u64 {
    let Some((header, _)) = packet.split_first_chunk::<40>() else { return 0 };
    // Behind an extension header the ports are not looked for.
    let ports = ports(packet, header[6], 40);
    let half =
        |at: usize| header[at..at + 8].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    join(end(half(8), half(16), ports[0]), end(half(24), half(32), ports[1]))
}

/// Source and destination port, for the protocols that begin with them.
fn ports(packet: &[u8], protocol: u8, at: usize) -> [u16; 2] {
    let has_ports = matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE);
    match packet.get(at..at + 4) {
        Some(bytes) if has_ports => {
            [u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])]
        }
        _ => [0; 2],
    }
}

/// One end of a flow.
fn end(high: u64, low: u64, port: u16) -> u64 {
    let mixed = (high ^ low.rotate_left(32) ^ u64::from(port) << 40).wrapping_mul(ODD);
    mixed ^ mixed >> 29
}

/// Both ends: the sum does not know which came first. The last step spreads it over all bits.
fn join(one: u64, other: u64) -> u64 {
    let sum = one.wrapping_add(other).wrapping_mul(ODD);
    sum ^ sum >> 32
}

/// The golden ratio's first 64 bits: multiplying by it spreads neighbours apart.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

#[cfg(test)]
mod tests {
    use super::*;

    fn udp4(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, 17, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    #[test]
    fn both_directions_are_one_flow_and_other_ports_another() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let there = symmetric_hash(&udp4(a, b, [1000, 53], 0));
        assert_eq!(there, symmetric_hash(&udp4(b, a, [53, 1000], 0)));
        assert_ne!(there, symmetric_hash(&udp4(a, b, [1001, 53], 0)));
        assert_ne!(there, symmetric_hash(&udp4(a, b, [53, 1000], 0)), "ports belong to their ends");
        let fragment = symmetric_hash(&udp4(a, b, [1000, 53], 0x2000));
        assert_eq!(fragment, symmetric_hash(&udp4(a, b, [7, 7], 0x00ff)), "by addresses alone");
        let mut six = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        six.extend([[0x20; 16], [0x30; 16]].concat());
        six.extend([0x10, 0, 0, 53, 0, 8, 0, 0]);
        let mut back = six.clone();
        back[8..24].copy_from_slice(&[0x30; 16]);
        back[24..40].copy_from_slice(&[0x20; 16]);
        back[40..44].copy_from_slice(&[0, 53, 0x10, 0]);
        assert_eq!(symmetric_hash(&six), symmetric_hash(&back));
        assert_ne!(symmetric_hash(&six), 0);
    }

    #[test]
    fn any_bytes_have_a_hash_and_neighbours_spread() {
        for length in 0..60 {
            for first in [0x00, 0x45, 0x4f, 0x60, 0xff] {
                symmetric_hash(&vec![first; length]);
            }
        }
        let mut lanes = [0; 4];
        for port in 1000..2000 {
            let hash = symmetric_hash(&udp4([10, 0, 0, 1], [10, 0, 0, 2], [port, 53], 0));
            lanes[usize::try_from(hash % 4).unwrap()] += 1;
        }
        assert!(lanes.iter().all(|flows| (150..350).contains(flows)), "{lanes:?}");
    }
}
