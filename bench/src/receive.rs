//! `fanq-bench receive`: the sink. Counts each packet once, and says what is missing, double or late.
//!
//! Invariant: `received` counts unique (flow, sequence) pairs. It ends after `expect` of them, or when none has
//! come for the idle time.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fanq::Timestamp;
use hdrhistogram::Histogram;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::stamp::Stamp;

/// Options of `fanq-bench receive`.
#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    bind: SocketAddr,
    /// End after so many different packets
    #[arg(long)]
    expect: u64,
    /// End when nothing has come for so many seconds
    #[arg(long, default_value_t = 3.0)]
    idle: f64,
}

/// What the sink saw. One-way delays count from the time at which a packet was due to be sent.
#[derive(Debug, Serialize)]
struct ReceiveResult {
    schema: &'static str,
    received: u64,
    duplicates: u64,
    reordered: u64,
    unmarked: u64,
    flows: usize,
    latency_us: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// Receives, and prints what came.
pub(crate) fn run(args: &ReceiveArgs) -> anyhow::Result<()> {
    let socket = listen(args.bind).with_context(|| format!("listening on {}", args.bind))?;
    let idle = Duration::try_from_secs_f64(args.idle).context("--idle")?;
    socket.set_read_timeout(Some(idle.max(Duration::from_millis(1))))?;
    eprintln!("ready: listening on {}", args.bind);
    let mut sink = Sink::new()?;
    let mut datagram = vec![0; 65_536];
    while sink.received < args.expect {
        match socket.recv(&mut datagram) {
            Ok(length) => sink.take(&datagram[..length], Timestamp::now()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("receiving"),
        }
    }
    crate::print_json(&sink.result())
}

/// A socket with as much buffer as it gets, so that the sink itself loses nothing.
fn listen(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if set_socket_recv_buffer_size_force(&socket, SINK_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(SINK_BUFFER_BYTES)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What has come so far.
#[derive(Debug)]
struct Sink {
    flows: BTreeMap<u32, Flow>,
    received: u64,
    duplicates: u64,
    reordered: u64,
    unmarked: u64,
    latency_ns: Histogram<u64>,
}

/// One sender's packets: a bit for each sequence number.
#[derive(Debug, Default)]
struct Flow {
    seen: Vec<u64>,
    highest: Option<u64>,
}

impl Sink {
    fn new() -> anyhow::Result<Self> {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
        let flows = BTreeMap::new();
        Ok(Self { flows, received: 0, duplicates: 0, reordered: 0, unmarked: 0, latency_ns })
    }

    fn take(&mut self, payload: &[u8], now: Timestamp) {
        let stamp = Stamp::read(payload).filter(|stamp| stamp.sequence < SEQUENCES_MAX);
        let Some(stamp) = stamp else {
            self.unmarked += 1;
            return;
        };
        let flow = self.flows.entry(stamp.flow).or_default();
        if flow.note(stamp.sequence) {
            self.duplicates += 1;
            return;
        }
        self.received += 1;
        if flow.highest.is_some_and(|highest| stamp.sequence < highest) {
            self.reordered += 1;
        }
        flow.highest = flow.highest.max(Some(stamp.sequence));
        self.latency_ns.saturating_record(now.0.saturating_sub(stamp.sent_ns));
    }

    fn result(&self) -> ReceiveResult {
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds below 2^53")]
        let us = |ns: u64| ns as f64 / 1000.0;
        ReceiveResult {
            schema: "fanq.receive/1",
            received: self.received,
            duplicates: self.duplicates,
            reordered: self.reordered,
            unmarked: self.unmarked,
            flows: self.flows.len(),
            latency_us: Latency {
                p50: us(self.latency_ns.value_at_quantile(0.5)),
                p90: us(self.latency_ns.value_at_quantile(0.9)),
                p99: us(self.latency_ns.value_at_quantile(0.99)),
                max: us(self.latency_ns.max()),
            },
        }
    }
}

impl Flow {
    /// Notes a sequence number; true if it was there already.
    fn note(&mut self, sequence: u64) -> bool {
        let (word, bit) = (usize::try_from(sequence / 64).unwrap_or(0), 1 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let was_there = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        was_there
    }
}

const SINK_BUFFER_BYTES: usize = 32 << 20;

/// A minute: what takes longer is shown as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Bounds the memory of a flow's bits to 128 MiB; a stamp beyond it is none of ours.
const SEQUENCES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_tells_unique_double_late_and_foreign_packets_apart() {
        let mut sink = Sink::new().unwrap();
        let mut payload = [0; 64];
        for (flow, sequence) in [(0, 0), (0, 2), (0, 1), (1, 0), (0, 2), (0, 70)] {
            Stamp { flow, sequence, sent_ns: 1000, cpu: 0, sender: 0 }.write(&mut payload);
            sink.take(&payload, Timestamp(3000));
        }
        sink.take(b"something else", Timestamp(0));
        let result = sink.result();
        assert_eq!((result.received, result.duplicates, result.reordered), (5, 1, 1));
        assert_eq!((result.unmarked, result.flows), (1, 2));
        assert!((result.latency_us.p50 - 2.0).abs() < 0.01);
    }
}
