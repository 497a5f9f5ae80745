//! Which CPU goes on with what: interrupts, receive packet steering, transmit queues.
//!
//! Invariant: an assignment that serves is left as it is, in whatever order the card numbers its queues.

use std::collections::BTreeMap;

use fanq::{CpuId, CpuList};

use super::Draft;
use crate::machine::{Device, DeviceInterrupt, Fact, IRQBALANCE, Machine, mask_of_cpus};
use crate::tune::setting::Setting;

/// One receive queue for each CPU near the card.
pub(super) fn interrupts(draft: &mut Draft<'_>, device: &Device, near: &CpuList) {
    let all = match &device.interrupts {
        Fact::Known(all) => all,
        Fact::Unseen(why) => {
            return draft
                .note(format!("{}: its interrupts were not looked at: {why}", device.name));
        }
    };
    let receiving: Vec<_> = all.iter().filter(|interrupt| interrupt.receives()).collect();
    if near.is_empty() || is_even(&receiving, near) {
        return;
    }
    for (interrupt, cpu) in receiving.iter().zip(near.iter().cycle()) {
        draft.propose(
            Setting::Irq { number: interrupt.number },
            &cpu.to_string(),
            || {
                format!(
                    "{} of {} fills the queue of the CPU that it comes to; each CPU near the card with a worker gets \
                     its share",
                    interrupt.name, device.name
                )
            },
            "that CPU takes all of it, also when it is busy and others are not",
        );
    }
}

/// Whether each comes to one CPU near the card, and no CPU has more than its share.
fn is_even(interrupts: &[&DeviceInterrupt], near: &CpuList) -> bool {
    let mut shares: BTreeMap<CpuId, usize> = BTreeMap::new();
    for interrupt in interrupts {
        let only =
            interrupt.cpus().filter(|cpus| cpus.len() == 1).and_then(|cpus| cpus.iter().next());
        let Some(cpu) = only.filter(|cpu| near.contains(*cpu)) else { return false };
        *shares.entry(cpu).or_default() += 1;
    }
    let share = interrupts.len().div_ceil(near.len());
    shares.values().all(|count| *count <= share)
}

/// Where a card has fewer queues than there are workers, its queues hand packets on; where it has enough, they do
/// not. Says whether packets are handed on when that is done.
pub(super) fn steer(draft: &mut Draft<'_>, device: &Device, near: &CpuList) -> bool {
    let queues = device.rx_queues.len();
    let enough = queues >= near.len();
    for (index, queue) in device.rx_queues.iter().enumerate() {
        // Each CPU gets its packets from one queue.
        let cpus: CpuList = if enough {
            CpuList::default()
        } else {
            near.iter()
                .enumerate()
                .filter(|(cpu, _)| cpu % queues == index)
                .map(|(_, cpu)| cpu)
                .collect()
        };
        let (reason, cost) = if enough {
            (
                "the card has a queue for each CPU with a worker; handing its packets on costs an interrupt more",
                "none",
            )
        } else {
            (
                "the card has fewer queues than there are workers near it: this hands each connection's packets to one \
                 of these CPUs",
                "an interrupt between CPUs for a run of packets, and their bytes go from cache to cache",
            )
        };
        draft.propose(
            Setting::Rps { device: device.name.clone(), queue: queue.number },
            &mask_of_cpus(&cpus),
            || format!("{}: {reason}", device.name),
            cost,
        );
    }
    !enough && queues > 0
}

/// Each CPU sends by one queue, and as few CPUs as possible by the same.
pub(super) fn senders(draft: &mut Draft<'_>, device: &Device, online: &CpuList) {
    let queues: Vec<_> = device
        .tx_queues
        .iter()
        .filter_map(|queue| Some((queue.number, queue.xps_cpus.known()?)))
        .collect();
    if queues.len() < 2 || serves(&queues, online) {
        return;
    }
    for (index, (number, _)) in queues.iter().enumerate() {
        let cpus: CpuList = online
            .iter()
            .enumerate()
            .filter(|(cpu, _)| cpu % queues.len() == index)
            .map(|(_, cpu)| cpu)
            .collect();
        draft.propose(
            Setting::Xps { device: device.name.clone(), queue: *number },
            &mask_of_cpus(&cpus),
            || {
                format!(
                    "{}: what a worker lets pass is sent on its CPU; with a queue of its own no other CPU holds the \
                     lock",
                    device.name
                )
            },
            "packets of one connection that changes its CPU may overtake each other",
        );
    }
}

/// Whether every CPU has exactly one queue, and none has more CPUs than its share.
fn serves(queues: &[(u32, &CpuList)], online: &CpuList) -> bool {
    let share = online.len().div_ceil(queues.len());
    let one_each =
        online.iter().all(|cpu| queues.iter().filter(|(_, cpus)| cpus.contains(cpu)).count() == 1);
    one_each && queues.iter().all(|(_, cpus)| cpus.len() <= share)
}

/// It would move the interrupts again, within seconds.
pub(super) fn note_irqbalance(draft: &mut Draft<'_>, machine: &Machine) {
    let runs = machine.queues.processes.known().and_then(|found| found.named.get(IRQBALANCE));
    let Some(pid) = runs else { return };
    let planned = |setting: &Setting| match setting {
        Setting::Irq { number } => Some(format!("--banirq={number}")),
        _ => None,
    };
    let banned: Vec<_> =
        draft.plan.changes.iter().filter_map(|change| planned(&change.setting)).collect();
    if banned.is_empty() {
        return;
    }
    let words = banned.join(" ");
    draft.note(format!(
        "irqbalance (process {pid}) runs and would move the interrupts again: stop it (systemctl disable --now \
         irqbalance), or have it leave these alone (in /etc/default/irqbalance, then systemctl restart irqbalance): \
         IRQBALANCE_ARGS=\"{words}\""
    ));
}
