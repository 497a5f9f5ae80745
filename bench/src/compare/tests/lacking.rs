//! Goal: a result that lacks what the other has, or in which packets are lost, does not pass for the same.

use super::documents::{lose, rate};
use super::*;
use crate::result::{Estimate, LatencyFinding};

#[test]
fn a_result_that_broke_off_is_the_same_as_nothing() {
    let a = steady(&[("fanq", 1.0), ("single", 3.0)]);
    let mut b = a.clone();
    b.run.complete = false;
    let comparison = judged(&a, &b);
    assert_eq!(comparison.verdict, Verdict::NotComparable);
    assert!(comparison.summary.starts_with("not comparable: B ended early"), "{comparison:?}");
    assert_eq!(comparison.rows.len(), 2, "what there is is told");
    // What is worse is worse, however little there is.
    let mut slower = steady(&[("fanq", 1.2)]);
    slower.run.complete = false;
    assert_eq!(judged(&a, &slower).verdict, Verdict::Worse);
    // A baseline that broke off lacks what B has, not the other way round.
    assert_eq!(judged(&b, &a).verdict, Verdict::Same);
}

#[test]
fn what_a_has_and_b_lacks_is_not_the_same() {
    let a = steady(&[("fanq", 1.0), ("single", 3.0)]);
    let without = |change: &dyn Fn(&mut Document)| {
        let (mut full, mut b) = (a.clone(), a.clone());
        full.trials.extend(tcp_trials("fanq", &[20.0; 20]));
        full.trials.extend(latency_trials("fanq", 1e3, &[50.0; 20]));
        full.findings.rates.push(rate("fanq", 5e5));
        b.clone_from(&full);
        change(&mut b);
        (judged(&full, &full), judged(&full, &b))
    };
    let purpose =
        |purpose: &'static str| move |b: &mut Document| b.trials.retain(|t| t.purpose != purpose);
    let target = |b: &mut Document| b.trials.retain(|t| t.target != "single");
    let all_void = |b: &mut Document| {
        for trial in b.trials.iter_mut().filter(|trial| trial.purpose == "tcp") {
            trial.void = Some("the host took it".to_owned());
        }
    };
    for (change, what) in [
        (&target as &dyn Fn(&mut Document), "single, CPU us/packet: B has no such trials"),
        (&purpose("tcp"), "fanq, TCP ms/Gbit: B has no such trials"),
        (&purpose("latency"), "fanq, median delay us at 1000/s: B has no such trials"),
        (&all_void, "fanq, TCP ms/Gbit: B has no such trials"),
        (&|b| b.findings.rates.clear(), "fanq, packets/s without loss: B has no such rate"),
    ] {
        let (whole, lacking) = without(change);
        assert_eq!(whole.verdict, Verdict::Same, "{whole:?}");
        assert_eq!(lacking.verdict, Verdict::NotComparable, "{what}");
        assert!(lacking.summary.starts_with(&format!("not comparable: {what}")), "{lacking:?}");
    }
}

#[test]
fn a_load_that_follows_from_rates_may_be_another() {
    let with = |pps: f64| {
        let mut document = steady(&[("fanq", 1.0)]);
        document.trials.extend(latency_trials("fanq", pps, &[50.0; 20]));
        document.findings.latencies.push(LatencyFinding {
            target: "fanq".to_owned(),
            offered_pps: pps,
            load: "half of the slowest loss-free rate".to_owned(),
            lost_share: 0.0,
            count: 0,
            percentiles: Vec::new(),
            median_us: Estimate { median: 50.0, low: 50.0, high: 50.0, n: 20 },
        });
        document
    };
    let comparison = judged(&with(5e4), &with(8e4));
    assert_eq!(comparison.verdict, Verdict::Same);
    let said = "this load follows from rates, which gave B 80000/s";
    assert!(comparison.notes.iter().any(|note| note.contains(said)), "{comparison:?}");
}

#[test]
fn losing_more_packets_is_worse() {
    let with = |shares: &[f64]| {
        let mut document = steady(&[("fanq", 1.0), ("single", 3.0)]);
        document.trials.extend(latency_trials("fanq", 1e3, &[50.0; 20]));
        lose(&mut document.trials, "fanq", shares);
        document
    };
    let none = with(&[0.0]);
    assert_eq!(judged(&none, &none).rows.len(), 3, "nothing lost, no row");
    let lossy = judged(&none, &with(&[0.2, 0.21]));
    assert_eq!(lossy.verdict, Verdict::Worse);
    let (cpu, delay) = ("% lost while CPU was measured", "% lost at 1000/s");
    let said = format!("worse: fanq, {cpu} 20.5 points more; fanq, {delay} 20.5 points more");
    assert_eq!(lossy.summary, said);
    assert!(show::table(&lossy).contains("+20.5 pt"), "{}", show::table(&lossy));
    assert_eq!(judged(&with(&[0.2, 0.21]), &none).verdict, Verdict::Better);
    // Below half a point, or below the threshold's part of what was lost before.
    assert_eq!(judged(&none, &with(&[0.002, 0.004])).verdict, Verdict::Same);
    assert_eq!(judged(&with(&[0.5, 0.51]), &with(&[0.51, 0.52])).verdict, Verdict::Same);
    assert_eq!(judged(&with(&[0.5, 0.51]), &with(&[0.55, 0.56])).verdict, Verdict::Worse);
}

#[test]
fn a_control_takes_its_own_loss_off() {
    let with = |fanq: f64, single: f64| {
        let mut document = steady(&[("fanq", 1.0), ("single", 3.0)]);
        lose(&mut document.trials, "fanq", &[fanq, fanq + 0.01]);
        lose(&mut document.trials, "single", &[single, single + 0.01]);
        document
    };
    let controlled = CompareArgs { control: Some("single".to_owned()), ..args() };
    let verdict = |b: &Document, args: &CompareArgs| compare(&with(0.1, 0.1), b, args, 499).verdict;
    assert_eq!(verdict(&with(0.3, 0.3), &args()), Verdict::Worse);
    assert_eq!(verdict(&with(0.3, 0.3), &controlled), Verdict::Same);
    assert_eq!(verdict(&with(0.3, 0.1), &controlled), Verdict::Worse);
}
