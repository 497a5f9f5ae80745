//! Goal: `fanq top` shows who owns which queue and what it does, ends cleanly however it is ended, and gives the
//! terminal back as it was. Method: the built program in a network namespace of its own, on a pseudo-terminal whose
//! modes and output are looked at, beside a `fanq run` whose queues it is to find.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `setsid` and `iptables`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;
mod terminal;

use std::process::Command;

use serde_json::Value;
use space::{Fanq, Space};
use terminal::OnTerminal;

/// `fanq top` on a terminal of 80 by 24.
fn top(space: &Space, request: &str) -> OnTerminal {
    OnTerminal::start(command(space, "xterm-256color", request), 80, 24)
}

fn command(space: &Space, term: &str, request: &str) -> Command {
    let mut words = vec!["setsid", "--ctty", env!("CARGO_BIN_EXE_fanq"), "top"];
    words.extend(request.split_whitespace());
    let mut command = space.command(&words);
    command.env("TERM", term).env("LANG", "C.UTF-8").env_remove("LC_ALL").env_remove("NO_COLOR");
    command
}

fn run(space: &Space, queues: &str) -> Fanq {
    let mut fanq = space.start(&[], &format!("--queues {queues} --placement none"));
    fanq.await_ready();
    fanq
}

/// Runs a script in the namespace with `$fanq` set, and returns what it wrote.
fn shell(space: &Space, script: &str) -> (String, String, Option<i32>) {
    let mut command = space.command(&["timeout", "20", "bash", "-c", script]);
    let output = command.env("fanq", env!("CARGO_BIN_EXE_fanq")).output().expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn a_queue_is_shown_with_its_owner_at_every_size_and_q_ends_it() {
    let Some(space) = Space::new() else { return };
    let fanq = run(&space, "3-4");
    let owner = format!("{} fanq", fanq.child.id());
    let mut top = top(&space, "--interval 0.1");
    top.await_screen("the queues", |screen| {
        screen.contains("2 queues") && screen.contains(&owner) && screen.contains("PROGRAM")
    });
    top.resize(40, 10);
    top.await_screen("the small one", |screen| {
        screen.contains("PACKETS/s") && !screen.contains("OWNER") && screen.lines().count() <= 10
    });
    top.resize(150, 40);
    top.await_screen("the large one", |screen| {
        screen.contains("UNSEEN/s") && screen.contains(&owner) && screen.contains("[accept]")
    });
    top.resize(5, 2);
    top.resize(80, 24);
    top.await_screen("the usual one", |screen| screen.contains(&owner));
    top.press("q");
    top.assert_given_back("q");
}

#[test]
fn packets_become_rates_and_a_stopped_program_is_named() {
    let Some(space) = Space::new() else { return };
    space.shell(
        "mount -t tmpfs tmpfs /run; ip link set lo up
         iptables -A OUTPUT -p udp --dport 9000 -j NFQUEUE --queue-num 7",
    );
    let fanq = run(&space, "7");
    let mut top = top(&space, "--interval 0.2");
    top.await_screen("the queue", |screen| screen.contains("1 queue "));
    fanq.signal("STOP");
    space.shell("for i in {1..20}; do echo x >/dev/udp/127.0.0.1/9000; done");
    let stopped = "!! queue 7: its program is stopped";
    let screen = top.await_screen("the depth", |screen| {
        screen.contains(stopped) && screen.lines().any(|line| line.contains(" 20 "))
    });
    assert!(screen.contains("kill -CONT"), "{screen}");
    fanq.signal("CONT");
    top.await_screen("an end of it", |screen| !screen.contains(stopped));
    fanq.stop("TERM");
    top.await_screen("that it went", |screen| {
        screen.contains("queue 7: given up") && screen.contains("No program has a queue")
    });
    top.press("\x1b");
    top.assert_given_back("Esc");
}

#[test]
fn signals_end_it_and_the_terminal_is_as_it_was() {
    let Some(space) = Space::new() else { return };
    for signal in ["TERM", "HUP", "INT", "QUIT"] {
        let mut top = top(&space, "--interval 60");
        top.await_screen("the empty screen", |screen| screen.contains("fanq run --queues 0-3"));
        assert!(!top.is_as_before() && !top.is_left(), "it has not taken the terminal");
        top.signal(signal);
        top.assert_given_back(signal);
    }
    let mut top = top(&space, "--interval 60");
    top.await_screen("the empty screen", |screen| screen.contains("fanq run --queues 0-3"));
    top.press("\x03");
    top.assert_given_back("Ctrl-C");
}

#[test]
fn while_it_is_stopped_the_terminal_is_as_it_was_and_after_it_everything_is_drawn_again() {
    let Some(space) = Space::new() else { return };
    for stop in ["signal", "key"] {
        let mut top = top(&space, "--interval 0.1");
        top.await_screen("the screen", |screen| screen.contains("No program has a queue"));
        if stop == "key" {
            top.press("\x1a");
        } else {
            top.signal("TSTP");
        }
        top.await_state('T');
        assert!(top.is_as_before(), "{stop}");
        top.await_screen("the usual screen", |_| top.is_left());
        let before = top.written().len();
        top.signal("CONT");
        top.await_screen("the screen again", |_| {
            top.written()[before..].contains("\x1b[?1049h") && !top.is_as_before()
        });
        top.await_screen("its text", |screen| screen.contains("No program has a queue"));
        top.press("q");
        top.assert_given_back(stop);
    }
}

#[test]
fn keys_scroll_sort_pause_and_explain() {
    let Some(space) = Space::new() else { return };
    let _fanq = run(&space, "100-163");
    let mut top = top(&space, "--interval 0.1 --no-color");
    top.await_screen("the first queues", |screen| {
        screen.contains("\n   100 ") && screen.contains("lines 1-")
    });
    top.press("\x1b[F"); // End
    top.await_screen("the last queue", |screen| screen.contains("\n   163 "));
    top.press("\x1b[H"); // Home
    top.await_screen("the first queue", |screen| screen.contains("\n   100 "));
    top.press("r");
    top.await_screen("the other way round", |screen| screen.contains("\n   163 "));
    top.press("s");
    top.await_screen("the key", |screen| screen.contains("s sort (packets)"));
    top.press("?");
    top.await_screen("help", |screen| screen.contains("any key: back"));
    top.press("x");
    top.await_screen("no help", |screen| !screen.contains("any key: back"));
    top.press("p");
    top.await_screen("the pause", |screen| screen.contains("PAUSED"));
    top.press("q");
    top.assert_given_back("q");
    let coloured = top.written().split('\x1b').any(|part| {
        let numbers = part.strip_prefix('[').and_then(|part| part.split_once('m'));
        numbers.is_some_and(|(n, _)| {
            n.split(';').any(|n| matches!(n, "31" | "32" | "33" | "90" | "38"))
        })
    });
    assert!(!coloured, "{:?}", top.written());
}

#[test]
fn a_dumb_terminal_gets_tables_without_escapes() {
    let Some(space) = Space::new() else { return };
    let _fanq = run(&space, "5");
    let mut top = OnTerminal::start(command(&space, "dumb", "--interval 0.1 -n 2"), 80, 24);
    assert_eq!(top.end(), Some(0));
    let screen = top.await_screen("two tables", |screen| screen.matches("PACKETS/s").count() == 2);
    assert!(screen.contains("     5 ") && !top.written().contains('\x1b'), "{:?}", top.written());
}

#[test]
fn once_and_json_have_the_queues_and_their_owner() {
    let Some(space) = Space::new() else { return };
    let fanq = run(&space, "8-9");
    let (table, stderr, code) = shell(&space, "$fanq top --once --interval 0.1 -q 9");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(table.contains(&format!("{} fanq", fanq.child.id())), "{table}");
    assert!(table.contains("\n     9 ") && !table.contains("\n     8 "), "{table}");
    assert!(!table.contains('\x1b'), "{table:?}");

    let (lines, stderr, code) = shell(&space, "$fanq top --json --interval 0.1 -n 2");
    assert_eq!((code, stderr.as_str(), lines.lines().count()), (Some(0), "", 2));
    for line in lines.lines() {
        let object: Value = serde_json::from_str(line).expect("a line is an object");
        assert_eq!(object["schema"], "fanq.top/1");
        let queue = &object["queues"][1];
        assert_eq!((&queue["queue"], &queue["depth"]), (&9.into(), &0.into()));
        assert_eq!(queue["owner"]["pid"], fanq.child.id());
        assert_eq!(queue["maxlen"], 16_384, "the control socket has it: {queue}");
        for key in ["packets", "answered", "lost_queue_full", "lost_socket_full", "bytes"] {
            assert_eq!(queue[key], 0.0, "{key} of {queue}");
            assert!(object["totals"][key].is_number(), "{key} of {}", object["totals"]);
        }
        assert_eq!(object["programs"][0]["policy"], "accept");
        assert_eq!(object["problems"], Value::Array(Vec::new()));
    }
    let (out, _, code) = shell(&space, "exec $fanq top --json --once | cat");
    assert_eq!((code, out.lines().count()), (Some(0), 1));
}

/// The namespace is that of another process: the table that it shows is that one's.
#[test]
fn the_namespace_of_another_process_can_be_looked_at() {
    let Some(space) = Space::new() else { return };
    let fanq = run(&space, "11");
    let elsewhere = Space::new().expect("as the first");
    let request = format!("$fanq top --once --interval 0.1 --netns-of {}", fanq.child.id());
    let (table, _, code) = shell(&elsewhere, &request);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("\n    11 "), "{table}");
    let (table, _, _) = shell(&elsewhere, "$fanq top --once --interval 0.1");
    assert!(table.contains("No program has a queue here"), "{table}");
}

#[test]
fn a_reader_that_has_had_enough_ends_it_without_a_word() {
    let Some(space) = Space::new() else { return };
    for request in ["--json --interval 0.05", "--once --interval 0.05"] {
        let script = format!("set -o pipefail; $fanq top {request} | head -c 1 >/dev/null");
        let (_, stderr, code) = shell(&space, &script);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{request}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let Some(space) = Space::new() else { return };
    for (script, status, part) in [
        ("$fanq top </dev/null", 2, "fanq top --once"),
        ("$fanq top --once --interval 0", 2, "0.05 to 3600"),
        ("$fanq top --once -q 3-1", 2, "write 1-3"),
        ("$fanq top --once -n 0", 2, "'0' for '--count"),
        ("$fanq top --once --netns-of 4194304", 1, "there is no such process"),
        ("$fanq top --once --root /nonexistent", 1, "modprobe nfnetlink_queue"),
        (
            "set -e; d=$(mktemp -d); trap 'rm -rf $d' EXIT; chmod 755 $d; mkdir -p $d/proc/net/netfilter
             touch $d/proc/net/netfilter/nfnetlink_queue; chmod 0 $d/proc/net/netfilter/nfnetlink_queue
             cp $fanq $d/fanq; setpriv --reuid 65534 --clear-groups --bounding-set=-all $d/fanq top --once --root $d",
            1,
            "try `sudo fanq top`",
        ),
    ] {
        let (out, stderr, code) = shell(&space, script);
        assert_eq!((code, out.as_str()), (Some(status), ""), "{script}: {stderr}");
        assert!(stderr.contains(part) && !stderr.contains("panicked"), "{script}: {stderr}");
    }
}
