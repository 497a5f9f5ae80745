//! From what is known to the screen: pure, so that a screen can be compared with a text.
//!
//! Invariant: any size is drawn, down to none at all, without a panic and without a cut figure: a column that has no
//! room is left out, the least important first, and what colours say, signs and words say too.
//!
//! It draws cells itself: a table widget would lay out every refresh anew.

mod columns;
mod draw;
mod glyphs;

use std::cmp::Ordering;
use std::time::Duration;

use super::rates::{Board, QueueLine};
pub(super) use draw::{draw, height_of_all};
pub(super) use glyphs::Glyphs;

/// What the user has chosen, and what the terminal can do.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Choices {
    pub(super) sort: SortKey,
    pub(super) reverse: bool,
    /// The first line that is shown.
    pub(super) offset: usize,
    /// How many lines the last screen had room for.
    pub(super) page: usize,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) interval: Duration,
    pub(super) colour: bool,
    pub(super) glyphs: Glyphs,
    /// Whether keys do anything here.
    pub(super) live: bool,
}

/// What the lines are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SortKey {
    /// By number.
    Queue,
    /// Most packets first.
    Packets,
    /// Most lost first.
    Lost,
    /// Deepest first.
    Depth,
    /// Busiest first.
    Cpu,
    /// By the owner's process id.
    Owner,
}

impl SortKey {
    const ALL: [Self; 6] =
        [Self::Queue, Self::Packets, Self::Lost, Self::Depth, Self::Cpu, Self::Owner];

    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|key| *key == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Packets => "packets",
            Self::Lost => "lost",
            Self::Depth => "depth",
            Self::Cpu => "cpu",
            Self::Owner => "owner",
        }
    }

    /// Large figures first, numbers and names rising; equal ones by queue.
    fn compare(self, a: &QueueLine, b: &QueueLine) -> Ordering {
        let most = |a: Option<f64>, b: Option<f64>| b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0));
        let order = match self {
            Self::Queue => Ordering::Equal,
            Self::Packets => most(a.packets, b.packets),
            Self::Lost => most(a.lost(), b.lost()),
            Self::Depth => b.depth.cmp(&a.depth),
            Self::Cpu => most(a.cpu_share, b.cpu_share),
            Self::Owner => {
                let pid =
                    |line: &QueueLine| line.owner.as_ref().map_or(u32::MAX, |owner| owner.pid);
                pid(a).cmp(&pid(b))
            }
        };
        order.then(a.queue.cmp(&b.queue))
    }
}

impl Choices {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            sort: SortKey::Queue,
            reverse: false,
            offset: 0,
            page: 1,
            paused: false,
            help: false,
            interval,
            colour: false,
            glyphs: Glyphs::ASCII,
            live: false,
        }
    }

    /// Moves the first line shown, within what there is.
    pub(super) fn scroll(&mut self, board: &Board, lines: isize) {
        self.offset = self.offset.saturating_add_signed(lines);
        self.keep_in_range(board);
    }

    fn keep_in_range(&mut self, board: &Board) {
        self.offset = self.offset.min(board.lines.len().saturating_sub(self.page.max(1)));
    }

    fn sorted<'a>(&self, board: &'a Board) -> Vec<&'a QueueLine> {
        let mut lines: Vec<_> = board.lines.iter().collect();
        lines.sort_by(|a, b| self.sort.compare(a, b));
        if self.reverse {
            lines.reverse();
        }
        lines
    }
}

#[cfg(test)]
mod tests;
