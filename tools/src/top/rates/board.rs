//! What is shown: one line a queue, one a program, the sums, and what is wrong now.
//!
//! Invariant: it holds as much as there are queues in the last sample, and a memory of those given up a short while
//! ago; nothing grows with time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::super::samples::{Owner, QueueSample, Sample};
use super::cpu::{CpuShares, QueueShare, queues_of};
use super::float;
use super::kernel::KernelDelta;
use super::problems::{History, Problem, backlog_losses, find_problems};

/// All that is shown.
#[derive(Debug, Default)]
pub(in crate::top) struct Board {
    /// In rising order of the queues.
    pub(in crate::top) lines: Vec<QueueLine>,
    pub(in crate::top) totals: Totals,
    /// The processes that own queues, by their ids.
    pub(in crate::top) programs: Vec<Program>,
    /// The worst first.
    pub(in crate::top) problems: Vec<Problem>,
    last: Sample,
    pub(super) histories: BTreeMap<u16, History>,
    pub(super) backlogs: BTreeMap<u32, super::problems::Losses>,
    shares: CpuShares,
    begun: bool,
}

/// One queue. What is not known is None: rates before the second sample, and what only a fanq tells.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::top) struct QueueLine {
    pub(in crate::top) queue: u16,
    #[serde(serialize_with = "owner_or_null")]
    pub(in crate::top) owner: Option<Arc<Owner>>,
    /// Its program runs under a `fanq accel` that tells of it.
    pub(in crate::top) accelerated: bool,
    /// Where its thread runs, if it has one of its own.
    pub(in crate::top) cpu: Option<u32>,
    /// What its threads use; 1.0 is one CPU.
    pub(in crate::top) cpu_share: Option<f64>,
    /// It is the share of the whole process, which has several queues.
    pub(in crate::top) cpu_share_is_of_process: bool,
    /// Packets that the queue took, a second.
    pub(in crate::top) packets: Option<f64>,
    /// Packets that left it with a verdict, a second.
    pub(in crate::top) answered: Option<f64>,
    pub(in crate::top) bytes: Option<f64>,
    /// Packets that wait.
    pub(in crate::top) depth: u64,
    pub(in crate::top) maxlen: Option<u32>,
    /// Packets lost a second, by cause.
    pub(in crate::top) lost_queue_full: Option<f64>,
    pub(in crate::top) lost_socket_full: Option<f64>,
    /// Packets that passed unseen as the socket was full (fail-open), a second. None where the socket serves several
    /// queues.
    pub(in crate::top) unseen: Option<f64>,
    /// Packets a receive.
    pub(in crate::top) batch: Option<f64>,
    pub(in crate::top) verdicts: Option<Verdicts>,
    /// How long packets wait for their verdict, by depth and rate; seconds.
    pub(in crate::top) wait: Option<f64>,
    /// Time of a batch in the engine that 99 % did not exceed; microseconds.
    pub(in crate::top) batch_time_us_p99: Option<u64>,
    /// False: bound and not configured, so that the kernel drops its packets.
    pub(in crate::top) configured: bool,
    /// Depths of the last samples, the oldest first.
    #[serde(skip)]
    pub(in crate::top) history: Vec<u64>,
}

impl QueueLine {
    /// Packets lost a second, whatever the cause.
    pub(in crate::top) fn lost(&self) -> Option<f64> {
        Some(self.lost_queue_full? + self.lost_socket_full?)
    }
}

/// Shares of what was answered since the last sample, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in crate::top) struct Verdicts {
    pub(in crate::top) accepted: f64,
    pub(in crate::top) dropped: f64,
    pub(in crate::top) other: f64,
}

/// The sums over all queues.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::top) struct Totals {
    pub(in crate::top) queues: usize,
    pub(in crate::top) packets: Option<f64>,
    pub(in crate::top) answered: Option<f64>,
    /// Of those queues for which it is known.
    pub(in crate::top) bytes: Option<f64>,
    pub(in crate::top) depth: u64,
    pub(in crate::top) lost_queue_full: Option<f64>,
    pub(in crate::top) lost_socket_full: Option<f64>,
    pub(in crate::top) unseen: Option<f64>,
    /// Of all programs.
    pub(in crate::top) cpu_share: Option<f64>,
    /// The busiest queue's packets against the mean of its program's queues; 1.0 is even. Of the program with the most
    /// uneven ones; None where no program has packets in several.
    pub(in crate::top) skew: Option<f64>,
}

impl Totals {
    pub(in crate::top) fn lost(&self) -> Option<f64> {
        Some(self.lost_queue_full? + self.lost_socket_full?)
    }
}

/// A process that owns queues.
#[derive(Debug, Clone, Serialize)]
pub(in crate::top) struct Program {
    #[serde(flatten, serialize_with = "owner")]
    pub(in crate::top) owner: Arc<Owner>,
    pub(in crate::top) queues: Vec<u16>,
    pub(in crate::top) threads: usize,
    /// 1.0 is one CPU.
    pub(in crate::top) cpu_share: Option<f64>,
    /// It runs under a `fanq accel` that tells of it.
    pub(in crate::top) accelerated: bool,
    /// What it says of itself, if it is a fanq with a control socket.
    pub(in crate::top) policy: Option<String>,
    /// Each of its queues has a thread that is named after it.
    #[serde(skip)]
    named: bool,
}

impl Board {
    /// Takes the next sample.
    pub(in crate::top) fn take(&mut self, sample: &Sample) {
        let passed = sample.at.saturating_sub(self.last.at);
        let seconds = (self.begun && !passed.is_zero()).then_some(passed.as_secs_f64());
        let processes = sample.queues.iter().filter_map(|queue| queue.process.as_ref());
        self.shares.take(processes);
        self.take_programs(sample);
        self.take_lines(sample, seconds);
        self.totals = self.sum_up(sample, seconds);
        if let Some(seconds) = seconds {
            backlog_losses(&mut self.backlogs, &self.last.softnet, sample, seconds);
        }
        self.problems = find_problems(self, sample);
        self.last.clone_from(sample);
        self.begun = true;
    }

    fn take_programs(&mut self, sample: &Sample) {
        self.programs.clear();
        for queue in &sample.queues {
            let Some(owner) = &queue.owner else { continue };
            let at = self.programs.binary_search_by_key(&owner.pid, |program| program.owner.pid);
            let Err(at) = at else { continue };
            let mut queues = Vec::new();
            queues_of(owner.pid, &sample.queues, &mut queues);
            let program = Program {
                owner: Arc::clone(owner),
                named: self.shares.are_named(owner.pid, &queues),
                queues,
                threads: queue.process.as_ref().map_or(0, |process| process.threads.len()),
                cpu_share: self.shares.of_process(owner.pid),
                accelerated: is_accelerated(queue),
                policy: queue.detail.as_ref().and_then(|detail| detail.policy.clone()),
            };
            self.programs.insert(at, program);
        }
    }

    fn take_lines(&mut self, sample: &Sample, seconds: Option<f64>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.resize_with(sample.queues.len(), QueueLine::default);
        for (line, now) in lines.iter_mut().zip(&sample.queues) {
            let found =
                self.last.queues.binary_search_by_key(&now.row.queue, |then| then.row.queue);
            let before = found.ok().map(|index| &self.last.queues[index]);
            let own_socket = !is_shared(now.row.port_id, &sample.queues);
            let delta = seconds
                .map(|seconds| (KernelDelta::between(before, now, seconds, own_socket), seconds));
            let history = self.histories.entry(now.row.queue).or_default();
            history.take(sample.at, now, delta);
            line.describe(now, history);
            line.set_rates(delta, own_socket);
            if let (Some(process), Some(owner)) = (&now.process, &now.owner) {
                let found =
                    self.programs.binary_search_by_key(&owner.pid, |program| program.owner.pid);
                let share = found.map_or_else(
                    |_| QueueShare::default(),
                    |index| {
                        let program = &self.programs[index];
                        self.shares.of_queue(
                            process,
                            now.row.queue,
                            program.queues.len(),
                            program.named,
                        )
                    },
                );
                line.cpu = share.cpu;
                line.cpu_share = share.share;
                line.cpu_share_is_of_process = share.shared;
            }
            if let Some(cpu) = now.detail.as_ref().and_then(|detail| detail.cpu) {
                line.cpu = Some(cpu);
            }
        }
        self.lines = lines;
        for (queue, history) in &mut self.histories {
            if sample.queues.binary_search_by_key(queue, |queue| queue.row.queue).is_err() {
                history.given_up(sample.at);
            }
        }
        self.histories.retain(|_, history| !history.is_forgotten(sample.at));
    }

    fn sum_up(&self, sample: &Sample, seconds: Option<f64>) -> Totals {
        let sum = |value: fn(&QueueLine) -> Option<f64>| {
            let all = self.lines.iter().map(value).sum::<Option<f64>>();
            all.filter(|_| seconds.is_some())
        };
        let of_known = |value: fn(&QueueLine) -> Option<f64>| {
            self.lines.iter().filter_map(value).reduce(|sum, value| sum + value)
        };
        let packets = sum(|line| line.packets);
        let shares = self.programs.iter().filter_map(|program| program.cpu_share);
        let unseen = of_known(|line| line.unseen).unwrap_or(0.0);
        Totals {
            queues: self.lines.len(),
            packets,
            answered: sum(|line| line.answered),
            bytes: of_known(|line| line.bytes),
            depth: self.lines.iter().fold(0, |sum, line| sum.saturating_add(line.depth)),
            lost_queue_full: sum(|line| line.lost_queue_full),
            lost_socket_full: sum(|line| line.lost_socket_full),
            unseen: seconds.map(|seconds| unseen + self.unseen_of_shared(sample) / seconds),
            cpu_share: shares.reduce(|sum, share| sum + share),
            skew: self.busiest().map(|(_, skew)| skew),
        }
    }

    /// The queue that has the most packets against the mean of its program's queues, and how many times that mean.
    pub(super) fn busiest(&self) -> Option<(&QueueLine, f64)> {
        let pid = |line: &QueueLine| line.owner.as_ref().map(|owner| owner.pid);
        let mut programs: BTreeMap<Option<u32>, (f64, f64)> = BTreeMap::new();
        for line in &self.lines {
            let (packets, queues) = programs.entry(pid(line)).or_default();
            *packets += line.packets?;
            *queues += 1.0;
        }
        let skew = |line: &QueueLine| {
            let (packets, queues) = programs.get(&pid(line))?;
            (*packets > 0.0 && *queues > 1.0).then_some(line.packets? * queues / packets)
        };
        let skews = self.lines.iter().filter_map(|line| Some((line, skew(line)?)));
        skews.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Packets that passed unseen by sockets that serve several queues: known of all these together.
    fn unseen_of_shared(&self, sample: &Sample) -> f64 {
        let mut ports: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for now in sample.queues.iter().filter(|now| is_shared(now.row.port_id, &sample.queues)) {
            let found =
                self.last.queues.binary_search_by_key(&now.row.queue, |then| then.row.queue);
            let Some(before) = found.ok().map(|index| &self.last.queues[index]) else { continue };
            let delta = KernelDelta::between(Some(before), now, 1.0, true);
            let (drops, lost) = ports.entry(now.row.port_id).or_default();
            *drops = delta.socket_drops;
            *lost += delta.socket_full;
        }
        ports.values().map(|(drops, lost)| float(drops.saturating_sub(*lost))).sum()
    }
}

fn is_accelerated(queue: &QueueSample) -> bool {
    queue.detail.as_ref().is_some_and(|detail| detail.accelerated)
}

/// Whether one socket serves several queues.
fn is_shared(port_id: u32, queues: &[QueueSample]) -> bool {
    queues.iter().filter(|queue| queue.row.port_id == port_id).nth(1).is_some()
}

impl QueueLine {
    fn describe(&mut self, now: &QueueSample, history: &History) {
        let mut depths = std::mem::take(&mut self.history);
        depths.clear();
        depths.extend(history.depths());
        *self = Self {
            queue: now.row.queue,
            owner: now.owner.clone(),
            accelerated: is_accelerated(now),
            depth: now.row.queue_total,
            configured: now.row.copy_mode != 0,
            history: depths,
            bytes: history.told.bytes,
            batch: history.told.batch,
            verdicts: history.told.verdicts,
            batch_time_us_p99: history.told.batch_time_us_p99,
            maxlen: now.detail.as_ref().and_then(|detail| detail.maxlen),
            ..Self::default()
        };
    }

    fn set_rates(&mut self, delta: Option<(KernelDelta, f64)>, own_socket: bool) {
        let Some((delta, seconds)) = delta else { return };
        let rate = |count: u64| Some(float(count) / seconds);
        self.packets = rate(delta.ids);
        self.answered = rate(delta.answered);
        self.lost_queue_full = rate(delta.queue_full);
        self.lost_socket_full = rate(delta.socket_full);
        self.unseen = rate(delta.unseen()).filter(|_| own_socket);
        let answered = float(delta.answered) / seconds;
        self.wait = (answered > 0.0).then(|| float(self.depth) / answered);
    }
}

fn owner<S: Serializer>(owner: &Arc<Owner>, serializer: S) -> Result<S::Ok, S::Error> {
    owner.as_ref().serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde gives the field as it is")]
fn owner_or_null<S: Serializer>(
    owner: &Option<Arc<Owner>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    owner.as_deref().serialize(serializer)
}
