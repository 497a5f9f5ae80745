//! Machines of other shapes: many CPUs, holes in their numbers, CPUs offline, cpusets.

use crate::tree::{Shape, Tree};
use crate::{doctor, findings, json};

/// Two sockets with 64 CPUs each, and a queue for every one.
fn two_sockets() -> Shape {
    Shape {
        online: "0-127",
        cpus: (0..128).collect(),
        nodes: &["0-63", "64-127"],
        interrupts: (0..128).collect(),
        device_node: 0,
        queues: (0, 127),
    }
}

fn mended(tree: &Tree, arguments: &[&str], id: &str) -> Vec<String> {
    let report = json(&doctor(tree, &[&["--json"], arguments].concat()));
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    let lines = check["mend"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_sockets_and_128_queues_are_sound() {
    let tree = Tree::sound(two_sockets());
    assert_eq!(findings(&tree, &[]), (vec![], 0));
    // Fewer queues: each is filled by two CPUs.
    tree.write_rules("flags\": [\"bypass\", \"fanout\"]", (0, 63));
    assert_eq!(findings(&tree, &[]).0, ["queue-count warn", "queue-fed warn"]);
    let mend = mended(&tree, &[], "queue-count");
    assert_eq!(mend[1], "fanq rules install --hook forward --queues 0-127 --fanout --bypass");
}

/// As many queues as the device has, on its own node, is as good as one for each CPU.
#[test]
fn a_device_with_fewer_queues_than_cpus_is_sound_on_its_node() {
    let shape = || Shape { interrupts: (0..16).collect(), queues: (0, 15), ..two_sockets() };
    assert_eq!(findings(&Tree::sound(shape()), &[]), (vec![], 0));
    let far = Tree::sound(Shape { device_node: 1, ..shape() });
    assert_eq!(findings(&far, &[]), (vec!["device-node warn".to_owned()], 1));
    // Interrupts 16 apart meet in one queue.
    let apart = (0..16).map(|queue| queue * 4).collect();
    let tree = Tree::sound(Shape { interrupts: apart, ..shape() });
    assert_eq!(findings(&tree, &[]).0[0], "queue-count warn");
}

#[test]
fn numbers_with_holes_need_queues_up_to_the_highest() {
    let shape = |queues| Shape {
        online: "0,2,4,6",
        cpus: vec![0, 2, 4, 6],
        nodes: &["0,2,4,6"],
        interrupts: vec![0, 2, 4, 6],
        device_node: 0,
        queues,
    };
    assert_eq!(findings(&Tree::sound(shape((0, 6))), &[]), (vec![], 0));
    let tree = Tree::sound(shape((0, 3)));
    assert_eq!(findings(&tree, &[]), (vec!["queue-count warn".to_owned()], 1));
    // 0, 2, 4 and 6 leave 0, 2, 4 and 1 of five.
    assert_eq!(mended(&tree, &[], "queue-count")[0], "fanq run --queues 0-4   # first, then:");
}

#[test]
fn queues_of_cpus_that_are_offline_are_seen() {
    let shape = |online, cpus: &[u16]| Shape {
        online,
        cpus: cpus.to_vec(),
        nodes: &["0-7"],
        interrupts: cpus.to_vec(),
        device_node: 0,
        queues: (0, 7),
    };
    // In the middle: the numbers above it need their queues.
    let middle = Tree::sound(shape("0-2,5-7", &[0, 1, 2, 5, 6, 7]));
    assert_eq!(findings(&middle, &[]), (vec![], 0));
    let end = Tree::sound(shape("0-5", &[0, 1, 2, 3, 4, 5]));
    assert_eq!(findings(&end, &[]), (vec!["queue-count warn".to_owned()], 1));
    assert_eq!(mended(&end, &[], "queue-count")[0], "fanq run --queues 0-5   # first, then:");
}

#[test]
fn a_cpuset_of_a_service_is_named_with_its_remedy() {
    let tree = Tree::sound(two_sockets());
    tree.write("sys/fs/cgroup/system.slice/fanq.service/cpuset.cpus.effective", "0-63\n");
    assert_eq!(findings(&tree, &[]), (vec!["cpus-allowed fail".to_owned()], 2));
    let mend = mended(&tree, &[], "cpus-allowed");
    assert!(
        mend[0].starts_with("systemctl set-property fanq.service AllowedCPUs=0-127"),
        "{mend:?}"
    );
    // Of nobody yet: this shell stands for the program.
    tree.write("proc/net/netfilter/nfnetlink_queue", "");
    assert!(!findings(&tree, &[]).0.contains(&"cpus-allowed fail".to_owned()));
    tree.write("sys/fs/cgroup/user.slice/cpuset.cpus.effective", "0-63\n");
    assert!(findings(&tree, &[]).0.contains(&"cpus-allowed fail".to_owned()));
}
