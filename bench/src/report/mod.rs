//! `fanq-bench report`: one page, or one chart, from the result of a run; and `fanq-bench schema`.
//!
//! Invariant: a file is written whole or not at all, and never over the result that it is drawn from. Findings are
//! shown as the document has them; nothing is measured here, and nothing fetched.

mod answer;
mod chart;
mod facts;
mod histogram;
mod lineup;
mod number;
mod page;
#[cfg(test)]
pub(crate) mod sample;
mod standing;
mod summary;
mod table;
mod trust;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::result::Document;
use chart::{Chart, ChartName};
use lineup::Lineup;

/// Options of `fanq-bench report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The result of a run, as --out wrote it
    #[arg(value_name = "RESULT.json")]
    result: PathBuf,
    /// Where to write [default: beside the result, RESULT.html or RESULT-CHART.svg]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write this chart alone, as an SVG with its own background, instead of the page
    #[arg(long, value_enum, value_name = "NAME")]
    chart: Option<ChartName>,
}

/// Reads the result, draws, and writes.
pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let document = Document::read(&args.result)?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.result, args.chart));
    let text = match args.chart {
        None => page::draw(&document),
        Some(name) => stand_alone(&document, name, &args.result)?,
    };
    write(&text, &out, &args.result)?;
    eprintln!("wrote {}", out.display());
    Ok(())
}

/// Prints the JSON Schema of a result.
pub(crate) fn schema() -> anyhow::Result<()> {
    print!("{}", schema_text()?);
    Ok(())
}

fn schema_text() -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&schemars::schema_for!(Document))? + "\n")
}

fn stand_alone(document: &Document, name: ChartName, result: &Path) -> anyhow::Result<String> {
    let lineup = Lineup::of(document);
    if let Some(chart) = Chart::of(name, document, &lineup) {
        return Ok(chart.stand_alone());
    }
    let there: Vec<_> =
        Chart::all(document, &lineup).iter().map(|chart| chart.name.as_str()).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    bail!(
        "{} has no data for --chart {}; charts it has data for: {there}",
        result.display(),
        name.as_str()
    )
}

fn beside(result: &Path, chart: Option<ChartName>) -> PathBuf {
    let Some(chart) = chart else { return result.with_extension("html") };
    let mut name = result.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}.svg", chart.as_str()));
    result.with_file_name(name)
}

/// Beside its place first, then there.
fn write(text: &str, out: &Path, result: &Path) -> anyhow::Result<()> {
    let shown = out.display();
    let same = |a: &Path, b: &Path| {
        a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
    };
    if same(out, result) {
        bail!("{shown} is the result itself; name another file with --out");
    }
    if out.is_dir() {
        bail!("{shown} is a folder; name a file in it with --out");
    }
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, out));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("writing {shown}; name another place with --out"))
}

#[cfg(test)]
mod tests;
