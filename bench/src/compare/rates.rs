//! Highest rates, from their findings: each is one figure with bounds, from a search that has no trials to shuffle.
//!
//! What noise is, only a target that was searched twice in one run can say (`--again`). From the pair in each of the
//! two files comes a Student's t with two degrees of freedom: two figures say little of a spread, so a change must be
//! many times what a target differs from itself.
//!
//! Invariant: a rate changed only if that is no chance, if its bounds lie apart, and if loss is what set them. Where a
//! file has no such pair, a rate is the same or unclear.

use crate::result::{Document, Limit, RateFinding};
use crate::statistics::p_beside_noise;

use super::judge::{Change, Row};
use super::questions::{Answers, Asked};

/// Behind the name of a target that was measured a second time.
const AGAIN: &str = " (again)";

pub(super) fn ask(a: &Document, b: &Document, asked: &Asked<'_>, answers: &mut Answers) {
    for old in &a.findings.rates {
        let question = match old.loss_allowed * 100.0 {
            0.0 => "packets/s without loss".to_owned(),
            percent => format!("packets/s, {percent} % lost"),
        };
        let target = &old.target;
        let Some(mut new) = find(b, target, old.loss_allowed).cloned() else {
            answers.missing.push(format!("{target}, {question}: B has no such rate"));
            continue;
        };
        let mut noise = noise(a, old.loss_allowed).zip(noise(b, old.loss_allowed));
        if let Some(control) = asked.control {
            if control == target {
                continue;
            }
            let Some(drift) = drift(a, b, control, old.loss_allowed) else {
                answers.notes.push(format!("{target}, {question}: loss did not set {control}'s"));
                continue;
            };
            new.pps *= drift;
            new.upper_pps = new.upper_pps.map(|upper| upper * drift);
            // Of four rates instead of two.
            noise = noise.map(|(a, b)| (a * 2_f64.sqrt(), b * 2_f64.sqrt()));
        }
        answers.rows.push(row(old, &new, question, noise, asked.threshold));
    }
    for (side, document) in [("A", a), ("B", b)] {
        let rates = &document.findings.rates;
        if !rates.is_empty()
            && rates.iter().all(|rate| noise(document, rate.loss_allowed).is_none())
        {
            answers.notes.push(format!(
                "{side} has no target whose rate was searched twice (--again): no change of a rate can be told from noise"
            ));
        }
    }
}

fn row(
    old: &RateFinding,
    new: &RateFinding,
    question: String,
    noise: Option<(f64, f64)>,
    threshold: f64,
) -> Row {
    let by_bounds = by_bounds(old, new, threshold);
    // A rate of zero is below any other, by no factor.
    let worsening = (old.pps.max(1.0) / new.pps.max(1.0)).ln();
    let is_apart = matches!(by_bounds, Change::Better | Change::Worse);
    let ratio = new.pps / old.pps;
    Row {
        target: old.target.clone(),
        question,
        a: old.pps,
        b: new.pps,
        change: if ratio.is_finite() { ratio - 1.0 } else { 0.0 },
        in_points: false,
        p: noise.and_then(|(a, b)| p_beside_noise(worsening, [a, b])),
        trials: None,
        verdict: if is_apart { Change::Unclear } else { by_bounds },
        worsening: if is_apart { worsening } else { 0.0 },
        deviation: None,
    }
}

/// How a pair of the same target differs in a document, as a logarithm; not less than its bounds leave open.
fn noise(document: &Document, loss_allowed: f64) -> Option<f64> {
    let pairs = document.findings.rates.iter().filter_map(|again| {
        let name = again.target.strip_suffix(AGAIN)?;
        let first = find(document, name, loss_allowed)?;
        let of_this = (again.loss_allowed - loss_allowed).abs() < 1e-9;
        let by_loss = |rate: &RateFinding| rate.limited_by == Limit::Loss && rate.pps > 0.0;
        if !(of_this && by_loss(first) && by_loss(again)) {
            return None;
        }
        let width = |rate: &RateFinding| rate.upper_pps.map(|upper| (upper / rate.pps).ln());
        let apart = (first.pps / again.pps).ln().abs();
        Some(apart.max(width(first)?).max(width(again)?))
    });
    pairs.max_by(f64::total_cmp)
}

/// By how much the control was higher in A.
fn drift(a: &Document, b: &Document, control: &str, loss_allowed: f64) -> Option<f64> {
    let of = |document| {
        find(document, control, loss_allowed).filter(|rate| rate.limited_by == Limit::Loss)
    };
    let drift = of(a)?.pps / of(b)?.pps;
    (drift.is_finite() && drift > 0.0).then_some(drift)
}

fn find<'a>(document: &'a Document, target: &str, loss_allowed: f64) -> Option<&'a RateFinding> {
    let is_it = |rate: &&RateFinding| {
        rate.target == target && (rate.loss_allowed - loss_allowed).abs() < 1e-9
    };
    document.findings.rates.iter().find(is_it)
}

/// What the bounds say, as if they were sure.
fn by_bounds(old: &RateFinding, new: &RateFinding, threshold: f64) -> Change {
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
