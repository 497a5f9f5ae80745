//! What is refused: each lie about a length, each packet that cannot be kept right, with field, offset, need and have;
//! and nothing of it written.

use super::super::*;

const UDP4: [u8; 30] = [
    0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0x66, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 10, 1,
    1, b'h', b'i',
];

/// A base, and bytes to put into it.
fn with(base: &[u8], patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
    bytes
}

fn tcp4() -> Vec<u8> {
    let mut bytes = [&UDP4[..20], &[0; 20]].concat();
    (bytes[3], bytes[9], bytes[32]) = (40, 6, 0x50);
    bytes
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = [0; 40];
    (bytes[0], bytes[4], bytes[5], bytes[6]) = (0x60, length[0], length[1], next);
    [&bytes[..], payload].concat()
}

#[track_caller]
fn refused(mut bytes: Vec<u8>, checksum: L4Checksum, expected: WireError) {
    let before = bytes.clone();
    let error = PacketEdit::new(&mut bytes, checksum).unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(bytes, before);
}

#[test]
fn lying_lengths_name_field_offset_need_and_have() {
    use Field::*;
    let tcp = tcp4();
    let cases: [(Vec<u8>, Field, [usize; 3]); 20] = [
        (vec![], Ipv4Header, [0, 20, 0]),
        (UDP4[..19].to_vec(), Ipv4Header, [0, 20, 19]),
        (with(&UDP4, &[(0, &[0x44])]), Ipv4Header, [0, 20, 16]),
        (with(&UDP4, &[(0, &[0x4f])]), Ipv4Header, [0, 60, 30]),
        (with(&UDP4, &[(2, &[0, 31])]), Ipv4TotalLength, [2, 31, 30]),
        (with(&UDP4, &[(2, &[0, 19])]), Ipv4TotalLength, [2, 20, 19]),
        (with(&UDP4, &[(2, &[0, 27])]), UdpHeader, [20, 8, 7]),
        (with(&UDP4, &[(24, &[0, 11])]), UdpLength, [24, 11, 10]),
        (with(&UDP4, &[(24, &[0, 7])]), UdpLength, [24, 8, 7]),
        (with(&UDP4, &[(24, &[0, 0])]), UdpLength, [24, 8, 0]),
        (with(&tcp, &[(3, &[39])]), TcpHeader, [20, 20, 19]),
        (with(&tcp, &[(32, &[0x40])]), TcpHeader, [20, 20, 16]),
        (with(&tcp, &[(32, &[0x60])]), TcpHeader, [20, 24, 20]),
        (with(&UDP4, &[(3, &[27]), (9, &[1])]), IcmpHeader, [20, 8, 7]),
        (with(&UDP4, &[(3, &[27]), (9, &[136])]), OtherHeader, [20, 8, 7]),
        (with(&UDP4, &[(9, &[51]), (21, &[0])]), AuthenticationHeader, [20, 12, 10]),
        (ipv6(17, &[0; 8])[..39].to_vec(), Ipv6Header, [0, 40, 39]),
        (ipv6(17, &[0; 8])[..47].to_vec(), Ipv6PayloadLength, [4, 48, 47]),
        (ipv6(0, &[17, 1, 0, 0, 0, 0, 0, 0]), ExtensionHeader, [40, 16, 8]),
        (ipv6(60, &[44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1]), FragmentHeader, [48, 8, 4]),
    ];
    for (bytes, field, [offset, need, have]) in cases {
        refused(bytes, L4Checksum::Complete, WireError::Length { field, offset, need, have });
    }
    // Its length field says 8 bytes; the header has 12 at least.
    let short = WireError::Length { field: AuthenticationHeader, offset: 40, need: 12, have: 8 };
    refused(ipv6(51, &[17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), L4Checksum::Complete, short);
    assert_eq!(short.to_string(), "authentication header at offset 40: 12 bytes needed, 8 there");
}

#[test]
fn what_is_not_ip_or_larger_than_its_length_says() {
    refused(vec![0; 60], L4Checksum::Complete, WireError::NotIp { version: 0 });
    let jumbo = |field, offset| WireError::Jumbo { field, offset };
    let four = jumbo(Field::Ipv4TotalLength, 2);
    refused(with(&UDP4, &[(2, &[0, 0])]), L4Checksum::Open, four);
    let six = jumbo(Field::Ipv6PayloadLength, 4);
    // With the jumbo payload option, and as newer kernels send it, without.
    let hop_by_hop = [6, 0, 0xc2, 4, 0, 1, 0, 0];
    refused(with(&ipv6(0, &hop_by_hop), &[(4, &[0, 0])]), L4Checksum::Open, six);
    refused(with(&ipv6(6, &[0; 20]), &[(4, &[0, 0])]), L4Checksum::Open, six);
    assert!(six.to_string().contains("BIG TCP"));
}

#[test]
fn extension_headers_without_end() {
    let header = [60, 0, 1, 4, 0, 0, 0, 0];
    let last = [17, 0, 1, 4, 0, 0, 0, 0];
    let udp = [0, 7, 0, 9, 0, 8, 1, 1];
    let most = [&header.repeat(EXTENSION_HEADERS_MAX - 1)[..], &last, &udp].concat();
    let mut bytes = ipv6(60, &most);
    assert!(PacketEdit::new(&mut bytes, L4Checksum::Complete).unwrap().udp().is_some());
    let more = ipv6(60, &header.repeat(8000));
    let offset = 40 + 8 * EXTENSION_HEADERS_MAX;
    refused(more, L4Checksum::Complete, WireError::TooManyExtensionHeaders { offset });
}

#[test]
fn an_open_checksum_that_is_a_tunnels() {
    // VXLAN: the outer datagram has no checksum, or its own complete one; what is open is inside.
    let elsewhere = WireError::OpenElsewhere { protocol: 17, offset: 20 };
    refused(with(&UDP4, &[(26, &[0, 0])]), L4Checksum::Open, elsewhere);
    refused(UDP4.to_vec(), L4Checksum::Open, elsewhere);
    for protocol in [4, 41, 47, 132, 136] {
        let elsewhere = WireError::OpenElsewhere { protocol, offset: 20 };
        refused(with(&UDP4, &[(9, &[protocol])]), L4Checksum::Open, elsewhere);
    }
}

#[test]
fn a_flow_label_above_20_bits() {
    let mut bytes = ipv6(59, &[]);
    let mut edit = PacketEdit::new(&mut bytes, L4Checksum::Complete).unwrap();
    let refused = edit.ipv6().unwrap().set_flow_label(1 << 20).unwrap_err();
    assert_eq!(refused, WireError::FlowLabel { label: 1 << 20 });
    assert_eq!(edit.ipv6().unwrap().flow_label(), 0);
}

#[test]
fn a_length_that_no_field_holds() {
    for (mut bytes, length, fits) in [
        (UDP4.to_vec(), 65_536, 65_535),
        (ipv6(17, &[0, 7, 0, 9, 0, 8, 1, 1]), 65_536 + 40, 65_535 + 40),
    ] {
        bytes.resize(length, 0);
        let before = bytes.clone();
        assert_eq!(set_lengths(&mut bytes), Err(WireError::TooLong { length: 65_536 }));
        assert_eq!(bytes, before);
        bytes.truncate(fits);
        set_lengths(&mut bytes).unwrap();
    }
}

#[test]
fn headers_that_a_packet_has_not() {
    let mut bytes = UDP4.to_vec();
    let mut edit = PacketEdit::new(&mut bytes, L4Checksum::Complete).unwrap();
    assert!(edit.ipv6().is_none() && edit.tcp().is_none() && edit.icmp().is_none());
    assert_eq!((edit.transport(), edit.fragment()), (Some(Transport::Udp), Fragment::No));
}

#[test]
fn what_the_kernel_says_about_the_checksum() {
    use crate::nfq::SkbInfo;
    // CSUMNOTREADY, GSO, CSUM_NOTVERIFIED.
    let said = [0, 4, 1, 2, 3, 7].map(|flags| L4Checksum::from(SkbInfo(flags)));
    let (complete, open) = (L4Checksum::Complete, L4Checksum::Open);
    assert_eq!(said, [complete, complete, open, open, open, open]);
}
