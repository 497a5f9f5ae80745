//! The packet marks by which an inspector speaks to the rules in front of the queue rule. A packet answered with
//! `repeat` and one of them comes by those rules again:
//!
//! | mark | what the rules do with the packet | and with its connection |
//! |---|---|---|
//! | reject | answer it with a TCP reset or an ICMP error, and drop it | nothing |
//! | repeat | let it go on as one that is not for the queues | nothing |
//! | bypass | let it go on | mark it; its later packets go on without coming to the queue rule |
//!
//! Invariant: no two of a rule's marks can be taken for each other.

use std::fmt;

use clap::Args;

use super::Hook;
use crate::mark::MarkBits;
use crate::usage;

/// Which marks have rules of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(in crate::rules) struct Marks {
    /// A packet that comes back with this mark is let through, and all later ones of its connection with it: they pass
    /// before the queue rule. Uses these bits of the connection mark, too
    #[arg(id = "bypass-mark", long, value_name = "MARK[/MASK]")]
    pub(in crate::rules) bypass: Option<MarkBits>,
    /// A packet that comes back with this mark is answered with a TCP reset or an ICMP error, and dropped
    #[arg(id = "reject-mark", long, value_name = "MARK[/MASK]")]
    pub(in crate::rules) reject: Option<MarkBits>,
    /// A packet that comes back with this mark goes on to the rules below, as one that is not for the queues
    #[arg(id = "repeat-mark", long, value_name = "MARK[/MASK]")]
    pub(in crate::rules) repeat: Option<MarkBits>,
}

impl Marks {
    /// Refuses marks that the rules could not tell apart, and rejecting where no kernel does it.
    pub(super) fn check(&self, hook: Hook) -> anyhow::Result<()> {
        let named = self.named();
        for (index, (name, bits)) in named.iter().enumerate() {
            for (other_name, other) in &named[index + 1..] {
                if bits.blurs_with(*other) {
                    return Err(usage(format!(
                        "{name} {bits} and {other_name} {other} are taken for each other: write one with another \
                         bit, such as 0x1 and 0x2"
                    )));
                }
            }
        }
        if self.reject.is_some() && hook == Hook::Postrouting {
            return Err(usage(
                "--reject-mark cannot be used in the hook postrouting: the kernel rejects in input, forward and \
                 output, and nft from kernel 5.9 on in prerouting. Write --hook forward",
            ));
        }
        Ok(())
    }

    /// Those that there are, by the option's name, in the order of their rules.
    fn named(&self) -> Vec<(&'static str, MarkBits)> {
        let all = [
            ("--reject-mark", self.reject),
            ("--repeat-mark", self.repeat),
            ("--bypass-mark", self.bypass),
        ];
        all.into_iter().filter_map(|(name, bits)| Some((name, bits?))).collect()
    }
}

/// `, bypass-mark 0x1/0x1`, as the success messages go on.
impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bits) in self.named() {
            write!(f, ", {} {bits}", name.trim_start_matches('-'))?;
        }
        Ok(())
    }
}
