//! What TCP gets through the queues, targets in turn: one long connection, and many short ones.

use super::session::Session;
use super::turns::turns;
use crate::result::{ConnectionFinding, TcpFinding};
use crate::statistics::{SEED, estimate};
use crate::trial::Traffic;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpQuestion {
    pub(crate) rounds: usize,
    /// Of one trial.
    pub(crate) seconds: f64,
}

/// Measures all targets with both kinds of traffic.
pub(crate) fn measure(session: &mut Session, question: TcpQuestion) -> anyhow::Result<()> {
    for traffic in [Traffic::Bulk, Traffic::Connections] {
        let figures = figures(session, traffic, question)?;
        let gso = session.document.lab.offloads;
        let findings = &mut session.document.findings;
        for (target, figures) in session.targets.iter().zip(&figures) {
            let target = target.name.clone();
            match (traffic, estimate(figures, SEED)) {
                (Traffic::Bulk, Some(gbit_per_s)) => {
                    findings.tcp.push(TcpFinding { target, gso, gbit_per_s });
                }
                (Traffic::Connections, Some(per_second)) => {
                    findings.connections.push(ConnectionFinding { target, per_second });
                }
                (_, None) => {} // its trials are in the document, with what made them void
            }
        }
        session.save()?;
    }
    Ok(())
}

/// Gbit/s or connections a second, by target and round, of the trials that count.
fn figures(
    session: &mut Session,
    traffic: Traffic,
    question: TcpQuestion,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let TcpQuestion { rounds, seconds } = question;
    let targets = session.targets.clone();
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    for (round, index) in turns(rounds, targets.len()) {
        let target = &targets[index];
        session.say(&format!("tcp, round {} of {rounds}: {}", round + 1, target.name));
        let trial = session.tcp(target, traffic, round, seconds)?;
        if trial.void.is_none() {
            figures[index].extend(trial.gbit_per_s.or(trial.connections_per_s));
        }
    }
    Ok(figures)
}
