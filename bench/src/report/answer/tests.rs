//! Goal: the words say what the figures say. Method: the made-up document, changed in one place at a time.

use super::*;
use crate::report::sample;
use crate::result::Limit;

fn answer(document: &Document) -> Answer {
    let lineup = Lineup::of(document);
    Answer::of(document, &lineup, &Standings::of(document, &lineup))
}

fn set_cpu(document: &mut Document, name: &str, us: f64) {
    let finding = document.findings.cpu.iter_mut().find(|f| f.target == name).unwrap();
    let cost = &mut finding.us_per_packet;
    (cost.median, cost.low, cost.high) = (us, us * 0.99, us * 1.01);
    finding.ratio_to_first = None;
}

#[test]
fn one_that_is_first_in_everything_is_to_be_chosen() {
    let answer = answer(&sample::document());
    assert_eq!(answer.headline, "Choose fanq.");
    assert_eq!(answer.because, "It is first in rate, CPU time and delay, beyond the noise.");
    let who: Vec<_> = answer.cards.iter().map(|card| card.who.as_str()).collect();
    assert_eq!(who, ["fanq", "fanq", "fanq"]);
    assert_eq!(answer.cards[1].remarks, ["The next, nfq, takes 1.17 times as much (0.983)."]);
}

#[test]
fn without_a_target_measured_twice_the_noise_is_not_known() {
    let mut document = sample::document();
    let again = |name: &str| name.ends_with("(again)");
    document.targets.retain(|target| !again(&target.name));
    document.trials.retain(|trial| !again(&trial.target));
    let findings = &mut document.findings;
    findings.cpu.retain(|finding| !again(&finding.target));
    findings.rates.retain(|finding| !again(&finding.target));
    findings.curves.retain(|finding| !again(&finding.target));
    findings.latencies.retain(|finding| !again(&finding.target));
    findings.tcp.retain(|finding| !again(&finding.target));
    let answer = answer(&document);
    assert_eq!(answer.headline, "Choose fanq.");
    assert!(answer.because.contains("beyond the intervals"), "{}", answer.because);
    assert!(answer.because.ends_with("the noise is not known."), "{}", answer.because);
}

#[test]
fn where_the_first_target_is_not_first_it_is_said() {
    let mut document = sample::document();
    set_cpu(&mut document, "nfq", 0.42);
    let answer = answer(&document);
    assert_eq!(answer.headline, "Choose by what matters to you.");
    assert_eq!(answer.cards[1].who, "nfq");
    assert_eq!(
        answer.cards[1].remarks.last().unwrap(),
        "fanq is not first here: 0.840 µs, 2.00 times the least."
    );
}

#[test]
fn ties_are_called_level() {
    let mut document = sample::document();
    set_cpu(&mut document, "nfq", 0.843);
    let one = answer(&document);
    assert_eq!(one.headline, "Choose fanq.");
    assert!(one.because.contains("level with the first"), "{}", one.because);
    assert_eq!(one.cards[1].who, "fanq and nfq");
    assert_eq!(one.cards[1].remarks, ["Level within the intervals: 0.840 and 0.843."]);

    document.findings.rates.clear();
    document.findings.latencies.clear();
    assert_eq!(answer(&document).headline, "Choose fanq or nfq.");
}

#[test]
fn a_rate_that_the_generator_limited_is_at_least_that() {
    let mut document = sample::document();
    for finding in &mut document.findings.rates {
        if finding.target == "fanq" {
            (finding.limited_by, finding.upper_pps) = (Limit::Generator, None);
        }
    }
    assert!(answer(&document).cards[0].figure.starts_with("≥ "));
}

#[test]
fn who_lost_packets_where_delays_are_compared_is_named() {
    let mut document = sample::document();
    for finding in &mut document.findings.latencies {
        if finding.target == "fanq" {
            finding.lost_share = 0.2;
        }
    }
    let remarks = &answer(&document).cards[2].remarks;
    assert_eq!(remarks.last().unwrap(), "fanq lost 20\u{202f}% there: not ranked.");
}

#[test]
fn without_findings_or_others_nothing_is_chosen() {
    assert_eq!(answer(&sample::empty()).headline, "Nothing to choose by.");
    let mut document = sample::document();
    document.targets.truncate(1);
    document.trials.clear();
    let findings = &mut document.findings;
    findings.cpu.truncate(1);
    findings.rates.clear();
    findings.curves.clear();
    findings.latencies.clear();
    findings.tcp.clear();
    assert_eq!(answer(&document).headline, "fanq was measured alone.");
}

#[test]
fn names_in_a_sentence() {
    assert_eq!(join(&["a"], "and"), "a");
    assert_eq!(join(&["a", "b"], "or"), "a or b");
    assert_eq!(join(&["a", "b", "c", "d"], "and"), "a, b, c and d");
    assert_eq!(join(&["a", "b", "c", "d", "e"], "and"), "a, b, c and 2 more");
}
