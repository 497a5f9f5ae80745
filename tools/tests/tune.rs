//! Goal: `fanq tune` plans, applies and reverts as its users see it, on copies of a machine's files and on real ones;
//! and `--measure` leaves a file that `fanq run` takes.
//!
//! Method: the built program. Copies are compared whole before and behind; real files are the steering masks of a veth
//! in a network namespace of its own. What the bench measures is not asked here, so a script stands in for it, which
//! reads the axes and answers as the bench would.
//!
//! The tests on real files need root, `unshare`, `ip` and `ethtool`; without root they print SKIPPED, or fail if CI is
//! set.

#![expect(clippy::unwrap_used, reason = "what a test's own helpers cannot do ends the test")]

mod space;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use space::skip;

const FANQ: &str = env!("CARGO_BIN_EXE_fanq");

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A machine of two CPUs and a card with one queue, badly set.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let sections = "Pre-set maximums:\nRX:\t\t1024\nCurrent hardware settings:\nRX:\t\t256\n";
    for (name, text) in [
        ("sys/devices/system/cpu/online", "0-1\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
        ("proc/sys/net/core/rmem_max", "212992\n"),
        ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("proc/net/dev", "a\nb\n  eth0: 1 2\n"),
        ("proc/interrupts", "  CPU0 CPU1\n 40: 1 0 PCI 1-edge eth0-rx-0\n"),
        ("proc/irq/40/smp_affinity_list", "0-1\n"),
        ("sys/class/net/eth0/operstate", "up\n"),
        ("sys/class/net/eth0/device/numa_node", "-1\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000\n"),
        ("commands/ethtool -g eth0", sections),
    ] {
        write(root.path(), name, text);
    }
    root
}

fn tune(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(FANQ);
    command.args(["tune", "--root"]).arg(root).args(words).stdin(Stdio::null());
    command.output().unwrap()
}

fn done(root: &Path, words: &[&str]) -> String {
    let output = tune(root, words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(root: &Path, words: &[&str], status: i32, part: &str) {
    let output = tune(root, words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {stderr}");
    assert!(stderr.contains(part), "{words:?}: {stderr}");
}

fn copy_of(root: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(root.join(".")).arg(copy.path()).status();
    assert!(status.unwrap().success());
    copy
}

/// But for the empty folder of the journal.
fn assert_same_files(one: &Path, other: &Path) {
    let output = Command::new("diff").arg("-r").args([one, other]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let differences: Vec<_> = said.lines().filter(|line| !line.ends_with(": var")).collect();
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn a_plan_is_shown_applied_and_reverted_to_the_byte() {
    let root = machine();
    let before = copy_of(root.path());
    let shown = done(root.path(), &[]);
    assert_same_files(before.path(), root.path());
    assert!(shown.starts_with("# 7 changes, none made"), "{shown}");
    for command in [
        "ethtool -G eth0 rx 1024",
        "echo 0 > /proc/irq/40/smp_affinity_list",
        "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus",
        "sysctl -w net.core.rmem_max=67108864",
        "sysctl -w net.core.netdev_max_backlog=16384",
        "echo performance > /sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
    ] {
        assert!(shown.lines().any(|line| line.starts_with(command)), "{command}: {shown}");
    }
    let plan: Value = serde_json::from_str(&done(root.path(), &["plan", "--json"])).unwrap();
    assert_eq!((&plan["count"], &plan["to_revert"]), (&7.into(), &0.into()));
    assert_eq!(plan["changes"][0]["undo"], "ethtool -G eth0 rx 256");

    assert!(done(root.path(), &["apply"]).contains("7 changes made"));
    let again = done(root.path(), &["plan"]);
    assert!(again.contains("0 changes") && again.contains("7 changes in force"), "{again}");
    assert!(done(root.path(), &["apply"]).contains("0 changes"));
    assert!(done(root.path(), &["revert"]).contains("7 changes put back"));
    assert_same_files(before.path(), root.path());
    assert!(done(root.path(), &["revert"]).contains("nothing to put back"));
}

#[test]
fn changes_are_chosen_by_their_names() {
    let root = machine();
    let count = |words: &[&str]| {
        let words = [words, &["--json"]].concat();
        let plan: Value = serde_json::from_str(&done(root.path(), &words)).unwrap();
        plan["count"].as_u64().unwrap()
    };
    assert_eq!(count(&["--only", "governor.*"]), 2);
    assert_eq!(count(&["plan", "--only", "governor.*", "--skip", "*.cpu1"]), 1);
    assert_eq!(count(&["plan", "--skip", "governor.*", "--skip", "net.*"]), 3);
    assert_eq!(count(&["plan", "--only", "nothing"]), 0);
    // One queue: one worker, on CPU 0, and nothing to hand on.
    assert_eq!(count(&["plan", "--queues", "5", "--only", "rps.*", "--only", "governor.*"]), 1);
}

#[test]
fn bad_requests_and_bad_journals_are_refused_with_what_to_do() {
    let root = machine();
    refused(root.path(), &["--dev", "eth9"], 2, "no network device eth9");
    refused(root.path(), &["--only", "[["], 2, "--only");
    refused(root.path(), &["--queues", "3-0"], 2, "write 0-3");
    refused(root.path(), &["plan", "--measure"], 2, "--measure");
    refused(root.path(), &["--budget", "60"], 2, "--measure");
    refused(root.path(), &["revert", "--force", "--forget"], 2, "--forget");
    write(root.path(), "var/lib/fanq/tune.json", "{\"format\":\"fanq.tune/9\"}");
    let before = copy_of(root.path());
    for action in ["plan", "apply", "revert"] {
        refused(root.path(), &[action], 1, "fanq.tune/9");
    }
    assert_same_files(before.path(), root.path());
}

/// What the program leaves alone it says, keeps, and on demand forgets or puts back.
#[test]
fn what_somebody_else_has_set_is_told_and_kept() {
    let root = machine();
    let file = "proc/sys/net/core/rmem_max";
    for (word, value) in [("--forget", "1000000\n"), ("--force", "212992\n")] {
        write(root.path(), file, "212992\n");
        done(root.path(), &["apply", "--only", "net.*"]);
        write(root.path(), file, "1000000\n");
        let said = done(root.path(), &["revert"]);
        assert!(
            said.contains("left alone: net.core.rmem_max") && said.contains("--force"),
            "{said}"
        );
        done(root.path(), &["revert", word]);
        assert_eq!(std::fs::read_to_string(root.path().join(file)).unwrap(), value);
        assert!(done(root.path(), &["revert"]).contains("nothing to put back"));
    }
}

/// Steering masks of a veth, on the running kernel: it shows them in another form than they were written.
#[test]
fn real_files_are_changed_and_come_back() {
    let script = "set -e
        mount -t sysfs none /sys
        ip link add test0 numrxqueues 1 type veth peer name test1
        masks() { cat /sys/class/net/*/queues/*/rps_cpus; }
        before=$(masks)
        tune() { timeout 20 \"$FANQ\" tune --state \"$FOLDER/tune.json\" --dev test0 --only 'rps.*' \"$@\"; }
        tune plan
        [ \"$(masks)\" = \"$before\" ]
        tune apply
        [ \"$(masks)\" != \"$before\" ]
        tune plan --json
        tune revert
        [ \"$(masks)\" = \"$before\" ]
        [ -z \"$(ls \"$FOLDER\")\" ]
        echo all came back";
    if std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim() == "0" {
        return skip("with one CPU there is nothing to steer");
    }
    let Some((said, stderr)) = in_namespace(script) else { return };
    assert!(said.ends_with("all came back\n"), "{said}{stderr}");
    assert!(said.contains("rps.test0.rx-0") && said.contains("\"count\": 0"), "{said}");
}

/// A journal of a change that only `ethtool` can undo: `ethtool` does it, and what it refuses is told and kept.
#[test]
fn what_ethtool_has_to_undo_it_undoes() {
    let script = r#"set -e
        mount -t sysfs none /sys
        ip link add test0 numrxqueues 2 numtxqueues 2 type veth peer name test1
        ethtool -L test0 rx 2
        rx() { ethtool -l test0 | tail -n +6 | grep '^RX:'; }
        journal() {
            setting='{"kind":"ethtool","device":"test0","table":"channels","key":"rx"}'
            boot=$(cat /proc/sys/kernel/random/boot_id)
            printf '{"format":"fanq.tune/1","boot":"%s","entries":[{"setting":%s,"old":"%s","ours":["2"],
                "owner":"","under_way":false}]}' "$boot" "$setting" "$1" > "$FOLDER/tune.json"
        }
        tune() { timeout 20 "$FANQ" tune --state "$FOLDER/tune.json" revert; }
        journal 99
        ! tune 2>&1
        rx
        [ -e "$FOLDER/tune.json" ]
        journal 1
        tune
        rx
        [ -z "$(ls "$FOLDER")" ]
        echo all came back"#;
    let Some((said, stderr)) = in_namespace(script) else { return };
    assert!(said.ends_with("all came back\n"), "{said}{stderr}");
    assert!(said.contains("channels.test0.rx: `ethtool -L test0 rx 99`"), "{said}{stderr}");
    let rx: Vec<_> = said.lines().filter(|line| line.starts_with("RX:")).collect();
    assert_eq!(rx, ["RX:\t\t2", "RX:\t\t1"], "{said}{stderr}");
}

/// Runs a script as root of a network and mount namespace, with the program and an empty folder in its environment.
fn in_namespace(script: &str) -> Option<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-nm", "timeout", "60", "bash", "-c", script]).stdin(Stdio::null());
    let output = command.env("FANQ", FANQ).env("FOLDER", folder.path()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if stderr.starts_with("unshare:") {
        skip("unshare may not make namespaces here");
        return None;
    }
    Some((stdout, stderr))
}

/// Stands in for the bench: a batch of 256 costs half, and `cpu` bears it out unless told otherwise.
const BENCH: &str = r#"#!/usr/bin/env python3
import itertools, json, os, sys, tomllib
words = sys.argv[1:]
out = words[words.index("--out") + 1]
value = lambda option: words[words.index(option) + 1]
def trial(target, round, us):
    return {"target": target, "round": round, "seconds": 0.1, "void": None, "cpu": {"us": us * 1000, "answered": 1000},
            "account": {"offered": 1000, "delivered": 1000, "policy_drops": 0}}
def finding(target, ratio):
    estimate = {"median": ratio, "low": ratio * 0.99, "high": ratio * 1.01}
    return {"target": target, "us_per_packet": estimate, "ratio_to_first": estimate, "lost_share": 0.0}
trials, cpu = [], []
if words[0] == "sweep":
    axes = tomllib.load(open(words[1], "rb"))
    for round in range(int(value("--rounds"))):
        for values in itertools.product(*axes.values()):
            target = "fanq:" + " ".join(f"--{o} {v}" for o, v in zip(axes, values))
            trials.append(trial(target, round, 0.5 if "--batch 256" in target else 1.0))
else:
    borne_out = float(os.environ["RATIO"])
    targets = [words[i + 1] for i, word in enumerate(words) if word == "--target"]
    cpu = [finding(targets[0], 1.0), finding(targets[1], borne_out), finding("fanq (again)", 1.0)]
json.dump({"schema": "fanq.bench/1", "trials": trials, "findings": {"cpu": cpu},
           "run": {"began": "now"}, "machine": {"cpus": 2, "cpu": "made up", "kernel": "6.0"}}, open(out, "w"))
"#;

/// Written by another process: a file that this one has open to write cannot be run, and its other threads' children
/// may have it open for a moment.
fn beside_a_bench(folder: &Path, script: &str) -> PathBuf {
    let (fanq, bench) = (folder.join("fanq"), folder.join("fanq-bench"));
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), script).unwrap();
    for (from, to) in [(Path::new(FANQ), &fanq), (source.path(), &bench)] {
        let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
        assert!(status.unwrap().success());
    }
    fanq
}

fn measure(fanq: &Path, folder: &Path, ratio: &str) -> Output {
    let mut command = Command::new(fanq);
    command.args(["tune", "--measure", "--budget", "300", "-o"]).arg(folder.join("fanq.toml"));
    command.env("RATIO", ratio).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_measurement_leaves_options_that_fanq_run_takes_and_the_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let fanq = beside_a_bench(folder.path(), BENCH);
    for (ratio, batch, said) in
        [("0.5", 256, "chosen: batch 256"), ("1.0", 64, "not in a measurement")]
    {
        let output = measure(&fanq, folder.path(), ratio);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stdout.contains(said), "{stdout}{stderr}");
        assert!(stderr.contains("1 of 2: ") && stderr.contains("2 of 2: "), "{stderr}");
        let file = folder.path().join("fanq.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("\nbatch = {batch}\n")) && text.contains(said), "{text}");
        let evidence = std::fs::read(folder.path().join("fanq.measured.json")).unwrap();
        let evidence: Value = serde_json::from_slice(&evidence).unwrap();
        assert!(evidence["ranked"].as_array().unwrap().len() >= 3);
        // What is there is not written over.
        let again = measure(&fanq, folder.path(), ratio);
        assert_eq!(again.status.code(), Some(2));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        // The file is taken: only a word on the command line is wrong.
        let mut run = Command::new(&fanq);
        run.args(["run", "--config"]).arg(&file).args(["--queues", "0", "--drain-limit", "0"]);
        let refused = String::from_utf8(run.output().unwrap().stderr).unwrap();
        assert!(refused.contains("drain-limit 0 is out of range"), "{refused}");
        for name in ["fanq.toml", "fanq.measured.json"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

/// The bench is told, so that it takes its lab away, and waited for.
#[test]
fn an_interruption_ends_the_bench_too_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh
        trap 'echo told > \"$0.told\"; exit 1' INT
        echo > \"$0.started\"
        while :; do sleep 0.05; done";
    let fanq = beside_a_bench(folder.path(), script);
    let mut command = Command::new(&fanq);
    command.args(["tune", "--measure", "-o"]).arg(folder.path().join("fanq.toml"));
    let mut measuring = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = folder.path().join("fanq-bench.started");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !started.exists() {
        assert!(std::time::Instant::now() < until, "the bench was never started");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let told = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", measuring.id())])
        .status()
        .unwrap();
    assert!(told.success());
    let status = measuring.wait().unwrap();
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut measuring.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(status.code() == Some(1) && stderr.contains("interrupted"), "{stderr}");
    assert!(folder.path().join("fanq-bench.told").exists());
    assert!(!folder.path().join("fanq.toml").exists());
}

#[test]
fn a_bench_that_is_missing_fails_or_answers_nonsense_leaves_no_file() {
    for (script, part) in [
        ("#!/bin/sh\necho no lab here >&2\nexit 1\n", "ended with exit status: 1"),
        ("#!/bin/sh\nexit 0\n", "left no result"),
        ("#!/bin/sh\nwhile [ \"$1\" != --out ]; do shift; done; echo '{}' > \"$2\"\n", "schema"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let fanq = beside_a_bench(folder.path(), script);
        let output = measure(&fanq, folder.path(), "1.0");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(part), "{stderr}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{script}");
    }
    let folder = tempfile::tempdir().unwrap();
    let fanq = beside_a_bench(folder.path(), "");
    std::fs::remove_file(folder.path().join("fanq-bench")).unwrap();
    let mut command = Command::new(&fanq);
    command.args(["tune", "--measure"]).current_dir(folder.path()).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && stderr.contains("cargo build --release"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
