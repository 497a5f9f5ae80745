//! `fanq-bench load`: the load alone, through a lab with any target, or none: what it makes, and what arrives.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::options::{MeasureOptions, rate};
use crate::lab::{Entered, enter};
use crate::result::Account;
use crate::target::Target;
use crate::trial::{Bench, Length, Request, rules};

/// Options of `fanq-bench load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Packets a second, all senders together [default: as fast as they go]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Packets of each sender
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    packets: u64,
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
    let lab = match enter(&args.options.lab)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(lab) => lab,
    };
    let load = args.options.load.settle(&lab)?;
    let service = args.options.service(&lab)?;
    rules::check(service.queues, &lab.shape.queue_cpus)?;
    let bench = Bench::new(lab, load, service)?;
    let targets: &[Target] = &args.options.targets;
    for (round, target) in targets.iter().enumerate() {
        let trial = bench.run(&Request {
            purpose: "load",
            target,
            round,
            pps: args.rate,
            length: Length::Packets(args.packets),
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
    }
    Ok(ExitCode::SUCCESS)
}
