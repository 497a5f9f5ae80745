//! Goal: the rules for marks and the options of `fanq run` that go with them do on a real kernel what
//! docs/FLOW_BYPASS.md says. Method: real TCP and UDP over the loopback, counted by the queue, by the rules, and by
//! rules of others before and behind ours.

use super::ends::play;
use super::namespace::{Namespace, Reader, lines_with};

/// Loopback packets as small as a network's, so that a transfer has thousands.
const SMALL_PACKETS: &str = "ip link set lo mtu 1500";
const TRANSFER: usize = 8 << 20;
/// The fewest packets with payload that this takes.
const SEGMENTS: u64 = 5_700;
/// What must have passed before the queue of two transfers.
const BYPASSED_MIN: u64 = 2 * (TRANSFER as u64 - (256 << 10));
/// What the queue may see of a bypassed connection: its first 10 packets, and those that were on their way by then.
const SEEN_MAX: u64 = 100;

#[test]
fn a_bypassed_connection_leaves_the_queue_after_its_first_packets() {
    let Some(space) = Namespace::new() else { return };
    // Connections and packets that have other bits already, and a look at both behind our rules.
    let script = format!(
        "{SMALL_PACKETS} && iptables-nft -t mangle -A OUTPUT -p tcp -j MARK --set-mark 0x225 &&
         iptables-nft -t mangle -A OUTPUT -p tcp -m conntrack --ctstate NEW -j CONNMARK --set-mark 0x125 &&
         nft 'add table ip behind; add chain ip behind input {{ type filter hook input priority 10; }}
              add rule ip behind input ct mark 0x115 counter comment \"connections\"
              add rule ip behind input meta mark & 0xffffffcf == 0x205 counter comment \"packets\"
              add rule ip behind input meta mark & 0x30 == 0x10 counter comment \"left on\"'"
    );
    let done = space.shell(&script);
    assert_eq!(done.code, 0, "{}", done.err);
    let install =
        "install --backend iptables --hook input --queues 0-1 --proto tcp --bypass-mark 0x10/0x30";
    let done = space.fanq(install);
    assert!(done.err.contains("queues 0-1, bypass-mark 0x10/0x30"), "{}", done.err);

    let reader = Reader::with(&space, "--bypass-after 10 --bypass-mark 0x10/0x30");
    assert_eq!(play(&space, &format!("transfer 2 {TRANSFER}")), "whole\nwhole");

    // In bytes, as the rules see segmented packets whole.
    let shown = space.fanq("show").out;
    let (set, _) = sum_of(&shown, "CONNMARK --set-xmark 0x10/0x30");
    let (_, passed) = sum_of(&shown, "-m connmark");
    assert!((2..=2 * SEEN_MAX).contains(&set), "{shown}");
    assert!(passed > BYPASSED_MIN, "{shown}");

    let listing = space.shell("nft list table ip behind").out;
    let seen = |comment: &str| counter_of(&listing, comment);
    assert!(seen("connections") > BYPASSED_MIN, "{listing}");
    assert!(seen("packets") > BYPASSED_MIN, "{listing}");
    assert_eq!(seen("left on"), 0, "{listing}");

    let removed = space.fanq("remove");
    assert_eq!(removed.code, 0, "{}", removed.err);
    space.assert_nothing_of_ours();
    let summary = reader.finish();
    // 10 of each connection: the second is no part of the first.
    let packets = number(&summary, "packets");
    assert!((20..=2 * SEEN_MAX).contains(&packets), "{summary}");
    assert_eq!(number(&summary, "repeated"), set, "{summary}");
}

/// The counter-proof: it is the bypass that keeps the packets away.
#[test]
fn without_bypass_the_queue_sees_all_of_a_connection() {
    let Some(space) = Namespace::new() else { return };
    assert_eq!(space.shell(SMALL_PACKETS).code, 0);
    let install =
        "install --backend iptables --hook input --queues 0-1 --proto tcp --bypass-mark 1";
    assert_eq!(space.fanq(install).code, 0);
    let reader = Reader::with(&space, "");
    assert_eq!(play(&space, &format!("transfer 1 {TRANSFER}")), "whole");
    let summary = reader.finish();
    assert!(number(&summary, "packets") > SEGMENTS, "{summary}");
}

/// Such a packet has no connection to mark. Without a rule of its own it would be queued for ever.
#[test]
fn a_packet_without_conntrack_passes_too() {
    let Some(space) = Namespace::new() else { return };
    let untrack = "iptables-nft -t raw -A OUTPUT -p udp -j CT --notrack &&
                   iptables-nft -t raw -A PREROUTING -p udp -j CT --notrack";
    assert_eq!(space.shell(untrack).code, 0);
    let install =
        "install --backend iptables --hook input --queues 0-1 --proto udp --bypass-mark 1";
    assert_eq!(space.fanq(install).code, 0);
    let reader = Reader::with(&space, "--bypass-after 2 --bypass-mark 1");
    assert_eq!(play(&space, "datagrams 5"), "5 of 5");
    let summary = reader.finish();
    assert_eq!((number(&summary, "packets"), number(&summary, "repeated")), (5, 4), "{summary}");
}

#[test]
fn a_mark_that_the_rules_do_not_know_is_said_and_nothing_goes_round_for_ever() {
    let Some(space) = Namespace::new() else { return };
    let install = "install --backend iptables --hook input --queues 0-1 --proto udp";
    assert_eq!(space.fanq(install).code, 0);
    for options in ["--bypass-after 1 --bypass-mark 1", "--mode repeat:1"] {
        let reader = Reader::with(&space, options);
        assert_eq!(play(&space, "datagrams 5"), "5 of 5", "{options}");
        reader.wait_for("warning: packets with the mark 0x1/0x1 come to the queue");
        let summary = reader.finish();
        let counts = ["packets", "repeated", "accepted"].map(|key| number(&summary, key));
        assert_eq!(counts, [10, 5, 5], "{options}: {summary}");
    }
}

#[test]
fn a_rejected_packet_is_answered_at_once() {
    let Some(space) = Namespace::new() else { return };
    for proto in ["tcp", "udp"] {
        let install = format!(
            "install --backend iptables --hook input --queues 0-1 --proto {proto} --dport 9000 \
             --reject-mark 0x40 --table of_{proto}"
        );
        let done = space.fanq(&install);
        assert_eq!(done.code, 0, "{}", done.err);
    }
    for address in ["127.0.0.1", "::1"] {
        let reader = Reader::with(&space, "--mode repeat:0x40");
        let said = play(&space, &format!("knock {address}"));
        assert_eq!(said, "tcp ConnectionRefused\nudp ConnectionRefused", "{address}");
        // One packet each: neither was sent again, so each was answered within its round trip.
        let summary = reader.finish();
        assert_eq!(number(&summary, "packets"), 2, "{address}: {summary}");
    }
    for proto in ["tcp", "udp"] {
        assert_eq!(space.fanq(&format!("remove --table of_{proto}")).code, 0);
    }
    assert_eq!(lines_with(&space.saved("ip"), "of_").len(), 0);
}

#[test]
fn a_repeated_packet_comes_by_the_rules_below() {
    let Some(space) = Namespace::new() else { return };
    let install =
        "install --backend iptables --hook input --queues 0-1 --proto udp --repeat-mark 0x80/0xc0";
    assert_eq!(space.fanq(install).code, 0);
    assert_eq!(space.shell("iptables-nft -A INPUT -m mark --mark 0x80/0xc0 -j ACCEPT").code, 0);
    let reader = Reader::with(&space, "--mode repeat:0x80/0xc0");
    assert_eq!(play(&space, "datagrams 5"), "5 of 5");
    let summary = reader.finish();
    assert_eq!((number(&summary, "packets"), number(&summary, "repeated")), (5, 5), "{summary}");
    let below = space.shell("iptables-nft-save -c | grep 'INPUT -m mark'").out;
    assert!(below.starts_with("[5:"), "{below}");
}

#[test]
fn a_routed_packet_waits_in_the_other_queue() {
    let Some(space) = Namespace::new() else { return };
    let install = "install --backend iptables --hook input --queues 0-1 --proto udp";
    assert_eq!(space.fanq(install).code, 0);
    for (mode, listens, said, accepted) in [
        ("route:9", true, "5 of 5", 5),
        ("route:9,mark=0x100/0x300", true, "5 of 5", 5),
        ("route:9,bypass", false, "5 of 5", 0),
        ("route:9", false, "0 of 5", 0),
    ] {
        let other = listens.then(|| Reader::on(&space, "9", ""));
        let reader = Reader::with(&space, &format!("--mode {mode}"));
        assert_eq!(play(&space, "datagrams 5"), said, "{mode}");
        let summary = reader.finish();
        assert_eq!(number(&summary, "requeued"), 5, "{mode}: {summary}");
        let others = other.map(Reader::finish).unwrap_or_default();
        assert_eq!(if listens { number(&others, "accepted") } else { 0 }, accepted, "{others}");
    }
}

/// The rules for a bypass use conntrack, which empties the queues if it is unhooked.
#[test]
fn packets_that_wait_survive_the_rules_for_marks() {
    let Some(space) = Namespace::new() else { return };
    let reader = Reader::start(&space);
    reader.signal("STOP");
    let install = "install --backend iptables --hook input --queues 0-1 --proto udp --dport 9000";
    assert_eq!(space.fanq(install).code, 0);
    assert_eq!(space.shell("for i in 1 2 3 4 5; do echo x >/dev/udp/127.0.0.1/9000; done").code, 0);
    for marks in ["--bypass-mark 1", "--bypass-mark 2 --reject-mark 4 --repeat-mark 8"] {
        let done = space.fanq(&format!("{install} {marks}"));
        assert_eq!((done.code, space.waiting()), (0, 5), "{marks}: {}", done.err);
    }
    let refused = space.fanq("remove --drain-limit 0.2");
    assert_eq!((refused.code, space.waiting()), (1, 5), "{}", refused.err);
    reader.signal("CONT");
    assert_eq!(space.fanq("remove").code, 0);
    space.assert_nothing_of_ours();
}

#[test]
fn the_printed_script_makes_the_rules_for_marks_too() {
    let Some(space) = Namespace::new() else { return };
    let options =
        "--backend iptables --queues 0-3 --bypass-mark 1 --reject-mark 2/3 --repeat-mark 4";
    let script = space.fanq(&format!("print {options}")).out;
    assert_eq!(space.shell(&script).code, 0, "{script}");
    let by_script = [space.saved("ip"), space.saved("ip6")];
    assert_eq!(lines_with(&by_script[1], "-A fanq").len(), 8, "{}", by_script[1]);
    assert_eq!(space.fanq("remove").code, 0);
    assert_eq!(space.fanq(&format!("install {options}")).code, 0);
    assert_eq!([space.saved("ip"), space.saved("ip6")], by_script);
}

/// The actions of a rules file, with the rules that `fanq rules` makes for them: each packet that they decide goes
/// round once, rejected ones are answered by the kernel, and what was let past stays away from the queue.
#[test]
fn a_rules_file_rejects_and_bypasses_by_the_rules_made_for_it() {
    let Some(space) = Namespace::new() else { return };
    assert_eq!(space.shell(SMALL_PACKETS).code, 0);
    let install = "install --backend iptables --hook input --queues 0-1 --reject-mark 0x10/0x30 \
                   --bypass-mark 0x20/0x30";
    let done = space.fanq(install);
    assert_eq!(done.code, 0, "{}", done.err);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let rules = "reject-mark = '0x10/0x30'
        bypass-mark = '0x20/0x30'
        [[rule]]
        name = 'no'
        protocol = 'udp'
        destination-port = 9000
        action = 'reject'
        [[rule]]
        name = 'past'
        protocol = 'tcp'
        destination-port = 9000
        action = 'bypass'";
    std::fs::write(&file, rules).unwrap();
    let reader = Reader::with(&space, &format!("--policy {}", file.display()));
    assert_eq!(play(&space, &format!("transfer 1 {TRANSFER}")), "whole");
    for address in ["127.0.0.1", "::1"] {
        let said = play(&space, &format!("knock {address}"));
        assert_eq!(said, "tcp fine\nudp ConnectionRefused", "{address}");
    }
    let shown = space.fanq("show").out;
    let (_, passed) = sum_of(&shown, "-m connmark");
    assert!(passed > TRANSFER as u64 - (256 << 10), "{shown}");
    let summary: serde_json::Value = serde_json::from_str(&reader.finish()).unwrap();
    let hits = |name: &str| {
        let rules = summary["policy"]["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["name"] == name).unwrap()["packets"].as_u64().unwrap()
    };
    assert_eq!(hits("no"), 2, "{summary}");
    assert!((3..=SEEN_MAX).contains(&hits("past")), "{summary}");
    assert_eq!(summary["totals"]["repeated"], hits("no") + hits("past"), "{summary}");
    let returned = ["rejects_returned", "bypasses_returned"].map(|key| &summary["policy"][key]);
    assert!(returned.iter().all(|count| **count == 0), "{summary}");
    assert_eq!(space.fanq("remove").code, 0);
    space.assert_nothing_of_ours();
}

/// A key of the totals.
fn number(summary: &str, key: &str) -> u64 {
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    summary["totals"][key].as_u64().unwrap()
}

/// Bytes counted by the rule with this comment.
fn counter_of(listing: &str, comment: &str) -> u64 {
    let line = lines_with(listing, &format!("comment \"{comment}\""))[0];
    let (_, after) = line.split_once(" bytes ").unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

/// Packets and bytes of the lines of `fanq rules show` that hold this.
fn sum_of(shown: &str, part: &str) -> (u64, u64) {
    let numbers = lines_with(shown, part).into_iter().map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    });
    numbers.fold((0, 0), |sum, (packets, bytes)| (sum.0 + packets, sum.1 + bytes))
}
