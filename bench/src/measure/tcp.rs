//! Bulk transfer over one TCP connection, targets in turn.

use super::session::Session;
use crate::result::TcpFinding;
use crate::statistics::{SEED, estimate};

/// Measures all targets.
pub(crate) fn measure(session: &mut Session, rounds: usize, seconds: f64) -> anyhow::Result<()> {
    let targets = session.targets.clone();
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let target = &targets[index];
            session.say(&format!("tcp, round {} of {rounds}: {}", round + 1, target.name));
            rates[index].extend(session.stream(target, round, seconds)?.gbit_per_s);
        }
    }
    for (target, rates) in targets.iter().zip(&rates) {
        let gso = session.document.lab.offloads;
        if let Some(gbit_per_s) = estimate(rates, SEED) {
            let target = target.name.clone();
            session.document.findings.tcp.push(TcpFinding { target, gso, gbit_per_s });
        }
    }
    session.save()
}
