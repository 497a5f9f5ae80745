//! A comparison as a table for people.
//!
//! Invariant: its last line is the verdict.

use std::fmt::Write;

use super::judge::{Change, Comparison, Row};

pub(super) fn table(comparison: &Comparison) -> String {
    let head = ["target", "", "A", "B", "change", "p", "trials", ""].map(str::to_owned);
    let lines: Vec<_> = comparison.rows.iter().map(cells).collect();
    let all = || std::iter::once(&head).chain(&lines);
    let width = |column: usize| all().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    if !lines.is_empty() {
        for line in all() {
            let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                match column {
                    // Words to the left, figures to the right.
                    0 | 1 | 7 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for note in &comparison.notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    let _ = writeln!(text, "{}", comparison.summary);
    text
}

fn cells(row: &Row) -> [String; 8] {
    let verdict = match row.verdict {
        Change::Same => "same",
        Change::Better => "better",
        Change::Worse => "WORSE",
        Change::TooFew => "too few trials",
        Change::Unclear => "unclear: within the noise, or not set by loss",
    };
    [
        row.target.clone(),
        row.question.clone(),
        figure(row.a),
        figure(row.b),
        format!("{:+.1} {}", row.change * 100.0, if row.in_points { "pt" } else { "%" }),
        row.p.map(|p| format!("{p:.4}")).unwrap_or_default(),
        row.trials.map(|(a, b)| format!("{a}/{b}")).unwrap_or_default(),
        verdict.to_owned(),
    ]
}

fn figure(value: f64) -> String {
    if value.abs() < 1_000.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}
