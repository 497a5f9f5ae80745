//! Goal: `fanq-bench lab` keeps its promises: what is asked for is there, packets pass as it says, and nothing is
//! left of it, whatever ended it.
//!
//! Method: each test runs the built program in namespaces of its own, where /run and all processes are the test's:
//! what is left in there was left by the lab. Most run as root and as nobody, who has but user namespaces.
//!
//! Needs root, `unshare`, `nsenter`, `ip`. Without them each test prints SKIPPED, or fails if CI is set.

#![expect(clippy::unwrap_used, reason = "what a test's own helpers cannot do ends the test")]

mod space;

use space::{Done, Space, User, child_of, skip, wait_until};

/// Runs the test as root and as nobody.
fn as_both(test: impl Fn(&Space)) {
    for user in [User::Root, User::Nobody] {
        let Some(space) = Space::new(user) else { return };
        test(&space);
    }
}

#[track_caller]
fn assert_done(done: &Done, code: i32, parts: &[&str]) {
    assert_eq!(done.code, code, "{done:?}");
    for part in parts {
        assert!(done.out.contains(part) || done.err.contains(part), "no {part:?} in {done:?}");
    }
}

/// Sends 20 datagrams of that size from CPU 0 of the client, and says how many came.
fn deliver(space: &Space, place: &str, address: &str, bytes: u32) -> u64 {
    let receive = format!("receive --bind {address}:9000 --expect 20 --idle 3");
    let mut sink = space.start_lab(&format!("exec {place} -- /mnt/fanq-bench {receive}"));
    sink.wait_for("ready:");
    let send = format!("send --to {address}:9000 --cpus 0 --count 20 --size {bytes}");
    assert_done(&space.lab(&format!("exec client -- /mnt/fanq-bench {send}")), 0, &[]);
    let result: serde_json::Value = serde_json::from_str(&sink.finish().out).unwrap();
    result["received"].as_u64().unwrap()
}

#[test]
fn up_is_seen_and_down_leaves_nothing() {
    as_both(|space| {
        assert_done(&space.lab("status"), 0, &["no lab is up"]);
        assert_done(&space.lab("up"), 0, &["lab default: up: hook forward, topology shared"]);
        let status = space.status();
        let lab = &status["labs"][0];
        assert_eq!((&lab["name"], &lab["up"]), (&"default".into(), &true.into()));
        assert_eq!(lab["user_namespace"], space.in_user_namespace());
        assert_eq!(lab["inside"], serde_json::json!({ "queues": [], "device_drops": 0 }));
        assert_done(&space.lab("status"), 0, &["lab default: ", "nobody listens on a queue"]);
        assert_done(&space.lab("down"), 0, &["lab default: down"]);
        space.assert_nothing_left();
        assert_done(&space.lab("down"), 0, &["lab default is not up"]);
        assert_done(&space.lab("exec client -- true"), 1, &["`fanq-bench lab up --name default`"]);
    });
}

#[test]
fn up_again_is_no_error_unless_it_asks_for_another_lab() {
    let Some(space) = Space::new(User::Root) else { return };
    assert_done(&space.lab("up --pairs 1"), 0, &["pairs 1"]);
    let holder = space.status()["labs"][0]["holder"].clone();
    assert_done(&space.lab("up --pairs 1"), 0, &["already up"]);
    assert_done(&space.lab("up --pairs 1 --hook input"), 1, &["`fanq-bench lab down"]);
    assert_done(&space.lab("up --pairs 999"), 1, &["--pairs 999: 1 to "]);
    assert_done(&space.lab("up --name ../x"), 2, &["letters, digits"]);
    assert_eq!(space.status()["labs"][0]["holder"], holder);
    assert_done(&space.lab("up --name other --hook input --pairs 1"), 0, &["hook input"]);
    assert_done(&space.lab("down --all"), 0, &["lab default: down", "lab other: down"]);
    space.assert_nothing_left();
}

#[test]
fn of_several_at_once_one_makes_the_lab() {
    as_both(|space| {
        let started: Vec<_> = (0..4).map(|_| space.start_lab("up --pairs 1")).collect();
        let done: Vec<_> = started.into_iter().map(space::Killed::finish).collect();
        let made = done.iter().filter(|done| done.out.contains("held by process")).count();
        assert_eq!(made, 1, "{done:?}");
        assert_eq!(space.processes().len(), 1, "{:?}", space.processes());
        assert_done(&space.lab("down"), 0, &[]);
        space.assert_nothing_left();
    });
}

#[test]
fn exec_is_the_command_in_that_place() {
    as_both(|space| {
        assert_done(&space.lab("up --pairs 1 --hook input"), 0, &[]);
        assert_eq!(space.shell("./fanq-bench lab exec client -- sh -c 'exit 7'").code, 7);
        assert_eq!(space.lab("exec engine -- pwd").out, "/mnt\n");
        assert!(space.lab("exec engine -- ip -br addr").out.contains("engine0@"));
        let client = space.lab("exec client -- ip -br addr").out;
        assert!(client.contains("10.77.0.2/24 fd77::2/64"), "{client}");
        assert!(!client.contains("fe80"), "{client}");
        assert_done(&space.lab("exec server -- true"), 1, &["has no server"]);
        assert_done(&space.lab("exec nowhere -- true"), 2, &["client"]);
        assert_done(&space.lab("down"), 0, &[]);
        space.assert_nothing_left();
    });
}

#[test]
fn datagrams_of_both_families_and_jumbo_size_pass() {
    as_both(|space| {
        for (hook, place, v4, v6) in [
            ("forward", "server", "10.78.0.2", "[fd78::2]"),
            ("input", "engine", "10.77.0.1", "[fd77::1]"),
        ] {
            assert_done(&space.lab(&format!("up --hook {hook} --offloads off")), 0, &[]);
            for address in [v4, v6] {
                for bytes in [28, 8900] {
                    assert_eq!(deliver(space, place, address, bytes), 20, "{address} {bytes}");
                }
            }
            // What carried them were whole packets: nobody was asked for a neighbour, nothing fell into pieces.
            let counters = space.lab("exec engine -- cat /proc/net/snmp /proc/net/snmp6").out;
            assert!(counters.contains("Ip6FragOKs                      \t0"), "{counters}");
            assert_eq!(space.status()["labs"][0]["inside"]["device_drops"], 0);
            assert_done(&space.lab("down"), 0, &[]);
        }
        space.assert_nothing_left();
    });
}

#[test]
fn every_flow_has_its_address_where_the_load_goes() {
    as_both(|space| {
        assert_done(&space.lab("up --pairs 1"), 0, &[]);
        for (place, question, answer) in [
            ("client", "10.129.255.255", "via 10.77.0.1 dev client0"),
            ("client", "fd96::1:2", "via fd77::1 dev client0"),
            ("engine", "10.129.255.255 from 10.77.0.2 iif engine0", "dev out0"),
            ("engine", "fd96::1:2", "via fd78::2 dev out0"),
            ("server", "10.129.255.255", "local 10.129.255.255 dev lo"),
            ("server", "fd96::1:2", "local fd96::1:2 from"),
        ] {
            let route = space.lab(&format!("exec {place} -- ip route get {question}"));
            assert_done(&route, 0, &[answer]);
        }
        assert_done(&space.lab("down"), 0, &[]);
    });
}

/// The CPU of a packet is that of the rule which counts it.
#[test]
fn split_hands_the_load_of_cpu_0_to_another_cpu() {
    let Some(space) = Space::new(User::Root) else { return };
    for topology in ["shared", "split"] {
        let up = space.lab(&format!("up --topology {topology}"));
        if up.err.contains("needs two CPUs") {
            return skip("needs two CPUs");
        }
        if topology == "split" && space.in_user_namespace() {
            return skip("steering needs root of the machine");
        }
        assert_done(&up, 0, &[]);
        let shape = space.status()["labs"][0]["shape"].clone();
        assert_eq!(shape["load_cpus"][0], 0);
        let cpu = shape["queue_cpus"][0].as_u64().unwrap();
        assert_eq!(cpu == 0, topology == "shared");
        for version in ["iptables", "ip6tables"] {
            let rule = format!("exec engine -- {version} -t mangle -A FORWARD -p udp -m cpu --cpu");
            for cpu in [0, cpu] {
                if space.lab(&format!("{rule} {cpu}")).code != 0 {
                    return skip("this kernel has no cpu match");
                }
            }
        }
        for (address, version) in [("10.78.0.2", "iptables"), ("[fd78::2]", "ip6tables")] {
            assert_eq!(deliver(&space, "server", address, 64), 20);
            let list = format!("exec engine -- {version} -t mangle -nvxL FORWARD");
            let listing = space.lab(&list).out;
            let counts: Vec<_> = listing.lines().filter(|line| line.contains("cpu")).collect();
            assert!(counts[1].trim().starts_with("20 "), "{topology}: {listing}");
            let on_cpu_0 = if topology == "shared" { "20 " } else { "0 " };
            assert!(counts[0].trim().starts_with(on_cpu_0), "{topology}: {listing}");
        }
        assert_done(&space.lab("down"), 0, &[]);
    }
    space.assert_nothing_left();
}

#[test]
fn split_without_root_says_what_is_missing_and_leaves_nothing() {
    let Some(space) = Space::new(User::Nobody) else { return };
    let refused = space.lab("up --topology split");
    if refused.err.contains("needs two CPUs") {
        return skip("needs two CPUs");
    }
    assert_done(&refused, 1, &["rps_cpus", "only root", "--topology shared"]);
    space.assert_nothing_left();
}

/// In a process namespace the kernel's threads are not to be seen.
#[test]
fn a_thread_that_cannot_be_bound_is_refused_and_leaves_nothing() {
    as_both(|space| {
        for (more, said) in [(" --offloads off", "--offloads on"), ("", "not to be seen here")] {
            let refused = space.lab(&format!("up --topology threaded{more}"));
            if refused.err.contains("needs two CPUs") {
                return skip("needs two CPUs");
            }
            assert_done(&refused, 1, &["--topology threaded", said]);
            space.assert_nothing_left();
        }
    });
}

#[test]
fn offloads_are_off_at_every_end() {
    as_both(|space| {
        if space.shell("command -v ethtool").code != 0 {
            assert_done(&space.lab("up --offloads off"), 1, &["install the package ethtool"]);
            return skip("ethtool is missing");
        }
        for (choice, state) in [("on", ": on"), ("off", ": off")] {
            assert_done(&space.lab(&format!("up --pairs 1 --offloads {choice}")), 0, &[]);
            for (place, device) in [
                ("engine", "engine0"),
                ("engine", "out0"),
                ("client", "client0"),
                ("server", "server0"),
            ] {
                let shown = space.lab(&format!("exec {place} -- ethtool -k {device}")).out;
                for feature in ["tx-checksumming", "tcp-segmentation-offload", "rx-checksumming"] {
                    assert!(shown.contains(&format!("{feature}{state}")), "{device}: {shown}");
                }
            }
            assert_done(&space.lab("down"), 0, &[]);
        }
    });
}

#[test]
fn a_dropped_packet_is_counted_once_though_both_ends_count_it() {
    as_both(|space| {
        assert_done(&space.lab("up --pairs 1"), 0, &[]);
        assert_done(&space.lab("exec engine -- ip link set engine0 mtu 1500"), 0, &[]);
        let send = "send --to 10.78.0.2:9000 --cpus 0 --count 5 --size 5000";
        assert_done(&space.lab(&format!("exec client -- /mnt/fanq-bench {send}")), 0, &[]);
        assert_eq!(space.status()["labs"][0]["inside"]["device_drops"], 5);
        assert_done(&space.lab("down"), 0, &[]);
    });
}

#[test]
fn a_killed_holder_is_noticed_and_cleared_away() {
    as_both(|space| {
        for cleared_by in ["status", "down", "up --pairs 1"] {
            assert_done(&space.lab("up --pairs 1"), 0, &[]);
            let holder = space.status()["labs"][0]["holder"].clone();
            assert_eq!(space.shell(&format!("kill -KILL {holder}")).code, 0);
            wait_until("the holder's end", || space.processes().is_empty());
            assert_done(&space.lab("exec client -- true"), 1, &["is not up any more"]);
            assert_done(&space.lab(cleared_by), 0, &["cleared away"]);
            if cleared_by == "up --pairs 1" {
                assert_done(&space.lab("down"), 0, &["lab default: down"]);
            }
            space.assert_nothing_left();
        }
    });
}

#[test]
fn who_is_still_inside_is_named_and_ended_only_by_force() {
    as_both(|space| {
        for kill_holder in [false, true] {
            assert_done(&space.lab("up --pairs 1"), 0, &[]);
            let _inside = space.start_lab("exec client -- sleep 77");
            let is_there = || space.status()["labs"][0]["processes"][0]["command"] == "sleep 77";
            wait_until("the process inside", is_there);
            if kill_holder {
                let holder = space.status()["labs"][0]["holder"].clone();
                assert_eq!(space.shell(&format!("kill -KILL {holder}")).code, 0);
                wait_until("the holder's end", || {
                    let Done { out, err, .. } = space.lab("status");
                    out.contains("is gone") || err.contains("is gone")
                });
                assert_done(&space.lab("status"), 0, &["is gone, but processes", "sleep 77"]);
                assert_done(&space.lab("up"), 1, &["sleep 77"]);
            }
            assert_done(&space.lab("down"), 1, &["sleep 77", "--force"]);
            assert!(space.processes().iter().any(|line| line == "sleep 77"));
            assert_done(&space.lab("down --force"), 0, &["ending process", "sleep 77"]);
            space.assert_nothing_left();
        }
    });
}

#[test]
fn a_failure_half_way_leaves_nothing_and_says_where() {
    as_both(|space| {
        let fake = "mkdir /mnt/tmp/bin; cd /mnt/tmp/bin; \
                    printf '#!/bin/sh\ncase $2 in server) echo no room >&2; exit 4 ;; esac\n\
                    exec /usr/sbin/ip \"$@\"\n' >ip; chmod +x ip";
        assert_eq!(space.shell(fake).code, 0);
        let with_fake = |arguments| {
            space.shell(&format!("PATH=/mnt/tmp/bin:$PATH /mnt/fanq-bench lab {arguments}"))
        };
        let told = ["in the server's namespace", "no room"];
        assert_done(&with_fake("up"), 1, &told);
        assert_done(&with_fake("run engine -- true"), 1, &told);
        assert_eq!(space.shell("rm -r /mnt/tmp/bin").code, 0);
        space.assert_nothing_left();
    });
}

/// `ip` waits for a file, so that `up` is killed while its holder builds.
#[test]
fn a_holder_whose_starter_was_killed_ends() {
    as_both(|space| {
        let fake = "mkdir /mnt/tmp/bin; cd /mnt/tmp/bin; \
                    printf '#!/bin/sh\n: >/mnt/tmp/bin/began\n\
                    until [ -e /mnt/tmp/bin/go ]; do sleep 0.01; done\n\
                    exec /usr/sbin/ip \"$@\"\n' >ip; chmod +x ip";
        assert_eq!(space.shell(fake).code, 0);
        let killed = space.shell(
            "PATH=/mnt/tmp/bin:$PATH /mnt/fanq-bench lab up & \
             until [ -e /mnt/tmp/bin/began ]; do sleep 0.01; done; kill -KILL $!",
        );
        assert_done(&killed, 0, &[]);
        assert_eq!(space.processes().len(), 1, "{:?}", space.processes());
        assert_eq!(space.shell("touch /mnt/tmp/bin/go").code, 0);
        wait_until("the holder's end", || space.processes().is_empty());
        assert_eq!(space.shell("rm -r /mnt/tmp/bin").code, 0);
        space.assert_nothing_left();
    });
}

#[test]
fn a_private_lab_goes_with_its_command() {
    as_both(|space| {
        let passed = space.shell("./fanq-bench lab run client -- sh -c 'ip -br addr; exit 7'");
        assert_done(&passed, 7, &["client0@", "10.77.0.2/24"]);
        space.assert_nothing_left();
        // What the command left running ends too, whichever way the command ended.
        let left = space.shell("./fanq-bench lab run client -- sh -c 'sleep 77 >/dev/null 2>&1 &'");
        assert_done(&left, 0, &[]);
        space.assert_nothing_left();
        for (signal, code) in [("TERM", 143), ("INT", 130), ("KILL", -1)] {
            let started = space.start_lab("run client -- sleep 77");
            let is_there = || space.processes().iter().any(|line| line == "sleep 77");
            wait_until("the process inside", is_there);
            // nsenter forks where it enters a process namespace.
            space::signal(signal, child_of(started.0.id()));
            let done = started.finish();
            assert!(done.code == code || signal == "KILL", "{signal}: {done:?}");
            space.assert_nothing_left();
        }
    });
}

#[test]
fn a_command_runs_in_a_lab_that_is_up() {
    as_both(|space| {
        assert_done(&space.lab("run --lab default client -- true"), 1, &["lab default is not up"]);
        assert_done(&space.lab("up --pairs 1 --hook input"), 0, &[]);
        let refused = space.lab("run --lab default --hook input client -- true");
        assert_done(&refused, 2, &["cannot be used with"]);
        let seen = space.lab("run --lab default client -- ip -br addr");
        assert_done(&seen, 0, &["client0@"]);
        assert_done(&space.lab("run --lab default server -- true"), 1, &["has no server"]);
        let left = space.shell(
            "./fanq-bench lab run --lab default engine -- sh -c 'sleep 77 >/dev/null 2>&1 &'",
        );
        assert_done(&left, 0, &[]);
        wait_until("the end of what it left", || space.processes().len() == 1);
        assert_done(&space.lab("down"), 0, &[]);
        space.assert_nothing_left();
    });
}

/// Else the machine's own /run and network would be taken for the lab's.
#[test]
fn the_hidden_options_do_nothing_in_the_callers_own_namespaces() {
    as_both(|space| {
        let here = "$(readlink /proc/self/ns/net),$(readlink /proc/self/ns/mnt)";
        for command in [
            "run engine --inside HERE -- true",
            "run engine --inside x -- true",
            "hold --name a --shape '{}' --outside HERE",
        ] {
            let command = command.replace("HERE", here);
            let refused = space.shell(&format!("./fanq-bench lab {command}"));
            assert_done(&refused, 1, &["not a namespace of its own"]);
        }
        let versus = format!("./fanq-bench versus --reference limit --inside {here}");
        assert_done(&space.shell(&versus), 1, &["not a namespace of its own"]);
        space.assert_nothing_left();
    });
}
