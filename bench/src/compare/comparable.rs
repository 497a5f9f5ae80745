//! Whether two results were measured on the same thing in the same way.
//!
//! Invariant: each field that forbids a comparison is named with both its values and what to do about it. What may
//! differ but is worth knowing is a note.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::result::{Document, TargetSetting};

/// These must be equal, as long as nobody says that another machine is meant.
const MACHINE_FIELDS: [&str; 3] = ["kernel", "cpu", "cpus"];
/// Which CPUs there are is the machine's, too.
const LAB_FIELDS_OF_THE_MACHINE: [&str; 2] = ["load_cpus", "queue_cpus"];
/// A host that took more than this has moved the figures.
const STOLEN_SHARE_MAX: f64 = 0.01;

/// What stands against a comparison; empty if nothing does.
pub(super) fn obstacles(a: &Document, b: &Document, across_machines: bool) -> Vec<String> {
    let mut obstacles = Vec::new();
    if !across_machines {
        let machine = differences("machine", &a.machine, &b.machine);
        let forbidding = machine.into_iter().filter(|d| MACHINE_FIELDS.contains(&&*d.field));
        obstacles
            .extend(forbidding.map(|d| format!("{d}; --across-machines compares nevertheless")));
    }
    let setting = differences("lab", &a.lab, &b.lab).into_iter().filter(|difference| {
        !(across_machines && LAB_FIELDS_OF_THE_MACHINE.contains(&&*difference.field))
    });
    let setting = setting.chain(differences("load", &a.load, &b.load));
    let methods = a.run.cpu.as_ref().zip(b.run.cpu.as_ref());
    let method = methods.map(|(a, b)| differences("run.cpu", a, b)).unwrap_or_default();
    let setting = setting.chain(method);
    obstacles.extend(setting.map(|d| format!("{d}; measure both with the same options")));
    if !a.targets.iter().any(|target| named(b, &target.name).is_some()) {
        let (a, b) = (names(a), names(b));
        obstacles.push(format!("no target is in both: {a} against {b}; measure one of them again"));
    }
    obstacles
}

/// Where the control was not measured.
pub(super) fn lacks(a: &Document, b: &Document, control: &str) -> Vec<String> {
    let sides = [("A", a), ("B", b)].into_iter();
    sides
        .filter(|(_, document)| named(document, control).is_none())
        .map(|(side, document)| {
            format!("{side} has no target {control} for --control; it has {}", names(document))
        })
        .collect()
}

/// What a reader should know of a comparison that is made.
pub(super) fn notes(a: &Document, b: &Document) -> Vec<String> {
    let mut notes = Vec::new();
    if !a.run.complete {
        notes.push("A ended early: not all that was asked was measured".to_owned());
    }
    for (side, document) in [("A", a), ("B", b)] {
        let has_cpu = document.trials.iter().any(|trial| trial.purpose == "cpu");
        if has_cpu && document.run.cpu.is_none() {
            notes.push(format!(
                "{side} is older and does not say whether programs ran apart, and with how many packets a trial"
            ));
        }
        let stolen = document.machine.stolen_share;
        if stolen > STOLEN_SHARE_MAX {
            notes.push(format!("the host took {:.1} % of the CPU time of {side}", stolen * 100.0));
        }
        notes.extend(void_trials(document).map(|what| format!("{side}: {what}")));
    }
    let other = differences("machine", &a.machine, &b.machine);
    let telling = ["kernel", "cpu", "cpus", "governor", "mitigations", "sysctls"];
    notes.extend(other.iter().filter(|d| telling.contains(&&*d.field)).map(ToString::to_string));
    for target in &a.targets {
        match named(b, &target.name) {
            None => notes.push(format!("{} is in A only", target.name)),
            Some(other) if other != target => {
                notes.push(format!("{} was run with another command or other rules", target.name));
            }
            Some(_) => {}
        }
    }
    let new = b.targets.iter().filter(|target| named(a, &target.name).is_none());
    notes.extend(new.map(|target| format!("{} is in B only", target.name)));
    notes
}

/// How many trials of each target do not count, with one of the reasons.
fn void_trials(document: &Document) -> impl Iterator<Item = String> {
    let kinds: BTreeSet<_> =
        document.trials.iter().map(|trial| (&*trial.target, &*trial.purpose)).collect();
    kinds.into_iter().filter_map(|(target, purpose)| {
        let own = document.trials.iter().filter(|t| t.target == target && t.purpose == purpose);
        let all = own.clone().count();
        let reasons: Vec<_> = own.filter_map(|trial| trial.void.as_deref()).collect();
        let reason = reasons.first()?;
        let void = reasons.len();
        Some(format!("{void} of {all} {purpose} trials of {target} are void, the first: {reason}"))
    })
}

/// A field with two values.
struct Difference {
    part: &'static str,
    field: String,
    a: Value,
    b: Value,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { part, field, a, b } = self;
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
                let differing: Vec<_> = keys
                    .into_iter()
                    .filter(|&key| a.get(key) != b.get(key))
                    .map(String::as_str)
                    .collect();
                write!(f, "{part}.{field} differs in {}", differing.join(", "))
            }
            _ => write!(f, "{part}.{field} is {a} in A and {b} in B"),
        }
    }
}

fn differences(part: &'static str, a: &impl Serialize, b: &impl Serialize) -> Vec<Difference> {
    let fields = |of| match of {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (fields(serde_json::to_value(a)), fields(serde_json::to_value(b)));
    let value = |of: &serde_json::Map<_, _>, field| of.get(field).cloned().unwrap_or_default();
    let differing = a.keys().filter(|&field| a.get(field) != b.get(field));
    differing
        .map(|field| {
            let (a, b) = (value(&a, field), value(&b, field));
            Difference { part, field: field.clone(), a, b }
        })
        .collect()
}

fn named<'a>(document: &'a Document, name: &str) -> Option<&'a TargetSetting> {
    document.targets.iter().find(|target| target.name == name)
}

fn names(document: &Document) -> String {
    let names: Vec<_> = document.targets.iter().map(|target| &*target.name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
