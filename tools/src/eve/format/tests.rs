//! Goal: lines that readers of Suricata's EVE take, key by key. Method: whole lines, compared as text.

use fanq::Timestamp;

use super::*;
use crate::eve::record::Judged;
use crate::inspector::{Action, Conditions};

fn rule() -> Rule {
    Rule {
        name: "telnet".to_owned(),
        id: Some(1_000_001),
        severity: 2,
        category: "Policy".to_owned(),
        message: Some("telnet to the outside".to_owned()),
        conditions: Conditions::default(),
        limit: None,
        action: Action::Drop,
        log: true,
    }
}

fn record(action: Action) -> EveRecord {
    EveRecord {
        time: Timestamp(0),
        judged: Judged { version: 1, rule: Some(0), action },
        addresses: Some(Addresses::V4 { source: 0xc000_0201, destination: 0xc633_6407 }),
        protocol: 6,
        ports: Some((50_096, 23)),
        icmp: None,
        tcp_sequence: Some(7),
        in_interface: Some(2),
        length: 60,
        header: [0x45, 0x10, 0, 60, 0x12, 0x34, 0, 0, 63, 6, 0, 0],
    }
}

/// The lines, with the flow id, which is another each time, as 1.
fn lines(record: &EveRecord, rule: Option<(u32, &Rule)>) -> Vec<String> {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_767_323_045, 678_901_234);
    let named = Named { time, in_interface: Some("eth0"), rule };
    let (formatter, mut out) = (Formatter::default(), Vec::new());
    let count = formatter.packet(record, named, &mut out);
    let id = formatter.flow_id(record).map_or_else(String::new, |id| format!("\"flow_id\":{id}"));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count() as u64, count);
    assert_eq!(record.judged.lines(), count);
    let line = |line: &str| {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        if id.is_empty() { line.to_owned() } else { line.replace(&id, "\"flow_id\":1") }
    };
    text.lines().map(line).collect()
}

const FRONT: &str =
    r#"{"timestamp":"2026-01-02T03:04:05.678901+0000","flow_id":1,"in_iface":"eth0","#;

#[test]
fn an_alert_that_lets_pass() {
    let lines = lines(&record(Action::Log), Some((0, &rule())));
    let rest = concat!(
        r#""event_type":"alert","src_ip":"192.0.2.1","src_port":50096,"dest_ip":"198.51.100.7","dest_port":23,"#,
        r#""proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":1000001,"rev":1,"#,
        r#""signature":"telnet to the outside","category":"Policy","severity":2}}"#
    );
    assert_eq!(lines, [format!("{FRONT}{rest}")]);
}

#[test]
fn a_drop_is_an_alert_and_a_drop() {
    let lines = lines(&record(Action::Drop), Some((0, &rule())));
    let place = r#""src_ip":"192.0.2.1","src_port":50096,"dest_ip":"198.51.100.7","dest_port":23,"proto":"TCP","#;
    let alert = concat!(
        r#""alert":{"action":"blocked","gid":1,"signature_id":1000001,"rev":1,"signature":"telnet to the outside","#,
        r#""category":"Policy","severity":2}}"#
    );
    let drop = r#""drop":{"len":60,"tos":16,"ttl":63,"ipid":4660,"tcpseq":7,"reason":"rules"},"#;
    assert_eq!(lines[0], format!(r#"{FRONT}"event_type":"alert",{place}{alert}"#));
    assert_eq!(lines[1], format!(r#"{FRONT}"event_type":"drop",{place}{drop}{alert}"#));
}

#[test]
fn ipv6_icmp_dropped_by_default() {
    let record = EveRecord {
        judged: Judged { version: 1, rule: None, action: Action::Drop },
        addresses: Some(Addresses::V6 { source: 1, destination: 0x2001_0db8 << 96 }),
        protocol: 58,
        ports: None,
        icmp: Some((128, 0)),
        tcp_sequence: None,
        header: [0x6a, 0xb1, 0x23, 0x45, 0, 0, 58, 64, 0, 0, 0, 0],
        ..record(Action::Drop)
    };
    let rest = concat!(
        r#""event_type":"drop","src_ip":"::1","dest_ip":"2001:db8::","proto":"IPv6-ICMP","icmp_type":128,"#,
        r#""icmp_code":0,"drop":{"len":60,"tc":171,"hoplimit":64,"flowlbl":74565,"reason":"default"}}"#
    );
    assert_eq!(lines(&record, None), [format!("{FRONT}{rest}")]);
}

#[test]
fn what_is_not_known_is_left_out_and_text_is_escaped() {
    let record = EveRecord {
        addresses: None,
        ports: None,
        tcp_sequence: None,
        in_interface: None,
        ..record(Action::Log)
    };
    let rule = Rule { id: None, message: None, name: "a \"b\"\n".to_owned(), ..rule() };
    let lines = lines(&record, Some((4, &rule)));
    let expected = concat!(
        r#"{"timestamp":"2026-01-02T03:04:05.678901+0000","in_iface":"eth0","event_type":"alert","alert":"#,
        r#"{"action":"allowed","gid":1,"signature_id":5,"rev":1,"signature":"a \"b\"\n","#,
        r#""category":"Policy","severity":2}}"#
    );
    assert_eq!(lines, [expected]);
}

#[test]
fn a_flow_has_one_id_in_both_directions() {
    let formatter = Formatter::default();
    let there = record(Action::Log);
    let back = EveRecord {
        addresses: Some(Addresses::V4 { source: 0xc633_6407, destination: 0xc000_0201 }),
        ports: Some((23, 50_096)),
        ..there
    };
    let other = EveRecord { ports: Some((50_097, 23)), ..there };
    assert_eq!(formatter.flow_id(&there), formatter.flow_id(&back));
    assert_ne!(formatter.flow_id(&there), formatter.flow_id(&other));
    assert!(formatter.flow_id(&there).is_some_and(|id| id < 1 << 53));
}

#[test]
fn statistics_and_messages_are_lines_of_their_own() {
    let time = SystemTime::UNIX_EPOCH;
    let mut out = Vec::new();
    engine(time, "Error", "no\nrules", &mut out);
    stats(time, &serde_json::json!({"uptime": 5}), &mut out);
    let expected = concat!(
        r#"{"timestamp":"1970-01-01T00:00:00.000000+0000","event_type":"engine","#,
        r#""engine":{"level":"Error","message":"no\nrules"}}"#,
        "\n",
        r#"{"timestamp":"1970-01-01T00:00:00.000000+0000","event_type":"stats","stats":{"uptime":5}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
