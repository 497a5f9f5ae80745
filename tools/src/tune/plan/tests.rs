//! Plans for machines made of files: what is changed, what is left, and that nothing is left to change behind an apply.

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::machine::Root;
use crate::tune::apply::apply;
use crate::tune::journal::Store;
use crate::tune::knobs::RootKnobs;
use crate::tune::revert::revert;

/// A machine to be written down, with one card.
#[derive(Clone)]
struct Made {
    /// Of each of two nodes.
    cpus: u16,
    rx_queues: u16,
    channels_max: u16,
    card_node: i16,
    governor: &'static str,
    rmem_max: u32,
    irqbalance: bool,
    softnet: &'static str,
    connections: (u32, u32),
}

const SOUND: Made = Made {
    cpus: 2,
    rx_queues: 2,
    channels_max: 2,
    card_node: 0,
    governor: "performance",
    rmem_max: 67_108_864,
    irqbalance: false,
    softnet: "000f4240 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0 0\n",
    connections: (10, 262_144),
};

const LARGE: Made = Made {
    cpus: 64,
    rx_queues: 64,
    channels_max: 128,
    card_node: 1,
    governor: "schedutil",
    rmem_max: 212_992,
    irqbalance: true,
    ..SOUND
};

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

impl Made {
    fn make(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let Self { cpus, governor, .. } = *self;
        let all = 2 * cpus;
        let cpu = "sys/devices/system/cpu";
        write(root, &format!("{cpu}/online"), &format!("0-{}\n", all - 1));
        for number in 0..all {
            let file = format!("{cpu}/cpu{number}/cpufreq/scaling_governor");
            write(root, &file, &format!("{governor}\n"));
        }
        let node = "sys/devices/system/node/node";
        write(root, &format!("{node}0/cpulist"), &format!("0-{}\n", cpus - 1));
        write(root, &format!("{node}1/cpulist"), &format!("{cpus}-{}\n", all - 1));
        let (count, max) = self.connections;
        for (name, value) in [
            ("core/rmem_max", self.rmem_max),
            ("core/rmem_default", 212_992),
            ("core/netdev_budget", 300),
            ("core/netdev_budget_usecs", 8000),
            ("core/netdev_max_backlog", 1000),
            ("netfilter/nf_conntrack_count", count),
            ("netfilter/nf_conntrack_max", max),
        ] {
            write(root, &format!("proc/sys/net/{name}"), &format!("{value}\n"));
        }
        write(root, "proc/net/softnet_stat", self.softnet);
        if self.irqbalance {
            write(root, "proc/77/comm", "irqbalance\n");
        }
        self.make_card(root);
        folder
    }

    fn make_card(&self, root: &Path) {
        let Self { rx_queues, channels_max, card_node, .. } = *self;
        write(root, "proc/net/dev", "Inter-|\n face |\n  eth0: 1\n  veth0: 1\n");
        let net = "sys/class/net/eth0";
        write(root, &format!("{net}/operstate"), "up\n");
        write(root, &format!("{net}/device/numa_node"), &format!("{card_node}\n"));
        write(root, "sys/class/net/veth0/operstate", "up\n");
        write(root, "sys/class/net/veth0/queues/rx-0/rps_cpus", "0\n");
        let mut table =
            (0..2 * self.cpus).fold(String::new(), |head, cpu| head + &format!(" CPU{cpu}"));
        table += "\n";
        for queue in 0..rx_queues {
            write(root, &format!("{net}/queues/rx-{queue}/rps_cpus"), "00000000,00000000\n");
            // Every CPU by one queue, in turn.
            let sends =
                (0..2 * self.cpus).filter(|cpu| cpu % rx_queues == queue).map(CpuId).collect();
            let mask = crate::machine::mask_of_cpus(&sends);
            write(root, &format!("{net}/queues/tx-{queue}/xps_cpus"), &format!("{mask}\n"));
            let irq = 100 + queue;
            let counts = " 0".repeat(usize::from(2 * self.cpus));
            writeln!(table, " {irq}:{counts} PCI-MSIX 1-edge eth0-TxRx-{queue}").unwrap();
            let all = format!("0-{}\n", 2 * self.cpus - 1);
            // A sound one has each interrupt on a CPU of the card's node.
            let at = u16::try_from(card_node).unwrap() * self.cpus + queue;
            let affinity = if self.governor == "performance" { format!("{at}\n") } else { all };
            write(root, &format!("proc/irq/{irq}/smp_affinity_list"), &affinity);
            write(root, &format!("proc/irq/{irq}/eth0-TxRx-{queue}/x"), "");
        }
        write(root, "proc/interrupts", &table);
        let sections = |max: &str, now: &str| {
            format!(
                "Title for eth0:\nPre-set maximums:\n{max}\nCurrent hardware settings:\n{now}\n"
            )
        };
        let channels =
            sections(&format!("Combined:\t{channels_max}"), &format!("Combined:\t{rx_queues}"));
        write(root, "commands/ethtool -l eth0", &channels);
        let ring = if self.governor == "performance" { 4096 } else { 512 };
        write(
            root,
            "commands/ethtool -g eth0",
            &sections("RX:\t4096\nTX:\t4096", &format!("RX:\t{ring}\nTX:\t512")),
        );
        write(
            root,
            "commands/ethtool -k eth0",
            "generic-receive-offload: on\nlarge-receive-offload: off [fixed]\n",
        );
    }
}

fn target(queues: &str) -> Target {
    Target { queues: queues.parse().unwrap(), rcvbuf: 64 * fanq::MIB, maxlen: 16_384 }
}

fn plan_for(root: &Path, queues: &str, devices: &[&str]) -> Plan {
    let devices: Vec<_> = devices.iter().map(|name| (*name).to_owned()).collect();
    let machine = Machine::read(&Root::new(root), &devices);
    Plan::of(&machine, &RootKnobs::new(root), target(queues))
}

fn ids(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| change.setting.id()).collect()
}

fn value<'a>(plan: &'a Plan, id: &str) -> Option<&'a str> {
    let found = plan.changes.iter().find(|change| change.setting.id() == id);
    found.map(|change| change.new.as_str())
}

#[test]
fn a_sound_machine_is_left_as_it_is() {
    let root = SOUND.make();
    let plan = plan_for(root.path(), "0-3", &[]);
    assert_eq!((ids(&plan), plan.notes), (vec![], vec![]));
}

#[test]
fn a_card_whose_packets_soft_interrupts_take_up_is_told_of() {
    let root = SOUND.make();
    for (threaded, told) in [("0\n", true), ("1\n", false), ("2\n", false)] {
        write(root.path(), "sys/class/net/eth0/threaded", threaded);
        let plan = plan_for(root.path(), "0-3", &[]);
        assert_eq!(
            plan.notes.iter().any(|note| note.contains("'^napi/eth0-'")),
            told,
            "{threaded}"
        );
        assert_eq!(ids(&plan), Vec::<String>::new());
    }
}

/// Two sockets of 64 CPUs, the card on the second: each of its queues to a CPU there.
#[test]
fn a_large_machine_gets_a_queue_for_each_cpu_near_its_card() {
    let root = LARGE.make();
    let plan = plan_for(root.path(), "0-127", &[]);
    let count = |kind: &str| ids(&plan).iter().filter(|id| id.starts_with(kind)).count();
    assert_eq!((count("irq."), count("governor."), count("ring."), count("rps.")), (64, 128, 1, 0));
    assert_eq!((count("channels."), count("xps."), count("net.core.")), (0, 0, 1));
    assert_eq!((value(&plan, "irq.100"), value(&plan, "irq.163")), (Some("64"), Some("127")));
    assert_eq!(value(&plan, "ring.eth0.rx"), Some("4096"));
    assert_eq!(value(&plan, "net.core.rmem_max"), Some("67108864"));
    let note = plan.notes.iter().find(|note| note.contains("irqbalance (process 77)")).unwrap();
    assert!(
        note.contains("--banirq=100 --banirq=101") && note.contains("systemctl disable"),
        "{note}"
    );
    for change in &plan.changes {
        assert!(
            !change.reason.contains('\n') && !change.reason.is_empty() && !change.cost.is_empty()
        );
    }
}

/// Behind an apply of the plan there is nothing to change; behind the revert every file is as before.
#[test]
fn an_applied_plan_leaves_nothing_to_change_and_its_revert_no_trace() {
    for (made, queues, devices) in [
        (LARGE, "0-127", &["eth0"][..]),
        (LARGE, "0-63", &[]),
        (Made { rx_queues: 1, channels_max: 1, ..LARGE }, "0-3", &["eth0", "veth0"]),
    ] {
        let root = made.make();
        let folder = tempfile::tempdir().unwrap();
        let copy = |to: &str| {
            let to = folder.path().join(to);
            let status =
                std::process::Command::new("cp").arg("-a").arg(root.path()).arg(&to).status();
            assert!(status.unwrap().success());
            to
        };
        let before = copy("before");
        let plan = plan_for(root.path(), queues, devices);
        assert!(plan.changes.len() > 2);
        let store = Store::open(&folder.path().join("tune.json")).unwrap();
        let mut knobs = RootKnobs::new(root.path());
        assert_eq!(apply(&mut knobs, &store, &plan.changes).unwrap().changed, plan.changes.len());
        assert_eq!(ids(&plan_for(root.path(), queues, devices)), Vec::<String>::new());
        revert(&mut knobs, &store, false).unwrap();
        let after = copy("after");
        let same =
            std::process::Command::new("diff").arg("-r").args([&before, &after]).output().unwrap();
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    }
}

#[test]
fn new_channels_come_first_and_what_they_bring_later() {
    let made = Made { rx_queues: 8, governor: "schedutil", ..LARGE };
    let root = made.make();
    let plan = plan_for(root.path(), "0-127", &[]);
    assert_eq!(value(&plan, "channels.eth0.combined"), Some("64"));
    assert!(!ids(&plan).iter().any(|id| id.starts_with("irq.") || id.starts_with("rps.")));
    assert!(
        plan.notes.iter().any(|note| note.contains("`fanq tune revert` does not bring it back")),
        "{:?}",
        plan.notes
    );
    // Fewer, where more would give some CPU several.
    let plan = plan_for(Made { card_node: 0, ..made }.make().path(), "0-3", &[]);
    assert_eq!(value(&plan, "channels.eth0.combined"), Some("4"));
    // No more than there can be.
    let plan = plan_for(Made { channels_max: 16, ..made }.make().path(), "0-127", &[]);
    assert_eq!(value(&plan, "channels.eth0.combined"), Some("16"));
}

/// A card with one queue hands packets on; veth only if it is named, and then nothing else of it.
#[test]
fn steering_is_for_cards_with_too_few_queues() {
    let made = Made { rx_queues: 1, channels_max: 1, ..SOUND };
    let root = made.make();
    let plan = plan_for(root.path(), "0-3", &[]);
    assert_eq!(value(&plan, "rps.eth0.rx-0"), Some("3"), "the CPUs of node 0");
    assert_eq!(value(&plan, "net.core.netdev_max_backlog"), Some("16384"));
    let plan = plan_for(root.path(), "0-3", &["veth0"]);
    assert_eq!(ids(&plan), ["rps.veth0.rx-0", "net.core.netdev_max_backlog"]);
    assert_eq!(value(&plan, "rps.veth0.rx-0"), Some("f"));
    // Enough queues: what is set is cleared.
    let root = SOUND.make();
    write(root.path(), "sys/class/net/eth0/queues/rx-1/rps_cpus", "3\n");
    assert_eq!(value(&plan_for(root.path(), "0-3", &[]), "rps.eth0.rx-1"), Some("0"));
}

#[test]
fn transmit_queues_are_shared_out_where_some_cpu_has_none() {
    let root = SOUND.make();
    write(root.path(), "sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n");
    let plan = plan_for(root.path(), "0-3", &[]);
    assert_eq!((value(&plan, "xps.eth0.tx-0"), value(&plan, "xps.eth0.tx-1")), (Some("5"), None));
}

#[test]
fn what_was_dropped_or_squeezed_or_is_nearly_full_is_given_room() {
    let lossy = Made {
        // 100,000 processed, 7 dropped, 200 squeezed.
        softnet: "000186a0 00000007 000000c8 0 0 0 0 0 0 0 0 0 0\n",
        connections: (220_000, 262_144),
        ..SOUND
    };
    let plan = plan_for(lossy.make().path(), "0-3", &[]);
    assert_eq!(
        ids(&plan),
        ["net.core.netdev_max_backlog", "net.core.netdev_budget", "net.netfilter.nf_conntrack_max"]
    );
    assert_eq!(value(&plan, "net.core.netdev_budget"), Some("600"));
    assert_eq!(value(&plan, "net.netfilter.nf_conntrack_max"), Some("524288"));
    assert!(plan.changes[0].reason.contains("7 packets found no room"), "{:?}", plan.changes[0]);
}

/// A program that asks for no buffer gets the default one.
#[test]
fn a_foreign_programs_queue_is_thought_of() {
    let root = SOUND.make();
    let row = "    0   4113     0 2 65531     0     0        0  1\n";
    write(root.path(), "proc/net/netfilter/nfnetlink_queue", row);
    write(root.path(), "proc/net/netlink", "00000000aa0f 12  4113 00000000 0 0 0 2 0 4929979\n");
    for (name, planned) in [("fanq", None), ("my-ips", Some("2359296"))] {
        write(root.path(), "proc/4113/comm", &format!("{name}\n"));
        std::fs::create_dir_all(root.path().join("proc/4113/fd")).unwrap();
        let link = root.path().join("proc/4113/fd/3");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink("socket:[4929979]", &link).unwrap();
        let plan = plan_for(root.path(), "0-3", &[]);
        assert_eq!(value(&plan, "net.core.rmem_default"), planned, "{name}");
    }
    // A service manager that keeps the socket for fanq asks for nothing.
    write(root.path(), "proc/4113/comm", "fanq\n");
    write(root.path(), "proc/1/comm", "systemd\n");
    std::fs::create_dir_all(root.path().join("proc/1/fd")).unwrap();
    std::os::unix::fs::symlink("socket:[4929979]", root.path().join("proc/1/fd/9")).unwrap();
    assert_eq!(value(&plan_for(root.path(), "0-3", &[]), "net.core.rmem_default"), None);
}

/// In a network namespace the machine's parameters can be seen, and not set.
#[test]
fn what_cannot_be_set_from_here_is_a_note_with_its_command() {
    use std::os::unix::fs::PermissionsExt;
    let root = Made { rmem_max: 212_992, ..SOUND }.make();
    let file = root.path().join("proc/sys/net/core/rmem_max");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
    let plan = plan_for(root.path(), "0-3", &[]);
    assert_eq!(ids(&plan), Vec::<String>::new());
    assert!(plan.notes[0].contains("sysctl -w net.core.rmem_max=67108864"), "{:?}", plan.notes);
}

#[test]
fn without_any_files_there_is_a_note_and_no_guess() {
    let root = tempfile::tempdir().unwrap();
    let plan = plan_for(root.path(), "0-3", &[]);
    assert!(plan.changes.is_empty() && plan.notes.len() == 1, "{plan:?}");
}

#[test]
fn workers_are_on_the_first_cpu_that_fills_their_queue() {
    let cpus = |queues: &str, online: &str| {
        worker_cpus(queues.parse().unwrap(), &online.parse().unwrap()).to_string()
    };
    assert_eq!(cpus("0-3", "0-7"), "0-3");
    assert_eq!(cpus("8-11", "0-3"), "0-3");
    assert_eq!(cpus("0-3", "0,2,4,6"), "0,2");
    assert_eq!(cpus("0-2", "1,5,9"), "1,5,9");
}
