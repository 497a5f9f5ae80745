//! One-way delay at given rates, targets in turn.

use anyhow::ensure;

use super::session::Session;
use super::turns::turns;
use crate::result::{LatencyFinding, Trial};
use crate::statistics::{Delays, SEED, estimate, median};
use crate::target::Target;
use crate::trial::{Length, Request};

/// One load.
#[derive(Debug, Clone)]
pub(crate) struct DelayQuestion {
    pub(crate) pps: f64,
    /// How it was chosen.
    pub(crate) load: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

/// Measures these targets at one load.
pub(crate) fn measure(
    session: &mut Session,
    targets: &[Target],
    question: &DelayQuestion,
) -> anyhow::Result<()> {
    ensure!(
        session.bench.capture.is_none(),
        "the packets of a capture carry no times, so their delays are not known; take --load xdp or udp"
    );
    let mut trials: Vec<Vec<Trial>> = vec![Vec::new(); targets.len()];
    for (round, index) in turns(question.rounds, targets.len()) {
        let target = &targets[index];
        let (this, all) = (round + 1, question.rounds);
        session.say(&format!("delay at {}, round {this} of {all}: {}", question.load, target.name));
        let request = Request {
            purpose: "latency",
            target,
            round,
            pps: Some(question.pps),
            length: Length::Seconds(question.seconds),
            delays: true,
            on_queue_cpus: false,
        };
        trials[index].push(session.trial(&request)?);
    }
    for (target, own) in targets.iter().zip(&trials) {
        let valid: Vec<_> = own.iter().filter(|trial| trial.void.is_none()).collect();
        let mut merged = Delays::new();
        let mut medians = Vec::new();
        for trial in &valid {
            let delays = Delays::from_buckets(&trial.latency);
            medians.extend(delays.percentile(50.0));
            merged.merge(&delays);
        }
        let Some(median_us) = estimate(&medians, SEED) else {
            session.say(&format!("no valid trial of {} at {}", target.name, question.load));
            continue;
        };
        let lost: Vec<_> = valid.iter().map(|trial| trial.account.lost_share()).collect();
        session.document.findings.latencies.push(LatencyFinding {
            target: target.name.clone(),
            offered_pps: question.pps,
            load: question.load.clone(),
            lost_share: median(&lost).unwrap_or(0.0),
            count: merged.count(),
            percentiles: merged.percentiles(),
            median_us,
        });
    }
    session.save()
}
