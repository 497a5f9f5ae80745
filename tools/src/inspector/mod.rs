//! The inspector of `fanq run --policy rules.toml`: decides packets by the rules of a file.
//!
//! ```text
//! rules_file   the file in words, checked              RulesFile
//! compiled     its rules, found by what tells them     CompiledPolicy, shared by all workers, never written
//! packet       a packet in the terms of rules          PacketFacts
//! matcher      the first rule that matches             Matcher, one a worker
//!   stream       patterns, across packets of a flow
//!   rate         token buckets
//!   bounded_table  what both remember in
//! worker       the trait's side: verdicts, counts, records for the log
//! handover     new rules on their way to the workers
//! control      reading again, and the account: the main thread's side
//! interfaces   by name and by number
//! command      `fanq policy check|bench`
//! ```
//!
//! Invariant: after its start, and but for a change of rules, a worker's inspector allocates nothing and takes no lock.

mod bounded_table;
mod command;
mod compiled;
mod control;
mod handover;
#[cfg(test)]
mod in_words;
mod interfaces;
mod matcher;
mod packet;
mod rate;
mod rules_file;
mod stream;
mod worker;

pub(crate) use command::{PolicyArgs, run};
pub(crate) use control::{NextRules, PolicyAccount, PolicyControl, RuleAccount, SharedPolicy};
pub(crate) use interfaces::InterfaceNames;
pub(crate) use packet::{Addresses, PacketFacts};
#[cfg(test)]
pub(crate) use rules_file::Conditions;
pub(crate) use rules_file::{Action, Rule};
pub(crate) use worker::RuleInspector;
