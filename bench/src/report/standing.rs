//! Who is first in what, and who is level with the first.
//!
//! Invariant: only programs are ranked; nobody is first by less than the intervals, or the noise floor, allow to
//! tell. A target that lost packets at the load where delays are compared is not ranked there.

use super::histogram::{Measured, measured};
use super::lineup::Lineup;
use crate::result::{CpuFinding, Document, Estimate, LatencyFinding, Limit, TcpFinding};

/// The share that may be lost where delays are compared: who drops packets has fewer that wait.
const LOST_MAX: f64 = 0.005;
/// Rates no further apart than this are the same load.
const SAME_LOAD: f64 = 1.1;

/// One target's figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: f64,
    /// Where the true figure may be.
    pub(crate) ends: (f64, f64),
    /// Whether the true figure may be far better: the measurement ended before the target did.
    pub(crate) at_least: bool,
    /// First, or not to be told from the first.
    pub(crate) leads: bool,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// The order in one question, best first; empty if nobody has a figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing<'a> {
    pub(crate) better: Better,
    pub(crate) entries: Vec<Entry<'a>>,
}

/// All questions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standings<'a> {
    pub(crate) rate: Standing<'a>,
    pub(crate) cpu: Standing<'a>,
    pub(crate) calls: Standing<'a>,
    /// The load at which delays are compared.
    pub(crate) load: Option<Load<'a>>,
    pub(crate) median: Standing<'a>,
    pub(crate) p99: Standing<'a>,
    pub(crate) p999: Standing<'a>,
    pub(crate) tcp: Standing<'a>,
    /// Whether TCP was measured with GSO.
    pub(crate) gso: bool,
}

/// A load that targets have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load<'a> {
    pub(crate) name: &'a str,
    pub(crate) pps: f64,
}

impl<'a> Standing<'a> {
    fn new(better: Better, entries: Vec<Entry<'a>>) -> Self {
        Self::by(better, entries, |best, other| match better {
            Better::More => other.ends.1 >= best.ends.0,
            Better::Less => other.ends.0 <= best.ends.1,
        })
    }

    /// `level` says whether the second cannot be told from the first.
    fn by(
        better: Better,
        mut entries: Vec<Entry<'a>>,
        level: impl Fn(&Entry<'a>, &Entry<'a>) -> bool,
    ) -> Self {
        entries.retain(|entry| entry.value.is_finite() && entry.value >= 0.0);
        entries.sort_by(|a, b| match better {
            Better::More => b.value.total_cmp(&a.value),
            Better::Less => a.value.total_cmp(&b.value),
        });
        if let Some(best) = entries.first().copied() {
            for (index, entry) in entries.iter_mut().enumerate() {
                entry.leads = index == 0 || level(&best, entry);
            }
        }
        Self { better, entries }
    }

    pub(crate) fn leaders(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(|entry| entry.leads)
    }

    pub(crate) fn leads(&self, name: &str) -> bool {
        self.leaders().any(|entry| entry.name == name)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl<'a> Standings<'a> {
    pub(crate) fn of(document: &'a Document, lineup: &Lineup<'a>) -> Self {
        let measured = measured(document);
        let load = common_load(document, lineup);
        let delay = |percent| delay(document, lineup, load, &measured, percent);
        let gso = document.findings.tcp.iter().any(|finding| finding.gso);
        Self {
            rate: rate(document, lineup),
            cpu: cpu(document, lineup),
            calls: calls(document, lineup),
            load,
            median: delay(50.0),
            p99: delay(99.0),
            p999: delay(99.9),
            tcp: tcp(document, lineup, gso),
            gso,
        }
    }
}

fn entry(name: &str, value: f64, ends: (f64, f64)) -> Entry<'_> {
    Entry { name, value, ends, at_least: false, leads: false }
}

fn estimated<'a>(name: &'a str, estimate: &Estimate) -> Entry<'a> {
    entry(name, estimate.median, (estimate.low, estimate.high))
}

fn rate<'a>(document: &'a Document, lineup: &Lineup<'a>) -> Standing<'a> {
    let loss_free = || document.findings.rates.iter().filter(|f| f.loss_allowed <= 0.0);
    let pps = |name: &str| loss_free().find(|f| f.target == name).map(|f| f.pps);
    // By how many times a target has differed from itself.
    let floor = lineup
        .pairs()
        .filter_map(|(name, again)| Some(pps(again)? / pps(name)?))
        .map(|ratio| ratio.max(1.0 / ratio))
        .filter(|times| times.is_finite())
        .fold(1.0, f64::max);
    let entries = loss_free().filter(|f| lineup.is_program(&f.target)).map(|f| {
        // What the generator could not make says nothing of what the target bears.
        let by_loss = f.limited_by == Limit::Loss;
        let top = f.upper_pps.filter(|_| by_loss).unwrap_or(f64::INFINITY);
        Entry { at_least: !by_loss, ..entry(&f.target, f.pps, (f.pps, top)) }
    });
    Standing::by(Better::More, entries.collect(), |best, other| {
        other.ends.1 >= best.ends.0 || other.value * floor >= best.value
    })
}

/// Level by the ratio paired by round, where one of the two is the first target; else by their intervals. Never
/// apart by less than a target is from itself.
fn cpu<'a>(document: &'a Document, lineup: &Lineup<'a>) -> Standing<'a> {
    let findings = &document.findings.cpu;
    let entries = findings.iter().filter(|f| lineup.is_program(&f.target));
    let entries = entries.map(|f| estimated(&f.target, &f.us_per_packet)).collect();
    let floor = lineup
        .pairs()
        .filter_map(|(name, again)| Some(cost_of(findings, again)? / cost_of(findings, name)?))
        .fold(0.0, |floor: f64, ratio| floor.max((ratio - 1.0).abs()));
    let first = document.targets.first().map(|target| target.name.as_str());
    let ratio_of = |name: &str| findings.iter().find(|f| f.target == name)?.ratio_to_first;
    Standing::by(Better::Less, entries, |best, other| {
        let paired = match first {
            Some(first) if first == best.name => ratio_of(other.name),
            Some(first) if first == other.name => ratio_of(best.name),
            _ => None,
        };
        let within = match paired {
            Some(ratio) if ratio.n > 1 => ratio.low <= 1.0 && ratio.high >= 1.0,
            _ => other.ends.0 <= best.ends.1,
        };
        within || other.value <= best.value * (1.0 + floor)
    })
}

fn cost_of(findings: &[CpuFinding], name: &str) -> Option<f64> {
    let found = findings.iter().find(|finding| finding.target == name)?;
    Some(found.us_per_packet.median)
}

fn calls<'a>(document: &'a Document, lineup: &Lineup<'a>) -> Standing<'a> {
    let known = document.findings.cpu.iter().filter(|f| lineup.is_program(&f.target));
    let entries = known.filter_map(|f| {
        let calls = f.system_calls_per_packet?;
        // To the digits that are shown.
        Some(entry(&f.target, calls, (calls * 0.995, calls * 1.005)))
    });
    Standing::new(Better::Less, entries.collect())
}

/// The load that most programs were measured at, at about the same rate; the highest of several such.
fn common_load<'a>(document: &'a Document, lineup: &Lineup<'a>) -> Option<Load<'a>> {
    let findings = || document.findings.latencies.iter().filter(|f| lineup.is_program(&f.target));
    let loads = findings().map(|finding| {
        let same = findings().filter(|other| other.load == finding.load);
        let rates: Vec<_> = same.map(|other| other.offered_pps).collect();
        let low = rates.iter().copied().fold(f64::MAX, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        (high <= low * SAME_LOAD, rates.len(), Load { name: &finding.load, pps: low })
    });
    let best = loads
        .max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| a.2.pps.total_cmp(&b.2.pps)))?;
    best.0.then_some(best.2)
}

/// The findings at the load where delays are compared.
pub(crate) fn at_load<'a>(
    document: &'a Document,
    load: Option<Load<'a>>,
) -> impl Iterator<Item = &'a LatencyFinding> {
    let latencies = document.findings.latencies.iter();
    latencies.filter(move |finding| load.is_some_and(|load| finding.load == load.name))
}

pub(crate) fn percentile_of(finding: &LatencyFinding, percent: f64) -> Option<f64> {
    let found = finding.percentiles.iter().find(|p| (p.percent - percent).abs() < 1e-6)?;
    Some(found.us)
}

fn delay<'a>(
    document: &'a Document,
    lineup: &Lineup<'a>,
    load: Option<Load<'a>>,
    measured: &[Measured<'_>],
    percent: f64,
) -> Standing<'a> {
    let ranked = at_load(document, load)
        .filter(|f| lineup.is_program(&f.target) && f.lost_share <= LOST_MAX);
    let entries = ranked.filter_map(|finding| {
        let us = percentile_of(finding, percent)?;
        let own = measured.iter().find(|m| m.target == finding.target && m.load == finding.load);
        let (low, high) = own.and_then(|own| own.interval_us(percent)).unwrap_or((us, us));
        // The merged figure may lie beside the interval of the trials' median.
        Some(entry(&finding.target, us, (low.min(us), high.max(us))))
    });
    Standing::new(Better::Less, entries.collect())
}

fn tcp<'a>(document: &'a Document, lineup: &Lineup<'a>, gso: bool) -> Standing<'a> {
    let asked = |f: &&TcpFinding| f.gso == gso && lineup.is_program(&f.target);
    let entries = document.findings.tcp.iter().filter(asked);
    let entries = entries.map(|f| estimated(&f.target, &f.gbit_per_s)).collect();
    Standing::new(Better::More, entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn leaders<'a>(standing: &Standing<'a>) -> Vec<&'a str> {
        standing.leaders().map(|entry| entry.name).collect()
    }

    #[test]
    fn the_first_leads_and_who_cannot_be_told_from_it() {
        let entries = vec![
            entry("a", 10.0, (9.0, 11.0)),
            entry("b", 12.0, (10.5, 13.0)),
            entry("c", 20.0, (19.0, 21.0)),
            entry("broken", f64::NAN, (0.0, 0.0)),
        ];
        let less = Standing::new(Better::Less, entries.clone());
        assert_eq!(leaders(&less), ["a", "b"]);
        assert_eq!(less.entries.len(), 3);
        assert_eq!(leaders(&Standing::new(Better::More, entries)), ["c"]);
    }

    #[test]
    fn a_rate_is_level_up_to_the_lowest_not_borne() {
        let mut document = sample::document();
        let rates = &mut document.findings.rates;
        rates.retain(|finding| finding.loss_allowed <= 0.0);
        let best = rates.iter().find(|f| f.target == "fanq").unwrap().pps;
        rates.iter_mut().find(|f| f.target == "nfq").unwrap().upper_pps = Some(best);
        let standing = rate(&document, &Lineup::of(&document));
        assert_eq!(leaders(&standing), ["fanq", "nfq"]);
    }

    #[test]
    fn a_rate_that_the_generator_ended_is_level_with_any_above_it() {
        let mut document = sample::document();
        let nfq = |f: &&mut crate::result::RateFinding| f.target == "nfq" && f.loss_allowed <= 0.0;
        let finding = document.findings.rates.iter_mut().find(nfq).unwrap();
        (finding.limited_by, finding.upper_pps) = (Limit::Generator, Some(finding.pps * 1.01));
        let standing = rate(&document, &Lineup::of(&document));
        assert_eq!(leaders(&standing), ["fanq", "nfq"]);
    }

    #[test]
    fn a_rate_is_level_within_what_a_target_differs_from_itself() {
        let mut document = sample::document();
        let lead = |document: &Document| {
            let lineup = Lineup::of(document);
            rate(document, &lineup).leaders().map(|e| e.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lead(&document), ["fanq"]);
        for finding in &mut document.findings.rates {
            if finding.target == "fanq (again)" {
                finding.pps /= 100.0;
            }
        }
        assert_eq!(
            lead(&document).len(),
            4,
            "a target a hundred times itself: nothing can be told"
        );
    }

    #[test]
    fn cpu_is_level_by_the_paired_ratio_and_within_the_noise_floor() {
        let mut document = sample::document();
        let lead = |document: &Document| {
            let lineup = Lineup::of(document);
            cpu(document, &lineup).leaders().map(|e| e.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lead(&document), ["fanq"]);
        let nfq = document.findings.cpu.iter_mut().find(|f| f.target == "nfq").unwrap();
        let ratio = nfq.ratio_to_first.as_mut().unwrap();
        ratio.low = 0.9;
        assert_eq!(lead(&document), ["fanq", "nfq"]);

        let mut document = sample::document();
        let again = document.findings.cpu.iter_mut().find(|f| f.target == "fanq (again)");
        again.unwrap().us_per_packet.median *= 10.0;
        assert_eq!(lead(&document).len(), 4, "a target ten times itself: nothing can be told");
    }

    #[test]
    fn delays_are_compared_at_the_highest_load_that_all_have() {
        let document = sample::document();
        let lineup = Lineup::of(&document);
        let load = common_load(&document, &lineup).unwrap();
        assert_eq!(load.name, "50 % of the slowest loss-free rate");
        let mut without = document.clone();
        without.findings.latencies.retain(|f| f.target == "fanq" || f.load == "1000/s");
        assert_eq!(common_load(&without, &lineup).unwrap().name, "1000/s");
    }

    #[test]
    fn who_lost_packets_is_not_first_in_delay() {
        let mut document = sample::document();
        for finding in &mut document.findings.latencies {
            if finding.target == "fanq" {
                finding.lost_share = 0.2;
            }
        }
        let lineup = Lineup::of(&document);
        let standings = Standings::of(&document, &lineup);
        assert!(!standings.p99.leads("fanq") && standings.p99.entry("fanq").is_none());
        assert!(!standings.p99.entries.is_empty());
    }
}
