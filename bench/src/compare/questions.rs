//! What is asked of two results by their trials: CPU per packet, median delay of each target at each load, the time
//! that a short TCP connection and a Gbit over a long one take, and the share of packets that was lost.
//!
//! Invariant: a row holds the same target at the same load on both sides (rates that differ by less than 5 % are the
//! same load, as a share of a measured rate is never quite the same rate). What A has and B lacks is said to be
//! missing. Where nothing, or hardly anything, is lost on either side there is no row of it.

use crate::result::{Document, Trial};
use crate::statistics::{
    Delays, SEED, median, permutation_test, shift, shift_of_logarithms, spread_of_logarithms,
};

use super::judge::{Change, Row};
use super::rates;

/// How it is asked.
pub(super) struct Asked<'a> {
    pub(super) threshold: f64,
    pub(super) control: Option<&'a str>,
    pub(super) resamples: u32,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Still to be judged together.
    pub(super) rows: Vec<Row>,
    /// What could not be asked.
    pub(super) notes: Vec<String>,
    /// What A has and B lacks.
    pub(super) missing: Vec<String>,
}

pub(super) fn ask(a: &Document, b: &Document, asked: &Asked<'_>) -> Answers {
    let mut answers = Answers::default();
    for question in &QUESTIONS {
        question.ask(a, b, asked, &mut answers);
    }
    rates::ask(a, b, asked, &mut answers);
    answers
}

/// A figure that each trial of a kind has; less of it is better.
struct Question {
    purpose: &'static str,
    name: &'static str,
    figure: fn(&Trial) -> Option<f64>,
    scale: Scale,
}

/// How figures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// By a factor; they are above zero.
    Ratio,
    /// By a difference of shares of the packets, which may be zero.
    Share,
}

const QUESTIONS: [Question; 6] = [
    ratio("cpu", "CPU us/packet", cpu_us_per_packet),
    share("cpu", "% lost while CPU was measured", lost_share),
    ratio("latency", "median delay us", median_delay_us),
    share("latency", "% lost", lost_share),
    ratio("connections", "us/short connection", us_per_connection),
    ratio("tcp", "TCP ms/Gbit", ms_per_gbit),
];

const fn ratio(
    purpose: &'static str,
    name: &'static str,
    figure: fn(&Trial) -> Option<f64>,
) -> Question {
    Question { purpose, name, figure, scale: Scale::Ratio }
}

const fn share(
    purpose: &'static str,
    name: &'static str,
    figure: fn(&Trial) -> Option<f64>,
) -> Question {
    Question { purpose, name, figure, scale: Scale::Share }
}

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

/// Whether with GSO the lab says, which is the same on both sides.
fn ms_per_gbit(trial: &Trial) -> Option<f64> {
    trial.gbit_per_s.filter(|rate| *rate > 0.0).map(|rate| 1e3 / rate)
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn lost_share(trial: &Trial) -> Option<f64> {
    Some(trial.account.lost_share())
}

/// One target's figures at one load.
struct Group<'a> {
    target: &'a str,
    pps: Option<f64>,
    values: Vec<f64>,
}

impl Question {
    fn ask(&self, a: &Document, b: &Document, asked: &Asked<'_>, answers: &mut Answers) {
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
            let target = group.target;
            match other {
                Some((_, other)) => {
                    answers.rows.extend(self.row(&group, question, &other.values, asked));
                }
                // What is asked of the same trials as another figure is missing with that.
                None if self.scale == Scale::Share => {}
                None => match load_of_its_own(a, b, target, group.pps) {
                    Some(pps) => answers.notes.push(format!(
                        "{target}, {question}: this load follows from rates, which gave B {pps:.0}/s: not compared"
                    )),
                    None => {
                        answers.missing.push(format!("{target}, {question}: B has no such trials"));
                    }
                },
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
            let reference = match control {
                None => Some(self.scale.nothing()),
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
            let Some((value, reference)) = (self.figure)(trial).zip(reference) else { continue };
            let Some(value) = self.scale.beside(value, reference) else { continue };
            let (target, pps) = (&*trial.target, trial.intended_pps);
            match groups.iter_mut().find(|group| group.target == target && group.pps == pps) {
                Some(group) => group.values.push(value),
                None => groups.push(Group { target, pps, values: vec![value] }),
            }
        }
        groups
    }

    /// None if a figure is not finite, or where too little is lost for any change to count.
    fn row(
        &self,
        group: &Group<'_>,
        question: String,
        b: &[f64],
        asked: &Asked<'_>,
    ) -> Option<Row> {
        let a = &group.values[..];
        let row = Row {
            target: group.target.to_owned(),
            question,
            a: median(a)?,
            b: median(b)?,
            change: 0.0,
            in_points: self.scale == Scale::Share,
            p: Some(permutation_test(a, b, asked.resamples, SEED)?),
            trials: Some((a.len(), b.len())),
            verdict: Change::Same,
            worsening: 0.0,
            deviation: None,
        };
        match self.scale {
            Scale::Ratio => {
                let shift = shift_of_logarithms(a, b)?;
                let variance =
                    |side: &[f64]| Some(spread_of_logarithms(side)?.powi(2) / side.len() as f64);
                let deviation = Some((variance(a)? + variance(b)?).sqrt());
                Some(Row { change: shift.exp_m1(), worsening: shift, deviation, ..row })
            }
            Scale::Share => {
                let all = || a.iter().chain(b).copied();
                let (least, most) =
                    (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
                if most - least < LOST_LEAST {
                    return None;
                }
                let change = shift(a, b)?;
                // As many steps as it takes to count, in the measure of the others.
                let counts = LOST_LEAST.max(asked.threshold * row.a);
                let worsening = change / counts * asked.threshold.ln_1p();
                let (a, b) = (row.a * 100.0, row.b * 100.0);
                Some(Row { a, b, change, worsening, ..row })
            }
        }
    }
}

impl Scale {
    /// What a figure is held beside where there is no control.
    fn nothing(self) -> f64 {
        match self {
            Self::Ratio => 1.0,
            Self::Share => 0.0,
        }
    }

    /// A figure by what the control has in the same round.
    fn beside(self, value: f64, control: f64) -> Option<f64> {
        match self {
            Self::Ratio => (value > 0.0 && control > 0.0).then(|| value / control),
            Self::Share => Some(value - control),
        }
    }
}

/// Where a load of A is a share of a measured rate: what the same share came to in B.
fn load_of_its_own(a: &Document, b: &Document, target: &str, pps: Option<f64>) -> Option<f64> {
    let of_target = |document: &'_ Document| {
        let latencies = document.findings.latencies.clone();
        latencies.into_iter().filter(move |finding| finding.target == target)
    };
    let same = |at: f64| distance(Some(at), pps) <= SAME_LOAD;
    let load = of_target(a).find(|finding| same(finding.offered_pps))?.load;
    let other = of_target(b).find(|finding| finding.load == load)?.offered_pps;
    (!same(other)).then_some(other)
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
/// A share of packets, by which loss must change to count: what the search of a rate allows, too.
const LOST_LEAST: f64 = 0.005;
