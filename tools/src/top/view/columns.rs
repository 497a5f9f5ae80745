//! The columns: what each shows, how wide it is, and which there is room for.
//!
//! Invariant: a figure is never cut: columns have the width of their longest figure, and only names, bars and histories
//! give way.

use super::super::format::{count, grouped, percent, scaled, time};
use super::super::rates::{QueueLine, Totals, float};
use super::super::samples::Owner;
use super::{Choices, SortKey};

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Queue,
    Cpu,
    CpuShare,
    Owner,
    Packets,
    Bytes,
    Depth,
    Bar,
    History,
    Lost,
    QueueFull,
    SocketFull,
    Unseen,
    Batch,
    Verdicts,
    Wait,
    BatchTime,
}

/// A column: its head, its least width, the most it may grow to, and how important it is (1 the most).
struct Column {
    kind: Kind,
    head: &'static str,
    width: usize,
    width_max: usize,
    rank: u8,
}

const fn fixed(kind: Kind, head: &'static str, width: usize, rank: u8) -> Column {
    Column { kind, head, width, width_max: width, rank }
}

const fn elastic(kind: Kind, head: &'static str, width: usize, most: usize, rank: u8) -> Column {
    Column { kind, head, width, width_max: most, rank }
}

/// In the order of the screen.
const COLUMNS: [Column; 17] = [
    fixed(Kind::Queue, "QUEUE", 6, 1),
    fixed(Kind::Cpu, "CPU", 4, 7),
    fixed(Kind::CpuShare, "CPU%", 6, 5),
    elastic(Kind::Owner, "OWNER", 11, 24, 6),
    fixed(Kind::Packets, "PACKETS/s", 9, 2),
    fixed(Kind::Bytes, "BYTES/s", 7, 9),
    fixed(Kind::Depth, "DEPTH", 6, 4),
    elastic(Kind::Bar, "OF MAX", 6, 14, 8),
    elastic(Kind::History, "HISTORY", 7, super::super::rates::HISTORY_LENGTH, 10),
    fixed(Kind::Lost, "LOST/s", 9, 3),
    fixed(Kind::QueueFull, "Q-FULL/s", 9, 11),
    fixed(Kind::SocketFull, "S-FULL/s", 9, 12),
    fixed(Kind::Unseen, "UNSEEN/s", 9, 14),
    fixed(Kind::Batch, "BATCH", 6, 13),
    fixed(Kind::Verdicts, "ACC/DROP/ELSE", 13, 15),
    fixed(Kind::Wait, "WAIT", 6, 16),
    fixed(Kind::BatchTime, "ENGINE", 7, 17),
];

/// A column that has its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) kind: Kind,
    pub(super) head: &'static str,
    pub(super) width: usize,
}

/// The columns for which there is room, in their order; each takes its width and one blank. A table that is printed
/// once has no history.
pub(super) fn place(width: usize, live: bool) -> Vec<Placed> {
    let mut ranks: Vec<_> =
        COLUMNS.iter().filter(|column| live || column.kind != Kind::History).collect();
    ranks.sort_by_key(|column| column.rank);
    let mut left = width;
    let mut chosen = Vec::new();
    for column in ranks {
        // The first stands without a blank before it.
        let needed = column.width + usize::from(column.rank > 1);
        if needed > left {
            break;
        }
        left -= needed;
        chosen.push(column.kind);
    }
    let columns = COLUMNS.iter().filter(|column| chosen.contains(&column.kind));
    let grown = columns.map(|column| {
        let more = (column.width_max - column.width).min(left);
        left -= more;
        Placed { kind: column.kind, head: column.head, width: column.width + more }
    });
    grown.collect()
}

impl Kind {
    /// Names stand left, figures right.
    pub(super) fn is_left(self) -> bool {
        matches!(self, Self::Owner | Self::Bar | Self::History)
    }

    pub(super) fn is_sorted_by(self, key: SortKey) -> bool {
        let kind = match key {
            SortKey::Queue => Self::Queue,
            SortKey::Packets => Self::Packets,
            SortKey::Lost => Self::Lost,
            SortKey::Depth => Self::Depth,
            SortKey::Cpu => Self::CpuShare,
            SortKey::Owner => Self::Owner,
        };
        kind == self
    }

    /// The cell of a line.
    pub(super) fn cell(self, line: &QueueLine, width: usize, choices: &Choices) -> String {
        let rate = |rate: Option<f64>| known(rate.map(count));
        match self {
            // The mark says without colour that there are losses.
            Self::Queue if line.lost().is_some_and(|lost| lost > 0.0) => format!("!{}", line.queue),
            Self::Queue => line.queue.to_string(),
            Self::Cpu => known(line.cpu.map(|cpu| cpu.to_string())),
            Self::CpuShare => known(line.cpu_share.map(|share| {
                let mark = if line.cpu_share_is_of_process { "*" } else { "" };
                format!("{}{mark}", percent(share))
            })),
            Self::Owner => {
                known(line.owner.as_ref().map(|owner| owner_text(owner, line.accelerated)))
            }
            Self::Packets => rate(line.packets),
            Self::Bytes => known(line.bytes.map(scaled)),
            Self::Depth => grouped(float(line.depth.min(99_999))),
            Self::Bar => known(line.maxlen.map(|maxlen| {
                choices.glyphs.bar(float(line.depth) / f64::from(maxlen.max(1)), width)
            })),
            Self::History => {
                let seen = line.history.iter().copied().max().unwrap_or(0);
                choices.glyphs.history(&line.history, line.maxlen.map_or(seen, u64::from), width)
            }
            Self::Lost => rate(line.lost()),
            Self::QueueFull => rate(line.lost_queue_full),
            Self::SocketFull => rate(line.lost_socket_full),
            Self::Unseen => rate(line.unseen),
            Self::Batch => known(line.batch.map(|batch| format!("{batch:.1}"))),
            Self::Verdicts => known(line.verdicts.map(|verdicts| {
                let [a, d, o] = [verdicts.accepted, verdicts.dropped, verdicts.other];
                format!("{:.0}/{:.0}/{:.0}", a * 100.0, d * 100.0, o * 100.0)
            })),
            Self::Wait => known(line.wait.map(time)),
            Self::BatchTime => {
                known(line.batch_time_us_p99.map(|us| format!("<{}", time(float(us) / 1e6))))
            }
        }
    }

    /// The cell of the sums; empty where there is no sum.
    pub(super) fn total(self, totals: &Totals) -> String {
        let rate = |rate: Option<f64>| known(rate.map(count));
        match self {
            Self::Queue => "total".to_owned(),
            Self::CpuShare => known(totals.cpu_share.map(percent)),
            Self::Packets => rate(totals.packets),
            Self::Bytes => known(totals.bytes.map(scaled)),
            Self::Depth if totals.depth < 100_000 => grouped(float(totals.depth)),
            Self::Depth => scaled(float(totals.depth)),
            Self::Lost => rate(totals.lost()),
            Self::QueueFull => rate(totals.lost_queue_full),
            Self::SocketFull => rate(totals.lost_socket_full),
            Self::Unseen => rate(totals.unseen),
            Self::Owner
            | Self::Cpu
            | Self::Bar
            | Self::History
            | Self::Batch
            | Self::Verdicts
            | Self::Wait
            | Self::BatchTime => String::new(),
        }
    }
}

/// A process and its name; a `+` between them says that it is accelerated.
pub(super) fn owner_text(owner: &Owner, accelerated: bool) -> String {
    let sign = if accelerated { '+' } else { ' ' };
    format!("{}{sign}{}", owner.pid, owner.name)
}

/// A figure, or the sign for none.
fn known(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_screens_have_all_that_narrower_ones_have() {
        let mut before: Vec<Kind> = Vec::new();
        for width in 0..260 {
            let placed = place(width, true);
            let used: usize = placed.iter().map(|column| column.width + 1).sum();
            assert!(used <= width + 1, "{width}: {placed:?}");
            let kinds: Vec<_> = placed.iter().map(|column| column.kind).collect();
            assert!(before.iter().all(|kind| kinds.contains(kind)), "{width}");
            before = kinds;
        }
        assert_eq!(before.len(), COLUMNS.len());
    }

    #[test]
    fn eighty_columns_have_what_matters() {
        let kinds: Vec<_> = place(80, true).iter().map(|column| column.kind).collect();
        for kind in [
            Kind::Queue,
            Kind::Cpu,
            Kind::CpuShare,
            Kind::Owner,
            Kind::Packets,
            Kind::Bytes,
            Kind::Depth,
            Kind::Bar,
            Kind::History,
            Kind::Lost,
        ] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }
}
