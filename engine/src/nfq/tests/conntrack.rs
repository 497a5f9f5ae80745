//! Goal: the connection that a packet came with is read as the kernel wrote it, whatever it lost on the way; an
//! edit is written as the kernel reads it. Method: as for the other messages; the kernel's rule for masks as a model.

use proptest::prelude::*;

use super::super::*;

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
