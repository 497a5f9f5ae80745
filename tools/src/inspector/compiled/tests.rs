//! Goal: the compiled rules decide as the words say. Method: random rules and packets from a small world, so that they
//! meet, decided twice: compiled, and by going through the words one by one.

use etherparse::PacketBuilder;
use fanq::Timestamp;
use fanq::nfq::Hook;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::inspector::in_words::holds_in_words;
use crate::inspector::matcher::{BatchClock, Matcher};
use crate::inspector::rules_file::{Conditions, Pattern, PortRange, Prefix};

/// A policy of these rules, with small tables.
pub(crate) fn policy_of(rules: Vec<Rule>) -> CompiledPolicy {
    let settings = Settings { flow_table: 64, limit_table: 64, ..Settings::default() };
    CompiledPolicy::new(&RulesFile { rules, settings, files: Vec::new() }).unwrap()
}

/// A rule that drops what meets its conditions.
pub(crate) fn rule_with(conditions: Conditions) -> Rule {
    Rule {
        name: String::new(),
        id: None,
        severity: 3,
        category: String::new(),
        message: None,
        conditions,
        limit: None,
        action: Action::Drop,
        log: false,
    }
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (
        select(vec![0x0a00_0000_u32, 0x0a00_0001, 0x0a01_0000, 0xc000_0201]),
        select(vec![0_u8, 8, 16, 31, 32]),
    );
    let v6 = (
        select(vec![1_u128, 0x2001_0db8 << 96, (0x2001_0db8 << 96) + 1]),
        select(vec![0_u8, 32, 127, 128]),
    );
    prop_oneof![
        v4.prop_map(|(address, length)| {
            let address = address & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Prefix { address: std::net::Ipv4Addr::from(address).into(), length }
        }),
        v6.prop_map(|(address, length)| {
            let address = address & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Prefix { address: std::net::Ipv6Addr::from(address).into(), length }
        }),
    ]
}

fn port_range() -> impl Strategy<Value = PortRange> {
    let range = select(vec![(0, 65535), (80, 80), (53, 90), (1000, 1000), (0, 79)]);
    range.prop_map(|(first, last)| PortRange { first, last })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (select(vec!["a", "ab", "bc", "Ab", "cab"]), any::<bool>())
        .prop_map(|(text, ignore_case)| Pattern { bytes: text.as_bytes().to_vec(), ignore_case })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let interface = || vec(select(vec!["a".to_owned(), "b".to_owned()]), 0..2);
    let addresses = (vec(prefix(), 0..3), vec(prefix(), 0..3));
    let ports = (vec(port_range(), 0..3), vec(port_range(), 0..3));
    let protocols = vec(select(vec![6_u8, 17, 1, 255]), 0..2);
    let hooks = vec(select(vec![Hook::Input, Hook::Forward]), 0..2);
    let patterns = option::weighted(0.4, vec(pattern(), 1..3));
    (protocols, addresses, ports, interface(), interface(), hooks, patterns).prop_map(
        |(
            protocols,
            (sources, destinations),
            (source_ports, destination_ports),
            ins,
            outs,
            hooks,
            patterns,
        )| {
            Conditions {
                protocols,
                sources,
                destinations,
                source_ports,
                destination_ports,
                in_interfaces: ins,
                out_interfaces: outs,
                hooks,
                patterns: patterns.unwrap_or_default(),
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (conditions(), any::<bool>()).prop_map(|(conditions, only_logs)| Rule {
        action: if only_logs { Action::Log } else { Action::Drop },
        ..rule_with(conditions)
    });
    vec(rule, 0..14)
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let text = "[abcAB]{0,8}";
    let v4 = (
        select(vec![0x0a00_0000_u32, 0x0a00_0001, 0x0a01_0007, 0xc000_0201]),
        select(vec![0x0a00_0001_u32, 0]),
    );
    let v6 =
        (select(vec![1_u128, (0x2001_0db8 << 96) + 1]), select(vec![0x2001_0db8_u128 << 96, 2]));
    let ports = (select(vec![53_u16, 80, 1000]), select(vec![53_u16, 80, 81, 1000]));
    let ip = prop_oneof![v4.prop_map(Ok), v6.prop_map(Err)];
    (ip, ports, 0..3_u8, text).prop_map(|(ip, (source, destination), protocol, text)| {
        let builder = match ip {
            Ok((from, to)) => PacketBuilder::ipv4(from.to_be_bytes(), to.to_be_bytes(), 9),
            Err((from, to)) => PacketBuilder::ipv6(from.to_be_bytes(), to.to_be_bytes(), 9),
        };
        let mut bytes = Vec::new();
        match protocol {
            0 => builder.tcp(source, destination, 1, 1).write(&mut bytes, text.as_bytes()).unwrap(),
            1 => builder.udp(source, destination).write(&mut bytes, text.as_bytes()).unwrap(),
            _ => builder.icmpv4_echo_request(1, 1).write(&mut bytes, text.as_bytes()).unwrap(),
        }
        bytes
    })
}

fn around(policy: &CompiledPolicy, hook: Hook, interfaces: [&str; 2]) -> Surroundings {
    let bit = |name: &str| {
        policy.interfaces.iter().position(|known| known == name).map_or(0, |slot| 1 << slot)
    };
    Surroundings {
        hook: hook_bit(hook),
        in_interface: bit(interfaces[0]),
        out_interface: bit(interfaces[1]),
    }
}

fn assert_as_the_words_say(
    rules: Vec<Rule>,
    packets: &[Vec<u8>],
    hook: Hook,
    interfaces: [&str; 2],
) {
    let policy = policy_of(rules);
    let around = around(&policy, hook, interfaces);
    for packet in packets {
        let facts = PacketFacts::read(packet);
        let mut expected = Vec::new();
        for (number, rule) in (0_u32..).zip(policy.words.iter()) {
            if holds_in_words(rule, &facts, hook, interfaces) {
                expected.push(number);
                if rule.action != Action::Log {
                    break;
                }
            }
        }
        let decided = expected.last().map(|last| policy.words[*last as usize].action);
        let decided = decided.filter(|action| *action != Action::Log);
        let (mut matcher, mut hits) = (Matcher::new(&policy), Vec::new());
        let mut clock = BatchClock::at(Timestamp(0));
        let action = matcher.decide(&policy, &facts, around, &mut clock, |rule, _| hits.push(rule));
        assert_eq!((action, &hits), (decided, &expected), "{facts:?}\n{:?}", policy.words);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_first_match_decides_as_the_words_say(
        rules in rules(),
        packets in vec(packet(), 1..12),
        hook in select(vec![Hook::Input, Hook::Forward, Hook::Output]),
        interfaces in (select(vec!["a", "b", "c"]), select(vec!["a", "b", ""])),
    ) {
        assert_as_the_words_say(rules, &packets, hook, [interfaces.0, interfaces.1]);
    }

    #[test]
    fn no_bytes_make_a_decision_panic(
        rules in rules(),
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        rest in vec(any::<u8>(), 0..120),
    ) {
        let bytes: Vec<_> = std::iter::once(first).chain(rest).collect();
        assert_as_the_words_say(rules, &[bytes], Hook::Forward, ["a", "b"]);
    }
}

#[test]
fn a_rule_is_found_by_what_it_shares_with_fewest() {
    let shared = Prefix { address: "10.0.0.0".parse().unwrap(), length: 8 };
    let rule = |port: u16| {
        rule_with(Conditions {
            sources: vec![shared],
            destination_ports: vec![PortRange { first: port, last: port }],
            ..Conditions::default()
        })
    };
    let policy = policy_of((0..1000).map(rule).collect());
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [1; 4], 9).udp(5, 777).write(&mut bytes, &[]).unwrap();
    let mut lists = Vec::new();
    policy.lists_of(&PacketFacts::read(&bytes), &mut lists);
    let candidates: Vec<_> =
        lists.into_iter().flatten().map(|place| policy.rule_at(place)).collect();
    assert_eq!((candidates, policy.for_all_count()), (vec![777], 0));
}

#[test]
fn more_interfaces_than_can_be_told_apart_are_refused() {
    let named = |count: usize| {
        let in_interfaces = (0..count).map(|n| format!("eth{n}")).collect();
        let rules = vec![rule_with(Conditions { in_interfaces, ..Conditions::default() })];
        CompiledPolicy::new(&RulesFile { rules, settings: Settings::default(), files: Vec::new() })
    };
    assert!(named(64).is_ok());
    assert!(named(65).unwrap_err().to_string().contains("at most 64"));
}
