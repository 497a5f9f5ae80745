//! `fanq-bench codec`: what decoding one packet, joining one verdict and rewriting cost, away from any kernel.
//!
//! Invariant: measures user code only, over messages as a kernel sends them for an input hook; prints the median of
//! several rounds, since a shared machine drifts.

use std::hint::black_box;
use std::time::Instant;

use clap::Args;
use fanq::nfq::{Message, PacketId, decode};
use fanq::wire::{L4Checksum, PacketEdit, Sum, set_lengths};
use fanq::{Coalescer, Verdict};
use serde::Serialize;

/// Options of `fanq-bench codec`.
#[derive(Debug, Args)]
pub(crate) struct CodecArgs {
    /// Payload bytes of each message
    #[arg(long, default_value_t = 92)]
    size: usize,
    /// Rounds
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

#[derive(Debug, Serialize)]
struct CodecResult {
    schema: &'static str,
    decode_ns: f64,
    push_ns: f64,
    /// Finding the headers of a UDP packet and setting its destination address, with both checksums.
    edit_ns: f64,
    /// The sum over 1,400 bytes.
    sum_1400_ns: f64,
}

/// Measures, and prints the medians.
pub(crate) fn run(args: &CodecArgs) -> anyhow::Result<()> {
    let batch: Vec<_> = (1..=BATCH).map(|id| message(id, args.size)).collect();
    let decode_ns = median_ns(args.rounds, || decode_batch(&batch));
    let mut coalescer = Coalescer::new(0);
    let push_ns = median_ns(args.rounds, || {
        for id in 1..=BATCH {
            coalescer.push(PacketId(id), black_box(Verdict::ACCEPT));
        }
        black_box(coalescer.finish());
    });
    let mut packet = udp_packet()?;
    let edit_ns = median_ns(args.rounds, || {
        for last in 0..BATCH.to_be_bytes()[3] {
            set_destination(black_box(&mut packet), last);
        }
    });
    let payload = vec![0x45; 1400];
    let sum_1400_ns = median_ns(args.rounds, || {
        for _ in 0..BATCH {
            black_box(Sum::of(black_box(&payload)));
        }
    });
    let schema = "fanq.codec/1";
    crate::print_json(&CodecResult { schema, decode_ns, push_ns, edit_ns, sum_1400_ns })
}

fn set_destination(packet: &mut [u8], last: u8) {
    if let Ok(mut edit) = PacketEdit::new(packet, L4Checksum::Complete)
        && let Some(mut ip) = edit.ipv4()
    {
        ip.set_destination([10, 0, 0, last].into());
    }
}

/// A UDP packet with 64 bytes of payload.
fn udp_packet() -> anyhow::Result<Vec<u8>> {
    let mut packet = vec![0x5a; 20 + 8 + 64];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    set_lengths(&mut packet)?;
    Ok(packet)
}

fn decode_batch(batch: &[Vec<u8>]) {
    let mut sum = 0;
    for datagram in batch {
        if let Ok((Message::Packet(packet), _)) = decode(black_box(datagram)) {
            sum += u64::from(packet.id().0) + u64::from(packet.length());
        }
    }
    black_box(sum);
}

/// The median time of one of the batch's messages, in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn median_ns(rounds: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..rounds.max(1))
        .map(|_| {
            let start = Instant::now();
            for _ in 0..BATCHES_PER_ROUND {
                work();
            }
            start.elapsed().as_nanos() as f64 / f64::from(BATCHES_PER_ROUND * BATCH)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A packet message with the attributes that the kernel sends at the input hook of a veth.
fn message(id: u32, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[4..6].copy_from_slice(&0x0300_u16.to_ne_bytes());
    let id = id.to_be_bytes();
    let header = [id[0], id[1], id[2], id[3], 0x08, 0x00, 1];
    let payload = vec![0x45; payload_bytes.min(usize::from(u16::MAX) - 4)];
    let attributes: [(u16, &[u8]); 4] = [
        (1, &header),
        (5, &[0, 0, 0, 2]),
        (9, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0]),
        (10, &payload),
    ];
    for (kind, value) in attributes {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

const BATCH: u32 = 64;
const BATCHES_PER_ROUND: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_messages_decode() {
        let bytes = message(7, 92);
        let Ok((Message::Packet(packet), [])) = decode(&bytes) else { panic!("not a packet") };
        assert_eq!((packet.id(), packet.length()), (PacketId(7), 92));
    }

    #[test]
    fn the_measured_packet_is_edited() {
        let mut packet = udp_packet().unwrap();
        set_destination(&mut packet, 9);
        assert_eq!(packet[16..20], [10, 0, 0, 9]);
    }
}
