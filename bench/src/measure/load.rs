//! `fanq-bench load`: the load alone, through a lab with any target, or none: what it makes, and what arrives.
//!
//! Invariant: all targets get their load and their line; a packet without a place among them fails the command then.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::options::{LoadSource, MeasureOptions, rate};
use crate::lab::{Entered, enter};
use crate::load::replay::Pace;
use crate::result::Account;
use crate::target::Target;
use crate::trial::{Bench, Length, Replay, Request, rules};

/// Options of `fanq-bench load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Packets a second, all senders together [default: as fast as they go]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Packets of each sender [default: 1000000, of a capture all once]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    /// A capture at its own pace, but so many times as fast
    #[arg(long, default_value = "1.0", value_parser = speed, conflicts_with = "rate")]
    speed: f64,
    /// A capture (pcap or pcapng, Ethernet or bare IP) instead of packets made for the purpose: the same as
    /// --load pcap:FILE
    #[arg(num_args = 2, value_names = ["pcap", "FILE"], conflicts_with = "source")]
    replay: Vec<PathBuf>,
    #[command(flatten)]
    options: MeasureOptions,
}

#[derive(Debug, Serialize)]
struct LoadResult<'a> {
    schema: &'static str,
    target: &'a str,
    senders: usize,
    seconds: f64,
    offered_pps: f64,
    delivered_pps: f64,
    /// 99th percentile; none without a rate.
    lateness_us_p99: Option<f64>,
    void: Option<String>,
    account: Account,
}

/// `fanq-bench load`
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let mut options = args.options.load.clone();
    if let [what, file] = &args.replay[..] {
        ensure!(what == Path::new("pcap"), "{}: there is `load pcap FILE`", what.display());
        options.source = Some(LoadSource::Pcap(file.clone()));
    }
    let lab = match enter(&args.options.lab)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(lab) => lab,
    };
    let mut load = options.settle(&lab)?;
    let replay = options.capture(&mut load)?;
    let replay = replay.map(|replay| Replay { pace: Pace::Own(args.speed), ..replay });
    let length = match (args.packets, &replay) {
        (Some(packets), _) => Length::Packets(packets),
        (None, Some(_)) => Length::All,
        (None, None) => Length::Packets(PACKETS),
    };
    let service = args.options.service(&lab)?;
    rules::check(service.queues, &lab.shape.queue_cpus)?;
    let bench = Bench::new(lab, load, service)?.replaying(replay)?;
    let targets: &[Target] = &args.options.targets;
    let mut open = Vec::new();
    for (round, target) in targets.iter().enumerate() {
        let trial = bench.run(&Request {
            purpose: "load",
            target,
            round,
            pps: args.rate,
            length,
            delays: false,
            on_queue_cpus: false,
        })?;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let per_second = |packets: u64| packets as f64 / trial.seconds.max(1e-9);
        crate::print_json(&LoadResult {
            schema: "fanq.load/1",
            target: &target.name,
            senders: bench.lab.pairs.len(),
            seconds: trial.seconds,
            offered_pps: per_second(trial.account.offered),
            delivered_pps: per_second(trial.account.delivered),
            lateness_us_p99: trial.lateness_us_p99,
            void: trial.void,
            account: trial.account,
        })?;
        if trial.account.unaccounted != 0 {
            open.push(format!("{} of {}", trial.account.unaccounted, target.name));
        }
    }
    ensure!(open.is_empty(), "packets are unaccounted for: {}", open.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// How many times as fast as captured.
fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "how many times as fast".to_owned())?;
    let allowed = (0.001..=1e6).contains(&speed);
    if allowed { Ok(speed) } else { Err("0.001 to 1000000 times as fast".to_owned()) }
}

const PACKETS: u64 = 1_000_000;
