//! Goal: a `fanq run` that serves has given up what it does not need, on every thread, and still does all that it is
//! asked to: serve, read rules anew, rotate its log, as root and as another user.
//!
//! Method: the built program in a network namespace of its own; the kernel's word on each thread, from
//! /proc/PID/task/*/status. What a confined thread cannot do any more is tried in `tools/src/confine/tests.rs`.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use space::{Fanq, Space};

/// CAP_NET_ADMIN.
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

/// A namespace in which UDP to port 9000 is queued.
fn scene() -> Option<(Space, tempfile::TempDir)> {
    let space = Space::new()?;
    space
        .shell("ip link set lo up; iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num 9");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    Some((space, folder))
}

fn send(space: &Space, count: u32) {
    space.shell(&format!("for i in {{1..{count}}}; do echo x >/dev/udp/127.0.0.1/9000; done"));
}

/// Name and status of each thread.
fn threads(fanq: &Fanq) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", fanq.child.id())).expect("it runs");
    let status = |task: std::io::Result<fs::DirEntry>| {
        let text =
            fs::read_to_string(task.expect("an entry").path().join("status")).expect("a thread");
        (field(&text, "Name"), text)
    };
    tasks.map(status).collect()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.split(':').next() == Some(name));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn assert_limited(fanq: &Fanq) {
    let threads = threads(fanq);
    for (name, status) in &threads {
        let held =
            if ["fanq-eve", "fanq-control"].contains(&name.as_str()) { NONE } else { NET_ADMIN };
        // The one that waits for signals has no name of its own.
        for set in ["CapPrm", "CapEff"] {
            let has = field(status, set);
            assert!(has == held || (name == "fanq" && has == NONE), "{name}: {set} {has}");
        }
        for (set, value) in [
            ("CapInh", NONE),
            ("CapBnd", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(field(status, set), value, "{name}: {set}");
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("it can be written");
}

#[test]
fn every_thread_is_limited_and_rules_and_log_are_found_anew() {
    let Some((space, folder)) = scene() else { return };
    for dir in ["rules", "log", "elsewhere"] {
        fs::create_dir(folder.path().join(dir)).expect("it can be made");
    }
    let path = |name: &str| folder.path().join(name);
    let rule =
        |name: &str| format!("[[rule]]\nname = '{name}'\nprotocol = 'udp'\naction = 'log'\n");
    write(&path("rules/rules.toml"), &rule("one"));
    write(&path("elsewhere/more.toml"), &rule("elsewhere"));
    let request = format!(
        "--queues 9 --placement none --summary json --confine full --policy {} --eve {} --eve-stats 0.05 \
         --inspect-threads 2 --stats 0.05",
        path("rules/rules.toml").display(),
        path("log/eve.json").display()
    );
    let mut fanq = space.start(&[], &request);
    let said = fanq.await_line("limited:");
    let here = folder.path().canonicalize().expect("it is there");
    for part in ["capabilities, new privileges, files, system calls", "rules (read)", "log (write)"]
    {
        assert!(said.contains(part) && said.contains(&here.display().to_string()), "{said}");
    }
    fanq.await_ready();
    assert_limited(&fanq);
    send(&space, 10);
    fanq.await_line("packets/s");

    // As an editor and a rotation do it: other files under the old names.
    write(&path("rules/new"), &rule("two"));
    fs::rename(path("rules/new"), path("rules/rules.toml")).expect("it can be renamed");
    fs::rename(path("log/eve.json"), path("log/eve.json.1")).expect("there is a log");
    fanq.signal("HUP");
    fanq.await_line("rules read again");
    send(&space, 10);
    // What lies elsewhere was not named when it started.
    write(&path("rules/rules.toml"), "include = '../elsewhere/more.toml'\n");
    fanq.signal("HUP");
    let said = fanq.await_line("the rules stay as they are");
    assert!(said.contains("Permission denied"), "{said}");
    send(&space, 10);
    assert_limited(&fanq);
    let account = fanq.stop("TERM").json();
    assert_eq!(account["totals"]["accepted"], 30, "{account}");
    assert_eq!((&account["totals"]["id_gaps"], &account["eve"]["lost"]), (&0.into(), &0.into()));
    assert!(!account["totals"]["kernel"].is_null(), "{account}");
    for log in ["log/eve.json", "log/eve.json.1"] {
        let lines = fs::read_to_string(path(log)).expect("there is a log");
        assert!(lines.lines().count() > 0, "{log}");
        assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    }
}

/// The kernel gives a process's signal to any thread that does not block it, most often the first.
#[test]
fn a_signal_is_obeyed_whichever_thread_it_comes_to() {
    let Some((space, folder)) = scene() else { return };
    let path = |name: &str| folder.path().join(name).display().to_string();
    write(&folder.path().join("rules.toml"), "");
    let request = format!(
        "--queues 9 --placement none --confine full --inspect-threads 2 --policy {} --eve {} --metrics 9464",
        path("rules.toml"),
        path("eve.json")
    );
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    let process = fanq.child.id();
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let ids: Vec<_> = tasks.map(|task| task.expect("an entry").file_name()).collect();
    assert!(ids.len() >= 7, "main, signals, worker, two lanes, log, questions: {ids:?}");
    for id in ids {
        let id = id.to_str().expect("digits");
        let name = fs::read_to_string(format!("/proc/{process}/task/{id}/comm")).expect("it lives");
        let script = format!(
            "import ctypes, signal
if ctypes.CDLL(None).tgkill({process}, {id}, signal.SIGHUP): raise SystemExit(1)"
        );
        let sent = Command::new("python3").args(["-c", &script]).status().expect("python3 runs");
        assert!(sent.success(), "{name}");
        eprint!("{name}");
        fanq.await_line("rules read again");
    }
    fanq.stop("TERM");
}

#[test]
fn another_user_serves_queues_with_what_is_theirs() {
    let Some((space, folder)) = scene() else { return };
    let copy = folder.path().join("fanq");
    fs::copy(env!("CARGO_BIN_EXE_fanq"), &copy).expect("it can be copied");
    write(&folder.path().join("secret.toml"), "");
    let mode = |mode| PermissionsExt::from_mode(mode);
    fs::set_permissions(folder.path().join("secret.toml"), mode(0o600)).expect("it is ours");
    let request =
        "--queues 9 --placement none --summary json --user 65534:65534 --on-overload drop";
    let mut fanq = space.start(&[], request);
    fanq.await_ready();
    for (name, status) in threads(&fanq) {
        for ids in ["Uid", "Gid"] {
            assert_eq!(field(&status, ids), "65534\t65534\t65534\t65534", "{name}");
        }
        assert_eq!(field(&status, "Groups"), "", "{name}");
    }
    assert_limited(&fanq);
    send(&space, 10);
    let account = fanq.stop("TERM").json();
    let totals = &account["totals"];
    assert_eq!(
        (&totals["accepted"], totals["kernel"]["queue_total"].as_u64()),
        (&10.into(), Some(0)),
        "{totals}"
    );

    // What that user may not read is not read, also where root starts it.
    let request = format!(
        "--queues 9 --placement none --user 65534:65534 --policy {}",
        folder.path().join("secret.toml").display()
    );
    let ended = space.run(&[], &request);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("Permission denied"),
        "{}",
        ended.stderr
    );
    for (user, part) in [("nosuchuser", "useradd --system nosuchuser"), ("4000000000", "UID:GID")] {
        let ended = space.run(&[], &format!("--queues 9 --placement none --user {user}"));
        ended.assert_refused(2, &[part], user);
    }
    let ended = space.run(
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        "--queues 9 --user 1:1",
    );
    // As the program may lie where that user cannot execute it.
    assert!(matches!(ended.code, Some(1 | 126 | 127)), "{}", ended.stderr);
    assert!(space.bound().is_empty());
}

/// As the kernel lets a worker go whose CPU goes offline. The watchdog may place threads, and no other may.
#[test]
fn a_worker_that_was_let_go_is_back_on_its_cpu_soon() {
    let Some((space, _folder)) = scene() else { return };
    let all = sched_getaffinity(None).expect("our own");
    if all.count() < 2 {
        return space::skip("it needs two CPUs");
    }
    let mut fanq = space.start(&[], "--queues 9 --confine full");
    fanq.await_ready();
    let place = |fanq: &Fanq| {
        let worker = threads(fanq).into_iter().find(|(name, _)| name == "fanq-9");
        let (_, status) = worker.expect("it serves");
        (field(&status, "Pid"), field(&status, "Cpus_allowed_list"))
    };
    let (id, before) = place(&fanq);
    assert!(before.parse::<u16>().is_ok(), "pinned to {before}");
    let id = Pid::from_raw(id.parse().expect("a number")).expect("a thread's");
    sched_setaffinity(Some(id), &all).expect("it is ours");
    assert_ne!(place(&fanq).1, before);
    // Bounded by the test's own patience: it looks once a second.
    for _ in 0..200 {
        if place(&fanq).1 == before {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(place(&fanq).1, before);
    send(&space, 3);
    fanq.stop("TERM");
}

#[test]
fn off_is_said_and_gives_up_nothing() {
    let Some((space, _folder)) = scene() else { return };
    let mut fanq = space.start(&[], "--queues 9 --placement none --summary json --confine off");
    fanq.await_line("limited: nothing (--confine off)");
    fanq.await_ready();
    assert!(threads(&fanq).iter().all(|(_, status)| field(status, "Seccomp") == "0"));
    fanq.stop("TERM");
    space.run(&[], "--queues 9 --confine some").assert_refused(2, &["auto, full, off"], "some");
}
