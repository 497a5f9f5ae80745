//! Our chain where it is installed: found, put there, taken out of the packets' way, deleted.
//!
//! Invariant: a chain that holds anything but queue rules and rules with our comment is not ours and
//! is left alone. What fails half way is taken back, so after a failed install all is as it was.

use std::fmt;

use anyhow::{Context, bail};

use super::super::command::{Refusal, run};
use super::super::show::CountedRule;
use super::super::spec::{RuleSpec, TableName};
use super::{COMMENT_OF_OURS, Flavour, IpVersion, chain_lines, chain_of, table_of, versions};

/// A chain that fanq made, in one table of one version of IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) struct Chain {
    flavour: Flavour,
    version: IpVersion,
    table: String,
    name: TableName,
    /// Its lines, as iptables-save writes them.
    rules: Vec<String>,
    /// The base chains that jump to it, each as often as it does.
    jumps: Vec<String>,
}

impl Chain {
    /// Takes the jumps to it away, so that no packet comes to the queue rule any more.
    pub(in crate::rules) fn take_out(&self) -> Result<(), Refusal> {
        if self.jumps.is_empty() {
            return Ok(());
        }
        let lines = self.jumps.iter().map(|hook| format!("-D {hook} -j {}\n", self.name));
        self.flavour.restore(self.version, &self.table, &lines.collect::<String>())
    }

    /// Deletes it, once nothing jumps to it.
    pub(in crate::rules) fn delete(&self) -> Result<(), Refusal> {
        let lines = format!("-F {0}\n-X {0}\n", self.name);
        self.flavour.restore(self.version, &self.table, &lines)
    }

    /// Its rules and what they have counted.
    pub(in crate::rules) fn counted(&self) -> Result<Vec<CountedRule>, Refusal> {
        let program = self.flavour.program(self.version, "-save");
        let saved = run(&program, &["-c", "-t", &self.table], "")?.stdout;
        let own_rule = format!("-A {} ", self.name);
        Ok(saved.lines().filter_map(|line| counted_in(line, &own_rule)).collect())
    }

    /// Whether deleting it may empty the queues. No base chain goes with it; but when the last rule
    /// that uses conntrack goes, conntrack unhooks itself, and other matches do the like
    /// (`socket`). So only matches that are known to hook nothing count as safe. Of our own rules the
    /// target CONNMARK uses it too, and is never there without the match `connmark`.
    pub(in crate::rules) fn may_unhook(&self) -> bool {
        let unsafe_match = |rule: &String| {
            let words: Vec<_> = rule.split(' ').collect();
            words.windows(2).any(|pair| pair[0] == "-m" && !HOOKLESS_MATCHES.contains(&pair[1]))
        };
        self.rules.iter().any(unsafe_match)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iptables chain {} (table {}, {})", self.name, self.table, self.version)
    }
}

/// The chains of this name that an earlier install made, with any iptables program.
///
/// # Errors
/// iptables cannot be asked, or a chain of this name holds what fanq did not put there.
pub(in crate::rules) fn find(name: &TableName) -> anyhow::Result<Vec<Chain>> {
    let mut found = Vec::new();
    for flavour in Flavour::present()? {
        found.extend(find_with(flavour, name)?);
    }
    Ok(found)
}

fn find_with(flavour: Flavour, name: &TableName) -> anyhow::Result<Vec<Chain>> {
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let program = flavour.program(version, "-save");
        let saved = match run::<&str>(&program, &[], "") {
            Ok(printed) => printed.stdout,
            // A machine without IPv6 has no chains for it.
            Err(refusal) if version == IpVersion::V6 && !refusal.is_permission() => continue,
            Err(refusal) => return Err(refusal.into()),
        };
        found.extend(chains_in(&saved, flavour, version, name)?);
    }
    Ok(found)
}

/// Reads what iptables-save prints.
fn chains_in(
    saved: &str,
    flavour: Flavour,
    version: IpVersion,
    name: &TableName,
) -> anyhow::Result<Vec<Chain>> {
    let (declaration, own_rule) = (format!(":{name} "), format!("-A {name} "));
    let jump = format!(" -j {name}");
    let mut found: Vec<Chain> = Vec::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name_of_table) = line.strip_prefix('*') {
            table = name_of_table;
        } else if line.starts_with(&declaration) {
            let (table, name) = (table.to_owned(), name.clone());
            found.push(Chain { flavour, version, table, name, rules: vec![], jumps: vec![] });
        }
        let Some(chain) = found.last_mut().filter(|chain| chain.table == table) else { continue };
        if line.starts_with(&own_rule) {
            let is_ours =
                line.contains(" -j NFQUEUE") || line.contains(&format!("{COMMENT_OF_OURS} "));
            if !is_ours {
                bail!(
                    "{chain} holds what fanq did not put there (`{line}`), so it is left as it is. \
                     Delete that, or give another name with --table"
                );
            }
            chain.rules.push(line.to_owned());
        } else if let Some(hook) =
            line.strip_prefix("-A ").and_then(|rest| rest.strip_suffix(&jump))
            && !hook.contains(' ')
        {
            // A jump with conditions is not ours.
            chain.jumps.push(hook.to_owned());
        }
    }
    Ok(found)
}

/// A rule as `iptables-save -c` writes it, `[PACKETS:BYTES] -A CHAIN ...`, without our comment.
fn counted_in(line: &str, own_rule: &str) -> Option<CountedRule> {
    let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
    let (packets, bytes) = counters.split_once(':')?;
    let text = rule.strip_prefix(own_rule)?.replace(&format!("{COMMENT_OF_OURS} "), "");
    Some(CountedRule { counted: Some((packets.parse().ok()?, bytes.parse().ok()?)), text })
}

/// Puts the rule in place for each version of IP that it is for, and takes away what an earlier
/// install of the same name put elsewhere.
pub(in crate::rules) fn install(spec: &RuleSpec, flavour: Flavour) -> anyhow::Result<()> {
    let before = find_with(flavour, &spec.table)?;
    let mut tried = Vec::new();
    for &version in versions(spec.family) {
        tried.push(version);
        if let Err(refusal) = install_one(spec, flavour, version) {
            return Err(taken_back(spec, flavour, &tried, &before, &refusal));
        }
    }
    for mut chain in before {
        let stays =
            versions(spec.family).contains(&chain.version) && chain.table == table_of(spec.hook);
        let removed = if stays {
            chain.jumps.retain(|hook| hook != chain_of(spec.hook));
            chain.take_out()
        } else {
            chain.take_out().and_then(|()| chain.delete())
        };
        removed.with_context(|| {
            format!(
                "the new rule is in place, but the earlier one in the {chain} could not be removed"
            )
        })?;
    }
    Ok(())
}

/// Fills the chain, then sees to the jump.
fn install_one(spec: &RuleSpec, flavour: Flavour, version: IpVersion) -> Result<(), Refusal> {
    flavour.restore(version, table_of(spec.hook), &chain_lines(spec))?;
    let hook = chain_of(spec.hook);
    if flavour.jump(version, spec, &["-C", hook]).is_err() {
        // Whatever was wrong, the insertion will say.
        flavour.jump(version, spec, &["-I", hook, "1"])?;
    }
    Ok(())
}

/// Makes all as it was `before`, and says what happened.
fn taken_back(
    spec: &RuleSpec,
    flavour: Flavour,
    tried: &[IpVersion],
    before: &[Chain],
    refusal: &Refusal,
) -> anyhow::Error {
    let (mut outcome, mut trouble) = ("nothing is installed", String::new());
    for &version in tried {
        let table = table_of(spec.hook);
        let old = before.iter().find(|chain| chain.version == version && chain.table == table);
        if old.is_some() {
            outcome = "the earlier rule is in place again";
        }
        if let Err(refusal) = restore_one(spec, flavour, version, old) {
            trouble = format!("{trouble}; undoing {version} failed too: {refusal}");
        }
    }
    match tried {
        [IpVersion::V4, IpVersion::V6] => anyhow::anyhow!(
            "for IPv6, {refusal}. IPv4 was accepted and is taken back, {outcome}{trouble}. \
             To queue IPv4 only, add --family ipv4"
        ),
        _ => anyhow::anyhow!("{refusal}; {outcome}{trouble}"),
    }
}

fn restore_one(
    spec: &RuleSpec,
    flavour: Flavour,
    version: IpVersion,
    old: Option<&Chain>,
) -> Result<(), Refusal> {
    let (name, table, hook) = (&spec.table, table_of(spec.hook), chain_of(spec.hook));
    if !old.is_some_and(|chain| chain.jumps.iter().any(|jump| jump == hook))
        && flavour.jump(version, spec, &["-C", hook]).is_ok()
    {
        flavour.restore(version, table, &format!("-D {hook} -j {name}\n"))?;
    }
    match old {
        Some(chain) => {
            let lines = format!(":{name} - [0:0]\n{}\n", chain.rules.join("\n"));
            flavour.restore(version, table, &lines)
        }
        // Refused at its first step, the load has left no chain to delete.
        None if flavour.lists(version, table, name) => {
            flavour.restore(version, table, &format!("-F {name}\n-X {name}\n"))
        }
        None => Ok(()),
    }
}

impl Flavour {
    fn lists(self, version: IpVersion, table: &str, name: &TableName) -> bool {
        run(&self.program(version, ""), &["-t", table, "-S", name.as_str()], "").is_ok()
    }
}

/// Matches that look at the packet only. `comment` looks at nothing.
const HOOKLESS_MATCHES: [&str; 10] =
    ["tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "multiport", "mark", "comment"];

#[cfg(test)]
mod tests;
