//! Choices from made-up measurements: what is cheaper, what is cheaper by chance, what loses.

use serde_json::{Value, json};

use super::super::bench::Ended;
use super::super::candidate::Axes;
use super::super::config::{Report, evidence, toml};
use super::*;

/// Twelve configurations: batch, copy range and waiting.
fn axes() -> Axes {
    let mut axes = Axes::all();
    axes.drop_last();
    axes.drop_last();
    axes
}

/// A sweep in which a configuration costs what `cost` says in each round, and loses so many packets.
fn sweep(rounds: usize, cost: impl Fn(&Candidate, usize) -> (f64, u64)) -> Document {
    let mut trials = Vec::new();
    for round in 0..rounds {
        for candidate in axes().combinations() {
            let (us, lost) = cost(&candidate, round);
            trials.push(json!({
                "target": candidate.target(),
                "round": round,
                "seconds": 0.5,
                "void": null,
                "account": { "offered": 1000 + lost, "delivered": 1000, "policy_drops": 0 },
                "cpu": { "us": us * 1000.0, "answered": 1000 },
            }));
        }
    }
    document(&json!({ "schema": "fanq.bench/1", "trials": trials, "findings": { "cpu": [] } }))
}

fn document(value: &Value) -> Document {
    Document::parse(&value.to_string(), Ended::Well).unwrap()
}

fn screened(sweep: &Document, headers_only: bool) -> Screening {
    screen(sweep, &axes().combinations(), headers_only).unwrap()
}

fn has(candidate: &Candidate, option: &'static str, value: &'static str) -> bool {
    candidate.options.contains(&(option, value))
}

/// A drift that all of a round share, and which is larger than any difference.
fn drift(round: usize) -> f64 {
    [1.0, 1.5, 0.8, 2.0, 1.1, 1.3, 0.9][round % 7]
}

#[test]
fn the_cheapest_without_loss_is_found_under_a_drift() {
    let sweep = sweep(7, |candidate, round| {
        let batch = if has(candidate, "batch", "256") { 0.9 } else { 1.0 };
        // The cheapest loses.
        let (spin, lost) = if has(candidate, "wait", "spin:50") { (0.5, 1) } else { (1.0, 0) };
        (batch * spin * drift(round), lost)
    });
    let best = screened(&sweep, false).best.unwrap();
    assert_eq!(best.to_string(), "batch 256");
}

#[test]
fn what_cannot_be_told_apart_from_the_defaults_is_not_chosen() {
    // Cheaper in the median, and dearer in two rounds of seven.
    let sweep = sweep(7, |candidate, round| {
        let other = if round < 5 { 0.9 } else { 1.1 };
        (drift(round) * if candidate.is_default() { 1.0 } else { other }, 0)
    });
    let screening = screened(&sweep, false);
    assert!(screening.best.as_ref().unwrap().is_default());
    assert!(matches!(Verdict::of_sweep(&screening), Verdict::DefaultsTie));
}

/// What an inspector does not get to see is its own business.
#[test]
fn a_short_copy_range_is_chosen_only_where_headers_are_enough() {
    let sweep = sweep(7, |candidate, round| {
        (drift(round) * if candidate.copies_all() { 1.0 } else { 0.5 }, 0)
    });
    assert!(screened(&sweep, false).best.unwrap().is_default());
    assert_eq!(screened(&sweep, true).best.unwrap().to_string(), "copy-range 128");
}

#[test]
fn where_everything_loses_the_defaults_stay_and_where_nothing_counts_it_is_an_error() {
    let lossy = sweep(5, |_, _| (1.0, 3));
    let screening = screened(&lossy, false);
    assert!(screening.best.is_none());
    let verdict = Verdict::of_sweep(&screening);
    assert!(matches!(verdict, Verdict::AllLost) && verdict.chosen(&screening).is_default());
    let mut void = sweep(5, |_, _| (1.0, 0));
    for trial in &mut void.trials {
        trial.void = Some("late".to_owned());
    }
    let error = screen(&void, &axes().combinations(), false).unwrap_err().to_string();
    assert!(error.contains("too busy"), "{error}");
}

#[test]
fn five_rounds_of_five_are_more_than_chance_and_six_of_seven_are_not_quite() {
    assert!(is_more_than_chance(5, 5) && !is_more_than_chance(4, 4));
    assert!(is_more_than_chance(7, 7) && !is_more_than_chance(6, 7) && is_more_than_chance(7, 8));
    assert!(!is_more_than_chance(0, 0));
}

fn comparison(ratio: [f64; 3], again: f64, lost: f64) -> (Document, Candidate) {
    let best =
        axes().combinations().into_iter().find(|one| one.to_string() == "batch 256").unwrap();
    let finding = |target: &str, [median, low, high]: [f64; 3], lost: f64| {
        json!({
            "target": target,
            "us_per_packet": { "median": median, "low": low, "high": high },
            "ratio_to_first": { "median": median, "low": low, "high": high },
            "lost_share": lost,
        })
    };
    let cpu = [
        finding("fanq", [1.0; 3], 0.0),
        finding(&best.target(), ratio, lost),
        finding("fanq (again)", [again; 3], 0.0),
    ];
    (document(&json!({ "schema": "fanq.bench/1", "trials": [], "findings": { "cpu": cpu } })), best)
}

#[test]
fn a_comparison_bears_out_what_is_beyond_the_noise_and_loses_nothing() {
    for (ratio, again, lost, better) in [
        ([0.9, 0.85, 0.95], 1.01, 0.0, true),
        ([0.9, 0.85, 1.05], 1.01, 0.0, false),
        ([0.9, 0.85, 0.95], 0.88, 0.0, false),
        ([0.9, 0.85, 0.95], 1.01, 0.1, false),
        ([1.1, 1.05, 1.2], 1.0, 0.0, false),
    ] {
        let (document, best) = comparison(ratio, again, lost);
        let verdict = Verdict::of_comparison(&document, &best);
        assert_eq!(matches!(verdict, Verdict::Better { .. }), better, "{ratio:?} {again} {lost}");
    }
    let (_, best) = comparison([1.0; 3], 1.0, 0.0);
    let empty =
        document(&json!({ "schema": "fanq.bench/1", "trials": [], "findings": { "cpu": [] } }));
    let verdict = Verdict::of_comparison(&empty, &best);
    assert!(matches!(verdict, Verdict::NotBorneOut { figures: None, .. }));
}

#[test]
fn what_is_written_can_be_read_and_says_why() {
    let sweep =
        sweep(5, |candidate, _| (if has(candidate, "batch", "256") { 0.5 } else { 1.0 }, 0));
    let screening = screened(&sweep, false);
    let (document, best) = comparison([0.5, 0.4, 0.6], 1.0, 0.0);
    let verdict = Verdict::of_comparison(&document, &best);
    let axes = axes();
    let report = Report { axes: &axes, sweep: &sweep, screening: &screening, verdict: &verdict };
    let text = toml(&report, verdict.chosen(&screening), "x/fanq.measured.json".as_ref());
    let read: toml::Table = text.parse().unwrap();
    assert_eq!(read["batch"].as_integer(), Some(256));
    assert_eq!((read["rcvbuf"].as_str(), read["wait"].as_str()), (Some("64MiB"), Some("block")));
    for part in
        ["chosen: batch 256", "Not tried for want of time: rcvbuf", "All of it: fanq.measured.json"]
    {
        assert!(text.contains(part), "{text}");
    }
    let evidence: Value =
        serde_json::from_str(&evidence(&report, Some(&document)).unwrap()).unwrap();
    assert_eq!(evidence["ranked"].as_array().unwrap().len(), 12);
    assert_eq!(evidence["chosen"], verdict.chosen(&screening).target());
}

#[test]
fn a_result_of_another_format_is_refused() {
    for bad in ["", "{}", r#"{"schema":"fanq.bench/2"}"#, r#"{"schema":"fanq.bench/1"}"#] {
        assert!(Document::parse(bad, Ended::Well).is_err(), "{bad}");
    }
}
