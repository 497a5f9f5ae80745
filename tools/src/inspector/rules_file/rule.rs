//! One rule: read from its text, checked, not yet compiled.
//!
//! Invariant: what a [`Rule`] says can hold for some packet as far as can be told from the rule alone, and its action
//! has all that it needs. An empty list of conditions means any.

use fanq::nfq::Hook;
use toml::Spanned;

use super::error::Wrong;
use super::schema::{LimitText, List, RuleText};
use super::values::{self, Pattern, PortRange, Prefix};
use super::{Settings, mark};
use crate::mark::MarkBits;

/// A rule, in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Stands in the log as `signature_id`; by default its place among all rules, from 1.
    pub(crate) id: Option<u32>,
    /// 1, the gravest, to 255.
    pub(crate) severity: u8,
    pub(crate) category: String,
    pub(crate) message: Option<String>,
    pub(crate) conditions: Conditions,
    pub(crate) limit: Option<Limit>,
    pub(crate) action: Action,
    /// Whether a packet that it matches is written to the log.
    pub(crate) log: bool,
}

/// What must all hold. An empty list holds for any packet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) protocols: Vec<u8>,
    pub(crate) sources: Vec<Prefix>,
    pub(crate) destinations: Vec<Prefix>,
    pub(crate) source_ports: Vec<PortRange>,
    pub(crate) destination_ports: Vec<PortRange>,
    pub(crate) in_interfaces: Vec<String>,
    pub(crate) out_interfaces: Vec<String>,
    pub(crate) hooks: Vec<Hook>,
    /// All of them must be found, in any order.
    pub(crate) patterns: Vec<Pattern>,
}

/// A rate that must be passed before the rule matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    pub(crate) per: LimitScope,
    /// Packets within `seconds` that are below the limit.
    pub(crate) count: u32,
    pub(crate) seconds: f64,
    /// The most packets that are below the limit at once.
    pub(crate) burst: u32,
}

/// What a limit counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitScope {
    Source,
    Destination,
    Flow,
    Rule,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Drop,
    /// Refused with a TCP reset or an ICMP error, by a rule that looks for the mark.
    Reject,
    /// Accepted with these bits put into its mark.
    Mark(MarkBits),
    /// Accepted, and the flow is not to be seen again.
    Bypass,
    /// Only written to the log: the next rule is tried.
    Log,
}

impl Rule {
    pub(super) fn read(text: RuleText, settings: &Settings) -> Result<Self, Wrong> {
        let name_span = text.name.span();
        let name = text.name.into_inner();
        if name.trim().is_empty() {
            return Err(Wrong::at(
                name_span,
                "the name is empty: write one by which the rule is known in counts",
            ));
        }
        let action = action(&text.action, text.mark, settings)?;
        let log_span = text.log.as_ref().map(Spanned::span);
        let log_by_default = matches!(action, Action::Drop | Action::Reject | Action::Log);
        let log = text.log.map_or(log_by_default, Spanned::into_inner);
        if let (Action::Log, false, Some(span)) = (action, log, log_span) {
            return Err(Wrong::at(
                span,
                "a rule with the action \"log\" and log = false does nothing: leave it out",
            ));
        }
        let protocol_span = text.protocol.as_ref().map(Spanned::span);
        let has_ports = text.source_port.is_some() || text.destination_port.is_some();
        let conditions = Conditions {
            protocols: List::read(text.protocol, values::protocol)?,
            sources: List::read(text.source, values::prefix)?,
            destinations: List::read(text.destination, values::prefix)?,
            source_ports: List::read(text.source_port, values::ports)?,
            destination_ports: List::read(text.destination_port, values::ports)?,
            in_interfaces: List::read(text.in_interface, values::interface)?,
            out_interfaces: List::read(text.out_interface, values::interface)?,
            hooks: List::read(text.direction, values::hook)?,
            patterns: List::read(text.pattern, values::pattern)?,
        };
        let without_ports = |protocol: &&u8| !WITH_PORTS.contains(*protocol);
        if has_ports
            && let Some(span) = protocol_span
            && let Some(protocol) = conditions.protocols.iter().find(without_ports)
        {
            let what = format!(
                "protocol {protocol} has no ports: a rule with ports takes tcp, udp and sctp"
            );
            return Err(Wrong::at(span, what));
        }
        Ok(Self {
            name,
            id: number("id", text.id, 1, i64::from(u32::MAX))?,
            severity: number("severity", text.severity, 1, 255)?.unwrap_or(SEVERITY_DEFAULT),
            category: text.category.unwrap_or_default(),
            message: text.message,
            conditions,
            limit: text.limit.map(limit).transpose()?,
            action,
            log,
        })
    }
}

fn action(
    text: &Spanned<String>,
    value: Option<Spanned<super::Scalar>>,
    settings: &Settings,
) -> Result<Action, Wrong> {
    let needs = |key: &str, of_rules: &str| {
        let what = format!(
            "the action \"{}\" needs `{key}` in the first file: the mark that the rules of `fanq rules --{of_rules}` \
             look for, such as {key} = \"0x10/0x30\"",
            text.get_ref()
        );
        Wrong::at(text.span(), what)
    };
    let value_span = value.as_ref().map(Spanned::span);
    let bits = mark(value)?;
    let action = match (text.get_ref().as_str(), bits) {
        ("accept", _) => Action::Accept,
        ("drop", _) => Action::Drop,
        ("log", _) => Action::Log,
        ("reject", _) if settings.reject_mark.is_none() => {
            return Err(needs("reject-mark", "reject-mark"));
        }
        ("reject", _) => Action::Reject,
        ("bypass", _) if settings.bypass_mark.is_none() => {
            return Err(needs("bypass-mark", "bypass-mark"));
        }
        ("bypass", _) => Action::Bypass,
        ("mark", Some(bits)) => Action::Mark(bits),
        ("mark", None) => {
            let what = "the action \"mark\" needs the key `mark`, such as mark = \"0x10/0xf0\"";
            return Err(Wrong::at(text.span(), what));
        }
        (other, _) => {
            let what =
                format!("`{other}` is no action: write accept, drop, reject, mark, bypass or log");
            return Err(Wrong::at(text.span(), what));
        }
    };
    match (action, value_span) {
        (Action::Mark(_), _) | (_, None) => Ok(action),
        (_, Some(span)) => {
            Err(Wrong::at(span, "only a rule with the action \"mark\" takes the key `mark`"))
        }
    }
}

fn limit(text: LimitText) -> Result<Limit, Wrong> {
    let per = match text.per.get_ref().as_str() {
        "source" => LimitScope::Source,
        "destination" => LimitScope::Destination,
        "flow" => LimitScope::Flow,
        "rule" => LimitScope::Rule,
        other => {
            let what = format!(
                "`{other}` is nothing to count by: write source, destination, flow or rule"
            );
            return Err(Wrong::at(text.per.span(), what));
        }
    };
    let count = number("count", Some(text.count), 1, LIMIT_COUNT_MAX)?.unwrap_or(1);
    let burst = number("burst", text.burst, 1, LIMIT_COUNT_MAX)?.unwrap_or(count);
    let seconds = *text.seconds.get_ref();
    if !(LIMIT_SECONDS_MIN..=LIMIT_SECONDS_MAX).contains(&seconds) {
        let what = format!(
            "seconds {seconds} is out of range: {LIMIT_SECONDS_MIN} to {LIMIT_SECONDS_MAX}"
        );
        return Err(Wrong::at(text.seconds.span(), what));
    }
    Ok(Limit { per, count, seconds, burst })
}

fn number<T: TryFrom<i64>>(
    key: &str,
    value: Option<Spanned<i64>>,
    least: i64,
    most: i64,
) -> Result<Option<T>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    let number = *value.get_ref();
    if (least..=most).contains(&number) {
        return Ok(T::try_from(number).ok());
    }
    Err(Wrong::at(value.span(), format!("{key} {number} is out of range: {least} to {most}")))
}

/// Suricata's default priority.
const SEVERITY_DEFAULT: u8 = 3;

/// TCP, UDP, DCCP, SCTP, UDP-Lite: ports stand in the first four bytes.
pub(crate) const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

const LIMIT_COUNT_MAX: i64 = 1_000_000_000;
const LIMIT_SECONDS_MIN: f64 = 0.001;
const LIMIT_SECONDS_MAX: f64 = 86_400.0;
