//! Suites: all questions in one run, in three sizes.
//!
//! Order: loss-free rates first, since the loads of the others follow from them; then delay at 1,000 packets a second
//! and at half of the slowest target's loss-free rate; loss from 10 % to 200 % of each target's own; CPU time; TCP.

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::cpu::{self, CpuQuestion};
use super::delay::{self, DelayQuestion};
use super::options::MeasureOptions;
use super::rates;
use super::session::Session;
use super::tcp::{self, TcpQuestion};
use crate::search::Plan;
use crate::target::Target;

/// Options of `fanq-bench run`.
#[derive(Debug, Args)]
pub(crate) struct SuiteArgs {
    /// How thoroughly
    #[arg(long, value_enum, default_value_t = Suite::Smoke)]
    suite: Suite,
    #[command(flatten)]
    options: MeasureOptions,
}

/// The sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Whether everything works, in less than two minutes
    Smoke,
    /// Figures to compare by, in less than half an hour
    Standard,
    /// The same with many more trials
    Full,
}

/// What a size means.
struct Scope {
    plan: Plan,
    delay_rounds: usize,
    delay_seconds: f64,
    curve_seconds: f64,
    shares: &'static [f64],
    cpu: CpuQuestion,
    tcp: TcpQuestion,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }

    fn scope(self) -> Scope {
        let plan = Plan::standard(FIRST_PPS, HIGHEST_PPS);
        match self {
            Self::Smoke => Scope {
                plan: Plan { trials_max: 16, width: 0.1, ..Plan::smoke(FIRST_PPS, HIGHEST_PPS) },
                delay_rounds: 1,
                delay_seconds: 1.0,
                curve_seconds: 0.2,
                shares: &[0.5, 1.0, 2.0],
                cpu: CpuQuestion { rounds: 5, packets: 10_000, pps: None, apart: false },
                tcp: TcpQuestion { rounds: 1, seconds: 0.5 },
            },
            Self::Standard => Scope {
                plan: Plan {
                    width: 0.03,
                    trial_seconds: 0.7,
                    duration_sum: 3.5,
                    trials_max: 60,
                    ..plan
                },
                delay_rounds: 7,
                delay_seconds: 2.0,
                curve_seconds: 0.7,
                shares: &rates::SHARES,
                cpu: CpuQuestion { rounds: 60, packets: 10_000, pps: None, apart: false },
                tcp: TcpQuestion { rounds: 7, seconds: 1.5 },
            },
            Self::Full => Scope {
                plan: Plan { width: 0.01, ..plan },
                delay_rounds: 20,
                delay_seconds: 10.0,
                curve_seconds: 5.0,
                shares: &rates::SHARES,
                cpu: CpuQuestion { rounds: 300, packets: 10_000, pps: None, apart: false },
                tcp: TcpQuestion { rounds: 20, seconds: 10.0 },
            },
        }
    }
}

/// `fanq-bench run`
pub(crate) fn run(args: &SuiteArgs) -> anyhow::Result<ExitCode> {
    super::in_session(&args.options, args.suite.name(), |session| all(session, &args.suite.scope()))
}

fn all(session: &mut Session, scope: &Scope) -> anyhow::Result<()> {
    rates::search(session, &scope.plan)?;
    let targets = session.targets.clone();
    let loads = [(1000.0, "1000/s".to_owned())].into_iter().chain(half_of_slowest(session));
    let has_times = session.bench.capture.is_none();
    for (pps, load) in loads.filter(|_| has_times) {
        let (rounds, seconds) = (scope.delay_rounds, scope.delay_seconds);
        delay::measure(session, &targets, &DelayQuestion { pps, load, rounds, seconds })?;
    }
    for target in targets.iter().filter(|target| target.is_program()) {
        if let Some(pps) = loss_free(session, target) {
            rates::curve(session, target, pps, scope.shares, scope.curve_seconds)?;
        }
    }
    if targets.iter().any(Target::is_program) {
        cpu::measure(session, scope.cpu)?;
    }
    tcp::measure(session, scope.tcp)?;
    ensure!(!session.document.trials.is_empty(), "nothing was measured");
    Ok(())
}

/// The highest rate that a target bore without loss, or with 0.5 % of it where it bore none without.
fn loss_free(session: &Session, target: &Target) -> Option<f64> {
    let rates = session.document.findings.rates.iter();
    let mut own = rates.filter(|rate| rate.target == target.name && rate.pps > 0.0);
    own.next().map(|rate| rate.pps)
}

fn half_of_slowest(session: &Session) -> Option<(f64, String)> {
    let programs = session.targets.iter().filter(|target| target.is_program());
    let slowest =
        programs.filter_map(|target| loss_free(session, target)).min_by(f64::total_cmp)?;
    Some((slowest / 2.0, "half of the slowest loss-free rate".to_owned()))
}

const FIRST_PPS: f64 = 100_000.0;
const HIGHEST_PPS: f64 = 1_500_000.0;
