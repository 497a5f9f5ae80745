//! The same as lines: a table for people (`--once`, and terminals that cannot move their cursor), an object for
//! programs (`--json`).
//!
//! Invariant: every table and every object has rates, so it comes after two looks. A reader who has had enough ends
//! it without a word.

use std::io::{self, IsTerminal, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use serde::Serialize;

use super::Looks;
use super::rates::{Board, Problem, Program, QueueLine, Totals};
use super::terminal::clock;
use super::view::{Choices, draw, height_of_all};

/// One refresh. The keys are an interface: add, do not rename.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    /// Seconds since 1970.
    time: f64,
    /// Seconds over which rates were taken.
    seconds: f64,
    totals: &'a Totals,
    queues: &'a [QueueLine],
    programs: &'a [Program],
    problems: &'a [Problem],
}

/// Prints one table or object each interval.
pub(super) fn run(
    looks: &mut Looks,
    choices: &Choices,
    json: bool,
    count: Option<u64>,
) -> anyhow::Result<()> {
    looks.look(true)?;
    let mut looked = Instant::now();
    let mut printed = 0;
    loop {
        let due = looked + choices.interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let seconds = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        looks.look(printed == 0)?;
        let text = if json {
            object(&looks.board, seconds)?
        } else {
            let gap = if printed == 0 { "" } else { "\n" };
            format!("{gap}{}", table(&looks.board, choices, width(), &clock()))
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("writing")?,
        }
        printed += 1;
        if count.is_some_and(|count| printed >= count) {
            return Ok(());
        }
    }
}

fn object(board: &Board, seconds: f64) -> anyhow::Result<String> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let Board { lines, totals, programs, problems, .. } = board;
    let report =
        Report { schema: "fanq.top/1", time, seconds, totals, queues: lines, programs, problems };
    Ok(serde_json::to_string(&report).context("writing JSON")? + "\n")
}

/// The screen as text, without blanks at the ends of its lines.
pub(super) fn table(board: &Board, choices: &Choices, width: u16, clock: &str) -> String {
    let mut choices = Choices { live: false, ..choices.clone() };
    let area = Rect::new(0, 0, width, height_of_all(board).min(LINES_MAX));
    let mut buffer = Buffer::empty(area);
    draw(&mut buffer, area, board, &mut choices, clock);
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(width.max(1))) {
        let begin = text.len();
        text.extend(row.iter().map(Cell::symbol));
        text.truncate(begin + text[begin..].trim_end().len());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// That of the terminal, or room for every column.
fn width() -> u16 {
    let of_terminal = io::stdout().is_terminal().then(ratatui::crossterm::terminal::size);
    match of_terminal {
        Some(Ok((columns, _))) if columns > 0 => columns,
        _ => {
            std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH)
        }
    }
}

/// All columns, with some history.
const WIDTH: u16 = 190;

/// More queues than that are left out of a table; `--json` has all of them.
const LINES_MAX: u16 = 4096;
