//! Goal: after any edit of any packet every checksum is right, nothing else has changed, and what cannot be kept right
//! is refused untouched. Method: packets built and judged by etherparse; each edit against summing anew; setting back;
//! packets written by hand.

use std::convert::identity;

use proptest::collection::vec;
use proptest::prelude::*;

use super::sample::{ICMP, Sample, UDP, sample};
use super::*;

mod by_hand;
mod refused;

/// A field: how many bits it has, how it is read and set through a [`PacketEdit`].
struct Editable {
    bits: u32,
    get: fn(&mut PacketEdit<'_>) -> Option<u128>,
    set: fn(&mut PacketEdit<'_>, u128),
}

macro_rules! editable {
    ($($header:ident $get:ident $set:ident $bits:literal, $into:expr, $from:expr;)*) => {
        &[$(Editable {
            bits: $bits,
            get: |edit| edit.$header().map(|header| $into(header.$get()).into()),
            set: |edit, value| {
                let narrow = |value: u128| value.try_into().unwrap();
                let _ = edit.$header().unwrap().$set($from(narrow(value)));
            },
        }),*]
    };
}

const FIELDS: &[Editable] = editable! {
    ipv4 source set_source 32, u32::from, std::net::Ipv4Addr::from_bits;
    ipv4 destination set_destination 32, u32::from, std::net::Ipv4Addr::from_bits;
    ipv4 ttl set_ttl 8, identity::<u8>, identity;
    ipv4 traffic_class set_traffic_class 8, identity::<u8>, identity;
    ipv4 identification set_identification 16, identity::<u16>, identity;
    ipv6 source set_source 128, u128::from, std::net::Ipv6Addr::from_bits;
    ipv6 destination set_destination 128, u128::from, std::net::Ipv6Addr::from_bits;
    ipv6 hop_limit set_hop_limit 8, identity::<u8>, identity;
    ipv6 traffic_class set_traffic_class 8, identity::<u8>, identity;
    ipv6 flow_label set_flow_label 20, identity::<u32>, identity;
    tcp source_port set_source_port 16, identity::<u16>, identity;
    tcp destination_port set_destination_port 16, identity::<u16>, identity;
    tcp sequence set_sequence 32, identity::<u32>, identity;
    tcp acknowledgement set_acknowledgement 32, identity::<u32>, identity;
    tcp flags set_flags 8, identity::<u8>, identity;
    tcp window set_window 16, identity::<u16>, identity;
    tcp urgent set_urgent 16, identity::<u16>, identity;
    udp source_port set_source_port 16, identity::<u16>, identity;
    udp destination_port set_destination_port 16, identity::<u16>, identity;
    icmp message_type set_message_type 8, identity::<u8>, identity;
    icmp code set_code 8, identity::<u8>, identity;
    icmp rest_of_header set_rest_of_header 32, u32::from_be_bytes, u32::to_be_bytes;
};

/// Fields to set, and what to; zeros and ones often.
fn edits() -> impl Strategy<Value = Vec<(usize, u128)>> {
    let value = prop_oneof![2 => any::<u128>(), 1 => Just(0), 1 => Just(u128::MAX)];
    vec((0..FIELDS.len(), value), 0..12)
}

/// Sets each field that the packet has, checks that it reads so, and gives what was there before.
fn apply(edit: &mut PacketEdit<'_>, edits: &[(usize, u128)]) -> Vec<(usize, u128)> {
    let mut before = Vec::new();
    for (index, value) in edits {
        let Editable { bits, get, set } = &FIELDS[*index];
        let Some(old) = get(edit) else { continue };
        before.push((*index, old));
        let value = value & (u128::MAX >> (128 - bits));
        set(edit, value);
        assert_eq!(get(edit), Some(value), "field {index}");
    }
    before.reverse();
    before
}

fn edit(bytes: &mut [u8]) -> PacketEdit<'_> {
    PacketEdit::new(bytes, L4Checksum::Complete).unwrap()
}

proptest! {
    #[test]
    fn after_any_edit_every_checksum_is_right_and_setting_back_restores(
        mut packet in sample(),
        edits in edits(),
        padding in vec(any::<u8>(), 0..8),
    ) {
        packet.verify();
        let original = packet.bytes.clone();
        let length = original.len();
        packet.bytes.extend(&padding);
        let before = apply(&mut edit(&mut packet.bytes), &edits);
        prop_assert_eq!(&packet.bytes[length..], &padding);
        packet.bytes.truncate(length);
        packet.verify();
        let mut anew = packet.bytes.clone();
        recompute_checksums(&mut anew).unwrap();
        prop_assert_eq!(&anew, &packet.bytes, "updated and computed");
        apply(&mut edit(&mut packet.bytes), &before);
        prop_assert_eq!(packet.bytes, original);
    }

    #[test]
    fn an_open_checksum_is_completed_whatever_is_edited(packet in sample(), edits in edits()) {
        let mut complete = packet.clone();
        apply(&mut edit(&mut complete.bytes), &edits);
        let mut open = packet.clone();
        if packet.right_checksum().is_none() {
            let refused = PacketEdit::new(&mut open.bytes, L4Checksum::Open).unwrap_err();
            let offset = packet.at;
            prop_assert_eq!(refused, WireError::OpenElsewhere { protocol: packet.protocol, offset });
            return Ok(());
        }
        open.set_checksum(packet.pseudo_sum());
        apply(&mut PacketEdit::new(&mut open.bytes, L4Checksum::Open).unwrap(), &edits);
        prop_assert_eq!(&open.bytes, &complete.bytes);
        // Rewritten before, and still called open: it is kept.
        PacketEdit::new(&mut open.bytes, L4Checksum::Open).unwrap().finish();
        prop_assert_eq!(&open.bytes, &complete.bytes);
    }

    #[test]
    fn a_written_payload_is_summed_anew(
        mut packet in sample(),
        edits in edits(),
        damage in any::<u16>(),
        bytes in any::<[u8; 7]>(),
    ) {
        if packet.right_checksum().is_none() {
            let refused = edit(&mut packet.bytes).l4_payload_mut().unwrap_err();
            prop_assert_eq!(refused, WireError::UnknownTransport { protocol: packet.protocol });
            return Ok(());
        }
        // Even a checksum that was wrong comes out right; UDP's 0 is none, and has its own test.
        packet.set_checksum(damage | u16::from(packet.protocol == UDP));
        let mut opened = edit(&mut packet.bytes);
        let payload = opened.l4_payload_mut().unwrap();
        for (place, byte) in payload.iter_mut().zip(bytes) {
            *place = byte;
        }
        let length = payload.len();
        prop_assert_eq!(opened.l4_payload().len(), length);
        apply(&mut opened, &edits);
        opened.finish();
        packet.verify();
        prop_assert!(packet.bytes.ends_with(&bytes[..length.min(7)]) || length > 7);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_by_as_much(
        mut packet in sample(),
        edits in edits(),
        damage in 1_u16..0xfffe,
    ) {
        prop_assume!(packet.right_checksum().is_some_and(|right| right != damage && right != !0));
        packet.set_checksum(damage);
        apply(&mut edit(&mut packet.bytes), &edits);
        prop_assume!(packet.checksum() != 0 && packet.checksum() != 0xffff);
        prop_assert_ne!(Some(packet.checksum()), packet.right_checksum());
    }

    #[test]
    fn udp_without_a_checksum_stays_without(mut packet in sample(), edits in edits()) {
        prop_assume!(packet.protocol == UDP);
        packet.set_checksum(0);
        let mut opened = edit(&mut packet.bytes);
        apply(&mut opened, &edits);
        opened.l4_payload_mut().unwrap().fill(7);
        opened.finish();
        prop_assert_eq!(packet.checksum(), 0);
        recompute_checksums(&mut packet.bytes).unwrap();
        if packet.is_v4() {
            prop_assert_eq!(packet.checksum(), 0, "IPv4 may go without");
        } else {
            packet.verify();
        }
    }

    /// Both parts of a datagram, each edited by itself, are the parts of the whole one edited alike.
    #[test]
    fn fragments_are_edited_as_their_datagram_is(
        packet in sample(),
        edits in edits(),
        cut in any::<prop::sample::Index>(),
    ) {
        // The whole transport header goes into the first.
        let whole_header = if packet.protocol == 253 { 8 } else { 64 };
        prop_assume!(packet.bytes.len() > packet.at + whole_header + 8);
        let units = (packet.bytes.len() - packet.at - whole_header) / 8;
        let cut = packet.at + whole_header + 8 * cut.index(units);
        let (mut first, mut later) = fragment(&packet, cut);
        let mut opened = edit(&mut first);
        prop_assert_eq!(opened.fragment(), Fragment::First);
        prop_assert_eq!(opened.l4_payload_mut().unwrap_err(), WireError::Fragment);
        apply(&mut opened, &edits);
        opened.finish();
        let mut opened = edit(&mut later);
        prop_assert_eq!((opened.fragment(), opened.transport()), (Fragment::Later, None));
        prop_assert!(opened.l4_payload().is_empty());
        apply(&mut opened, &edits);
        opened.finish();
        for part in [&mut first, &mut later] {
            let before = part.clone();
            let open = PacketEdit::new(part, L4Checksum::Open).map(|_| ());
            prop_assert_eq!(open, Err(WireError::Fragment));
            prop_assert_eq!(set_lengths(part), Err(WireError::Fragment));
            if packet.is_v4() {
                let (header, _) = etherparse::Ipv4Header::from_slice(part).unwrap();
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            }
            prop_assert_eq!(&*part, &before);
        }
        let mut whole = packet.clone();
        apply(&mut edit(&mut whole.bytes), &edits);
        whole.verify();
        let at = first.len() - (cut - packet.at);
        prop_assert_eq!(&first[at..], &whole.bytes[packet.at..cut], "with the whole datagram's checksum");
        prop_assert_eq!(&later[at..], &whole.bytes[cut..]);
        let addresses = if packet.is_v4() { 12..20 } else { 8..40 };
        prop_assert_eq!(&first[addresses.clone()], &whole.bytes[addresses.clone()]);
        prop_assert_eq!(&later[addresses.clone()], &whole.bytes[addresses]);
    }

    #[test]
    fn a_packet_that_grew_or_shrank_gets_its_lengths(
        mut packet in sample(),
        payload in vec(any::<u8>(), 0..2000),
        header in any::<[u8; 6]>(),
    ) {
        let header_length = packet.at
            + match packet.protocol {
                super::sample::TCP => usize::from(packet.bytes[packet.at + 12] >> 4) * 4,
                253 => 0,
                _ => 8,
            };
        packet.bytes.truncate(header_length);
        packet.bytes.extend(&payload);
        // What stood in the lengths and sums does not matter, but for UDP's 0.
        if packet.is_v4() {
            packet.bytes[2..4].copy_from_slice(&header[..2]);
            packet.bytes[10..12].copy_from_slice(&header[2..4]);
        } else {
            packet.bytes[4..6].copy_from_slice(&header[..2]);
        }
        if packet.protocol == UDP {
            packet.bytes[packet.at + 4..packet.at + 6].copy_from_slice(&header[..2]);
            packet.set_checksum(1);
        }
        set_lengths(&mut packet.bytes).unwrap();
        packet.verify();
        let stated = u16::from_be_bytes(if packet.is_v4() {
            [packet.bytes[2], packet.bytes[3]]
        } else {
            [packet.bytes[4], packet.bytes[5]]
        });
        let expected = packet.bytes.len() - if packet.is_v4() { 0 } else { 40 };
        prop_assert_eq!(usize::from(stated), expected);
    }

    /// Bytes at random, and packets damaged or cut anywhere: an error leaves them as they were, success keeps their
    /// length, and nothing panics.
    #[test]
    fn no_bytes_make_it_panic(
        packet in sample(),
        noise in vec(any::<u8>(), 0..120),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        edits in edits(),
        version in prop_oneof![Just(0x45_u8), Just(0x60), Just(0x4f), any::<u8>()],
    ) {
        let mut random = noise;
        if let Some(first) = random.first_mut() {
            *first = version;
        }
        let mut damaged = packet.bytes.clone();
        for (place, byte) in &flips {
            // Most of the damage to headers.
            let within = damaged.len().min(packet.at + 20);
            damaged[place.index(within)] = *byte;
        }
        let cut = packet.bytes[..cut.index(packet.bytes.len())].to_vec();
        for bytes in [random, damaged, cut] {
            survives(&bytes, &edits);
        }
    }
}

fn survives(bytes: &[u8], edits: &[(usize, u128)]) {
    for checksum in [L4Checksum::Complete, L4Checksum::Open] {
        let mut copy = bytes.to_vec();
        let checked = check(bytes, checksum).err();
        let refused = match PacketEdit::new(&mut copy, checksum) {
            Ok(mut edit) => {
                apply(&mut edit, edits);
                let _ = edit.l4_payload_mut().map(|payload| payload.fill(1));
                None
            }
            Err(error) => Some(error),
        };
        assert_eq!(refused, checked);
        assert!(refused.is_none() || copy == bytes, "{refused:?} after writing");
    }
    for whole in [recompute_checksums, set_lengths] {
        let mut copy = bytes.to_vec();
        if whole(&mut copy).is_err() {
            assert_eq!(copy, bytes);
        } else {
            let once = copy.clone();
            whole(&mut copy).unwrap();
            assert_eq!(copy, once, "doing it twice changes nothing");
        }
    }
}

/// Cuts a datagram in two at `cut`, as a router or a sender does.
fn fragment(packet: &Sample, cut: usize) -> (Vec<u8>, Vec<u8>) {
    let offset = u16::try_from(cut - packet.at).unwrap();
    let (head, first, later) =
        (&packet.bytes[..packet.at], &packet.bytes[packet.at..cut], &packet.bytes[cut..]);
    let part = |payload: &[u8], offset: u16, more: bool| {
        let mut head = head.to_vec();
        if packet.is_v4() {
            let flags = (offset / 8) | if more { 0x2000 } else { 0 };
            head[6..8].copy_from_slice(&flags.to_be_bytes());
            let length = u16::try_from(head.len() + payload.len()).unwrap();
            head[2..4].copy_from_slice(&length.to_be_bytes());
            seal_header(&mut head);
        } else {
            // The fragment header goes first, before all others: their order does not matter to us.
            let next = head[6];
            let [high, low] = (offset | u16::from(more)).to_be_bytes();
            head.splice(40..40, [next, 0, high, low, 0, 0, 0, 7]);
            head[6] = 44;
            let length = u16::try_from(head.len() - 40 + payload.len()).unwrap();
            head[4..6].copy_from_slice(&length.to_be_bytes());
        }
        head.extend(payload);
        head
    };
    (part(first, 0, true), part(later, offset, false))
}

/// Fills in an IPv4 header's checksum by etherparse.
fn seal_header(bytes: &mut [u8]) {
    let (header, _) = etherparse::Ipv4Header::from_slice(bytes).unwrap();
    bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

#[test]
fn icmp_of_nothing_but_zeros() {
    // The trap of one's complement: of all zeros the checksum is 0xffff, and 0 is refused by receivers.
    let mut packet = Sample {
        bytes: vec![
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 0, 0, 0, 0, 0, 0, 0,
        ],
        at: 20,
        protocol: ICMP,
    };
    recompute_checksums(&mut packet.bytes).unwrap();
    packet.verify();
    assert_eq!(packet.checksum(), 0xf7ff);
    edit(&mut packet.bytes).icmp().unwrap().set_message_type(0);
    packet.verify();
    assert_eq!(packet.checksum(), 0xffff);
    edit(&mut packet.bytes).icmp().unwrap().set_message_type(8);
    assert_eq!(packet.checksum(), 0xf7ff);
}
