//! The CPUs: which there are, on which node, and how they are kept.
//!
//! Invariant: CPU numbers are the kernel's, holes included. Lists may be empty where the kernel's files are.

use fanq::{CpuId, CpuList};

use super::fact::Fact;
use super::root::Root;

/// The machine's CPUs.
#[derive(Debug)]
pub(crate) struct Cpus {
    pub(crate) online: Fact<CpuList>,
    /// Those that the scheduler leaves alone (`isolcpus=`).
    pub(crate) isolated: Fact<CpuList>,
    pub(crate) nodes: Fact<Vec<Node>>,
    /// The frequency governor of each online CPU that has one; a virtual machine's mostly have none.
    pub(crate) governors: Vec<(CpuId, String)>,
}

/// CPUs that share their memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) number: u16,
    pub(crate) cpus: CpuList,
}

impl Cpus {
    pub(crate) fn read(root: &Root) -> Self {
        let list = |name: &str| cpu_list(root, &format!("{FOLDER}/{name}"));
        let online = list("online");
        let governor = |cpu: CpuId| {
            let path = format!("{FOLDER}/cpu{cpu}/cpufreq/scaling_governor");
            Some((cpu, root.text(&path).known()?.clone()))
        };
        let governors = online.known().into_iter().flat_map(CpuList::iter).filter_map(governor);
        Self {
            governors: governors.collect(),
            online,
            isolated: list("isolated"),
            nodes: nodes(root),
        }
    }

    /// The node of a CPU.
    pub(crate) fn node_of(&self, cpu: CpuId) -> Option<u16> {
        let nodes = self.nodes.known()?;
        nodes.iter().find(|node| node.cpus.contains(cpu)).map(|node| node.number)
    }
}

fn nodes(root: &Root) -> Fact<Vec<Node>> {
    let node = |name: &String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let cpus = cpu_list(root, &format!("sys/devices/system/node/{name}/cpulist"));
        Some(Node { number, cpus: cpus.known()?.clone() })
    };
    root.names("sys/devices/system/node").map(|names| names.iter().filter_map(node).collect())
}

/// A file that holds a list of CPUs, which may be empty.
pub(super) fn cpu_list(root: &Root, below: &str) -> Fact<CpuList> {
    root.text(below).and_then(|text| match cpus_of_text(&text) {
        Some(cpus) => Fact::Known(cpus),
        None => Fact::Unseen(format!("/{below}: `{text}` is no list of CPUs")),
    })
}

pub(super) fn cpus_of_text(text: &str) -> Option<CpuList> {
    match text.trim() {
        // nohz_full is written so where there is none.
        "" | "(null)" => Some(CpuList::default()),
        list => list.parse().ok(),
    }
}

const FOLDER: &str = "sys/devices/system/cpu";
