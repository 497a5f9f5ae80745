//! Goal: the four forms, every match, and nothing of others taken for ours.

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
        ("3", false, false, "counter queue to 3"),
        ("0-3", false, false, "counter queue to 0-3"),
        ("0:3", true, false, "counter queue flags fanout to 0-3"),
        ("0-3", true, true, "counter queue flags fanout,bypass to 0-3"),
        ("0-3", false, true, "counter queue flags bypass to 0-3"),
        // nft's fanout wants a range.
        ("3", true, true, "counter queue flags bypass to 3"),
    ] {
        let rule = rule(&spec(queues, fanout, bypass));
        assert_eq!(rule, format!("{expected} comment \"fanq\""));
    }
}

#[test]
fn the_file_makes_the_chain_once_and_refills_it() {
    let spec = RuleSpec { hook: Hook::Input, family: Family::Ipv6, ..spec("0-1", true, true) };
    let expected = "\
add table ip6 fanq
add chain ip6 fanq input { type filter hook input priority filter; policy accept; }
flush table ip6 fanq
add rule ip6 fanq input counter queue flags fanout,bypass to 0-1 comment \"fanq\"
";
    assert_eq!(file(&spec), expected);
}

#[test]
fn what_another_family_left_is_emptied_not_deleted() {
    let name: TableName = "fanq".parse().unwrap();
    let table = |family| NftTable { family, name: name.clone(), hooks: vec![Hook::Forward] };
    let text = file_beside(&spec("0-3", false, false), &[table("inet"), table("ip")]);
    let emptied: Vec<_> = text.lines().filter(|line| line.starts_with("flush ")).collect();
    assert_eq!(emptied, ["flush table inet fanq", "flush table ip fanq"]);
    assert!(!text.contains("delete"), "{text}");
}

#[test]
fn matches_come_before_the_counter() {
    let mut spec = spec("5", false, false);
    let start = |spec: &RuleSpec| rule(spec).split(" counter ").next().unwrap().to_owned();
    spec.matches.proto = Some("icmpv6".parse().unwrap());
    assert_eq!(start(&spec), "meta l4proto icmpv6");
    spec.matches = Matches {
        in_iface: Some("eth0".parse().unwrap()),
        out_iface: Some("br-lan".parse().unwrap()),
        proto: Some("udp".parse().unwrap()),
        sport: Some("1000-2000".parse().unwrap()),
        dport: Some("53,80,8000-8080".parse().unwrap()),
        raw: Some("ct state new".parse().unwrap()),
    };
    assert_eq!(
        start(&spec),
        "iifname \"eth0\" oifname \"br-lan\" udp sport 1000-2000 \
         udp dport { 53, 80, 8000-8080 } ct state new"
    );
    assert!(!rule(&spec.without_raw()).contains("ct state"));
}

#[test]
fn marks_have_rules_in_front_of_the_queue_rule() {
    let mut spec = RuleSpec { family: Family::Ipv4, ..spec("0-1", true, false) };
    spec.matches.proto = Some("tcp".parse().unwrap());
    spec.marks = Marks {
        bypass: Some("0x10/0x30".parse().unwrap()),
        reject: Some("0x40".parse().unwrap()),
        repeat: Some("0x80".parse().unwrap()),
    };
    let marked = "add rule ip fanq forward meta mark";
    let expected = format!(
        "\
add table ip fanq
add chain ip fanq forward {{ type filter hook forward priority filter; policy accept; }}
flush table ip fanq
{marked} & 0x00000040 == 0x00000040 meta l4proto tcp counter reject with tcp reset comment \"fanq\"
{marked} & 0x00000040 == 0x00000040 counter reject comment \"fanq\"
{marked} & 0x00000080 == 0x00000080 counter return comment \"fanq\"
{marked} & 0x00000030 == 0x00000010 ct mark set ct mark & 0xffffffcf | 0x00000010 counter comment \"fanq\"
{marked} & 0x00000030 == 0x00000010 counter meta mark set meta mark & 0xffffffcf accept comment \"fanq\"
add rule ip fanq forward meta l4proto tcp ct mark & 0x00000030 == 0x00000010 counter accept comment \"fanq\"
add rule ip fanq forward meta l4proto tcp counter queue flags fanout to 0-1 comment \"fanq\"
"
    );
    assert_eq!(file(&spec), expected);
}

#[test]
fn a_mark_of_all_bits_is_set_whole() {
    let mut spec = spec("3", false, false);
    spec.marks.bypass = Some("7/0xffffffff".parse().unwrap());
    let rules = front_rules(&spec);
    assert!(rules[0].contains("== 0x00000007 ct mark set 0x00000007 counter"), "{rules:?}");
    assert!(rules[1].contains("meta mark set 0 accept"), "{rules:?}");
}

#[test]
fn a_listing_of_ours_is_recognised() {
    let listing = "\
table inet fanq {
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\taccept comment \"fanq\"
\t\tudp dport { 53, 80 } counter packets 0 bytes 0 queue flags bypass,fanout to 0-3 comment \"fanq\"
\t}

\tchain input {
\t\ttype filter hook input priority 0; policy accept;
\t}
}
";
    assert_eq!(chains_if_ours(listing), Ok(vec![Hook::Forward, Hook::Input]));
    assert_eq!(chains_if_ours("table inet fanq {\n}\n"), Ok(vec![]));
}

#[test]
fn counters_are_read_from_a_listing() {
    let listing = "\
table inet fanq {
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\taccept comment \"fanq\"
\t\tmeta mark 0x00000001 counter packets 3 bytes 180 accept comment \"fanq\"
\t\tmeta mark 0x00000001 ct mark set 0x00000001 counter packets 4 bytes 240 comment \"fanq\"
\t}
}
";
    let rule = |counted, text: &str| CountedRule { counted, text: text.to_owned() };
    assert_eq!(
        counted_in(listing),
        [
            rule(None, "accept"),
            rule(Some((3, 180)), "meta mark 0x00000001 accept"),
            rule(Some((4, 240)), "meta mark 0x00000001 ct mark set 0x00000001"),
        ]
    );
}

#[test]
fn a_line_of_others_is_named() {
    for line in [
        "chain mine {",
        "tcp dport 22 accept",
        "set s {",
        "type filter hook forward priority filter; policy drop;",
        "type nat hook output priority filter; policy accept;",
        "accept comment \"fanq2\"",
    ] {
        let listing = format!("table inet fanq {{\n\tchain forward {{\n\t\t{line}\n\t}}\n}}\n");
        assert_eq!(chains_if_ours(&listing), Err(line.to_owned()));
    }
}
