//! The rules that lead packets to a target, in the engine's namespace.
//!
//! Invariant: there is no bypass. When a target ends, its packets are lost and counted, never let through as if it
//! had answered them. The rules go with the namespace; between targets they are replaced.

use anyhow::{Context, bail};
use fanq::QueueRange;

use crate::lab::run_line;
use crate::result::{Family, Hook};

/// What is done with the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// No rule at all.
    Nothing,
    /// Counted and accepted in the kernel.
    Accept,
    /// Handed to queues, by the CPU that it is on.
    Queue(QueueRange),
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
            actions.iter().filter_map(|(port, action)| iptables(selection, *port, *action));
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

fn iptables(selection: Selection, port: Option<u16>, action: Action) -> Option<String> {
    let target = match action {
        Action::Nothing => return None,
        Action::Accept => "ACCEPT".to_owned(),
        Action::Queue(range) if range.first() == range.last() => {
            format!("NFQUEUE --queue-num {}", range.first())
        }
        Action::Queue(range) => {
            format!("NFQUEUE --queue-balance {}:{} --queue-cpu-fanout", range.first(), range.last())
        }
    };
    let (program, chain) = (program(selection), chain(selection));
    let protocol = selection.protocol.map_or_else(String::new, |name| format!(" -p {name}"));
    let port = port.map_or_else(String::new, |port| format!(" --dport {port}"));
    Some(format!("{program} -w -t mangle -A {chain} -i engine+{protocol}{port} -j {target}"))
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
        let statement = match action {
            Action::Nothing => continue,
            Action::Accept => "counter accept".to_owned(),
            Action::Queue(range) if range.first() == range.last() => {
                format!("queue to {}", range.first())
            }
            Action::Queue(range) => format!("queue flags fanout to {range}"),
        };
        let port = port.map_or_else(String::new, |port| format!(" {name} dport {port}"));
        commands.push(format!(
            "nft add rule {family} bench load iifname engine*{protocol}{port} {statement}"
        ));
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
        let line = iptables(selection(Hook::Forward, Family::Ipv4), None, Action::Queue(range));
        assert_eq!(
            line.unwrap(),
            "iptables -w -t mangle -A FORWARD -i engine+ -p udp -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout"
        );
        let lines = nft(selection(Hook::Input, Family::Ipv6), &[(None, Action::Queue(range))]);
        assert!(lines[1].contains("hook input"));
        assert!(lines[3].ends_with("queue flags fanout to 0-3"));
        assert!(lines.iter().all(|line| !line.contains("bypass")));
    }

    #[test]
    fn one_queue_is_no_range() {
        let one: QueueRange = "5".parse().unwrap();
        let line = iptables(selection(Hook::Input, Family::Ipv6), None, Action::Queue(one));
        let line = line.unwrap();
        assert!(line.starts_with("ip6tables") && line.ends_with("NFQUEUE --queue-num 5"));
    }

    #[test]
    fn a_capture_is_taken_whatever_it_holds() {
        let all = Selection { protocol: None, ..selection(Hook::Forward, Family::Ipv6) };
        let line = iptables(all, None, Action::Accept).unwrap();
        assert_eq!(line, "ip6tables -w -t mangle -A FORWARD -i engine+ -j ACCEPT");
        assert!(nft(all, &[(None, Action::Accept)])[3].ends_with("engine* counter accept"));
    }

    #[test]
    fn several_targets_are_told_apart_by_port() {
        let actions = [(9000, "0-1"), (9001, "2-3")]
            .map(|(port, range)| (Some(port), Action::Queue(range.parse().unwrap())));
        let selection = selection(Hook::Forward, Family::Ipv4);
        let line = iptables(selection, actions[1].0, actions[1].1).unwrap();
        assert!(line.contains("-p udp --dport 9001 -j NFQUEUE --queue-balance 2:3"), "{line}");
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
