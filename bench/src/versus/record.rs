//! The result: every trial, the medians and ratios drawn from them, and what they were measured on.
//!
//! Invariant: a ratio stands beside the goal that it is held against, met or not.

use serde::Serialize;

use super::COMPARISONS;
use super::lab::command;
use super::latency::LatencyTrial;
use super::target::Trial;

/// Two targets by name, and the ratio of their CPU per packet that is to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) candidate: &'static str,
    pub(crate) baseline: &'static str,
    pub(crate) at_most: f64,
}

/// All that is kept of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    schema: &'static str,
    date: String,
    kernel: String,
    cpu: String,
    cpus: usize,
    command: String,
    targets: Vec<TargetSummary>,
    ratios: Vec<Ratio>,
    low_load_median_us: Vec<(String, f64)>,
    trials: Vec<Trial>,
    low_load_trials: Vec<LatencyTrial>,
}

#[derive(Debug, Serialize)]
struct TargetSummary {
    target: String,
    cpu_us_per_packet: f64,
    cpu_us_per_packet_min: f64,
    cpu_us_per_packet_max: f64,
    lost_share: f64,
    packets_per_recv: f64,
    packets_per_send: f64,
    resident_mib_max: f64,
}

#[derive(Debug, Serialize)]
struct Ratio {
    what: String,
    value: f64,
    at_most: f64,
    met: bool,
}

impl Record {
    pub(crate) fn new(
        trials: Vec<Trial>,
        low_load_trials: Vec<LatencyTrial>,
    ) -> anyhow::Result<Self> {
        let names = unique(trials.iter().map(|trial| trial.target.as_str()));
        let targets: Vec<_> = names.iter().map(|name| TargetSummary::new(name, &trials)).collect();
        let cost = |name: &str| {
            targets
                .iter()
                .find(|target| target.target == name)
                .map_or(f64::NAN, |t| t.cpu_us_per_packet)
        };
        let mut ratios: Vec<_> = COMPARISONS
            .iter()
            .map(|c| {
                Ratio::new(
                    format!("CPU per packet, {} / {}", c.candidate, c.baseline),
                    cost(c.candidate) / cost(c.baseline),
                    c.at_most,
                )
            })
            .collect();
        let low_load_names = unique(low_load_trials.iter().map(|trial| trial.target.as_str()));
        let low_load_median_us: Vec<_> = low_load_names
            .into_iter()
            .map(|name| {
                let own = low_load_trials.iter().filter(|trial| trial.target == name);
                let middle = median(own.map(|trial| trial.p50_us).collect());
                (name, middle)
            })
            .collect();
        if let [(candidate, ours), (baseline, theirs)] = &low_load_median_us[..] {
            let what = format!("median delay at 1,000 packets/s, {candidate} / {baseline}");
            ratios.push(Ratio::new(what, ours / theirs, LOW_LOAD_AT_MOST));
        }
        Ok(Self {
            schema: "fanq.versus/1",
            date: command("date -u +%Y-%m-%dT%H:%MZ")?.trim().to_owned(),
            kernel: command("uname -srm")?.trim().to_owned(),
            cpu: cpu_model(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            command: crate::lab::typed_line(),
            targets,
            ratios,
            low_load_median_us,
            trials,
            low_load_trials,
        })
    }

    /// The medians and ratios, for people.
    pub(crate) fn print(&self) {
        println!("{} on {} x {}, {}", self.date, self.cpus, self.cpu, self.kernel);
        println!(
            "target          CPU us/packet (min to max)   lost   packets/recv  packets/send  MiB"
        );
        for t in &self.targets {
            println!(
                "{:<14} {:>8.3} ({:.3} to {:.3}) {:>8.1} % {:>10.1} {:>13.1} {:>8.1}",
                t.target,
                t.cpu_us_per_packet,
                t.cpu_us_per_packet_min,
                t.cpu_us_per_packet_max,
                t.lost_share * 100.0,
                t.packets_per_recv,
                t.packets_per_send,
                t.resident_mib_max,
            );
        }
        for (target, us) in &self.low_load_median_us {
            println!("{target}: median delay at 1,000 packets/s {us:.1} us");
        }
        for ratio in &self.ratios {
            let verdict = if ratio.met { "met" } else { "NOT met" };
            println!("{}: {:.3}, at most {}: {verdict}", ratio.what, ratio.value, ratio.at_most);
        }
    }
}

impl Ratio {
    fn new(what: String, value: f64, at_most: f64) -> Self {
        Self { what, value, at_most, met: value <= at_most }
    }
}

impl TargetSummary {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn new(name: &str, trials: &[Trial]) -> Self {
        let own: Vec<_> = trials.iter().filter(|trial| trial.target == name).collect();
        let costs: Vec<_> = own.iter().map(|trial| trial.cpu_us_per_packet()).collect();
        let middle =
            |value: fn(&Trial) -> f64| median(own.iter().map(|trial| value(trial)).collect());
        Self {
            target: name.to_owned(),
            cpu_us_per_packet_min: costs.iter().copied().fold(f64::INFINITY, f64::min),
            cpu_us_per_packet_max: costs.iter().copied().fold(0.0, f64::max),
            cpu_us_per_packet: median(costs),
            lost_share: middle(|trial| trial.lost as f64 / trial.offered.max(1) as f64),
            packets_per_recv: middle(|trial| {
                trial.answered as f64 / trial.recv_calls.max(1) as f64
            }),
            packets_per_send: middle(|trial| {
                trial.answered as f64 / trial.send_calls.max(1) as f64
            }),
            resident_mib_max: middle(|trial| trial.resident_kib_max as f64 / 1024.0),
        }
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// In order of first appearance.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !seen.iter().any(|known| known == name) {
            seen.push(name.to_owned());
        }
    }
    seen
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.trim().to_owned())
}

const LOW_LOAD_AT_MOST: f64 = 1.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ratios_are_held_against_their_goals() {
        let trial = |target: &str, cpu_us| Trial {
            target: target.to_owned(),
            offered: 100,
            answered: 100,
            accepted: 100,
            let_through: 100,
            lost: 0,
            recv_calls: 2,
            send_calls: 2,
            cpu_us,
            resident_kib_max: 2048,
        };
        let trials = vec![
            trial("fanq accept", 110.0),
            trial("batch", 100.0),
            trial("fanq drop:10", 150.0),
            trial("multi", 200.0),
            trial("single", 400.0),
        ];
        let record = Record::new(trials, Vec::new()).unwrap();
        let met: Vec<_> = record.ratios.iter().map(|ratio| ratio.met).collect();
        assert_eq!(met, [false, true, true, true]);
        assert!((record.targets[0].packets_per_recv - 50.0).abs() < 1e-9);
    }
}
