//! `fanq-bench versus`: fanq against a plain NFQUEUE loop, in turn, in one run.
//!
//! The plain loop is any program that is called as `PROGRAM QUEUE batch|multi|single CPU`, accepts every packet of
//! one queue and prints, on SIGTERM, one JSON object with `packets`, `recv_calls`, `send_calls` and `cpu_us`:
//! `batch` receives many and answers by one batch verdict, `multi` by one verdict each in one send, `single` one by
//! one.
//!
//! Method: every round runs each target once over the same load (odd rounds backwards); what is compared are medians
//! over the rounds of the CPU time per answered packet, which drifts less than a rate. The load is made in the kernel,
//! on both CPUs at once, and enters by INPUT; behind the queue a rule drops and counts what was let through.
//!
//! Invariant: every packet offered is accounted for in each trial, as answered or as a loss that the kernel counted,
//! or the trial is an error. It runs in namespaces of its own, which end with it or with whoever started it.

mod lab;
mod latency;
mod record;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::lab::enter_empty;
use lab::Lab;
use record::{Comparison, Record};
use target::{Kind, Target, Trial};

/// Options of `fanq-bench versus`.
#[derive(Debug, Args)]
pub(crate) struct VersusArgs {
    /// The plain loop to compare with
    #[arg(long, value_name = "PROGRAM")]
    reference: PathBuf,
    /// The fanq to measure [default: the one beside this program]
    #[arg(long, value_name = "PROGRAM")]
    fanq: Option<PathBuf>,
    /// More options for `fanq run`, such as "--nice 0"
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "OPTIONS")]
    fanq_options: String,
    /// A command that starts the plain loop, such as "nice -n -5"
    #[arg(long, default_value = "", value_name = "COMMAND")]
    reference_prefix: String,
    /// Rounds
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Packets per queue and trial
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
    /// UDP payload bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Queues, each with load from the CPU of its number
    #[arg(long, default_value_t = 2)]
    queues: u16,
    /// Seconds of each trial at low load
    #[arg(long, default_value_t = 4)]
    low_load_seconds: u64,
    /// Where to write the whole result
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Already inside; the value is where it was started
    #[arg(long, hide = true, value_name = "NAMESPACES")]
    inside: Option<String>,
}

/// Runs the whole comparison.
pub(crate) fn run(args: &VersusArgs) -> anyhow::Result<ExitCode> {
    if let Some(code) = enter_empty(args.inside.as_deref())? {
        return Ok(code);
    }
    let fanq = match &args.fanq {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("fanq"),
    };
    let lab = Lab::build(args.queues)?;
    let ours = |policy| Target::fanq(&fanq, policy, &args.fanq_options);
    let plain = |kind| Target::reference(&args.reference_prefix, &args.reference, kind);
    let targets = [
        ours("accept"),
        plain(Kind::Batch),
        ours("drop:10"),
        plain(Kind::Multi),
        plain(Kind::Single),
    ];
    let trials = full_load(args, &lab, &targets)?;
    let latencies =
        latency::low_load(&lab, &targets[0], &targets[4], args.pairs, args.low_load_seconds)?;
    let record = Record::new(trials, latencies)?;
    record.print();
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&record)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All targets in turn, round by round.
fn full_load(args: &VersusArgs, lab: &Lab, targets: &[Target]) -> anyhow::Result<Vec<Trial>> {
    let progress = ProgressBar::new((args.pairs * targets.len()) as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")?);
    let mut trials = Vec::new();
    for round in 0..args.pairs {
        let mut order: Vec<_> = targets.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for target in order {
            progress.set_message(target.name.clone());
            trials.push(target.measure(lab, args.packets, args.size)?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(trials)
}

/// What is compared with what, and the ratio that is to be reached.
const COMPARISONS: [Comparison; 4] = [
    Comparison { candidate: "fanq accept", baseline: "batch", at_most: 1.05 },
    Comparison { candidate: "fanq drop:10", baseline: "batch", at_most: 1.6 },
    Comparison { candidate: "fanq drop:10", baseline: "multi", at_most: 1.0 },
    Comparison { candidate: "fanq accept", baseline: "single", at_most: 0.40 },
];
