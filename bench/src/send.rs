//! `fanq-bench send`: one thread pinned to each CPU, each sending its own numbered packets.
//!
//! Invariant: exactly `count` packets a thread are handed to the kernel, or the command fails. Paced sending is
//! open-loop: each packet has its time, carries it, and is not put off because an earlier one was late.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fanq::{CpuList, Timestamp};
use serde::Serialize;

use crate::load::wait_until;
use crate::stamp::Stamp;

/// Options of `fanq-bench send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Where to send to, such as 10.0.0.2:9000
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// One sender pinned to each of these CPUs, such as 0-3
    #[arg(long, default_value = "0")]
    cpus: CpuList,
    /// Packets per sender
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Payload bytes, 28 to 65507
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Packets per second and sender; without it as fast as it goes
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SendResult {
    schema: &'static str,
    sent: u64,
    seconds: f64,
    retries: u64,
    late_us_max: u64,
}

#[derive(Debug, Default)]
struct Sent {
    packets: u64,
    retries: u64,
    late_ns_max: u64,
}

/// Sends, and prints what was sent.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<()> {
    if !(Stamp::BYTES..=UDP_PAYLOAD_MAX).contains(&args.size) {
        bail!("size {} is out of range: {} to {UDP_PAYLOAD_MAX} bytes", args.size, Stamp::BYTES);
    }
    if args.rate.is_some_and(|rate| !(0.001..=1e8).contains(&rate)) {
        bail!("rate must be 0.001 to 100000000 packets per second");
    }
    let start = Timestamp::now();
    let sent = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..)
            .zip(args.cpus.iter())
            .map(|(flow, cpu)| scope.spawn(move || send_from(flow, cpu, args)))
            .collect();
        let join = |sender: std::thread::ScopedJoinHandle<'_, _>| {
            sender.join().unwrap_or_else(|_| bail!("a sender panicked"))
        };
        senders.into_iter().map(join).collect::<anyhow::Result<Vec<Sent>>>()
    })?;
    crate::print_json(&SendResult {
        schema: "fanq.send/1",
        sent: sent.iter().map(|sender| sender.packets).sum(),
        seconds: Timestamp::now().since(start).as_secs_f64(),
        retries: sent.iter().map(|sender| sender.retries).sum(),
        late_us_max: sent.iter().map(|sender| sender.late_ns_max / 1000).max().unwrap_or(0),
    })
}

fn send_from(flow: u32, cpu: fanq::CpuId, args: &SendArgs) -> anyhow::Result<Sent> {
    if !fanq::pin_to(cpu) {
        bail!("cannot pin a sender to CPU {cpu}: it is offline or outside the cpuset");
    }
    let any = if args.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("opening a socket")?;
    let mut payload = vec![0; args.size];
    let mut sent = Sent::default();
    let start = Timestamp::now();
    for sequence in 0..args.count {
        let due = args.rate.map(|rate| due_at(start, sequence, rate));
        if let Some(due) = due {
            wait_until(due, SPIN_BELOW);
            sent.late_ns_max = sent.late_ns_max.max(Timestamp::now().0.saturating_sub(due.0));
        }
        let sent_ns = due.unwrap_or_else(Timestamp::now).0;
        Stamp { flow, sequence, sent_ns, cpu: cpu.0, sender: 0 }.write(&mut payload);
        while let Err(error) = socket.send_to(&payload, args.to) {
            // The device's or the socket's buffer is full for the moment: the packet is not sent yet.
            if error.raw_os_error() != Some(libc::ENOBUFS) {
                return Err(error).with_context(|| format!("sending to {}", args.to));
            }
            sent.retries += 1;
            std::thread::yield_now();
        }
        sent.packets += 1;
    }
    Ok(sent)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "nanoseconds of a bounded run, far below 2^53"
)]
fn due_at(start: Timestamp, sequence: u64, rate: f64) -> Timestamp {
    Timestamp(start.0 + (sequence as f64 * 1e9 / rate) as u64)
}

const SPIN_BELOW: Duration = Duration::from_micros(150);
const UDP_PAYLOAD_MAX: usize = 65_507;
