//! Goal: each line of the module's table. Method: packets built by etherparse, then bent.

use etherparse::{IpNumber, PacketBuilder};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1000, 80, 7, 100);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(1000, 53);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// An IPv6 packet of these extension headers before `behind`.
fn with_extensions(extensions: &[(u8, &[u8])], protocol: u8, behind: &[u8]) -> Vec<u8> {
    let mut bytes = udp6(&[]);
    bytes.truncate(40);
    let mut next = 6;
    for (number, header) in extensions {
        bytes[next] = *number;
        next = bytes.len();
        bytes.extend(*header);
    }
    bytes[next] = protocol;
    bytes.extend(behind);
    let length = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn a_whole_segment_has_everything() {
    let packet = tcp4(b"hello");
    let facts = PacketFacts::read(&packet);
    let addresses = Addresses::V4 { source: 0x0a00_0001, destination: 0x0a00_0002 };
    assert_eq!((facts.addresses, facts.protocol), (Some(addresses), TCP));
    assert_eq!((facts.ports, facts.payload), (Some((1000, 80)), &b"hello"[..]));
    assert_eq!(facts.tcp, Some(TcpPlace { sequence: 7, begins: false }));
    let mut syn = tcp4(b"data");
    syn[20 + 13] |= TCP_SYN;
    assert_eq!(PacketFacts::read(&syn).tcp, Some(TcpPlace { sequence: 8, begins: true }));
    let facts_of_udp = udp6(b"question");
    let facts = PacketFacts::read(&facts_of_udp);
    assert_eq!(
        (facts.protocol, facts.ports, facts.payload),
        (UDP, Some((1000, 53)), &b"question"[..])
    );
}

#[test]
fn what_is_no_ip_packet_has_nothing() {
    for bytes in [&[][..], &[0x45], &[0x45; 19], &[0x44; 60], &[0x60; 39], &[0x50; 60], &[0; 100]] {
        let facts = PacketFacts::read(bytes);
        assert_eq!(
            (facts.addresses, facts.ports, facts.payload.len()),
            (None, None, 0),
            "{bytes:?}"
        );
    }
}

#[test]
fn only_the_first_fragment_has_ports_and_none_is_part_of_a_stream() {
    let mut first = tcp4(b"hello");
    first[6] = 0x20;
    let facts = PacketFacts::read(&first);
    assert_eq!((facts.ports, facts.tcp, facts.payload), (Some((1000, 80)), None, &b"hello"[..]));
    let mut later = tcp4(b"hello");
    later[7] = 1;
    let facts = PacketFacts::read(&later);
    assert_eq!((facts.protocol, facts.ports, facts.payload.len()), (TCP, None, 25));
    // A fragment of an authentication header, whose middle looks like anything.
    later[9] = 51;
    assert_eq!(PacketFacts::read(&later).protocol, 51);

    let fragment = |offset: u8| [0, 0, 0, offset << 3 | 1, 0, 0, 0, 9];
    let udp = &udp6(b"abc")[40..];
    let packet = with_extensions(&[(44, &fragment(0))], UDP, udp);
    let facts = PacketFacts::read(&packet);
    assert_eq!((facts.protocol, facts.ports, facts.payload), (UDP, Some((1000, 53)), &b"abc"[..]));
    let packet = with_extensions(&[(44, &fragment(1))], UDP, udp);
    let facts = PacketFacts::read(&packet);
    assert_eq!((facts.protocol, facts.ports, facts.payload), (UDP, None, udp));
    // The middle of a fragment is not taken for further headers.
    let packet = with_extensions(&[(44, &fragment(1))], 60, &[17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    let facts = PacketFacts::read(&packet);
    assert_eq!((facts.protocol, facts.ports, facts.payload.len()), (60, None, 12));
}

#[test]
fn extension_headers_in_any_order_lead_to_the_protocol_or_end_the_search() {
    let options = [0_u8, 0, 1, 4, 0, 0, 0, 0];
    let udp = &udp6(b"abc")[40..];
    let (hop, route, destination) = ((0, &options[..]), (43, &options[..]), (60, &options[..]));
    for order in [
        &[hop, destination, route][..],
        &[hop, route, destination],
        &[destination, route],
        &[route, destination],
        &[route, route, destination, destination],
    ] {
        let packet = with_extensions(order, UDP, udp);
        let facts = PacketFacts::read(&packet);
        assert_eq!(
            (facts.protocol, facts.ports, facts.payload),
            (UDP, Some((1000, 53)), &b"abc"[..]),
            "{order:?}"
        );
    }
    // RFC 8200, section 4.1: hop-by-hop options come first or the packet is discarded.
    let packet = with_extensions(&[destination, hop], UDP, udp);
    let facts = PacketFacts::read(&packet);
    assert_eq!((facts.protocol, facts.ports, facts.payload.len()), (0, None, 0));
    let packet = with_extensions(&[hop], 60, &[17]);
    assert_eq!(PacketFacts::read(&packet).ports, None, "a chain that is cut");
    let packet = with_extensions(&[hop], 59, &[1, 2, 3]);
    assert_eq!(
        (PacketFacts::read(&packet).protocol, PacketFacts::read(&packet).payload),
        (59, &[1, 2, 3][..])
    );
}

#[test]
fn lengths_that_lie_are_bounded_by_what_is_there() {
    let mut long = tcp4(b"hello");
    long[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    assert_eq!(PacketFacts::read(&long).payload, b"hello");
    let mut short = tcp4(b"hello");
    short[2..4].copy_from_slice(&42_u16.to_be_bytes());
    assert_eq!(PacketFacts::read(&short).payload, b"he");
    let mut offset = tcp4(b"hello");
    for (value, expected) in [(0x40, &b""[..]), (0xf0, b""), (0x60, b"o")] {
        offset[20 + 12] = value;
        let facts = PacketFacts::read(&offset);
        assert_eq!((facts.payload, facts.ports), (expected, Some((1000, 80))), "{value:x}");
        assert_eq!(facts.tcp.is_some(), value == 0x60);
    }
    let mut udp = udp6(b"question");
    for (length, expected) in
        [(0_u16, &b"question"[..]), (7, b"question"), (10, b"qu"), (999, b"question")]
    {
        udp[44..46].copy_from_slice(&length.to_be_bytes());
        assert_eq!(PacketFacts::read(&udp).payload, expected, "{length}");
    }
}

#[test]
fn a_cut_header_keeps_its_ports_as_long_as_they_are_there() {
    let packet = tcp4(b"hello");
    for length in 0..packet.len() {
        let facts = PacketFacts::read(&packet[..length]);
        assert_eq!(facts.addresses.is_some(), length >= 20);
        assert_eq!(facts.ports.is_some(), length >= 24, "{length}");
        assert_eq!(facts.tcp.is_some(), length >= 40, "{length}");
        assert_eq!(facts.payload.len(), length.saturating_sub(40), "{length}");
    }
}

#[test]
fn other_protocols_have_their_bytes_and_no_ports() {
    for (protocol, has_ports) in [(1, false), (50, false), (132, true), (136, true), (253, false)] {
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, IpNumber(protocol), &[0, 7, 0, 8, 9]).unwrap();
        let facts = PacketFacts::read(&bytes);
        assert_eq!((facts.protocol, facts.ports.is_some()), (protocol, has_ports));
        assert_eq!(facts.payload, [0, 7, 0, 8, 9]);
    }
}

/// A fragment header, and behind it a header that is not there, or not whole: nothing beyond the packet is read.
#[test]
fn extension_headers_that_are_cut_behind_a_fragments_end_there() {
    for kind in [60_u8, 43, 51, 44, 0] {
        for behind in 0..8 {
            for offset in [0x01_u16, 0x09] {
                let mut bytes = vec![0x60, 0, 0, 0, 0, 8 + behind, 44, 64];
                bytes.resize(40, 1);
                bytes.extend([kind, 0]);
                bytes.extend(offset.to_be_bytes());
                bytes.extend([0, 0, 0, 7]);
                bytes.extend(&[255; 8][..usize::from(behind)]);
                let facts = PacketFacts::read(&bytes);
                assert!(facts.payload.len() <= usize::from(behind), "{kind}, {behind}");
                if offset >= 8 {
                    let expected = (kind, &bytes[48..]);
                    assert_eq!((facts.protocol, facts.payload), expected);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        rest in vec(any::<u8>(), 0..200),
    ) {
        let bytes: Vec<_> = std::iter::once(first).chain(rest).collect();
        let facts = PacketFacts::read(&bytes);
        prop_assert!(facts.payload.len() <= bytes.len());
    }
}
