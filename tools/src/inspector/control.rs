//! The rules of a running program: read at the start, read again on request, counted over all versions.
//!
//! Invariant: workers decide by rules that were read and compiled whole; what is wrong in a file read again leaves them
//! as they are. What was counted under one version stays in the account when the next one comes, rule by rule's name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::Serialize;

use super::compiled::CompiledPolicy;
use super::handover::{Assignment, Handover, PolicyVersion, RuleTally, WorkerCounts};
use super::interfaces::{InterfaceNames, InterfaceTable};
use super::rules_file::{Action, RulesFile};
use crate::confine;
use crate::eve::{EveLog, RuleNames};
use crate::usage;

/// The main thread's side of the rules.
#[derive(Debug)]
pub(crate) struct PolicyControl {
    path: PathBuf,
    handover: Arc<Handover>,
    names: Arc<InterfaceNames>,
    current: Arc<PolicyVersion>,
    tallies: Vec<VersionTally>,
    /// Packets and bytes by rule, of versions that no worker has any more.
    gone: BTreeMap<String, (u64, u64)>,
    reloads: u64,
    refused: u64,
}

/// The rules, for the main thread, which changes them, and for others, who read the account.
#[derive(Debug, Clone)]
pub(crate) struct SharedPolicy(Arc<Mutex<PolicyControl>>);

impl SharedPolicy {
    pub(crate) fn new(control: PolicyControl) -> Self {
        Self(Arc::new(Mutex::new(control)))
    }

    /// For a moment: nobody holds it while a file is read and compiled, and workers' tables are made.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PolicyControl> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again and makes all that workers need of it, which may take seconds: on any thread, but on one at
    /// a time. Changes nothing: [`PolicyControl::adopt`] does.
    ///
    /// # Errors
    /// As [`compile`], or the interfaces cannot be read.
    pub(crate) fn read_again(&self) -> anyhow::Result<NextRules> {
        let (path, workers, names, number) = {
            let control = self.lock();
            let names = Arc::clone(&control.names);
            let (path, number) = (control.path.clone(), control.current.number + 1);
            (path, control.handover.workers(), names, number)
        };
        NextRules::new(Arc::new(PolicyVersion { number, policy: compile(&path)? }), workers, &names)
    }
}

/// Rules that are ready, and that no worker has yet.
#[derive(Debug)]
pub(crate) struct NextRules {
    version: Arc<PolicyVersion>,
    #[expect(clippy::vec_box, reason = "each goes into a slot of its own, from thread to thread")]
    assignments: Vec<Box<Assignment>>,
}

impl NextRules {
    fn new(
        version: Arc<PolicyVersion>,
        workers: usize,
        names: &InterfaceNames,
    ) -> anyhow::Result<Self> {
        let interfaces = Arc::new(read_interfaces(names, &version)?);
        let assignments = (0..workers).map(|_| version.assignment(&interfaces)).collect();
        Ok(Self { version, assignments })
    }
}

/// What all workers counted under one version.
#[derive(Debug)]
struct VersionTally {
    words: RuleNames,
    workers: Vec<Arc<RuleTally>>,
}

/// The account of a run by rules.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyAccount {
    pub(crate) file: String,
    pub(crate) reloads: u64,
    pub(crate) reloads_refused: u64,
    pub(crate) flows_evicted: u64,
    pub(crate) limits_evicted: u64,
    pub(crate) rejects_returned: u64,
    pub(crate) bypasses_returned: u64,
    pub(crate) rules: Vec<RuleAccount>,
    /// Packets of rules that reject.
    #[serde(skip)]
    pub(crate) rejected: u64,
    /// Records that found a ring full.
    #[serde(skip)]
    pub(crate) log_lost: u64,
}

/// What one rule matched. The rules of now first, in their order; then those that are gone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RuleAccount {
    pub(crate) name: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Reads and compiles a rules file.
///
/// # Errors
/// What is wrong in it, with its place.
pub(crate) fn compile(path: &Path) -> anyhow::Result<CompiledPolicy> {
    let file = RulesFile::load(path).map_err(usage)?;
    CompiledPolicy::new(&file)
}

impl PolicyControl {
    /// Reads the rules and lays them ready for so many workers.
    ///
    /// # Errors
    /// As [`compile`].
    pub(crate) fn start(path: &Path, workers: usize, log: Option<&EveLog>) -> anyhow::Result<Self> {
        let file = RulesFile::load(path).map_err(usage)?;
        confine::allow(file.files.iter().flat_map(|file| confine::folders_of(file)), []);
        let policy = CompiledPolicy::new(&file)?;
        let names = Arc::new(InterfaceNames::open()?);
        let current = Arc::new(PolicyVersion { number: 1, policy });
        let first = NextRules::new(Arc::clone(&current), workers, &names)?;
        let mut control = Self {
            path: path.to_owned(),
            handover: Arc::new(Handover::new(workers)),
            names,
            current,
            tallies: Vec::new(),
            gone: BTreeMap::new(),
            reloads: 0,
            refused: 0,
        };
        control.lay_logs(log);
        control.publish(first, log);
        Ok(control)
    }

    /// Lays ready for workers that start again, in the place of those before, the rules that are in force. Nothing is
    /// read, and what was counted stays.
    pub(crate) fn start_again(&mut self, log: Option<&EveLog>) {
        self.handover = Arc::new(self.handover.again());
        self.lay_logs(log);
        // Where no interface can be told now, the first packet has the table read again.
        let interfaces = read_interfaces(&self.names, &self.current).unwrap_or_default();
        let interfaces = Arc::new(interfaces);
        let workers = 0..self.handover.workers();
        let assignments = workers.map(|_| self.current.assignment(&interfaces)).collect();
        self.lay_ready(NextRules { version: Arc::clone(&self.current), assignments });
    }

    /// What workers take their rules from.
    pub(crate) fn handover(&self) -> Arc<Handover> {
        Arc::clone(&self.handover)
    }

    /// Takes what was read again from the file. Returns what to say about it.
    ///
    /// # Errors
    /// That of reading it; then all stays as it is.
    pub(crate) fn adopt(
        &mut self,
        next: anyhow::Result<NextRules>,
        log: Option<&EveLog>,
    ) -> anyhow::Result<String> {
        let next = next.inspect_err(|_| self.refused += 1)?;
        self.publish(next, log);
        self.reloads += 1;
        Ok(format!("rules read again from {}: {}", self.path.display(), self.described()))
    }

    /// `12 rules, 3 patterns, default accept`.
    pub(crate) fn described(&self) -> String {
        let policy = &self.current.policy;
        let default = if policy.settings.default_drops { "drop" } else { "accept" };
        let (rules, patterns) = (policy.words.len(), policy.patterns.count());
        format!("{rules} rules, {patterns} patterns, default {default}")
    }

    fn publish(&mut self, next: NextRules, log: Option<&EveLog>) {
        if let Some(log) = log {
            log.rules(next.version.number, &next.version.policy.words);
        }
        self.current = Arc::clone(&next.version);
        self.lay_ready(next);
    }

    /// A way to the log for each worker that has none.
    fn lay_logs(&self, log: Option<&EveLog>) {
        if let Some(log) = log {
            self.handover.lay_logs(|| log.sender());
        }
    }

    fn lay_ready(&mut self, NextRules { version, assignments }: NextRules) {
        let words = Arc::clone(&version.policy.words);
        let workers = assignments.iter().map(|assignment| Arc::clone(&assignment.tally)).collect();
        self.tallies.push(VersionTally { words, workers });
        self.handover.publish(assignments.into_iter());
    }

    /// What is to be done now and then: frees what workers gave back, and looks up interfaces that came.
    pub(crate) fn tend(&mut self) {
        self.handover.free_previous();
        let gone = &mut self.gone;
        let last = self.tallies.len().saturating_sub(1);
        let mut index = 0;
        self.tallies.retain(|version| {
            index += 1;
            let held = version.workers.iter().any(|tally| Arc::strong_count(tally) > 1);
            if index <= last && !held {
                fold(version, gone);
                return false;
            }
            true
        });
        if self.handover.interfaces_asked_for() {
            // If it cannot be read now, the next packet by an unknown interface asks again.
            if let Ok(table) = read_interfaces(&self.names, &self.current) {
                self.handover.publish_interfaces(&Arc::new(table));
            }
        }
    }

    /// What was counted so far.
    pub(crate) fn account(&self) -> PolicyAccount {
        let mut by_name = self.gone.clone();
        for version in &self.tallies {
            fold(version, &mut by_name);
        }
        let words = &self.current.policy.words;
        let rejects = words.iter().filter(|rule| rule.action == Action::Reject);
        let of_rejects =
            |rule: &super::Rule| by_name.get(&rule.name).map_or(0, |(packets, _)| *packets);
        let rejected = rejects.map(of_rejects).sum();
        let account = |name: String, (packets, bytes)| RuleAccount { name, packets, bytes };
        let mut rules: Vec<_> = words
            .iter()
            .map(|rule| {
                let counts = by_name.remove(&rule.name).unwrap_or_default();
                account(rule.name.clone(), counts)
            })
            .collect();
        rules.extend(by_name.into_iter().map(|(name, counts)| account(name, counts)));
        let sum = |count: fn(&WorkerCounts) -> &AtomicU64| {
            let workers = 0..self.handover.workers();
            workers.map(|worker| count(self.handover.counts(worker)).load(Ordering::Relaxed)).sum()
        };
        PolicyAccount {
            file: self.path.display().to_string(),
            reloads: self.reloads,
            reloads_refused: self.refused,
            flows_evicted: sum(|counts| &counts.flows_evicted),
            limits_evicted: sum(|counts| &counts.limits_evicted),
            rejects_returned: sum(|counts| &counts.rejects_returned),
            bypasses_returned: sum(|counts| &counts.bypasses_returned),
            rules,
            rejected,
            log_lost: sum(|counts| &counts.log_lost),
        }
    }
}

/// The interfaces that are there, by the bits of this version.
fn read_interfaces(
    names: &InterfaceNames,
    version: &PolicyVersion,
) -> anyhow::Result<InterfaceTable> {
    names.table(&version.policy.interfaces).context("reading /proc/thread-self/net/dev")
}

/// Adds a version's counts by the rules' names.
fn fold(version: &VersionTally, by_name: &mut BTreeMap<String, (u64, u64)>) {
    for worker in &version.workers {
        for (rule, (packets, bytes)) in version.words.iter().zip(worker.read()) {
            let sum = by_name.entry(rule.name.clone()).or_default();
            sum.0 += packets;
            sum.1 += bytes;
        }
    }
}
