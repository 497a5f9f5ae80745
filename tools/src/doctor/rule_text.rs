//! How a rule is named in evidence, and the command that would make it as it should be.
//!
//! Invariant: a command is offered as it can be typed only for rules of fanq's; of others' rules the statement is
//! given, and where it stands.

use crate::machine::{Backend, QueueRule};

/// `inet ips/way (forward): queue flags fanout to 0-3, 12 packets`.
pub(super) fn described(rule: &QueueRule) -> String {
    let counted =
        rule.packets.map_or_else(String::new, |packets| format!(", {packets} packets so far"));
    let hooks = if rule.hooks.is_empty() { "no hook".to_owned() } else { rule.hooks.join(", ") };
    format!("{} {}/{} ({hooks}): {}{counted}", rule.family, rule.table, rule.chain, rule.statement)
}

/// What makes `rule` a rule with these queues and flags.
pub(super) fn remade(rule: &QueueRule, queues: (u16, u16), fanout: bool, bypass: bool) -> String {
    if rule.of_fanq {
        let mut words = install(rule.hooks.first().map(String::as_str), queues, fanout, bypass);
        let name = if rule.by == Backend::Nft { &rule.table } else { &rule.chain };
        if name != "fanq" {
            words.push_str(&format_args!(" --table {name}").to_string());
        }
        return words;
    }
    let QueueRule { family, table, chain, .. } = rule;
    let (first, last) = queues;
    match rule.by {
        Backend::Nft => {
            let flags = match (fanout && first != last, bypass) {
                (false, false) => "",
                (true, false) => "flags fanout ",
                (false, true) => "flags bypass ",
                (true, true) => "flags fanout,bypass ",
            };
            let range = super::view::range(queues);
            format!("# nft, table {family} {table}, chain {chain}: queue {flags}to {range}")
        }
        Backend::Iptables => {
            let program = if family == "ip6" { "ip6tables" } else { "iptables" };
            let numbers = if first == last {
                format!("--queue-num {first}")
            } else {
                format!("--queue-balance {first}:{last}")
            };
            let bypass = if bypass { " --queue-bypass" } else { "" };
            let fanout = if fanout && first != last { " --queue-cpu-fanout" } else { "" };
            format!("# {program} -t {table}, chain {chain}: -j NFQUEUE {numbers}{bypass}{fanout}")
        }
    }
}

/// A new rule of fanq's.
pub(super) fn install(
    hook: Option<&str>,
    queues: (u16, u16),
    fanout: bool,
    bypass: bool,
) -> String {
    let hook = hook.unwrap_or("forward");
    let mut words =
        format!("fanq rules install --hook {hook} --queues {}", super::view::range(queues));
    if fanout && queues.0 != queues.1 {
        words.push_str(" --fanout");
    }
    if bypass {
        words.push_str(" --bypass");
    }
    words
}
