//! Delay at low load: 1,000 packets a second from the client's namespace, from the time that each was due to be sent
//! to its delivery, with one target and the other in turn.
//!
//! Invariant: a trial in which a packet is missing is an error. On virtual CPUs most of the delay is CPUs falling
//! asleep and waking; it is the same for both targets, and stated with them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::lab::{Lab, command};
use super::target::Target;

/// One target's trial at low load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LatencyTrial {
    pub(crate) target: String,
    pub(crate) packets: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Both targets, `pairs` times in turn.
pub(crate) fn low_load(
    lab: &Lab,
    candidate: &Target,
    baseline: &Target,
    pairs: usize,
    seconds: u64,
) -> anyhow::Result<Vec<LatencyTrial>> {
    let mut trials = Vec::new();
    for round in 0..pairs {
        let order = if round % 2 == 0 { [candidate, baseline] } else { [baseline, candidate] };
        for target in order {
            let running = target.start(lab)?;
            trials.push(measure(&target.name, seconds * RATE)?);
            running.stop()?;
        }
    }
    Ok(trials)
}

fn measure(target: &str, packets: u64) -> anyhow::Result<LatencyTrial> {
    let bench = std::env::current_exe()?;
    let mut sink = Command::new(&bench)
        .args(["receive", "--bind", SINK, "--idle", "5", "--expect", &packets.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the sink")?;
    let mut ready = String::new();
    BufReader::new(sink.stderr.take().context("no output")?).read_line(&mut ready)?;
    let bench = bench.display();
    command(&format!(
        "ip netns exec client {bench} send --to {SINK} --cpus 0 --rate {RATE} --count {packets}"
    ))?;
    let output = sink.wait_with_output()?;
    let result: Value = serde_json::from_slice(&output.stdout).context("the sink's result")?;
    let received = result["received"].as_u64().unwrap_or(0);
    if received != packets {
        bail!("{target}: {received} of {packets} packets were delivered at low load");
    }
    let percentile = |name: &str| result["latency_us"][name].as_f64().context("the sink's delays");
    let (p50_us, p99_us) = (percentile("p50")?, percentile("p99")?);
    Ok(LatencyTrial { target: target.to_owned(), packets, p50_us, p99_us })
}

/// Packets per second.
const RATE: u64 = 1000;

/// Not the port whose packets are dropped behind the queue.
const SINK: &str = "10.77.0.1:9001";
