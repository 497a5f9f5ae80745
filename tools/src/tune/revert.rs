//! Puts back what was changed.
//!
//! Invariant: it can be run again after it was killed anywhere, and comes to the same end. What somebody else has set
//! meanwhile is left alone and stays in the journal, so that `--force` can still put it back; what is not there any
//! more, or is another device's, is forgotten. What a change of a card's queues has reset by itself (interrupts, RPS,
//! XPS) is not in the journal: it is said, not put back.

use anyhow::{Context, bail};

use super::journal::{Entry, Journal, Store};
use super::knobs::{KnobError, Knobs};
use super::setting::{Setting, Table};

/// What a revert has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reverted {
    /// Settings that had our value and have their old one.
    pub(crate) put_back: usize,
    /// Settings that had their old value before.
    pub(crate) already: usize,
    /// Left alone, in words, since somebody else has set them.
    pub(crate) left: Vec<String>,
    /// Not there any more, in words.
    pub(crate) gone: Vec<String>,
    /// Devices that have their former number of queues again: the change has reset their interrupts, RPS and XPS.
    pub(crate) reset: Vec<String>,
    /// Whether the machine was restarted since the changes.
    pub(crate) restarted: bool,
}

/// What is to become of an entry.
enum Fate {
    PutBack,
    Leave(String),
    Forget(String),
}

/// Puts every value back; with `force` also those that somebody else has changed since.
///
/// # Errors
/// A value is refused, after all others were put back; it stays in the journal.
pub(crate) fn revert(
    knobs: &mut dyn Knobs,
    store: &Store,
    force: bool,
) -> anyhow::Result<Option<Reverted>> {
    let Some(journal) = store.load()? else { return Ok(None) };
    let mut reverted = Reverted { restarted: journal.boot != knobs.boot(), ..Reverted::default() };
    let mut all = Vec::new();
    let mut left = Vec::new();
    for entry in journal.entries {
        match fate(knobs, &entry, force, reverted.restarted) {
            Fate::PutBack => all.push(Entry { under_way: true, ..entry }),
            Fate::Leave(words) => {
                reverted.left.push(words);
                left.push(Entry { under_way: false, ..entry });
            }
            Fate::Forget(words) => reverted.gone.push(words),
        }
    }
    // On disk before anything changes, so that the next revert knows what was decided.
    let boot = knobs.boot();
    let with = |entries: &[Entry], left: &[Entry]| {
        let mut journal = Journal::new(boot.clone());
        journal.entries = [entries, left].concat();
        journal
    };
    store.save(&with(&all, &left)).context("nothing was put back")?;
    let failed = put_back(knobs, &all, &mut reverted);
    let (stuck, words): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
    store.save(&with(&stuck, &left))?;
    if !words.is_empty() {
        bail!("{}; the journal keeps them: fanq tune revert tries once more", words.join("; "));
    }
    Ok(Some(reverted))
}

fn fate(knobs: &dyn Knobs, entry: &Entry, force: bool, restarted: bool) -> Fate {
    let id = entry.setting.id();
    let now = match knobs.read(&entry.setting) {
        Ok(now) => now,
        Err(KnobError::Gone { place }) => {
            return Fate::Forget(format!("{id}: {place} is not there"));
        }
        // The attempt to write it says why.
        Err(KnobError::Refused { .. }) => return Fate::PutBack,
    };
    let owner = knobs.owner(&entry.setting);
    if owner != entry.owner {
        return Fate::Forget(format!("{id} was {}'s and is {owner}'s now", entry.owner));
    }
    let unsettled = entry.under_way && !restarted;
    if force || unsettled || entry.is_old(&now) || entry.is_ours(&now) {
        return Fate::PutBack;
    }
    Fate::Leave(format!(
        "{id} is {}, which somebody else has set since; before fanq it was {}: {}",
        now.trim(),
        entry.old.trim(),
        entry.setting.command(&entry.old)
    ))
}

/// Writes the old values, the last changed first, and looks at all of them in the end: a device that was given back
/// its queues may have reset what was set before. Returns what does not stay, with the reason.
fn put_back(
    knobs: &mut dyn Knobs,
    entries: &[Entry],
    reverted: &mut Reverted,
) -> Vec<(Entry, String)> {
    for entry in entries.iter().rev() {
        let now = knobs.read(&entry.setting).ok();
        if now.as_deref() == Some(entry.old.as_str()) {
            reverted.already += 1;
            continue;
        }
        reverted.put_back += 1;
        if let Setting::Ethtool { device, table: Table::Channels, .. } = &entry.setting {
            reverted.reset.push(device.clone());
        }
        // What was refused shows below.
        let _ = knobs.write(&entry.setting, &entry.old);
    }
    let mut failed = Vec::new();
    for entry in entries {
        if let Err(error) = settle(knobs, entry) {
            failed.push((entry.clone(), format!("{}: {error}", entry.setting.id())));
        }
    }
    failed
}

/// Sees that an entry has its old value, and tries once more if it has not.
fn settle(knobs: &mut dyn Knobs, entry: &Entry) -> Result<(), KnobError> {
    let gone = |error| if matches!(error, KnobError::Gone { .. }) { Ok(()) } else { Err(error) };
    match knobs.read(&entry.setting) {
        Ok(now) if entry.is_old(&now) => return Ok(()),
        Ok(_) => {}
        Err(error) => gone(error)?,
    }
    if let Err(error) = knobs.write(&entry.setting, &entry.old) {
        return gone(error);
    }
    match knobs.read(&entry.setting) {
        Ok(now) if entry.is_old(&now) => Ok(()),
        Ok(now) => {
            let words = format!("was set to {} and is {}", entry.old.trim(), now.trim());
            Err(KnobError::Refused { place: entry.setting.command(&entry.old), words })
        }
        Err(error) => gone(error),
    }
}
