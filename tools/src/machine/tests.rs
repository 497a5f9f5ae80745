//! Goal: the running machine is read without a fault, and a copy is read as it stands.
//!
//! Method: the running machine's CPUs are compared with what the library finds; a copy has one device with two queues.

use std::path::Path;

use super::*;

#[test]
fn the_running_machine_is_read() {
    let machine = Machine::read(&Root::new(Path::new("/")), &[]);
    let online = fanq::CpuList::online(Path::new("/")).unwrap();
    assert_eq!(machine.cpus.online, Fact::Known(online.clone()));
    let softnet = machine.sample.softnet.known().unwrap();
    let cpus: fanq::CpuList = softnet.iter().map(|row| row.cpu).collect();
    assert_eq!(cpus, online);
    assert!(machine.kernel.version().is_some());
    assert!(machine.privileges.effective.known().is_some());
    assert!(machine.sysctl("net.core.rmem_max").is_some());
}

#[test]
fn a_device_of_a_copy_is_read_with_its_queues() {
    let folder = tempfile::tempdir().unwrap();
    let net = "sys/class/net/eth0";
    for (name, text) in [
        ("proc/net/dev", "Inter-| Receive\n face |bytes\n  eth0: 1 2\n    lo: 1 2\n"),
        (
            "proc/interrupts",
            "  CPU0 CPU1\n 40: 1 0 PCI 1-edge eth0-TxRx-0\n 41: 0 1 PCI 2-edge eth0-TxRx-1\n 42: 0 0 PCI x\n",
        ),
        ("proc/irq/40/smp_affinity_list", "0-1\n"),
        ("proc/irq/40/effective_affinity_list", "0\n"),
        ("proc/irq/41/smp_affinity_list", "1\n"),
        (&format!("{net}/operstate"), "up\n"),
        (&format!("{net}/device/numa_node"), "-1\n"),
        (&format!("{net}/queues/rx-0/rps_cpus"), "0\n"),
        (&format!("{net}/queues/rx-1/rps_cpus"), "3\n"),
        (&format!("{net}/queues/tx-0/xps_cpus"), "1\n"),
        ("sys/class/net/lo/operstate", "unknown\n"),
        (
            "commands/ethtool -g eth0",
            "Pre-set maximums:\nRX: 4096\nCurrent hardware settings:\nRX: 256\n",
        ),
        ("commands/ethtool -l eth0", "netlink error: Operation not supported\n"),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let machine = Machine::read(&Root::new(folder.path()), &[]);
    let devices = machine.devices.known().unwrap();
    let [device] = devices.as_slice() else { panic!("{devices:?}") };
    assert_eq!((device.name.as_str(), device.node, device.hardware), ("eth0", None, true));
    let rps: Vec<_> =
        device.rx_queues.iter().map(|queue| queue.rps_cpus.known().unwrap().to_string()).collect();
    assert_eq!(rps, ["", "0-1"]);
    assert_eq!(device.tx_queues.len(), 1);
    let interrupts = device.interrupts.known().unwrap();
    let cpus: Vec<_> = interrupts.iter().map(|one| one.cpus().unwrap().to_string()).collect();
    assert_eq!(cpus, ["0", "1"]);
    assert_eq!(
        device.rings.known().unwrap().unwrap().rx,
        Bounded { now: Some(256), max: Some(4096) }
    );
    assert_eq!(device.channels, Fact::Known(None));
    assert_eq!(device.features.why_unseen(), Some("/commands/ethtool -k eth0: not there"));

    let named = Machine::read(&Root::new(folder.path()), &["lo".to_owned(), "eth9".to_owned()]);
    assert_eq!(named.devices.known().unwrap().len(), 1);
    assert_eq!(named.devices_missing, ["eth9"]);
}
