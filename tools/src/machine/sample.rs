//! What counts while the machine runs: a look at it at one moment, to be compared with a later one.
//!
//! Invariant: reads a few small files and asks no program, so that two samples lie as far apart as the caller waits.

use std::collections::BTreeMap;

use fanq::{CpuList, KernelRow};

use super::fact::Fact;
use super::queues::{self, NetlinkSocket};
use super::root::Root;
use super::softnet::{self, SoftnetRow};

/// The counters at one moment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) queues: Fact<Vec<KernelRow>>,
    pub(crate) sockets: Fact<Vec<NetlinkSocket>>,
    pub(crate) softnet: Fact<Vec<SoftnetRow>>,
    /// Packets for which a device's ring had no room (`rx_missed_errors`), by device.
    pub(crate) missed: BTreeMap<String, u64>,
    /// None where connections are not tracked.
    pub(crate) conntrack: Option<Conntrack>,
}

/// How full the table of connections is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conntrack {
    pub(crate) count: u64,
    pub(crate) max: u64,
}

impl Sample {
    /// Of these devices, and of the CPUs that are online.
    pub(crate) fn read(root: &Root, online: &Fact<CpuList>, devices: &[String]) -> Self {
        let number = |name: &str| {
            let number = root.value(&format!("proc/sys/net/netfilter/nf_conntrack_{name}"));
            number.known().copied()
        };
        let conntrack = || Some(Conntrack { count: number("count")?, max: number("max")? });
        let missed = |name: &String| {
            let path = format!("sys/class/net/{name}/statistics/rx_missed_errors");
            Some((name.clone(), *root.value(&path).known()?))
        };
        Self {
            missed: devices.iter().filter_map(missed).collect(),
            queues: queues::table(root),
            sockets: queues::sockets(root),
            softnet: softnet::read(root, online),
            conntrack: conntrack(),
        }
    }
}
