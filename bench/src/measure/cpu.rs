//! CPU time per packet, targets in turn.
//!
//! Method: every round runs each target once over the same load (odd rounds backwards), as fast as the senders go or
//! at a rate; compared are medians over the rounds, ratios within them.

use anyhow::ensure;

use super::session::Session;
use super::turns::turns;
use crate::result::{CpuFinding, Trial};
use crate::statistics::{SEED, estimate, median, ratio_of_pairs, spread_warning};
use crate::trial::{Length, Request};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuQuestion {
    pub(crate) rounds: usize,
    pub(crate) packets: u64,
    /// None for as fast as it goes.
    pub(crate) pps: Option<f64>,
}

/// Measures all targets that are programs.
pub(crate) fn measure(session: &mut Session, question: CpuQuestion) -> anyhow::Result<()> {
    let targets: Vec<_> = session.targets.iter().filter(|t| t.is_program()).cloned().collect();
    ensure!(!targets.is_empty(), "CPU time needs a target that is a program");
    let mut trials: Vec<Vec<Trial>> = vec![Vec::new(); targets.len()];
    for (round, index) in turns(question.rounds, targets.len()) {
        let target = &targets[index];
        session.say(&format!("cpu, round {} of {}: {}", round + 1, question.rounds, target.name));
        let request = Request {
            purpose: "cpu",
            target,
            round,
            pps: question.pps,
            length: Length::Packets(question.packets),
            delays: false,
            on_queue_cpus: true,
        };
        trials[index].push(session.trial_once(&request)?);
    }
    let first = costs(&trials[0]);
    for (target, own) in targets.iter().zip(&trials) {
        let costs = costs(own);
        if let Some(warning) = spread_warning(&costs) {
            session.say(&format!("cpu, {}: {warning}", target.name));
        }
        let Some(us_per_packet) = estimate(&costs, SEED) else { continue };
        let is_first = target.name == targets[0].name;
        let finding = CpuFinding {
            target: target.name.clone(),
            us_per_packet,
            ratio_to_first: if is_first { None } else { ratio_of_pairs(&costs, &first, SEED) },
            system_calls_per_packet: median_of(own, system_calls_per_packet),
            packets_per_receive: median_of(own, packets_per_receive),
            lost_share: median_of(own, |trial| Some(trial.account.lost_share())).unwrap_or(0.0),
        };
        session.document.findings.cpu.push(finding);
    }
    session.save()
}

/// Round by round, void ones too: a ratio needs both of its round, and neither a late generator nor time that the host
/// took is in a target's own CPU time.
fn costs(trials: &[Trial]) -> Vec<f64> {
    trials.iter().filter_map(us_per_packet).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn us_per_packet(trial: &Trial) -> Option<f64> {
    let cpu = trial.cpu?;
    (cpu.answered > 0).then(|| cpu.us / cpu.answered as f64)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn system_calls_per_packet(trial: &Trial) -> Option<f64> {
    let cpu = trial.cpu?;
    Some((cpu.receive_calls? + cpu.send_calls?) as f64 / cpu.answered.max(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn packets_per_receive(trial: &Trial) -> Option<f64> {
    let cpu = trial.cpu?;
    Some(cpu.answered as f64 / cpu.receive_calls?.max(1) as f64)
}

fn median_of(trials: &[Trial], value: impl Fn(&Trial) -> Option<f64>) -> Option<f64> {
    median(&trials.iter().filter_map(value).collect::<Vec<_>>())
}
