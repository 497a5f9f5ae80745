//! Goal: the codec reads what kernels send, survives what none sends, and writes what kernels take. Method: bytes
//! captured from a kernel; a naive decoder to agree with; every cut of every sample; poisoned output buffers.

mod conntrack;

use proptest::prelude::*;

use super::golden;
use super::golden_conntrack;
use super::sample::Sample;
use super::*;

fn packet(bytes: &[u8]) -> PacketMessage<'_> {
    match decode(bytes).unwrap() {
        (Message::Packet(packet), []) => packet,
        other => panic!("no single packet: {other:?}"),
    }
}

fn reply(bytes: &[u8]) -> KernelReply {
    match decode(bytes).unwrap() {
        (Message::Reply(reply), []) => reply,
        other => panic!("no single reply: {other:?}"),
    }
}

#[test]
fn golden_ipv4_with_mark() {
    let packet = packet(golden::UDP4_INPUT_MARK);
    assert_eq!((packet.queue(), packet.family(), packet.id()), (7, 2, PacketId(1)));
    assert_eq!(packet_place(golden::UDP4_INPUT_MARK), Some((7, PacketId(1))));
    assert_eq!((packet.protocol(), packet.hook(), packet.mark()), (0x0800, Hook::Input, 0x1234));
    assert_eq!((packet.indev(), packet.outdev()), (Some(2), None));
    assert_eq!(packet.hardware_address(), Some(&[2, 0, 0, 0, 0, 2][..]));
    assert!(packet.payload().ends_with(b"golden") && packet.payload().len() == 34);
    assert_eq!((packet.length(), packet.is_truncated()), (34, false));
    assert_eq!(packet.skb_info(), SkbInfo(0));
    assert_eq!((packet.time(), packet.uid(), packet.priority()), (None, None, None));
}

#[test]
fn golden_timestamp_and_ipv6() {
    let timed = packet(golden::UDP4_INPUT_TIMESTAMP);
    let time = timed.time().unwrap();
    assert!(time.seconds > 1_790_000_000 && time.microseconds < 1_000_000, "{time:?}");
    assert_eq!(timed.id(), PacketId(2));
    let six = packet(golden::UDP6_INPUT);
    assert_eq!((six.family(), six.protocol()), (10, 0x86dd));
    assert!(six.payload().ends_with(b"six"));
}

#[test]
fn golden_cut_payload_with_owner_and_priority() {
    let packet = packet(golden::UDP4_OUTPUT_CUT_UID_PRIORITY);
    assert_eq!((packet.hook(), packet.outdev()), (Hook::Output, Some(2)));
    assert_eq!((packet.uid(), packet.gid(), packet.priority()), (Some(0), Some(0), Some(5)));
    assert_eq!((packet.payload().len(), packet.original_length()), (40, Some(128)));
    assert_eq!((packet.length(), packet.is_truncated()), (128, true));
}

#[test]
fn golden_errors_name_the_verdict() {
    for bytes in [golden::ENOENT, golden::ENOENT_CAPACK] {
        let expected = KernelReply { errno: libc::ENOENT, request: Request::Verdict, sequence: 1 };
        assert_eq!(reply(bytes), expected);
    }
    let woken = reply(golden::NOOP_ACK);
    assert_eq!(woken, KernelReply { errno: 0, request: Request::Wake, sequence: 77 });
}

#[test]
fn every_attribute_is_read() {
    let seconds_and_micros = [7_u64.to_be_bytes(), 8_u64.to_be_bytes()].concat();
    let number = |value: u32| value.to_be_bytes();
    let vlan = [8, 0, 1, 0, 0x81, 0x00, 0, 0, 6, 0, 2, 0, 0x20, 0x05];
    let bytes = Sample::new(9)
        .header(77, 2)
        .attribute(3, &number(3))
        .attribute(4, &seconds_and_micros)
        .attribute(5, &number(5))
        .attribute(6, &number(6))
        .attribute(7, &number(7))
        .attribute(8, &number(8))
        .attribute(9, &[0, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        .attribute(10, b"payload")
        .attribute(0x800b, b"nested")
        .attribute(12, &number(12))
        .attribute(13, &number(1300))
        .attribute(14, &number(7))
        .attribute(15, b"exp")
        .attribute(16, &number(16))
        .attribute(17, &number(17))
        .attribute(18, b"context\0")
        .attribute(19, &vlan)
        .attribute(20, b"link")
        .attribute(21, &number(21))
        .attribute(22, &number(22))
        .attribute(999, b"from the future")
        .finish();
    let packet = packet(&bytes);
    assert_eq!((packet.queue(), packet.id(), packet.hook()), (9, PacketId(77), Hook::Forward));
    assert_eq!(packet.mark(), 3);
    assert_eq!(packet.time(), Some(KernelTime { seconds: 7, microseconds: 8 }));
    assert_eq!((packet.indev(), packet.outdev()), (Some(5), Some(6)));
    assert_eq!((packet.physical_indev(), packet.physical_outdev()), (Some(7), Some(8)));
    assert_eq!(packet.hardware_address(), Some(&[1, 2, 3, 4, 5, 6][..]));
    assert_eq!(packet.payload(), b"payload");
    let conntrack = packet.conntrack().unwrap();
    assert_eq!(
        (conntrack.bytes(), conntrack.state()),
        (&b"nested"[..], Some(ConntrackState::Other(12)))
    );
    assert_eq!((packet.captured_length(), packet.original_length()), (7, Some(1300)));
    let info = packet.skb_info();
    assert!(info.checksum_not_ready() && info.is_gso() && info.checksum_not_verified());
    assert_eq!(packet.expectation(), Some(&b"exp"[..]));
    assert_eq!((packet.uid(), packet.gid()), (Some(16), Some(17)));
    assert_eq!(packet.security_context(), Some(&b"context\0"[..]));
    let tag = packet.vlan().unwrap();
    assert_eq!(tag, VlanTag { protocol: 0x8100, control: 0x2005 });
    assert_eq!((tag.pcp(), tag.dei(), tag.vid()), (1, false, 5));
    assert!(VlanTag { protocol: 0, control: 0x1000 }.dei());
    assert_eq!(packet.link_header(), Some(&b"link"[..]));
    assert_eq!((packet.priority(), packet.cgroup_classid()), (Some(21), Some(22)));
}

#[test]
fn a_cut_anywhere_is_an_error_with_the_id_once_it_was_readable() {
    let whole = golden::UDP4_INPUT_MARK;
    let id_readable_from = 20 + 4 + 7;
    for cut in 0..whole.len() {
        let error = decode(&whole[..cut]).unwrap_err();
        assert_eq!(packet_place(&whole[..cut]), None);
        let id = (cut >= id_readable_from).then_some(PacketId(1));
        assert_eq!(error.id, id, "cut at {cut}: {error:?}");
    }
}

#[test]
fn what_is_too_short_for_its_type_is_refused() {
    for (kind, need) in
        [(3, 4), (4, 16), (9, 12), (12, 4), (13, 4), (14, 4), (16, 4), (21, 4), (22, 4)]
    {
        let good = Sample::new(0).header(5, 1).attribute(kind, &vec![0; need]).finish();
        assert!(decode(&good).is_ok(), "attribute {kind} with {need} bytes");
        let short = Sample::new(0).header(5, 1).attribute(kind, &vec![0; need - 1]).finish();
        let error = DecodeError::ShortAttribute { kind, need, have: need - 1 };
        assert_eq!(decode(&short), Err(Undecodable { error, id: Some(PacketId(5)) }));
    }
    let bad_vlan = Sample::new(0).header(5, 1).attribute(19, &[5, 0, 1, 0, 1]).finish();
    assert!(decode(&bad_vlan).is_err());
}

#[test]
fn broken_lengths_are_refused() {
    let mut short_attribute = Sample::packet(0, 5, 1, b"x");
    short_attribute[32] = 3;
    let error = DecodeError::LengthTooSmall { offset: 32, length: 3 };
    assert_eq!(decode(&short_attribute), Err(Undecodable { error, id: Some(PacketId(5)) }));
    let mut short_message = Sample::packet(0, 5, 1, b"x");
    short_message[0..4].copy_from_slice(&15_u32.to_ne_bytes());
    let error = DecodeError::LengthTooSmall { offset: 0, length: 15 };
    assert_eq!(decode(&short_message), Err(error.into()));
    let nameless = Sample::new(0).attribute(10, b"x").finish();
    assert_eq!(decode(&nameless), Err(DecodeError::NoPacketHeader.into()));
}

#[test]
fn a_message_behind_another_is_returned_as_the_rest() {
    let first = Sample::packet(0, 1, 1, b"odd");
    let mut both = first.clone();
    both.resize(first.len().next_multiple_of(4), 0);
    both.extend(Sample::packet(0, 2, 1, b"two"));
    let (_, rest) = decode(&both).unwrap();
    assert_eq!(packet(rest).id(), PacketId(2));
}

#[test]
fn unknown_types_are_told_apart_from_broken_ones() {
    let mut bytes = Sample::packet(0, 1, 1, b"x");
    bytes[4..6].copy_from_slice(&0x0a05_u16.to_ne_bytes());
    assert_eq!(decode(&bytes).unwrap().0, Message::Unknown(0x0a05));
}

/// Decodes by the book, slowly: a list of attributes, or nothing if any length is wrong.
fn naive(bytes: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut attributes = Vec::new();
    let mut rest = bytes.get(20..)?.to_vec();
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().unwrap()));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().unwrap()) & 0x3fff;
        attributes.push((kind, rest.get(4..length)?.to_vec()));
        rest = rest.split_off(length.next_multiple_of(4).min(rest.len()));
    }
    let least = |kind| match kind {
        1 => 7,
        4 => 16,
        9 => 12,
        3 | 5..=8 | 12..=14 | 16 | 17 | 21 | 22 => 4,
        _ => 0,
    };
    attributes.iter().all(|(kind, value)| value.len() >= least(*kind)).then_some(attributes)
}

fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let kind = prop_oneof![Just(1_u16), Just(10), 1..19_u16, 20..30_u16];
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..24)), 0..8)
}

proptest! {
    #[test]
    fn agrees_with_the_naive_decoder(
        attributes in attributes(),
        damage in prop::option::of((0..200_usize, any::<u8>())),
    ) {
        let mut sample = Sample::new(4);
        for (kind, value) in &attributes {
            sample = sample.attribute(*kind, value);
        }
        let mut bytes = sample.finish();
        if let Some((at, byte)) = damage.filter(|(at, _)| *at >= 20 && *at < bytes.len()) {
            bytes[at] = byte;
        }
        let expected = naive(&bytes).filter(|list| list.iter().any(|(kind, _)| *kind == 1));
        // A damaged kind may have become a VLAN tag, whose nesting the naive decoder does not know.
        prop_assume!(!expected.iter().flatten().any(|(kind, _)| *kind == 19));
        match (decode(&bytes), expected) {
            (Ok((Message::Packet(packet), [])), Some(list)) => {
                let last = |wanted| list.iter().rev().find(|(kind, _)| *kind == wanted).map(|(_, value)| &value[..]);
                let number = |wanted| last(wanted).map(|value| u32::from_be_bytes(value[..4].try_into().unwrap()));
                prop_assert_eq!(Some(packet.id().0), number(1));
                prop_assert_eq!(packet.payload(), last(10).unwrap_or_default());
                prop_assert_eq!(packet.mark(), number(3).unwrap_or(0));
                prop_assert_eq!(packet.original_length(), number(13));
                prop_assert_eq!(packet.uid(), number(16));
                prop_assert_eq!(packet.conntrack().map(|conntrack| conntrack.bytes()), last(11));
            }
            (Err(_), None) => {}
            (decoded, expected) => prop_assert!(false, "{decoded:?} against {expected:?}"),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        length in 0..400_u32,
        packet in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if bytes.len() >= 6 {
            bytes[0..4].copy_from_slice(&length.to_ne_bytes());
            let kind: u16 = if packet { 0x0300 } else { 2 };
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        }
        let place = packet_place(&bytes);
        if let Ok((Message::Packet(packet), _)) = decode(&bytes) {
            prop_assert!(place.is_none_or(|place| place == (packet.queue(), packet.id())));
            let _ = (packet.id(), packet.time(), packet.hardware_address(), packet.vlan(), packet.length());
        }
    }

    #[test]
    fn verdicts_are_what_the_kernel_reads(
        queue: u16,
        id: u32,
        mark: Option<u32>,
        priority: Option<u32>,
        batch: bool,
        (plain, word) in kernel_words(),
    ) {
        let mut buffer = [0xa5; 64];
        let marked = mark.map_or(plain, |mark| plain.with_mark(mark));
        let verdict = priority.map_or(marked, |priority| marked.with_priority(priority));
        let length = VerdictMessage { queue, id: PacketId(id), verdict, batch }.encode(&mut buffer);
        prop_assert!(buffer[length..].iter().all(|byte| *byte == 0xa5), "wrote past its end");
        let kind: u16 = if batch { 0x0303 } else { 0x0301 };
        let attributes = [mark.map(|mark| (3, mark)), priority.map(|priority| (21, priority))];
        let expected = verdict_bytes(kind, queue, id, word, attributes.into_iter().flatten());
        prop_assert_eq!(&buffer[..length], &expected[..]);
    }

    #[test]
    fn a_rewritten_packet_follows_its_verdict(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        mark: Option<u32>,
    ) {
        let mut buffer = [0xa5; 256];
        let verdict = mark.map_or(Verdict::ACCEPT, |mark| Verdict::ACCEPT.with_mark(mark));
        let message = VerdictMessage { queue: 7, id: PacketId(9), verdict, batch: false };
        let plain = message.encode(&mut [0; 64]);
        let length =
            message.encode_edited(&ConntrackEdit::default(), Some(&payload), &mut buffer);
        prop_assert_eq!(length, plain + (4 + payload.len()).next_multiple_of(4));
        prop_assert_eq!(&buffer[0..4], &u32::try_from(length).unwrap().to_ne_bytes());
        // The attribute's own length leaves its padding out: the kernel takes all of it for the packet.
        let attribute_length = u16::try_from(4 + payload.len()).unwrap();
        prop_assert_eq!(&buffer[plain..plain + 2], &attribute_length.to_ne_bytes());
        prop_assert_eq!(&buffer[plain + 2..plain + 4], &10_u16.to_ne_bytes());
        prop_assert_eq!(&buffer[plain + 4..plain + 4 + payload.len()], &payload[..]);
        prop_assert!(buffer[length..].iter().all(|byte| *byte == 0xa5), "wrote past its end");
    }
}

/// Verdicts with the word that the kernel knows them by (`NF_*`, include/uapi/linux/netfilter.h).
fn kernel_words() -> impl Strategy<Value = (Verdict, u32)> {
    prop_oneof![
        Just((Verdict::DROP, 0)),
        Just((Verdict::ACCEPT, 1)),
        Just((Verdict::REPEAT, 4)),
        Just((Verdict::STOP, 5)),
        any::<u16>().prop_map(|queue| (Verdict::queue(queue), u32::from(queue) << 16 | 3)),
        any::<u16>().prop_map(|queue| {
            (Verdict::queue(queue).bypassing(), u32::from(queue) << 16 | 0x8003)
        }),
    ]
}

/// The message as uapi/linux/netfilter/nfnetlink_queue.h writes it, put together by hand.
fn verdict_bytes(
    kind: u16,
    queue: u16,
    id: u32,
    word: u32,
    attributes: impl Iterator<Item = (u16, u32)>,
) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(kind.to_ne_bytes());
    body.extend(1_u16.to_ne_bytes());
    body.extend(id.to_ne_bytes());
    body.extend([0; 6]);
    body.extend(queue.to_be_bytes());
    body.extend([12_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
    body.extend(word.to_be_bytes());
    body.extend(id.to_be_bytes());
    for (attribute, value) in attributes {
        body.extend([8_u16.to_ne_bytes(), attribute.to_ne_bytes()].concat());
        body.extend(value.to_be_bytes());
    }
    let mut message = u32::try_from(body.len() + 4).unwrap().to_ne_bytes().to_vec();
    message.extend(body);
    message
}

#[test]
fn binding_configures_everything_in_one_message() {
    let flags = ConfigFlags::NONE.with(QueueFlag::FailOpen).with(QueueFlag::Gso);
    let mut buffer = [0xa5; QueueRequest::BYTES_MAX];
    let length = QueueRequest::bind(258, CopyRange::Bytes(0x1234), 0x0102_0304, flags)
        .numbered(9)
        .encode(&mut buffer);
    let mut expected = Vec::new();
    expected.extend(64_u32.to_ne_bytes());
    expected.extend(0x0302_u16.to_ne_bytes());
    expected.extend(5_u16.to_ne_bytes());
    expected.extend(9_u32.to_ne_bytes());
    expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
    for (kind, value) in [
        (1_u16, &[1, 0, 0, 0][..]),
        (2, &[0, 0, 0x12, 0x34, 2]),
        (3, &[1, 2, 3, 4]),
        (5, &[0, 0, 0, 5]),
        (4, &[0, 0, 0, 0x1f]),
    ] {
        expected.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        expected.extend(kind.to_ne_bytes());
        expected.extend(value);
        expected.resize(expected.len().next_multiple_of(4), 0);
    }
    assert_eq!(&buffer[..length], &expected[..]);
}

#[test]
fn flags_have_the_kernels_bits_and_their_options_names() {
    let bits = [1, 2, 4, 8, 16];
    for (flag, bit) in QueueFlag::ALL.into_iter().zip(bits) {
        let mut buffer = [0xa5; QueueRequest::BYTES_MAX];
        let length = QueueRequest::probe(7, flag).encode(&mut buffer);
        let expected = [8, 0, 5, 0, 0, 0, 0, bit, 8, 0, 4, 0, 0, 0, 0, 0x1f];
        assert_eq!(&buffer[20..length], &expected, "flags and mask, and no command");
        assert!(ConfigFlags::ALL.contains(flag) && !ConfigFlags::NONE.contains(flag));
    }
    assert_eq!(ConfigFlags::ALL.to_string(), "fail-open, conntrack, gso, uid-gid, secctx");
    assert_eq!(ConfigFlags::NONE.to_string(), "none");
    let two: ConfigFlags = [QueueFlag::Gso, QueueFlag::UidGid].into_iter().collect();
    assert_eq!(two.without(ConfigFlags::NONE.with(QueueFlag::Gso)).to_string(), "uid-gid");
    assert_eq!(two.and(ConfigFlags::NONE.with(QueueFlag::Gso)).to_string(), "gso");
}

#[test]
fn copy_ranges_and_other_requests_encode() {
    let mode_and_range = |copy| {
        let mut buffer = [0; QueueRequest::BYTES_MAX];
        QueueRequest::bind(0, copy, 1, ConfigFlags::default()).encode(&mut buffer);
        (buffer[36], u32::from_be_bytes(buffer[32..36].try_into().unwrap()))
    };
    assert_eq!(mode_and_range(CopyRange::Full), (2, 65_531));
    assert_eq!(mode_and_range(CopyRange::Bytes(1)), (2, 1));
    assert_eq!(mode_and_range(CopyRange::Meta), (1, 0));
    let mut buffer = [0; QueueRequest::BYTES_MAX];
    assert_eq!(QueueRequest::set_maxlen(0, 7).encode(&mut buffer), 28);
    assert_eq!(buffer[20..28], [8, 0, 3, 0, 0, 0, 0, 7]);
    assert_eq!(QueueRequest::unbind(0).encode(&mut buffer), 28);
    assert_eq!(buffer[20..28], [8, 0, 1, 0, 2, 0, 0, 0]);
}

#[test]
fn ids_compare_as_serial_numbers() {
    assert_eq!(PacketId(5).distance_from(PacketId(5)), Some(0));
    assert_eq!(PacketId(2).distance_from(PacketId(u32::MAX)), Some(3));
    assert_eq!(PacketId(5).distance_from(PacketId(6)), None);
    assert_eq!(PacketId(u32::MAX).next(), PacketId(0));
}
