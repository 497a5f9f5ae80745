//! The rules that lead packets to a target, in the engine's namespace.
//!
//! Invariant: no rule lets packets pass because nobody serves their queue. When a target ends, its packets are lost and
//! counted, never let through as if it had answered them. A target that bypasses flows gets the rules for that, as
//! docs/FLOW_BYPASS.md has them, in front of its queue rule. The rules go with the namespace; between targets they
//! are replaced.

use std::str::FromStr;

use anyhow::{Context, bail};
use fanq::QueueRange;

use crate::lab::run_line;
use crate::result::{Family, Hook};
use crate::target::Target;

/// What is done with the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// No rule at all.
    Nothing,
    /// Counted and accepted in the kernel.
    Accept,
    /// Handed to queues, by the CPU that it is on; what belongs to a bypassed connection is accepted before.
    Queue { queues: QueueRange, bypass: Option<Mark> },
}

impl Action {
    /// What leads to a target that is a program: its queues, and the rules for its bypass if it has one.
    pub(super) fn to_program(target: &Target, queues: QueueRange) -> anyhow::Result<Self> {
        let bypass = target.bypass_mark().map(str::parse).transpose();
        Ok(Self::Queue { queues, bypass: bypass.map_err(anyhow::Error::msg)? })
    }
}

/// The mark of bypassed packets and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    value: u32,
    mask: u32,
}

impl FromStr for Mark {
    type Err = String;

    /// `MARK[/MASK]`, as `fanq run` takes it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        match (number(value), number(mask)) {
            (Some(value), Some(mask)) if value != 0 && value & !mask == 0 => {
                Ok(Self { value, mask })
            }
            _ => Err(format!("`{text}` is no mark for a bypass: write --bypass-mark 0x1")),
        }
    }
}

/// What is taken, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) hook: Hook,
    pub(crate) family: Family,
    /// `udp`, `tcp`, or all.
    pub(crate) protocol: Option<&'static str>,
}

/// Rules in place, as the commands that made them.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) commands: Vec<String>,
}

impl Rules {
    /// Replaces what is there by a rule for each of these actions, of packets to that port or of all. iptables if the
    /// kernel takes it, else nft.
    pub(crate) fn install(
        selection: Selection,
        actions: &[(Option<u16>, Action)],
    ) -> anyhow::Result<Self> {
        let by_iptables =
            actions.iter().flat_map(|(port, action)| iptables(selection, *port, *action));
        let by_iptables: Vec<_> = by_iptables.collect();
        match install_iptables(selection, &by_iptables) {
            Ok(()) => Ok(Self { commands: by_iptables }),
            Err(iptables_said) => {
                let by_nft = nft(selection, actions);
                for command in &by_nft {
                    run_line(command).with_context(|| {
                        format!("neither iptables nor nft takes the rules: {iptables_said:#}")
                    })?;
                }
                Ok(Self { commands: by_nft })
            }
        }
    }
}

fn install_iptables(selection: Selection, commands: &[String]) -> anyhow::Result<()> {
    let (program, chain) = (program(selection), chain(selection));
    run_line(&format!("{program} -w -t mangle -F {chain}"))?;
    for command in commands {
        run_line(command)?;
    }
    Ok(())
}

fn program(selection: Selection) -> &'static str {
    if selection.family == Family::Ipv4 { "iptables" } else { "ip6tables" }
}

fn chain(selection: Selection) -> &'static str {
    if selection.hook == Hook::Forward { "FORWARD" } else { "INPUT" }
}

fn iptables(selection: Selection, port: Option<u16>, action: Action) -> Vec<String> {
    let target = match action {
        Action::Nothing => return Vec::new(),
        Action::Accept => "ACCEPT".to_owned(),
        Action::Queue { queues, .. } if queues.first() == queues.last() => {
            format!("NFQUEUE --queue-num {}", queues.first())
        }
        Action::Queue { queues, .. } => {
            let (first, last) = (queues.first(), queues.last());
            format!("NFQUEUE --queue-balance {first}:{last} --queue-cpu-fanout")
        }
    };
    let bypass = match action {
        Action::Queue { bypass: Some(Mark { value, mask }), .. } => {
            let marked = format!("-m mark --mark {value:#x}/{mask:#x}");
            vec![
                format!("{marked} -j CONNMARK --set-xmark {value:#x}/{mask:#x}"),
                // No connection to mark: else it would be queued for ever.
                format!("{marked} -m conntrack --ctstate INVALID,UNTRACKED -j ACCEPT"),
                format!("{marked} -j MARK --set-xmark 0x0/{mask:#x}"),
                format!("-m connmark --mark {value:#x}/{mask:#x} -j ACCEPT"),
            ]
        }
        _ => Vec::new(),
    };
    let (program, chain) = (program(selection), chain(selection));
    let protocol = selection.protocol.map_or_else(String::new, |name| format!(" -p {name}"));
    let port = port.map_or_else(String::new, |port| format!(" --dport {port}"));
    let matched = format!("-i engine+{protocol}{port}");
    let rules = bypass.into_iter().chain([format!("-j {target}")]);
    rules.map(|rule| format!("{program} -w -t mangle -A {chain} {matched} {rule}")).collect()
}

/// What an action is in nft's words.
fn statements(action: Action) -> Vec<String> {
    let mut statements = Vec::new();
    match action {
        Action::Nothing => {}
        Action::Accept => statements.push("counter accept".to_owned()),
        Action::Queue { queues, bypass } => {
            if let Some(Mark { value, mask }) = bypass {
                let (marked, others) = (format!("meta mark & {mask} == {value}"), !mask);
                statements.extend([
                    format!("{marked} ct mark set ct mark & {others} | {value}"),
                    format!("{marked} meta mark set meta mark & {others} accept"),
                    format!("ct mark & {mask} == {value} accept"),
                ]);
            }
            statements.push(if queues.first() == queues.last() {
                format!("queue to {}", queues.first())
            } else {
                format!("queue flags fanout to {queues}")
            });
        }
    }
    statements
}

fn nft(selection: Selection, actions: &[(Option<u16>, Action)]) -> Vec<String> {
    let hook = if selection.hook == Hook::Forward { "forward" } else { "input" };
    let family = if selection.family == Family::Ipv4 { "ip" } else { "ip6" };
    let mut commands = vec![
        format!("nft add table {family} bench"),
        format!(
            "nft add chain {family} bench load {{ type filter hook {hook} priority mangle ; }}"
        ),
        format!("nft flush chain {family} bench load"),
    ];
    let name = selection.protocol.unwrap_or_default();
    let protocol =
        selection.protocol.map_or_else(String::new, |name| format!(" meta l4proto {name}"));
    for (port, action) in actions {
        let port = port.map_or_else(String::new, |port| format!(" {name} dport {port}"));
        commands.extend(statements(*action).into_iter().map(|statement| {
            format!("nft add rule {family} bench load iifname engine*{protocol}{port} {statement}")
        }));
    }
    commands
}

/// Fails where a target would get no packets, before any are sent.
pub(crate) fn check(range: QueueRange, queue_cpus: &[u16]) -> anyhow::Result<()> {
    let count = u32::from(range.last() - range.first()) + 1;
    let last = queue_cpus.iter().max().copied().unwrap_or(0);
    if count <= u32::from(last) {
        bail!(
            "queues {range} are fewer than the CPUs that fill them (CPU {last} is used); \
             several CPUs would share a queue"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(hook: Hook, family: Family) -> Selection {
        Selection { hook, family, protocol: Some("udp") }
    }

    #[test]
    fn rules_spread_over_the_queues_and_have_no_bypass() {
        let range: QueueRange = "0-3".parse().unwrap();
        let queue = Action::Queue { queues: range, bypass: None };
        let lines = iptables(selection(Hook::Forward, Family::Ipv4), None, queue);
        assert_eq!(
            lines[0],
            "iptables -w -t mangle -A FORWARD -i engine+ -p udp -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout"
        );
        let lines = nft(selection(Hook::Input, Family::Ipv6), &[(None, queue)]);
        assert!(lines[1].contains("hook input"));
        assert!(lines[3].ends_with("queue flags fanout to 0-3"));
        assert!(lines.iter().all(|line| !line.contains("bypass")));
    }

    #[test]
    fn a_bypass_stands_before_the_queue_rule() {
        let bypass = Some("0x10/0x30".parse().unwrap());
        let action = Action::Queue { queues: "0".parse().unwrap(), bypass };
        let selection = selection(Hook::Forward, Family::Ipv4);
        let lines = iptables(selection, None, action);
        assert!(lines[0].ends_with("-m mark --mark 0x10/0x30 -j CONNMARK --set-xmark 0x10/0x30"));
        assert!(lines[1].ends_with("--ctstate INVALID,UNTRACKED -j ACCEPT"));
        assert!(lines[2].ends_with("-m mark --mark 0x10/0x30 -j MARK --set-xmark 0x0/0x30"));
        assert!(lines[3].ends_with("-i engine+ -p udp -m connmark --mark 0x10/0x30 -j ACCEPT"));
        assert!(lines[4].ends_with("NFQUEUE --queue-num 0") && lines.len() == 5);
        let lines = nft(selection, &[(None, action)]);
        assert!(lines[3].ends_with("meta mark & 48 == 16 ct mark set ct mark & 4294967247 | 16"));
        assert!(lines[6].ends_with("queue to 0") && lines.len() == 7);
        for bad in ["", "0", "2/1", "x", "0x"] {
            assert!(bad.parse::<Mark>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_targets_own_mark_is_in_its_rules() {
        let queues: QueueRange = "2-3".parse().unwrap();
        let action = |target: &str| Action::to_program(&target.parse().unwrap(), queues);
        let lines = |target: &str| {
            let selection = selection(Hook::Forward, Family::Ipv4);
            iptables(selection, Some(9001), action(target).unwrap())
        };
        let marked = lines("fanq:--bypass-after 10 --bypass-mark 0x1");
        assert!(marked.iter().any(|line| line.contains("--dport 9001 -m connmark --mark 0x1/0x1")));
        assert_eq!(lines("fanq").len(), 1);
        assert!(action("fanq:--bypass-mark x").is_err());
    }

    #[test]
    fn one_queue_is_no_range() {
        let one: QueueRange = "5".parse().unwrap();
        let queue = Action::Queue { queues: one, bypass: None };
        let lines = iptables(selection(Hook::Input, Family::Ipv6), None, queue);
        assert!(lines[0].starts_with("ip6tables") && lines[0].ends_with("NFQUEUE --queue-num 5"));
    }

    #[test]
    fn a_capture_is_taken_whatever_it_holds() {
        let all = Selection { protocol: None, ..selection(Hook::Forward, Family::Ipv6) };
        let lines = iptables(all, None, Action::Accept);
        assert_eq!(lines[0], "ip6tables -w -t mangle -A FORWARD -i engine+ -j ACCEPT");
        assert!(nft(all, &[(None, Action::Accept)])[3].ends_with("engine* counter accept"));
    }

    #[test]
    fn several_targets_are_told_apart_by_port() {
        let actions = [(9000, "0-1"), (9001, "2-3")].map(|(port, range)| {
            (Some(port), Action::Queue { queues: range.parse().unwrap(), bypass: None })
        });
        let selection = selection(Hook::Forward, Family::Ipv4);
        let lines = iptables(selection, actions[1].0, actions[1].1);
        let part = "-p udp --dport 9001 -j NFQUEUE --queue-balance 2:3";
        assert!(lines[0].contains(part), "{lines:?}");
        let lines = nft(selection, &actions);
        assert!(lines[3].ends_with("udp dport 9000 queue flags fanout to 0-1"), "{}", lines[3]);
        assert!(lines[4].ends_with("udp dport 9001 queue flags fanout to 2-3"), "{}", lines[4]);
    }

    #[test]
    fn every_cpu_that_fills_has_a_queue() {
        assert!(check("0-1".parse().unwrap(), &[0, 1]).is_ok());
        assert!(check("0-1".parse().unwrap(), &[2, 3]).is_err());
    }
}
