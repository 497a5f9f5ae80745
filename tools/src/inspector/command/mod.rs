//! `fanq policy`: looks at a rules file without a queue: what is in it, and what it costs.
//!
//! Invariant: nothing here needs a right, touches the network, or differs from what `fanq run` makes of the same file.

mod bench;
pub(super) mod traffic;

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use super::compiled::CompiledPolicy;
use super::control::compile;
use super::rate::Rates;
use super::rules_file::Action;
use super::stream::StreamScanner;

/// Options of `fanq policy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq policy check rules.toml
  fanq policy bench rules.toml")]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    action: PolicyAction,
}

#[derive(Debug, Subcommand)]
enum PolicyAction {
    /// Read a rules file as `fanq run --policy` does, and say what it compiles to.
    #[command(after_help = "Example:
  fanq policy check rules.toml")]
    Check {
        /// The rules file
        file: PathBuf,
    },
    /// Measure what its rules cost a packet, beside accepting all and beside aho-corasick alone; without a kernel.
    Bench(bench::BenchArgs),
}

pub(crate) fn run(args: &PolicyArgs) -> anyhow::Result<()> {
    match &args.action {
        PolicyAction::Check { file } => {
            let policy = compile(file)?;
            print!("{}", described(&file.display().to_string(), &policy));
            Ok(())
        }
        PolicyAction::Bench(args) => bench::run(args),
    }
}

fn described(name: &str, policy: &CompiledPolicy) -> String {
    let settings = &policy.settings;
    let default = if settings.default_drops { "drop" } else { "accept" };
    let with_patterns =
        policy.words.iter().filter(|rule| !rule.conditions.patterns.is_empty()).count();
    let for_all = policy.for_all_count();
    let by_headers = policy.words.len() - with_patterns - for_all;
    let mut lines = vec![
        format!(
            "{name}: {} rules, files read: {}, default {default}",
            policy.words.len(),
            policy.files
        ),
        format!("actions: {}", actions(policy)),
        format!(
            "found by addresses or ports: {by_headers}, by patterns: {with_patterns}, tried for every packet: {for_all}"
        ),
        format!("index: {}", ByteSize(policy.index_bytes() as u64)),
    ];
    for scanner in policy.patterns.scanners() {
        let case = if scanner.ignores_case { "in either case" } else { "as they stand" };
        lines.push(format!(
            "patterns {case}: {}, {} of {}",
            scanner.patterns,
            scanner.kind,
            ByteSize(scanner.bytes as u64)
        ));
    }
    if !policy.patterns.is_empty() {
        let bytes = ByteSize(StreamScanner::table_bytes(settings.flow_table) as u64);
        lines.push(format!("flows: {} a worker, {bytes}", settings.flow_table));
    }
    if policy.uses_limits {
        let bytes = ByteSize(Rates::table_bytes(settings.limit_table) as u64);
        lines.push(format!("limits: {} a worker, {bytes}", settings.limit_table));
    }
    if !policy.interfaces.is_empty() {
        lines.push(format!("interfaces: {}", policy.interfaces.join(", ")));
    }
    for (key, mark) in
        [("reject-mark", settings.reject_mark), ("bypass-mark", settings.bypass_mark)]
    {
        if let Some(mark) = mark {
            lines.push(format!("{key}: {mark}, as in `fanq rules install --{key} {mark}`"));
        }
    }
    lines.join("\n") + "\n"
}

/// `accept 2, drop 7`.
fn actions(policy: &CompiledPolicy) -> String {
    let count = |is: fn(Action) -> bool| policy.words.iter().filter(|rule| is(rule.action)).count();
    let counts = [
        ("accept", count(|action| action == Action::Accept)),
        ("drop", count(|action| action == Action::Drop)),
        ("reject", count(|action| action == Action::Reject)),
        ("mark", count(|action| matches!(action, Action::Mark(_)))),
        ("bypass", count(|action| action == Action::Bypass)),
        ("log", count(|action| action == Action::Log)),
    ];
    let some: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    let shown: Vec<_> = some.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}
