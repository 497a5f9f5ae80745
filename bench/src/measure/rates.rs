//! The highest rate that a target bears, and its losses below and beyond.
//!
//! The search needs an outcome for each rate that it asks for. Where a rate's trials are void again and again, the last
//! one is its outcome as it is: the generator's fault where it was late, else with what was lost. A void point of a
//! curve is drawn as such.

use super::session::Session;
use crate::result::{CurveFinding, CurvePoint, Trial};
use crate::search::{Outcome, Plan, Step, Stepwise};
use crate::target::Target;
use crate::trial::{Length, Request};

/// Searches the loss-free rate of every target, and that with 0.5 % loss. The targets' trials take turns, so that a
/// minute in which the machine is slow is one for all of them.
pub(crate) fn search(session: &mut Session, plan: &Plan) -> anyhow::Result<()> {
    let targets = session.targets.clone();
    let mut found: Vec<_> = targets.iter().map(|_| Vec::new()).collect();
    let mut open: Vec<_> = targets
        .iter()
        .enumerate()
        .map(|(n, target)| (n, Stepwise::new(&target.name, plan)))
        .collect();
    while !open.is_empty() {
        let mut still_open = Vec::new();
        for (number, mut search) in open {
            match search.next()? {
                Step::Trial { pps } => {
                    let round = search.trials() + 1;
                    search.take(at_rate(session, &targets[number], pps, round, plan)?);
                    still_open.push((number, search));
                }
                Step::Found(rates) => {
                    for rate in &rates {
                        session.say(&rate.in_words());
                    }
                    found[number] = rates;
                    let findings = found.iter().flatten().map(|rate| rate.finding.clone());
                    session.document.findings.rates = findings.collect();
                    session.save()?;
                }
            }
        }
        // None is always behind the same other.
        still_open.reverse();
        open = still_open;
    }
    Ok(())
}

fn at_rate(
    session: &mut Session,
    target: &Target,
    pps: f64,
    round: usize,
    plan: &Plan,
) -> anyhow::Result<Outcome> {
    session.say(&format!("ndr: {} at {pps:.0}/s, trial {round}", target.name));
    let request = Request {
        purpose: "ndr",
        target,
        round,
        pps: Some(pps),
        length: Length::Seconds(plan.trial_seconds),
        delays: false,
        on_queue_cpus: false,
    };
    let trial = session.trial(&request)?;
    Ok(Outcome {
        lost_share: trial.account.lost_share(),
        reached: !is_late(&trial),
        delivered_pps: delivered_pps(&trial),
    })
}

/// Losses at shares of a rate.
pub(crate) fn curve(
    session: &mut Session,
    target: &Target,
    reference_pps: f64,
    shares: &[f64],
    seconds: f64,
) -> anyhow::Result<()> {
    let mut points = Vec::new();
    for (round, share) in shares.iter().enumerate() {
        session.say(&format!(
            "curve: {} at {:.0} % of {reference_pps:.0}/s",
            target.name,
            share * 100.0
        ));
        let request = Request {
            purpose: "curve",
            target,
            round,
            pps: Some(reference_pps * share),
            length: Length::Seconds(seconds),
            delays: false,
            on_queue_cpus: false,
        };
        let trial = session.trial_once(&request)?;
        points.push(CurvePoint {
            share: *share,
            offered_pps: rate(trial.account.offered, trial.seconds),
            delivered_pps: delivered_pps(&trial),
            lost_share: trial.account.lost_share(),
            valid: trial.void.is_none(),
        });
    }
    let target = target.name.clone();
    session.document.findings.curves.push(CurveFinding { target, reference_pps, points });
    session.save()
}

/// Whether the generator did not keep to its times. Time that the host took is another thing: the load was there.
fn is_late(trial: &Trial) -> bool {
    trial.void.as_ref().is_some_and(|why| why.starts_with("the generator"))
}

fn delivered_pps(trial: &Trial) -> f64 {
    rate(trial.account.delivered + trial.account.policy_drops, trial.seconds)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn rate(packets: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { packets as f64 / seconds } else { 0.0 }
}

/// From a tenth to the double.
pub(crate) const SHARES: [f64; 12] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 2.0];
