//! The measuring commands: each enters a lab, asks its question of all targets in turn, and leaves one document.
//!
//! Invariant: a command that fails half way has taken its lab down and kept what it had measured.

mod cpu;
mod delay;
mod load;
mod options;
mod ping_pong;
mod rates;
mod rest;
mod session;
mod suite;
mod summary;
mod sweep;
mod tcp;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::lab::{Entered, enter};
use crate::search::Plan;
use crate::target::Target;
use cpu::CpuQuestion;
use delay::DelayQuestion;
use options::{MeasureOptions, rate, seconds, times};
use session::Session;
use tcp::TcpQuestion;

pub(crate) use load::{LoadArgs, run as load};
pub(crate) use ping_pong::{PingPongArgs, run as ping_pong};
pub(crate) use suite::{SuiteArgs, run as suite};

/// Some hundredths of a second, at what two senders on the queues' own CPUs make.
const CPU_PACKETS: u64 = 10_000;

/// Options of `fanq-bench cpu`.
#[derive(Debug, Args)]
pub(crate) struct CpuArgs {
    /// Rounds, each with every target once; with --apart 20 unless said
    #[arg(
        long,
        default_value = "60",
        default_value_if("apart", "true", "20"),
        value_parser = times
    )]
    rounds: usize,
    /// Packets of each sender in one trial; with --apart 500,000 unless said
    #[arg(
        long,
        default_value_t = CPU_PACKETS,
        default_value_if("apart", "true", "500000"),
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    packets: u64,
    /// Packets a second, all senders together [default: as fast as they go]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Start each program for each trial, alone, instead of all of them at once: for programs that spin while they wait
    #[arg(long)]
    apart: bool,
    #[command(flatten)]
    options: MeasureOptions,
}

/// Options of `fanq-bench latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// Packets a second, all senders together; as often as wanted
    #[arg(long = "rate", default_values = ["1000"], value_parser = rate)]
    rates: Vec<f64>,
    /// Rounds, each with every target once
    #[arg(long, default_value = "5", value_parser = times)]
    rounds: usize,
    /// Seconds of one trial
    #[arg(long, default_value = "4.0", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    options: MeasureOptions,
}

/// Options of `fanq-bench ndr`.
#[derive(Debug, Args)]
pub(crate) struct NdrArgs {
    /// The rate tried first, in packets a second
    #[arg(long, default_value = "100000", value_parser = rate)]
    first: f64,
    /// The highest rate tried
    #[arg(long, default_value = "2000000", value_parser = rate)]
    highest: f64,
    /// Seconds of one trial
    #[arg(long, default_value = "1.0", value_parser = seconds)]
    seconds: f64,
    /// How far apart the bounds may be in the end, as a share
    #[arg(long, default_value_t = 0.02)]
    width: f64,
    /// Trials that decide on one rate
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Trials for one target
    #[arg(long, default_value = "120", value_parser = times)]
    trials: usize,
    #[command(flatten)]
    options: MeasureOptions,
}

/// Options of `fanq-bench curve`.
#[derive(Debug, Args)]
pub(crate) struct CurveArgs {
    /// The rate that 100 % stands for, in packets a second
    #[arg(long, value_parser = rate)]
    reference: f64,
    /// Seconds of one trial
    #[arg(long, default_value = "2.0", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    options: MeasureOptions,
}

/// Options of `fanq-bench sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The axes: options of `fanq run`, each with a list of values, such as batch = [8, 64]
    #[arg(value_name = "FILE.toml")]
    axes: PathBuf,
    /// Rounds, each with every combination once
    #[arg(long, default_value = "5", value_parser = times)]
    rounds: usize,
    /// Packets of each sender in one trial
    #[arg(long, default_value_t = 300_000)]
    packets: u64,
    /// Packets a second, all senders together [default: as fast as they go]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    #[command(flatten)]
    options: MeasureOptions,
}

/// `fanq-bench sweep`
pub(crate) fn sweep(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    let SweepArgs { axes, rounds, packets, rate: pps, options } = args;
    // Combinations may spin while they wait, and may be many.
    let question = CpuQuestion { rounds: *rounds, packets: *packets, pps: *pps, apart: true };
    let targets = sweep::targets(axes)?;
    in_session_with(options, targets, "", |session| cpu::measure(session, question))
}

/// Options of `fanq-bench tcp`.
#[derive(Debug, Args)]
pub(crate) struct TcpArgs {
    /// Rounds, each with every target once
    #[arg(long, default_value = "7", value_parser = times)]
    rounds: usize,
    /// Seconds of one trial
    #[arg(long, default_value = "2.0", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    options: MeasureOptions,
}

/// `fanq-bench tcp`
pub(crate) fn tcp(args: &TcpArgs) -> anyhow::Result<ExitCode> {
    let question = TcpQuestion { rounds: args.rounds, seconds: args.seconds };
    in_session(&args.options, "", |session| tcp::measure(session, question))
}

/// `fanq-bench cpu`
pub(crate) fn cpu(args: &CpuArgs) -> anyhow::Result<ExitCode> {
    let CpuArgs { rounds, packets, rate: pps, apart, options } = args;
    let question = CpuQuestion { rounds: *rounds, packets: *packets, pps: *pps, apart: *apart };
    in_session(options, "", |session| cpu::measure(session, question))
}

/// `fanq-bench latency`
pub(crate) fn latency(args: &LatencyArgs) -> anyhow::Result<ExitCode> {
    in_session(&args.options, "", |session| {
        for &pps in &args.rates {
            let (load, targets) = (format!("{pps:.0}/s"), session.targets.clone());
            let question = DelayQuestion { pps, load, rounds: args.rounds, seconds: args.seconds };
            delay::measure(session, &targets, &question)?;
        }
        Ok(())
    })
}

/// `fanq-bench ndr`
pub(crate) fn ndr(args: &NdrArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan {
        width: args.width,
        trial_seconds: args.seconds,
        duration_sum: args.seconds * f64::from(args.repeat),
        trials_max: args.trials,
        ..Plan::standard(args.first, args.highest)
    };
    in_session(&args.options, "", |session| rates::search(session, &plan))
}

/// `fanq-bench curve`
pub(crate) fn curve(args: &CurveArgs) -> anyhow::Result<ExitCode> {
    in_session(&args.options, "", |session| {
        for target in session.targets.clone() {
            rates::curve(session, &target, args.reference, &rates::SHARES, args.seconds)?;
        }
        Ok(())
    })
}

/// Enters a lab, measures, and leaves the document.
fn in_session(
    options: &MeasureOptions,
    suite: &str,
    measure: impl FnOnce(&mut Session) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    in_session_with(options, options.all_targets(), suite, measure)
}

fn in_session_with(
    options: &MeasureOptions,
    targets: Vec<Target>,
    suite: &str,
    measure: impl FnOnce(&mut Session) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let lab = match enter(&options.lab)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(lab) => lab,
    };
    let mut session = Session::open(lab, options, targets, suite)?;
    let outcome = measure(&mut session);
    session.close(outcome)?;
    Ok(ExitCode::SUCCESS)
}
