//! The network devices of the namespace.
//!
//! Invariant: a device counts as hardware only if it hangs on a bus. One that /proc/net/dev does not list belongs to
//! another namespace, and is left out.

use std::collections::BTreeMap;

use fanq::CpuList;

use super::cpu_mask::cpus_of_mask;
use super::ethtool::{self, Channels, Feature, Rings, Spreading};
use super::fact::Fact;
use super::interrupts::{DeviceInterrupt, Interrupt};
use super::root::Root;

/// A network device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// Whether it hangs on a bus; veth, bridges and the like do not.
    pub(crate) hardware: bool,
    /// `up`, `down`, `unknown` (lo and the like).
    pub(crate) state: Fact<String>,
    pub(crate) driver: Option<String>,
    pub(crate) mtu: Fact<u32>,
    /// The node it hangs on; none where the machine does not say.
    pub(crate) node: Option<u16>,
    /// Its queues that receive, by number.
    pub(crate) rx_queues: Vec<RxQueue>,
    /// Its queues that send, by number.
    pub(crate) tx_queues: Vec<TxQueue>,
    /// What comes by its queues, sending ones too.
    pub(crate) interrupts: Fact<Vec<DeviceInterrupt>>,
    /// None within: the device has no such thing.
    pub(crate) channels: Fact<Option<Channels>>,
    pub(crate) rings: Fact<Option<Rings>>,
    pub(crate) spreading: Fact<Option<Spreading>>,
    pub(crate) features: Fact<BTreeMap<String, Feature>>,
    /// Whether threads of the kernel take its packets up, and not soft interrupts; from Linux 5.12 on.
    pub(crate) threaded: Fact<bool>,
}

/// A queue that receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RxQueue {
    pub(crate) number: u32,
    /// To whom its packets are handed (RPS); nobody where it is empty.
    pub(crate) rps_cpus: Fact<CpuList>,
}

/// A queue that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TxQueue {
    pub(crate) number: u32,
    /// Whose packets it takes (XPS); not there for a device with one queue.
    pub(crate) xps_cpus: Fact<CpuList>,
}

impl Device {
    /// The CPUs that handle what comes in: those that its packets are handed to (RPS), and those of the interrupts of
    /// queues that hand on nothing. None where neither is known.
    pub(crate) fn handling_cpus(&self) -> Option<CpuList> {
        let rps = self.rx_queues.iter().filter_map(|queue| queue.rps_cpus.known());
        let handed: Vec<_> = rps.clone().flat_map(CpuList::iter).collect();
        if !handed.is_empty() && rps.clone().all(|cpus| !cpus.is_empty()) {
            return Some(handed.into_iter().collect());
        }
        let interrupts = self.interrupts.known()?.iter().filter(|one| one.receives());
        let interrupted = interrupts.filter_map(DeviceInterrupt::cpus).flat_map(CpuList::iter);
        let all: CpuList = interrupted.chain(handed).collect();
        (!all.is_empty()).then_some(all)
    }

    /// The command lines whose answers [`Device::read`] needs.
    pub(super) fn questions(name: &str) -> [[&str; 3]; 4] {
        ["-l", "-g", "-x", "-k"].map(|option| ["ethtool", option, name])
    }

    /// With the answers to its questions, in their order.
    pub(super) fn read(
        root: &Root,
        name: &str,
        interrupts: &Fact<Vec<Interrupt>>,
        answers: [Fact<String>; 4],
    ) -> Self {
        let folder = format!("sys/class/net/{name}");
        let file = |below: &str| format!("{folder}/{below}");
        // A virtio device hangs on a PCI device, which knows the node.
        let node = root
            .value::<i32>(&file("device/numa_node"))
            .or_else(|| root.value(&file("device/../numa_node")));
        let [channels, rings, spreading, features] = answers;
        Self {
            hardware: is_hardware(root, name),
            state: root.text(&file("operstate")),
            driver: root.link_name(&file("device/driver")).known().cloned(),
            mtu: root.value(&file("mtu")),
            node: node.known().and_then(|number| u16::try_from(*number).ok()),
            rx_queues: queues(root, &folder, "rx-", |number, path| RxQueue {
                number,
                rps_cpus: mask(root, &format!("{path}/rps_cpus")),
            }),
            tx_queues: queues(root, &folder, "tx-", |number, path| TxQueue {
                number,
                xps_cpus: mask(root, &format!("{path}/xps_cpus")),
            }),
            interrupts: own_interrupts(root, name, interrupts),
            channels: channels.map(|text| Channels::read(&text)),
            rings: rings.map(|text| Rings::read(&text)),
            spreading: spreading.map(|text| Spreading::read(&text)),
            features: features.map(|text| ethtool::features(&text)),
            threaded: root.value::<u8>(&file("threaded")).map(|number| number > 0),
            name: name.to_owned(),
        }
    }
}

/// The names of the namespace's devices.
pub(super) fn names(root: &Root) -> Fact<Vec<String>> {
    let name = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
    root.text("proc/net/dev").map(|text| text.lines().filter_map(name).collect())
}

/// Those to look at where none was named: hardware that is up.
pub(super) fn worth_a_look(root: &Root, name: &str) -> bool {
    let state = root.text(&format!("sys/class/net/{name}/operstate"));
    is_hardware(root, name) && state.known().is_none_or(|state| state != "down")
}

fn is_hardware(root: &Root, name: &str) -> bool {
    root.exists(&format!("sys/class/net/{name}/device"))
}

fn queues<T>(root: &Root, folder: &str, prefix: &str, queue: impl Fn(u32, &str) -> T) -> Vec<T> {
    let folder = format!("{folder}/queues");
    let names = root.names(&folder);
    let numbered = names.known().into_iter().flatten().filter_map(|name| {
        let number = name.strip_prefix(prefix)?.parse().ok()?;
        Some(queue(number, &format!("{folder}/{name}")))
    });
    numbered.collect()
}

fn mask(root: &Root, below: &str) -> Fact<CpuList> {
    root.text(below).and_then(|text| match cpus_of_mask(&text) {
        Some(cpus) => Fact::Known(cpus),
        None => Fact::Unseen(format!("/{below}: `{text}` is no mask of CPUs")),
    })
}

/// The interrupts that the bus has given to the device; where it does not tell, those that are called after it.
fn own_interrupts(
    root: &Root,
    name: &str,
    interrupts: &Fact<Vec<Interrupt>>,
) -> Fact<Vec<DeviceInterrupt>> {
    let numbers = |below: &str| {
        let names = root.names(&format!("sys/class/net/{name}/{below}"));
        names.map(|names| names.iter().filter_map(|name| name.parse().ok()).collect::<Vec<u32>>())
    };
    let of_bus = numbers("device/msi_irqs").or_else(|| numbers("device/../msi_irqs"));
    let called_so = |interrupt: &&Interrupt| {
        let parts = interrupt.name.split(['-', '.', ':', '@']);
        parts.into_iter().any(|part| part == name)
    };
    let own = |interrupt: &&Interrupt| match of_bus.known() {
        Some(numbers) => numbers.contains(&interrupt.number),
        None => called_so(interrupt),
    };
    match interrupts {
        Fact::Unseen(why) => Fact::Unseen(why.clone()),
        Fact::Known(all) => Fact::Known(
            all.iter().filter(own).map(|found| DeviceInterrupt::read(root, found)).collect(),
        ),
    }
}
