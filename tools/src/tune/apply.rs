//! Makes the changes of a plan: all of them, or none.
//!
//! ```text
//! read every value -> journal, on disk -> change one by one -> journal: done
//!                                            | refused
//!                                            v
//!                         put back what was changed, the last first -> journal as before
//! ```
//!
//! Invariant: no value is changed before the journal on disk says what it was. Where a value of ours is changed once
//! more, the journal keeps what was there before the first time.

use anyhow::{Context, anyhow};

use super::change::Change;
use super::journal::{Entry, Journal, Store};
use super::knobs::{KnobError, Knobs};
use super::setting::Setting;

/// What an apply has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Settings changed.
    pub(crate) changed: usize,
    /// What the kernel made something else of, in words.
    pub(crate) rounded: Vec<String>,
}

/// A change on its way, with the value read just before.
struct Step<'a> {
    change: &'a Change,
    before: String,
}

/// Makes the changes.
///
/// # Errors
/// A value cannot be read, or is refused: then all are as before, or the error says which are not. The journal cannot
/// be written behind the changes: then they are made, and can be undone.
pub(crate) fn apply(
    knobs: &mut dyn Knobs,
    store: &Store,
    changes: &[Change],
) -> anyhow::Result<Applied> {
    let prior = store.load()?;
    let mut steps = Vec::new();
    for change in changes {
        let before = knobs
            .read(&change.setting)
            .with_context(|| format!("{}; nothing was changed", change.setting.id()))?;
        if !change.setting.same(&before, &change.new) {
            steps.push(Step { change, before });
        }
    }
    if steps.is_empty() {
        if let Some(mut journal) = prior.filter(Journal::is_under_way) {
            settle(knobs, &mut journal);
            store.save(&journal)?;
        }
        return Ok(Applied { changed: 0, rounded: Vec::new() });
    }
    let mut journal = begin(knobs, prior.clone(), &steps);
    store.save(&journal).context("nothing was changed")?;
    let mut rounded = Vec::new();
    for (index, Step { change, before }) in steps.iter().enumerate() {
        match set(knobs, change, before) {
            Ok(None) => {}
            Ok(Some(became)) => {
                let Change { setting, new, .. } = change;
                let words = (new.trim(), became.trim());
                rounded.push(format!("{}: asked for {}, got {}", setting.id(), words.0, words.1));
                if let Some(entry) = entry_mut(&mut journal, setting) {
                    entry.ours.push(became);
                    entry.rounded_from = Some(new.clone());
                }
            }
            Err(error) => {
                let refused = format!("{}: {error}", change.setting.id());
                let done = steps.get(..=index).unwrap_or_default();
                return Err(undo(knobs, store, prior, done, &refused));
            }
        }
    }
    settle(knobs, &mut journal);
    store
        .save(&journal)
        .context("the changes are made; fanq tune revert undoes them once this can be written")?;
    Ok(Applied { changed: steps.len(), rounded })
}

/// The journal to go with: what it had, and what is about to change.
fn begin(knobs: &dyn Knobs, prior: Option<Journal>, steps: &[Step<'_>]) -> Journal {
    let boot = knobs.boot();
    let mut journal = prior.unwrap_or_else(|| Journal::new(boot.clone()));
    if journal.boot != boot {
        // After a restart, what is no more as we set it is nothing of ours.
        journal.entries.retain(|entry| {
            knobs.owner(&entry.setting) == entry.owner
                && knobs.read(&entry.setting).is_ok_and(|value| entry.is_ours(&value))
        });
        for entry in &mut journal.entries {
            entry.under_way = false;
        }
        journal.boot = boot;
    }
    for Step { change, before } in steps {
        let owner = knobs.owner(&change.setting);
        let fresh = Entry {
            setting: change.setting.clone(),
            old: before.clone(),
            ours: vec![change.new.clone()],
            rounded_from: None,
            owner,
            under_way: true,
        };
        match entry_mut(&mut journal, &change.setting) {
            None => journal.entries.push(fresh),
            Some(entry) if is_still_ours(entry, before, &fresh.owner) => {
                entry.ours.push(change.new.clone());
                entry.rounded_from = None;
                entry.under_way = true;
            }
            // Somebody else has set it since: theirs is what is found, and what comes back.
            Some(entry) => *entry = fresh,
        }
    }
    journal
}

fn is_still_ours(entry: &Entry, value: &str, owner: &str) -> bool {
    entry.owner == owner && (entry.under_way || entry.is_ours(value) || entry.is_old(value))
}

/// What is as we set it, or as before us, is under way no more; also what an apply that was killed had begun.
fn settle(knobs: &dyn Knobs, journal: &mut Journal) {
    for entry in &mut journal.entries {
        let known = |value: String| entry.is_ours(&value) || entry.is_old(&value);
        if knobs.read(&entry.setting).is_ok_and(known) {
            entry.under_way = false;
        }
    }
}

/// Sets one, and says what it became if that is something else.
fn set(knobs: &mut dyn Knobs, change: &Change, before: &str) -> Result<Option<String>, KnobError> {
    knobs.write(&change.setting, &change.new)?;
    let after = knobs.read(&change.setting)?;
    if change.setting.same(&after, &change.new) {
        return Ok(None);
    }
    if change.setting.same(&after, before) {
        let words = format!("was set to {} and stays {}", change.new.trim(), after.trim());
        return Err(KnobError::Refused { place: change.command(), words });
    }
    Ok(Some(after))
}

/// Puts back what was changed, the last first, and tells what came of it.
fn undo(
    knobs: &mut dyn Knobs,
    store: &Store,
    prior: Option<Journal>,
    done: &[Step<'_>],
    refused: &str,
) -> anyhow::Error {
    let mut stuck = Vec::new();
    for Step { change, before } in done.iter().rev() {
        let as_before = |knobs: &dyn Knobs| {
            knobs.read(&change.setting).is_ok_and(|now| change.setting.same(&now, before))
        };
        if as_before(knobs) {
            continue;
        }
        // Whether it worked is seen by reading it.
        let _ = knobs.write(&change.setting, before);
        if !as_before(knobs) {
            stuck.push(change.undo());
        }
    }
    if !stuck.is_empty() {
        return anyhow!(
            "{refused}; and these could not be put back: {}. The journal is kept: fanq tune revert tries once more",
            stuck.join("; ")
        );
    }
    let prior = prior.unwrap_or_else(|| Journal::new(knobs.boot()));
    match store.save(&prior) {
        Ok(()) => anyhow!(
            "{refused}; everything is as before. To leave it out: --skip '{}'",
            done.last().map(|step| step.change.setting.id()).unwrap_or_default()
        ),
        Err(error) => error.context(format!("{refused}; everything is as before, but the journal")),
    }
}

fn entry_mut<'a>(journal: &'a mut Journal, setting: &Setting) -> Option<&'a mut Entry> {
    journal.entries.iter_mut().find(|entry| entry.setting == *setting)
}
