//! The nft backend: a table of its own, with one chain for the hook and the queue rule in it, behind those for
//! packets that come back with a mark.
//!
//! ```text
//! add table inet fanq
//! add chain inet fanq forward { type filter hook forward priority filter; policy accept; }
//! flush table inet fanq
//! add rule inet fanq forward udp dport 9000 counter queue flags fanout to 0-3 comment "fanq"
//! ```
//!
//! Invariant: nothing here unhooks a base chain, except [`NftTable::delete`]. When a base chain
//! goes, the kernel throws away every packet that waits in any queue of the network namespace. It
//! goes with its table, but also when a file that makes it is refused, and even after a dry run of
//! such a file (docs/NFQUEUE.md, section 4). So the kernel is asked with a regular chain, an
//! existing chain is only refilled, and a table that holds anything of others is left alone.

use anyhow::bail;

use super::command::{Printed, Refusal, run};
use super::show::CountedRule;
use super::spec::{Family, Hook, RuleSpec, TableName};
use crate::mark::MarkBits;

/// The queue rule, as it stands in the chain.
pub(super) fn rule(spec: &RuleSpec) -> String {
    let mut words = conditions(spec);
    words.push(format!("counter {} {MARK_OF_OURS}", queue_statement(spec)));
    words.join(" ")
}

/// What the queue rule matches.
fn conditions(spec: &RuleSpec) -> Vec<String> {
    let mut words = Vec::new();
    let matches = &spec.matches;
    words.extend(matches.in_iface.as_ref().map(|name| format!("iifname \"{name}\"")));
    words.extend(matches.out_iface.as_ref().map(|name| format!("oifname \"{name}\"")));
    if let Some(proto) = matches.proto {
        let ports = [("sport", &matches.sport), ("dport", &matches.dport)];
        let conditions = ports.map(|(side, ports)| {
            let ports = ports.as_ref()?;
            Some(match ports.ranges() {
                [_one] => format!("{proto} {side} {}", ports.text("-", ", ")),
                _ => format!("{proto} {side} {{ {} }}", ports.text("-", ", ")),
            })
        });
        if conditions == [None, None] {
            words.push(format!("meta l4proto {proto}"));
        }
        words.extend(conditions.into_iter().flatten());
    }
    words.extend(matches.raw.as_ref().map(|raw| raw.as_str().to_owned()));
    words
}

/// The rules in front of the queue rule, for packets that an inspector has sent back with a mark.
///
/// A rule that reads or sets the connection mark ends at once for a packet without conntrack. So what lets the marked
/// packet through is a rule of its own: that packet would be queued for ever.
fn front_rules(spec: &RuleSpec) -> Vec<String> {
    let marked =
        |bits: MarkBits| format!("meta mark & {:#010x} == {:#010x}", bits.mask(), bits.value());
    let mut rules = Vec::new();
    if let Some(marked) = spec.marks.reject.map(marked) {
        rules.push(format!("{marked} meta l4proto tcp counter reject with tcp reset"));
        rules.push(format!("{marked} counter reject"));
    }
    if let Some(marked) = spec.marks.repeat.map(marked) {
        rules.push(format!("{marked} counter return"));
    }
    if let Some(bits) = spec.marks.bypass {
        let (marked, mask, value) = (marked(bits), bits.mask(), bits.value());
        let (set, clear) = match !mask {
            0 => (format!("{value:#010x}"), "0".to_owned()),
            kept => (
                format!("ct mark & {kept:#010x} | {value:#010x}"),
                format!("meta mark & {kept:#010x}"),
            ),
        };
        let mut bypassed = conditions(spec);
        bypassed.push(format!("ct mark & {mask:#010x} == {value:#010x} counter accept"));
        rules.push(format!("{marked} ct mark set {set} counter"));
        rules.push(format!("{marked} counter meta mark set {clear} accept"));
        rules.push(bypassed.join(" "));
    }
    rules.into_iter().map(|rule| format!("{rule} {MARK_OF_OURS}")).collect()
}

/// One of the four forms of the nftables wiki.
fn queue_statement(spec: &RuleSpec) -> String {
    let flags = match (spec.fans_out(), spec.bypass) {
        (false, false) => "",
        (true, false) => "flags fanout ",
        (false, true) => "flags bypass ",
        (true, true) => "flags fanout,bypass ",
    };
    format!("queue {flags}to {}", spec.queues)
}

/// What `nft -f -` loads. It may be loaded again: the chain stays, its rules are replaced.
pub(super) fn file(spec: &RuleSpec) -> String {
    file_beside(spec, &[])
}

/// The same, where `present` is what earlier installs left: of other families, it is emptied in the
/// same transaction, so that no packet is queued twice.
fn file_beside(spec: &RuleSpec, present: &[NftTable]) -> String {
    let (family, table, hook) = (family_of(spec.family), &spec.table, spec.hook);
    let others = present.iter().map(|other| other.family).filter(|other| *other != family);
    let flushes = others.map(|other| format!("flush table {other} {table}\n"));
    let rules = front_rules(spec).into_iter().chain([rule(spec)]);
    let adds = rules.map(|rule| format!("add rule {family} {table} {hook} {rule}\n"));
    format!(
        "add table {family} {table}\n\
         add chain {family} {table} {hook} \
         {{ type filter hook {hook} priority filter; policy accept; }}\n\
         flush table {family} {table}\n\
         {}{}",
        flushes.collect::<String>(),
        adds.collect::<String>()
    )
}

/// Asks the kernel whether it takes the rules, and changes nothing.
///
/// Without the raw match and the bypass rules: in a dry run they may be the only ones to use
/// conntrack, and when the last such rule goes, conntrack unhooks, which empties the queues as well.
pub(super) fn probe(spec: &RuleSpec) -> Result<(), Refusal> {
    let family = family_of(spec.family);
    let mut spec = spec.without_raw();
    spec.marks.bypass = None;
    let rules = front_rules(&spec).into_iter().chain([rule(&spec)]);
    let adds = rules.map(|rule| format!("add rule {family} fanq_probe regular {rule}\n"));
    let text = format!(
        "add table {family} fanq_probe\n\
         add chain {family} fanq_probe regular\n{}",
        adds.collect::<String>()
    );
    run("nft", &["-c", "-f", "-"], &text).map(drop)
}

/// Loads the rule, all or nothing. `present` is what [`find`] found.
pub(super) fn install(spec: &RuleSpec, present: &[NftTable]) -> Result<(), Refusal> {
    load(&file_beside(spec, present)).map(drop)
}

/// The tables of this name that an earlier install made, of any family.
///
/// # Errors
/// nft cannot be asked, or a table of this name holds what fanq did not put there.
pub(super) fn find(name: &TableName) -> anyhow::Result<Vec<NftTable>> {
    let tables = run("nft", &["list", "tables"], "")?.stdout;
    let mut found = Vec::new();
    for family in FAMILIES {
        let header = format!("table {family} {name}");
        if !tables.lines().any(|line| line.trim() == header) {
            continue;
        }
        let listing = run("nft", &["list", "table", family, name.as_str()], "")?.stdout;
        match chains_if_ours(&listing) {
            Ok(hooks) => found.push(NftTable { family, name: name.clone(), hooks }),
            Err(line) => bail!(
                "nft {header} holds what fanq did not put there (`{line}`), so it is left as it \
                 is. Delete that, or give another name with --table"
            ),
        }
    }
    Ok(found)
}

/// A table that fanq made.
#[derive(Debug)]
pub(super) struct NftTable {
    family: &'static str,
    name: TableName,
    /// Its chains are called after their hooks. More than one, if it was installed with more than
    /// one.
    hooks: Vec<Hook>,
}

impl NftTable {
    /// Lets every packet pass before it comes to the queue rule, which stays in place: it may be
    /// the last rule to use conntrack, and without it conntrack would unhook and empty the queues.
    pub(super) fn take_out(&self) -> Result<(), Refusal> {
        let Self { family, name, hooks } = self;
        let lines = hooks
            .iter()
            .map(|hook| format!("insert rule {family} {name} {hook} accept {MARK_OF_OURS}\n"));
        load(&lines.collect::<String>()).map(drop)
    }

    /// Its rules and what they have counted.
    pub(super) fn counted(&self) -> Result<Vec<CountedRule>, Refusal> {
        let listing = run("nft", &["list", "table", self.family, self.name.as_str()], "")?.stdout;
        Ok(counted_in(&listing))
    }

    /// Deletes it. This throws away every packet that waits in any queue of the network namespace.
    pub(super) fn delete(&self) -> Result<(), Refusal> {
        load(&format!("delete table {} {}\n", self.family, self.name)).map(drop)
    }
}

impl std::fmt::Display for NftTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nft table {} {}", self.family, self.name)
    }
}

/// What `fanq rules` calls the thing that `spec` makes.
pub(super) fn title(spec: &RuleSpec) -> String {
    format!("nft table {} {}", family_of(spec.family), spec.table)
}

fn load(text: &str) -> Result<Printed, Refusal> {
    run("nft", &["-f", "-"], text)
}

/// The rules of a listed table, without our comment, their counters apart.
fn counted_in(listing: &str) -> Vec<CountedRule> {
    let rules = listing.lines().filter_map(|line| line.trim().strip_suffix(MARK_OF_OURS));
    let counted = |rule: &str| {
        let (before, after) = rule.split_once("counter packets ")?;
        let (packets, rest) = after.split_once(" bytes ")?;
        let (bytes, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let counted = Some((packets.parse().ok()?, bytes.parse().ok()?));
        Some(CountedRule { counted, text: format!("{before}{rest}").trim().to_owned() })
    };
    let plain = |rule: &str| CountedRule { counted: None, text: rule.to_owned() };
    rules.map(str::trim).map(|rule| counted(rule).unwrap_or_else(|| plain(rule))).collect()
}

/// The hooks of a listed table's chains; the first line that is not ours, if there is one.
fn chains_if_ours(listing: &str) -> Result<Vec<Hook>, String> {
    let mut hooks = Vec::new();
    for line in listing.lines().map(str::trim) {
        let chain = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {"));
        let hook = chain.and_then(|name| HOOKS.into_iter().find(|hook| hook.name() == name));
        let known = matches!(line, "" | "}")
            || line.starts_with("table ")
            || line.starts_with("type filter hook ") && line.ends_with("policy accept;")
            || line.ends_with(MARK_OF_OURS);
        match hook {
            Some(hook) => hooks.push(hook),
            None if known => {}
            None => return Err(line.to_owned()),
        }
    }
    Ok(hooks)
}

fn family_of(family: Family) -> &'static str {
    match family {
        Family::Both => "inet",
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

const FAMILIES: [&str; 3] = ["inet", "ip", "ip6"];

const HOOKS: [Hook; 5] =
    [Hook::Input, Hook::Forward, Hook::Output, Hook::Prerouting, Hook::Postrouting];

/// Ends each rule of ours: it tells them from others' in a table of the same name.
const MARK_OF_OURS: &str = "comment \"fanq\"";

#[cfg(test)]
mod tests;
