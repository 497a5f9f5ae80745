//! `fanq-bench compare A.json B.json`: whether B costs more than A, its baseline.
//!
//! ```text
//! not comparable (3)  another schema, lab, load, method or machine, or nothing that both measured often enough;
//!                     or B broke off or lacks what A has, and nothing is worse as far as can be told
//! worse (2)           at least one question changed for the worse
//! same, better (0)    none did
//! ```
//!
//! A question that has trials on both sides (CPU per packet, median delay, TCP, share lost) changed if both hold:
//! the change is as large as the threshold, 5 % unless told otherwise, and no chance, by a permutation test of ranks
//! whose alarms are limited to 1 in 20 *comparisons*, however many questions there are (Holm's method). A fixed
//! p < 0.01 for each, as in Firecracker's A/B test, would find fewer slowdowns among few questions and raise false
//! alarms among many. Of a share lost, half a point and the threshold's part of A's own have to be added or taken
//! away. Rates are judged by what a target differs from itself ([`rates`]), under the same limit.
//!
//! How often that is right is simulated in the tests. Twenty trials a side find a slowdown of 10 % in 19 of
//! 20 tries up to a noise of about 7 % a trial; where noise is greater, a note says how many trials it takes.
//!
//! No test sees what moved the whole machine between both runs. `--control TARGET` divides each trial by that
//! target's of the same round, which takes out what slowed both alike.
//!
//! Invariant: void trials count nowhere; what could not be compared is named, with its reason. Nothing is measured.

#![expect(clippy::cast_precision_loss, reason = "counts of trials and packets, far below 2^53")]

mod comparable;
mod judge;
mod questions;
mod rates;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::print_json;
use crate::result::Document;
use judge::{Comparison, Verdict};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The baseline, a file that --out wrote.
    a: PathBuf,
    /// What is held against it.
    b: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Compare although kernel, CPU or their number differ.
    #[arg(long)]
    across_machines: bool,
    /// The least change that counts, as a share.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    threshold: f64,
    /// Divide each trial by this target's of the same round: takes out what slowed the whole machine.
    #[arg(long, value_name = "TARGET")]
    control: Option<String>,
}

/// Compares two results; the exit status says which way.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        args.threshold > 0.0 && args.threshold < 1.0,
        "the threshold is {}; give a share below 1, such as 0.05 for 5 %",
        args.threshold
    );
    let comparison = compare_files(&args.a, &args.b, args)?;
    if args.json {
        print_json(&comparison)?;
    } else {
        print!("{}", show::table(&comparison));
    }
    Ok(ExitCode::from(match comparison.verdict {
        Verdict::Same | Verdict::Better => 0,
        Verdict::Worse => 2,
        Verdict::NotComparable => 3,
    }))
}

/// A file that cannot be read is an error; one that is no result of this format is not comparable.
fn compare_files(a: &Path, b: &Path, args: &CompareArgs) -> anyhow::Result<Comparison> {
    let mut documents = Vec::with_capacity(2);
    for path in [a, b] {
        match Document::read(path) {
            Ok(document) => documents.push(document),
            Err(error) if error.is::<std::io::Error>() => return Err(error),
            Err(error) => {
                return Ok(Comparison::impossible(args.threshold, vec![format!("{error:#}")]));
            }
        }
    }
    Ok(compare(&documents[0], &documents[1], args, RESAMPLES))
}

fn compare(a: &Document, b: &Document, args: &CompareArgs, resamples: u32) -> Comparison {
    let mut obstacles = comparable::obstacles(a, b, args.across_machines);
    obstacles.extend(args.control.iter().flat_map(|control| comparable::lacks(a, b, control)));
    if !obstacles.is_empty() {
        return Comparison::impossible(args.threshold, obstacles);
    }
    let asked =
        questions::Asked { threshold: args.threshold, control: args.control.as_deref(), resamples };
    let mut answers = questions::ask(a, b, &asked);
    if !b.run.complete {
        answers.missing.insert(0, "B ended early, not all that was asked was measured".to_owned());
    }
    let mut notes = comparable::notes(a, b);
    notes.extend(answers.notes);
    judge::settle(&mut answers.rows, args.threshold);
    notes.extend(judge::what_may_be_missed(&answers.rows, args.threshold));
    Comparison::of(answers.rows, notes, answers.missing, args.threshold)
}

/// As many as Firecracker's A/B test takes.
const RESAMPLES: u32 = 9_999;

#[cfg(test)]
mod tests;
