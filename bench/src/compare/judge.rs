//! From rows to a verdict: which changes are no chance, and what that makes of the whole.
//!
//! Invariant: if nothing changed, at most one comparison in twenty says that something did because of chance among
//! its trials; for that every row which may raise an alarm has a p. What has too few trials to tell is never called
//! the same, nor is a result that lacks what the other has.

use std::fmt::Write;

use serde::Serialize;

use crate::statistics::least_p;

/// The share of comparisons that may raise an alarm where nothing changed.
const ALARMS: f64 = 0.05;
/// Fewer trials a side say nothing.
const TRIALS_MIN: usize = 5;
/// Deviations between nothing and an alarm (5 %, two-sided), and on to what is found in 19 of 20 tries.
const DEVIATIONS_TO_FIND: f64 = 1.96 + 1.645;
/// A rank test needs this much more variance than one of means where noise is normal.
const RANK_EFFICIENCY: f64 = 0.955;

/// One question about one target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) target: String,
    pub(super) question: String,
    /// Medians of the trials, or the figure.
    pub(super) a: f64,
    pub(super) b: f64,
    /// 0.1 where B has 10 % more: the median of all ratios between trials, which need not be that of the medians. Where
    /// a and b are percentages of the packets: 0.1 where B has ten points more.
    pub(super) change: f64,
    #[serde(skip)]
    pub(super) in_points: bool,
    /// None where nothing says what noise is.
    pub(super) p: Option<f64>,
    /// None for figures that have none.
    pub(super) trials: Option<(usize, usize)>,
    pub(super) verdict: Change,
    /// The change as a logarithm, above 0 where it is for the worse.
    #[serde(skip)]
    pub(super) worsening: f64,
    /// The standard deviation of that logarithm.
    #[serde(skip)]
    pub(super) deviation: Option<f64>,
}

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Same,
    Better,
    Worse,
    /// No shuffling of so few trials is rare enough.
    TooFew,
    /// The figures differ, but not because of loss, by too little beside the noise, or their bounds are too wide.
    Unclear,
}

/// What the whole comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Same,
    Better,
    Worse,
    NotComparable,
}

/// All that is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Comparison {
    schema: &'static str,
    pub(super) verdict: Verdict,
    /// The verdict in words.
    pub(super) summary: String,
    pub(super) threshold: f64,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

impl Comparison {
    /// Of rows already settled. With something missing in B, nothing is called the same or better.
    pub(super) fn of(
        rows: Vec<Row>,
        mut notes: Vec<String>,
        missing: Vec<String>,
        threshold: f64,
    ) -> Self {
        let of = |change| rows.iter().filter(|row| row.verdict == change).collect::<Vec<_>>();
        let (same, better, worse) = (of(Change::Same), of(Change::Better), of(Change::Worse));
        let untold = rows.len() - same.len() - better.len() - worse.len();
        let percent = threshold * 100.0;
        let (verdict, mut summary) = if rows.is_empty() {
            let why =
                "the files have no trials or figures of the same target at the same load in common";
            (Verdict::NotComparable, format!("not comparable: {why}"))
        } else if untold == rows.len() {
            let why = format!(
                "too few trials or too wide bounds; {TRIALS_MIN} trials a side are the least"
            );
            let how = "20 are better; rates take --again on both";
            (Verdict::NotComparable, format!("not comparable: {why}, {how}"))
        } else if !worse.is_empty() {
            (Verdict::Worse, format!("worse: {}", list(&worse)))
        } else if !better.is_empty() {
            (Verdict::Better, format!("better: {}", list(&better)))
        } else {
            let figures = if same.len() == 1 { "figure" } else { "figures" };
            let count = same.len();
            let what = format!("no change of {percent} % beyond chance in {count} {figures}");
            (Verdict::Same, format!("same: {what}"))
        };
        if !worse.is_empty() && !better.is_empty() {
            let _ = write!(summary, "; better: {}", list(&better));
        }
        if untold > 0 && untold < rows.len() {
            let _ = write!(summary, "; {untold} of {} figures could not be told", rows.len());
        }
        let verdict = match (&missing[..], verdict) {
            ([first, more @ ..], Verdict::Same | Verdict::Better) => {
                let more = match more.len() {
                    0 => String::new(),
                    count => format!(" (and {count} more)"),
                };
                summary = format!("not comparable: {first}{more}; else {summary}");
                Verdict::NotComparable
            }
            (_, verdict) => verdict,
        };
        notes.extend(missing);
        Self { schema: SCHEMA, verdict, summary, threshold, rows, notes }
    }

    /// Of files that must not be compared.
    pub(super) fn impossible(threshold: f64, why: Vec<String>) -> Self {
        let summary = format!("not comparable: {}", why.join("; "));
        let (verdict, rows) = (Verdict::NotComparable, Vec::new());
        Self { schema: SCHEMA, verdict, summary, threshold, rows, notes: why }
    }
}

/// Judges all rows with a p at once, the least likely first (Holm), so that many questions raise no more false alarms
/// than one. A row that is no alarm keeps its verdict.
pub(super) fn settle(rows: &mut [Row], threshold: f64) {
    let enough =
        |row: &Row| row.p.is_some() && row.trials.is_none_or(|(a, b)| a.min(b) >= TRIALS_MIN);
    let questions = rows.iter().filter(|row| enough(row)).count();
    let can_alarm = |row: &Row| {
        let least = row.trials.map_or(0.0, |(a, b)| least_p(a, b));
        enough(row) && least <= ALARMS / questions as f64
    };
    let mut tested = Vec::new();
    for row in rows.iter_mut() {
        match row.p {
            Some(p) if can_alarm(row) => tested.push((p, row)),
            Some(_) => row.verdict = Change::TooFew,
            None => {}
        }
    }
    tested.sort_by(|(left, _), (right, _)| left.total_cmp(right));
    for (number, (p, row)) in tested.into_iter().enumerate() {
        if p > ALARMS / (questions - number) as f64 {
            break;
        }
        if row.worsening.abs() >= threshold.ln_1p() {
            row.verdict = if row.worsening > 0.0 { Change::Worse } else { Change::Better };
        }
    }
}

/// For each figure called the same: what its trials would have missed.
pub(super) fn what_may_be_missed(rows: &[Row], threshold: f64) -> Vec<String> {
    let same = rows.iter().filter(|row| row.verdict == Change::Same);
    let missed = same.filter_map(|row| {
        let (a, b) = row.trials?;
        let deviation = row.deviation? / RANK_EFFICIENCY.sqrt();
        let least = (deviation * DEVIATIONS_TO_FIND).exp_m1();
        let wanted = 2.0 * threshold;
        if least <= wanted {
            return None;
        }
        let more = (deviation * DEVIATIONS_TO_FIND / wanted.ln_1p()).powi(2);
        let trials = (a.min(b) as f64 * more).ceil();
        let Row { target, question, .. } = row;
        Some(format!(
            "{target}, {question}: trials spread so far that a change of {:.0} % may be missed; \
             {trials:.0} a side would show it",
            wanted * 100.0
        ))
    });
    missed.collect()
}

fn list(rows: &[&Row]) -> String {
    let changes = rows.iter().map(|row| {
        let percent = (row.change * 100.0).abs();
        let direction = if row.change < 0.0 { "less" } else { "more" };
        let unit = if row.in_points { "points" } else { "%" };
        format!("{}, {} {percent:.1} {unit} {direction}", row.target, row.question)
    });
    changes.collect::<Vec<_>>().join("; ")
}

const SCHEMA: &str = "fanq.compare/1";
