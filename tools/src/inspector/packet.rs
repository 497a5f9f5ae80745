//! What rules look at in a packet: addresses, protocol, ports, the bytes behind the headers.
//!
//! Invariant: no bytes make it panic, and what a packet does not have, no condition on it matches:
//!
//! | packet | what it has |
//! |---|---|
//! | neither IPv4 nor IPv6, or cut inside that header | nothing but hook and interfaces |
//! | a fragment other than the first | addresses, protocol, its bytes as payload; no ports |
//! | the first fragment | as a whole packet, but it is no part of a stream |
//! | IPv6 extension headers | the protocol behind them; where the chain breaks, the number there, and no ports |
//! | cut inside the header of TCP, UDP, SCTP | the ports if these four bytes are there; no payload |
//! | a length in IP that is more than was copied | what was copied |
//! | a length in IP that is less | no more than it says |
//! | a length in UDP, or a data offset in TCP, that points elsewhere | UDP: what IP has; TCP: no payload, no stream |
//!
//! It deliberately checks no checksum: the stack that gets the packet does.

use std::net::IpAddr;

use etherparse::{IpNumber, LaxIpSlice, LaxIpv4Slice, LaxIpv6Slice, ip_number};

use super::rules_file::WITH_PORTS;

/// A packet in the terms of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketFacts<'a> {
    /// None for what is no IP packet.
    pub(crate) addresses: Option<Addresses>,
    /// The protocol behind all IP headers; 255 ("reserved") for what is no IP packet.
    pub(crate) protocol: u8,
    /// Source and destination.
    pub(crate) ports: Option<(u16, u16)>,
    /// Where the payload stands in its TCP stream.
    pub(crate) tcp: Option<TcpPlace>,
    /// What lies behind the headers of TCP and UDP; behind those of IP for others.
    pub(crate) payload: &'a [u8],
}

/// Source and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4 { source: u32, destination: u32 },
    V6 { source: u128, destination: u128 },
}

/// A whole TCP segment's place in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpPlace {
    /// Sequence number of the payload's first byte.
    pub(crate) sequence: u32,
    /// Whether a new stream begins here.
    pub(crate) begins: bool,
}

impl<'a> PacketFacts<'a> {
    /// Reads a packet from its IP header on.
    #[inline]
    pub(crate) fn read(packet: &'a [u8]) -> Self {
        match LaxIpSlice::from_slice(packet) {
            Ok((LaxIpSlice::Ipv4(v4), stopped)) => Self::of_v4(packet, &v4, stopped.is_some()),
            Ok((LaxIpSlice::Ipv6(v6), stopped)) => Self::of_v6(packet, &v6, stopped.is_some()),
            Err(_) => Self {
                addresses: None,
                protocol: NO_PROTOCOL,
                ports: None,
                tcp: None,
                payload: &[],
            },
        }
    }

    #[inline]
    fn of_v4(packet: &'a [u8], v4: &LaxIpv4Slice<'a>, stopped: bool) -> Self {
        let header = v4.header();
        let addresses = Addresses::V4 {
            source: u32::from_be_bytes(header.source()),
            destination: u32::from_be_bytes(header.destination()),
        };
        if header.fragments_offset().value() > 0 {
            // What lies behind the header is the middle of something: no header is looked for in it.
            let length = header.slice().len();
            let end = usize::from(header.total_len());
            let bytes = packet.get(length..end).unwrap_or(&packet[length..]);
            return Self::without_ports(addresses, header.protocol().0, bytes);
        }
        let payload = v4.payload();
        if stopped {
            return Self::without_ports(addresses, payload.ip_number.0, &[]);
        }
        Self::behind_ip(addresses, payload.ip_number.0, payload.payload, payload.fragmented)
    }

    #[inline]
    fn of_v6(packet: &'a [u8], v6: &LaxIpv6Slice<'a>, stopped: bool) -> Self {
        let header = v6.header();
        let addresses = Addresses::V6 {
            source: u128::from_be_bytes(header.source()),
            destination: u128::from_be_bytes(header.destination()),
        };
        let payload = v6.payload();
        if payload.fragmented
            && let Some((protocol, behind)) = later_fragment(packet, v6)
        {
            return Self::without_ports(addresses, protocol, behind);
        }
        if stopped {
            return Self::without_ports(addresses, payload.ip_number.0, &[]);
        }
        Self::behind_ip(addresses, payload.ip_number.0, payload.payload, payload.fragmented)
    }

    #[inline]
    fn behind_ip(addresses: Addresses, protocol: u8, bytes: &'a [u8], fragmented: bool) -> Self {
        if !WITH_PORTS.contains(&protocol) {
            return Self::without_ports(addresses, protocol, bytes);
        }
        let ports = bytes.first_chunk::<4>().map(|ports| {
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        });
        let (payload, tcp) = match protocol {
            TCP => tcp_payload(bytes),
            UDP => (udp_payload(bytes), None),
            _ => (bytes, None),
        };
        Self {
            addresses: Some(addresses),
            protocol,
            ports,
            tcp: tcp.filter(|_| !fragmented),
            payload,
        }
    }

    #[inline]
    fn without_ports(addresses: Addresses, protocol: u8, payload: &'a [u8]) -> Self {
        Self { addresses: Some(addresses), protocol, ports: None, tcp: None, payload }
    }
}

impl Addresses {
    /// As text would have them.
    pub(crate) fn both(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 { source, destination } => (
                std::net::Ipv4Addr::from_bits(source).into(),
                std::net::Ipv4Addr::from_bits(destination).into(),
            ),
            Self::V6 { source, destination } => (
                std::net::Ipv6Addr::from_bits(source).into(),
                std::net::Ipv6Addr::from_bits(destination).into(),
            ),
        }
    }

    /// Source and destination as 128 bits. Those of IPv4 stand where no address of IPv6 on the wire does
    /// (`::ffff:0:0/96`, RFC 4038 section 4.2).
    #[inline]
    pub(crate) const fn wide(self) -> (u128, u128) {
        match self {
            Self::V4 { source, destination } => {
                (V4_MAPPED | source as u128, V4_MAPPED | destination as u128)
            }
            Self::V6 { source, destination } => (source, destination),
        }
    }
}

/// Protocol and bytes of an IPv6 fragment other than the first. Walks by itself: etherparse's iterator over extension
/// headers (0.21.0) takes it for granted that all of them are whole, and reads beyond the packet where one is not.
#[cold]
fn later_fragment<'a>(packet: &'a [u8], v6: &LaxIpv6Slice<'a>) -> Option<(u8, &'a [u8])> {
    let extensions = v6.extensions().slice();
    let begins = v6.header().slice().len();
    let ends = begins + extensions.len() + v6.payload().payload.len();
    let (mut kind, mut at) = (v6.header().next_header(), 0);
    loop {
        let rest = extensions.get(at..)?;
        let length = match kind {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                8 * (usize::from(*rest.get(1)?) + 1)
            }
            ip_number::AUTH => 4 * (usize::from(*rest.get(1)?) + 2),
            ip_number::IPV6_FRAG => 8,
            _ => return None,
        };
        let header = rest.get(..length)?;
        at += length;
        // The offset counts in units of 8 bytes; the last three bits are others'.
        if kind == ip_number::IPV6_FRAG && u16::from_be_bytes([header[2], header[3]]) >= 8 {
            // What etherparse took for further headers is the middle of something, too.
            return Some((header[0], packet.get(begins + at..ends).unwrap_or(&[])));
        }
        kind = IpNumber(header[0]);
    }
}

/// What lies behind the TCP header, and where it stands in the stream.
#[inline]
fn tcp_payload(bytes: &[u8]) -> (&[u8], Option<TcpPlace>) {
    let Some(header) = bytes.first_chunk::<TCP_HEADER_BYTES>() else { return (&[], None) };
    let offset = usize::from(header[12] >> 4) * 4;
    let Some(payload) = bytes.get(offset..).filter(|_| offset >= TCP_HEADER_BYTES) else {
        return (&[], None);
    };
    let begins = header[13] & TCP_SYN != 0;
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    // A SYN takes a number of its own.
    let sequence = sequence.wrapping_add(u32::from(begins));
    (payload, Some(TcpPlace { sequence, begins }))
}

/// What the UDP header's length covers; all there is if that cannot be.
#[inline]
fn udp_payload(bytes: &[u8]) -> &[u8] {
    let Some(header) = bytes.first_chunk::<UDP_HEADER_BYTES>() else { return &[] };
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    bytes.get(UDP_HEADER_BYTES..length).unwrap_or(&bytes[UDP_HEADER_BYTES..])
}

/// What stands for a protocol where there is none (IANA: reserved).
pub(crate) const NO_PROTOCOL: u8 = 255;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_SYN: u8 = 0x02;
const V4_MAPPED: u128 = 0xffff << 32;

#[cfg(test)]
mod tests;
