//! A machine made of files, for `fanq doctor --root`: sound, until a test puts a fault into it.
//!
//! Invariant: all that the checks look at is there, in the shape in which kernels and programs print it.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// What the machine is like.
pub(crate) struct Shape {
    /// CPUs that are online, as the kernel writes them, and each of them.
    pub(crate) online: &'static str,
    pub(crate) cpus: Vec<u16>,
    /// Each node's CPUs.
    pub(crate) nodes: &'static [&'static str],
    /// The CPU of each hardware queue's interrupt.
    pub(crate) interrupts: Vec<u16>,
    pub(crate) device_node: i32,
    /// The rule's range, which fanq serves.
    pub(crate) queues: (u16, u16),
}

impl Shape {
    /// Four CPUs, and a device with a queue for each.
    pub(crate) fn four() -> Self {
        Self {
            online: "0-3",
            cpus: (0..4).collect(),
            nodes: &["0-3"],
            interrupts: (0..4).collect(),
            device_node: 0,
            queues: (0, 3),
        }
    }
}

/// The machine.
pub(crate) struct Tree {
    folder: tempfile::TempDir,
    pub(crate) shape: Shape,
}

pub(crate) const ENGINE: u32 = 700;

impl Tree {
    pub(crate) fn sound(shape: Shape) -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap(), shape };
        tree.write_kernel("6.18.44-sound");
        tree.write_process("self", "bash", "0::/user.slice");
        tree.write_cpus();
        tree.write_counters("");
        tree.write_engine();
        tree.write_rules("flags\": [\"bypass\", \"fanout\"]", tree.shape.queues);
        tree.write_device();
        tree
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// Changes a file; what is to be changed must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}: {text}");
        self.write(name, &text.replace(from, to));
    }

    /// The same change, seen by the second sample only.
    pub(crate) fn edit_later(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}: {text}");
        self.write(&format!("later/{name}"), &text.replacen(from, to, 1));
    }

    pub(crate) fn write_kernel(&self, release: &str) {
        self.write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        let options = ["NETLINK_QUEUE", "NETLINK_GLUE_CT", "XT_TARGET_NFQUEUE"];
        let mut config = "# made up\nCONFIG_NFT_QUEUE=y\n".to_owned();
        for option in options {
            writeln!(config, "CONFIG_NETFILTER_{option}=y").unwrap();
        }
        self.write(&format!("boot/config-{release}"), &config);
        self.write("proc/modules", "veth 45056 0 - Live 0x0000000000000000\n");
        for (name, value) in [
            ("core/rmem_max", "212992"),
            ("core/netdev_budget", "300"),
            ("core/netdev_max_backlog", "1000"),
            ("netfilter/nf_conntrack_count", "1000"),
            ("netfilter/nf_conntrack_max", "262144"),
        ] {
            self.write(&format!("proc/sys/net/{name}"), &format!("{value}\n"));
        }
    }

    pub(crate) fn write_process(&self, pid: &str, name: &str, group: &str) {
        let online = self.shape.online;
        let status = format!(
            "Name:\t{name}\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nCpus_allowed_list:\t{online}\n"
        );
        self.write(&format!("proc/{pid}/status"), &status);
        self.write(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        self.write(&format!("proc/{pid}/uid_map"), "         0          0 4294967295\n");
        self.write(&format!("proc/{pid}/cgroup"), &format!("{group}\n"));
        let folder = format!("sys/fs/cgroup{}", group.trim_start_matches("0::"));
        self.write(&format!("{folder}/cpuset.cpus.effective"), &format!("{online}\n"));
        self.write(&format!("{folder}/cpu.max"), "max 100000\n");
    }

    fn write_cpus(&self) {
        let folder = "sys/devices/system";
        self.write(&format!("{folder}/cpu/online"), &format!("{}\n", self.shape.online));
        self.write(&format!("{folder}/cpu/isolated"), "\n");
        for cpu in &self.shape.cpus {
            self.write(&format!("{folder}/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance\n");
        }
        for (node, cpus) in self.shape.nodes.iter().enumerate() {
            self.write(&format!("{folder}/node/node{node}/cpulist"), &format!("{cpus}\n"));
        }
    }

    /// Of each CPU that is online a row, with the counts and then its number.
    pub(crate) fn write_counters(&self, place: &str) {
        let row = |cpu: &u16| {
            format!(
                "{:08x} 00000007 00000009{} {cpu:08x} 00000000 00000000\n",
                1000,
                " 00000000".repeat(9)
            )
        };
        let rows: String = self.shape.cpus.iter().map(row).collect();
        self.write(&format!("{place}proc/net/softnet_stat"), &rows);
    }

    /// fanq, with a socket and a pinned worker for each queue.
    fn write_engine(&self) {
        self.write_process(&ENGINE.to_string(), "fanq", "0::/system.slice/fanq.service");
        let (first, last) = self.shape.queues;
        let command = format!("fanq\0run\0--queues\0{first}-{last}\0");
        self.write(&format!("proc/{ENGINE}/cmdline"), &command);
        self.write(&format!("proc/{ENGINE}/fd/0"), "");
        let (mut table, mut sockets) = (String::new(), String::new());
        sockets.push_str("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n");
        for queue in first..=last {
            let (port, inode) = (100_000 + u32::from(queue), 90_000 + u32::from(queue));
            writeln!(table, "{queue:5} {port:6}     0 2 65531     0     0     {:4}  1", 50)
                .unwrap();
            writeln!(sockets, "00000000e3ffd {:3} {port:6} 00000000 0 0 0 2 0 {inode}", 12)
                .unwrap();
            self.hold(ENGINE, queue);
            let folder = format!("proc/{ENGINE}/task/{}", 710 + u32::from(queue));
            self.write(&format!("{folder}/comm"), &format!("fanq-{queue}\n"));
            let count = last - first + 1;
            let cpus = self.shape.cpus.iter().find(|cpu| first + *cpu % count == queue);
            let cpus = cpus.map_or(self.shape.online.to_owned(), ToString::to_string);
            self.write(&format!("{folder}/status"), &format!("Cpus_allowed_list:\t{cpus}\n"));
        }
        self.write("proc/net/netfilter/nfnetlink_queue", &table);
        self.write("proc/net/netlink", &sockets);
    }

    /// Has a process hold the socket of a queue.
    pub(crate) fn hold(&self, pid: u32, queue: u16) {
        let fd = self.folder.path().join(format!("proc/{pid}/fd/{}", 10 + queue));
        std::fs::create_dir_all(fd.parent().unwrap()).unwrap();
        symlink(format!("socket:[{}]", 90_000 + u32::from(queue)), fd).unwrap();
    }

    /// nft's listing with one rule of fanq's, and none by iptables. `flags` ends the member of this name.
    pub(crate) fn write_rules(&self, flags: &str, (first, last): (u16, u16)) {
        let rule = format!(
            r#"{{"rule": {{"family": "inet", "table": "fanq", "chain": "forward", "handle": 3, "comment": "fanq",
            "expr": [{{"counter": {{"packets": 5, "bytes": 300}}}},
                     {{"queue": {{"num": {{"range": [{first}, {last}]}}, "{flags}}}}}]}}}}"#
        );
        self.write_nft(&[rule]);
        for program in ["iptables-save -c", "ip6tables-save -c"] {
            self.write(&format!("commands/{program}"), "");
        }
    }

    pub(crate) fn write_nft(&self, objects: &[String]) {
        let chain = r#"{"chain": {"family": "inet", "table": "fanq", "name": "forward", "hook": "forward"}}"#;
        let all =
            [&[r#"{"metainfo": {"version": "1.0.6"}}"#.to_owned(), chain.to_owned()], objects]
                .concat();
        self.write(
            "commands/nft -j list ruleset",
            &format!("{{\"nftables\": [{}]}}\n", all.join(", ")),
        );
    }

    fn write_device(&self) {
        let net = "sys/class/net/eth0";
        self.write("proc/net/dev", "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 1 2\n");
        self.write("sys/class/net/lo/operstate", "unknown\n");
        for (name, value) in
            [("operstate", "up"), ("mtu", "1500"), ("statistics/rx_missed_errors", "3")]
        {
            self.write(&format!("{net}/{name}"), &format!("{value}\n"));
        }
        self.write(&format!("{net}/device/numa_node"), &format!("{}\n", self.shape.device_node));
        symlink(
            "../../bus/pci/drivers/ice",
            self.folder.path().join(format!("{net}/device/driver")),
        )
        .unwrap();
        let mut head = "    ".to_owned();
        let mut lines = String::new();
        self.shape.cpus.iter().for_each(|cpu| write!(head, "       CPU{cpu}").unwrap());
        for (queue, cpu) in self.shape.interrupts.iter().enumerate() {
            let number = 40 + queue;
            let counts = " 1".repeat(self.shape.cpus.len());
            writeln!(
                lines,
                " {number}:{counts}  PCI-MSIX-0000:3b:00.0  {queue}-edge  ice-eth0-TxRx-{queue}"
            )
            .unwrap();
            self.write(&format!("{net}/device/msi_irqs/{number}"), "msix\n");
            self.write(&format!("proc/irq/{number}/smp_affinity_list"), &format!("{cpu}\n"));
            self.write(&format!("proc/irq/{number}/effective_affinity_list"), &format!("{cpu}\n"));
            self.write(&format!("{net}/queues/rx-{queue}/rps_cpus"), "0\n");
        }
        for (queue, cpu) in self.shape.cpus.iter().enumerate() {
            self.write(&format!("{net}/queues/tx-{queue}/xps_cpus"), &format!("{}\n", mask(*cpu)));
        }
        self.write(
            "proc/interrupts",
            &format!("{head}\n{lines}NMI: 0 Non-maskable interrupts\nERR: 0\n"),
        );
        self.write_ethtool();
    }

    fn write_ethtool(&self) {
        let count = self.shape.interrupts.len();
        let combined = |max: usize, now: usize| {
            format!(
                "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\n\
                 Combined:\t{max}\nCurrent hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t{now}\n"
            )
        };
        self.write("commands/ethtool -l eth0", &combined(count, count));
        self.write(
            "commands/ethtool -g eth0",
            "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t8160\nRX Mini:\tn/a\nTX:\t\t8160\n\
             Current hardware settings:\nRX:\t\t2048\nRX Mini:\tn/a\nTX:\t\t256\n",
        );
        let mut table = String::new();
        for row in 0..count.div_ceil(8) * 2 {
            write!(table, "{:5}:", row * 8).unwrap();
            (0..8).for_each(|at| write!(table, "  {:4}", (row * 8 + at) % count).unwrap());
            table.push('\n');
        }
        let key = ["6d:5a"; 26].join(":");
        self.write(
            "commands/ethtool -x eth0",
            &format!(
                "RX flow hash indirection table for eth0 with {count} RX ring(s):\n{table}RSS hash key:\n{key}\n\
                 RSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n"
            ),
        );
        self.write(
            "commands/ethtool -k eth0",
            "Features for eth0:\nrx-checksumming: on\ngeneric-receive-offload: on\nlarge-receive-offload: off\n",
        );
    }
}

/// A mask with one CPU.
pub(crate) fn mask(cpu: u16) -> String {
    format!("{:x}{}", 1_u32 << (cpu % 32), ",00000000".repeat(usize::from(cpu / 32)))
}
