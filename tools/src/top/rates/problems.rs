//! What is wrong right now, in words.
//!
//! Invariant: one problem is one line, however many queues have it; the worst comes first. A loss is remembered for a
//! while after it has ended, since it may be over before anybody has read of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::super::format::grouped;
use super::super::samples::{QueueSample, Sample, SoftnetRow};
use super::board::{Board, QueueLine};
use super::kernel::KernelDelta;
use super::told::Told;
use super::{HISTORY_LENGTH, float};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::top) struct Problem {
    pub(in crate::top) severity: Severity,
    /// Such as `queue 2: 1,200 packets/s lost: socket full`.
    pub(in crate::top) what: String,
    /// What may help; may be empty.
    pub(in crate::top) remedy: &'static str,
}

/// How bad it is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::top) enum Severity {
    /// Packets are lost.
    Loss,
    /// They may be soon, or were, or pass unseen.
    Warning,
    /// Good to know.
    Note,
}

/// Packets that were lost at one place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// Now, a second.
    rate: f64,
    /// Since this loss began.
    count: u64,
    last: Duration,
}

impl Losses {
    fn take(&mut self, now: Duration, lost: u64, seconds: f64) {
        self.rate = float(lost) / seconds;
        if lost > 0 {
            let over = self.last + MEMORY < now;
            self.count = if over { lost } else { self.count.saturating_add(lost) };
            self.last = now;
        }
    }
}

/// What is remembered of a queue.
#[derive(Debug, Default)]
pub(super) struct History {
    depths: VecDeque<u64>,
    /// By cause: queue full, socket full, passed unseen.
    losses: [Losses; 3],
    /// Since when packets wait and none is answered.
    stuck_since: Option<Duration>,
    given_up_at: Option<Duration>,
    /// What its program says of it.
    pub(super) told: Told,
}

impl History {
    pub(super) fn take(
        &mut self,
        at: Duration,
        now: &QueueSample,
        delta: Option<(KernelDelta, f64)>,
    ) {
        self.given_up_at = None;
        self.told.take(now.detail.as_ref());
        if delta.is_some_and(|(delta, _)| delta.fresh) {
            self.depths.clear();
            self.stuck_since = None;
        }
        if self.depths.len() == HISTORY_LENGTH {
            self.depths.pop_front();
        }
        self.depths.push_back(now.row.queue_total);
        let Some((delta, seconds)) = delta else { return };
        let lost = [delta.queue_full, delta.socket_full, delta.unseen()];
        for (losses, lost) in self.losses.iter_mut().zip(lost) {
            losses.take(at, lost, seconds);
        }
        let still = now.row.queue_total > 0 && delta.answered == 0;
        self.stuck_since = if still { self.stuck_since.or(Some(at)) } else { None };
    }

    pub(super) fn depths(&self) -> impl Iterator<Item = u64> + '_ {
        self.depths.iter().copied()
    }

    /// It is not in the table any more.
    pub(super) fn given_up(&mut self, at: Duration) {
        self.given_up_at.get_or_insert(at);
        self.depths.clear();
        self.stuck_since = None;
        self.told = Told::default();
        self.losses.iter_mut().for_each(|losses| losses.rate = 0.0);
    }

    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        self.given_up_at.is_some_and(|then| then + GIVEN_UP_MEMORY < now)
    }
}

/// Takes what CPUs lost before any queue. One that was offline counts from now on; one that has gone offline loses
/// nothing more.
pub(super) fn backlog_losses(
    backlogs: &mut BTreeMap<u32, Losses>,
    then: &[SoftnetRow],
    sample: &Sample,
    seconds: f64,
) {
    for losses in backlogs.values_mut() {
        losses.rate = 0.0;
    }
    for now in &sample.softnet {
        let before = then.iter().find(|row| row.cpu == now.cpu);
        let lost = before.map_or(0, |before| now.dropped.wrapping_sub(before.dropped));
        backlogs.entry(now.cpu).or_default().take(sample.at, u64::from(lost), seconds);
    }
}

/// All that is wrong, the worst first.
pub(super) fn find_problems(board: &Board, sample: &Sample) -> Vec<Problem> {
    let now = sample.at;
    let mut problems = Vec::new();
    let causes = [
        ("lost: queue full", "raise its length, or add queues"),
        ("lost: socket full", "raise its buffer, or add queues"),
        ("passed unseen: socket full, fail-open", "raise its receive buffer"),
    ];
    for (index, (cause, remedy)) in causes.into_iter().enumerate() {
        let losses = board.histories.iter().map(|(queue, history)| (*queue, history.losses[index]));
        let severity = if index < 2 { Severity::Loss } else { Severity::Warning };
        add_losses(&mut problems, "queue", losses, now, (severity, cause, remedy));
    }
    let backlogs = board.backlogs.iter();
    let backlogs = backlogs.filter_map(|(cpu, losses)| Some((u16::try_from(*cpu).ok()?, *losses)));
    let lost = (
        Severity::Loss,
        "lost before the queues: backlog full",
        "raise net.core.netdev_max_backlog",
    );
    add_losses(&mut problems, "CPU", backlogs, now, lost);
    add_unserved(&mut problems, board, sample);
    add_strained(&mut problems, board);
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// What is being lost, and what was a moment ago.
fn add_losses(
    problems: &mut Vec<Problem>,
    place: &str,
    losses: impl Iterator<Item = (u16, Losses)> + Clone,
    now: Duration,
    (severity, cause, remedy): (Severity, &str, &'static str),
) {
    let current: Vec<_> = losses.clone().filter(|(_, losses)| losses.rate > 0.0).collect();
    if !current.is_empty() {
        let rate = current.iter().map(|(_, losses)| losses.rate).sum();
        let what = format!(
            "{}: {} packets/s {cause}",
            named(place, current.iter().map(|(n, _)| *n)),
            grouped(rate)
        );
        problems.push(Problem { severity, what, remedy });
        return;
    }
    let past = losses.filter(|(_, losses)| losses.count > 0 && losses.last + MEMORY >= now);
    let past: Vec<_> = past.collect();
    if let Some(last) = past.iter().map(|(_, losses)| losses.last).max() {
        let count: f64 = past.iter().map(|(_, losses)| float(losses.count)).sum();
        let what = format!(
            "{}: {} packets {cause}, {} s ago",
            named(place, past.iter().map(|(n, _)| *n)),
            grouped(count),
            now.saturating_sub(last).as_secs().max(1)
        );
        problems.push(Problem { severity: Severity::Warning, what, remedy });
    }
}

/// Queues whose packets nobody answers.
fn add_unserved(problems: &mut Vec<Problem>, board: &Board, sample: &Sample) {
    let with = |what: fn(&QueueLine) -> bool| -> Vec<u16> {
        board.lines.iter().filter(|line| what(line)).map(|line| line.queue).collect()
    };
    let mut add = |severity, queues: &[u16], what: &str, remedy| {
        if !queues.is_empty() {
            let what = format!("{}: {what}", named("queue", queues.iter().copied()));
            problems.push(Problem { severity, what, remedy });
        }
    };
    let unconfigured = with(|line| !line.configured);
    let what = "bound but not configured, so the kernel drops its packets";
    add(Severity::Loss, &unconfigured, what, "its program is starting, or is wrong");

    let mut stopped: Vec<u16> = Vec::new();
    for queue in &sample.queues {
        let main = queue.process.as_ref().and_then(|process| process.threads.first());
        stopped
            .extend(main.filter(|main| matches!(main.state, 'T' | 't')).map(|_| queue.row.queue));
    }
    let what = "its program is stopped, and its packets wait";
    add(Severity::Loss, &stopped, what, "kill -CONT, or end it");

    let longest = |history: &History| {
        let since = history.stuck_since?;
        Some(sample.at.saturating_sub(since)).filter(|age| *age >= STUCK_AFTER)
    };
    let stuck =
        board.histories.iter().filter_map(|(queue, history)| Some((*queue, longest(history)?)));
    let stuck: Vec<_> = stuck.filter(|(queue, _)| !stopped.contains(queue)).collect();
    if let Some(age) = stuck.iter().map(|(_, age)| *age).max() {
        let queues: Vec<u16> = stuck.iter().map(|(queue, _)| *queue).collect();
        let waiting = board.lines.iter().filter(|line| queues.contains(&line.queue));
        let waiting: f64 = waiting.map(|line| float(line.depth)).sum();
        let what = format!(
            "{} packets wait, and none was answered for {} s",
            grouped(waiting),
            age.as_secs()
        );
        add(Severity::Loss, &queues, &what, "its program hangs, or holds them back");
    }
    let given_up = board.histories.iter().filter(|(_, history)| history.given_up_at.is_some());
    let given_up: Vec<u16> = given_up.map(|(queue, _)| *queue).collect();
    let what = "given up by its program; packets are lost unless the rule has bypass";
    add(Severity::Warning, &given_up, what, "");
    let unowned = with(|line| line.owner.is_none());
    add(Severity::Note, &unowned, "its process cannot be seen from here", "root sees all of them");
}

/// Queues that are near their limits.
fn add_strained(problems: &mut Vec<Problem>, board: &Board) {
    let nearly_full = board.lines.iter().filter(|line| {
        line.maxlen.is_some_and(|maxlen| {
            line.depth.saturating_mul(100) >= u64::from(maxlen) * FULL_PERCENT
        })
    });
    let queues: Vec<u16> = nearly_full.map(|line| line.queue).collect();
    if !queues.is_empty() {
        let what =
            format!("{}: more than {FULL_PERCENT} % full", named("queue", queues.into_iter()));
        problems.push(Problem {
            severity: Severity::Warning,
            what,
            remedy: "it is slower than its packets",
        });
    }
    let busy = board.lines.iter().filter(|line| {
        !line.cpu_share_is_of_process && line.cpu_share.is_some_and(|share| share >= BUSY)
    });
    let queues: Vec<u16> = busy.map(|line| line.queue).collect();
    if !queues.is_empty() {
        let what = format!("{}: its thread uses a whole CPU", named("queue", queues.into_iter()));
        problems.push(Problem {
            severity: Severity::Warning,
            what,
            remedy: "add queues, or make it faster",
        });
    }
    let skewed = board.busiest().filter(|(line, skew)| {
        *skew >= SKEWED && line.packets.is_some_and(|packets| packets >= SKEW_PACKETS)
    });
    if let Some((line, skew)) = skewed {
        let what = format!(
            "queue {}: {skew:.1} times the packets of its program's mean queue",
            line.queue
        );
        let remedy = "see how flows reach the CPUs";
        problems.push(Problem { severity: Severity::Note, what, remedy });
    }
}

/// `queue 2`, or `queues 0-3,7`. The numbers rise.
fn named(place: &str, numbers: impl Iterator<Item = u16>) -> String {
    let numbers: Vec<u16> = numbers.collect();
    let mut name = match numbers.len() {
        1 => format!("{place} "),
        _ => format!("{place}s "),
    };
    for (index, run) in numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)).enumerate() {
        if index == RUNS_MAX {
            name.push_str(",...");
            break;
        }
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = match (run.first(), run.last()) {
            (Some(first), Some(last)) if first != last => write!(name, "{comma}{first}-{last}"),
            (Some(only), _) => write!(name, "{comma}{only}"),
            _ => Ok(()),
        };
    }
    name
}

/// How long a loss is told of after it has ended.
const MEMORY: Duration = Duration::from_secs(10);
/// How long a queue that nobody serves any more is told of.
const GIVEN_UP_MEMORY: Duration = Duration::from_secs(30);
const STUCK_AFTER: Duration = Duration::from_secs(2);
const FULL_PERCENT: u64 = 80;
const BUSY: f64 = 0.95;
const SKEWED: f64 = 2.0;
/// With fewer packets a second skew is chance.
const SKEW_PACKETS: f64 = 1000.0;
/// Runs of numbers in one name.
const RUNS_MAX: usize = 6;
