//! What a queue rule is to be, checked, in the terms of no backend.
//!
//! Invariant: a [`RuleSpec`] that exists can be written down for either backend, and its names hold
//! no character that either would read as syntax. The raw text of `--match` is the one exception.

mod marks;
mod matches;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use fanq::QueueRange;

use crate::usage;

pub(super) use marks::Marks;
pub(super) use matches::{IfaceName, PortSet, Proto, RawMatch};

/// One queue rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleSpec {
    pub(super) table: TableName,
    pub(super) family: Family,
    pub(super) hook: Hook,
    pub(super) queues: QueueRange,
    pub(super) fanout: bool,
    pub(super) bypass: bool,
    pub(super) matches: Matches,
    pub(super) marks: Marks,
}

/// Which packets the rule takes: all that meet every condition given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Matches {
    pub(super) in_iface: Option<IfaceName>,
    pub(super) out_iface: Option<IfaceName>,
    pub(super) proto: Option<Proto>,
    pub(super) sport: Option<PortSet>,
    pub(super) dport: Option<PortSet>,
    /// In the syntax of the backend.
    pub(super) raw: Option<RawMatch>,
}

impl RuleSpec {
    /// Refuses what could never match a packet, whatever the machine.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Matches { in_iface, out_iface, proto, sport, dport, raw: _ } = &self.matches;
        let hook = self.hook;
        if out_iface.is_some() && matches!(hook, Hook::Input | Hook::Prerouting) {
            return Err(usage(format!(
                "--out-iface matches nothing in the hook {hook}: there the packet has no outgoing \
                 interface yet. Write --in-iface, or --hook forward"
            )));
        }
        if in_iface.is_some() && matches!(hook, Hook::Output | Hook::Postrouting) {
            return Err(usage(format!(
                "--in-iface cannot be used in the hook {hook}. Write --out-iface, or --hook forward"
            )));
        }
        if (sport.is_some() || dport.is_some()) && !proto.is_some_and(Proto::has_ports) {
            return Err(usage("--sport and --dport need --proto tcp, udp or sctp"));
        }
        self.marks.check(hook)
    }

    /// Whether the kernel is to choose the queue by CPU. With one queue there is nothing to choose.
    pub(super) fn fans_out(&self) -> bool {
        self.fanout && self.queues.count() > 1
    }

    /// The same rule without the raw text.
    pub(super) fn without_raw(&self) -> Self {
        let mut plain = self.clone();
        plain.matches.raw = None;
        plain
    }
}

/// Hook, queues and flags, as the success messages name them.
impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.queues.count() == 1 { "" } else { "s" };
        write!(f, "hook {}, queue{plural} {}", self.hook, self.queues)?;
        if self.fans_out() {
            f.write_str(", fanout")?;
        }
        if self.bypass {
            f.write_str(", bypass")?;
        }
        self.marks.fmt(f)
    }
}

/// Where in the packet's way the rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Hook {
    Input,
    Forward,
    Output,
    Prerouting,
    Postrouting,
}

impl Hook {
    /// nftables' name, which is also what the chain is called there.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Prerouting => "prerouting",
            Self::Postrouting => "postrouting",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which versions of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    Both,
    Ipv4,
    Ipv6,
}

/// The name of what fanq installs: the nft table, or the iptables chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName(String);

impl TableName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// ` --table NAME`, to be put into a command that is suggested; nothing for the usual name.
    pub(super) fn as_option(&self) -> String {
        if self.0 == Self::DEFAULT { String::new() } else { format!(" --table {}", self.0) }
    }

    pub(super) const DEFAULT: &'static str = "fanq";

    /// iptables takes chain names of up to 28 bytes; this leaves room and is long enough to tell
    /// names apart.
    const LENGTH_MAX: usize = 20;
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first_fits = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let all_fit = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !first_fits || !all_fit || text.len() > Self::LENGTH_MAX {
            return Err(format!(
                "a name has 1 to {} letters, digits and `_`, and does not begin with a digit",
                Self::LENGTH_MAX
            ));
        }
        // iptables' own chains and targets are written in capitals, so this cannot be one of them.
        if !text.contains(|c: char| c.is_ascii_lowercase()) {
            return Err("a name has a lower-case letter: iptables' own are in capitals".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
