//! Packets for the tests, built and judged by etherparse: their headers, their sums, none of ours.

use etherparse::{
    Icmpv4Type, Icmpv6Type, Ipv4Header, Ipv6Header, SlicedPacket, TcpHeader, UdpHeader, ip_number,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A whole, undamaged packet, and where its transport header begins.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    pub(super) protocol: u8,
}

pub(super) fn sample() -> impl Strategy<Value = Sample> {
    let network = prop_oneof![
        (any::<[u8; 8]>(), vec(any::<u8>(), 0..9)).prop_map(|(addresses, words)| {
            // Options: any bytes of a kind that says nothing here (RFC 4727's experimental one).
            let options = words.iter().flat_map(|word| [0x5e, 4, *word, !*word]).collect();
            Network::V4 { addresses, options }
        }),
        (any::<[u8; 32]>(), vec((0..5_usize, 0..3_u8), 0..7))
            .prop_map(|(addresses, extensions)| Network::V6 { addresses, extensions }),
    ];
    let any_byte = || prop_oneof![3 => any::<u8>(), 1 => Just(0_u8), 1 => Just(0xff)];
    let head = proptest::array::uniform20(any_byte());
    let payload = prop_oneof![4 => vec(any_byte(), 0..64), 1 => vec(any_byte(), 0..3000)];
    (network, 0..4_u8, head, vec(any::<u8>(), 0..11), payload).prop_map(
        |(network, kind, head, options, payload)| build(&network, kind, head, &options, &payload),
    )
}

#[derive(Debug, Clone)]
enum Network {
    V4 { addresses: [u8; 8], options: Vec<u8> },
    V6 { addresses: [u8; 32], extensions: Vec<(usize, u8)> },
}

fn build(network: &Network, kind: u8, head: [u8; 20], options: &[u8], payload: &[u8]) -> Sample {
    let icmp = if matches!(network, Network::V4 { .. }) { ICMP } else { ICMPV6 };
    let protocol = [TCP, UDP, icmp, 253][usize::from(kind)];
    let transport = transport(protocol, head, options, payload);
    let (mut bytes, at) = match network {
        Network::V4 { addresses, options } => {
            ipv4(*addresses, options, protocol, head, transport.len())
        }
        Network::V6 { addresses, extensions } => {
            ipv6(addresses, extensions, protocol, head, transport.len())
        }
    };
    bytes.extend(transport);
    let mut sample = Sample { bytes, at, protocol };
    if let Some(checksum) = sample.right_checksum() {
        let at = sample.checksum_at();
        sample.bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    sample
}

fn transport(protocol: u8, head: [u8; 20], options: &[u8], payload: &[u8]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let mut bytes = match protocol {
        TCP => {
            let mut tcp = TcpHeader::new(word(0), word(2), u32::from(word(4)) << 16, word(6));
            tcp.acknowledgment_number = u32::from(word(8)) << 8;
            (tcp.syn, tcp.ack, tcp.urg) = (head[10] & 1 != 0, head[10] & 2 != 0, head[10] & 4 != 0);
            tcp.urgent_pointer = word(12);
            tcp.set_options_raw(&options[..options.len() & !3]).unwrap();
            tcp.to_bytes().to_vec()
        }
        UDP => {
            let length = u16::try_from(8 + payload.len()).unwrap();
            let udp =
                UdpHeader { source_port: word(0), destination_port: word(2), length, checksum: 0 };
            udp.to_bytes().to_vec()
        }
        ICMP | ICMPV6 => [&head[..2], &[0, 0], &head[4..8]].concat(),
        _ => Vec::new(),
    };
    bytes.extend(payload);
    bytes
}

fn ipv4(
    addresses: [u8; 8],
    options: &[u8],
    protocol: u8,
    head: [u8; 20],
    length: usize,
) -> (Vec<u8>, usize) {
    let (source, destination) = addresses.split_at(4);
    let (source, destination) = (source.try_into().unwrap(), destination.try_into().unwrap());
    let length = u16::try_from(length).unwrap();
    let mut header =
        Ipv4Header::new(length, head[14], protocol.into(), source, destination).unwrap();
    header.options = options.try_into().unwrap();
    header.set_payload_len(usize::from(length)).unwrap();
    header.identification = u16::from(head[15]) << 4;
    header.header_checksum = header.calc_header_checksum();
    (header.to_bytes().to_vec(), header.header_len())
}

/// Extension headers in the order given: hop-by-hop, routing, fragment (an atomic one), destination options, AH.
fn ipv6(
    addresses: &[u8; 32],
    extensions: &[(usize, u8)],
    protocol: u8,
    head: [u8; 20],
    length: usize,
) -> (Vec<u8>, usize) {
    let numbers: Vec<u8> = extensions.iter().map(|(kind, _)| [0, 43, 44, 60, 51][*kind]).collect();
    let mut between = Vec::new();
    for (index, (number, (_, words))) in numbers.iter().zip(extensions).enumerate() {
        let next = numbers.get(index + 1).copied().unwrap_or(protocol);
        let begins = between.len();
        between.extend(match number {
            // Two words more than the two of the length field's 0, which keeps IPv6's multiple of 8.
            51 => [next, 4 + 2 * words],
            44 => [next, 0],
            _ => [next, *words],
        });
        // No segments left, no fragment offset: zeros.
        let size = match number {
            51 => (6 + 2 * usize::from(*words)) * 4,
            44 => 8,
            _ => 8 + 8 * usize::from(*words),
        };
        between.resize(begins + size, 0);
    }
    let header = Ipv6Header {
        traffic_class: head[16],
        flow_label: (u32::from(head[17]) << 9).try_into().unwrap(),
        payload_length: u16::try_from(between.len() + length).unwrap(),
        next_header: numbers.first().copied().unwrap_or(protocol).into(),
        hop_limit: head[18],
        source: *addresses.first_chunk().unwrap(),
        destination: *addresses.last_chunk().unwrap(),
    };
    let at = 40 + between.len();
    ([&header.to_bytes()[..], &between].concat(), at)
}

impl Sample {
    pub(super) fn is_v4(&self) -> bool {
        self.bytes[0] >> 4 == 4
    }

    /// Where the transport checksum stands.
    pub(super) fn checksum_at(&self) -> usize {
        self.at
            + [(TCP, 16), (UDP, 6), (ICMP, 2), (ICMPV6, 2)]
                .into_iter()
                .find_map(|(protocol, at)| (protocol == self.protocol).then_some(at))
                .unwrap_or(0)
    }

    pub(super) fn checksum(&self) -> u16 {
        u16::from_be_bytes(*self.bytes[self.checksum_at()..].first_chunk().unwrap())
    }

    pub(super) fn set_checksum(&mut self, checksum: u16) {
        let at = self.checksum_at();
        self.bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// What etherparse says the transport checksum should be.
    pub(super) fn right_checksum(&self) -> Option<u16> {
        let transport = &self.bytes[self.at..];
        let sum = match self.protocol {
            TCP => {
                let (header, payload) = TcpHeader::from_slice(transport).unwrap();
                match self.addresses() {
                    Addresses::V4(source, destination) => {
                        header.calc_checksum_ipv4_raw(source, destination, payload)
                    }
                    Addresses::V6(source, destination) => {
                        header.calc_checksum_ipv6_raw(source, destination, payload)
                    }
                }
            }
            UDP => {
                let (header, payload) = UdpHeader::from_slice(transport).unwrap();
                match self.addresses() {
                    Addresses::V4(source, destination) => {
                        header.calc_checksum_ipv4_raw(source, destination, payload)
                    }
                    Addresses::V6(source, destination) => {
                        header.calc_checksum_ipv6_raw(source, destination, payload)
                    }
                }
            }
            ICMP => {
                let [type_u8, code_u8, _, _, a, b, c, d] = *transport.first_chunk().unwrap();
                let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: [a, b, c, d] };
                Ok(kind.calc_checksum(&transport[8..]))
            }
            ICMPV6 => {
                let [type_u8, code_u8, _, _, a, b, c, d] = *transport.first_chunk().unwrap();
                let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: [a, b, c, d] };
                let Addresses::V6(source, destination) = self.addresses() else { return None };
                kind.calc_checksum(source, destination, &transport[8..])
            }
            _ => return None,
        };
        Some(sum.unwrap())
    }

    /// The sum that the kernel leaves in an open field: the pseudo header's, not complemented.
    pub(super) fn pseudo_sum(&self) -> u16 {
        let length = u32::try_from(self.bytes.len() - self.at).unwrap().to_be_bytes();
        let addresses = if self.is_v4() { 12..20 } else { 8..40 };
        if self.protocol == ICMP {
            return 0;
        }
        let sum = etherparse::checksum::Sum16BitWords::new()
            .add_slice(&self.bytes[addresses])
            .add_slice(&length)
            .add_2bytes([0, self.protocol]);
        !sum.ones_complement().to_be()
    }

    /// Whether etherparse reads the packet and finds every checksum right.
    pub(super) fn verify(&self) {
        if self.is_v4() {
            let (header, _) = Ipv4Header::from_slice(&self.bytes).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header");
        }
        if let Some(right) = self.right_checksum() {
            assert_eq!(self.checksum(), right, "transport of {self:?}");
        }
        // It takes hop-by-hop options at the beginning only, and looks into ICMP messages.
        let hop_by_hop_late =
            !self.is_v4() && self.bytes[40..self.at].chunks(8).any(|chunk| chunk[0] == 0);
        if !hop_by_hop_late && matches!(self.protocol, TCP | UDP) {
            SlicedPacket::from_ip(&self.bytes).unwrap();
        }
    }

    fn addresses(&self) -> Addresses {
        let bytes = &self.bytes;
        if self.is_v4() {
            Addresses::V4(*bytes[12..].first_chunk().unwrap(), *bytes[16..].first_chunk().unwrap())
        } else {
            Addresses::V6(*bytes[8..].first_chunk().unwrap(), *bytes[24..].first_chunk().unwrap())
        }
    }
}

enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

pub(super) const TCP: u8 = ip_number::TCP.0;
pub(super) const UDP: u8 = ip_number::UDP.0;
pub(super) const ICMP: u8 = ip_number::ICMP.0;
pub(super) const ICMPV6: u8 = ip_number::IPV6_ICMP.0;
