//! Goal: a running `fanq run` is found and asked, tells what its account then says, changes what may change, and is
//! asked by nobody else. Method: datagrams through a queue on the loopback of a namespace of its own, and beside it
//! `fanq control` and clients that mean no good.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;

use std::time::Instant;

use serde_json::Value;
use space::{Ended, Fanq, PATIENCE, Space};

const PACKETS: u64 = 500;

/// Sends so many datagrams and waits until all have arrived.
fn send(space: &Space) {
    space.shell(&format!(
        "python3 -c \"
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 25) # SO_RCVBUFFORCE
receiver.bind(('127.0.0.1', 9000))
receiver.settimeout(10)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({PACKETS}): sender.sendto(b'x' * 200, ('127.0.0.1', 9000))
for _ in range({PACKETS}): receiver.recv(1000)
\""
    ));
}

/// Runs `fanq control` in the namespace.
fn control(space: &Space, words: &str) -> Ended {
    let words: Vec<_> = ["timeout", "20", env!("CARGO_BIN_EXE_fanq"), "control"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    Fanq::new(space.command(&words).spawn().expect("nsenter runs")).end()
}

fn asked(space: &Space, words: &str) -> Value {
    let ended = control(space, words);
    assert_eq!(ended.code, Some(0), "{words}: {}", ended.stderr);
    ended.json()
}

fn said(space: &Space, words: &str) -> String {
    let ended = control(space, words);
    assert_eq!(ended.code, Some(0), "{words}: {}", ended.stderr);
    ended.stdout
}

#[test]
fn what_is_told_while_it_runs_is_what_the_account_says_at_the_end() {
    let Some(space) = Space::queued() else { return };
    let nobody = control(&space, "statistics");
    nobody.assert_refused(1, &["no fanq run serves in this network namespace"], "nobody there");

    let mut fanq = space.start(&[], "--queues 8-9 --placement none --summary json");
    fanq.await_ready();
    send(&space);
    let mut told = asked(&space, "statistics");
    assert_eq!(told["pid"], fanq.child.id());
    assert_eq!((&told["queue_range"], &told["settings"]["batch"]), (&"8-9".into(), &64.into()));
    let queue = &told["queues"][1];
    assert_eq!((&queue["packets"], &queue["copy_range"]), (&PACKETS.into(), &65_531.into()));
    for (classes, what) in [(11, "batch_sizes"), (22, "batch_times")] {
        let counts = queue[what].as_array().expect(what);
        let sum: u64 = counts.iter().map(|count| count.as_u64().expect("a count")).sum();
        assert_eq!(
            (counts.len(), Value::from(sum)),
            (classes, queue["recv_calls"].clone()),
            "{what}"
        );
    }
    assert_eq!(queue["batched"], PACKETS);

    let mut account = fanq.stop("TERM").json();
    for json in [&mut told, &mut account] {
        let object = json.as_object_mut().expect("an object");
        for ours in ["pid", "version", "queue_range", "uptime_ms", "settings", "cpu_us"] {
            object.remove(ours);
        }
    }
    assert_eq!(told, account);
    control(&space, "statistics").assert_refused(1, &["no fanq run serves"], "after the end");
}

#[test]
fn the_copy_range_changes_at_once_and_what_cannot_change_is_said() {
    let Some(space) = Space::queued() else { return };
    let request = "--queues 8-9 --placement none --copy-range 1000 --summary json";
    let mut fanq = space.start(&[], request);
    fanq.await_ready();
    for (value, bytes) in [("128", 128), ("meta", 0), ("1000", 1000)] {
        assert_eq!(
            said(&space, &format!("set copy-range {value}")),
            format!("copy-range {value}\n")
        );
        let deadline = Instant::now() + PATIENCE;
        // The workers are idle: nothing but the order wakes them.
        loop {
            let told = asked(&space, "statistics");
            assert_eq!(told["settings"]["copy-range"], value);
            if [0, 1].iter().all(|queue| told["queues"][queue]["copy_range"] == bytes) {
                break;
            }
            assert!(Instant::now() < deadline, "not {value}: {told}");
        }
        send(&space);
    }
    for (words, part) in [
        ("set copy-range full", "start it with --copy-range full"),
        ("set copy-range 1001", "copy-range 1001 is out of range: 1 to 1000"),
        ("set copy-range 0", "full, meta, or 1 to 65531 bytes"),
        ("set batch 8", "copy-range and log-level can"),
        ("set log-level loud", "quiet, normal or verbose"),
        ("reload", "--policy FILE.toml"),
    ] {
        control(&space, words).assert_refused(1, &[part], words);
    }
    assert_eq!(asked(&space, "get")["copy-range"], "1000");
    let account = fanq.stop("TERM").json();
    assert_eq!(account["totals"]["packets"], 3 * PACKETS);
    assert_eq!(account["totals"]["verdict_errors"], 0);
}

#[test]
fn rules_are_read_again_and_the_answer_is_the_outcome() {
    let Some(space) = Space::queued() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.toml");
    let rule = |action: &str| format!("[[rule]]\nname = 'all'\naction = '{action}'\n");
    std::fs::write(&rules, rule("accept")).expect("written");
    let request =
        format!("--queues 9 --placement none --summary json --policy {}", rules.display());
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    send(&space);
    assert_eq!(asked(&space, "statistics")["policy"]["rules"][0]["packets"], PACKETS);

    assert!(said(&space, "reload").contains("rules read again from"));
    fanq.await_line("rules read again from");
    std::fs::write(&rules, rule("explode")).expect("written");
    let parts = ["the rules stay as they are", "explode"];
    control(&space, "reload").assert_refused(1, &parts, "a bad file");

    // Not said any more: what happens; still said: what is wrong.
    assert_eq!(said(&space, "set log-level quiet"), "log-level quiet\n");
    std::fs::write(&rules, rule("drop")).expect("written");
    assert!(said(&space, "reload").contains("rules read again from"));
    std::fs::write(&rules, rule("explode")).expect("written");
    control(&space, "reload").assert_refused(1, &parts, "a bad file, quiet");
    let policy = &asked(&space, "statistics")["policy"];
    assert_eq!((&policy["reloads"], &policy["reloads_refused"]), (&2.into(), &2.into()));
    let ended = fanq.stop("TERM");
    assert_eq!(ended.stderr.matches("rules read again from").count(), 1, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("the rules stay as they are").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_socket_file_is_for_its_user_and_goes_at_the_end() {
    let Some(space) = Space::queued() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control");
    let request = format!("--queues 9 --placement none --control {}", path.display());
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    let by_path = format!("--socket {} get", path.display());
    assert_eq!(asked(&space, &by_path)["queues"], "9");
    control(&space, "get").assert_refused(1, &["no fanq run serves"], "by name");
    let second = space.run(&[], &format!("--queues 10 --control {}", path.display()));
    second.assert_refused(1, &["another program serves there", "name another path"], "taken");
    assert_eq!(space.bound(), [9]);
    fanq.stop("TERM");
    assert!(!path.exists());

    // Killed, it leaves the file; the next start takes it over.
    let mut killed = space.start(&[], &request);
    killed.await_ready();
    killed.signal("KILL");
    killed.wait();
    assert!(path.exists());
    let mut next = space.start(&[], &request);
    next.await_ready();
    assert_eq!(asked(&space, &by_path)["queues"], "9");
    next.stop("TERM");

    let mut none = space.start(&[], "--queues 9 --placement none --control none");
    none.await_ready();
    control(&space, "get").assert_refused(1, &["no fanq run serves"], "none");
    none.stop("TERM");
}

#[test]
fn a_stranger_who_poses_as_a_program_is_not_asked() {
    let Some(space) = Space::queued() else { return };
    let pose = "import os, socket, sys
os.setgroups([])
os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind('\\0fanq-1')
listener.listen()
print('ready: listening', file=sys.stderr, flush=True)
asker = listener.accept()[0]
asker.settimeout(10)
print('heard:', asker.recv(1000))";
    let words = ["timeout", "30", "python3", "-c", pose];
    let mut stranger = Fanq::new(space.command(&words).spawn().expect("nsenter runs"));
    stranger.await_ready();
    control(&space, "--pid 1 get").assert_refused(1, &["belongs to user 65534"], "a stranger");
    assert_eq!(stranger.end().stdout, "heard: b''\n");
}

#[test]
fn strangers_are_refused_and_where_several_run_one_is_named() {
    let Some(space) = Space::queued() else { return };
    let mut first = space.start(&[], "--queues 8 --placement none --log-level verbose");
    first.await_ready();
    let ask = format!(
        "import os, socket
os.setgroups([])
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect('\\0fanq-{}')
connection.send(b'{{\"version\":1,\"request\":\"set\",\"key\":\"copy-range\",\"value\":\"meta\"}}\\n')
print(connection.makefile().read())",
        first.child.id()
    );
    let said =
        space.command(&["timeout", "20", "python3", "-c", &ask]).output().expect("python3 runs");
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("only root and user 0 may ask here, and you are user 65534"), "{said}");
    first.await_line("user 65534 was refused");
    assert_eq!(asked(&space, "get")["copy-range"], "full");

    let mut second = space.start(&[], "--queues 9 --placement none");
    second.await_ready();
    let ended = control(&space, "get");
    let pids = [first.child.id().to_string(), second.child.id().to_string()];
    ended.assert_refused(2, &["--pid", &pids[0], &pids[1]], "two");
    for (pid, queues) in pids.iter().zip(["8", "9"]) {
        assert_eq!(asked(&space, &format!("--pid {pid} get"))["queues"], queues);
    }
    first.stop("TERM");
    second.stop("TERM");
}
