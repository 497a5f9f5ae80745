//! Goal: the page has every part that the document has data for, escapes what it is given, and stands any
//! document. Method: the made-up document, whole, bare, with odd names and figures, and very large.

use super::*;
use crate::report::chart::ChartName;
use crate::report::sample;
use clap::ValueEnum;

const NASTY: &str = "<script>alert(1)</script>\"&'\u{1}";

/// Marks of a chart's wide drawing.
fn marks(page: &str, chart: ChartName, class: &str) -> usize {
    let name = chart.as_str();
    let from = page.find(&format!("id=\"chart-{name}\"")).unwrap();
    let figure = &page[from..];
    let wide = &figure[..figure.find("<div class=\"narrow\"").unwrap()];
    wide.matches(&format!("class=\"{class}")).count()
}

#[test]
fn every_chart_has_as_many_marks_as_there_is_data() {
    let document = sample::document();
    let page = draw(&document);
    let findings = &document.findings;
    let points: usize = findings.curves.iter().map(|curve| curve.points.len()).sum();
    assert_eq!(marks(&page, ChartName::Loss, "mark"), points);
    assert_eq!(marks(&page, ChartName::Loss, "mark h"), findings.curves.len(), "late points");
    assert_eq!(marks(&page, ChartName::Goodput, "mark"), points);
    assert_eq!(marks(&page, ChartName::Goodput, "ideal"), 1);
    assert_eq!(marks(&page, ChartName::Cpu, "bar"), findings.cpu.len());
    assert_eq!(marks(&page, ChartName::Cpu, "whisker"), findings.cpu.len());
    assert_eq!(marks(&page, ChartName::Rates, "bar"), findings.rates.len());
    assert_eq!(marks(&page, ChartName::Tcp, "bar"), findings.tcp.len());
    assert_eq!(marks(&page, ChartName::Connections, "bar"), findings.connections.len());
    assert_eq!(marks(&page, ChartName::Queues, "part"), 5 * 4, "five programs, four queues");
    // Six targets; 140,000 packets in all have no 99.99th percentile with ten beyond, 2 million have.
    assert_eq!(marks(&page, ChartName::Delay, "mark"), 6 * (5 + 5));
    assert_eq!(marks(&page, ChartName::Delay, "panel"), 2);
}

#[test]
fn nothing_outside_the_page_is_named_and_nothing_runs() {
    let page = draw(&sample::document());
    for word in
        ["<script", "<link", "<img", "src=", "href=", "url(", "@import", " onload", "http://"]
    {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn names_from_the_document_are_escaped() {
    let mut document = sample::document();
    let nasty = || NASTY.to_owned();
    let findings = &mut document.findings;
    findings.cpu[0].target = nasty();
    findings.rates[0].target = nasty();
    findings.curves[0].target = nasty();
    findings.tcp[0].target = nasty();
    findings.latencies[0].load = nasty();
    document.targets[0].name = nasty();
    document.targets[0].command = nasty();
    document.targets[0].rules = vec![nasty()];
    document.trials[0].target = nasty();
    document.trials[0].void = Some(nasty());
    document.machine.kernel = nasty();
    document.machine.cpu = nasty();
    document.machine.governor = Some(nasty());
    document.machine.mitigations.insert(nasty(), nasty());
    document.machine.sysctls.insert(nasty(), nasty());
    document.run.command = nasty();
    document.run.began = nasty();
    document.run.suite = nasty();
    document.run.version = nasty();
    document.run.commit = nasty();
    document.lab.queues = nasty();
    let page = draw(&document);
    assert!(!page.contains("<script"));
    assert!(page.matches("&lt;script&gt;").count() >= 20);
    let lineup = Lineup::of(&document);
    for chart in Chart::all(&document, &lineup) {
        let svg = chart.stand_alone();
        assert!(!svg.contains("<script"), "{:?}", chart.name);
        assert!(!svg.contains('\u{1}'), "XML forbids it: {:?}", chart.name);
    }
}

#[test]
fn a_chart_without_data_is_left_out() {
    let mut document = sample::document();
    document.findings.tcp.clear();
    document.findings.curves.clear();
    document.trials.clear();
    let page = draw(&document);
    let there = |name: ChartName| page.contains(&format!("id=\"chart-{}\"", name.as_str()));
    let there: Vec<_> = ChartName::value_variants().iter().filter(|name| there(**name)).collect();
    assert_eq!(there, [&ChartName::Cpu, &ChartName::Rates, &ChartName::Connections]);
    assert!(page.contains("<td>–</td>"), "a missing TCP rate is a dash");
}

#[test]
fn an_empty_document_has_a_page_that_says_so() {
    let page = draw(&sample::empty());
    assert!(page.contains("Nothing to choose by."));
    assert!(page.contains("Incomplete."));
    assert!(!page.contains("<figure"));
    assert!(!page.contains("NaN"));
}

#[test]
fn what_nobody_may_overlook_stands_at_the_top() {
    let mut document = sample::document();
    assert!(!draw(&document).contains("role=\"alert\""));
    document.trials[3].account.unaccounted = -17;
    document.run.complete = false;
    let page = draw(&document);
    let (top, _) = page.split_once("class=\"answer\"").unwrap();
    assert!(top.contains("Incomplete."));
    assert!(top.contains("17 packets have no place"));
}

#[test]
fn a_huge_document_with_odd_figures_has_a_page() {
    let mut document = sample::document();
    let odd = [0.0, -1.0, 1e308, 5e-324, f64::MAX, 1e15, 3.0];
    for index in 0..60_usize {
        let value = odd[index % odd.len()];
        let name =
            format!("exec:./a-program-with-a-long-name --number {index} {}", "ü".repeat(200));
        let mut cpu = document.findings.cpu[0].clone();
        cpu.target.clone_from(&name);
        (cpu.us_per_packet.median, cpu.us_per_packet.high) = (value, value * 2.0);
        document.findings.cpu.push(cpu);
        let mut rate = document.findings.rates[0].clone();
        (rate.target, rate.pps, rate.upper_pps) = (name.clone(), value, None);
        document.findings.rates.push(rate);
        let mut curve = document.findings.curves[0].clone();
        curve.target.clone_from(&name);
        curve.points[0].offered_pps = value;
        curve.points[1].delivered_pps = value;
        curve.points[2].lost_share = value;
        document.findings.curves.push(curve);
        let mut trial = document.trials[index % 3].clone();
        (trial.target, trial.intended_pps) = (name, Some(value));
        trial.account.unaccounted = i64::MIN;
        for (share, queue) in trial.queues.iter_mut().zip(0..) {
            (share.queue, share.packets) = (u16::MAX - queue, u64::MAX);
        }
        for bucket in &mut trial.latency {
            (bucket.ns, bucket.count) = (u64::MAX - bucket.ns, u64::MAX);
        }
        document.trials.extend(std::iter::repeat_n(trial, 20));
    }
    let page = draw(&document);
    for word in ["NaN", "=\"inf", "=\"-inf", " inf"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    for chart in Chart::all(&document, &Lineup::of(&document)) {
        assert!(!chart.stand_alone().contains("NaN"), "{:?}", chart.name);
    }
}

#[test]
fn a_moment_reads_well_and_anything_else_stays() {
    assert_eq!(moment("2026-11-22T03:01:07Z"), "2026-11-22 03:01 UTC");
    assert_eq!(moment("2026-11-22T03:01:07+02:00"), "2026-11-22T03:01:07+02:00");
    assert_eq!(moment("ü"), "ü");
}
