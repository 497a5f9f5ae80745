//! Which backend applies the rule: the kernel is asked, and what it says against one is kept.
//!
//! Invariant: asking changes nothing and empties no queue, and a refusal comes with what to do
//! about it.

use std::fmt;

use anyhow::{Context, anyhow, bail, ensure};
use clap::ValueEnum;

use super::command::Refusal;
use super::iptables::{Flavour, Refused};
use super::nft;
use super::spec::RuleSpec;
use crate::usage;

/// What `--backend` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Auto,
    Nft,
    Iptables,
}

impl Backend {
    /// Only nft rejects in prerouting, and only on kernels from 5.9 on (`nft_reject_validate`). An older one would
    /// refuse the load after it had made the base chain, which empties all queues: so its release is read instead.
    pub(super) fn check_reject_in_prerouting(self) -> anyhow::Result<()> {
        if self != Self::Nft {
            bail!(usage(
                "--reject-mark in the hook prerouting takes nft: add --backend nft, or write --hook forward"
            ));
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("reading the kernel's release")?;
        ensure!(
            release_of(&release) >= Some((5, 9)),
            "kernel {} cannot reject in the hook prerouting, that takes 5.9 or later: write --hook forward",
            release.trim()
        );
        Ok(())
    }
}

/// `6.1.0-18-cloud-amd64` is 6 and 1.
fn release_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What `--backend auto` comes to.
pub(super) enum Choice {
    Nft,
    /// With what nft said.
    Iptables(Flavour, Refusal),
}

/// Takes the first that accepts the rule, nft before iptables.
pub(super) fn choose(spec: &RuleSpec) -> Result<Choice, Neither> {
    let nft = match nft::probe(spec) {
        Ok(()) => return Ok(Choice::Nft),
        Err(refusal) => refusal,
    };
    match Flavour::choose(spec) {
        Ok(flavour) => Ok(Choice::Iptables(flavour, nft)),
        Err(iptables) => Err(Neither { nft, iptables }),
    }
}

/// Both backends refuse.
#[derive(Debug)]
pub(super) struct Neither {
    pub(super) nft: Refusal,
    pub(super) iptables: Refused,
}

impl fmt::Display for Neither {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nft, iptables } = self;
        let (for_nft, for_iptables) = (nft_remedy(nft), iptables_remedy(&iptables.refusal));
        writeln!(f, "neither nft nor iptables takes the queue rule here, nothing has changed")?;
        writeln!(f, "  nft: {nft}. {for_nft}")?;
        write!(f, "  iptables: {iptables}. {for_iptables}")
    }
}

impl std::error::Error for Neither {}

/// For `--backend nft`.
pub(super) fn ask_nft(spec: &RuleSpec) -> anyhow::Result<()> {
    nft::probe(spec).map_err(|refusal| {
        let remedy = nft_remedy(&refusal);
        anyhow!("nft does not take the queue rule here: {refusal}. {remedy}")
    })
}

/// For `--backend iptables`.
pub(super) fn ask_iptables(spec: &RuleSpec) -> anyhow::Result<Flavour> {
    Flavour::choose(spec).map_err(|refused| {
        // If the rule is taken without the raw match, nothing is wrong with the machine.
        let remedy = match &spec.matches.raw {
            Some(raw) if Flavour::choose(&spec.without_raw()).is_ok() => {
                format!("It takes the rule without --match, so mend `{}`", raw.as_str())
            }
            _ => iptables_remedy(&refused.refusal).to_owned(),
        };
        anyhow!("iptables does not take the queue rule here: {refused}. {remedy}")
    })
}

fn nft_remedy(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Missing { .. } => "Install it: apt-get install nftables",
        refusal if refusal.is_permission() => RUN_AS_ROOT,
        _ => "It takes a kernel with CONFIG_NFT_QUEUE (modprobe nft_queue)",
    }
}

fn iptables_remedy(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Missing { .. } => "Install it: apt-get install iptables",
        refusal if refusal.is_permission() => RUN_AS_ROOT,
        _ => "It takes a kernel with CONFIG_NETFILTER_XT_TARGET_NFQUEUE (modprobe xt_NFQUEUE)",
    }
}

const RUN_AS_ROOT: &str = "It takes CAP_NET_ADMIN: run this as root";

#[cfg(test)]
mod tests {
    use super::release_of;

    #[test]
    fn a_release_is_read_as_two_numbers() {
        for (text, release) in [
            ("6.1.0-18-cloud-amd64\n", Some((6, 1))),
            ("5.9-rc1", Some((5, 9))),
            ("4.18.0", Some((4, 18))),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(release_of(text), release, "{text}");
        }
    }
}
