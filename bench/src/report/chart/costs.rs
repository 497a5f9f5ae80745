//! The charts by target: CPU time, highest rates, TCP, and how evenly the queues fill.
//!
//! Invariant: targets stand in the document's order, whoever wins.

use std::collections::BTreeMap;

use super::bars::{Bar, BarPlot, BarRow};
use super::shares::{SharePlot, ShareRow};
use super::{Chart, ChartName, Plot};
use crate::report::lineup::{Lineup, Member};
use crate::report::number::{MISSING, count, percent, real, three, three_or_missing};
use crate::report::table::Table;
use crate::result::{Document, Estimate, Limit, RateFinding, Trial};

pub(super) fn cpu(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let mut table = Table::new([
        "Target",
        "µs/packet",
        "95 % interval",
        "Trials",
        "Ratio to first",
        "System calls/packet",
        "Packets/receive",
        "Lost",
    ]);
    let mut rows = Vec::new();
    for member in lineup.members() {
        for finding in document.findings.cpu.iter().filter(|f| f.target == member.name) {
            let cost = finding.us_per_packet;
            rows.push(row(member, vec![bar(&cost, false)]));
            table.row([
                finding.target.clone(),
                three(cost.median),
                interval(&cost),
                count(wide(cost.n)),
                finding.ratio_to_first.map_or(MISSING.to_owned(), |r| {
                    format!("{} ({})", three(r.median), interval(&r))
                }),
                three_or_missing(finding.system_calls_per_packet),
                three_or_missing(finding.packets_per_receive),
                percent(finding.lost_share),
            ]);
        }
    }
    bars(
        ChartName::Cpu,
        "CPU time per packet",
        "User and system time of the target's processes for each packet that it answered; less is \
         better. Whiskers: 95 % interval of the median.",
        BarPlot { axis: "µs per packet", key: None, rows },
        table,
    )
}

pub(super) fn rates(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let mut table = Table::new([
        "Target",
        "Loss allowed",
        "Borne, packets/s",
        "Not borne",
        "Delivered/s",
        "Kept from more by",
        "Trials",
    ]);
    let mut rows = Vec::new();
    for member in lineup.members() {
        let mut own: Vec<_> =
            document.findings.rates.iter().filter(|f| f.target == member.name).collect();
        own.sort_by(|a, b| a.loss_allowed.total_cmp(&b.loss_allowed));
        for finding in &own {
            table.row([
                finding.target.clone(),
                percent(finding.loss_allowed),
                three(finding.pps),
                three_or_missing(finding.upper_pps),
                three(finding.delivered_pps),
                limit(finding.limited_by).to_owned(),
                count(wide(finding.trials)),
            ]);
        }
        if !own.is_empty() {
            rows.push(row(member, own.into_iter().map(rate_bar).collect()));
        }
    }
    bars(
        ChartName::Rates,
        "Highest rates",
        "Packets per second that a target bears; more is better. Whiskers reach to the lowest rate \
         not borne; ≥ where the generator or the search ended first.",
        BarPlot { axis: "packets per second", key: Some(["no loss", "up to 0.5 % lost"]), rows },
        table,
    )
}

pub(super) fn tcp(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let mut table = Table::new(["Target", "GSO", "Gbit/s", "95 % interval", "Trials"]);
    let mut rows = Vec::new();
    for member in lineup.members() {
        let mut own: Vec<_> =
            document.findings.tcp.iter().filter(|f| f.target == member.name).collect();
        own.sort_by_key(|finding| !finding.gso);
        for finding in &own {
            table.row([
                finding.target.clone(),
                if finding.gso { "on" } else { "off" }.to_owned(),
                three(finding.gbit_per_s.median),
                interval(&finding.gbit_per_s),
                count(wide(finding.gbit_per_s.n)),
            ]);
        }
        if !own.is_empty() {
            let bars = own.into_iter().map(|finding| bar(&finding.gbit_per_s, !finding.gso));
            rows.push(row(member, bars.collect()));
        }
    }
    bars(
        ChartName::Tcp,
        "Bulk TCP",
        "One connection through the queues; more is better. Whiskers: 95 % interval of the median.",
        BarPlot {
            axis: "Gbit per second",
            key: Some(["segments joined (GSO on)", "GSO off"]),
            rows,
        },
        table,
    )
}

pub(super) fn connections(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let mut table = Table::new(["Target", "Connections/s", "95 % interval", "Trials"]);
    let mut rows = Vec::new();
    for member in lineup.members() {
        let found = document.findings.connections.iter().find(|f| f.target == member.name);
        let Some(per_second) = found.map(|finding| &finding.per_second) else { continue };
        table.row([
            member.name.to_owned(),
            three(per_second.median),
            interval(per_second),
            count(wide(per_second.n)),
        ]);
        rows.push(row(member, vec![bar(per_second, false)]));
    }
    bars(
        ChartName::Connections,
        "Short TCP connections",
        "One after the other, each with one request and its answer; more is better. Whiskers: 95 % \
         interval of the median.",
        BarPlot { axis: "connections per second", key: None, rows },
        table,
    )
}

pub(super) fn queues(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let mut table =
        Table::new(["Target", "Queue", "Packets", "Share", "Queue full", "Socket full"]);
    let mut rows = Vec::new();
    for member in lineup.members() {
        let queues = by_queue(&document.trials, member.name);
        let total: u64 = queues.values().fold(0, |sum, [packets, ..]| sum.saturating_add(*packets));
        if total == 0 {
            continue;
        }
        for (queue, [packets, queue_drops, socket_drops]) in &queues {
            table.row([
                member.name.to_owned(),
                queue.to_string(),
                count(*packets),
                percent(real(*packets) / real(total)),
                count(*queue_drops),
                count(*socket_drops),
            ]);
        }
        let parts = queues.into_iter().map(|(queue, [packets, ..])| (queue, packets)).collect();
        rows.push(ShareRow { name: member.name.to_owned(), paint: member.paint, parts });
    }
    (!rows.is_empty()).then(|| Chart {
        name: ChartName::Queues,
        title: "How evenly the queues fill",
        about:
            "Packets that each queue got. The figure on the right is the fullest queue over the \
                mean; 1 is even."
                .to_owned(),
        plot: Plot::Shares(SharePlot { rows }),
        table,
    })
}

/// Packets, queue drops and socket drops of each queue: of the trials for CPU time, where there are any, since
/// they have the greatest load in common; else of all.
fn by_queue(trials: &[Trial], target: &str) -> BTreeMap<u16, [u64; 3]> {
    let own = || {
        trials.iter().filter(move |t| {
            t.target == target && t.void.is_none() && t.queues.iter().any(|q| q.packets > 0)
        })
    };
    let cpu_only = own().any(|trial| trial.purpose == "cpu");
    let mut queues: BTreeMap<u16, [u64; 3]> = BTreeMap::new();
    for share in own().filter(|t| !cpu_only || t.purpose == "cpu").flat_map(|t| &t.queues) {
        let sums = queues.entry(share.queue).or_default();
        for (sum, more) in
            sums.iter_mut().zip([share.packets, share.queue_drops, share.socket_drops])
        {
            *sum = sum.saturating_add(more);
        }
    }
    queues
}

fn bars(
    name: ChartName,
    title: &'static str,
    about: &str,
    plot: BarPlot,
    table: Table,
) -> Option<Chart> {
    let kinds = |soft| plot.rows.iter().flat_map(|row| &row.bars).any(|bar| bar.soft == soft);
    let key = plot.key.filter(|_| kinds(true));
    (!plot.rows.is_empty()).then(|| Chart {
        name,
        title,
        about: about.to_owned(),
        plot: Plot::Bars(BarPlot { key, ..plot }),
        table,
    })
}

fn row(member: &Member<'_>, bars: Vec<Bar>) -> BarRow {
    BarRow { name: member.name.to_owned(), paint: member.paint, bars }
}

fn bar(estimate: &Estimate, soft: bool) -> Bar {
    Bar {
        value: estimate.median,
        ends: (estimate.n > 1).then_some((estimate.low, estimate.high)),
        text: three(estimate.median),
        soft,
    }
}

fn rate_bar(finding: &RateFinding) -> Bar {
    let more = if finding.limited_by == Limit::Loss { "" } else { "≥ " };
    Bar {
        value: finding.pps,
        ends: finding.upper_pps.map(|upper| (finding.pps, upper)),
        text: format!("{more}{}", three(finding.pps)),
        soft: finding.loss_allowed > 0.0,
    }
}

fn interval(estimate: &Estimate) -> String {
    if estimate.n < 2 {
        return MISSING.to_owned();
    }
    format!("{} to {}", three(estimate.low), three(estimate.high))
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Loss => "loss",
        Limit::Generator => "the generator",
        Limit::Search => "the search's end",
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
