//! Goal: a rate is worse only if it fell by many times what a target differs from itself, and loss set it. Method:
//! results with the rates of three targets, one of them searched twice.

use super::documents::rate;
use super::*;
use crate::compare::judge::Row;
use crate::result::{Limit, RateFinding};

/// Twenty steady trials, and rates of fanq, of fanq once more, and of one other.
fn with(fanq: f64, again: f64, other: RateFinding) -> Document {
    let mut document = steady(&[("fanq", 1.0)]);
    document.findings.rates = vec![rate("fanq", fanq), rate("fanq (again)", again), other];
    document
}

fn row(comparison: &Comparison, target: &str) -> Row {
    let own = |row: &&Row| row.target == target && row.question == "packets/s without loss";
    comparison.rows.iter().find(own).unwrap().clone()
}

/// What becomes of the other, where fanq differs from itself by 2 % in each file.
fn change(old: RateFinding, new: RateFinding) -> Change {
    let comparison = judged(&with(500e3, 490e3, old), &with(490e3, 500e3, new));
    row(&comparison, "other").verdict
}

#[test]
fn rates_change_where_their_bounds_lie_apart_and_loss_set_them() {
    let other = |pps| rate("other", pps);
    let limited =
        |pps: f64, upper_pps, limited_by| RateFinding { upper_pps, limited_by, ..other(pps) };
    assert_eq!(change(other(500e3), other(350e3)), Change::Worse);
    assert_eq!(change(other(350e3), other(500e3)), Change::Better);
    assert_eq!(change(other(500e3), other(490e3)), Change::Same);
    // Bounds apart by more than the threshold, and yet no more than noise may be.
    assert_eq!(change(other(500e3), other(450e3)), Change::Unclear);
    assert_eq!(change(other(500e3), limited(350e3, Some(520e3), Limit::Loss)), Change::Unclear);
    assert_eq!(
        change(other(500e3), limited(350e3, Some(352e3), Limit::Generator)),
        Change::Unclear
    );
    assert_eq!(change(other(500e3), limited(700e3, None, Limit::Search)), Change::Better);
    assert_eq!(change(other(500e3), limited(0.0, Some(100.0), Limit::Loss)), Change::Worse);
    let nothing = limited(0.0, None, Limit::Search);
    assert_eq!(change(nothing.clone(), nothing), Change::Unclear);
}

#[test]
fn what_a_target_differs_from_itself_is_no_change() {
    // Once half of itself in each file: nothing below that can be told.
    let document = |other| with(500e3, 250e3, rate("other", other));
    let comparison = judged(&document(500e3), &document(100e3));
    assert_eq!(row(&comparison, "other").verdict, Change::Unclear);
    assert_eq!(comparison.verdict, Verdict::Same, "by its CPU time");
    assert!(row(&comparison, "other").p.unwrap() > 0.05);
}

#[test]
fn without_a_target_searched_twice_in_both_no_rate_changes() {
    let alone = |pps| {
        let mut document = steady(&[("other", 1.0)]);
        document.findings.rates.push(rate("other", pps));
        document
    };
    let paired = |pps| {
        let mut document = alone(pps);
        document.findings.rates.extend([rate("fanq", 5e5), rate("fanq (again)", 5e5)]);
        document
    };
    let comparison = judged(&alone(500e3), &paired(100e3));
    assert_eq!(
        (row(&comparison, "other").verdict, row(&comparison, "other").p),
        (Change::Unclear, None)
    );
    assert_ne!(comparison.verdict, Verdict::Worse);
    assert!(comparison.notes.iter().any(|note| note.starts_with("A has no target whose rate")));
    assert_eq!(row(&judged(&paired(500e3), &paired(100e3)), "other").verdict, Change::Worse);
}

#[test]
fn a_control_takes_the_machine_out_of_rates() {
    let args = CompareArgs { control: Some("fanq".to_owned()), ..args() };
    let on = |factor: f64, other: f64| {
        let mut document = with(500e3 * factor, 495e3 * factor, rate("other", other * factor));
        document.trials.extend(steady(&[("other", 1.0)]).trials);
        document
    };
    let verdict = |b: &Document| row(&compare(&on(1.0, 300e3), b, &args, 499), "other").verdict;
    assert_eq!(verdict(&on(0.5, 300e3)), Change::Same);
    assert_eq!(verdict(&on(0.5, 150e3)), Change::Worse);
}
