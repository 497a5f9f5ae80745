//! Any bytes in place of a datagram from the kernel, whole and cut at each length: they decode or are refused, and what
//! decodes lies within them.
//!
//! Says on standard error how often it decoded, now and then.

#![no_main]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fanq::nfq::{Conntrack, ConntrackTuple, Message, PacketMessage, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let decoded: u64 = (0..=datagram.len()).map(|length| walk(&datagram[..length])).sum();
    let before = DECODED.fetch_add(decoded, Relaxed);
    if before / SAY_EVERY != (before + decoded) / SAY_EVERY {
        eprintln!("decoded: {}", before + decoded);
    }
});

/// Decodes message by message, and says how many.
fn walk(datagram: &[u8]) -> u64 {
    let mut rest = datagram;
    let mut decoded = 0;
    while !rest.is_empty() {
        decoded += 1;
        match decode(rest) {
            Ok((message, behind)) => {
                assert!(behind.len() < rest.len(), "no step forward");
                if let Message::Packet(packet) = message {
                    look_at(&packet, rest);
                }
                rest = behind;
            }
            Err(undecodable) => {
                black_box(undecodable);
                break;
            }
        }
    }
    decoded
}

/// Asks for everything that a packet may tell.
fn look_at(packet: &PacketMessage<'_>, datagram: &[u8]) {
    assert_eq!(datagram[packet.payload_range()], *packet.payload());
    assert_eq!(packet.captured_length() as usize, packet.payload().len());
    assert_eq!(packet.is_truncated(), packet.original_length().is_some());
    black_box((packet.id(), packet.queue(), packet.family(), packet.protocol(), packet.hook()));
    black_box((packet.mark(), packet.time(), packet.skb_info(), packet.vlan(), packet.priority()));
    black_box((packet.indev(), packet.outdev(), packet.physical_indev(), packet.physical_outdev()));
    black_box((packet.uid(), packet.gid(), packet.cgroup_classid(), packet.original_length()));
    let parts = [
        packet.hardware_address(),
        packet.security_context(),
        packet.link_header(),
        packet.expectation(),
    ];
    for part in parts.into_iter().flatten() {
        assert!(datagram.as_ptr_range().contains(&part.as_ptr()) || part.is_empty());
    }
    if let Some(conntrack) = packet.conntrack() {
        look_at_connection(&conntrack);
    }
}

fn look_at_connection(conntrack: &Conntrack<'_>) {
    let tuples = [conntrack.original(), conntrack.reply(), conntrack.master()];
    black_box::<[Option<ConntrackTuple>; 3]>(tuples);
    black_box((conntrack.state(), conntrack.id(), conntrack.status(), conntrack.timeout()));
    black_box((conntrack.mark(), conntrack.labels(), conntrack.zone(), conntrack.tcp_state()));
    black_box((conntrack.original_count(), conntrack.reply_count(), conntrack.helper()));
}

static DECODED: AtomicU64 = AtomicU64::new(0);
const SAY_EVERY: u64 = 1_000_000;
