//! The files that a measurement leaves: options for `fanq run --config`, and the evidence.
//!
//! Invariant: what the options file says was measured; options that were not measured are not in it.

use std::path::Path;

use serde_json::{Value, json};

use super::bench::Ended;
use super::candidate::{Axes, Candidate};
use super::choose::{Screening, Verdict};
use super::document::Document;

/// All that is told.
pub(super) struct Report<'a> {
    pub(super) axes: &'a Axes,
    pub(super) sweep: &'a Document,
    pub(super) screening: &'a Screening,
    pub(super) verdict: &'a Verdict,
}

/// The options, with what was measured as comments.
pub(super) fn toml(report: &Report<'_>, chosen: &Candidate, evidence: &Path) -> String {
    let Report { axes, sweep, screening, verdict } = report;
    let evidence = evidence.file_name().unwrap_or_default().to_string_lossy();
    let word = |pointer| sweep.word(pointer);
    let (cpus, cpu, kernel) =
        (word("/machine/cpus"), word("/machine/cpu"), word("/machine/kernel"));
    let began = word("/run/began");
    let (tried, rounds) = (screening.ranked.len(), screening.rounds);
    let ended = if sweep.ended == Ended::Late { ", ended by the budget" } else { "" };
    let words = verdict.words(screening);
    let mut text = format!(
        "# Measured by `fanq tune --measure` on {began}: {cpus} CPUs ({cpu}), Linux {kernel}.\n\
         # {tried} configurations, {rounds} rounds{ended}; UDP of 74 to 1518 bytes in a lab of namespaces,\n\
         # everything accepted, as fast as it goes.\n\
         # {words}.\n\
         # CPU time per packet, cheapest first:\n"
    );
    let shown = screening.ranked.iter().take(SHOWN);
    let lines =
        shown.map(|one| format!("#   {:.3} us, {} lost: {}\n", one.us, one.lost, one.candidate));
    text.extend(lines);
    text.extend(axes.left_out().map(|option| format!("# Not tried for want of time: {option}.\n")));
    let cut = screening.ranked.iter().any(|one| !one.candidate.copies_all());
    if cut && chosen.copies_all() {
        text += "# A short copy range is chosen only where --headers-only says that it will do.\n";
    }
    text += "# All of it: ";
    text += &evidence;
    text += ". An inspector costs more than this; measure yours, too.\n\n";
    text.extend(chosen.options.iter().map(|(option, value)| {
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            format!("{option} = {value}\n")
        } else {
            format!("{option} = \"{value}\"\n")
        }
    }));
    text
}

/// Everything that was measured, as the bench wrote it.
pub(super) fn evidence(report: &Report<'_>, compared: Option<&Document>) -> anyhow::Result<String> {
    let Report { axes, sweep, screening, verdict } = report;
    let ranked = screening.ranked.iter().map(|one| {
        json!({ "target": one.candidate.target(), "us_per_packet": one.us, "lost": one.lost })
    });
    let object = json!({
        "schema": "fanq.tune.measured/1",
        "chosen": verdict.chosen(screening).target(),
        "why": verdict.words(screening),
        "ranked": ranked.collect::<Vec<_>>(),
        "not_tried": axes.left_out().collect::<Vec<_>>(),
        "sweep": sweep.whole,
        "comparison": compared.map_or(Value::Null, |document| document.whole.clone()),
    });
    Ok(serde_json::to_string(&object)? + "\n")
}

/// Lines of the ranking in the options file.
const SHOWN: usize = 8;
