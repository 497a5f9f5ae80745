//! One fault at a time in a sound machine, and what must turn.

use crate::counters::COUNTERS;
use crate::tree::{ENGINE, Shape, Tree, mask};
use crate::{doctor, findings, json};

/// What it is, how it is put in, what is not OK then, and the options.
pub(crate) type Fault = (&'static str, fn(&Tree), &'static [&'static str], &'static [&'static str]);

const NFT: &str = "commands/nft -j list ruleset";
pub(crate) const TABLE: &str = "proc/net/netfilter/nfnetlink_queue";
const KEY: &str = "6d:5a:6d:5a";
const FANOUT: &str = "flags\": [\"bypass\", \"fanout\"]";

#[test]
fn each_fault_is_named_and_no_other() {
    let all = [KERNEL, RULES, CPUS, DEVICE, COUNTERS].concat();
    assert!(all.len() >= 40, "{}", all.len());
    for (what, put_in, expected, arguments) in all {
        let tree = Tree::sound(Shape::four());
        put_in(&tree);
        let (turned, status) = findings(&tree, arguments);
        assert_eq!(turned, *expected, "{what}");
        let worst = if expected.iter().any(|one| one.ends_with("fail")) {
            2
        } else {
            i32::from(expected.iter().any(|one| one.ends_with("warn")))
        };
        assert_eq!(status, worst, "{what}");
    }
}

/// A warning without a remedy is no help.
#[test]
fn each_fault_comes_with_evidence_or_a_command() {
    for (what, put_in, _, arguments) in [KERNEL, RULES, CPUS, DEVICE, COUNTERS].concat() {
        let tree = Tree::sound(Shape::four());
        put_in(&tree);
        let report = json(&doctor(&tree, &[&["--json"], arguments].concat()));
        for check in report["checks"].as_array().unwrap() {
            if check["status"] == "warn" || check["status"] == "fail" {
                assert!(!check["mend"].as_array().unwrap().is_empty(), "{what}: {check:#}");
            }
        }
    }
}

const KERNEL: &[Fault] = &[
    (
        "no queue rule",
        |tree| {
            let config = "boot/config-6.18.44-sound";
            tree.edit(config, "CONFIG_NFT_QUEUE=y", "# CONFIG_NFT_QUEUE is not set");
            tree.edit(config, "CONFIG_NETFILTER_XT_TARGET_NFQUEUE=y\n", "");
        },
        &["kernel-queue-rule fail"],
        &[],
    ),
    (
        "a module that is not installed",
        |tree| {
            let config = "boot/config-6.18.44-sound";
            tree.edit(config, "XT_TARGET_NFQUEUE=y", "XT_TARGET_NFQUEUE=m");
            tree.edit(config, "NFT_QUEUE=y", "NFT_QUEUE=m");
            tree.write("lib/modules/6.18.44-sound/modules.dep", "kernel/net/veth.ko.xz:\n");
        },
        &["kernel-queue-rule fail"],
        &[],
    ),
    (
        "no queues",
        |tree| {
            tree.edit("boot/config-6.18.44-sound", "CONFIG_NETFILTER_NETLINK_QUEUE=y\n", "");
            tree.remove(TABLE);
        },
        &["kernel-nfnetlink-queue fail", "queue-served warn"],
        &[],
    ),
    ("use after free", |tree| tree.write_kernel("6.18.20"), &["kernel-cve-2026-43084 fail"], &[]),
    ("drops with GRO", |tree| tree.write_kernel("6.12.5-x"), &["kernel-cve-2026-45859 warn"], &[]),
    ("old", |tree| tree.write_kernel("3.16.1"), &["kernel-release warn"], &[]),
    (
        "a container without the capability",
        |tree| tree.edit("proc/self/status", "000001ffffffffff", "0000000000000000"),
        &["privileges-net-admin fail"],
        &[],
    ),
    (
        "not root",
        |tree| {
            tree.edit("proc/self/status", "000001ffffffffff", "0000000000000000");
            tree.edit("proc/self/status", "Uid:\t0\t0", "Uid:\t1000\t1000");
        },
        &["privileges-net-admin unseen"],
        &[],
    ),
    (
        "a buffer that is too small in a user namespace",
        |tree| tree.write("proc/self/uid_map", "         0       1000          1\n"),
        &["buffers-rmem-max warn"],
        &[],
    ),
];

const RULES: &[Fault] = &[
    (
        "no fanout",
        |tree| tree.write_rules("flags\": \"bypass\"", (0, 3)),
        &["queue-fanout warn"],
        &[],
    ),
    (
        "no bypass",
        |tree| tree.write_rules("flags\": \"fanout\"", (0, 3)),
        &["queue-bypass warn"],
        &[],
    ),
    ("bypass, where it must not be", |_| {}, &["queue-bypass warn"], &["--fail-closed"]),
    (
        "no bypass, as meant",
        |tree| tree.write_rules("flags\": \"fanout\"", (0, 3)),
        &[],
        &["--fail-closed"],
    ),
    ("no rule", |tree| tree.write_nft(&[]), &["queue-fed warn"], &[]),
    (
        "fewer queues than CPUs",
        |tree| tree.write_rules(FANOUT, (0, 1)),
        &["queue-count warn", "queue-fed warn"],
        &[],
    ),
    (
        "more queues than CPUs",
        |tree| tree.write_rules(FANOUT, (0, 7)),
        &["queue-count warn", "queue-served warn"],
        &[],
    ),
    ("nobody reads", |tree| tree.write(TABLE, ""), &["queue-served warn"], &[]),
    (
        "nobody reads, and no bypass",
        |tree| {
            tree.write(TABLE, "");
            tree.write_rules("flags\": \"fanout\"", (0, 3));
        },
        &["queue-bypass warn", "queue-served fail"],
        &[],
    ),
    (
        "one queue is not read",
        |tree| {
            let rows = tree.read(TABLE);
            tree.write(TABLE, rows.split_once('\n').unwrap().1);
        },
        &["queue-served warn"],
        &[],
    ),
    (
        "queues asked for that nobody has",
        |_| {},
        &["queue-fed warn", "queue-served fail"],
        &["--queues", "0-4"],
    ),
    (
        "a second rule that overlaps",
        |tree| {
            tree.write(
                "commands/iptables-save -c",
                "*filter\n:INPUT ACCEPT [0:0]\n[1:1] -A INPUT -j NFQUEUE --queue-balance 2:5 --queue-bypass \
                 --queue-cpu-fanout\nCOMMIT\n",
            );
        },
        &["queue-overlap warn", "queue-served warn"],
        &[],
    ),
    (
        "queued by nft and by iptables",
        |tree| {
            tree.write(
                "commands/iptables-save -c",
                "*filter\n:FORWARD ACCEPT [0:0]\n:fanq - [0:0]\n-A FORWARD -j fanq\n\
                 -A fanq -j NFQUEUE --queue-balance 0:3 --queue-bypass --queue-cpu-fanout\nCOMMIT\n",
            );
        },
        &["queue-twice warn"],
        &[],
    ),
    (
        "a chain that nothing leads to",
        |tree| {
            tree.write(
                "commands/ip6tables-save -c",
                "*filter\n:FORWARD ACCEPT [0:0]\n:ips - [0:0]\n-A ips -j NFQUEUE --queue-num 2\nCOMMIT\n",
            );
        },
        &["queue-rule-reached warn"],
        &[],
    ),
    (
        "rules that cannot be seen",
        |tree| tree.remove(NFT),
        &["queue-fed unseen", "rules-seen unseen"],
        &[],
    ),
    (
        "bound and not configured",
        |tree| tree.edit(TABLE, "100001     0 2 65531", "100001     0 0     0"),
        &["queue-configured fail"],
        &[],
    ),
    (
        "another program in the range",
        |tree| {
            tree.write_process("800", "snort", "0::/");
            std::fs::remove_file(tree.path().join(format!("proc/{ENGINE}/fd/13"))).unwrap();
            tree.hold(800, 3);
        },
        &["queue-range-owners warn"],
        &[],
    ),
    (
        "a program that cannot be seen",
        |tree| std::fs::remove_dir_all(tree.path().join(format!("proc/{ENGINE}"))).unwrap(),
        &["queue-owner unseen"],
        &[],
    ),
];

const CPUS: &[Fault] = &[
    (
        "a cpuset",
        |tree| tree.write("sys/fs/cgroup/system.slice/fanq.service/cpuset.cpus.effective", "0-1\n"),
        &["cpus-allowed fail"],
        &[],
    ),
    (
        "an affinity",
        |tree| tree.edit("proc/700/status", "Cpus_allowed_list:\t0-3", "Cpus_allowed_list:\t1-3"),
        &["cpus-allowed fail"],
        &[],
    ),
    (
        "a quota",
        |tree| tree.write("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n"),
        &["cpus-quota warn"],
        &[],
    ),
    (
        "a worker that is not pinned",
        |tree| tree.write("proc/700/task/712/status", "Cpus_allowed_list:\t0-3\n"),
        &["cpus-workers warn"],
        &[],
    ),
    (
        "a worker on another's CPU",
        |tree| tree.write("proc/700/task/712/status", "Cpus_allowed_list:\t1\n"),
        &["cpus-workers warn"],
        &[],
    ),
    (
        "a slow clock",
        |tree| tree.write("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n"),
        &["cpus-governor warn"],
        &[],
    ),
    (
        "isolated CPUs, and a program that does not pin",
        |tree| {
            tree.write("sys/devices/system/cpu/isolated", "2-3\n");
            tree.write("proc/700/comm", "snort\n");
            for queue in 0..4 {
                tree.write(&format!("proc/700/task/71{queue}/comm"), "snort\n");
                tree.write(&format!("proc/700/task/71{queue}/status"), "Cpus_allowed_list:\t0-3\n");
            }
        },
        &["cpus-isolated warn"],
        &[],
    ),
    (
        "isolated CPUs with pinned workers",
        |tree| tree.write("sys/devices/system/cpu/isolated", "2-3\n"),
        &[],
        &[],
    ),
];

const DEVICE: &[Fault] = &[
    ("no such device", |_| {}, &["device-present fail"], &["--dev", "eth0,eth9"]),
    (
        "down",
        |tree| tree.write("sys/class/net/eth0/operstate", "down\n"),
        &["device-present warn"],
        &["--dev", "eth0"],
    ),
    (
        "small rings",
        |tree| tree.edit("commands/ethtool -g eth0", "2048", "512"),
        &["device-rings warn"],
        &[],
    ),
    (
        "no GRO",
        |tree| tree.edit("commands/ethtool -k eth0", "receive-offload: on", "receive-offload: off"),
        &["device-gro warn"],
        &[],
    ),
    (
        "LRO",
        |tree| {
            tree.edit(
                "commands/ethtool -k eth0",
                "large-receive-offload: off",
                "large-receive-offload: on",
            );
        },
        &["device-lro warn"],
        &[],
    ),
    (
        "unused hardware queues",
        |tree| {
            let text = tree.read("commands/ethtool -l eth0");
            let at = text.rfind("Combined:\t4").unwrap();
            tree.write("commands/ethtool -l eth0", &format!("{}Combined:\t2\n", &text[..at]));
        },
        &["device-channels warn"],
        &[],
    ),
    (
        "all interrupts on one CPU",
        |tree| {
            (40..44).for_each(|irq| {
                tree.write(&format!("proc/irq/{irq}/effective_affinity_list"), "0\n");
            });
        },
        &["device-interrupts warn", "device-spread warn"],
        &[],
    ),
    (
        "a single hardware queue",
        |tree| {
            (41..44)
                .for_each(|irq| tree.remove(&format!("sys/class/net/eth0/device/msi_irqs/{irq}")));
            (1..4).for_each(|queue| {
                let folder = format!("sys/class/net/eth0/queues/rx-{queue}");
                std::fs::remove_dir_all(tree.path().join(folder)).unwrap();
            });
            tree.write("commands/ethtool -l eth0", "netlink error: Operation not supported\n");
            tree.write(
                "commands/ethtool -x eth0",
                "Cannot get RX ring count: Operation not supported\n",
            );
        },
        &["device-spread warn"],
        &[],
    ),
    (
        "an uneven table",
        |tree| tree.edit("commands/ethtool -x eth0", "     3     0     1", "     0     0     1"),
        &["device-rss-table warn"],
        &[],
    ),
    (
        "a table that leaves a queue out",
        |tree| tree.edit("commands/ethtool -x eth0", "     3", "     2"),
        &["device-rss-table warn"],
        &[],
    ),
    (
        "a hash that is not symmetric",
        |tree| tree.edit("commands/ethtool -x eth0", KEY, "6d:5a:56:da"),
        &["device-rss-symmetry warn"],
        &[],
    ),
    (
        "RPS on top of RSS",
        |tree| tree.write("sys/class/net/eth0/queues/rx-1/rps_cpus", "f\n"),
        &["device-rps warn"],
        &[],
    ),
    (
        "RPS to a CPU that is not there",
        |tree| tree.write("sys/class/net/eth0/queues/rx-1/rps_cpus", "ff\n"),
        &["device-rps warn"],
        &[],
    ),
    (
        "XPS that leaves a CPU out",
        |tree| tree.write("sys/class/net/eth0/queues/tx-3/xps_cpus", &mask(0)),
        &["device-xps warn"],
        &[],
    ),
    (
        "irqbalance",
        |tree| tree.write_process("900", "irqbalance", "0::/system.slice"),
        &["irqbalance warn"],
        &[],
    ),
    (
        "ethtool is missing",
        |tree| {
            for option in ["l", "g", "x", "k"] {
                tree.remove(&format!("commands/ethtool -{option} eth0"));
            }
        },
        &[
            "device-channels unseen",
            "device-gro unseen",
            "device-lro unseen",
            "device-rings unseen",
            "device-rss-symmetry unseen",
            "device-rss-table unseen",
        ],
        &[],
    ),
];
