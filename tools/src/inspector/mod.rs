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
//! ```
//!
//! Invariant: after its start, and but for a change of rules, a worker's inspector allocates nothing and takes no lock.

#![expect(dead_code, reason = "the worker's side comes next")]

mod bounded_table;
mod compiled;
mod matcher;
mod packet;
mod rate;
pub(crate) mod rules_file;
mod stream;
