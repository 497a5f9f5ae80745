//! Goal: the connection that a packet came with is read as the kernel wrote it, whatever it lost on the way; an
//! edit is written as the kernel reads it. Method: as for the other messages; the kernel's rule for masks as a model.

use proptest::prelude::*;

use super::super::sample::Sample;
use super::super::*;
use super::{golden_conntrack, packet};

const GOLDEN: [&[u8]; 3] =
    [golden_conntrack::TCP4_SYN, golden_conntrack::ICMP4_REPLY, golden_conntrack::ICMP6_REQUEST];

/// Every accessor's value, as text: what a test wants to be the same or missing.
fn all(connection: &Conntrack<'_>) -> Vec<Option<String>> {
    let original = connection.original_count().map(|count| format!("{count:?}"));
    vec![
        connection.state().map(|state| format!("{state:?}")),
        connection.original().map(|ends| format!("{ends:?} {ends}")),
        connection.reply().map(|ends| format!("{ends:?} {ends}")),
        connection.master().map(|ends| format!("{ends:?} {ends}")),
        connection.id().map(|id| id.to_string()),
        connection.status().map(|status| format!("{status:?}")),
        connection.timeout().map(|seconds| seconds.to_string()),
        connection.mark().map(|mark| mark.to_string()),
        connection.labels().map(|labels| format!("{labels:?}")),
        connection.zone().map(|zone| zone.to_string()),
        connection.tcp_state().map(|state| format!("{state:?}")),
        original.or(connection.reply_count().map(|count| format!("{count:?}"))),
        connection.helper().map(|name| format!("{name:?}")),
    ]
}

/// A message with this value of `NFQA_CT`.
fn with_connection(value: &[u8]) -> Vec<u8> {
    let info = 2_u32.to_be_bytes();
    Sample::new(3).header(1, 1).attribute(0x800b, value).attribute(12, &info).finish()
}

fn nested(kind: u16, values: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
    let mut sample = Sample::new(0);
    for (kind, value) in values {
        sample = sample.attribute(*kind, value);
    }
    (kind, sample.finish().split_off(20))
}

#[test]
fn golden_tcp_connection() {
    let packet = packet(golden_conntrack::TCP4_SYN);
    assert_eq!((packet.id(), packet.hook(), packet.family()), (PacketId(1), Hook::Input, 2));
    let connection = packet.conntrack().unwrap();
    assert_eq!(connection.state(), Some(ConntrackState::New));
    let original = connection.original().unwrap();
    assert_eq!(original.to_string(), "10.9.0.1:51714 > 10.9.0.2:9001 protocol 6");
    assert_eq!(original.key, TupleKey::Ports { source: 51714, destination: 9001 });
    let reply = connection.reply().unwrap();
    assert_eq!(reply.to_string(), "10.9.0.2:9001 > 10.9.0.1:51714 protocol 6");
    assert_eq!((connection.mark(), connection.id()), (Some(0x1234_0042), Some(0x2269_61e9)));
    assert_eq!(connection.status(), Some(ConntrackStatus(0)));
    assert_eq!((connection.timeout(), connection.zone()), (Some(120), None));
    assert_eq!(connection.labels().map(|labels| labels[0]), Some(1 << 5));
    assert_eq!(connection.tcp_state(), Some(TcpState::SynSent));
    assert_eq!((connection.master(), connection.helper()), (None, None));
    assert_eq!((connection.original_count(), connection.reply_count()), (None, None));
}

#[test]
fn golden_icmp_connections() {
    let reply = packet(golden_conntrack::ICMP4_REPLY);
    let connection = reply.conntrack().unwrap();
    assert_eq!(
        (reply.hook(), connection.state()),
        (Hook::Output, Some(ConntrackState::EstablishedReply))
    );
    assert!(connection.state().unwrap().is_reply());
    let key = TupleKey::Icmp { kind: 8, code: 0, id: 719 };
    assert_eq!(connection.original().unwrap().key, key);
    let status = connection.status().unwrap();
    assert!(status.has(ConntrackStatus::SEEN_REPLY.with(ConntrackStatus::CONFIRMED)));
    assert!(status.has(ConntrackStatus::FIXED_TIMEOUT) && !status.has(ConntrackStatus::ASSURED));
    assert_eq!((connection.timeout(), connection.tcp_state()), (Some(77), None));

    let six = packet(golden_conntrack::ICMP6_REQUEST);
    let connection = six.conntrack().unwrap();
    let text = connection.reply().unwrap().to_string();
    assert_eq!(text, "fd00::2 > fd00::1 protocol 58 type 129 code 0 id 725");
    assert_eq!((six.captured_length(), six.length()), (64, 104));
}

#[test]
fn every_conntrack_attribute_is_read() {
    let word = |value: u32| value.to_be_bytes();
    let ip = nested(1, &[(1, &[10, 0, 0, 1]), (2, &[10, 0, 0, 2])]);
    let gre = nested(2, &[(1, &[47])]);
    let tuple = nested(14, &[(ip.0, &ip.1), (gre.0, &gre.1), (3, &[0, 9])]);
    let count = nested(9, &[(1, &7_u64.to_be_bytes()), (2, &8_u64.to_be_bytes())]);
    let tcp = nested(1, &[(1, &[9])]);
    let info = nested(4, &[(tcp.0, &tcp.1)]);
    let help = nested(5, &[(1, b"ftp\0")]);
    let rows: &[(u16, &[u8])] = &[
        (tuple.0, &tuple.1),
        (count.0, &count.1),
        (10, &count.1),
        (info.0, &info.1),
        (help.0, &help.1),
        (3, &word(3)),
        (7, &word(7)),
        (8, &word(8)),
        (12, &word(12)),
        (18, &[0, 18]),
        (22, &[22; 16]),
    ];
    let bytes = with_connection(&nested(11, rows).1);
    let connection = packet(&bytes).conntrack().unwrap();
    let master = connection.master().unwrap();
    assert_eq!(
        (master.to_string().as_str(), master.key),
        ("10.0.0.1 > 10.0.0.2 protocol 47", TupleKey::None)
    );
    assert_eq!((master.zone, connection.zone()), (Some(9), Some(18)));
    let count = Some(ConntrackCount { packets: 7, bytes: 8 });
    assert_eq!((connection.original_count(), connection.reply_count()), (count, count));
    assert_eq!(connection.tcp_state(), Some(TcpState::SynSentBoth));
    assert_eq!(connection.helper(), Some(&b"ftp"[..]));
    assert_eq!(connection.status(), Some(ConntrackStatus(3)));
    assert_eq!(
        (connection.timeout(), connection.mark(), connection.id()),
        (Some(7), Some(8), Some(12))
    );
    assert_eq!(connection.labels(), Some([22; 16]));
    assert_eq!(connection.attribute(18), Some(&[0, 18][..]));
    assert_eq!((connection.original(), connection.reply()), (None, None));
}

/// Where attributes stand, nested ones too, found by hand in bytes that are sound.
fn headers(bytes: &[u8], at: usize, depth: u32, found: &mut Vec<usize>) {
    let mut offset = 0;
    while offset + 4 <= bytes.len() {
        let length = usize::from(u16::from_ne_bytes([bytes[offset], bytes[offset + 1]]));
        found.push(at + offset);
        let is_nested = bytes[offset + 3] & 0x80 != 0;
        if is_nested && depth < 3 {
            headers(&bytes[offset + 4..offset + length], at + offset + 4, depth + 1, found);
        }
        offset += length.next_multiple_of(4);
    }
}

#[test]
fn flag_bits_of_nested_attributes_do_not_matter() {
    for golden in GOLDEN {
        let whole = packet(golden).conntrack().unwrap();
        let value = whole.bytes();
        let mut places = Vec::new();
        headers(value, 0, 0, &mut places);
        assert!(places.len() > 20, "{places:?}");
        for flags in [0, 0x40, 0x80, 0xc0] {
            let mut flagged = value.to_vec();
            for place in &places {
                flagged[place + 3] = flagged[place + 3] & 0x3f | flags;
            }
            let bytes = with_connection(&flagged);
            assert_eq!(all(&packet(&bytes).conntrack().unwrap())[1..], all(&whole)[1..]);
        }
    }
}

#[test]
fn a_cut_anywhere_leaves_each_value_whole_or_missing() {
    for golden in GOLDEN {
        let whole = packet(golden).conntrack().unwrap();
        let expected = all(&whole);
        let mut missing_before = usize::MAX;
        for cut in 0..=whole.bytes().len() {
            let bytes = with_connection(&whole.bytes()[..cut]);
            let found = all(&packet(&bytes).conntrack().unwrap());
            for (found, expected) in found.iter().zip(&expected).skip(1) {
                assert!(found.is_none() || found == expected, "cut at {cut}: {found:?}");
            }
            let missing = found.iter().filter(|value| value.is_none()).count();
            assert!(missing <= missing_before, "cut at {cut} lost what a shorter one had");
            missing_before = missing;
        }
    }
}

/// Reads one level by the book, slowly, as far as it is sound; of two the later one.
fn naive(mut bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut found = None;
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) % 0x4000;
        let Some(value) = bytes.get(4..length) else { break };
        if kind == wanted {
            found = Some(value.to_vec());
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn naive_number(bytes: &[u8], path: &[u16], width: usize) -> Option<u64> {
    let (last, nests) = path.split_last().unwrap();
    let inner = nests.iter().try_fold(bytes.to_vec(), |bytes, nest| naive(&bytes, *nest))?;
    let value = naive(&inner, *last)?;
    Some(value.get(..width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// What `ctnetlink_change_mark` and `replace_u32` make of the old bits.
fn kernel_replaces(old: u8, value: u8, mask: u8) -> u8 {
    (old & !mask) ^ value
}

/// The value of an attribute of an encoded edit, found by hand.
fn encoded(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if u16::from_ne_bytes([bytes[2], bytes[3]]) == kind {
            return Some(&bytes[4..length]);
        }
        bytes = &bytes[length.next_multiple_of(4)..];
    }
    None
}

#[test]
fn an_edit_is_the_attributes_that_were_set() {
    let mut buffer = [0xa5; ConntrackEdit::BYTES_MAX + 1];
    assert!(ConntrackEdit::default().is_empty());
    assert_eq!(ConntrackEdit::default().encode(&mut buffer), 0);
    let mark = ConntrackEdit { mark: Some((0x0102_0304, 0xffff_0000)), ..Default::default() };
    assert!(!mark.is_empty());
    assert_eq!(mark.encode(&mut buffer), 16);
    assert_eq!(buffer[..16], [8, 0, 8, 0, 1, 2, 0, 0, 8, 0, 21, 0, 0xff, 0xff, 0, 0]);
    assert_eq!(buffer[16], 0xa5, "wrote past its end");
    let all = ConntrackEdit {
        labels: Some(([1; 16], [3; 16])),
        timeout: Some(600),
        status: Some(6),
        ..mark
    };
    assert_eq!(all.encode(&mut buffer), ConntrackEdit::BYTES_MAX);
    assert_eq!(buffer[ConntrackEdit::BYTES_MAX], 0xa5, "wrote past its end");
    assert_eq!(encoded(&buffer[..ConntrackEdit::BYTES_MAX], 7), Some(&[0, 0, 2, 88][..]));
    assert_eq!(encoded(&buffer[..ConntrackEdit::BYTES_MAX], 3), Some(&[0, 0, 0, 6][..]));
}

proptest! {
    #[test]
    fn agrees_with_the_naive_reader(
        golden in 0..GOLDEN.len(),
        damage in prop::collection::vec((0..400_usize, any::<u8>()), 0..6),
    ) {
        let mut value = packet(GOLDEN[golden]).conntrack().unwrap().bytes().to_vec();
        for (at, byte) in damage {
            let at = at % value.len();
            value[at] = byte;
        }
        let bytes = with_connection(&value);
        let connection = packet(&bytes).conntrack().unwrap();
        let number = |path: &[u16], width| naive_number(&value, path, width);
        let wide = |number: Option<u32>| number.map(u64::from);
        prop_assert_eq!(wide(connection.id()), number(&[12], 4));
        prop_assert_eq!(wide(connection.mark()), number(&[8], 4));
        prop_assert_eq!(wide(connection.timeout()), number(&[7], 4));
        prop_assert_eq!(connection.status().map(|status| u64::from(status.0)), number(&[3], 4));
        prop_assert_eq!(connection.zone().map(u64::from), number(&[18], 2));
        prop_assert_eq!(connection.labels().map(u128::from_be_bytes), naive(&value, 22)
            .and_then(|labels| labels.first_chunk().map(|labels| u128::from_be_bytes(*labels))));
        for (kind, tuple) in [(1, connection.original()), (2, connection.reply())] {
            let whole = [1, 2].map(|end| {
                let four = naive(&naive(&naive(&value, kind)?, 1)?, end);
                let six = naive(&naive(&naive(&value, kind)?, 1)?, end + 2);
                four.map_or_else(|| six.is_some_and(|six| six.len() >= 16), |four| four.len() >= 4).then_some(())
            });
            let protocol = number(&[kind, 2, 1], 1);
            prop_assert_eq!(tuple.is_some(), whole == [Some(()); 2] && protocol.is_some());
            if let Some(tuple) = tuple {
                prop_assert_eq!(Some(u64::from(tuple.protocol)), protocol);
                if let TupleKey::Ports { source, destination } = tuple.key {
                    prop_assert_eq!(Some(u64::from(source)), number(&[kind, 2, 2], 2));
                    prop_assert_eq!(Some(u64::from(destination)), number(&[kind, 2, 3], 2));
                }
            }
        }
    }

    #[test]
    fn no_connection_makes_it_panic(value in prop::collection::vec(prop_oneof![0..24_u8, any::<u8>()], 0..300)) {
        let bytes = with_connection(&value);
        let _ = all(&packet(&bytes).conntrack().unwrap());
    }

    #[test]
    fn an_edit_changes_the_bits_under_its_mask_and_no_others(
        old: [u8; 16], value: [u8; 16], mask: [u8; 16], mark: (u32, u32),
    ) {
        let mut buffer = [0xa5; ConntrackEdit::BYTES_MAX];
        let edit = ConntrackEdit { mark: Some(mark), labels: Some((value, mask)), ..Default::default() };
        let length = edit.encode(&mut buffer);
        let field = |kind| encoded(&buffer[..length], kind).unwrap();
        for at in 0..16 {
            let new = kernel_replaces(old[at], field(22)[at], field(23)[at]);
            prop_assert_eq!(new, (old[at] & !mask[at]) | (value[at] & mask[at]));
        }
        for (at, old) in old[..4].iter().enumerate() {
            let new = kernel_replaces(*old, field(8)[at], field(21)[at]);
            let (value, mask) = (mark.0.to_be_bytes()[at], mark.1.to_be_bytes()[at]);
            prop_assert_eq!(new, (old & !mask) | (value & mask));
        }
    }
}
