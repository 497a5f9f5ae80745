//! A screen, from top to bottom: what and when, what is wrong, the queues, their sums, the programs, the keys.
//!
//! Invariant: nothing is written outside the area.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::super::format::{count, grouped, percent};
use super::super::rates::{Board, Problem, QueueLine, Severity};
use super::Choices;
use super::columns::{Kind, Placed, owner_text, place};

/// Draws the whole screen. `clock` is what the header says of the time.
pub(in crate::top) fn draw(
    buffer: &mut Buffer,
    area: Rect,
    board: &Board,
    choices: &mut Choices,
    clock: &str,
) {
    let mut page = Page { buffer, area, y: area.y };
    page.line(&header(board, choices, clock, usize::from(area.width)), styles(choices).title);
    if choices.help {
        return page.help(choices);
    }
    let mut left = area.height.saturating_sub(1);
    let footer = u16::from(choices.live && left >= 6);
    left -= footer;
    // A quarter of the screen for what is wrong, at least one line.
    let wrong =
        u16::try_from(board.problems.len()).unwrap_or(u16::MAX).min((left / 4).max(1)).min(left);
    page.problems(&board.problems, wrong, choices);
    left -= wrong;
    if board.lines.is_empty() {
        page.nobody();
    } else {
        left = page.table(board, choices, left);
        page.programs(board, choices, left);
    }
    if footer > 0 {
        page.y = area.bottom() - 1;
        page.line(&keys(board, choices), styles(choices).dim);
    }
}

/// How many lines show everything: for output that does not scroll.
pub(in crate::top) fn height_of_all(board: &Board) -> u16 {
    // The header, the problems four times, as they get a quarter, heads, sums, a blank line, heads of programs.
    let rows = 5 + board.problems.len() * 4 + board.lines.len() + board.programs.len() + 4;
    u16::try_from(rows).unwrap_or(u16::MAX)
}

/// Where the next line goes.
struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    y: u16,
}

impl Page<'_> {
    /// Writes at a column of the current line, as much as there is room for.
    fn put(&mut self, x: usize, text: &str, width: usize, style: Style) {
        let area_width = usize::from(self.area.width);
        if self.y >= self.area.bottom() || x >= area_width {
            return;
        }
        let column = self.area.x + u16::try_from(x).unwrap_or(0);
        let width = width.min(area_width - x);
        if !text.chars().all(is_one_column) {
            self.buffer.set_stringn(column, self.y, text, width, style);
            return;
        }
        // The same for what needs no thought about widths, as nearly all is, at less cost.
        for (column, c) in (column..).zip(text.chars().take(width)) {
            self.buffer[(column, self.y)].set_char(c).set_style(style);
        }
    }

    fn line(&mut self, text: &str, style: Style) {
        self.put(0, text, usize::MAX, style);
        self.y = self.y.saturating_add(1);
    }

    fn problems(&mut self, problems: &[Problem], room: u16, choices: &Choices) {
        let styles = styles(choices);
        let room = usize::from(room);
        for (index, problem) in problems.iter().take(room).enumerate() {
            let (sign, style) = match problem.severity {
                Severity::Loss => ("!!", styles.bad),
                Severity::Warning => ("! ", styles.warn),
                Severity::Note => ("- ", styles.dim),
            };
            let what = format!("{sign} {}", problem.what);
            self.put(0, &what, usize::MAX, style);
            let begin = what.chars().count() + 1;
            let remedy = format!("({})", problem.remedy);
            let width = usize::from(self.area.width);
            if begin + remedy.len() <= width && !problem.remedy.is_empty() {
                self.put(begin, &remedy, usize::MAX, styles.dim);
            }
            let more = problems.len() - index - 1;
            if index + 1 == room && more > 0 {
                let more = format!(" (+{more} more)");
                self.put(width.saturating_sub(more.len()), &more, usize::MAX, style);
            }
            self.y += 1;
        }
    }

    fn nobody(&mut self) {
        for text in [
            "",
            "No program has a queue here. To see one:",
            "",
            "  fanq rules install --hook input --queues 0-3 --fanout --bypass",
            "  fanq run --queues 0-3",
            "",
            "Queues belong to a network namespace. For that of another process:",
            "",
            "  fanq top --netns-of PID",
        ] {
            self.line(text, Style::new());
        }
    }

    /// Heads, as many queues as there is room for, and the sums. Returns the lines that are left.
    fn table(&mut self, board: &Board, choices: &mut Choices, height: u16) -> u16 {
        let columns = place(usize::from(self.area.width), choices.live);
        let room = usize::from(height.saturating_sub(2)).max(usize::from(height > 0));
        choices.page = room;
        choices.keep_in_range(board);
        self.heads(&columns, choices);
        let lines = choices.sorted(board);
        let shown = lines.iter().skip(choices.offset).take(room);
        let mut used = 1;
        for line in shown {
            self.queue(line, &columns, choices);
            used += 1;
        }
        if used < height {
            self.totals(board, &columns, choices);
            used += 1;
        }
        height.saturating_sub(used)
    }

    fn heads(&mut self, columns: &[Placed], choices: &Choices) {
        let style = styles(choices).head;
        // The whole line, so that it is one stripe.
        self.put(0, &" ".repeat(usize::from(self.area.width)), usize::MAX, style);
        let mut x = 0;
        for column in columns {
            let mut head = column.head.to_owned();
            if choices.live && column.kind.is_sorted_by(choices.sort) && head.len() < column.width {
                head.push(choices.glyphs.sorted);
            }
            x = self.cell(x, column, &head, style);
        }
        self.y += 1;
    }

    fn queue(&mut self, line: &QueueLine, columns: &[Placed], choices: &Choices) {
        let mut x = 0;
        for column in columns {
            let text = column.kind.cell(line, column.width, choices);
            x = self.cell(x, column, &text, style_of(column.kind, line, choices));
        }
        self.y += 1;
    }

    fn totals(&mut self, board: &Board, columns: &[Placed], choices: &Choices) {
        let mut x = 0;
        for column in columns {
            x = self.cell(x, column, &column.kind.total(&board.totals), styles(choices).title);
        }
        self.y += 1;
    }

    /// Returns where the next one begins.
    fn cell(&mut self, x: usize, column: &Placed, text: &str, style: Style) -> usize {
        let length = text.chars().count();
        let indent = if column.kind.is_left() { 0 } else { column.width.saturating_sub(length) };
        self.put(x + indent, text, column.width - indent.min(column.width), style);
        x + column.width + 1
    }

    /// Who they are, below the table, where there is room for more than one of them.
    fn programs(&mut self, board: &Board, choices: &Choices, left: u16) {
        if left < 4 || board.programs.is_empty() {
            return;
        }
        self.y += 1;
        let style = styles(choices).dim;
        self.line("PROGRAM                 QUEUES  THREADS   CPU%  COMMAND", style);
        for program in board.programs.iter().take(usize::from(left) - 2) {
            let cpu = program.cpu_share.map_or("-".to_owned(), percent);
            let name = owner_text(&program.owner, program.accelerated);
            let policy = match &program.policy {
                _ if program.accelerated => "[accelerated] ".to_owned(),
                Some(policy) => format!("[{policy}] "),
                None => String::new(),
            };
            let text = format!(
                "{name:<23} {:>6} {:>8} {cpu:>6}  {policy}{}",
                program.queues.len(),
                program.threads,
                program.owner.command
            );
            self.line(&text, Style::new());
        }
    }

    fn help(&mut self, choices: &Choices) {
        self.y += 1;
        for text in HELP {
            self.line(text, Style::new());
        }
        self.line("", Style::new());
        self.line("any key: back", styles(choices).dim);
    }
}

/// As much of what matters as there is room for.
fn header(board: &Board, choices: &Choices, clock: &str, width: usize) -> String {
    let totals = &board.totals;
    let known = |number: Option<f64>| number.map_or("-".to_owned(), count);
    let plural = if totals.queues == 1 { "" } else { "s" };
    let mut parts = vec![
        clock.to_owned(),
        format!("{} queue{plural}", totals.queues),
        format!("{} packets/s", known(totals.packets)),
        format!("{} lost/s", known(totals.lost())),
    ];
    if choices.paused {
        parts.insert(0, "PAUSED".to_owned());
    }
    let skew = totals.skew.map(|skew| format!("skew {skew:.2}"));
    let every = choices.live.then(|| format!("every {:.1} s", choices.interval.as_secs_f64()));
    parts.extend([skew, every].into_iter().flatten());
    let mut text = String::from("fanq top");
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if text.chars().count() + 2 + part.chars().count() <= width {
            text.push_str("  ");
            text.push_str(part);
        }
    }
    text
}

fn keys(board: &Board, choices: &Choices) -> String {
    let first = choices.offset + 1;
    let last = (choices.offset + choices.page).min(board.lines.len());
    let place = match board.lines.len() {
        all if all > choices.page => {
            format!("lines {first}-{last} of {}  ", grouped(super::super::rates::float(all as u64)))
        }
        _ => String::new(),
    };
    format!("{place}q quit  p pause  s sort ({})  +/- time  ? help", choices.sort.name())
}

/// Whether it is known without looking it up that this takes one column: printable ASCII, and signs of ours.
fn is_one_column(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{2500}'..='\u{259f}' | '·' | '▾')
}

/// Styles by what they say.
struct Styles {
    title: Style,
    head: Style,
    bad: Style,
    warn: Style,
    good: Style,
    dim: Style,
}

fn styles(choices: &Choices) -> Styles {
    let plain = Style::new();
    let colour = |colour: Color| if choices.colour { plain.fg(colour) } else { plain };
    Styles {
        title: plain.add_modifier(Modifier::BOLD),
        head: plain.add_modifier(Modifier::REVERSED),
        bad: colour(Color::Red).add_modifier(Modifier::BOLD),
        warn: colour(Color::Yellow),
        good: colour(Color::Green),
        dim: colour(Color::DarkGray),
    }
}

fn style_of(kind: Kind, line: &QueueLine, choices: &Choices) -> Style {
    let styles = styles(choices);
    let plain = Style::new();
    let some = |rate: Option<f64>| rate.is_some_and(|rate| rate > 0.0);
    match kind {
        Kind::Queue | Kind::Lost if some(line.lost()) => styles.bad,
        Kind::QueueFull if some(line.lost_queue_full) => styles.bad,
        Kind::SocketFull if some(line.lost_socket_full) => styles.bad,
        Kind::Unseen if some(line.unseen) => styles.warn,
        Kind::CpuShare if line.cpu_share.is_some_and(|share| share >= 0.9) => styles.warn,
        Kind::Depth | Kind::Bar => match line.maxlen.map(u64::from) {
            Some(maxlen) if line.depth.saturating_mul(100) >= maxlen * 80 => styles.bad,
            Some(maxlen) if line.depth.saturating_mul(2) >= maxlen => styles.warn,
            Some(_) if kind == Kind::Bar => styles.good,
            _ => plain,
        },
        _ => plain,
    }
}

const HELP: &[&str] = &[
    "q Esc Ctrl-C quit   p pause   s sort   r reverse   + - time between refreshes",
    "Up Down PgUp PgDn Home End scroll",
    "",
    "CPU        where the queue's thread runs",
    "CPU%       what it uses of a CPU; *: the whole program, which has several queues",
    "PACKETS/s  packets that the queue took",
    "DEPTH      packets that wait; OF MAX against its length, HISTORY until now",
    "LOST/s     Q-FULL/s as the queue was full, and S-FULL/s as its socket was",
    "UNSEEN/s   passed unseen, by fail-open, as the socket was full",
    "WAIT       how long a packet waits, from depth and rate",
    "skew       packets of the busiest queue against its program's mean; 1 is even",
    "",
    "Only a fanq tells: BYTES/s, OF MAX, BATCH (packets a receive), ACC/DROP/ELSE",
    "(verdicts in %), ENGINE (time of a batch, of which 99 % are shorter).",
    "",
    "- not known   ! before a queue: it loses packets",
    "+          between an owner's id and name: it runs under fanq accel",
    "!! ! -     before a line above the table: lost now, a warning, good to know",
    "",
    "fanq top --once prints a table, --json is for programs. More: docs/TOP.md",
];
