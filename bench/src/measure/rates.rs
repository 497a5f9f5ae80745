//! The highest rate that a target bears, and its losses below and beyond.

use super::session::Session;
use crate::result::{CurveFinding, CurvePoint, Trial};
use crate::search::{self, Outcome, Plan, Trials};
use crate::target::Target;
use crate::trial::{Length, Request};

/// A target's trials at rates that a search chooses.
struct AtRate<'a> {
    session: &'a mut Session,
    target: &'a Target,
    count: usize,
    purpose: &'static str,
}

impl Trials for AtRate<'_> {
    fn measure(&mut self, pps: f64, seconds: f64) -> anyhow::Result<Outcome> {
        self.count += 1;
        let (target, round) = (self.target, self.count);
        self.session
            .say(&format!("{}: {} at {pps:.0}/s, trial {round}", self.purpose, target.name));
        let request = Request {
            purpose: self.purpose,
            target,
            round,
            pps: Some(pps),
            length: Length::Seconds(seconds),
            delays: false,
            on_queue_cpus: false,
        };
        let trial = self.session.trial(&request)?;
        Ok(Outcome {
            lost_share: trial.account.lost_share(),
            reached: !is_late(&trial),
            delivered_pps: delivered_pps(&trial),
        })
    }
}

/// Searches the loss-free rate of every target, and that with 0.5 % loss.
pub(crate) fn search(session: &mut Session, plan: &Plan) -> anyhow::Result<()> {
    for target in session.targets.clone() {
        let mut trials = AtRate { session, target: &target, count: 0, purpose: "ndr" };
        let found = search::search(&target.name, plan, &mut trials)?;
        for found in found {
            session.say(&found.in_words());
            session.document.findings.rates.push(found.finding);
        }
        session.save()?;
    }
    Ok(())
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
