//! Goal: `fanq rules` keeps its promises on a real kernel: what it installs is what was asked for,
//! what waits in a queue stays there, and nothing of ours is left behind.
//!
//! Method: each test runs the built program in a network and mount namespace of its own. A reader
//! that is stopped by SIGSTOP makes packets wait. nft's own queue rule needs a kernel that has it,
//! which many lack: scripts/vm.sh tests that; here stand the parts of nft's removal that do not
//! depend on the rule.
//!
//! Needs root, `unshare`, `nsenter`, `iptables-nft` and `nft`. Without them each test prints
//! SKIPPED, or fails if CI is set.

#![expect(clippy::unwrap_used, reason = "what a test's own helpers cannot do ends the test")]

mod ends;
mod marks;
mod namespace;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use namespace::{FANQ, Namespace, Reader, Running, lines_with, skip, wait_until};

/// Sends five datagrams to a port that the rules of these tests match.
const SEND: &str = "for i in 1 2 3 4 5; do echo x >/dev/udp/127.0.0.1/9000; done";
const INPUT: &str = "--backend iptables --hook input --queues 0-1 --proto udp --dport 9000";

#[test]
fn iptables_installs_once_however_often_it_is_told_to_and_leaves_nothing() {
    let Some(space) = Namespace::new() else { return };
    for again in ["", " --bypass", " --bypass"] {
        let done = space.fanq(&format!("install --backend iptables --queues 0-3 --fanout{again}"));
        assert!(done.err.contains("installed: iptables chain fanq (IPv4, IPv6), hook forward"));
        assert_eq!(done.code, 0, "{}", done.err);
    }
    for version in ["ip", "ip6"] {
        let saved = space.saved(version);
        assert_eq!(lines_with(&saved, "-j fanq"), ["-A FORWARD -j fanq"], "{saved}");
        let rule = lines_with(&saved, "NFQUEUE");
        let expected = "-A fanq -j NFQUEUE --queue-balance 0:3 --queue-bypass --queue-cpu-fanout";
        assert_eq!(rule, [expected], "{saved}");
    }
    let removed = space.fanq("remove");
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert!(removed.err.contains("removed: iptables chain fanq (table filter, IPv6)"));
    space.assert_nothing_of_ours();
    let again = space.fanq("remove");
    assert_eq!((again.code, again.err.contains("nothing to remove")), (0, true), "{}", again.err);
}

#[test]
fn the_four_forms_and_the_matches_arrive_in_the_kernel() {
    let Some(space) = Namespace::new() else { return };
    for (options, expected) in [
        ("--queues 3", "-j NFQUEUE --queue-num 3"),
        ("--queues 0-3", "-j NFQUEUE --queue-balance 0:3"),
        ("--queues 0:3 --fanout", "-j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout"),
        ("--queues 3 --fanout --bypass", "-j NFQUEUE --queue-num 3 --queue-bypass"),
        ("--queues 5 --in-iface lo --proto icmp", "-i lo -p icmp -j NFQUEUE --queue-num 5"),
        (
            "--queues 5 --proto tcp --sport 1000-2000 --dport 53,80,8000-8080",
            "-p tcp -m tcp --sport 1000:2000 -m multiport --dports 53,80,8000:8080 \
             -j NFQUEUE --queue-num 5",
        ),
        ("--queues 5 --match=-m<mark<--mark<7", "-m mark --mark 0x7 -j NFQUEUE --queue-num 5"),
    ] {
        let done = space.fanq(&format!("install --backend iptables --family ipv4 {options}"));
        assert_eq!(done.code, 0, "{options}: {}", done.err);
        let saved = space.saved("ip");
        assert_eq!(lines_with(&saved, "NFQUEUE"), [format!("-A fanq {expected}")], "{options}");
    }
    assert_eq!(lines_with(&space.saved("ip6"), "fanq").len(), 0);
}

#[test]
fn another_hook_or_family_replaces_the_rule() {
    let Some(space) = Namespace::new() else { return };
    for options in ["--hook input", "--hook output", "--hook postrouting", "--family ipv6"] {
        let done = space.fanq(&format!("install --backend iptables {options}"));
        assert_eq!(done.code, 0, "{options}: {}", done.err);
    }
    let saved = space.saved("ip6");
    assert_eq!(lines_with(&saved, "-j fanq"), ["-A FORWARD -j fanq"], "{saved}");
    assert_eq!(lines_with(&saved, "NFQUEUE").len(), 1, "{saved}");
    assert_eq!(lines_with(&space.saved("ip"), "fanq").len(), 0);

    // Another name is another rule, and stays.
    assert_eq!(space.fanq("install --backend iptables --table other").code, 0);
    assert_eq!(space.fanq("remove").code, 0);
    assert_eq!(lines_with(&space.saved("ip"), "-j other"), ["-A FORWARD -j other"]);
    assert_eq!(space.fanq("remove --table other").code, 0);
    assert_eq!(lines_with(&space.saved("ip"), "other").len(), 0);
}

#[test]
fn print_changes_nothing_and_its_script_does_what_install_does() {
    let Some(space) = Namespace::new() else { return };
    let options = "--backend iptables --queues 0-3 --fanout --hook prerouting";
    for backend in ["auto", "nft", "iptables"] {
        let printed = space.fanq(&format!("print --backend {backend} --queues 0-3 --fanout"));
        assert_eq!(printed.code, 0, "{}", printed.err);
        assert!(printed.out.starts_with("# backend "), "{}", printed.out);
    }
    assert_eq!(space.shell("nft list ruleset").out, "");

    let script = space.fanq(&format!("print {options}")).out;
    assert_eq!(space.shell(&script).code, 0, "{script}");
    assert_eq!(space.shell(&script).code, 0, "the second time:\n{script}");
    let by_script = [space.saved("ip"), space.saved("ip6")];
    assert_eq!(lines_with(&by_script[0], "-j fanq"), ["-A PREROUTING -j fanq"]);
    assert_eq!(space.fanq("remove").code, 0);
    assert_eq!(space.fanq(&format!("install {options}")).code, 0);
    assert_eq!([space.saved("ip"), space.saved("ip6")], by_script);
}

#[test]
fn auto_takes_what_the_kernel_takes() {
    let Some(space) = Namespace::new() else { return };
    let probe =
        "printf 'add table ip x\nadd chain ip x y\nadd rule ip x y queue to 0-1\n' | nft -c -f -";
    let has_nft_queue = space.shell(probe).code == 0;
    let (backend, installed) = if has_nft_queue {
        ("# backend nft: this kernel accepts it", "installed: nft table inet fanq")
    } else {
        ("# backend iptables: this kernel accepts it", "installed: iptables chain fanq")
    };
    assert!(space.fanq("print").out.starts_with(backend));
    let done = space.fanq("install --queues 0-3 --fanout --bypass");
    assert_eq!((done.code, done.err.contains(installed)), (0, true), "{}", done.err);
    if !has_nft_queue {
        let note = "note: by iptables, since nft does not take the rule here: `nft -c -f -` says:";
        assert!(done.err.contains(note), "{}", done.err);
        let refused = space.fanq("install --backend nft --table other");
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("CONFIG_NFT_QUEUE"), "{}", refused.err);
        assert!(!space.shell("nft list ruleset").out.contains("other"));
    }
    assert_eq!(space.fanq("remove").code, 0);
    space.assert_nothing_of_ours();
}

#[test]
fn without_both_programs_the_error_names_both_and_the_remedy() {
    let Some(space) = Namespace::new() else { return };
    for action in ["install", "remove"] {
        let done = space.fanq_with_path("/nonexistent", action);
        assert_eq!(done.code, 1, "{}", done.err);
        for part in ["nft is not in PATH", "iptables is not in PATH", "apt-get install nftables"] {
            assert!(done.err.contains(part), "{action}: no {part:?} in {}", done.err);
        }
    }
    // Print needs neither.
    let printed = space.fanq_with_path("/nonexistent", "print --queues 0-3");
    assert_eq!(printed.code, 0);
    assert!(printed.out.contains("counter queue to 0-3"), "{}", printed.out);
}

#[test]
fn a_failed_install_leaves_things_as_they_were() {
    let Some(space) = Namespace::new() else { return };
    let bad = "install --backend iptables --match=-m<nonesuch";
    let refused = space.fanq(bad);
    assert_eq!((refused.code, refused.err.contains("mend `-m nonesuch`")), (1, true));
    assert_eq!(space.shell("nft list ruleset").out, "");
    assert_eq!(space.fanq("install --backend iptables --queues 5").code, 0);
    assert_eq!(space.fanq(bad).code, 1);
    assert_eq!(lines_with(&space.saved("ip6"), "NFQUEUE"), ["-A fanq -j NFQUEUE --queue-num 5"]);
}

#[test]
fn ipv4_is_taken_back_when_ipv6_fails_after_it() {
    let Some(space) = Namespace::new() else { return };
    // The real programs, but for one that accepts when it is asked and refuses when it loads.
    let path = tempfile::tempdir().unwrap();
    for name in ["iptables-nft", "iptables-nft-restore", "iptables-nft-save", "ip6tables-nft"] {
        let real = space.shell(&format!("command -v {name}")).out;
        std::os::unix::fs::symlink(real.trim(), path.path().join(name)).unwrap();
    }
    let fake = path.path().join("ip6tables-nft-restore");
    let text = "#!/bin/sh\ncase \"$*\" in *--test*) exit 0 ;; esac\necho no room >&2\nexit 4\n";
    std::fs::write(&fake, text).unwrap();
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    let path = path.path().to_str().unwrap();

    let install = "install --backend iptables --queues";
    let refused = space.fanq_with_path(path, &format!("{install} 0-3"));
    assert_eq!(refused.code, 1);
    for part in
        ["for IPv6", "no room", "IPv4 was accepted", "nothing is installed", "--family ipv4"]
    {
        assert!(refused.err.contains(part), "no {part:?} in {}", refused.err);
    }
    space.assert_nothing_of_ours();

    assert_eq!(space.fanq(&format!("{install} 7 --family ipv4")).code, 0);
    let before = space.saved("ip");
    let refused = space.fanq_with_path(path, &format!("{install} 0-3"));
    assert_eq!(
        (refused.code, refused.err.contains("the earlier rule is in place again")),
        (1, true)
    );
    assert_eq!(space.saved("ip"), before);
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let Some(space) = Namespace::new() else { return };
    space.shell(
        "nft add table inet theirs; nft add chain inet theirs input; \
         nft add rule inet theirs input accept; iptables-nft -N mine; iptables-nft -A mine -j DROP",
    );
    let before = space.shell("nft list ruleset").out;
    for (command, part) in [
        ("remove --table theirs", "nft table inet theirs holds"),
        ("remove --table mine", "iptables chain mine (table filter, IPv4) holds"),
        ("install --backend iptables --table mine", "-A mine -j DROP"),
    ] {
        let refused = space.fanq(command);
        assert_eq!(refused.code, 1, "{command}");
        assert!(refused.err.contains(part) && refused.err.contains("--table"), "{}", refused.err);
    }
    assert_eq!(space.shell("nft list ruleset").out, before);
}

#[test]
fn two_backends_at_once_are_refused() {
    let Some(space) = Namespace::new() else { return };
    space.make_nft_table();
    let refused = space.fanq("install --backend iptables");
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("fanq rules remove --backend nft"), "{}", refused.err);
    assert_eq!(space.fanq("remove --backend nft").code, 0);
    assert_eq!(space.fanq("install --backend iptables").code, 0);
}

#[test]
fn an_unprivileged_user_namespace_will_do() {
    let Some(space) = Namespace::unprivileged() else { return };
    let done = space.fanq("install --backend iptables --queues 0-3 --fanout --bypass");
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(lines_with(&space.saved("ip6"), "-j fanq"), ["-A FORWARD -j fanq"]);
    space.make_nft_table();
    // Here the kernel lets nobody count what waits. While a program may own a queue, nothing is
    // deleted.
    // Any program with a netfilter socket will do.
    let mut monitor = space.command(&["nft", "monitor"]);
    let monitor = Running(monitor.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    wait_until("a netfilter socket", || {
        // Protocol 12, and not port 0, which is the kernel's own.
        space.proc_net("netlink").lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().take(3).collect();
            fields[1] == "12" && fields[2] != "0"
        })
    });
    let refused = space.fanq("remove --drain-limit 0.2");
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("nobody may count them here"), "{}", refused.err);
    drop(monitor);
    let removed = space.fanq("remove");
    assert_eq!(removed.code, 0, "{}", removed.err);
    space.assert_nothing_of_ours();
}

#[test]
fn waiting_packets_survive_every_command() {
    let Some(space) = Namespace::new() else { return };
    let reader = Reader::start(&space);
    reader.signal("STOP");
    assert_eq!(space.fanq(&format!("install {INPUT}")).code, 0);
    assert_eq!(space.shell(SEND).code, 0);
    for (command, code) in [
        (format!("install {INPUT}"), 0),
        (format!("install {INPUT} --fanout --bypass"), 0),
        ("print".to_owned(), 0),
        ("install --table other".to_owned(), 0),
        ("install --backend iptables --table more --hook postrouting".to_owned(), 0),
        ("install --backend iptables --match=-m<nonesuch".to_owned(), 1),
        ("remove --backend iptables --table other".to_owned(), 0),
        ("remove --backend iptables --table more".to_owned(), 0),
        ("remove".to_owned(), 0),
    ] {
        let done = space.fanq(&command);
        assert_eq!(done.code, code, "{command}: {}", done.err);
        assert_eq!(space.waiting(), 5, "after {command}");
    }
    reader.signal("CONT");
    wait_until("the answers", || space.waiting() == 0);
}

#[test]
fn removing_an_nft_table_waits_for_the_queues() {
    let Some(space) = Namespace::new() else { return };
    let reader = Reader::start(&space);
    reader.signal("STOP");
    assert_eq!(space.fanq(&format!("install {INPUT} --table other")).code, 0);
    space.make_nft_table();
    assert_eq!(space.shell(SEND).code, 0);

    let refused = space.fanq("remove --backend nft --drain-limit 0.2");
    assert_eq!(refused.code, 1);
    let count = format!(": {}", space.waiting());
    for part in ["queue ", &count, "nft table inet fanq now would drop", "--force"] {
        assert!(refused.err.contains(part), "no {part:?} in {}", refused.err);
    }
    assert_eq!(space.waiting(), 5);
    // Nothing comes to the rule any more, and it is still there for the next attempt.
    let listing = space.shell("nft list chain inet fanq forward").out;
    assert!(listing.contains("accept;\n\t\taccept comment \"fanq\"\n"), "{listing}");

    reader.signal("CONT");
    let removed = space.fanq("remove --backend nft");
    assert_eq!((removed.code, space.waiting()), (0, 0), "{}", removed.err);
    assert!(!space.shell("nft list ruleset").out.contains("inet fanq"));
}

#[test]
fn force_deletes_what_does_not_drain_and_says_what_that_costs() {
    let Some(space) = Namespace::new() else { return };
    let reader = Reader::start(&space);
    reader.signal("STOP");
    assert_eq!(space.fanq(&format!("install {INPUT} --table other")).code, 0);
    space.make_nft_table();
    assert_eq!(space.shell(SEND).code, 0);
    let removed = space.fanq("remove --force --drain-limit 0.2");
    assert_eq!((removed.code, space.waiting()), (0, 0), "{}", removed.err);
    assert!(
        removed.err.contains("warning: the kernel drops what waits: queue "),
        "{}",
        removed.err
    );
    space.assert_nothing_of_ours();
}

/// The kernel unhooks conntrack with the last rule that uses it, and empties the queues as it does
/// so.
#[test]
fn a_rule_that_uses_conntrack_waits_for_the_queues_too() {
    let Some(space) = Namespace::new() else { return };
    let reader = Reader::start(&space);
    reader.signal("STOP");
    let install = format!("install {INPUT} --match=-m<conntrack<--ctstate<NEW");
    if space.fanq(&install).code != 0 {
        return skip("this kernel has no conntrack match");
    }
    assert_eq!(space.shell(SEND).code, 0);
    assert_eq!((space.fanq(&install).code, space.waiting()), (0, 5));
    let refused = space.fanq("remove --drain-limit 0.2");
    assert_eq!((refused.code, space.waiting()), (1, 5), "{}", refused.err);
    reader.signal("CONT");
    assert_eq!(space.fanq("remove").code, 0);
    space.assert_nothing_of_ours();
}

#[test]
fn wrong_requests_have_an_exit_status_of_their_own() {
    for arguments in [
        "rules install --dport 53",
        "rules install --proto icmp --sport 53",
        "rules install --hook input --out-iface eth0",
        "rules install --match=x",
        "rules install --backend iptables --match='x'",
        "rules install --queues 3-0",
        "rules install --table a;b",
        "rules install --in-iface a --in-iface b",
        "rules install --bypass-mark 0",
        "rules install --bypass-mark 2/1",
        "rules install --bypass-mark 1 --repeat-mark 1/3",
        "rules install --hook postrouting --reject-mark 1",
        "rules install --hook prerouting --reject-mark 1 --backend iptables",
        "rules remove --drain-limit -1",
        "rules",
    ] {
        let output = Command::new(FANQ).args(arguments.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
    }
}
