//! The numbers as text.
//!
//! Invariant: a metric's name, type and labels are an interface: add, do not rename. Each cause of a loss is a label of
//! one metric, so that its sum is what was lost. A number that is not known (a kernel's table that cannot be read) is
//! left out, never 0.

use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use fanq::nfq::Hook;
use fanq::{Counts, KernelRow, QueueStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Snapshot;

/// How the text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
    OpenMetrics,
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    Prometheus,
}

impl Format {
    /// OpenMetrics if the scraper says that it takes it; the older format is what everything else reads.
    pub(super) fn wished_for(accept: &str) -> Self {
        let kinds = accept.split(',').filter_map(|kind| kind.split(';').next());
        let open = kinds.map(str::trim).any(|kind| kind == "application/openmetrics-text");
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics.
pub(super) fn render(snapshot: Snapshot, format: Format) -> String {
    let mut out = String::with_capacity(snapshot.stats.queues.len() * BYTES_A_QUEUE + BYTES_BESIDE);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    text::encode(&mut out, &registry).expect("a String takes all that is written to it");
    match format {
        Format::OpenMetrics => out,
        Format::Prometheus => older(&out),
    }
}

/// The older format names a counter's family as its samples, with `_total`, and has no end mark.
fn older(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, ""));
            let total = if kind == "counter" { "_total" } else { "" };
            let words = help.strip_prefix(name).unwrap_or(help);
            let _ = writeln!(out, "# HELP {name}{total}{words}\n# TYPE {name}{total} {kind}");
        } else if line != "# EOF" {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder, uncounted: self.uncounted };
        self.of_the_process(&mut page)?;
        for (name, help, count) in COUNTERS {
            let samples = self.queues().map(|queue| (label(queue), count(&queue.counts)));
            page.counter(name, help, samples)?;
        }
        for (name, help, counts) in LABELLED {
            let samples = self.queues().flat_map(|queue| {
                let value = |(key, value, count): Part| {
                    count.map(|count| (vec![queue_label(queue), (key, value)], count))
                };
                counts(queue).into_iter().filter_map(value)
            });
            page.counter(name, help, samples)?;
        }
        self.of_the_kernel(&mut page)?;
        self.histograms(&mut page)?;
        self.of_rules_and_log(&mut page)
    }
}

impl Snapshot {
    fn queues(&self) -> impl Iterator<Item = &QueueStats> {
        self.stats.queues.iter()
    }

    fn of_the_process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauge("fanq_build_info", "The version of fanq; always 1", [(version, 1.0)])?;
        let program = self.accelerated.iter().map(|name| ([("program", name.as_str())], 1.0));
        page.gauge("fanq_accelerated_info", "The program under fanq accel; always 1", program)?;
        if let Some(started) = self.started {
            let since_epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
            let started = "When the process was started, in seconds since 1970";
            page.lone_gauge("process_start_time_seconds", started, since_epoch.as_secs_f64())?;
        }
        if let Some(cpu) = self.cpu {
            let cpu = (cpu.user + cpu.system).as_secs_f64();
            let used = "CPU time that the process has used, user and system, all threads";
            page.lone_counter("process_cpu_seconds", used, &cpu)?;
        }
        page.lone_counter("fanq_scrapes", "Scrapes answered, this one included", &self.scrapes)?;
        let workers = self.queues().map(|queue| {
            let cpu = queue.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
            (vec![queue_label(queue), ("cpu", cpu)], 1.0)
        });
        page.gauge("fanq_worker_info", "The CPU that the queue's worker is pinned to", workers)
    }

    fn of_the_kernel(&self, page: &mut Page<'_>) -> fmt::Result {
        let rows = |number: fn(&KernelRow) -> f64| {
            self.queues()
                .filter_map(move |queue| Some((label(queue), number(queue.kernel.as_ref()?))))
        };
        #[expect(clippy::cast_precision_loss, reason = "a queue holds 65,535 at most")]
        let waiting = rows(|row| row.queue_total as f64);
        page.gauge("fanq_queue_waiting_packets", "Packets that wait in the queue now", waiting)?;
        let limit = self.queue_maxlen.map(f64::from);
        let limits = self.queues().filter_map(|queue| Some((label(queue), limit?)));
        page.gauge("fanq_queue_limit_packets", "The most that may wait in it", limits)?;
        let copied = rows(|row| f64::from(row.copy_range));
        let help = "Most bytes of a packet that the kernel copies";
        page.gauge("fanq_queue_copy_range_bytes", help, copied)?;
        let ids = self.queues().filter_map(|queue| {
            Some((label(queue), u64::from(queue.kernel.as_ref()?.id_sequence)))
        });
        let help = "Packets that the kernel has put into the queue, modulo 2^32";
        page.counter("fanq_queued_packets", help, ids)
    }

    fn histograms(&self, page: &mut Page<'_>) -> fmt::Result {
        let samples = self.queues().map(|queue| Distribution {
            queue,
            buckets: &queue.counts.batch_sizes,
            sum: exact(queue.counts.batched),
        });
        let help = "Packets that one receive brought";
        page.histogram("fanq_batch_packets", help, largest_batch, samples)?;
        let samples = self.queues().map(|queue| Distribution {
            queue,
            buckets: &queue.counts.batch_times,
            sum: Duration::from_nanos(queue.counts.busy_ns).as_secs_f64(),
        });
        let help = "Time from a receive's return to the return of its verdicts' send";
        page.histogram("fanq_batch_seconds", help, longest_time, samples)
    }

    fn of_rules_and_log(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(policy) = &self.policy {
            let of_rules = |count: fn(&crate::inspector::RuleAccount) -> u64| {
                policy.rules.iter().map(move |rule| ([("rule", rule.name.as_str())], count(rule)))
            };
            let packets = of_rules(|rule| rule.packets);
            page.counter("fanq_rule_packets", "Packets that a rule of the file matched", packets)?;
            let bytes = of_rules(|rule| rule.bytes);
            page.counter("fanq_rule_bytes", "Bytes of the packets that it matched", bytes)?;
            let reloads = [("done", policy.reloads), ("refused", policy.reloads_refused)];
            let reloads = reloads.map(|(outcome, count)| ([("outcome", outcome)], count));
            page.counter("fanq_policy_reloads", "Times that rules were read again", reloads)?;
            let evicted = [("flow", policy.flows_evicted), ("limit", policy.limits_evicted)];
            let evicted = evicted.map(|(table, count)| ([("table", table)], count));
            let help = "Entries that lost their place to others in a table that is too small";
            page.counter("fanq_policy_evictions", help, evicted)?;
        }
        if let Some((written, lost)) = self.eve {
            let lines = [("written", written), ("lost", lost)];
            let lines = lines.map(|(outcome, count)| ([("outcome", outcome)], count));
            page.counter("fanq_eve_lines", "Lines of the log", lines)?;
        }
        Ok(())
    }
}

/// The text, metric by metric.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    /// Families that are left out.
    uncounted: &'static [&'static str],
}

impl Page<'_> {
    fn family<L: EncodeLabelSet, V>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        samples: impl IntoIterator<Item = (L, V)>,
        write: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() || self.uncounted.contains(&name) {
            return Ok(());
        }
        let mut metric = self.descriptor(name, help, kind)?;
        for (labels, value) in samples {
            write(metric.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family((name, help, MetricType::Counter), samples, |mut metric, value| {
            metric.encode_counter::<NoLabelSet, V, f64>(&value, None)
        })
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family((name, help, MetricType::Gauge), samples, |mut metric, value| {
            metric.encode_gauge(&value)
        })
    }

    fn lone_counter(
        &mut self,
        name: &str,
        help: &str,
        value: &impl EncodeCounterValue,
    ) -> fmt::Result {
        let mut metric = self.descriptor(name, help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(value, None)
    }

    fn lone_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.descriptor(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, &format!("{help}."), None, kind)
    }

    /// `bound` is a class's upper one; the last class has none.
    fn histogram<'s>(
        &mut self,
        name: &str,
        help: &str,
        bound: fn(usize) -> f64,
        samples: impl Iterator<Item = Distribution<'s>>,
    ) -> fmt::Result {
        let samples = samples.map(|sample| (label(sample.queue), sample));
        self.family((name, help, MetricType::Histogram), samples, |mut metric, sample| {
            let bounds = (0..sample.buckets.len() - 1).map(bound).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(sample.buckets.iter().copied()).collect();
            let count = sample.buckets.iter().sum();
            metric.encode_histogram::<NoLabelSet>(sample.sum, count, &buckets, None)
        })
    }
}

/// The largest batch of a class: 1, 3, 7, and so on.
fn largest_batch(class: usize) -> f64 {
    exact((2 << class) - 1)
}

/// The longest time of a class, in seconds: a microsecond, two, four, and so on.
fn longest_time(class: usize) -> f64 {
    exact(1 << class) / 1e6
}

/// One queue's histogram.
struct Distribution<'a> {
    queue: &'a QueueStats,
    buckets: &'a [u64],
    sum: f64,
}

fn label(queue: &QueueStats) -> [(&'static str, String); 1] {
    [queue_label(queue)]
}

fn queue_label(queue: &QueueStats) -> (&'static str, String) {
    ("queue", queue.queue.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 packets")]
fn exact(count: u64) -> f64 {
    count as f64
}

/// Name, meaning, and what of a queue's counts it is.
type PlainCounter = (&'static str, &'static str, fn(&Counts) -> u64);

/// One metric per number and queue. `_total` is appended to each.
const COUNTERS: [PlainCounter; 17] = [
    ("fanq_packets", "Packets received from the kernel", |c| c.packets),
    ("fanq_bytes", "Their bytes from the network header on", |c| c.bytes),
    ("fanq_marked_packets", "Packets whose verdict set a mark", |c| c.marked),
    ("fanq_rewritten_packets", "Packets whose bytes were rewritten", |c| c.rewritten),
    ("fanq_rewrites_refused", "Packets whose rewriting was refused", |c| c.rewrites_refused),
    ("fanq_deferred_packets", "Packets that another thread was to answer", |c| c.deferred),
    ("fanq_deferred_unanswered", "Deferred packets nobody answered", |c| c.unanswered),
    ("fanq_deferred_overdue", "Deferred packets whose answer came too late", |c| c.overdue),
    ("fanq_late_answers", "Answers that came after that", |c| c.late_answers),
    ("fanq_inspector_panics", "Panics of the queue's inspector", |c| c.panics),
    ("fanq_inspector_hangs", "Times that its inspector did not come back in time", |c| c.hangs),
    ("fanq_receive_calls", "Receives that brought packets", |c| c.recv_calls),
    ("fanq_send_calls", "Sends with verdicts", |c| c.send_calls),
    ("fanq_undecodable_packets", "Packets whose message could not be decoded", |c| c.undecodable),
    ("fanq_malformed_messages", "Messages that were no packet to answer", |c| c.malformed),
    ("fanq_send_retries", "Sends tried again as the kernel had no memory", |c| c.send_retries),
    ("fanq_socket_overruns", "Receives that said the socket had overrun", |c| c.overruns),
];

/// A label's name and value, and the number if it is known.
type Part = (&'static str, String, Option<u64>);

/// One metric for several numbers of a queue.
type LabelledCounter = (&'static str, &'static str, fn(&QueueStats) -> Vec<Part>);

const LABELLED: [LabelledCounter; 5] = [
    ("fanq_verdicts", "Packets answered, by what they were given", |queue| {
        let counts = &queue.counts;
        [
            ("accept", counts.accepted),
            ("drop", counts.dropped),
            ("repeat", counts.repeated),
            ("stop", counts.stopped),
            ("queue", counts.requeued),
        ]
        .map(|(verdict, count)| ("verdict", verdict.to_owned(), Some(count)))
        .into()
    }),
    ("fanq_lost_packets", "Packets that were neither answered nor let through", |queue| {
        let socket_full = queue.counts.id_gaps.saturating_sub(queue.counts.uninspected);
        let queue_full = queue.kernel.as_ref().map(|row| row.queue_dropped);
        [("queue_full", queue_full), ("socket_full", Some(socket_full))]
            .map(|(cause, count)| ("cause", cause.to_owned(), count))
            .into()
    }),
    ("fanq_unseen_packets", "Packets that got a verdict or passed without a look", |queue| {
        let counts = &queue.counts;
        [
            ("fail_open", counts.uninspected),
            ("shed", counts.shed),
            ("flushed", counts.flushed),
            ("undecodable", counts.undecodable),
            ("faulted", counts.faulted),
            ("orphaned", counts.orphaned),
        ]
        .map(|(cause, count)| ("cause", cause.to_owned(), Some(count)))
        .into()
    }),
    ("fanq_verdict_errors", "Verdicts that the kernel refused, by errno", |queue| {
        let seen = &queue.counts.verdict_errors_by_errno;
        let never = [(libc::ENOENT, 0)].into_iter();
        // 0 is any of them: where they are not told apart, none is known not to have been.
        let is_never = |errno: &i32| seen.iter().all(|(known, _)| known != errno && *known != 0);
        let never = never.filter(|(errno, _)| is_never(errno));
        let all = never.chain(seen.iter().copied());
        all.map(|(errno, count)| ("errno", errno.to_string(), Some(count))).collect()
    }),
    ("fanq_hook_packets", "Packets by the netfilter hook that queued them", |queue| {
        let names = Hook::NAMES.into_iter().chain(["unknown"]);
        let seen = names.zip(queue.counts.hooks).filter(|(_, count)| *count > 0);
        seen.map(|(hook, count)| ("hook", hook.to_owned(), Some(count))).collect()
    }),
];

/// Room for the text, so that it does not grow by halves.
const BYTES_A_QUEUE: usize = 6 << 10;
const BYTES_BESIDE: usize = 8 << 10;
