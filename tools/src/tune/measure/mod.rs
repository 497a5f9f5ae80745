//! `fanq tune --measure`: which options of `fanq run` cost the least CPU time per packet on this machine.
//!
//! ```text
//! sweep: every combination in turn, until two thirds of the time are over -> the best that lost nothing
//! cpu:   that one beside the defaults, and the defaults beside themselves -> is it better than they by chance?
//! ```
//!
//! Invariant: the defaults stay unless something else is better in a measurement of its own, which did not choose it.
//! Nothing of the machine is changed: the bench makes its own namespaces and takes them away. No file is written over.

mod bench;
mod candidate;
mod choose;
mod config;
mod document;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use crate::usage;
use bench::Bench;
use candidate::Axes;
use choose::{Screening, Verdict, screen};
use document::Document;

/// Options of `fanq tune --measure`.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Measure combinations of batch, copy range, length, buffer and waiting on this machine, and write the best as a
    /// file for `fanq run --config`; needs fanq-bench
    #[arg(long)]
    measure: bool,
    /// About how long it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "measure")]
    #[arg(value_parser = clap::value_parser!(u64).range(BUDGET_MIN..=86_400))]
    budget: u64,
    /// Where the options go; what was measured goes beside it (fanq.measured.json)
    #[arg(short, long, value_name = "FILE", default_value = "fanq.toml", requires = "measure")]
    out: PathBuf,
    /// The inspector reads headers only: a short copy range may be chosen
    #[arg(long, requires = "measure")]
    headers_only: bool,
}

impl MeasureArgs {
    pub(crate) fn is_asked_for(&self) -> bool {
        self.measure
    }
}

/// Measures, and writes both files.
pub(crate) fn run(args: &MeasureArgs) -> anyhow::Result<()> {
    let evidence = args.out.with_extension("measured.json");
    for path in [&args.out, &evidence] {
        if path.exists() {
            let shown = path.display();
            return Err(usage(format!("{shown} is there; move it away, or give -o another name")));
        }
    }
    ensure_writable(&args.out)?;
    let mut bench = Bench::find()?;
    let began = Instant::now();
    let until = began + Duration::from_secs(args.budget);
    let (axes, rounds) = fit(&mut bench, args)?;
    let combinations = axes.combinations();
    eprintln!("1 of 2: {} configurations, {rounds} rounds", combinations.len());
    let sweep = bench.sweep(&axes, rounds, began + Duration::from_secs(args.budget * 2 / 3))?;
    let screening = screen(&sweep, &combinations, args.headers_only)?;
    let (verdict, compared) = confirm(&mut bench, &screening, until)?;
    let chosen = verdict.chosen(&screening);
    let report =
        config::Report { axes: &axes, sweep: &sweep, screening: &screening, verdict: &verdict };
    write_new(&evidence, &config::evidence(&report, compared.as_ref())?)?;
    write_new(&args.out, &config::toml(&report, chosen, &evidence))?;
    println!("{}", verdict.words(&screening));
    println!(
        "written: {} (use it: fanq run --config {}), and what was measured: {}",
        args.out.display(),
        args.out.display(),
        evidence.display()
    );
    Ok(())
}

/// Measures how long one trial takes, and leaves out axes until every combination gets enough of them.
fn fit(bench: &mut Bench, args: &MeasureArgs) -> anyhow::Result<(Axes, usize)> {
    eprintln!("trying how long one trial takes");
    let began = Instant::now();
    let first = bench.sweep(&Axes::defaults(), 2, began + Duration::from_secs(args.budget / 3))?;
    let longest = first.trials.iter().map(|trial| trial.seconds).reduce(f64::max);
    let longest = longest.with_context(|| {
        format!("--budget {} is too short: a third of it is not enough for a trial", args.budget)
    })?;
    let trial = longest + START_SECONDS;
    let left = Duration::from_secs(args.budget * 2 / 3).saturating_sub(began.elapsed());
    let mut axes = Axes::all();
    while rounds_in(left, trial, &axes) < ROUNDS_MIN && axes.drop_last() {}
    let rounds = rounds_in(left, trial, &axes);
    ensure!(
        rounds >= ROUNDS_MIN && axes.combinations().len() > 1,
        "--budget {} is too short: a trial takes {trial:.1} s here, and each configuration needs {ROUNDS_MIN}",
        args.budget
    );
    for left_out in axes.left_out() {
        eprintln!("{left_out} is left as it is: a longer --budget would try it, too");
    }
    Ok((axes, rounds))
}

/// How often each combination can be tried. The time that the bench rests is not foreseen; it costs rounds.
#[expect(clippy::cast_precision_loss, reason = "at most 64 combinations")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to some hundred"
)]
fn rounds_in(time: Duration, trial_seconds: f64, axes: &Axes) -> usize {
    let rounds = time.as_secs_f64() / (trial_seconds * axes.combinations().len() as f64);
    rounds.clamp(0.0, ROUNDS_MAX) as usize
}

/// Holds the best of the sweep against the defaults, with trials that did not choose it.
fn confirm(
    bench: &mut Bench,
    screening: &Screening,
    until: Instant,
) -> anyhow::Result<(Verdict, Option<Document>)> {
    let best = match &screening.best {
        Some(best) if !best.is_default() => best,
        _ => return Ok((Verdict::of_sweep(screening), None)),
    };
    eprintln!("2 of 2: {best} beside the defaults");
    let document = bench.compare(best, until)?;
    Ok((Verdict::of_comparison(&document, best), Some(document)))
}

/// Tries the folder now rather than after all the measuring.
fn ensure_writable(path: &Path) -> anyhow::Result<()> {
    write_new(path, "").and_then(|()| {
        std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
    })
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// Fewer rounds say nothing.
const ROUNDS_MIN: usize = 5;
const ROUNDS_MAX: f64 = 100.0;
/// What a trial takes beside its packets: a program that starts and ends.
const START_SECONDS: f64 = 0.3;
/// Ten trials of the smallest choice, and the comparison.
const BUDGET_MIN: u64 = 30;
