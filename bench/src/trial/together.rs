//! Several targets running at once, each with queues of its own, so that a load can go now through one and now through
//! another without a program being started or a rule replaced in between.
//!
//! ```text
//!   UDP port 9000 -> queues 0-1 -> target 0      a short load to port 9000, then one to 9001, ...:
//!   UDP port 9001 -> queues 2-3 -> target 1      a tenth of a second apart, so that what slows the
//!   UDP port 9002 -> queues 4-5 -> target 2      machine slows all of them alike
//! ```
//!
//! Invariant: only one of them has packets at a time; the others sleep. So a target that spins while it waits does not
//! belong here. What a target dropped by its own verdict is known only when it ends, of all loads together; it is
//! taken for what each trial's account lacks if the sums agree to the packet, and else for nothing.

use anyhow::Context;
use fanq::QueueRange;

use super::pass::{Passed, Way};
use super::rules::{Action, Rules};
use super::{Bench, OwnDrops, PORT, Request};
use crate::result::{Account, CpuUse, Trial};
use crate::target::account::OwnAccount;
use crate::target::{Running, Service, Target, account};

/// Targets that run at the same time.
#[derive(Debug)]
pub(crate) struct Together {
    pub(crate) strands: Vec<Strand>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Strand {
    running: Running,
    way: Way,
}

impl Bench {
    /// Starts these targets, all of them programs, and installs a rule for each.
    pub(crate) fn start_together(&self, targets: &[Target]) -> anyhow::Result<Together> {
        let mut strands = Vec::new();
        for (target, number) in targets.iter().zip(0..) {
            let service = target.service(&self.service_of(number)?)?;
            let running = self.start(target, &service)?;
            let running = running.with_context(|| format!("{} is no program", target.name))?;
            let way = Way { queues: service.queues, port: PORT + number };
            strands.push(Strand { running, way });
        }
        let action = |(strand, target): (&Strand, &Target)| {
            Ok((Some(strand.way.port), Action::to_program(target, strand.way.queues)?))
        };
        let actions =
            strands.iter().zip(targets).map(action).collect::<anyhow::Result<Vec<_>>>()?;
        Rules::install(self.selection("udp"), &actions).context("installing the lab's rules")?;
        Ok(Together { strands })
    }

    /// The queues of the target of this number: as many as one alone would have, behind those of the targets before.
    fn service_of(&self, number: u16) -> anyhow::Result<Service> {
        let all = self.service.queues;
        let count = u32::from(all.last() - all.first()) + 1;
        let first = u32::from(all.first()) + u32::from(number) * count;
        let queue = |queue| u16::try_from(queue).context("there are no queues for so many targets");
        let queues = QueueRange::new(queue(first)?, queue(first + count - 1)?)?;
        Ok(Service { queues, ..self.service.clone() })
    }

    /// Sends a load through one of them. Returns the trial, not yet judged, with the packets that were to be sent.
    pub(crate) fn run_strand(
        &self,
        strand: &mut Strand,
        request: &Request<'_>,
    ) -> anyhow::Result<(Trial, u64)> {
        let passed = self.pass(request, Some(&mut strand.running), strand.way)?;
        let Passed { mut trial, ns, answered, wanted } = passed;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one trial, far below 2^53")]
        let us = ns as f64 / 1000.0;
        let resident_kib_max = strand.running.resident_kib_max()?;
        let (receive_calls, send_calls) = (None, None);
        trial.cpu = Some(CpuUse { us, answered, receive_calls, send_calls, resident_kib_max });
        Ok((trial, wanted))
    }
}

impl Strand {
    /// Ends the target; what it says of all that it did, if anything.
    pub(crate) fn end(self) -> anyhow::Result<Option<OwnAccount>> {
        Ok(account::read(&self.running.stop()?.stdout))
    }
}

/// Gives what a target dropped itself to the accounts that lack packets, if the sums agree. If it both dropped and
/// shed, nobody knows which of the two a trial lacks: all of it is then taken for shed, the loss.
pub(crate) fn share_own_drops(accounts: &mut [&mut Account], said: OwnDrops) {
    let lacking = |account: &&mut Account| account.remainder();
    let all_lack = accounts.iter().all(|account| lacking(account) >= 0);
    let said_dropped = (said.policy + said.shed).cast_signed();
    if all_lack && accounts.iter().map(lacking).sum::<i64>() == said_dropped {
        for account in accounts {
            let lacks = account.remainder().cast_unsigned();
            if said.shed == 0 {
                account.policy_drops += lacks;
            } else {
                account.shed += lacks;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(offered: u64, delivered: u64) -> Account {
        Account { offered, delivered, ..Account::default() }
    }

    #[test]
    fn drops_are_shared_out_only_if_they_add_up_to_the_packet() {
        for (said, drops) in [(5, [2, 0, 3]), (4, [0; 3]), (6, [0; 3])] {
            let mut accounts = [account(10, 8), account(10, 10), account(10, 7)];
            share_own_drops(&mut accounts.each_mut(), OwnDrops { policy: said, shed: 0 });
            assert_eq!(accounts.map(|account| account.policy_drops), drops, "{said}");
        }
        for policy in [0, 2] {
            let mut accounts = [account(10, 8), account(10, 7)];
            share_own_drops(&mut accounts.each_mut(), OwnDrops { policy, shed: 5 - policy });
            assert_eq!(
                accounts.map(|account| (account.policy_drops, account.shed)),
                [(0, 2), (0, 3)]
            );
        }
        let mut accounts = [account(10, 12), account(10, 7)];
        share_own_drops(&mut accounts.each_mut(), OwnDrops { policy: 1, shed: 0 });
        assert_eq!(accounts.map(|account| account.policy_drops), [0, 0], "one has too many");
    }
}
