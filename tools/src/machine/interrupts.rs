//! The interrupts: how often each came to which CPU, and what it belongs to.
//!
//! Invariant: counts belong to the CPUs of the table's head, which leaves out those that are offline.

use fanq::{CpuId, CpuList};

use super::cpus::cpu_list;
use super::fact::Fact;
use super::root::Root;

/// A line of `/proc/interrupts` with a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interrupt {
    pub(crate) number: u32,
    pub(crate) counts: Vec<(CpuId, u64)>,
    /// `eth0-TxRx-0`, `virtio2-input.0`, `mlx5_comp0@pci:0000:3b:00.0`.
    pub(crate) name: String,
}

/// An interrupt of a device's queue, and where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceInterrupt {
    pub(crate) number: u32,
    pub(crate) name: String,
    /// The CPUs that it may come to.
    pub(crate) affinity: Fact<CpuList>,
    /// The one to which the kernel has sent it.
    pub(crate) effective: Fact<CpuList>,
}

impl DeviceInterrupt {
    pub(super) fn read(root: &Root, interrupt: &Interrupt) -> Self {
        let list = |name: &str| cpu_list(root, &format!("proc/irq/{}/{name}", interrupt.number));
        Self {
            number: interrupt.number,
            name: interrupt.name.clone(),
            affinity: list("smp_affinity_list"),
            effective: list("effective_affinity_list"),
        }
    }

    /// Where it goes: to the one CPU that the kernel chose, or to those that it may.
    pub(crate) fn cpus(&self) -> Option<&CpuList> {
        self.effective.known().filter(|cpus| !cpus.is_empty()).or(self.affinity.known())
    }

    /// Whether it is of a queue that receives, by its name: drivers end it in the queue's number, and say if the queue
    /// only sends.
    pub(crate) fn receives(&self) -> bool {
        let name = self.name.to_lowercase();
        let own = name.split('@').next().unwrap_or(&name);
        let rest = own.trim_end_matches(|c: char| c.is_ascii_digit());
        let numbered = rest.len() < own.len() && rest.contains(['-', '.', '_']);
        let numbered = numbered || rest.ends_with("-rx");
        let sends = rest.contains("tx") && !rest.contains("rx") || rest.contains("output");
        let other = ["async", "ctrl", "config", "event", "misc", "mgmt", "fdir"];
        numbered && !sends && !other.iter().any(|word| rest.contains(word))
    }
}

pub(super) fn read(root: &Root) -> Fact<Vec<Interrupt>> {
    root.text("proc/interrupts").map(|text| {
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let cpus: Vec<_> = head
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix("CPU")?.parse().ok().map(CpuId))
            .collect();
        lines.filter_map(|line| interrupt(line, &cpus)).collect()
    })
}

fn interrupt(line: &str, cpus: &[CpuId]) -> Option<Interrupt> {
    let (number, rest) = line.split_once(':')?;
    let mut words = rest.split_ascii_whitespace();
    let counts: Option<Vec<_>> =
        cpus.iter().map(|cpu| Some((*cpu, words.next()?.parse().ok()?))).collect();
    Some(Interrupt {
        number: number.trim().parse().ok()?,
        counts: counts?,
        name: words.next_back().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_by_the_cpus_of_the_head() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let text = "           CPU0       CPU4       \n\
                    \x2038:         5      31054 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n\
                    NMI:          0          0   Non-maskable interrupts\n\
                    ERR:          0\n 9: 1 2\n";
        std::fs::write(folder.path().join("proc/interrupts"), text).unwrap();
        let read = read(&Root::new(folder.path()));
        let [first, second] = read.known().unwrap().as_slice() else { panic!("{read:?}") };
        assert_eq!((first.number, first.name.as_str()), (38, "virtio2-input.0"));
        assert_eq!(first.counts, [(CpuId(0), 5), (CpuId(4), 31_054)]);
        assert_eq!((second.number, second.name.as_str()), (9, ""));
    }

    #[test]
    fn queues_that_receive_are_known_by_their_names() {
        let receives = |name: &str| {
            let unseen = || Fact::Unseen(String::new());
            let (affinity, effective) = (unseen(), unseen());
            DeviceInterrupt { number: 1, name: name.to_owned(), affinity, effective }.receives()
        };
        for name in [
            "eth0-TxRx-3",
            "i40e-eth0-TxRx-12",
            "eth0-rx-0",
            "eth0-Tx-Rx-7",
            "virtio2-input.0",
            "eth0-0",
            "mlx5_comp0@pci:0000:3b:00.0",
            "eth0-q0-rx",
            "vmxnet3-eth0-rxtx-1",
        ] {
            assert!(receives(name), "{name}");
        }
        for name in [
            "eth0-tx-0",
            "virtio2-output.0",
            "virtio2-config",
            "mlx5_async0@pci:0000:3b:00.0",
            "eth0",
            "i40e-0000:3b:00.0:misc",
            "eth0-q0-tx",
            "i40e-eth0-fdir-TxRx-0",
        ] {
            assert!(!receives(name), "{name}");
        }
    }
}
