//! Lines of JSON as Suricata writes them (docs.suricata.io, "EVE JSON Format"): the same keys, in the same order.
//!
//! Invariant: one event, one line, valid JSON whatever stands in names and messages. A key whose value is not known is
//! left out.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::record::EveRecord;
use crate::inspector::{Addresses, Rule};

/// Writes lines.
#[derive(Debug, Default)]
pub(super) struct Formatter {
    /// Makes flow ids that cannot be guessed from outside.
    flows: RandomState,
}

/// What the record does not have, but its line does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) time: SystemTime,
    pub(super) in_interface: Option<&'a str>,
    /// The rule's number and words; none for the default.
    pub(super) rule: Option<(u32, &'a Rule)>,
}

#[derive(Serialize)]
struct PacketLine<'a> {
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_iface: Option<&'a str>,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop: Option<DropPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<AlertPart<'a>>,
}

#[derive(Serialize)]
struct AlertPart<'a> {
    action: &'static str,
    gid: u32,
    signature_id: u32,
    rev: u32,
    signature: &'a str,
    category: &'a str,
    severity: u8,
}

#[derive(Serialize)]
struct DropPart {
    len: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipid: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hoplimit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flowlbl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcpseq: Option<u32>,
    reason: &'static str,
}

#[derive(Serialize)]
struct EngineLine<'a> {
    timestamp: String,
    event_type: &'static str,
    engine: EnginePart<'a>,
}

#[derive(Serialize)]
struct EnginePart<'a> {
    level: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct StatsLine<'a, S> {
    timestamp: String,
    event_type: &'static str,
    stats: &'a S,
}

impl Formatter {
    /// Puts a packet's lines, one or two, behind `out`: an alert if a rule matched, a drop if it was not let through.
    /// Returns how many.
    pub(super) fn packet(&self, record: &EveRecord, named: Named<'_>, out: &mut Vec<u8>) -> u64 {
        let blocked = record.judged.blocks();
        let mut lines = 0;
        if named.rule.is_some() {
            lines += u64::from(append(&self.line(record, named, "alert", None), out));
        }
        if blocked {
            let reason = if named.rule.is_some() { "rules" } else { "default" };
            let part = drop_part(record, reason);
            lines += u64::from(append(&self.line(record, named, "drop", Some(part)), out));
        }
        lines
    }

    fn line<'a>(
        &self,
        record: &EveRecord,
        named: Named<'a>,
        event_type: &'static str,
        drop: Option<DropPart>,
    ) -> PacketLine<'a> {
        let blocked = record.judged.blocks();
        let alert = named.rule.map(|(number, rule)| AlertPart {
            action: if blocked { "blocked" } else { "allowed" },
            gid: 1,
            signature_id: rule.id.unwrap_or(number + 1),
            rev: 1,
            signature: rule.message.as_deref().unwrap_or(&rule.name),
            category: &rule.category,
            severity: rule.severity,
        });
        let addresses = record.addresses.map(Addresses::both);
        PacketLine {
            timestamp: timestamp(named.time),
            flow_id: self.flow_id(record),
            in_iface: named.in_interface,
            event_type,
            src_ip: addresses.map(|(source, _)| source.to_string()),
            src_port: record.ports.map(|(source, _)| source),
            dest_ip: addresses.map(|(_, destination)| destination.to_string()),
            dest_port: record.ports.map(|(_, destination)| destination),
            proto: addresses.map(|_| protocol_name(record.protocol)),
            icmp_type: record.icmp.map(|(kind, _)| kind),
            icmp_code: record.icmp.map(|(_, code)| code),
            drop,
            alert,
        }
    }

    /// The same number for both directions of a flow, in 52 bits, which every reader of JSON keeps whole.
    fn flow_id(&self, record: &EveRecord) -> Option<u64> {
        let (source, destination) = record.addresses?.wide();
        let ports = record.ports.unwrap_or_default();
        let (one, other) = ((source, ports.0), (destination, ports.1));
        let key = (one.min(other), one.max(other), record.protocol);
        Some(self.flows.hash_one(key) >> 12)
    }
}

/// A line about the engine itself.
pub(super) fn engine(time: SystemTime, level: &'static str, message: &str, out: &mut Vec<u8>) {
    let engine = EnginePart { level, message };
    append(&EngineLine { timestamp: timestamp(time), event_type: "engine", engine }, out);
}

/// A line of statistics.
pub(super) fn stats(time: SystemTime, stats: &impl Serialize, out: &mut Vec<u8>) {
    append(&StatsLine { timestamp: timestamp(time), event_type: "stats", stats }, out);
}

/// Whether it could be written: values of these types always can.
fn append(line: &impl Serialize, out: &mut Vec<u8>) -> bool {
    let whole = serde_json::to_writer(&mut *out, line).is_ok();
    out.push(b'\n');
    whole
}

fn drop_part(record: &EveRecord, reason: &'static str) -> DropPart {
    let header = &record.header;
    let mut part = DropPart {
        len: record.length,
        tos: None,
        ttl: None,
        ipid: None,
        tc: None,
        hoplimit: None,
        flowlbl: None,
        tcpseq: record.tcp_sequence,
        reason,
    };
    match record.addresses {
        Some(Addresses::V4 { .. }) => {
            part.tos = Some(header[1]);
            part.ttl = Some(header[8]);
            part.ipid = Some(u16::from_be_bytes([header[4], header[5]]));
        }
        Some(Addresses::V6 { .. }) => {
            part.tc = Some(header[0] << 4 | header[1] >> 4);
            part.hoplimit = Some(header[7]);
            part.flowlbl = Some(u32::from_be_bytes([0, header[1] & 0xf, header[2], header[3]]));
        }
        None => {}
    }
    part
}

/// `2026-01-02T03:04:05.678901+0000`: as Suricata has it, in UTC.
fn timestamp(time: SystemTime) -> String {
    // The format takes no time beyond the year 9999.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    let text =
        humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string();
    text.trim_end_matches('Z').to_owned() + "+0000"
}

/// As Suricata writes them; three digits for the others.
fn protocol_name(protocol: u8) -> String {
    let named = PROTOCOL_NAMES.iter().find(|(number, _)| *number == protocol);
    named.map_or_else(|| format!("{protocol:03}"), |(_, name)| (*name).to_owned())
}

const PROTOCOL_NAMES: [(u8, &str); 9] = [
    (1, "ICMP"),
    (2, "IGMP"),
    (6, "TCP"),
    (17, "UDP"),
    (47, "GRE"),
    (50, "ESP"),
    (51, "AH"),
    (58, "IPv6-ICMP"),
    (132, "SCTP"),
];

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
