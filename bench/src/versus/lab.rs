//! Where the comparison takes place: a veth pair into a client's namespace, queue rules, and a rule behind them that
//! drops and counts what was let through.
//!
//! Invariant: all of it lies in the private namespace that this process runs in, and goes with it.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use fanq::{CpuId, KernelTable};

use crate::load::frame::{Path, Template};
use crate::load::schedule::{Pattern, Schedule};
use crate::load::xdp::{Entry, XdpSender};
use crate::load::{self, Sender};
use crate::result::{Arrivals, FlowChoice, FrameSize};

/// The lab, built.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) queues: u16,
    pub(crate) table: KernelTable,
    interface: u32,
    path: Path,
}

impl Lab {
    /// Builds it in the network namespace of this process.
    pub(crate) fn build(queues: u16) -> anyhow::Result<Self> {
        let last = queues.checked_sub(1).context("at least one queue is needed")?;
        let balance = if queues == 1 {
            "--queue-num 0".to_owned()
        } else {
            format!("--queue-balance 0:{last} --queue-cpu-fanout")
        };
        let queue_rule = format!(
            "iptables -t mangle -A INPUT -i engine -p udp -j NFQUEUE {balance} --queue-bypass"
        );
        for line in [
            "mount -t tmpfs tmpfs /run",
            "ip link set lo up",
            "ip netns add client",
            "ip link add engine type veth peer name client netns client",
            "ip link set engine address 02:00:00:00:00:01",
            "ip -n client link set client address 02:00:00:00:00:02",
            "ip addr add 10.77.0.1/24 dev engine",
            "ip -n client addr add 10.77.0.2/24 dev client",
            "ip link set engine up",
            "ip -n client link set client up",
            "ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev engine nud permanent",
            "ip -n client neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev client nud permanent",
            queue_rule.as_str(),
            "iptables -t filter -A INPUT -i engine -p udp --dport 9000 -j DROP",
        ] {
            command(line)?;
        }
        let index = command("ip -o link show engine")?;
        let index = index.split(':').next().and_then(|index| index.parse().ok());
        let interface = index.context("ip link shows no interface index")?;
        let path = Path {
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: [2, 0, 0, 0, 0, 1],
            source: [10, 77, 0, 2].into(),
            destination: [10, 77, 0, 1].into(),
            port: 9000,
        };
        let table = KernelTable::open()?;
        Ok(Self { queues, table, interface, path })
    }

    /// Sends `packets` from each CPU that fills a queue, at once, as fast as they go.
    pub(crate) fn load(&self, packets: u32, payload_bytes: usize) -> anyhow::Result<()> {
        let pattern = Pattern {
            pps: None,
            frame: FrameSize::Bytes(u16::try_from(42 + payload_bytes).context("the payload")?),
            flows: 1,
            flow_choice: FlowChoice::Uniform,
            arrivals: Arrivals::Constant,
        };
        let schedule = Arc::new(Schedule::new(&pattern, 1));
        let sender = |cpu| {
            let template = Template::new(self.path, pattern.frame, cpu, cpu)?;
            let schedule = Arc::clone(&schedule);
            XdpSender::new(
                CpuId(cpu),
                Entry::Receive(self.interface),
                template,
                schedule,
                packets.into(),
            )
            .map(Sender::Xdp)
        };
        let senders: Vec<_> = (0..self.queues).map(sender).collect::<anyhow::Result<_>>()?;
        load::send(&senders).map(drop)
    }
}

/// How many packets the rule behind the queues has counted and dropped since the last call.
pub(crate) fn take_let_through() -> anyhow::Result<u64> {
    let listing = command("iptables -t filter -nvxL INPUT -Z")?;
    let rule = listing.lines().find(|line| line.contains("dpt:9000"));
    let packets = rule.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    packets.context("the counting rule is gone")
}

/// Runs a command of plain words and returns what it prints.
pub(crate) fn command(line: &str) -> anyhow::Result<String> {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
