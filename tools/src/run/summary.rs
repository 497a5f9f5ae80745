//! The account of a run: as JSON for machines, as tables for people.
//!
//! Invariant: every packet of which the kernel or a worker knows stands in one of the columns; `lost` is what
//! neither got a verdict nor was let through.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use fanq::nfq::Hook;
use fanq::{Counts, CpuTime, EngineStats, KernelRow, QueueStats, cpu_time};
use serde::Serialize;

use crate::inspector::PolicyAccount;

/// The object that `--summary json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    schema: &'static str,
    queues: Vec<QueueSummary>,
    totals: CountSummary,
    cpu_us: u64,
    #[serde(flatten)]
    extras: &'a Extras,
}

/// What stands in the account where there are rules, a log, or another program.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Extras {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<PolicyAccount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) eve: Option<LogAccount>,
    /// At least so many passed unseen since their fail-open queue was full, by the counters of its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue_full_passed: Option<u64>,
    /// Of the program that the account is about, if that is not this one.
    #[serde(skip)]
    pub(super) cpu: Option<CpuTime>,
}

impl Extras {
    /// For the account of another program, which has used this, where that is known.
    pub(crate) fn of_program(cpu: Option<CpuTime>) -> Self {
        Self { cpu, ..Self::default() }
    }
}

/// Lines of the log.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct LogAccount {
    pub(super) written: u64,
    pub(super) lost: u64,
}

#[derive(Debug, Serialize)]
struct QueueSummary {
    queue: u16,
    cpu: Option<u16>,
    #[serde(flatten)]
    counts: CountSummary,
    /// Most bytes of a packet's payload that the kernel copies now, where that is known.
    copy_range: Option<u32>,
}

/// The keys are an interface, and so is their order to those who read it with patterns: add at the end, do not rename.
#[derive(Debug, Serialize)]
struct CountSummary {
    packets: u64,
    bytes: u64,
    accepted: u64,
    dropped: u64,
    repeated: u64,
    stopped: u64,
    requeued: u64,
    marked: u64,
    rewritten: u64,
    rewrites_refused: u64,
    deferred: u64,
    unanswered: u64,
    overdue: u64,
    late_answers: u64,
    recv_calls: u64,
    send_calls: u64,
    id_gaps: u64,
    uninspected: u64,
    shed: u64,
    flushed: u64,
    orphaned: u64,
    faulted: u64,
    panics: u64,
    hangs: u64,
    undecodable: u64,
    malformed: u64,
    verdict_errors: u64,
    verdict_errors_by_errno: std::collections::BTreeMap<i32, u64>,
    packets_by_hook: std::collections::BTreeMap<&'static str, u64>,
    batch_sizes: Vec<u64>,
    batched: u64,
    batch_times: Vec<u64>,
    busy_ns: u64,
    /// Null where the kernel's table cannot be read.
    kernel: Option<KernelSummary>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct KernelSummary {
    queue_total: u64,
    queue_dropped: u64,
    user_dropped: u64,
}

impl From<KernelRow> for KernelSummary {
    fn from(row: KernelRow) -> Self {
        let KernelRow { queue_total, queue_dropped, user_dropped, .. } = row;
        Self { queue_total, queue_dropped, user_dropped }
    }
}

impl KernelSummary {
    /// The sums over all queues; nothing if no row could be read.
    fn of_all(stats: &EngineStats) -> Option<Self> {
        let rows = stats.queues.iter().filter_map(|queue| queue.kernel.map(Self::from));
        rows.reduce(|sum, row| Self {
            queue_total: sum.queue_total + row.queue_total,
            queue_dropped: sum.queue_dropped + row.queue_dropped,
            user_dropped: sum.user_dropped + row.user_dropped,
        })
    }
}

impl CountSummary {
    fn new(counts: &Counts, kernel: Option<KernelSummary>) -> Self {
        let names = Hook::NAMES.into_iter().chain(["unknown"]);
        let by_hook = names.zip(counts.hooks).filter(|(_, packets)| *packets > 0);
        Self {
            packets: counts.packets,
            bytes: counts.bytes,
            accepted: counts.accepted,
            dropped: counts.dropped,
            repeated: counts.repeated,
            stopped: counts.stopped,
            requeued: counts.requeued,
            marked: counts.marked,
            rewritten: counts.rewritten,
            rewrites_refused: counts.rewrites_refused,
            deferred: counts.deferred,
            unanswered: counts.unanswered,
            overdue: counts.overdue,
            late_answers: counts.late_answers,
            recv_calls: counts.recv_calls,
            send_calls: counts.send_calls,
            id_gaps: counts.id_gaps,
            uninspected: counts.uninspected,
            shed: counts.shed,
            flushed: counts.flushed,
            orphaned: counts.orphaned,
            faulted: counts.faulted,
            panics: counts.panics,
            hangs: counts.hangs,
            undecodable: counts.undecodable,
            malformed: counts.malformed,
            verdict_errors: counts.verdict_errors,
            verdict_errors_by_errno: counts.verdict_errors_by_errno.iter().copied().collect(),
            packets_by_hook: by_hook.collect(),
            batch_sizes: counts.batch_sizes.to_vec(),
            batched: counts.batched,
            batch_times: counts.batch_times.to_vec(),
            busy_ns: counts.busy_ns,
            kernel,
        }
    }
}

/// One JSON object, on one line.
pub(crate) fn json(stats: &EngineStats, extras: &Extras) -> String {
    serde_json::to_string(&summary(stats, extras)).expect(ALWAYS)
}

/// The same as a value, to which more can be added.
pub(crate) fn value(stats: &EngineStats, extras: &Extras) -> serde_json::Value {
    serde_json::to_value(summary(stats, extras)).expect(ALWAYS)
}

fn summary<'a>(stats: &EngineStats, extras: &'a Extras) -> Summary<'a> {
    let cpu = extras.cpu.unwrap_or_else(cpu_time);
    Summary {
        schema: "fanq.run/1",
        queues: stats.queues.iter().map(queue_summary).collect(),
        totals: CountSummary::new(&stats.totals(), KernelSummary::of_all(stats)),
        cpu_us: u64::try_from((cpu.user + cpu.system).as_micros()).unwrap_or(u64::MAX),
        extras,
    }
}

const ALWAYS: &str = "numbers and fixed names always serialize";

fn queue_summary(queue: &QueueStats) -> QueueSummary {
    QueueSummary {
        queue: queue.queue,
        cpu: queue.cpu.map(|cpu| cpu.0),
        copy_range: queue.kernel.map(|row| row.copy_range),
        counts: CountSummary::new(&queue.counts, queue.kernel.map(KernelSummary::from)),
    }
}

/// The account at exit.
pub(crate) fn text(stats: &EngineStats, extras: &Extras) -> String {
    let mut table = table(&COLUMNS);
    let mut row = |name: String, cpu: String, counts: &Counts, kernel: Option<KernelSummary>| {
        let numbers = [
            counts.packets,
            counts.bytes,
            counts.accepted,
            counts.dropped,
            counts.recv_calls,
            counts.send_calls,
        ];
        let mut cells = vec![name, cpu];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(per_call(counts));
        cells.push(shown(kernel.map(|kernel| kernel.queue_dropped)));
        let socket_full = counts.id_gaps.saturating_sub(counts.uninspected);
        let losses = [socket_full, counts.uninspected, counts.verdict_errors];
        cells.extend(losses.map(|number| number.to_string()));
        table.add_row(cells);
    };
    for queue in &stats.queues {
        row(
            queue.queue.to_string(),
            cpu_name(queue),
            &queue.counts,
            queue.kernel.map(KernelSummary::from),
        );
    }
    let (totals, kernel) = (stats.totals(), KernelSummary::of_all(stats));
    row("all".to_owned(), String::new(), &totals, kernel);
    let queue_full = kernel.map_or(0, |kernel| kernel.queue_dropped);
    let at_least = if kernel.is_none() { "at least " } else { "" };
    let lost = queue_full + totals.id_gaps.saturating_sub(totals.uninspected);
    let mut out = format!("{table}\n");
    if let Some(policy) = &extras.policy {
        describe_rules(policy, &mut out);
    }
    if let Some(LogAccount { written, lost }) = extras.eve {
        let _ = writeln!(out, "log: {written} lines written, {lost} lost");
    }
    describe_faults(&totals, &mut out);
    if let Some(passed) = extras.queue_full_passed.filter(|passed| *passed > 0) {
        let _ = writeln!(
            out,
            "at least {passed} packets passed unseen, as their queue was full (by the rules' counters)"
        );
    }
    let _ = writeln!(
        out,
        "{} packets answered, {} let through unseen, {} shed, {} flushed, lost: {at_least}{lost}",
        totals.answered(),
        totals.uninspected,
        totals.shed,
        totals.flushed,
    );
    out
}

/// What was answered in somebody's place.
fn describe_faults(totals: &Counts, out: &mut String) {
    let Counts { panics, hangs, faulted, orphaned, .. } = totals;
    if panics + hangs > 0 {
        let _ = writeln!(
            out,
            "inspectors panicked {panics} times and hung {hangs} times: {faulted} packets got on-fault"
        );
    }
    if *orphaned > 0 {
        let _ = writeln!(
            out,
            "{orphaned} packets of a process that died were answered unseen (--on-orphan)"
        );
    }
}

/// Of the account for people.
const COLUMNS: [&str; 13] = [
    "queue",
    "cpu",
    "packets",
    "bytes",
    "accepted",
    "dropped",
    "recv",
    "send",
    "per recv",
    "queue full",
    "socket full",
    "uninspected",
    "errors",
];

/// The rules that matched, and what was odd.
fn describe_rules(policy: &PolicyAccount, out: &mut String) {
    let mut shown = table(&["rule", "packets", "bytes"]);
    let (matched, silent): (Vec<_>, Vec<_>) =
        policy.rules.iter().partition(|rule| rule.packets > 0);
    for rule in &matched {
        shown.add_row([rule.name.clone(), rule.packets.to_string(), rule.bytes.to_string()]);
    }
    if !matched.is_empty() {
        let _ = writeln!(out, "{shown}");
    }
    let _ = writeln!(out, "{} rules matched, {} did not", matched.len(), silent.len());
    for (count, what) in [
        (policy.flows_evicted, "flows lost their pattern state: raise flow-table"),
        (policy.limits_evicted, "counts of limits were forgotten: raise limit-table"),
        (
            policy.rejects_returned,
            "packets to be rejected came back and were dropped: fanq rules install --reject-mark",
        ),
        (
            policy.bypasses_returned,
            "packets to be let past came back and were accepted: fanq rules install --bypass-mark",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(out, "{count} {what}");
        }
    }
}

/// What has happened between two readings, `every` apart.
pub(crate) fn progress(earlier: &EngineStats, now: &EngineStats, every: Duration) -> String {
    let mut table = table(&[
        "queue",
        "cpu",
        "packets/s",
        "Mbit/s",
        "waiting",
        "per recv",
        "queue full",
        "socket full",
    ]);
    for (before, after) in earlier.queues.iter().zip(&now.queues) {
        let rate = |count: fn(&Counts) -> u64| {
            #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
            let difference = (count(&after.counts) - count(&before.counts)) as f64;
            difference / every.as_secs_f64()
        };
        let kernel = after.kernel.map(KernelSummary::from);
        let known = |number: fn(KernelSummary) -> u64| shown(kernel.map(number));
        table.add_row([
            after.queue.to_string(),
            cpu_name(after),
            format!("{:.0}", rate(|counts| counts.packets)),
            format!("{:.1}", rate(|counts| counts.bytes) * 8.0 / 1e6),
            known(|kernel| kernel.queue_total),
            per_call(&after.counts),
            known(|kernel| kernel.queue_dropped),
            after.counts.id_gaps.to_string(),
        ]);
    }
    format!("{table}\n")
}

/// A number that may be unknown.
fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn cpu_name(queue: &QueueStats) -> String {
    queue.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string())
}

fn per_call(counts: &Counts) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mean = counts.packets as f64 / counts.recv_calls.max(1) as f64;
    format!("{mean:.1}")
}

/// A table without lines, numbers to the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_padding((0, 2));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(kernel: bool) -> EngineStats {
        let row = KernelRow {
            queue: 3,
            port_id: 1,
            queue_total: 0,
            copy_mode: 2,
            copy_range: 65_531,
            queue_dropped: 4,
            user_dropped: 2,
            id_sequence: 12,
        };
        let counts =
            Counts { packets: 10, accepted: 9, dropped: 1, id_gaps: 2, ..Counts::default() };
        let queue = QueueStats { queue: 3, cpu: None, counts, kernel: kernel.then_some(row) };
        EngineStats { queues: vec![queue] }
    }

    #[test]
    fn the_text_adds_up_what_was_lost() {
        assert!(
            text(&stats(true), &Extras::default())
                .contains("10 packets answered, 0 let through unseen, 0 shed, 0 flushed, lost: 6")
        );
    }

    #[test]
    fn what_passed_unseen_and_is_not_yet_known_as_missing_is_no_loss() {
        let mut stats = stats(true);
        stats.queues[0].counts.uninspected = 3;
        let text = text(&stats, &Extras::default());
        assert!(text.contains("3 let through unseen") && text.contains("lost: 4"), "{text}");
    }

    #[test]
    fn what_the_kernel_did_not_tell_is_not_taken_for_zero() {
        let text = text(&stats(false), &Extras::default());
        assert!(text.contains("lost: at least 2") && text.contains('?'), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&json(&stats(false), &Extras::default())).unwrap();
        assert!(json["queues"][0]["kernel"].is_null() && json["totals"]["kernel"].is_null());
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&stats(true), &Extras::default())).unwrap();
        assert_eq!(json["schema"], "fanq.run/1");
        let queue = &json["queues"][0];
        for key in [
            "packets",
            "bytes",
            "accepted",
            "dropped",
            "recv_calls",
            "send_calls",
            "id_gaps",
            "uninspected",
            "verdict_errors",
        ] {
            assert!(queue[key].is_u64() && json["totals"][key].is_u64(), "{key}");
        }
        assert_eq!((&queue["queue"], &queue["cpu"]), (&3.into(), &serde_json::Value::Null));
        for (key, value) in [("queue_total", 0), ("queue_dropped", 4), ("user_dropped", 2)] {
            assert_eq!(queue["kernel"][key], value);
        }
        assert!(json["cpu_us"].is_u64());
    }
}
