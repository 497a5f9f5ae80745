//! The iptables backend: the same queue as nft's, for kernels without `nft_queue`.
//!
//! A chain of our own holds the rule, behind those for packets that come back with a mark, and a
//! jump to it stands first in the hook's chain:
//!
//! ```text
//! iptables-restore --noflush   *filter
//!                              :fanq - [0:0]
//!                              -A fanq -p udp --dport 9000 -j NFQUEUE --queue-balance 0:3
//!                              COMMIT
//! iptables -I FORWARD 1 -j fanq
//! ```
//!
//! Invariant: no chain but our own is flushed or deleted, and iptables makes no base chain before
//! the kernel has taken the rule. A refused load that makes one would empty every queue of the
//! network namespace (docs/NFQUEUE.md, section 4); the first step above makes none, and the second
//! has nothing to be refused.

mod chain;

use std::fmt;

use super::command::{Printed, Refusal, first_words, run};
use super::spec::{Family, Hook, PortSet, RuleSpec};
use crate::mark::MarkBits;

pub(super) use chain::{Chain, find, install};

/// One of the two kinds of iptables program: `iptables-nft` and its sisters, or whatever `iptables`
/// is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour(&'static str);

impl Flavour {
    const USUAL: Self = Self("iptables");

    /// The kind that `print` writes down without asking it: the better one of those there are.
    pub(super) fn usual() -> Self {
        Self::present().ok().and_then(|present| present.first().copied()).unwrap_or(Self::USUAL)
    }

    /// The kinds there are, the better one first. Two names for the same kind count once.
    ///
    /// `iptables-nft` is better: it also works in a user namespace, where the other's lock file
    /// /run/xtables.lock cannot be written.
    pub(super) fn present() -> Result<Vec<Self>, Refusal> {
        let nft = Self("iptables-nft");
        let has_nft = run(nft.0, &["--version"], "").is_ok();
        let plain = run(Self::USUAL.0, &["--version"], "");
        let mut present = Vec::new();
        if has_nft {
            present.push(nft);
        }
        match plain {
            Ok(version) if has_nft && version.stdout.contains("nf_tables") => {}
            Ok(_) => present.push(Self::USUAL),
            Err(_) if has_nft => {}
            Err(refusal) => return Err(refusal),
        }
        Ok(present)
    }

    /// The first kind that takes the rule, or what the first said against it.
    pub(super) fn choose(spec: &RuleSpec) -> Result<Self, Refused> {
        let present = Self::present().map_err(|refusal| Refused { version: None, refusal })?;
        let mut first_refused = None;
        for flavour in present {
            match flavour.probe(spec) {
                Ok(()) => return Ok(flavour),
                Err(refused) => first_refused = first_refused.or(Some(refused)),
            }
        }
        let none = || Refused {
            version: None,
            refusal: Refusal::Missing { program: Self::USUAL.0.to_owned() },
        };
        Err(first_refused.unwrap_or_else(none))
    }

    /// Asks for each version of IP whether the rule would be taken, and changes nothing: `--test`
    /// stops before the load, but not before the kernel was asked for the target.
    fn probe(self, spec: &RuleSpec) -> Result<(), Refused> {
        for &version in versions(spec.family) {
            let refused = |refusal| Refused { version: Some(version), refusal };
            let program = self.program(version, "-restore");
            let arguments = ["--noflush", "--test", "-w", LOCK_WAIT_S];
            let printed = run(&program, &arguments, &chain_file(spec)).map_err(refused)?;
            if printed.stderr.contains("missing kernel module") {
                return Err(refused(Refusal::Refused {
                    command: format!("{program} {}", arguments.join(" ")),
                    words: first_words(&printed.stderr),
                }));
            }
        }
        Ok(())
    }

    /// The program for a version of IP: `ip6tables-nft-restore`.
    fn program(self, version: IpVersion, suffix: &str) -> String {
        match version {
            IpVersion::V4 => format!("{}{suffix}", self.0),
            IpVersion::V6 => format!("{}{suffix}", self.0.replacen("ip", "ip6", 1)),
        }
    }

    /// Loads `lines` into a table, all or nothing, and leaves all other chains alone.
    fn restore(self, version: IpVersion, table: &str, lines: &str) -> Result<(), Refusal> {
        let text = format!("*{table}\n{lines}COMMIT\n");
        run(&self.program(version, "-restore"), &["--noflush", "-w", LOCK_WAIT_S], &text).map(drop)
    }

    /// `-C` or `-I` of the jump.
    fn jump(self, version: IpVersion, spec: &RuleSpec, words: &[&str]) -> Result<Printed, Refusal> {
        let table = table_of(spec.hook);
        let mut arguments = vec!["-w", LOCK_WAIT_S, "-t", table];
        arguments.extend_from_slice(words);
        arguments.extend_from_slice(&["-j", spec.table.as_str()]);
        run(&self.program(version, ""), &arguments, "")
    }
}

/// A version of IP: each has programs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why no iptables program takes the rule.
#[derive(Debug)]
pub(super) struct Refused {
    /// The version of IP for which it was refused; none, if there is no program at all.
    version: Option<IpVersion>,
    pub(super) refusal: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => self.refusal.fmt(f),
            Some(IpVersion::V4) => write!(f, "for IPv4, {}", self.refusal),
            Some(IpVersion::V6) => {
                write!(f, "for IPv6, {}; to queue IPv4 only, add --family ipv4", self.refusal)
            }
        }
    }
}

/// What `print` shows: a shell script that does what `install` does.
pub(super) fn script(spec: &RuleSpec, flavour: Flavour) -> String {
    let (table, hook) = (table_of(spec.hook), chain_of(spec.hook));
    let part = |&version: &IpVersion| {
        let program = flavour.program(version, "");
        let call = format!("{program} -w {LOCK_WAIT_S} -t {table}");
        let (name, file) = (&spec.table, chain_file(spec));
        format!(
            "# {version}\n\
             {program}-restore --noflush -w {LOCK_WAIT_S} <<'END'\n\
             {file}END\n\
             {call} -C {hook} -j {name} 2>/dev/null ||\n    \
             {call} -I {hook} 1 -j {name}\n"
        )
    };
    versions(spec.family).iter().map(part).collect()
}

/// What `iptables-restore --noflush` loads: our chain, emptied if it is there, and its rules.
fn chain_file(spec: &RuleSpec) -> String {
    format!("*{}\n{}COMMIT\n", table_of(spec.hook), chain_lines(spec))
}

fn chain_lines(spec: &RuleSpec) -> String {
    let lines = front_rules(spec).into_iter().chain([rule(spec)]).map(|line| line + "\n");
    format!(":{} - [0:0]\n{}", spec.table, lines.collect::<String>())
}

/// The queue rule, as it stands in the chain. Every rule counts without being told to.
fn rule(spec: &RuleSpec) -> String {
    let mut words = vec![format!("-A {}", spec.table)];
    words.extend(conditions(spec));
    let (first, last) = (spec.queues.first(), spec.queues.last());
    words.push(if first == last {
        format!("-j NFQUEUE --queue-num {first}")
    } else {
        format!("-j NFQUEUE --queue-balance {first}:{last}")
    });
    if spec.fans_out() {
        words.push("--queue-cpu-fanout".to_owned());
    }
    if spec.bypass {
        words.push("--queue-bypass".to_owned());
    }
    words.join(" ")
}

/// What the queue rule matches.
fn conditions(spec: &RuleSpec) -> Vec<String> {
    let mut words = Vec::new();
    let matches = &spec.matches;
    words.extend(matches.in_iface.as_ref().map(|name| format!("-i {name}")));
    words.extend(matches.out_iface.as_ref().map(|name| format!("-o {name}")));
    words.extend(matches.proto.map(|proto| format!("-p {proto}")));
    let port_match = |side: &str, ports: &PortSet| match ports.ranges() {
        [_one] => format!("--{side} {}", ports.text(":", ",")),
        _ => format!("-m multiport --{side}s {}", ports.text(":", ",")),
    };
    // Plain ports first: they belong to the protocol's own match, not to multiport.
    let sides = [("sport", &matches.sport), ("dport", &matches.dport)];
    let mut ports: Vec<_> = sides
        .into_iter()
        .filter_map(|(side, ports)| Some(port_match(side, ports.as_ref()?)))
        .collect();
    ports.sort_by_key(|words| words.starts_with("-m"));
    words.extend(ports);
    words.extend(matches.raw.as_ref().map(|raw| {
        // One space between words, as a shell would hand them on.
        raw.as_str().split_whitespace().collect::<Vec<_>>().join(" ")
    }));
    words
}

/// The rules in front of the queue rule, for packets that an inspector has sent back with a mark.
///
/// A packet without conntrack is let through by a rule of its own, its mark left on: it can be told by no connection
/// mark, and would be queued for ever. The last rule has the queue rule's conditions, since ACCEPT leaves the hook's
/// whole chain, and so must not take what would have gone on to the rules below.
fn front_rules(spec: &RuleSpec) -> Vec<String> {
    let rule = |words: &str, target: &str| {
        let blank = if words.is_empty() { "" } else { " " };
        format!("-A {}{blank}{words} {COMMENT_OF_OURS} -j {target}", spec.table)
    };
    let marked = |bits: MarkBits| format!("-m mark --mark {bits}");
    let mut rules = Vec::new();
    if let Some(bits) = spec.marks.reject {
        let tcp = format!("-p tcp {}", marked(bits));
        rules.push(rule(&tcp, "REJECT --reject-with tcp-reset"));
        rules.push(rule(&marked(bits), "REJECT"));
    }
    if let Some(bits) = spec.marks.repeat {
        rules.push(rule(&marked(bits), "RETURN"));
    }
    if let Some(bits) = spec.marks.bypass {
        let marked = marked(bits);
        let untracked = format!("{marked} -m conntrack --ctstate INVALID,UNTRACKED");
        let mut bypassed = conditions(spec);
        bypassed.push(format!("-m connmark --mark {bits}"));
        rules.push(rule(&marked, &format!("CONNMARK --set-xmark {bits}")));
        rules.push(rule(&untracked, "ACCEPT"));
        rules.push(rule(&marked, &format!("MARK --set-xmark 0x0/{:#x}", bits.mask())));
        rules.push(rule(&bypassed.join(" "), "ACCEPT"));
    }
    rules
}

/// What `fanq rules` calls the thing that `spec` makes.
pub(super) fn title(spec: &RuleSpec) -> String {
    let versions = versions(spec.family).iter().map(ToString::to_string).collect::<Vec<_>>();
    format!("iptables chain {} ({})", spec.table, versions.join(", "))
}

const fn versions(family: Family) -> &'static [IpVersion] {
    match family {
        Family::Both => &[IpVersion::V4, IpVersion::V6],
        Family::Ipv4 => &[IpVersion::V4],
        Family::Ipv6 => &[IpVersion::V6],
    }
}

/// The table whose chains stand at the hook: `filter` has no prerouting and no postrouting.
const fn table_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Input | Hook::Forward | Hook::Output => "filter",
        Hook::Prerouting | Hook::Postrouting => "mangle",
    }
}

const fn chain_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Prerouting => "PREROUTING",
        Hook::Postrouting => "POSTROUTING",
    }
}

/// Stands in each rule of ours but the queue rule, which tells itself.
const COMMENT_OF_OURS: &str = "-m comment --comment fanq";

/// How long the programs wait for each other, in seconds.
const LOCK_WAIT_S: &str = "5";

#[cfg(test)]
mod tests;
