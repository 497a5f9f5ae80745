//! Goal: `fanq run` refuses what it cannot do with the right exit status, a message that helps and
//! no queue left bound; and what it starts, it ends well on a signal, with the documented account.
//!
//! Method: each test runs the built program in a network namespace of its own, held open by a
//! sleeping process, and reads there which queues the kernel says are bound. Every wait is bounded.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `taskset` and `iptables`. Without root each test
//! prints SKIPPED, or fails if CI is set.

mod space;

use serde_json::Value;
use space::{Space, skip};

#[test]
fn a_request_that_cannot_be_right_ends_with_status_2_and_says_what_would_be() {
    let Some(space) = Space::new() else { return };
    for (request, part) in [
        ("--queues 3-0", "the range 3-0 is reversed: write 0-3"),
        ("--queues=", "write `0-3`, `0:3` or `5`"),
        ("--queues 0-", "write `0-3`, `0:3` or `5`"),
        ("--queues two", "`two` in `two` is no queue number"),
        ("--queues 65536", "queue 65536 does not exist: queue numbers go from 0 to 65535"),
        ("--queues 65534:65537", "queue numbers go from 0 to 65535"),
        ("--queues 0-1024", "1025 queues are more than the 1024"),
        ("--queues 0-1 --batch 0", "batch 0 is out of range: 1 to 1024"),
        ("--queues 0-1 --batch 1025", "batch 1025 is out of range: 1 to 1024"),
        ("--queues 0-1 --batch many", "'many' for '--batch"),
        ("--queues 0-1 --queue-maxlen 0", "queue-maxlen 0 is out of range"),
        ("--queues 0-1 --rcvbuf 4GiB", "rcvbuf"),
        ("--queues 0-1 --copy-range 65532", "full, meta, or 1 to 65531 bytes"),
        ("--queues 0-1 --wait spin", "block or spin:<microseconds>"),
        ("--queues 0-1 --policy reject", "accept, drop, or drop:<percent"),
        ("--queues 0-1 --placement here", "same, spare:<cpus> or none"),
        ("--queues 0-1 --placement spare:1-0", "no list of CPUs"),
        ("--queues 0-1 --stats 0", "stats 0 is out of range"),
        ("--queues 0-1 --summary xml", "text, json"),
        ("--queues 0-1 --uid-gid=maybe", "write wanted, required"),
        ("--queues 0-1 --quiet", "'--quiet'"),
    ] {
        let ended = space.run(&[], request);
        ended.assert_refused(2, &[part], request);
        assert_eq!(space.bound(), NONE, "{request}");
    }
}

/// Elsewhere than in a session of its own fanq would weigh others' programs, too.
#[test]
fn a_session_that_it_leads_gets_its_workers_weight_and_no_other() {
    let Some(space) = Space::new() else { return };
    let Some(own) = session_nice("self") else {
        eprintln!("SKIPPED: this kernel groups nothing by sessions");
        return;
    };
    let somebody = ["setsid", "sh", "-c", r#"echo 3 >/proc/self/autogroup; exec "$@""#, "sh"];
    for (wrapper, request, nice) in [
        (&["setsid"][..], "--queues 9", -5),
        (&["setsid"], "--queues 9-12 --placement none", -11),
        (&["setsid"], "--queues 9 --nice=-7", -7),
        (&["setsid"], "--queues 9 --nice 0", 0),
        (&somebody, "--queues 9", 3),
        (&[], "--queues 9", own),
    ] {
        let mut fanq = space.start(wrapper, request);
        fanq.await_ready();
        let given = session_nice(&fanq.child.id().to_string());
        assert_eq!(given, Some(nice), "{wrapper:?} {request}");
        fanq.stop("TERM");
    }
}

/// sched(7), "The autogroup feature"
fn session_nice(process: &str) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/autogroup")).ok()?;
    text.trim().rsplit_once("nice ")?.1.parse().ok()
}

#[test]
fn a_configuration_file_that_is_wrong_is_named_with_what_is_wrong_in_it() {
    let Some(space) = Space::new() else { return };
    for (text, part) in [
        ("queues = '0-1'\nbatches = 8", "unknown field `batches`"),
        ("queues = '1-0'", "write 0-1"),
        ("queues = '0-1'\nbatch = 0", "batch 0 is out of range: 1 to 1024"),
        ("queues 0-1", "expected"),
    ] {
        let file = config_file(text);
        let name = file.path().display().to_string();
        let ended = space.run(&[], &format!("--config {name}"));
        // A number out of range may come from either source, so only the setting is named.
        let parts = if part.contains("range:") { vec![part] } else { vec![part, name.as_str()] };
        ended.assert_refused(2, &parts, text);
        assert_eq!(space.bound(), NONE, "{text}");
    }
    let ended = space.run(&[], "--queues 0-1 --config /nonexistent/fanq.toml");
    ended.assert_refused(1, &["/nonexistent/fanq.toml", "No such file"], "a missing file");
    assert_eq!(space.bound(), NONE);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let Some(space) = Space::new() else { return };
    let file = config_file("queues = '100:101'\nbatch = 32\nplacement = 'none'\nsummary = 'json'");
    let request = format!("--queues 7 --config {}", file.path().display());
    let mut fanq = space.start(&[], &request);
    let ready = fanq.await_ready();
    assert!(ready.contains("queues 7 bound") && ready.contains("batch 32"), "{ready}");
    assert_eq!(space.bound(), [7]);
    let ended = fanq.stop("TERM");
    assert_eq!(ended.json()["queues"][0]["cpu"], Value::Null);
}

#[test]
fn without_the_capability_it_says_which_is_missing() {
    let Some(space) = Space::new() else { return };
    let wrapper = ["setpriv", "--bounding-set=-net_admin"];
    let ended = space.run(&wrapper, "--queues 0-1 --placement none");
    ended.assert_refused(1, &["not permitted", "CAP_NET_ADMIN"], "no CAP_NET_ADMIN");
    assert_eq!(space.bound(), NONE);
}

#[test]
fn a_taken_queue_is_named_with_its_owner_and_no_other_stays_bound() {
    let Some(space) = Space::new() else { return };
    let mut owner = space.start(&[], "--queues 2 --placement none");
    owner.await_ready();
    let ended = space.run(&[], "--queues 0-3 --placement none");
    let process = format!("process {} (fanq)", owner.child.id());
    ended.assert_refused(1, &["queue 2 is taken", &process, "--queues"], "queue 2 taken");
    assert_eq!(space.bound(), [2], "what was bound before the failure stays bound");
    owner.stop("TERM");
    assert_eq!(space.bound(), NONE);

    // What was taken can be had now.
    let mut next = space.start(&[], "--queues 0-3 --placement none");
    next.await_ready();
    assert_eq!(space.bound(), [0, 1, 2, 3]);
    next.stop("TERM");
}

/// Whether this kernel does what is asked for is the engine's own test's business; here, what is said about it.
#[test]
fn a_refused_flag_is_a_warning_where_it_is_wanted_and_an_error_where_it_is_required() {
    let Some(space) = Space::new() else { return };
    let mut fanq = space.start(&[], "--queues 0-1 --placement none --gso --conntrack=wanted");
    let ready = fanq.await_ready();
    assert!(ready.contains("gso"), "{ready}");
    let granted = ready.contains("conntrack, gso");
    let ended = fanq.stop("TERM");
    let warned = ended.stderr.contains("warning: this kernel refuses conntrack (it needs CONFIG_");
    assert_eq!(warned, !granted, "{}", ended.stderr);

    let request = "--queues 0-1 --placement none --conntrack";
    if granted {
        let mut fanq = space.start(&[], request);
        fanq.await_ready();
        fanq.stop("TERM");
    } else {
        let parts =
            ["conntrack", "CONFIG_NETFILTER_NETLINK_GLUE_CT", "modprobe", "--conntrack=wanted"];
        space.run(&[], request).assert_refused(1, &parts, request);
    }
    assert_eq!(space.bound(), NONE);
}

#[test]
fn a_cpuset_without_the_filling_cpu_refuses_the_start_and_other_placements_do_not_need_it() {
    let Some(space) = Space::new() else { return };
    let allowed = fanq::allowed_cpus().expect("the kernel tells");
    if allowed.iter().take(2).map(|cpu| cpu.0).ne([0, 1]) {
        return skip("needs the CPUs 0 and 1");
    }
    let only_cpu_0 = ["taskset", "-c", "0"];
    let ended = space.run(&only_cpu_0, "--queues 0-1");
    let parts =
        ["queue 1 is filled by CPU", "allowed: 0", "widen its cpuset", "`spare:0` or `none`"];
    ended.assert_refused(1, &parts, "same");
    let ended = space.run(&only_cpu_0, "--queues 0-1 --placement spare:1");
    ended.assert_refused(1, &["spare CPU 1 cannot be used", "may run on 0"], "spare:1");
    assert_eq!(space.bound(), NONE);

    for (placement, said, cpu) in [
        ("none", "queue 1: worker on any CPU", Value::Null),
        ("spare:0", "queue 1: worker on CPU 0", Value::from(0)),
    ] {
        let request = format!("--queues 0-1 --summary json --placement {placement}");
        let mut fanq = space.start(&only_cpu_0, &request);
        fanq.await_ready();
        let ended = fanq.stop("TERM");
        assert!(ended.stderr.contains(said), "{placement}: {}", ended.stderr);
        assert_eq!(ended.json()["queues"][1]["cpu"], cpu, "{placement}");
    }
}

#[test]
fn both_notations_and_any_first_queue_are_served() {
    let Some(space) = Space::new() else { return };
    for (range, queues) in [
        ("0:3", &[0, 1, 2, 3][..]),
        ("0-3", &[0, 1, 2, 3]),
        ("100-101", &[100, 101]),
        ("65535", &[65535]),
    ] {
        let mut fanq = space.start(&[], &format!("--queues {range} --placement none"));
        fanq.await_ready();
        assert_eq!(space.bound(), queues, "{range}");
        fanq.stop("TERM");
        assert_eq!(space.bound(), NONE, "{range}");
    }
}

#[test]
fn a_signal_ends_it_well_and_the_account_stands_alone_on_standard_output() {
    let Some(space) = Space::new() else { return };
    for signal in ["TERM", "INT"] {
        let request = "--queues 4-5 --placement none --stats 0.05 --summary json";
        let mut fanq = space.start(&[], request);
        fanq.await_ready();
        fanq.await_line("packets/s");
        let ended = fanq.stop(signal);
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        let account = ended.json();
        assert_eq!(account["schema"], "fanq.run/1");
        assert!(account["cpu_us"].is_u64());
        assert_counts(&account["totals"]);
        let queues = account["queues"].as_array().expect("queues is a list");
        for (queue, number) in queues.iter().zip([4, 5]) {
            assert_eq!(queue["queue"], number);
            assert!(queue.get("cpu").is_some());
            assert_counts(queue);
        }
        assert_eq!(queues.len(), 2);
        assert_eq!(space.bound(), NONE);
    }
}

#[test]
fn what_is_queued_before_the_signal_is_answered_and_counted() {
    let Some(space) = Space::new() else { return };
    space.shell(
        "ip link set lo up && iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num 9",
    );
    for (policy, accepted, dropped) in [("accept", 50, 0), ("drop", 0, 50)] {
        let request = format!("--queues 9 --placement none --summary json --policy {policy}");
        let mut fanq = space.start(&[], &request);
        fanq.await_ready();
        space.shell("for i in {1..50}; do echo x >/dev/udp/127.0.0.1/9000; done");
        let totals = &fanq.stop("TERM").json()["totals"];
        let counts = ["packets", "accepted", "dropped"].map(|key| totals[key].as_u64());
        assert_eq!(counts, [50, accepted, dropped].map(Some), "{totals}");
        assert_eq!(totals["kernel"]["queue_total"], 0, "{totals}");
    }
}

#[test]
fn the_account_for_people_is_a_table_with_a_last_word_on_losses() {
    let Some(space) = Space::new() else { return };
    let mut fanq = space.start(&[], "--queues 0-1 --placement none");
    fanq.await_ready();
    let ended = fanq.stop("INT");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[0].contains("queue") && lines[0].contains("accepted"), "{}", ended.stdout);
    assert!(lines.last().is_some_and(|line| line.contains("lost: 0")), "{}", ended.stdout);
}

#[test]
fn an_unprivileged_user_namespace_gets_a_smaller_buffer_and_is_told() {
    let Some(space) = Space::of_a_user() else { return };
    let mut fanq = space.start(&[], "--queues 6 --placement none --rcvbuf 512MiB --summary json");
    fanq.await_ready();
    let ended = fanq.stop("TERM");
    for part in ["receive buffer is", "small packets", "net.core.rmem_max", "niceness -5"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    let queue = &ended.json()["queues"][0];
    assert_eq!(queue["queue"], 6);
    // A network namespace that is made together with its user namespace keeps the table from all
    // but the machine's root: then there are no numbers, and that is said.
    let unread = ended.stderr.contains("/proc/net/netfilter/nfnetlink_queue cannot be read");
    assert_eq!(queue["kernel"].is_null(), unread, "{queue}, {}", ended.stderr);
}

/// The keys that the documentation promises, each a count.
fn assert_counts(counts: &Value) {
    for key in [
        "packets",
        "bytes",
        "accepted",
        "dropped",
        "recv_calls",
        "send_calls",
        "id_gaps",
        "uninspected",
        "verdict_errors",
    ] {
        assert!(counts[key].is_u64(), "{key} in {counts}");
    }
    for key in ["queue_total", "queue_dropped", "user_dropped"] {
        assert!(counts["kernel"][key].is_u64(), "kernel.{key} in {counts}");
    }
}

fn config_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}

/// No queue at all.
const NONE: [u16; 0] = [];
