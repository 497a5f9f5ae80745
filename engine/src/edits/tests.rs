//! Goal: what the kernel would garble is refused, and what goes out is whole. Method: messages made by hand, edited
//! and settled as a worker does.

use super::*;
use crate::nfq::sample::Sample;
use crate::nfq::{Message, decode};
use crate::wire::{Sum, updated};

/// A packet message with these attributes beside header and payload, shown to `look`.
fn with_packet(attributes: &[(u16, u32)], payload: &[u8], look: impl FnOnce(&PacketMessage<'_>)) {
    let mut sample = Sample::new(1).header(1, 1);
    for (kind, value) in attributes {
        sample = sample.attribute(*kind, &value.to_be_bytes());
    }
    let bytes = sample.attribute(10, payload).finish();
    match decode(&bytes).unwrap() {
        (Message::Packet(message), _) => look(&message),
        other => panic!("{other:?}"),
    }
}

const CAPTURED_FROM: u16 = 13;
const SKB_INFO: u16 = 14;
const GSO: u32 = 2;

#[test]
fn what_the_kernel_would_garble_is_refused_with_its_reason() {
    let packet = [0x45; 100];
    with_packet(&[(CAPTURED_FROM, 500)], &packet, |message| {
        let mut edits = Edits::new();
        let refused = RewriteError::Truncated { captured: 100, original: 500 };
        assert_eq!(edits.payload_mut(message).unwrap_err(), refused);
        assert_eq!((edits.refused(), edits.payload()), (Some(refused), None));
    });
    with_packet(&[(SKB_INFO, GSO)], &packet, |message| {
        let mut edits = Edits::new();
        edits.payload_mut(message).unwrap()[99] = 1;
        edits.replace(message, &[0x45; 100]).unwrap();
        let refused = RewriteError::GsoLength { old: 100, new: 99 };
        assert_eq!(edits.replace(message, &[0x45; 99]), Err(refused));
    });
    with_packet(&[], &packet, |message| {
        let mut edits = Edits::new();
        let short = RewriteError::TooShort { new: 19, needed: 20 };
        assert_eq!(edits.replace(message, &[0x45; 19]), Err(short));
        let long = RewriteError::TooLong { new: 65_532 };
        assert_eq!(edits.replace(message, &vec![0x45; 65_532]), Err(long));
        edits.clear();
        edits.replace(message, &vec![0x45; 65_531]).unwrap();
        assert_eq!((edits.payload().map(<[u8]>::len), edits.refused()), (Some(65_531), None));
    });
}

/// A UDP packet whose checksum field holds the pseudo header's sum, and the checksum that it is to have.
fn open_packet() -> (Vec<u8>, [u8; 2]) {
    let mut bytes = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xca];
    bytes
        .extend([10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0, 53, 0, 12, 0, 0, b'o', b'p', b'e', b'n']);
    let pseudo = Sum::of(&bytes[12..20]).plus(Sum::of_word(17)).plus(Sum::of_word(12));
    let complete = pseudo.plus(Sum::of(&bytes[20..])).checksum();
    bytes[26..28].copy_from_slice(&(!pseudo.checksum()).to_be_bytes());
    (bytes, complete.to_be_bytes())
}

const NOT_READY: u32 = 1;

#[test]
fn a_checksum_that_came_open_does_not_leave_open_or_wrong() {
    let (packet, complete) = open_packet();
    with_packet(&[(SKB_INFO, NOT_READY)], &packet, |message| {
        let mut edits = Edits::new();
        // Nobody closed it: filled in, with what was written.
        edits.payload_mut(message).unwrap()[28] = b'O';
        assert_eq!(edits.settle(), None);
        let word = u16::from_be_bytes([edits.payload().unwrap()[26], edits.payload().unwrap()[27]]);
        assert_eq!(word, updated(u16::from_be_bytes(complete), Sum::of(b"o"), Sum::of(b"O")));
        edits.clear();
        // Closed by the edit, in whichever way.
        drop(edits.edit(message).unwrap());
        assert_eq!((edits.settle(), &edits.payload().unwrap()[26..28]), (None, &complete[..]));
        edits.clear();
        PacketEdit::new(edits.payload_mut(message).unwrap(), L4Checksum::Open).unwrap().finish();
        assert_eq!((edits.settle(), &edits.payload().unwrap()[26..28]), (None, &complete[..]));
        edits.clear();
        // Said to be complete, which it was not; and cut off from its headers.
        let mut edit =
            PacketEdit::new(edits.payload_mut(message).unwrap(), L4Checksum::Complete).unwrap();
        edit.udp().unwrap().set_destination_port(54);
        drop(edit);
        let refused = edits.settle().unwrap();
        assert!(matches!(refused, RewriteError::OpenChecksum { .. }), "{refused:?}");
        assert_eq!(edits.refused(), Some(refused), "and stays refused");
        edits.clear();
        edits.replace(message, &packet[..24]).unwrap();
        assert!(matches!(edits.settle(), Some(RewriteError::OpenChecksum { .. })));
    });
    // Without the kernel's word nothing is looked at.
    with_packet(&[], &packet, |message| {
        let mut edits = Edits::new();
        edits.payload_mut(message).unwrap()[28] = b'O';
        assert_eq!((edits.settle(), &edits.payload().unwrap()[26..28]), (None, &packet[26..28]));
    });
}

#[test]
fn headers_that_cannot_be_edited_are_a_refusal() {
    let (packet, _) = open_packet();
    with_packet(&[(SKB_INFO, NOT_READY)], &packet[..24], |message| {
        let mut edits = Edits::new();
        let refused = edits.edit(message).map(drop).unwrap_err();
        assert!(matches!(refused, RewriteError::Headers { .. }), "{refused:?}");
        assert_eq!((edits.refused(), edits.payload()), (Some(refused), None));
    });
}

#[test]
fn bytes_are_changed_once_and_stay_changed() {
    with_packet(&[], &[0x45; 40], |message| {
        let mut edits = Edits::new();
        assert!(!edits.is_touched());
        edits.payload_mut(message).unwrap()[3] = 7;
        edits.payload_mut(message).unwrap()[4] = 8;
        let changed = edits.payload().unwrap();
        assert_eq!((changed[3], changed[4], changed[5]), (7, 8, 0x45));
        edits.clear();
        assert_eq!((edits.payload(), edits.is_touched()), (None, false));
    });
}
