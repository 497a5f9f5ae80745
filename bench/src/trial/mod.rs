//! A trial: one target, one load, one account.
//!
//! ```text
//! rules -> target ready -> sink -> load -> queues empty -> counters -> target ended -> account
//! ```
//!
//! Invariant: every packet offered has a place in the account, or the trial is void and the command fails in the end.
//! A trial whose generator was late, or from which the host took CPU time, is void too. What is void says why and is
//! kept. It counts for nothing, but in the search of a rate: where a rate has nothing but void trials, the last one
//! speaks for it.

mod pass;
mod passage;
mod replay;
pub(crate) mod rules;
mod stream;
mod together;

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use fanq::{CpuId, KernelTable};

use crate::lab::{Lab, Pair, Place};
use crate::load::Sender;
use crate::load::capture::Capture;
use crate::load::fragments::FragmentSender;
use crate::load::frame::{Path, Template};
use crate::load::replay::{Pace, Score};
use crate::load::schedule::{Pattern, Schedule};
use crate::load::udp::UdpSender;
use crate::load::xdp::{Entry, PACKETS_MAX, XdpSender};
use crate::result::{Account, CpuUse, Family, LoadKind, LoadSetting, Topology, Trial};
use crate::target::account::{self, OwnAccount};
use crate::target::{Running, Service, Target};

use pass::{Passed, Way};
use replay::interface_index;
use rules::{Action, Rules, Selection};
pub(crate) use stream::Traffic;
pub(crate) use together::share_own_drops;

/// What is to be tried.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) purpose: &'static str,
    pub(crate) target: &'a Target,
    pub(crate) round: usize,
    /// All senders together; none for as fast as it goes.
    pub(crate) pps: Option<f64>,
    pub(crate) length: Length,
    /// Whether delays are kept in the result.
    pub(crate) delays: bool,
    /// Whether the load is made on the CPUs that fill the queues, whatever the topology: then what the kernel does
    /// with a packet before its queue is the senders' time, and not charged to a target that it interrupts.
    pub(crate) on_queue_cpus: bool,
}

/// How long a load is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Seconds(f64),
    /// From each sender.
    Packets(u64),
    /// A capture once; of other loads as many packets as a sender can make.
    All,
}

/// Where trials take place.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    pub(crate) load: LoadSetting,
    pub(crate) service: Service,
    /// What is replayed instead of packets made for the purpose.
    pub(crate) capture: Option<Replay>,
    table: KernelTable,
}

/// A capture and, where a request asks for no rate, its pace.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    pub(crate) capture: Arc<Capture>,
    pub(crate) pace: Pace,
}

impl Bench {
    pub(crate) fn new(lab: Lab, load: LoadSetting, service: Service) -> anyhow::Result<Self> {
        let table = KernelTable::open().context(
            "reading /proc/net/netfilter/nfnetlink_queue, which only root's own namespaces show",
        )?;
        let bench = Self { lab, load, service, capture: None, table };
        if bench.has_fragments() {
            bench.forget_lone_fragments()?;
        }
        Ok(bench)
    }

    /// Has the far end give up after a second on a datagram whose other fragment was lost, and room for many of them.
    fn forget_lone_fragments(&self) -> anyhow::Result<()> {
        self.lab.in_namespace(self.lab.destination(), || {
            for (name, value) in FRAGMENT_SYSCTLS {
                // In a user namespace they may not be set; then the kernel's own values hold.
                let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
            }
        })
    }

    /// Replays a capture in all trials.
    pub(crate) fn replaying(mut self, replay: Option<Replay>) -> anyhow::Result<Self> {
        if replay.is_some() {
            self.forward_anything()?;
        }
        self.capture = replay;
        Ok(self)
    }

    /// What a request comes to where a capture is replayed.
    fn score(&self, request: &Request<'_>) -> Option<Score> {
        let Replay { capture, pace } = self.capture.clone()?;
        let pace = request.pps.map_or(pace, Pace::PerSecond);
        let senders = self.lab.pairs.len() as u64;
        let total = match request.length {
            Length::All => capture.frames.len() as u64,
            Length::Packets(packets) => packets * senders,
            Length::Seconds(_) => packets_of(request.length, request.pps),
        };
        Some(Score { capture, pace, total: total.min(PACKETS_MAX as u64 * senders) })
    }

    /// The rules that lead to a target, put in place.
    pub(crate) fn install_rules(
        &self,
        target: &Target,
        protocol: &'static str,
    ) -> anyhow::Result<Rules> {
        let action = if target.is_program() {
            Action::to_program(target, target.service(&self.service)?.queues)?
        } else if target.has_rule() {
            Action::Accept
        } else {
            Action::Nothing
        };
        if self.capture.is_some() && protocol == "udp" {
            let mut commands = Vec::new();
            for family in [Family::Ipv4, Family::Ipv6] {
                let selection = Selection { family, protocol: None, ..self.selection(protocol) };
                commands.extend(Rules::install(selection, &[(None, action)])?.commands);
            }
            return Ok(Rules { commands });
        }
        Rules::install(self.selection(protocol), &[(None, action)])
            .context("installing the lab's rules")
    }

    fn selection(&self, protocol: &'static str) -> Selection {
        let (hook, family) = (self.lab.shape.hook, self.load.family);
        Selection { hook, family, protocol: Some(protocol) }
    }

    /// Starts a target, if it is a program.
    fn start(&self, target: &Target, service: &Service) -> anyhow::Result<Option<Running>> {
        let command = target.command(service)?;
        let start =
            |command: Vec<_>| Running::start(&target.name, &command, service.queues, &self.table);
        command.map(start).transpose()
    }

    /// Runs one trial.
    pub(crate) fn run(&self, request: &Request<'_>) -> anyhow::Result<Trial> {
        self.install_rules(request.target, "udp")?;
        let service = request.target.service(&self.service)?;
        let mut running = self.start(request.target, &service)?;
        let way = Way { queues: service.queues, port: PORT };
        let Passed { mut trial, ns, answered, wanted } =
            self.pass(request, running.as_mut(), way)?;
        if let Some(running) = running {
            let (cpu, drops) = account_of(running, request.target, ns, answered)?;
            trial.cpu = Some(cpu);
            (trial.account.policy_drops, trial.account.shed) = (drops.policy, drops.shed);
        }
        judge(&mut trial, wanted, self.has_fragments());
        Ok(trial)
    }

    pub(crate) fn has_fragments(&self) -> bool {
        self.load.fragments > 0.0
    }

    fn with_bpf(&self) -> bool {
        !self.lab.user_namespace
    }

    /// Where the frames of a pair come in that are made in the kernel: over the wire if a thread takes them up there.
    fn entry(&self, pair: &Pair) -> anyhow::Result<Entry> {
        if self.lab.shape.topology != Topology::Threaded {
            return Ok(Entry::Receive(pair.engine_index));
        }
        let device = format!("client{}", pair.number);
        Ok(Entry::Wire {
            interface: self.lab.in_namespace(Place::Client, || interface_index(&device))??,
            namespace: self.lab.namespace(Place::Client)?,
        })
    }

    /// One sender on each CPU that makes load.
    fn senders(&self, request: &Request<'_>, port: u16) -> anyhow::Result<Vec<Sender>> {
        let count = u32::try_from(self.lab.pairs.len())?;
        let pattern = Pattern {
            pps: request.pps.map(|pps| pps / f64::from(count)),
            frame: self.load.frame,
            flows: self.load.flows,
            flow_choice: self.load.flow_choice,
            arrivals: self.load.arrivals,
        };
        let packets = packets_of(request.length, pattern.pps);
        ensure!(
            packets <= PACKETS_MAX as u64,
            "{packets} packets from one sender are too many for one trial ({PACKETS_MAX} at most); \
             make it shorter, or the rate lower"
        );
        let shape = &self.lab.shape;
        let cpus = if request.on_queue_cpus { &shape.queue_cpus } else { &shape.load_cpus };
        let alone = shape.topology != Topology::Shared && !request.on_queue_cpus;
        let pairs = self.lab.pairs.iter().zip(cpus);
        pairs
            .zip(0_u16..)
            .map(|((pair, cpu), index)| {
                let (source, destination) = match self.load.family {
                    Family::Ipv4 => (pair.client_v4.into(), pair.flows_v4.into()),
                    Family::Ipv6 => (pair.client_v6.into(), pair.flows_v6.into()),
                };
                let path = Path {
                    source_mac: pair.client_mac,
                    destination_mac: pair.engine_mac,
                    source,
                    destination,
                    port,
                };
                let template = Template::new(path, self.load.frame, *cpu, index)?;
                let schedule = Arc::new(Schedule::new(&pattern, u64::from(index) + 1));
                let cpu = CpuId(*cpu);
                match self.load.kind {
                    LoadKind::Xdp => {
                        let entry = self.entry(pair)?;
                        let sender = XdpSender::new(cpu, entry, template, schedule, packets)?;
                        Ok(Sender::Xdp(if alone { sender.alone() } else { sender }))
                    }
                    LoadKind::Pcap => bail!("a capture is not made up"),
                    LoadKind::Udp => self.lab.in_namespace(Place::Client, || {
                        if !self.has_fragments() {
                            let sender = UdpSender::new(cpu, index, template, schedule, packets)?;
                            return Ok(Sender::Udp(sender));
                        }
                        let device = interface_index(&format!("client{}", pair.number))?;
                        let (who, cut) = ((cpu, index), self.load.fragments);
                        FragmentSender::new(who, device, template, schedule, cut, packets)
                            .map(Sender::Fragments)
                    })?,
                }
            })
            .collect()
    }
}

/// Packets that a target says it dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OwnDrops {
    /// By its verdict.
    pub(crate) policy: u64,
    /// Unseen, since there were too many.
    pub(crate) shed: u64,
}

impl OwnDrops {
    /// What it sheds passes, unless it was told to drop it.
    pub(crate) fn of(target: &Target, said: Option<&OwnAccount>) -> Self {
        let shed = said.map_or(0, |said| said.shed);
        let shed = if target.drops_what_it_sheds() { shed } else { 0 };
        Self { policy: said.map_or(0, |said| said.dropped), shed }
    }
}

/// Ends a target and takes what it says of itself.
fn account_of(
    running: Running,
    target: &Target,
    ns: u64,
    answered: u64,
) -> anyhow::Result<(CpuUse, OwnDrops)> {
    let resident_kib_max = running.resident_kib_max()?;
    let ended = running.stop()?;
    let said = account::read(&ended.stdout);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one trial, far below 2^53")]
    let us = ns as f64 / 1000.0;
    let cpu = CpuUse {
        us,
        answered,
        receive_calls: said.as_ref().map(|said| said.recv_calls),
        send_calls: said.as_ref().map(|said| said.send_calls),
        resident_kib_max,
    };
    Ok((cpu, OwnDrops::of(target, said.as_ref())))
}

fn packets_of(length: Length, pps: Option<f64>) -> u64 {
    match (length, pps) {
        (Length::Packets(packets), _) => packets,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bounded rate for a bounded time"
        )]
        (Length::Seconds(seconds), Some(pps)) => (seconds * pps).ceil() as u64,
        (Length::Seconds(_), None) | (Length::All, _) => PACKETS_MAX as u64,
    }
}

/// Closes a trial's account, of so many packets that were to be sent, and says whether it counts.
pub(crate) fn judge(trial: &mut Trial, wanted: u64, has_fragments: bool) {
    if has_fragments {
        trial.account.close_fragments();
    }
    trial.account.unaccounted = trial.account.remainder();
    trial.void = why_void(trial, wanted);
}

/// The limits of a trial that counts.
fn why_void(trial: &Trial, wanted: u64) -> Option<String> {
    let Account { offered, unaccounted, .. } = trial.account;
    if unaccounted != 0 {
        return Some(format!(
            "{unaccounted} of {offered} packets are unaccounted for (a target that drops by itself must say how many)"
        ));
    }
    let is_paced = trial.intended_pps.is_some();
    if is_paced && offered * 1000 < wanted * 999 {
        return Some(format!("the generator sent {offered} of {wanted} packets"));
    }
    let late = trial.lateness_us_p99.filter(|us| *us > LATENESS_US_MAX);
    if let Some(us) = late {
        return Some(format!("the generator was late: 99th percentile {us:.0} us"));
    }
    why_disturbed(trial.stolen_share)
}

/// Why a trial does not count because of the host, if so.
fn why_disturbed(stolen_share: f64) -> Option<String> {
    let taken = stolen_share * 100.0;
    (stolen_share > STOLEN_SHARE_MAX).then(|| format!("the host took {taken:.1} % of the CPU time"))
}

/// Whether the host took so much CPU time from this trial that it does not count, whatever else is said of it.
pub(crate) fn is_disturbed(trial: &Trial) -> bool {
    trial.stolen_share > STOLEN_SHARE_MAX
}

impl Account {
    /// What is missing beside packets that are lost: each lost one may keep one other from being of use. A queue
    /// behind the reassembly (IPv4 at input, or conntrack) counts both as one.
    fn close_fragments(&mut self) {
        let missing = u64::try_from(self.remainder()).unwrap_or(0);
        let lost = self.lost_or_dropped();
        if missing <= lost {
            self.incomplete = missing;
        }
    }

    fn lost_or_dropped(&self) -> u64 {
        self.policy_drops
            + self.shed
            + self.queue_drops
            + self.socket_drops
            + self.flushed
            + self.device_drops
            + self.sink_drops
    }

    /// What is left of the packets offered when every known place is taken off.
    fn remainder(&self) -> i64 {
        let placed = self.delivered + self.lost_or_dropped() + self.unrouted + self.incomplete;
        self.offered.cast_signed() - placed.cast_signed()
    }

    /// The share of the offered packets that were lost: neither delivered nor dropped by the target's own verdict.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn lost_share(&self) -> f64 {
        let lost = self.offered.saturating_sub(self.delivered + self.policy_drops);
        lost as f64 / self.offered.max(1) as f64
    }
}

/// Where the load goes.
pub(crate) const PORT: u16 = 9000;

/// In seconds, and in bytes.
const FRAGMENT_SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/ipfrag_time", "1"),
    ("ipv4/ipfrag_high_thresh", "268435456"),
    ("ipv6/ip6frag_time", "1"),
    ("ipv6/ip6frag_high_thresh", "268435456"),
];
const LATENESS_US_MAX: f64 = 200.0;
/// Where the host took more of the CPU time, a trial does not count.
pub(crate) const STOLEN_SHARE_MAX: f64 = 0.01;
