//! How far the figures can be trusted: trials, the account, the machine's and the generator's behaviour, the noise.
//!
//! Invariant: every trial is counted, void ones too; a packet without a place is shouted about.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::lineup::Lineup;
use super::number::{MISSING, count, percent, three};
use super::table::Table;
use crate::result::{Account, Document, Estimate, Trial};

/// Fewer trials than this behind an interval are few.
const TRIALS_FEW: usize = 5;

/// Sums over trials; wide, so that no document makes them wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    offered: i128,
    delivered: i128,
    policy_drops: i128,
    shed: i128,
    queue_drops: i128,
    socket_drops: i128,
    flushed: i128,
    device_drops: i128,
    /// Not forwarded, or a fragment without the rest.
    unusable: i128,
    sink_drops: i128,
    /// Without signs, so that one trial does not hide what another lacks.
    unaccounted: i128,
    duplicates: i128,
    reordered: i128,
}

/// Void trials with the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Voids {
    /// The first of them, word by word.
    example: String,
    trials: usize,
    targets: Vec<String>,
}

/// Packets without a place, over all trials.
pub(crate) fn unaccounted(document: &Document) -> i128 {
    document.trials.iter().map(|trial| i128::from(trial.account.unaccounted.unsigned_abs())).sum()
}

pub(crate) fn draw(document: &Document, lineup: &Lineup<'_>) -> Markup {
    let trials = &document.trials;
    let voids = voids(trials);
    html! {
        (facts(document, lineup, voids.iter().map(|void| void.trials).sum()))
        @if !voids.is_empty() { h3 { "Void trials" } (voids_list(&voids)) }
        @if !trials.is_empty() {
            h3 { "Where the packets went" }
            p.about { "Sums over all trials, void ones too." }
            (account_table(trials, lineup).draw())
        }
    }
}

fn facts(document: &Document, lineup: &Lineup<'_>, void: usize) -> Markup {
    let trials = &document.trials;
    let lost = unaccounted(document);
    let steal = trials.iter().map(|trial| trial.stolen_share).fold(0.0, f64::max);
    html! {
        dl.facts {
            dt { "Trials" }
            dd { (trials.len()) ", " (if void == 0 { "none".to_owned() } else { void.to_string() }) " void" }
            dt { "Account" }
            dd {
                @if trials.is_empty() { (MISSING) }
                @else if lost == 0 { "every packet has its place: 0 unaccounted" }
                @else { strong.alarm { (count(lost)) " packets unaccounted" } }
            }
            dt { "CPU time taken by the host" }
            dd { (percent(document.machine.stolen_share)) ", at most " (percent(steal)) " in one trial" }
            dt { "Generator's lateness, 99th percentile" }
            dd { (lateness(trials)) }
            dt { "Noise floor" }
            dd { (noise_floor(document, lineup)) }
            @if let Some(n) = fewest(document).filter(|n| *n < TRIALS_FEW) {
                dt { "Few trials" }
                dd { "some intervals stand on " (n) @if n == 1 { " trial" } @else { " trials" } " only" }
            }
        }
    }
}

fn lateness(trials: &[Trial]) -> String {
    let valid = trials.iter().filter(|trial| trial.void.is_none());
    let mut late: Vec<_> = valid.filter_map(|trial| trial.lateness_us_p99).collect();
    late.sort_by(f64::total_cmp);
    let Some(greatest) = late.last() else { return MISSING.to_owned() };
    let middle = late[late.len() / 2];
    format!(
        "{} µs in the middle trial, {} µs in the worst that counts",
        three(middle),
        three(*greatest)
    )
}

/// By how much a target differs from itself.
fn noise_floor(document: &Document, lineup: &Lineup<'_>) -> Markup {
    let pairs: Vec<_> = lineup.pairs().collect();
    html! {
        @if pairs.is_empty() {
            "not known: no target ran twice in this comparison"
        }
        @for (name, again) in pairs {
            @let ratios = ratios(document, name, again);
            p {
                (name) " against itself: "
                @if ratios.is_empty() { (MISSING) }
                @for (index, (what, ratio, interval)) in ratios.iter().enumerate() {
                    @if index > 0 { ", " }
                    (what) " × " (three(*ratio))
                    @if let Some(e) = interval { " (" (three(e.low)) " to " (three(e.high)) ")" }
                }
            }
        }
    }
}

fn ratios(
    document: &Document,
    name: &str,
    again: &str,
) -> Vec<(&'static str, f64, Option<Estimate>)> {
    let findings = &document.findings;
    let cpu = |name: &str| findings.cpu.iter().find(|finding| finding.target == name);
    let first = document.targets.first().is_some_and(|target| target.name == name);
    let paired = cpu(again).and_then(|finding| finding.ratio_to_first).filter(|_| first);
    let cost = |name: &str| cpu(name).map(|finding| finding.us_per_packet.median);
    let rate = |name: &str| {
        let mut rates = findings.rates.iter();
        rates.find(|f| f.target == name && f.loss_allowed <= 0.0).map(|finding| finding.pps)
    };
    let delay = |name: &str| {
        findings.latencies.iter().find(|f| f.target == name).map(|finding| finding.median_us.median)
    };
    let ratio = |second: Option<f64>, first: Option<f64>| Some(second? / first?);
    let cpu_ratio = paired.map(|estimate| estimate.median).or(ratio(cost(again), cost(name)));
    let all = [
        ("CPU time", cpu_ratio, paired),
        ("loss-free rate", ratio(rate(again), rate(name)), None),
        ("median delay", ratio(delay(again), delay(name)), None),
    ];
    all.into_iter().filter_map(|(what, ratio, ends)| Some((what, ratio?, ends))).collect()
}

/// The fewest trials behind an interval.
fn fewest(document: &Document) -> Option<usize> {
    let findings = &document.findings;
    let cpu = findings.cpu.iter().map(|finding| finding.us_per_packet.n);
    let delays = findings.latencies.iter().map(|finding| finding.median_us.n);
    let tcp = findings.tcp.iter().map(|finding| finding.gbit_per_s.n);
    cpu.chain(delays).chain(tcp).min()
}

/// Grouped by the reason's words; numbers in it may differ.
fn voids(trials: &[Trial]) -> Vec<Voids> {
    let mut groups: BTreeMap<String, Voids> = BTreeMap::new();
    for trial in trials {
        let Some(reason) = &trial.void else { continue };
        let words = reason.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
        let group = groups.entry(words).or_insert_with(|| Voids {
            example: reason.clone(),
            trials: 0,
            targets: Vec::new(),
        });
        group.trials += 1;
        if !group.targets.contains(&trial.target) {
            group.targets.push(trial.target.clone());
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.trials));
    groups
}

fn voids_list(voids: &[Voids]) -> Markup {
    html! {
        dl.facts {
            @for group in voids {
                dt { (group.trials) @if group.trials == 1 { " trial" } @else { " trials" } }
                dd {
                    (group.example)
                    @if group.trials > 1 { " (the first of them)" }
                    small { (group.targets.join(", ")) }
                }
            }
        }
    }
}

fn account_table(trials: &[Trial], lineup: &Lineup<'_>) -> Table {
    let mut table = Table::new([
        "Target",
        "Offered",
        "Delivered",
        "Dropped by verdict",
        "Shed",
        "Queue full",
        "Socket full",
        "Flushed",
        "Devices",
        "Unrouted, incomplete",
        "Sink",
        "Unaccounted",
        "Twice",
        "Reordered",
    ]);
    let mut all = Sums::default();
    for member in lineup.members() {
        let mut sums = Sums::default();
        for trial in trials.iter().filter(|trial| trial.target == member.name) {
            sums.add(&trial.account);
            all.add(&trial.account);
        }
        if sums != Sums::default() {
            table.rows.push(sums.row(member.name));
        }
    }
    table.rows.push(all.row("All"));
    table
}

impl Sums {
    fn add(&mut self, account: &Account) {
        self.offered += i128::from(account.offered);
        self.delivered += i128::from(account.delivered);
        self.policy_drops += i128::from(account.policy_drops);
        self.shed += i128::from(account.shed);
        self.queue_drops += i128::from(account.queue_drops);
        self.socket_drops += i128::from(account.socket_drops);
        self.flushed += i128::from(account.flushed);
        self.device_drops += i128::from(account.device_drops);
        self.unusable += i128::from(account.unrouted) + i128::from(account.incomplete);
        self.sink_drops += i128::from(account.sink_drops);
        self.unaccounted += i128::from(account.unaccounted.unsigned_abs());
        self.duplicates += i128::from(account.duplicates);
        self.reordered += i128::from(account.reordered);
    }

    fn row(&self, name: &str) -> Vec<String> {
        let figures = [
            self.offered,
            self.delivered,
            self.policy_drops,
            self.shed,
            self.queue_drops,
            self.socket_drops,
            self.flushed,
            self.device_drops,
            self.unusable,
            self.sink_drops,
            self.unaccounted,
            self.duplicates,
            self.reordered,
        ];
        std::iter::once(name.to_owned()).chain(figures.map(count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(document: &Document) -> String {
        draw(document, &Lineup::of(document)).into_string()
    }

    #[test]
    fn what_one_trial_lacks_another_does_not_make_up_for() {
        let mut document = sample::document();
        assert_eq!(unaccounted(&document), 0);
        assert!(text(&document).contains("0 unaccounted"));
        document.trials[0].account.unaccounted = 7;
        document.trials[1].account.unaccounted = -7;
        assert_eq!(unaccounted(&document), 14);
        assert!(text(&document).contains("14 packets unaccounted"));
    }

    #[test]
    fn the_greatest_counts_do_not_wrap() {
        let mut document = sample::document();
        for trial in &mut document.trials {
            (trial.account.offered, trial.account.unaccounted) = (u64::MAX, i64::MIN);
        }
        let trials = i128::try_from(document.trials.len()).unwrap();
        assert_eq!(unaccounted(&document), trials << 63);
        assert!(text(&document).contains(&count(i128::from(u64::MAX) * trials)));
    }

    #[test]
    fn void_trials_are_grouped_by_reason() {
        let mut document = sample::document();
        for trial in &mut document.trials {
            trial.void = None;
        }
        for (index, reason) in ["late: 250.5 us", "late: 301 us", "steal 3 %"].iter().enumerate() {
            document.trials[index].void = Some((*reason).to_owned());
        }
        let groups = voids(&document.trials);
        let shown: Vec<_> = groups.iter().map(|g| (g.example.as_str(), g.trials)).collect();
        assert_eq!(shown, [("late: 250.5 us", 2), ("steal 3 %", 1)]);
        assert!(text(&document).contains(", 3 void"));
    }

    #[test]
    fn an_a_a_pair_states_the_noise_floor() {
        let mut document = sample::document();
        assert!(text(&document).contains("fanq against itself: CPU time × 1.01 (0.990 to 1.03)"));
        for cpu in &mut document.findings.cpu {
            cpu.ratio_to_first = None;
        }
        let ratio = ratios(&document, "fanq", "fanq (again)")[0].1;
        assert!((ratio - 1.01).abs() < 1e-9, "{ratio}");
        assert!(text(&sample::empty()).contains("not known"));
    }
}
