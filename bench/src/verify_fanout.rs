//! `fanq-bench verify-fanout`: the engine with an inspector that checks the fanout itself. Each packet names the
//! CPU that its sender was pinned to; it must come in that CPU's queue, to a worker that runs on that CPU.
//!
//! Invariant: every packet is accepted; one that is wrong is counted and fails the command at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fanq::{CpuId, Engine, Inspector, Packet, QueueRange, Verdict, WorkerInfo};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::stamp::Stamp;

/// Options of `fanq-bench verify-fanout`.
#[derive(Debug, Args)]
pub(crate) struct VerifyFanoutArgs {
    /// Queues to serve
    #[arg(short, long)]
    queues: QueueRange,
    /// End by itself after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
}

/// What one worker saw; it writes this to the common place when it is dropped.
#[derive(Debug)]
struct Checker {
    worker: WorkerInfo,
    queue_count: u16,
    seen: Seen,
    results: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Debug, Clone, Serialize)]
struct Seen {
    queue: u16,
    worker_cpu: Option<u16>,
    from_cpu: BTreeMap<u16, u64>,
    #[serde(skip)]
    mismatched: u64,
    #[serde(skip)]
    unmarked: u64,
}

#[derive(Debug, Serialize)]
struct VerifyResult {
    schema: &'static str,
    packets: u64,
    matched: u64,
    mismatched: u64,
    unmarked: u64,
    queues: Vec<Seen>,
}

impl Inspector for Checker {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        match stamp_in(packet.payload()) {
            Some(stamp) => {
                let right_queue = stamp.cpu % self.queue_count == self.worker.index;
                let right_cpu = fanq::current_cpu() == Some(CpuId(stamp.cpu));
                self.seen.mismatched += u64::from(!(right_queue && right_cpu));
                *self.seen.from_cpu.entry(stamp.cpu).or_default() += 1;
            }
            None => self.seen.unmarked += 1,
        }
        Verdict::ACCEPT
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if let Ok(mut results) = self.results.lock() {
            results.push(self.seen.clone());
        }
    }
}

/// The stamp behind the IP and UDP headers, options and extension headers being absent from our own load.
fn stamp_in(payload: &[u8]) -> Option<Stamp> {
    let header = match payload.first()? >> 4 {
        4 => usize::from(payload[0] & 0xf) * 4,
        6 => 40,
        _ => return None,
    };
    Stamp::read(payload.get(header + UDP_HEADER_BYTES..)?)
}

/// Runs until a signal or the time's end.
pub(crate) fn run(args: &VerifyFanoutArgs) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .context("installing the signal handlers")?;
    let results = Arc::new(Mutex::new(Vec::new()));
    let (shared, queue_count) = (Arc::clone(&results), args.queues.count());
    let mut engine = Engine::builder().queues(args.queues).start(move |worker| {
        let worker_cpu = worker.cpu.map(|cpu| cpu.0);
        let (queue, from_cpu) = (worker.queue, BTreeMap::new());
        let seen = Seen { queue, worker_cpu, from_cpu, mismatched: 0, unmarked: 0 };
        Checker { worker, queue_count, seen, results: Arc::clone(&shared) }
    })?;
    let interrupter = engine.interrupter();
    std::thread::spawn(move || signals.forever().for_each(|_| drop(interrupter.interrupt())));
    eprintln!("ready: queues {} bound", args.queues);
    let time = args.seconds.map(Duration::try_from_secs_f64).transpose().context("--seconds")?;
    engine.wait(time)?;
    let stopped = engine.shutdown(Duration::from_secs(5));
    if let Some(failure) = stopped.failures.into_iter().next() {
        return Err(failure.into());
    }
    let mut queues = results.lock().map(|seen| seen.clone()).unwrap_or_default();
    queues.sort_by_key(|seen| seen.queue);
    let packets = stopped.stats.totals().packets;
    let mismatched = queues.iter().map(|seen| seen.mismatched).sum();
    let unmarked = queues.iter().map(|seen| seen.unmarked).sum();
    let matched = packets - mismatched - unmarked;
    let schema = "fanq.verify-fanout/1";
    crate::print_json(&VerifyResult { schema, packets, matched, mismatched, unmarked, queues })?;
    if mismatched > 0 || packets == 0 {
        bail!("{mismatched} of {packets} packets came in another queue or on another CPU");
    }
    Ok(())
}

const UDP_HEADER_BYTES: usize = 8;
