//! The machine as far as it matters for queues: read once, below a root.
//!
//! Invariant: reads only, and every fact is either a value or the reason why there is none. Programs are asked side by
//! side, each within a bound of time; nothing is changed. What the facts mean is not decided here.

#![allow(unused_imports, reason = "each part of the program takes what it needs")]

mod cpu_mask;
mod cpus;
mod devices;
mod ethtool;
mod fact;
mod interrupts;
mod kernel;
mod limits;
mod privileges;
mod processes;
mod program;
mod queues;
mod root;
mod rules;
mod sample;
mod softnet;

use std::collections::BTreeMap;
use std::thread::ScopedJoinHandle;

pub(crate) use cpu_mask::{cpus_of_mask, mask_of_cpus};
pub(crate) use cpus::{Cpus, Node};
pub(crate) use devices::{Device, RxQueue, TxQueue};
pub(crate) use ethtool::{Bounded, Channels, Feature as DeviceFeature, Rings, Spreading};
pub(crate) use fact::Fact;
pub(crate) use interrupts::{DeviceInterrupt, Interrupt};
pub(crate) use kernel::{Feature, Kernel, Presence, Version};
pub(crate) use limits::Limits;
pub(crate) use privileges::{CAP_NET_ADMIN, CAP_SYS_PTRACE, Privileges};
pub(crate) use processes::{FIRST_PROCESS, IRQBALANCE, Process, Processes, Thread};
pub(crate) use queues::{NetlinkSocket, Queues};
pub(crate) use root::Root;
pub(crate) use rules::{Backend, QueueRule, Rules};
pub(crate) use sample::{Conntrack, Sample};
pub(crate) use softnet::SoftnetRow;

/// What is known about the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: Kernel,
    /// What this process may do.
    pub(crate) privileges: Privileges,
    /// What this process may use.
    pub(crate) limits: Limits,
    pub(crate) cpus: Cpus,
    /// Those of [`SYSCTLS`], by name (`net.core.rmem_max`).
    pub(crate) sysctls: BTreeMap<&'static str, Fact<String>>,
    pub(crate) queues: Queues,
    pub(crate) rules: Rules,
    /// The devices asked for, or the hardware that is up.
    pub(crate) devices: Fact<Vec<Device>>,
    /// Devices that were asked for and are not there.
    pub(crate) devices_missing: Vec<String>,
    /// What counts while the machine runs.
    pub(crate) sample: Sample,
}

/// The settings of the kernel that are read.
pub(crate) const SYSCTLS: [&str; 8] = [
    "net.core.rmem_max",
    "net.core.rmem_default",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "net.core.rps_sock_flow_entries",
    "kernel.sched_autogroup_enabled",
    "net.bridge.bridge-nf-call-iptables",
];

impl Machine {
    /// Reads everything. `devices` are the names of those to look at; none means the hardware that is up.
    pub(crate) fn read(root: &Root, devices: &[String]) -> Self {
        let (devices, devices_missing) = chosen_devices(root, devices);
        let questions = Rules::questions(root);
        std::thread::scope(|scope| {
            let rules: Vec<_> = questions
                .iter()
                .map(|question| (*question, scope.spawn(|| root.program(question.words))))
                .collect();
            let names = devices.known().cloned().unwrap_or_default();
            let devices = devices.map(|names| {
                let ask = |words: [String; 3]| {
                    scope.spawn(move || root.program(&words.each_ref().map(String::as_str)))
                };
                let asked = |name: String| {
                    let answers =
                        Device::questions(&name).map(|words| ask(words.map(str::to_owned)));
                    (name, answers)
                };
                names.into_iter().map(asked).collect::<Vec<_>>()
            });
            let cpus = Cpus::read(root);
            let queues = Queues::read(root);
            let interrupts = interrupts::read(root);
            let sample = Sample::read(root, &cpus.online, &names);
            let device = |(name, answers): (String, [ScopedJoinHandle<'_, Fact<String>>; 4])| {
                Device::read(root, &name, &interrupts, answers.map(answer_of))
            };
            let rules = rules.into_iter().map(|(question, answer)| (question, answer_of(answer)));
            Self {
                kernel: Kernel::read(root),
                privileges: Privileges::read(root),
                limits: Limits::of(root, "self"),
                sysctls: SYSCTLS.into_iter().map(|name| (name, sysctl(root, name))).collect(),
                rules: Rules::of(&rules.collect::<Vec<_>>()),
                devices: devices.map(|devices| devices.into_iter().map(device).collect()),
                devices_missing,
                cpus,
                queues,
                sample,
            }
        })
    }

    /// The names of the devices that are looked at.
    pub(crate) fn device_names(&self) -> Vec<String> {
        self.devices().map(|device| device.name.clone()).collect()
    }

    /// Those that could be read.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.known().into_iter().flatten()
    }

    /// A setting of the kernel as a number.
    pub(crate) fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name)?.known()?.parse().ok()
    }
}

fn answer_of(asking: ScopedJoinHandle<'_, Fact<String>>) -> Fact<String> {
    asking.join().unwrap_or_else(|_| Fact::Unseen("asking a program failed".to_owned()))
}

fn sysctl(root: &Root, name: &str) -> Fact<String> {
    root.text(&format!("proc/sys/{}", name.replace('.', "/")))
}

/// Which devices to look at, and which of those asked for are not there.
fn chosen_devices(root: &Root, asked: &[String]) -> (Fact<Vec<String>>, Vec<String>) {
    let names = match devices::names(root) {
        Fact::Known(names) => names,
        Fact::Unseen(why) => return (Fact::Unseen(why), Vec::new()),
    };
    if asked.is_empty() {
        let worth_a_look = |name: &String| devices::worth_a_look(root, name);
        return (Fact::Known(names.into_iter().filter(worth_a_look).collect()), Vec::new());
    }
    let (there, missing) = asked.iter().cloned().partition(|name| names.contains(name));
    (Fact::Known(there), missing)
}

#[cfg(test)]
mod tests;
