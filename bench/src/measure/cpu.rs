//! CPU time per packet, targets in turn.
//!
//! Method: all targets run at once, each with queues of its own (`trial/together.rs`), and the load goes through one
//! after the other for some hundredths of a second each, many times. So what slows the machine for a while (a host's
//! other guests do, by a third and more) slows all targets of a round alike. Compared are medians over the rounds,
//! ratios within them.
//!
//! Where one program would disturb another while it waits, because it spins, each is started for each trial and has
//! the machine for itself.

use anyhow::ensure;

use super::session::Session;
use super::turns::{drawn_turns, turns};
use crate::result::{Account, CpuFinding, CpuMethod, Trial};
use crate::statistics::{SEED, estimate, median, ratio_of_pairs, spread_warning};
use crate::target::Target;
use crate::target::account::OwnAccount;
use crate::trial::{Length, OwnDrops, Request, is_disturbed, judge, share_own_drops};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuQuestion {
    pub(crate) rounds: usize,
    /// Of each sender in one trial.
    pub(crate) packets: u64,
    /// None for as fast as it goes.
    pub(crate) pps: Option<f64>,
    /// Whether each program is started for each trial, alone.
    pub(crate) apart: bool,
}

/// One target's trials, one a round.
struct Measured {
    trials: Vec<Trial>,
    /// What it said in the end, where that is of all trials together.
    own: Option<OwnAccount>,
}

/// Measures all targets that are programs.
pub(crate) fn measure(session: &mut Session, question: CpuQuestion) -> anyhow::Result<()> {
    let targets: Vec<_> = session.targets.iter().filter(|t| t.is_program()).cloned().collect();
    ensure!(!targets.is_empty(), "CPU time needs a target that is a program");
    // Neither a capture's packets nor fragments can be told apart by port.
    let apart = question.apart || session.bench.capture.is_some() || session.bench.has_fragments();
    session.document.run.cpu = Some(CpuMethod { apart, packets: question.packets });
    let measured = if apart {
        alone(session, &targets, question)?
    } else {
        together(session, &targets, question)?
    };
    for (target, own) in targets.iter().zip(&measured) {
        let costs: Vec<_> = own.trials.iter().filter_map(cost_that_counts).collect();
        if let Some(warning) = spread_warning(&costs) {
            session.say(&format!("cpu, {}: {warning}", target.name));
        }
        let Some(us_per_packet) = estimate(&costs, SEED) else { continue };
        let is_first = target.name == targets[0].name;
        let ratio = || ratio_to(&own.trials, &measured[0].trials);
        let calls = |figure: Option<f64>| figure.filter(|_| target.makes_the_calls_it_counts());
        let finding = CpuFinding {
            target: target.name.clone(),
            us_per_packet,
            ratio_to_first: if is_first { None } else { ratio() },
            system_calls_per_packet: calls(own.figure(calls_by_account, system_calls_per_packet)),
            packets_per_receive: calls(own.figure(receives_by_account, packets_per_receive)),
            lost_share: median_of(&own.trials, |t| Some(t.account.lost_share())).unwrap_or(0.0),
        };
        session.document.findings.cpu.push(finding);
    }
    session.save()
}

/// Each target alone, started for each trial.
fn alone(
    session: &mut Session,
    targets: &[Target],
    question: CpuQuestion,
) -> anyhow::Result<Vec<Measured>> {
    let mut trials: Vec<Vec<Trial>> = vec![Vec::new(); targets.len()];
    for (round, index) in turns(question.rounds, targets.len()) {
        let target = &targets[index];
        session.say(&format!("cpu, round {} of {}: {}", round + 1, question.rounds, target.name));
        let request = question.request(target, round, question.packets);
        trials[index].push(session.trial(&request)?);
    }
    Ok(trials.into_iter().map(|trials| Measured { trials, own: None }).collect())
}

/// All targets at once, the load now through one, now through another.
fn together(
    session: &mut Session,
    targets: &[Target],
    question: CpuQuestion,
) -> anyhow::Result<Vec<Measured>> {
    let mut all = session.bench.start_together(targets)?;
    let mut kept: Vec<Vec<Kept>> = targets.iter().map(|_| Vec::new()).collect();
    for (round, index) in drawn_turns(question.rounds, targets.len()) {
        let target = &targets[index];
        let said = format!("cpu, round {} of {}", round + 1, question.rounds);
        if round % ROUNDS_A_LINE == 0 && index == 0 {
            session.say(&said);
        } else {
            session.say_often(&said);
        }
        let request = question.request(target, round, question.packets);
        for retry in (0..TRIES).rev() {
            session.ensure_wanted()?;
            let (trial, wanted) = session.bench.run_strand(&mut all.strands[index], &request)?;
            let is_last = retry == 0 || !is_disturbed(&trial);
            kept[index].push(Kept { index: session.document.trials.len(), wanted, is_last });
            session.keep(trial)?;
            if is_last {
                break;
            }
        }
    }
    let ended = all.strands.into_iter().zip(targets).zip(&kept);
    ended
        .map(|((strand, target), kept)| {
            let own = strand.end()?;
            let drops = OwnDrops::of(target, own.as_ref());
            settle(&mut session.document.trials, kept, drops);
            let last = kept.iter().filter(|kept| kept.is_last);
            let trials = last.map(|kept| session.document.trials[kept.index].clone()).collect();
            Ok(Measured { trials, own })
        })
        .collect()
}

/// A trial in the document whose account is still open.
struct Kept {
    index: usize,
    /// Packets that were to be sent.
    wanted: u64,
    /// Of its round.
    is_last: bool,
}

/// Closes the accounts of a target's trials, now that it has said what it dropped by itself.
fn settle(trials: &mut [Trial], kept: &[Kept], said: OwnDrops) {
    let is_own = |index| kept.iter().any(|kept| kept.index == index);
    let own = trials.iter_mut().enumerate().filter(|(index, _)| is_own(*index));
    let mut accounts: Vec<&mut Account> = own.map(|(_, trial)| &mut trial.account).collect();
    share_own_drops(&mut accounts, said);
    for kept in kept {
        judge(&mut trials[kept.index], kept.wanted, false);
    }
}

impl CpuQuestion {
    fn request<'a>(&self, target: &'a Target, round: usize, packets: u64) -> Request<'a> {
        Request {
            purpose: "cpu",
            target,
            round,
            pps: self.pps,
            length: Length::Packets(packets),
            delays: false,
            on_queue_cpus: true,
        }
    }
}

impl Measured {
    /// From the account of the whole where there is one, else from the trials' that count. The program does not know
    /// which of its trials are void, so its own account is of those, too.
    fn figure(
        &self,
        by_account: impl Fn(OwnAccount) -> f64,
        by_trial: impl Fn(&Trial) -> Option<f64>,
    ) -> Option<f64> {
        self.own.map(by_account).or_else(|| median_of(&self.trials, by_trial))
    }
}

/// Over the rounds in which both count.
fn ratio_to(trials: &[Trial], first: &[Trial]) -> Option<crate::result::Estimate> {
    let pairs = trials.iter().zip(first);
    let costs = pairs.filter_map(|(own, first)| cost_that_counts(own).zip(cost_that_counts(first)));
    let (own, first): (Vec<_>, Vec<_>) = costs.unzip();
    ratio_of_pairs(&own, &first, SEED)
}

fn cost_that_counts(trial: &Trial) -> Option<f64> {
    us_per_packet(trial).filter(|_| trial.void.is_none())
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

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn calls_by_account(own: OwnAccount) -> f64 {
    (own.recv_calls + own.send_calls) as f64 / own.packets.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn receives_by_account(own: OwnAccount) -> f64 {
    own.packets as f64 / own.recv_calls.max(1) as f64
}

/// Over the trials that count.
fn median_of(trials: &[Trial], value: impl Fn(&Trial) -> Option<f64>) -> Option<f64> {
    let valid = trials.iter().filter(|trial| trial.void.is_none());
    median(&valid.filter_map(value).collect::<Vec<_>>())
}

/// Where there is no terminal, a line for so many rounds.
const ROUNDS_A_LINE: usize = 20;
/// A trial that is disturbed this often stays void.
const TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_trials_are_in_no_median() {
        let mut trials = crate::report::sample::document().trials;
        trials.retain(|trial| trial.purpose == "cpu" && trial.target == "fanq");
        for (trial, answered) in trials.iter_mut().zip([500, 100, 100, 100, 500, 500, 500]) {
            let cpu = trial.cpu.as_mut().unwrap();
            (cpu.answered, cpu.receive_calls, cpu.send_calls) = (answered, Some(10), Some(10));
            trial.account.delivered = trial.account.offered * answered / 500;
            trial.void = (answered == 500).then(|| "the host took it".to_owned());
        }
        let measured = Measured { trials, own: None };
        let batch = measured.figure(receives_by_account, packets_per_receive);
        let calls = measured.figure(calls_by_account, system_calls_per_packet);
        let lost = median_of(&measured.trials, |trial| Some(trial.account.lost_share()));
        assert_eq!((batch, calls), (Some(10.0), Some(0.2)));
        assert!((lost.unwrap() - 0.8).abs() < 0.01, "{lost:?}");
    }
}
