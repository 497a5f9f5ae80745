//! A trial of a capture: packets with addresses of their own and without stamps, so that they are counted, not known.
//!
//! ```text
//!   sent by the packet sockets            offered
//!   - dropped by a device                 device_drops      the devices' own counters
//!   - not forwarded                       unrouted          offered less these less what came to the rule: a packet
//!                                                           that the engine's namespace takes for broken, expired,
//!                                                           its own or nobody's
//!   - dropped by queue, socket, verdict   queue_drops, ...  as in every trial
//!   arrived at the far device             delivered         counted there, whatever it is
//! ```
//!
//! Invariant: forwarding follows the device by which a packet came in, not its address, and what the engine's
//! namespace says itself (an ICMP error, say) has no way out. So only packets of the capture reach the far device.
//! Delays, duplicates and order of packets nobody knows here.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fanq::CpuId;

use super::pass::{Passed, Way};
use super::{Bench, Request};
use crate::lab::{Place, run_line};
use crate::load::replay::{Pace, ReplaySender, Replayed, Score, replay};
use crate::machine::StolenTime;
use crate::result::{Account, Hook, QueueShare, Trial};
use crate::statistics::Delays;
use crate::target::Running;

impl Bench {
    /// Makes the engine's namespace forward whatever comes in by a pair to the pair's other side.
    pub(super) fn forward_anything(&self) -> anyhow::Result<()> {
        ensure!(
            self.lab.shape.hook == Hook::Forward,
            "a capture has addresses of its own, which only the forward hook carries; take --hook forward"
        );
        let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        for pair in &self.lab.pairs {
            let (table, i) = (100 + u32::from(pair.number), pair.number);
            let ways = [("-4", format!("10.78.{i}.2")), ("-6", format!("fd78:{i:x}::2"))];
            for (family, gateway) in ways.iter().take(if ipv6 { 2 } else { 1 }) {
                run_line(&format!(
                    "ip {family} route replace default via {gateway} dev out{i} table {table}"
                ))?;
                let shown = run_line(&format!("ip {family} rule show iif engine{i}"))?;
                if shown.trim().is_empty() {
                    run_line(&format!("ip {family} rule add iif engine{i} lookup {table}"))?;
                }
            }
        }
        Ok(())
    }

    /// Replays a capture and waits until all of it has found its place.
    pub(super) fn pass_capture(
        &self,
        request: &Request<'_>,
        score: &Score,
        mut running: Option<&mut Running>,
        way: Way,
    ) -> anyhow::Result<Passed> {
        let senders = self.replay_senders(request, score)?;
        let drops_before = self.lab.device_drops()?;
        let arrived_before = self.lab.arrived_at_far_end()?;
        let queues_before = self.queue_shares(way.queues)?;
        let cpu_before = running.as_deref().map(Running::cpu_ns).transpose()?;
        let stolen = StolenTime::now()?;

        let replayed = replay(&senders)?;
        if let Some(running) = &mut running {
            running.ensure_alive()?;
        }
        let flushed = self.wait_until_empty(way.queues)?;
        self.wait_until_still()?;

        let stolen_share = stolen.share_since()?;
        let cpu_after = running.as_deref().map(Running::cpu_ns).transpose()?;
        let queues = super::pass::since(&queues_before, &self.queue_shares(way.queues)?);
        let is_program = running.is_some();
        let counted = Counted {
            offered: replayed.iter().map(|sender| sender.times.len() as u64).sum(),
            delivered: self.lab.arrived_at_far_end()?.saturating_sub(arrived_before),
            device_drops: self.lab.device_drops()?.saturating_sub(drops_before),
            flushed,
        };
        let is_paced = score.pace != Pace::Unpaced;
        let (lateness_us_p99, seconds) =
            (is_paced.then(|| lateness(&replayed)), seconds(&replayed));
        let trial = Trial {
            purpose: request.purpose.to_owned(),
            target: request.target.name.clone(),
            round: request.round,
            intended_pps: request.pps,
            seconds,
            account: counted.account(is_program.then_some(&queues[..])),
            void: None,
            lateness_us_p99,
            stolen_share,
            rested_seconds: None,
            cpu: None,
            queues,
            latency: Vec::new(),
            gbit_per_s: None,
            connections_per_s: None,
        };
        let ns = cpu_after.unwrap_or(0).saturating_sub(cpu_before.unwrap_or(0));
        let answered = super::pass::answered(&trial.queues, flushed);
        Ok(Passed { trial, ns, answered, wanted: score.total })
    }

    fn replay_senders(
        &self,
        request: &Request<'_>,
        score: &Score,
    ) -> anyhow::Result<Vec<ReplaySender>> {
        let shape = &self.lab.shape;
        let cpus = if request.on_queue_cpus { &shape.queue_cpus } else { &shape.load_cpus };
        let pairs = self.lab.pairs.iter().zip(cpus).enumerate();
        let count = self.lab.pairs.len();
        pairs
            .map(|(index, (pair, cpu))| {
                self.lab.in_namespace(Place::Client, || {
                    let interface = interface_index(&format!("client{}", pair.number))?;
                    let macs = [pair.client_mac, pair.engine_mac];
                    ReplaySender::new(CpuId(*cpu), interface, macs, score, (index, count))
                })?
            })
            .collect()
    }

    /// Waits until nothing arrives any more, but not for long.
    fn wait_until_still(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STILL_MAX;
        let mut before = None;
        while Instant::now() < deadline {
            let now = Some(self.lab.arrived_at_far_end()?);
            if now == before {
                break;
            }
            before = now;
            std::thread::sleep(STILL_FOR);
        }
        Ok(())
    }
}

/// What was counted on the way.
struct Counted {
    offered: u64,
    delivered: u64,
    device_drops: u64,
    flushed: u64,
}

impl Counted {
    /// What came to the rule, the kernel counts where there are queues; else it is what arrived.
    fn account(&self, queues: Option<&[QueueShare]>) -> Account {
        let sum =
            |of: fn(&QueueShare) -> u64| queues.unwrap_or_default().iter().map(of).sum::<u64>();
        let (queue_drops, socket_drops) =
            (sum(|share| share.queue_drops), sum(|share| share.socket_drops));
        let at_rule = match queues {
            Some(_) => sum(|share| share.packets) + queue_drops,
            None => self.delivered,
        };
        let Self { offered, delivered, device_drops, flushed } = *self;
        Account {
            offered,
            delivered,
            queue_drops,
            socket_drops,
            flushed,
            device_drops,
            unrouted: offered.saturating_sub(device_drops).saturating_sub(at_rule),
            ..Account::default()
        }
    }
}

fn lateness(replayed: &[Replayed]) -> f64 {
    let mut lateness = Delays::new();
    for (due, sent) in replayed.iter().flat_map(|sender| &sender.times) {
        lateness.record(sent.saturating_sub(*due));
    }
    lateness.percentile(99.0).unwrap_or(0.0)
}

/// From the first frame that any sender sent to the last.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one trial, far below 2^53")]
fn seconds(replayed: &[Replayed]) -> f64 {
    let sent = || replayed.iter().flat_map(|sender| &sender.times).map(|(_, sent)| *sent);
    let span = sent().max().zip(sent().min()).map_or(0, |(last, first)| last - first);
    span as f64 / 1e9
}

pub(super) fn interface_index(device: &str) -> anyhow::Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("opening a socket")?;
    netdevice::name_to_index(any, device).with_context(|| format!("{device} is not in the lab"))
}

const STILL_FOR: Duration = Duration::from_millis(20);
const STILL_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(offered: u64, delivered: u64, device_drops: u64) -> Counted {
        Counted { offered, delivered, device_drops, flushed: 0 }
    }

    #[test]
    fn what_did_not_come_to_the_rule_was_not_forwarded() {
        let queues = [QueueShare { queue: 0, packets: 80, queue_drops: 6, socket_drops: 5 }];
        let account = counted(100, 75, 4).account(Some(&queues));
        assert_eq!((account.unrouted, account.queue_drops, account.socket_drops), (10, 6, 5));
        assert_eq!(account.remainder(), 0);
        let lost = counted(100, 70, 4).account(Some(&queues));
        assert_eq!(lost.remainder(), 5, "what is lost behind the rule is missed");
        let twice = counted(100, 90, 4).account(Some(&queues));
        assert!(twice.remainder() < 0, "what arrives unasked is noticed");
        let without = counted(100, 93, 4).account(None);
        assert_eq!((without.unrouted, without.remainder()), (3, 0));
    }
}
