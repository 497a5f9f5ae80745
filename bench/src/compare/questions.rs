//! What is asked of two results: CPU per packet, median delay of each target at each load and the time that a short
//! TCP connection takes, from their trials; highest rates and bulk TCP, from their findings.
//!
//! Invariant: a row holds the same target at the same load on both sides (rates that differ by less than 5 % are the
//! same load, as a share of a measured rate is never quite the same rate).

use crate::result::{Document, Estimate, Limit, RateFinding, Trial};
use crate::statistics::{
    Delays, SEED, median, permutation_test, shift_of_logarithms, spread_of_logarithms,
    two_sided_p_of_intervals,
};

use super::judge::{Change, Row};

/// How it is asked.
pub(super) struct Asked<'a> {
    pub(super) threshold: f64,
    pub(super) control: Option<&'a str>,
    pub(super) resamples: u32,
}

/// All rows, still to be judged together, and what could not be asked.
pub(super) fn ask(a: &Document, b: &Document, asked: &Asked<'_>) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for question in &QUESTIONS {
        question.ask(a, b, asked, &mut rows, &mut notes);
    }
    rates(a, b, asked, &mut rows);
    tcp(a, b, asked, &mut rows);
    (rows, notes)
}

/// A figure that each trial of a kind has; less of it is better.
struct Question {
    purpose: &'static str,
    name: &'static str,
    figure: fn(&Trial) -> Option<f64>,
}

const QUESTIONS: [Question; 3] = [
    Question { purpose: "cpu", name: "CPU us/packet", figure: cpu_us_per_packet },
    Question { purpose: "latency", name: "median delay us", figure: median_delay_us },
    Question { purpose: "connections", name: "us/short connection", figure: us_per_connection },
];

fn cpu_us_per_packet(trial: &Trial) -> Option<f64> {
    let cpu = trial.cpu.filter(|cpu| cpu.answered > 0)?;
    Some(cpu.us / cpu.answered as f64)
}

fn median_delay_us(trial: &Trial) -> Option<f64> {
    Delays::from_buckets(&trial.latency).percentile(50.0)
}

/// Connections come one after the other, so this is how long one takes, from connecting to its answer.
fn us_per_connection(trial: &Trial) -> Option<f64> {
    trial.connections_per_s.filter(|rate| *rate > 0.0).map(|rate| 1e6 / rate)
}

/// One target's figures at one load.
struct Group<'a> {
    target: &'a str,
    pps: Option<f64>,
    values: Vec<f64>,
}

impl Question {
    fn ask(
        &self,
        a: &Document,
        b: &Document,
        asked: &Asked<'_>,
        rows: &mut Vec<Row>,
        notes: &mut Vec<String>,
    ) {
        let b_groups = self.groups(b, asked.control);
        for group in self.groups(a, asked.control) {
            let question = match group.pps {
                Some(pps) => format!("{} at {pps:.0}/s", self.name),
                None => self.name.to_owned(),
            };
            let other = b_groups
                .iter()
                .filter(|other| other.target == group.target)
                .map(|other| (distance(group.pps, other.pps), other))
                .filter(|(distance, _)| *distance <= SAME_LOAD)
                .min_by(|(left, _), (right, _)| left.total_cmp(right));
            let row = other.and_then(|(_, other)| {
                row(group.target, question.clone(), &group.values, &other.values, asked.resamples)
            });
            match row {
                Some(row) => rows.push(row),
                None => notes.push(format!("{}, {question}: B has no such trials", group.target)),
            }
        }
    }

    fn groups<'a>(&self, document: &'a Document, control: Option<&str>) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let valid: Vec<_> = document
            .trials
            .iter()
            .filter(|trial| trial.void.is_none() && trial.purpose == self.purpose)
            .collect();
        for &trial in &valid {
            let divisor = match control {
                None => Some(1.0),
                Some(name) if name == trial.target => None,
                Some(name) => valid
                    .iter()
                    .find(|other| {
                        other.target == name
                            && other.round == trial.round
                            && distance(other.intended_pps, trial.intended_pps) <= SAME_LOAD
                    })
                    .and_then(|other| (self.figure)(other)),
            };
            let Some((value, divisor)) = (self.figure)(trial).zip(divisor) else { continue };
            if !(value > 0.0 && divisor > 0.0) {
                continue;
            }
            let (target, pps) = (&*trial.target, trial.intended_pps);
            match groups.iter_mut().find(|group| group.target == target && group.pps == pps) {
                Some(group) => group.values.push(value / divisor),
                None => groups.push(Group { target, pps, values: vec![value / divisor] }),
            }
        }
        groups
    }
}

fn row(target: &str, question: String, a: &[f64], b: &[f64], resamples: u32) -> Option<Row> {
    let shift = shift_of_logarithms(a, b)?;
    let variance = |side: &[f64]| Some(spread_of_logarithms(side)?.powi(2) / side.len() as f64);
    Some(Row {
        target: target.to_owned(),
        question,
        a: median(a)?,
        b: median(b)?,
        change: shift.exp() - 1.0,
        p: Some(permutation_test(a, b, resamples, SEED)?),
        trials: Some((a.len(), b.len())),
        verdict: Change::Same,
        worsening: shift,
        deviation: Some((variance(a)? + variance(b)?).sqrt()),
    })
}

/// A rate has bounds and no trials of its own: it changed if the bounds lie apart and loss is what set them.
fn rates(a: &Document, b: &Document, asked: &Asked<'_>, rows: &mut Vec<Row>) {
    let find = |document: &'_ Document, target: &str, loss: f64| {
        let mut rates = document.findings.rates.iter();
        let own =
            |rate: &&RateFinding| rate.target == target && (rate.loss_allowed - loss).abs() < 1e-9;
        rates.find(own).cloned()
    };
    for old in &a.findings.rates {
        let Some(mut new) = find(b, &old.target, old.loss_allowed) else { continue };
        if let Some(control) = asked.control {
            if control == old.target {
                continue;
            }
            let control = |document| {
                find(document, control, old.loss_allowed).filter(|r| r.limited_by == Limit::Loss)
            };
            let (Some(before), Some(now)) = (control(a), control(b)) else { continue };
            let drift = before.pps / now.pps;
            new.pps *= drift;
            new.upper_pps = new.upper_pps.map(|upper| upper * drift);
        }
        let question = match old.loss_allowed * 100.0 {
            0.0 => "packets/s without loss".to_owned(),
            percent => format!("packets/s, {percent} % lost"),
        };
        let ratio = new.pps / old.pps;
        rows.push(Row {
            target: old.target.clone(),
            question,
            a: old.pps,
            b: new.pps,
            change: if ratio.is_finite() { ratio - 1.0 } else { 0.0 },
            p: None,
            trials: None,
            verdict: rate_change(old, &new, asked.threshold),
            worsening: 0.0,
            deviation: None,
        });
    }
}

fn rate_change(old: &RateFinding, new: &RateFinding, threshold: f64) -> Change {
    // Whether loss kept `low` from what `high` bears.
    let below = |low: &RateFinding, high: &RateFinding| {
        low.limited_by == Limit::Loss
            && low.upper_pps.is_some_and(|upper| upper <= high.pps)
            && low.pps * (1.0 + threshold) <= high.pps
    };
    let (least, most) = (old.pps.min(new.pps), old.pps.max(new.pps));
    let known = |rate: &RateFinding| rate.pps > 0.0 || rate.upper_pps.is_some();
    if below(new, old) {
        Change::Worse
    } else if below(old, new) {
        Change::Better
    } else if known(old) && known(new) && (most < least * (1.0 + threshold) || most == 0.0) {
        Change::Same
    } else {
        Change::Unclear
    }
}

/// Trials do not say whether they had GSO, findings do: their intervals stand for the trials.
fn tcp(a: &Document, b: &Document, asked: &Asked<'_>, rows: &mut Vec<Row>) {
    let find = |document: &Document, target: &str, gso| -> Option<Estimate> {
        let mut findings = document.findings.tcp.iter();
        let own = findings.find(|finding| finding.target == target && finding.gso == gso)?;
        Some(own.gbit_per_s)
    };
    for finding in &a.findings.tcp {
        let (target, old) = (&*finding.target, finding.gbit_per_s);
        let Some(mut new) = find(b, target, finding.gso) else { continue };
        if let Some(control) = asked.control {
            let of = |document| find(document, control, finding.gso);
            let (Some(before), Some(now)) = (of(a), of(b)) else { continue };
            let drift = before.median / now.median;
            (new.median, new.low, new.high) =
                (new.median * drift, new.low * drift, new.high * drift);
        }
        let Some(p) = two_sided_p_of_intervals(&old, &new) else { continue };
        rows.push(Row {
            target: target.to_owned(),
            question: format!("TCP Gbit/s, GSO {}", if finding.gso { "on" } else { "off" }),
            a: old.median,
            b: new.median,
            change: new.median / old.median - 1.0,
            p: Some(p),
            trials: Some((old.n, new.n)),
            verdict: Change::Same,
            worsening: (old.median / new.median).ln(),
            deviation: None,
        });
    }
}

/// Of logarithms.
fn distance(a: Option<f64>, b: Option<f64>) -> f64 {
    match (a, b) {
        (Some(a), Some(b)) => (a / b).ln().abs(),
        (None, None) => 0.0,
        _ => f64::INFINITY,
    }
}

const SAME_LOAD: f64 = 0.05;
