//! Goal: `fanq doctor` names every fault that is put into a sound machine, and no other; a sound machine of any shape
//! has none.
//!
//! Method: machines made of files (`--root`), one fault at a time; and the running kernel, in a network namespace
//! (`on_the_kernel`). What is compared are ids and statuses, which scripts rely on, and the exit status.

#![expect(clippy::unwrap_used, reason = "what a test's own helpers cannot do ends the test")]

mod counters;
mod faults;
mod large;
mod on_the_kernel;
#[path = "../space/mod.rs"]
mod space;
mod tree;

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use tree::{ENGINE, Shape, Tree};

/// Runs it on a machine made of files.
fn doctor(tree: &Tree, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanq"));
    command.arg("doctor").arg("--root").arg(tree.path()).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

/// What is not OK, sorted, as `id status`; and the exit status.
fn findings(tree: &Tree, arguments: &[&str]) -> (Vec<String>, i32) {
    let output = doctor(tree, &[&["--json"], arguments].concat());
    let report = json(&output);
    (turned(&report), output.status.code().unwrap())
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn turned(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let mut turned: Vec<_> = checks
        .filter(|check| check["status"] != "ok")
        .map(|check| {
            format!("{} {}", check["id"].as_str().unwrap(), check["status"].as_str().unwrap())
        })
        .collect();
    turned.sort();
    turned
}

#[test]
fn a_sound_machine_has_nothing_but_ok() {
    let tree = Tree::sound(Shape::four());
    assert_eq!(findings(&tree, &[]), (vec![], 0));
    assert_eq!(findings(&tree, &["--queues", "0-3", "--dev", "eth0"]), (vec![], 0));
    // lo has nothing to set, and that is no fault.
    assert_eq!(findings(&tree, &["--dev", "eth0,lo"]), (vec![], 0));
    let report = json(&doctor(&tree, &["--json"]));
    assert_eq!(report["schema"], "fanq-doctor/1");
    assert_eq!(report["status"], "ok");
    assert!(report["checks"].as_array().unwrap().len() > 40, "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let owner = checks.iter().find(|check| check["id"] == "queue-owner").unwrap();
    assert_eq!(owner["evidence"][0], "queues 0-3: process 700 (fanq)");
    let rings = checks.iter().find(|check| check["id"] == "device-rings").unwrap();
    assert_eq!((&rings["subject"], &rings["group"]), (&"eth0".into(), &"devices".into()));
}

#[test]
fn a_machine_that_queues_nothing_is_not_judged() {
    let tree = Tree::sound(Shape::four());
    tree.write_nft(&[]);
    tree.write("proc/net/netfilter/nfnetlink_queue", "");
    // Whatever it is like otherwise.
    tree.edit("commands/ethtool -g eth0", "RX:\t\t2048", "RX:\t\t64");
    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    assert_eq!(findings(&tree, &[]), (vec![], 0));
    let asked = findings(&tree, &["--queues", "0-3"]);
    let expected =
        ["cpus-governor warn", "device-rings warn", "queue-fed warn", "queue-served fail"];
    assert_eq!(asked, (expected.map(str::to_owned).to_vec(), 2));
    assert_eq!(findings(&tree, &["--dev", "eth0"]).0, ["device-rings warn"]);
}

#[test]
fn what_cannot_be_seen_is_said_and_is_no_fault() {
    let tree = Tree::sound(Shape::four());
    tree.remove("commands/nft -j list ruleset");
    let (turned, status) = findings(&tree, &[]);
    assert_eq!(
        (turned, status),
        (vec!["queue-fed unseen".to_owned(), "rules-seen unseen".to_owned()], 0)
    );

    // An empty folder: nothing is known, nothing is wrong.
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanq"));
    let output = command.args(["doctor", "--json", "--root"]).arg(empty.path()).output().unwrap();
    let report = json(&output);
    assert_eq!((output.status.code(), &report["status"]), (Some(0), &"ok".into()), "{report:#}");
    assert!(report["counts"]["unseen"].as_u64().unwrap() > 5, "{report:#}");
}

#[test]
fn the_posture_says_what_becomes_of_packets() {
    let tree = Tree::sound(Shape::four());
    let posture = |tree: &Tree| {
        let report = json(&doctor(tree, &["--json"]));
        let cases = report["posture"].as_array().unwrap().iter();
        cases
            .map(|case| {
                format!("{}: {}", case["case"].as_str().unwrap(), case["packets"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        posture(&tree),
        [
            "no-listener: pass unseen",
            "queue-full: dropped",
            "socket-full: dropped",
            "engine-killed: lost, then pass unseen",
            "engine-stuck: wait, then dropped",
        ]
    );
    tree.write("proc/700/cmdline", "fanq\0run\0--fail-open\0--config\0/etc/fanq.toml\0");
    assert_eq!(posture(&tree)[1], "queue-full: pass unseen");
    for (wish, packets) in [
        ("off", "dropped"),
        ("false", "dropped"),
        ("wanted", "pass unseen"),
        ("required", "pass unseen"),
        ("true", "pass unseen"),
    ] {
        tree.write("proc/700/cmdline", &format!("fanq\0run\0--fail-open={wish}\0"));
        assert_eq!(posture(&tree)[1], format!("queue-full: {packets}"), "{wish}");
    }
    tree.write("proc/700/cmdline", "fanq\0run\0--config\0/etc/fanq.toml\0");
    assert_eq!(posture(&tree)[1], "queue-full: dropped, or pass");
    tree.write_rules("flags\": \"fanout\"", (0, 3));
    assert_eq!(posture(&tree)[0], "no-listener: dropped");
    (0..4).for_each(|queue| tree.hold(800, queue));
    tree.write_process("800", "systemd", "0::/");
    assert_eq!(posture(&tree)[3], "engine-killed: kept, and wait");
}

/// systemd's store of descriptors has a copy of each socket; it serves none, so it is not judged.
#[test]
fn a_service_manager_that_keeps_the_sockets_is_not_taken_for_the_program() {
    let tree = Tree::sound(Shape::four());
    tree.write_process("1", "systemd", "0::/init.scope");
    tree.edit("proc/1/status", "Cpus_allowed_list:\t0-3", "Cpus_allowed_list:\t0");
    tree.write("sys/fs/cgroup/init.scope/cpu.max", "50000 100000\n");
    (0..4).for_each(|queue| tree.hold(1, queue));
    assert_eq!(findings(&tree, &[]), (vec![], 0));
    let report = json(&doctor(&tree, &["--json"]));
    let owner = report["checks"].as_array().unwrap().iter();
    let owner = owner.clone().find(|check| check["id"] == "queue-owner").unwrap();
    let expected = "queues 0-3: process 700 (fanq) and process 1 (systemd)";
    assert_eq!(owner["evidence"][0], expected);
    let posture = |case: usize| report["posture"][case]["packets"].as_str().unwrap();
    assert_eq!((posture(1), posture(3)), ("dropped", "kept, and wait"));
    // With nobody else it is who has them.
    std::fs::remove_dir_all(tree.path().join(format!("proc/{ENGINE}"))).unwrap();
    assert_eq!(findings(&tree, &[]).0, ["cpus-allowed fail", "cpus-quota warn"]);
}

/// Of several rules the one that does not fit is made anew, not the first.
#[test]
fn a_rule_that_fits_is_not_to_be_changed_for_another_that_does_not() {
    let tree = Tree::sound(Shape::four());
    tree.write(
        "commands/iptables-save -c",
        "*filter\n:INPUT ACCEPT [0:0]\n[1:1] -A INPUT -j NFQUEUE --queue-balance 8:9 --queue-bypass \
         --queue-cpu-fanout\nCOMMIT\n",
    );
    let report = json(&doctor(&tree, &["--json"]));
    let checks = report["checks"].as_array().unwrap();
    let count = checks.iter().find(|check| check["id"] == "queue-count").unwrap();
    assert_eq!(count["mend"][0], "fanq run --queues 8-11   # first, then:");
    let rule = "-j NFQUEUE --queue-balance 8:11 --queue-bypass --queue-cpu-fanout";
    let expected = format!("# iptables -t filter, chain INPUT: {rule}");
    assert_eq!((&count["status"], &count["mend"][1]), (&"warn".into(), &expected.into()));
}

/// What this machine sends comes from any CPU, also by the hook that what it forwards comes to.
#[test]
fn behind_the_routing_packets_come_from_all_cpus() {
    let tree = Tree::sound(Shape { interrupts: vec![0, 1], queues: (0, 1), ..Shape::four() });
    let shared = |tree: &Tree| findings(tree, &[]).0.contains(&"queue-count warn".to_owned());
    assert!(!shared(&tree));
    for hook in ["output", "postrouting"] {
        tree.write_rules("flags\": [\"bypass\", \"fanout\"]", (0, 1));
        tree.edit("commands/nft -j list ruleset", "\"forward\"}", &format!("\"{hook}\"}}"));
        assert!(shared(&tree), "{hook}");
    }
}

#[test]
fn a_card_without_combined_channels_is_given_receiving_ones() {
    let tree = Tree::sound(Shape::four());
    let section =
        |count: u8| format!("RX:\t\t{count}\nTX:\t\t{count}\nOther:\t\t1\nCombined:\t0\n");
    let text = format!(
        "Channel parameters for eth0:\nPre-set maximums:\n{}Current hardware settings:\n{}",
        section(4),
        section(2)
    );
    tree.write("commands/ethtool -l eth0", &text);
    let report = json(&doctor(&tree, &["--json"]));
    let checks = report["checks"].as_array().unwrap();
    let channels = checks.iter().find(|check| check["id"] == "device-channels").unwrap();
    assert_eq!(channels["mend"][0], "ethtool -L eth0 rx 4");
}

#[test]
fn the_page_for_people_is_80_columns_wide_and_sums_up() {
    let tree = Tree::sound(Shape::four());
    tree.write("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n");
    let output = doctor(&tree, &[]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for line in page.lines().filter(|line| !line.trim_start().starts_with("mend ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!page.contains('\x1b'), "{page}");
    assert!(page.contains("  WARN    cpus-governor  CPU 2: not at full clock\n"), "{page}");
    assert!(page.contains("          mend  for c in 2; do echo performance > /sys/"), "{page}");
    assert!(page.contains("  engine-killed  lost, then pass unseen"), "{page}");
    let last = page.lines().last().unwrap();
    assert!(last.starts_with("doctor: 0 FAIL, 1 WARN, 0 UNSEEN, "), "{last}");
    assert!(last.ends_with(" OK; begin with cpus-governor"), "{last}");
}

#[test]
fn a_wrong_command_line_is_no_finding() {
    for (words, part) in [
        ("--queues 3-0", "write 0-3"),
        ("--quues 0-3", "'--quues'"),
        ("--root /nonexistent/machine", "no such folder"),
        ("now", "'now'"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanq"));
        let output = command.arg("doctor").args(words.split(' ')).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words}: {stderr}");
        assert!(stderr.contains(part), "{words}: {stderr}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanq"));
    let output = command.args(["doctor", "--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:\n  fanq doctor"));
}
