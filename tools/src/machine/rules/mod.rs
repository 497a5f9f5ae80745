//! The rules that send packets to queues, whoever made them: of nft, and of iptables for IPv4 and IPv6.
//!
//! Invariant: each rule is there once, also where two programs show it. A program that gave no answer is named, and
//! what it would have shown is never taken for nothing. What a rule matches is not looked at.

mod iptables;
mod nft;

use std::collections::{HashMap, HashSet};

use super::fact::Fact;
use super::root::Root;

/// The queue rules that were found.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) found: Vec<QueueRule>,
    /// Why some may be missing, a line for each program that gave no answer.
    pub(crate) unseen: Vec<String>,
}

/// A rule that sends packets to queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueRule {
    /// Which program shows it.
    pub(crate) by: Backend,
    /// `ip`, `ip6`, `inet`, `bridge`.
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) chain: String,
    /// The hooks from which packets come to its chain (`forward`); none if no chain leads there.
    pub(crate) hooks: Vec<String>,
    /// First and last queue; none where an expression or a program that was not seen decides.
    pub(crate) queues: Option<(u16, u16)>,
    pub(crate) fanout: bool,
    pub(crate) bypass: bool,
    /// Packets that it has counted, if it counts.
    pub(crate) packets: Option<u64>,
    /// The statement: `queue flags fanout to 0-3`, `-j NFQUEUE --queue-num 0`.
    pub(crate) statement: String,
    /// Whether `fanq rules install` made it.
    pub(crate) of_fanq: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Nft,
    Iptables,
}

impl Rules {
    /// The command lines whose answers [`Rules::of`] needs.
    pub(super) fn questions(root: &Root) -> Vec<Question> {
        let mut questions = vec![Question::NFT, Question::IPV4, Question::IPV6];
        let legacy = [
            ("proc/net/ip_tables_names", Question::LEGACY_IPV4),
            ("proc/net/ip6_tables_names", Question::LEGACY_IPV6),
        ];
        for (tables, question) in legacy {
            // Asking without need would have the kernel load modules.
            if root.text(tables).known().is_some_and(|names| !names.is_empty()) {
                questions.push(question);
            }
        }
        questions
    }

    /// Puts the answers together.
    pub(super) fn of(answers: &[(Question, Fact<String>)]) -> Self {
        let mut rules = Self::default();
        for (question, answer) in answers {
            let (Question { family, .. }, text) = match answer {
                Fact::Known(text) => (question, text),
                Fact::Unseen(why) => {
                    rules.unseen.push(why.clone());
                    continue;
                }
            };
            let found = match family {
                None => nft::queue_rules(text),
                Some(family) => Ok(iptables::queue_rules(text, family)),
            };
            match found {
                Ok(found) => rules.add(found),
                Err(why) => rules.unseen.push(format!("`{}`: {why}", question.words.join(" "))),
            }
        }
        rules.drop_doubles();
        rules
    }

    fn add(&mut self, found: Vec<QueueRule>) {
        for rule in found {
            // The two kinds of iptables programs show the same rules where both names stand for one kind.
            if rule.by == Backend::Nft || !self.found.contains(&rule) {
                self.found.push(rule);
            }
        }
    }

    /// nft shows the rules of iptables, too, but not their queues.
    fn drop_doubles(&mut self) {
        let of_iptables: HashSet<_> = (self.found.iter())
            .filter(|rule| rule.by == Backend::Iptables)
            .map(|rule| (rule.family.clone(), rule.table.clone()))
            .collect();
        self.found.retain(|rule| {
            let place = (rule.family.clone(), rule.table.clone());
            rule.by == Backend::Iptables || rule.queues.is_some() || !of_iptables.contains(&place)
        });
    }
}

/// A program to ask, and the version of IP that it is about (none is nft, for all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) words: &'static [&'static str],
    family: Option<&'static str>,
}

impl Question {
    const NFT: Self = Self { words: &["nft", "-j", "list", "ruleset"], family: None };
    const IPV4: Self = Self { words: &["iptables-save", "-c"], family: Some("ip") };
    const IPV6: Self = Self { words: &["ip6tables-save", "-c"], family: Some("ip6") };
    const LEGACY_IPV4: Self = Self { words: &["iptables-legacy-save", "-c"], family: Some("ip") };
    const LEGACY_IPV6: Self = Self { words: &["ip6tables-legacy-save", "-c"], family: Some("ip6") };
}

/// Chains, and which lead to which: of one table.
#[derive(Debug, Default)]
struct Chains {
    hooks: HashMap<String, String>,
    /// From, to.
    jumps: Vec<(String, String)>,
}

impl Chains {
    /// The hooks from which packets come to a chain, sorted.
    fn hooks_of(&self, chain: &str) -> Vec<String> {
        let (mut seen, mut next) = (HashSet::new(), vec![chain]);
        let mut hooks = Vec::new();
        while let Some(chain) = next.pop() {
            if !seen.insert(chain) {
                continue;
            }
            hooks.extend(self.hooks.get(chain).cloned());
            let from = self.jumps.iter().filter(|(_, to)| to == chain);
            next.extend(from.map(|(from, _)| from.as_str()));
        }
        hooks.sort();
        hooks.dedup();
        hooks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT_OF_IPTABLES: &str = r#"{"nftables": [
        {"table": {"family": "ip", "name": "filter"}},
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT",
                  "expr": [{"counter": {"packets": 3, "bytes": 9}}, {"xt": {"type": "target", "name": "NFQUEUE"}}]}}
    ]}"#;
    const SAVED: &str =
        "*filter\n:INPUT ACCEPT [0:0]\n[3:9] -A INPUT -j NFQUEUE --queue-num 7\nCOMMIT\n";

    fn rules(answers: &[(Question, Result<&str, &str>)]) -> Rules {
        let fact = |answer: &Result<&str, &str>| match *answer {
            Ok(text) => Fact::Known(text.to_owned()),
            Err(why) => Fact::Unseen(why.to_owned()),
        };
        let answers: Vec<_> =
            answers.iter().map(|(question, answer)| (*question, fact(answer))).collect();
        Rules::of(&answers)
    }

    #[test]
    fn a_rule_that_several_programs_show_is_there_once() {
        let nft = (Question::NFT, Ok(NFT_OF_IPTABLES));
        let rules = rules(&[nft, (Question::IPV4, Ok(SAVED)), (Question::LEGACY_IPV4, Ok(SAVED))]);
        let found: Vec<_> = rules.found.iter().map(|rule| (rule.by, rule.queues)).collect();
        assert_eq!(found, [(Backend::Iptables, Some((7, 7)))]);
        assert_eq!(rules.unseen, [""; 0]);
    }

    #[test]
    fn without_iptables_its_rules_are_there_with_unknown_queues() {
        let rules =
            rules(&[(Question::NFT, Ok(NFT_OF_IPTABLES)), (Question::IPV4, Err("not installed"))]);
        assert_eq!(rules.found.len(), 1);
        assert_eq!((rules.found[0].queues, rules.found[0].packets), (None, Some(3)));
        assert_eq!(rules.unseen, ["not installed"]);
    }
}
