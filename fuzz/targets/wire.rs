//! Any bytes in place of a packet, any edits of its headers: a refusal leaves every byte as it was, an edit leaves
//! checksums that are what the whole packet sums to, wherever they were complete and right, or open, before.

#![no_main]

use arbitrary::Arbitrary;
use fanq::wire::{L4Checksum, PacketEdit, recompute_checksums, set_lengths};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Asked {
    edits: Vec<(u8, u128)>,
    open: bool,
    /// Whether the packet's lengths are put right first, so that more than refusals is seen.
    whole: bool,
    bytes: Vec<u8>,
}

fuzz_target!(|asked: Asked| {
    let mut bytes = asked.bytes;
    if asked.whole {
        let before = bytes.clone();
        if set_lengths(&mut bytes).is_err() {
            assert_eq!(bytes, before, "refused, and changed");
        }
    }
    let before = bytes.clone();
    let right = recompute_checksums(&mut bytes).is_ok();
    assert!(right || bytes == before, "refused, and changed");
    let packet = bytes.clone();

    let checksum = if asked.open { L4Checksum::Open } else { L4Checksum::Complete };
    if edit_all(&mut bytes, checksum, &asked.edits) {
        assert_eq!(bytes.len(), packet.len());
        if right {
            assert_summed(&bytes);
        }
    } else {
        assert_eq!(bytes, packet, "refused, and changed");
    }
});

/// Whether the packet was taken for editing.
fn edit_all(bytes: &mut [u8], checksum: L4Checksum, edits: &[(u8, u128)]) -> bool {
    let Ok(mut edit) = PacketEdit::new(bytes, checksum) else { return false };
    for (field, value) in edits {
        apply(&mut edit, *field, *value);
    }
    edit.finish();
    true
}

/// Every checksum in it is what summing anew gives.
fn assert_summed(bytes: &[u8]) {
    let mut anew = bytes.to_vec();
    if recompute_checksums(&mut anew).is_ok() {
        assert_eq!(bytes, anew.as_slice(), "a checksum is not what the packet sums to");
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any value will do")]
fn apply(edit: &mut PacketEdit<'_>, field: u8, value: u128) {
    if let Some(mut ip) = edit.ipv4() {
        match field % 16 {
            0 => drop(ip.set_source((value as u32).into())),
            1 => drop(ip.set_destination((value as u32).into())),
            2 => drop(ip.set_ttl(value as u8)),
            3 => drop(ip.set_traffic_class(value as u8)),
            4 => drop(ip.set_identification(value as u16)),
            _ => {}
        }
    }
    if let Some(mut ip) = edit.ipv6() {
        match field % 16 {
            0 => drop(ip.set_source(value.into())),
            1 => drop(ip.set_destination(value.into())),
            2 => drop(ip.set_hop_limit(value as u8)),
            3 => drop(ip.set_traffic_class(value as u8)),
            4 => drop(ip.set_flow_label(value as u32).map(drop)),
            _ => {}
        }
    }
    if let Some(mut tcp) = edit.tcp() {
        match field % 16 {
            5 => drop(tcp.set_source_port(value as u16)),
            6 => drop(tcp.set_destination_port(value as u16)),
            7 => drop(tcp.set_sequence(value as u32)),
            8 => drop(tcp.set_acknowledgement(value as u32)),
            9 => drop(tcp.set_window(value as u16)),
            10 => drop(tcp.set_urgent(value as u16)),
            11 => drop(tcp.set_flags(value as u8)),
            _ => {}
        }
    }
    if let Some(mut udp) = edit.udp() {
        match field % 16 {
            5 => drop(udp.set_source_port(value as u16)),
            6 => drop(udp.set_destination_port(value as u16)),
            _ => {}
        }
    }
    if let Some(mut icmp) = edit.icmp() {
        match field % 16 {
            5 => drop(icmp.set_code(value as u8)),
            6 => drop(icmp.set_rest_of_header((value as u32).to_ne_bytes())),
            _ => {}
        }
    }
    if field % 16 == 15
        && let Ok(payload) = edit.l4_payload_mut()
    {
        payload.iter_mut().for_each(|byte| *byte ^= value as u8);
    }
}
