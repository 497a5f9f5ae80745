//! One load through rules and programs that are in place: what was sent, what became of it, what it cost.
//!
//! Invariant: everything is counted between two looks, so that what the queues, the devices and the program did
//! before does not show. It starts and ends no program, and does not judge: what the program says of itself when it
//! ends may still be missing from the account.

use std::time::{Duration, Instant};

use fanq::QueueRange;

use super::passage::Passage;
use super::{Bench, Request};
use crate::load::{self, Sender};
use crate::machine::StolenTime;
use crate::result::{Account, QueueShare, Trial};
use crate::sink::Sink;
use crate::target::Running;

/// Where a load goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The queues that it comes through, if any.
    pub(super) queues: QueueRange,
    /// By which rules tell it from others, where they do.
    pub(super) port: u16,
}

/// A trial that is not yet judged.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) trial: Trial,
    /// CPU time that the program used, in nanoseconds.
    pub(super) ns: u64,
    /// Packets that it answered.
    pub(super) answered: u64,
    /// Packets that were to be sent.
    pub(super) wanted: u64,
}

impl Bench {
    /// Sends the load and waits until all of it has found its place.
    pub(super) fn pass(
        &self,
        request: &Request<'_>,
        mut running: Option<&mut Running>,
        way: Way,
    ) -> anyhow::Result<Passed> {
        if let Some(score) = self.score(request) {
            return self.pass_capture(request, &score, running, way);
        }
        let senders = self.senders(request, way.port)?;
        let packets = usize::try_from(senders.iter().map(Sender::total).max().unwrap_or(0))?;
        let sink = self.lab.in_namespace(self.lab.destination(), || {
            Sink::listen(way.port, senders.len(), packets, self.with_bpf())
        })??;
        let drops_before = self.lab.device_drops()?;
        let queues_before = self.queue_shares(way.queues)?;
        let cpu_before = running.as_deref().map(Running::cpu_ns).transpose()?;
        let stolen = StolenTime::now()?;

        let sent = load::send(&senders)?;
        if let Some(running) = &mut running {
            running.ensure_alive()?;
        }
        let flushed = self.wait_until_empty(way.queues)?;
        let datagrams = sent.iter().map(|sender| sender.times.len()).sum();
        wait_for_the_last(&sink, datagrams)?;

        let stolen_share = stolen.share_since()?;
        let cpu_after = running.as_deref().map(Running::cpu_ns).transpose()?;
        let queues = since(&queues_before, &self.queue_shares(way.queues)?);
        let device_drops = self.lab.device_drops()?.saturating_sub(drops_before);
        let arrived = sink.close()?;
        let passage = Passage::new(&sent, &arrived)?;
        let account = Account {
            offered: passage.offered,
            delivered: passage.delivered,
            policy_drops: 0,
            shed: 0,
            queue_drops: queues.iter().map(|queue| queue.queue_drops).sum(),
            socket_drops: queues.iter().map(|queue| queue.socket_drops).sum(),
            flushed,
            device_drops,
            unrouted: 0,
            incomplete: 0,
            sink_drops: arrived.socket_drops,
            unaccounted: 0,
            duplicates: arrived.duplicates,
            reordered: passage.reordered,
        };
        let lateness = passage.lateness.percentile(99.0).unwrap_or(0.0);
        let answered = answered(&queues, flushed);
        let trial = Trial {
            purpose: request.purpose.to_owned(),
            target: request.target.name.clone(),
            round: request.round,
            intended_pps: request.pps,
            seconds: passage.seconds,
            account,
            void: None,
            lateness_us_p99: request.pps.map(|_| lateness),
            stolen_share,
            rested_seconds: None,
            cpu: None,
            queues,
            latency: if request.delays { passage.delays.to_buckets() } else { Vec::new() },
            gbit_per_s: None,
            connections_per_s: None,
        };
        let ns = cpu_after.unwrap_or(0).saturating_sub(cpu_before.unwrap_or(0));
        let wanted = senders.iter().map(Sender::packets).sum();
        Ok(Passed { trial, ns, answered, wanted })
    }

    /// Waits until no packet waits in these queues; returns how many still do when there is no use in waiting.
    pub(super) fn wait_until_empty(&self, queues: QueueRange) -> anyhow::Result<u64> {
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        loop {
            let waiting = self.waiting(queues)?;
            if waiting == 0 || Instant::now() > deadline {
                return Ok(waiting);
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// How many packets wait in these queues now.
    pub(super) fn waiting(&self, queues: QueueRange) -> anyhow::Result<u64> {
        let rows = self.table.rows()?;
        let own = rows.iter().filter(|row| queues.iter().any(|queue| queue == row.queue));
        Ok(own.map(|row| row.queue_total).sum())
    }

    /// What the kernel has counted for each of these queues since it was bound.
    pub(super) fn queue_shares(&self, queues: QueueRange) -> anyhow::Result<Vec<QueueShare>> {
        let rows = self.table.rows()?;
        let own = rows.iter().filter(|row| queues.iter().any(|queue| queue == row.queue));
        let share = |row: &fanq::KernelRow| QueueShare {
            queue: row.queue,
            packets: row.id_sequence.into(),
            queue_drops: row.queue_dropped,
            socket_drops: row.user_dropped,
        };
        Ok(own.map(share).collect())
    }
}

/// What left the queues may still be on its way to the sink: waits until all have come, but not for long.
fn wait_for_the_last(sink: &Sink, offered: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + RESIDUE;
    while Instant::now() < deadline && sink.arrived_so_far()? < offered {
        std::thread::sleep(POLL_EVERY);
    }
    Ok(())
}

/// How many packets the program answered: those that were put into its queues, less those that its sockets had no room
/// for and those that still wait. One that it repeats comes in once more, and counts once more.
pub(super) fn answered(queues: &[QueueShare], waiting: u64) -> u64 {
    let received = |queue: &QueueShare| queue.packets.saturating_sub(queue.socket_drops);
    queues.iter().map(received).sum::<u64>().saturating_sub(waiting)
}

/// The counts of the same queues at an earlier time, taken off.
pub(super) fn since(before: &[QueueShare], after: &[QueueShare]) -> Vec<QueueShare> {
    let difference = |now: &QueueShare| {
        let then = before.iter().find(|share| share.queue == now.queue);
        then.map_or(*now, |then| QueueShare {
            queue: now.queue,
            packets: now.packets.saturating_sub(then.packets),
            queue_drops: now.queue_drops.saturating_sub(then.queue_drops),
            socket_drops: now.socket_drops.saturating_sub(then.socket_drops),
        })
    };
    after.iter().map(difference).collect()
}

const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
const RESIDUE: Duration = Duration::from_millis(60);
const POLL_EVERY: Duration = Duration::from_millis(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_does_not_show() {
        let share = |queue, packets, drops| QueueShare {
            queue,
            packets,
            queue_drops: drops,
            socket_drops: drops,
        };
        let found = since(&[share(2, 10, 1)], &[share(2, 25, 4), share(3, 7, 0)]);
        assert_eq!(found, [share(2, 15, 3), share(3, 7, 0)]);
    }

    #[test]
    fn what_still_waits_was_not_answered() {
        let share =
            |packets, socket_drops| QueueShare { queue: 0, packets, queue_drops: 9, socket_drops };
        assert_eq!(answered(&[share(100, 10), share(50, 0)], 0), 140);
        assert_eq!(answered(&[share(100, 10), share(50, 0)], 130), 10);
        assert_eq!(answered(&[share(1, 2)], 5), 0);
    }
}
