//! Packets that no builder makes: source routes, trailing bytes, rarer protocols; and one whose sums are well known.

use etherparse::checksum::Sum16BitWords;

use super::super::*;
use super::{Sample, edit};

/// `head`, an IPv4 header without lengths and sums, and what follows it, made right.
fn ipv4(head: [u8; 20], rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&head[..], rest].concat();
    let length = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    super::seal_header(&mut bytes);
    bytes
}

/// An IPv6 packet from 2001:db8::1 to 2001:db8::2.
fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    bytes.extend(address(1));
    bytes.extend(address(2));
    bytes.extend(rest);
    bytes
}

fn address(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    address[15] = last;
    address
}

#[test]
fn a_header_known_from_textbooks() {
    // 192.168.0.1 to 192.168.0.199, UDP, 115 bytes: its checksum is 0xb861.
    let header =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];
    let mut bytes = [&header[..], &[0, 53, 0, 53, 0, 95, 0, 0], &[0; 87]].concat();
    let mut again = bytes.clone();
    again[10..12].fill(0xaa);
    recompute_checksums(&mut again).unwrap();
    assert_eq!(again, bytes);
    // A router's work: the time to live goes down by one, the checksum up by 0x0100.
    edit(&mut bytes).ipv4().unwrap().set_ttl(63);
    assert_eq!(bytes[8..12], [63, 0x11, 0xb9, 0x61]);
    edit(&mut bytes).ipv4().unwrap().set_ttl(64).set_destination([192, 168, 0, 198].into());
    assert_eq!(bytes[10..12], [0xb8, 0x62]);
    assert_eq!(bytes[26..28], [0, 0], "UDP sent without a checksum");
}

#[test]
fn udp_that_sums_to_nothing_writes_all_ones() {
    let sum = Sum::pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, 10)
        .plus(Sum::of(&[0, 7, 0, 9, 0, 10]));
    let [high, low] = sum.checksum().to_be_bytes();
    let mut bytes = ipv4(
        [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
        &[0, 7, 0, 9, 0, 10, 1, 1, high, low],
    );
    recompute_checksums(&mut bytes).unwrap();
    assert_eq!(bytes[26..28], [0xff, 0xff]);
    let right = bytes.clone();
    edit(&mut bytes).udp().unwrap().set_source_port(8);
    assert_ne!(bytes[26..28], [0xff, 0xff]);
    edit(&mut bytes).udp().unwrap().set_source_port(7);
    assert_eq!(bytes, right, "and the update finds its way back to it");
}

#[test]
fn bytes_behind_udps_length_are_not_covered_and_stay() {
    // UDP options (RFC 9868): the datagram ends before the packet does.
    let mut bytes = ipv4(
        [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
        &[0, 7, 0, 9, 0, 10, 1, 1, b'h', b'i', 0xde, 0xad, 0xbe, 0xef],
    );
    let mut opened = edit(&mut bytes);
    assert_eq!(opened.l4_payload(), b"hi");
    opened.l4_payload_mut().unwrap().copy_from_slice(b"ho");
    opened.finish();
    let short = Sample { bytes: bytes[..30].to_vec(), at: 20, protocol: 17 };
    assert_eq!(Some(short.checksum()), short.right_checksum());
    assert_eq!(bytes[30..], [0xde, 0xad, 0xbe, 0xef]);
}

/// The checksum of a UDP datagram that ends the packet, with the pseudo header's destination given.
fn udp_checksum(source: &[u8], destination: &[u8], datagram: &[u8]) -> u16 {
    let mut datagram = datagram.to_vec();
    datagram[6..8].fill(0);
    let length = u16::try_from(datagram.len()).unwrap();
    Sum16BitWords::new()
        .add_slice(source)
        .add_slice(destination)
        .add_2bytes([0, 17])
        .add_2bytes(length.to_be_bytes())
        .add_slice(&datagram)
        .to_ones_complement_with_no_zero()
        .to_be()
}

#[test]
fn behind_a_route_the_checksum_covers_the_final_destination() {
    let datagram = [0, 7, 0, 9, 0, 12, 1, 1, 1, 2, 3, 4];
    let stops = [address(0x11), address(0x22)].concat();
    // Routing type, segments left, and where the final address stands.
    let routes = [(0, 1, 0x22), (2, 1, 0x22), (4, 1, 0x11), (0, 0, 2), (4, 0, 2), (200, 0, 2)];
    for (kind, segments_left, last) in routes {
        let route = [&[17, 4, kind, segments_left, 0, 0, 0, 0][..], &stops].concat();
        let mut bytes = ipv6(43, &[&route[..], &datagram].concat());
        let at = bytes.len() - datagram.len();
        recompute_checksums(&mut bytes).unwrap();
        let checksum = |bytes: &[u8]| u16::from_be_bytes([bytes[at + 6], bytes[at + 7]]);
        let right = udp_checksum(&address(1), &address(last), &bytes[at..]);
        assert_eq!(checksum(&bytes), right, "type {kind}, {segments_left} left");
        edit(&mut bytes).ipv6().unwrap().set_source(address(9).into());
        let right = udp_checksum(&address(9), &address(last), &bytes[at..]);
        assert_eq!(checksum(&bytes), right, "type {kind}, {segments_left} left: source");
        edit(&mut bytes).ipv6().unwrap().set_destination(address(3).into());
        let last = if segments_left == 0 { 3 } else { last };
        let right = udp_checksum(&address(9), &address(last), &bytes[at..]);
        assert_eq!(checksum(&bytes), right, "type {kind}, {segments_left} left: destination");
    }
}

#[test]
fn a_route_that_cannot_be_read_lets_fields_be_edited_and_no_more() {
    // The compressed route of RPL (RFC 6554).
    let mut bytes = ipv6(43, &[17, 0, 3, 1, 0, 0, 0, 0, 0, 7, 0, 9, 0, 8, 0x55, 0x66]);
    let unknown = WireError::UnknownRoute { kind: 3, offset: 40 };
    assert_eq!(recompute_checksums(&mut bytes), Err(unknown));
    assert_eq!(PacketEdit::new(&mut bytes, L4Checksum::Open).unwrap_err(), unknown);
    let mut opened = edit(&mut bytes);
    assert_eq!(opened.l4_payload_mut().unwrap_err(), unknown);
    opened.udp().unwrap().set_destination_port(10);
    opened.ipv6().unwrap().set_destination(address(77).into());
    opened.finish();
    assert_eq!(bytes[54..56], [0x55, 0x65], "the port's change alone");
}

#[test]
fn an_ipv4_source_route_counts_while_it_has_stops() {
    let datagram = [0, 7, 0, 9, 0, 8, 1, 1];
    for (pointer, last) in [(4, [4, 4, 4, 4]), (8, [4, 4, 4, 4]), (12, [10, 0, 0, 2])] {
        // A no-operation first, so that addresses stand at odd places of the option.
        let options = [1, 131, 11, pointer, 3, 3, 3, 3, 4, 4, 4, 4];
        let head = [0x48, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut bytes = ipv4(head, &[&options[..], &datagram].concat());
        recompute_checksums(&mut bytes).unwrap();
        let right = udp_checksum(&[10, 0, 0, 1], &last, &bytes[32..]);
        assert_eq!(bytes[38..40], right.to_be_bytes(), "pointer {pointer}");
        edit(&mut bytes).ipv4().unwrap().set_destination([10, 0, 0, 3].into());
        let last = if pointer > 11 { [10, 0, 0, 3] } else { last };
        let right = udp_checksum(&[10, 0, 0, 1], &last, &bytes[32..]);
        assert_eq!(bytes[38..40], right.to_be_bytes(), "pointer {pointer}: destination");
    }
}

#[test]
fn addresses_above_udp_lite_and_dccp_update_their_checksums_too() {
    for protocol in [33, 136] {
        let head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut bytes = ipv4(head, &[0, 7, 0, 9, 0, 8, 0x12, 0x34, 1, 2, 3, 4]);
        edit(&mut bytes).ipv4().unwrap().set_source([10, 0, 0, 5].into());
        assert_eq!(bytes[26..28], [0x12, 0x30], "protocol {protocol}");
    }
}

#[test]
fn an_authentication_header_is_walked_over_in_ipv4_too() {
    let authentication = [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 51, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let mut bytes = ipv4(head, &[&authentication[..], &[0, 7, 0, 9, 0, 8, 1, 1]].concat());
    recompute_checksums(&mut bytes).unwrap();
    let right = udp_checksum(&[10, 0, 0, 1], &[10, 0, 0, 2], &bytes[44..]);
    assert_eq!(bytes[50..52], right.to_be_bytes());
    assert_eq!(edit(&mut bytes).udp().unwrap().destination_port(), 9);
}

#[test]
fn an_empty_ipv6_packet_may_be_padded() {
    let mut bytes = ipv6(59, &[]);
    bytes.extend([0xaa; 6]);
    let mut opened = edit(&mut bytes);
    assert_eq!((opened.transport(), opened.l4_payload()), (Some(Transport::Other(59)), &[][..]));
    opened.ipv6().unwrap().set_hop_limit(3);
    opened.finish();
    assert_eq!((bytes[7], &bytes[40..]), (3, &[0xaa; 6][..]));
}
