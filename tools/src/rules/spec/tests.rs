//! Goal: what is taken can be written down for both backends, and what is refused says what to type
//! instead.

use super::*;

fn spec() -> RuleSpec {
    RuleSpec {
        table: "fanq".parse().unwrap(),
        family: Family::Both,
        hook: Hook::Forward,
        queues: "0-3".parse().unwrap(),
        fanout: false,
        bypass: false,
        matches: Matches::default(),
        marks: Marks::default(),
    }
}

#[test]
fn table_names() {
    for name in ["fanq", "a", "_x", "Fanq_2", "abcdefghijklmnopqrst"] {
        assert_eq!(name.parse::<TableName>().unwrap().as_str(), name);
    }
    for name in ["", "1a", "a-b", "a b", "a;b", "é", "INPUT", "LOG", "_", "abcdefghijklmnopqrstu"]
    {
        assert!(name.parse::<TableName>().is_err(), "{name:?} was taken");
    }
}

#[test]
fn interface_names() {
    for name in ["lo", "eth0", "br-lan", "wlan0.100", "a23456789012345"] {
        assert_eq!(name.parse::<IfaceName>().unwrap().to_string(), name);
    }
    let bad = [
        "",
        ".",
        "..",
        "a234567890123456",
        "a b",
        "a\tb",
        "a/b",
        "a\"b",
        "a'b",
        "a;b",
        "a{b",
        "a}b",
        "a\nb",
        "-a",
        "!a",
        "eth+",
        "eth*",
        "a#b",
        "a\\b",
    ];
    for name in bad {
        assert!(name.parse::<IfaceName>().is_err(), "{name:?} was taken");
    }
}

#[test]
fn protocols_by_name_and_number() {
    for (text, shown, ports) in [
        ("tcp", "tcp", true),
        ("6", "tcp", true),
        ("udp", "udp", true),
        ("132", "sctp", true),
        ("icmp", "icmp", false),
        ("58", "icmpv6", false),
        ("47", "47", false),
        ("255", "255", false),
    ] {
        let proto: Proto = text.parse().unwrap();
        assert_eq!((proto.to_string().as_str(), proto.has_ports()), (shown, ports), "{text}");
    }
    for text in ["", "TCP", "0", "256", "-1", "all", "tcp udp"] {
        assert!(text.parse::<Proto>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn ports_ranges_and_lists() {
    for (text, nft, iptables) in [
        ("9000", "9000", "9000"),
        ("1000-2000", "1000-2000", "1000:2000"),
        ("1000:2000", "1000-2000", "1000:2000"),
        ("8000-8080,80,53", "53, 80, 8000-8080", "53,80,8000:8080"),
        // What overlaps or touches is one range.
        ("5,1-4,3-9", "1-9", "1:9"),
        ("65535,0-65535", "0-65535", "0:65535"),
    ] {
        let ports: PortSet = text.parse().unwrap();
        assert_eq!(ports.text("-", ", "), nft, "{text}");
        assert_eq!(ports.text(":", ","), iptables, "{text}");
    }
    for (text, part) in [
        ("", "no port"),
        ("http", "`http`"),
        ("1,,2", "no port"),
        ("65536", "`65536`"),
        ("20-10", "write 10-20"),
        ("1,3,5,7,9,11,13,15,17,19,21,23,25,27,29-30", "at most 15"),
    ] {
        let error = text.parse::<PortSet>().unwrap_err();
        assert!(error.contains(part), "{text:?} gave {error:?}");
    }
}

#[test]
fn raw_text_stays_one_statement() {
    assert_eq!(" ct state new ".parse::<RawMatch>().unwrap().as_str(), "ct state new");
    for text in ["", " ", "a\nb", "a;b", "a # b", "a \\"] {
        assert!(text.parse::<RawMatch>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn conditions_that_never_hold_are_refused() {
    let interface = || Some("eth0".parse().unwrap());
    let ports = || Some("53".parse().unwrap());
    let refused = |change: &dyn Fn(&mut RuleSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.check().err().map(|error| {
            assert!(error.is::<crate::UsageError>());
            error.to_string()
        })
    };
    for hook in [Hook::Input, Hook::Prerouting, Hook::Output, Hook::Postrouting, Hook::Forward] {
        let receiving = matches!(hook, Hook::Input | Hook::Prerouting);
        let sending = matches!(hook, Hook::Output | Hook::Postrouting);
        let out = refused(&|spec| (spec.hook, spec.matches.out_iface) = (hook, interface()));
        assert_eq!(out.is_some_and(|text| text.contains("--in-iface")), receiving, "{hook}");
        let into = refused(&|spec| (spec.hook, spec.matches.in_iface) = (hook, interface()));
        assert_eq!(into.is_some_and(|text| text.contains("--out-iface")), sending, "{hook}");
    }
    for proto in [None, Some("icmp"), Some("47")] {
        let change = |spec: &mut RuleSpec| {
            spec.matches.proto = proto.map(|text| text.parse().unwrap());
            spec.matches.dport = ports();
        };
        assert!(refused(&change).unwrap().contains("--proto"), "{proto:?}");
    }
    let udp = Some("udp".parse().unwrap());
    assert_eq!(refused(&|spec| (spec.matches.proto, spec.matches.sport) = (udp, ports())), None);
}

#[test]
fn marks_are_told_apart_and_rejecting_has_its_hooks() {
    let refused = |hook, bypass: &str, reject: &str| {
        let mark = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let marks = Marks { bypass: mark(bypass), reject: mark(reject), repeat: None };
        let error = RuleSpec { hook, marks, ..spec() }.check().err();
        error.map(|error| {
            assert!(error.is::<crate::UsageError>());
            error.to_string()
        })
    };
    let same = refused(Hook::Forward, "1", "1/3").unwrap();
    assert!(same.contains("--reject-mark 0x1/0x3 and --bypass-mark 0x1/0x1"), "{same}");
    assert_eq!(refused(Hook::Forward, "1", "2"), None);
    assert_eq!(refused(Hook::Forward, "1/3", "2/3"), None);
    assert_eq!(refused(Hook::Postrouting, "1", ""), None);
    assert!(refused(Hook::Postrouting, "", "1").unwrap().contains("--hook forward"));
}

#[test]
fn one_queue_needs_no_fanout() {
    let mut spec = RuleSpec { fanout: true, bypass: true, ..spec() };
    assert_eq!(spec.to_string(), "hook forward, queues 0-3, fanout, bypass");
    spec.queues = "5".parse().unwrap();
    assert_eq!(spec.to_string(), "hook forward, queue 5, bypass");
    spec.marks.bypass = Some("1".parse().unwrap());
    assert_eq!(spec.to_string(), "hook forward, queue 5, bypass, bypass-mark 0x1/0x1");
}
