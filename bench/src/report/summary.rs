//! The summary: one row for each target, the best of each column marked.
//!
//! Invariant: a mark is a sign beside bold figures, not a colour alone; only programs bear one.

use maud::{Markup, html};

use super::answer::rate_beside;
use super::lineup::{Lineup, Member, Part};
use super::number::{MISSING, three, three_or_missing};
use super::standing::{Standing, Standings, at_load, percentile_of};
use crate::result::{Document, Estimate, Limit};

/// One figure of the table.
struct Cell {
    text: String,
    /// Its interval, smaller.
    ends: Option<(f64, f64)>,
    best: bool,
}

pub(crate) fn draw(document: &Document, lineup: &Lineup<'_>, standings: &Standings<'_>) -> Markup {
    let rows = lineup.members().iter().map(|member| (member, cells(document, member, standings)));
    html! {
        div.scroll tabindex="0" {
            table.summary {
                (head(standings))
                tbody {
                    @for (member, cells) in rows {
                        tr.aside[member.part != Part::Program] {
                            th scope="row" {
                                (swatch(member)) span.target { (member.name) }
                                @if member.part == Part::Baseline { span.part { " no program" } }
                            }
                            @for cell in cells { (cell.draw()) }
                        }
                    }
                }
            }
        }
        p.key {
            "★ first of the column, or not to be told from it. "
            @if let Some(load) = standings.load {
                "Delays at " (load.name) (rate_beside(load.name, load.pps)) ". "
            }
            "Small: 95 % interval of the median."
        }
    }
}

fn head(standings: &Standings<'_>) -> Markup {
    html! {
        thead {
            tr {
                th rowspan="2" scope="col" { "Target" }
                th scope="col" { "Loss-free rate" }
                th scope="col" { "CPU" }
                th scope="col" { "System calls" }
                th colspan="3" scope="colgroup" { "Delay, µs" }
                th scope="col" { "TCP" @if standings.gso { ", GSO" } }
            }
            tr.units {
                th scope="col" { "packets/s" }
                th scope="col" { "µs/packet" }
                th scope="col" { "per packet" }
                th scope="col" { "median" }
                th scope="col" { "99 %" }
                th scope="col" { "99.9 %" }
                th scope="col" { "Gbit/s" }
            }
        }
    }
}

fn cells(document: &Document, member: &Member<'_>, standings: &Standings<'_>) -> [Cell; 7] {
    let name = member.name;
    let findings = &document.findings;
    let rate = findings.rates.iter().find(|f| f.target == name && f.loss_allowed <= 0.0);
    let cpu = findings.cpu.iter().find(|f| f.target == name);
    let delay = at_load(document, standings.load).find(|finding| finding.target == name);
    let tcp = findings.tcp.iter().find(|f| f.target == name && f.gso == standings.gso);
    let best = |standing: &Standing<'_>| standing.entries.len() > 1 && standing.leads(name);
    let percentile = |percent, standing| Cell {
        text: three_or_missing(delay.and_then(|finding| percentile_of(finding, percent))),
        ends: None,
        best: best(standing),
    };
    [
        Cell {
            text: rate.map_or(MISSING.to_owned(), |rate| {
                let more = if rate.limited_by == Limit::Loss { "" } else { "≥ " };
                format!("{more}{}", three(rate.pps))
            }),
            ends: None,
            best: best(&standings.rate),
        },
        Cell::estimate(cpu.map(|finding| finding.us_per_packet), best(&standings.cpu)),
        Cell {
            text: three_or_missing(cpu.and_then(|finding| finding.system_calls_per_packet)),
            ends: None,
            best: best(&standings.calls),
        },
        percentile(50.0, &standings.median),
        percentile(99.0, &standings.p99),
        percentile(99.9, &standings.p999),
        Cell::estimate(tcp.map(|finding| finding.gbit_per_s), best(&standings.tcp)),
    ]
}

impl Cell {
    fn estimate(estimate: Option<Estimate>, best: bool) -> Self {
        Self {
            text: three_or_missing(estimate.map(|estimate| estimate.median)),
            ends: estimate.filter(|e| e.n > 1).map(|e| (e.low, e.high)),
            best,
        }
    }

    fn draw(&self) -> Markup {
        html! {
            td.best[self.best] {
                @if self.best { span.star aria-label="best" { "★" } }
                (self.text)
                @if let Some((low, high)) = self.ends {
                    small { (three(low)) "–" (three(high)) }
                }
            }
        }
    }
}

/// The target's colour in the charts.
fn swatch(member: &Member<'_>) -> Markup {
    html! {
        svg.chart.swatch viewBox="0 0 18 14" width="18" height="14" aria-hidden="true" {
            (member.paint.swatch(0.0, 7.0))
        }
    }
}
