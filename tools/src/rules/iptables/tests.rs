//! Goal: the four forms, every match, both versions of IP, as iptables reads them.

use super::super::spec::{Marks, Matches};
use super::*;

fn spec(queues: &str, fanout: bool, bypass: bool) -> RuleSpec {
    RuleSpec {
        table: "fanq".parse().unwrap(),
        family: Family::Both,
        hook: Hook::Forward,
        queues: queues.parse().unwrap(),
        fanout,
        bypass,
        matches: Matches::default(),
        marks: Marks::default(),
    }
}

#[test]
fn the_four_forms() {
    for (queues, fanout, bypass, expected) in [
        ("3", false, false, "--queue-num 3"),
        ("0-3", false, false, "--queue-balance 0:3"),
        ("0:3", true, false, "--queue-balance 0:3 --queue-cpu-fanout"),
        ("0-3", true, true, "--queue-balance 0:3 --queue-cpu-fanout --queue-bypass"),
        ("0-3", false, true, "--queue-balance 0:3 --queue-bypass"),
        // Fanout needs a range.
        ("3", true, true, "--queue-num 3 --queue-bypass"),
    ] {
        let rule = rule(&spec(queues, fanout, bypass));
        assert_eq!(rule, format!("-A fanq -j NFQUEUE {expected}"));
    }
}

#[test]
fn matches_come_before_the_target() {
    let mut spec = spec("5", false, false);
    spec.matches = Matches {
        in_iface: Some("eth0".parse().unwrap()),
        out_iface: Some("br-lan".parse().unwrap()),
        proto: Some("udp".parse().unwrap()),
        sport: Some("53,80,8000-8080".parse().unwrap()),
        dport: Some("1000-2000".parse().unwrap()),
        raw: Some("-m conntrack  --ctstate NEW".parse().unwrap()),
    };
    assert_eq!(
        rule(&spec),
        "-A fanq -i eth0 -o br-lan -p udp --dport 1000:2000 -m multiport --sports 53,80,8000:8080 \
         -m conntrack --ctstate NEW -j NFQUEUE --queue-num 5"
    );
}

#[test]
fn marks_have_rules_in_front_of_the_queue_rule() {
    let mut spec = spec("3", false, false);
    spec.matches.proto = Some("udp".parse().unwrap());
    spec.marks = Marks {
        bypass: Some("0x10/0x30".parse().unwrap()),
        reject: Some("0x40".parse().unwrap()),
        repeat: Some("0x80".parse().unwrap()),
    };
    let ours = "-m comment --comment fanq";
    let expected = format!(
        "\
:fanq - [0:0]
-A fanq -p tcp -m mark --mark 0x40/0x40 {ours} -j REJECT --reject-with tcp-reset
-A fanq -m mark --mark 0x40/0x40 {ours} -j REJECT
-A fanq -m mark --mark 0x80/0x80 {ours} -j RETURN
-A fanq -m mark --mark 0x10/0x30 {ours} -j CONNMARK --set-xmark 0x10/0x30
-A fanq -m mark --mark 0x10/0x30 -m conntrack --ctstate INVALID,UNTRACKED {ours} -j ACCEPT
-A fanq -m mark --mark 0x10/0x30 {ours} -j MARK --set-xmark 0x0/0x30
-A fanq -p udp -m connmark --mark 0x10/0x30 {ours} -j ACCEPT
-A fanq -p udp -j NFQUEUE --queue-num 3
"
    );
    assert_eq!(chain_lines(&spec), expected);
}

#[test]
fn each_hook_has_its_table_and_chain() {
    for (hook, table, chain) in [
        (Hook::Input, "filter", "INPUT"),
        (Hook::Forward, "filter", "FORWARD"),
        (Hook::Output, "filter", "OUTPUT"),
        (Hook::Prerouting, "mangle", "PREROUTING"),
        (Hook::Postrouting, "mangle", "POSTROUTING"),
    ] {
        assert_eq!((table_of(hook), chain_of(hook)), (table, chain));
    }
}

#[test]
fn the_script_names_the_programs_of_both_versions() {
    let expected = "\
# IPv4
iptables-nft-restore --noflush -w 5 <<'END'
*filter
:fanq - [0:0]
-A fanq -j NFQUEUE --queue-num 3
COMMIT
END
iptables-nft -w 5 -t filter -C FORWARD -j fanq 2>/dev/null ||
    iptables-nft -w 5 -t filter -I FORWARD 1 -j fanq
# IPv6
ip6tables-nft-restore --noflush -w 5 <<'END'
*filter
:fanq - [0:0]
-A fanq -j NFQUEUE --queue-num 3
COMMIT
END
ip6tables-nft -w 5 -t filter -C FORWARD -j fanq 2>/dev/null ||
    ip6tables-nft -w 5 -t filter -I FORWARD 1 -j fanq
";
    assert_eq!(script(&spec("3", false, false), Flavour("iptables-nft")), expected);
}
