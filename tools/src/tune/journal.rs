//! What was changed and what it was before, on disk, so that it can be put back: also after a kill or a restart.
//!
//! Invariant: a journal on disk is whole, whenever the process is killed or the power goes: it is written beside its
//! place, synced, renamed, and the folder is synced. What it says before a change is true after it. One process at a
//! time holds the lock. What a journal cannot have been made from is refused, not guessed at.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::setting::Setting;
use super::step::step;

/// All that was changed and not put back yet, in the order in which it was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journal {
    /// [`FORMAT`].
    format: String,
    /// The run of the kernel in which it was written.
    pub(crate) boot: String,
    pub(crate) entries: Vec<Entry>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) setting: Setting,
    /// What it was before us, byte for byte.
    pub(crate) old: String,
    /// What it may be through us.
    pub(crate) ours: Vec<String>,
    /// What was asked for, where the machine has made the last of `ours` of it.
    pub(crate) rounded_from: Option<String>,
    /// Whose setting it was: a device, or empty.
    pub(crate) owner: String,
    /// Whether a change was under way: any value may be ours, such as one that the kernel has rounded.
    pub(crate) under_way: bool,
}

impl Entry {
    /// Whether we may have set it so.
    pub(crate) fn is_ours(&self, value: &str) -> bool {
        self.ours.iter().any(|ours| self.setting.same(ours, value))
    }

    /// Whether this was asked for, and is now what the machine makes of it.
    pub(crate) fn is_made_of(&self, asked: &str, value: &str) -> bool {
        let same =
            |one: Option<&String>, other| one.is_some_and(|one| self.setting.same(one, other));
        same(self.rounded_from.as_ref(), asked) && same(self.ours.last(), value)
    }

    /// Whether it is as before us.
    pub(crate) fn is_old(&self, value: &str) -> bool {
        self.setting.same(&self.old, value)
    }
}

impl Journal {
    pub(crate) fn new(boot: String) -> Self {
        Self { format: FORMAT.to_owned(), boot, entries: Vec::new() }
    }

    /// Whether a value that was asked for is there as far as the machine goes.
    pub(crate) fn has_made(&self, setting: &Setting, asked: &str, value: &str) -> bool {
        let mut entries = self.entries.iter().filter(|entry| entry.setting == *setting);
        entries.any(|entry| entry.is_made_of(asked, value))
    }

    /// Whether an apply or a revert did not come to its end.
    pub(crate) fn is_under_way(&self) -> bool {
        self.entries.iter().any(|entry| entry.under_way)
    }

    fn check(&self) -> anyhow::Result<()> {
        for (index, entry) in self.entries.iter().enumerate() {
            entry.setting.check().map_err(anyhow::Error::msg)?;
            let twice = self.entries.iter().skip(index + 1).any(|e| e.setting == entry.setting);
            ensure!(!twice, "{} is in it twice", entry.setting.id());
        }
        Ok(())
    }
}

/// Whether there is a journal, or the beginning of one that a killed process has left.
pub(crate) fn is_begun(path: &Path) -> bool {
    path.exists() || beside(path, PART).exists() || beside(path, LOCK).exists()
}

/// Reads a journal; none where nothing was changed.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Journal>> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading the journal {shown}"))?,
    };
    parse(&text).map(Some).with_context(|| {
        format!(
            "{shown} is no journal that this fanq can read, so nothing is done; put back by hand what it tells of, \
             and move it away: mv {shown} {shown}.unread"
        )
    })
}

fn parse(text: &str) -> anyhow::Result<Journal> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    match value["format"].as_str() {
        Some(FORMAT) => {}
        Some(other) => bail!("its format is {other:?}, this fanq writes {FORMAT:?}"),
        None => bail!("it names no format"),
    }
    let journal: Journal = serde_json::from_value(value)?;
    journal.check()?;
    Ok(journal)
}

/// The journal's place, locked for this process.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    lock: File,
}

impl Store {
    /// Makes the folder if need be, and takes the lock.
    ///
    /// # Errors
    /// Another process has the lock, or nothing can be written there.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
        }
        let lock_path = beside(path, LOCK);
        loop {
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&lock_path)
                .with_context(|| cannot_write(&lock_path))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                    "another fanq tune is at work; wait for its end (it holds {})",
                    lock_path.display()
                ),
                Err(error) => return Err(error).context("locking the journal"),
            }
            // Who held it before has taken the file away: a lock on a file without a name keeps nobody out.
            let named = std::fs::symlink_metadata(&lock_path).map(|named| named.ino()).ok();
            if named == Some(lock.metadata().context("looking at the lock")?.ino()) {
                // What a killed process had begun to write is no journal yet.
                let part = beside(path, PART);
                ignore_missing(std::fs::remove_file(&part)).with_context(|| cannot_write(&part))?;
                return Ok(Self { path: path.to_owned(), lock });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn load(&self) -> anyhow::Result<Option<Journal>> {
        read(&self.path)
    }

    /// Puts it on disk; when this returns it stays there whatever happens. One without entries is none.
    pub(crate) fn save(&self, journal: &Journal) -> anyhow::Result<()> {
        if journal.entries.is_empty() {
            return self.remove();
        }
        let text = serde_json::to_string_pretty(journal)? + "\n";
        self.replace(text.as_bytes())
            .with_context(|| format!("writing the journal {}", self.path.display()))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let part = beside(&self.path, PART);
        step();
        // Everybody may read it: `plan` does, which needs no rights, and nothing in it is secret.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&part)?;
        step();
        file.write_all(bytes)?;
        step();
        file.sync_all()?;
        std::fs::rename(&part, &self.path)?;
        step();
        self.sync_folder()
    }

    fn remove(&self) -> anyhow::Result<()> {
        step();
        ignore_missing(std::fs::remove_file(&self.path))
            .and_then(|()| self.sync_folder())
            .with_context(|| format!("removing the journal {}", self.path.display()))?;
        step();
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Taken away while the lock is held, so nobody else's goes. A killed process leaves it, and then it is free.
        let _ = std::fs::remove_file(beside(&self.path, LOCK));
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn cannot_write(path: &Path) -> String {
    format!("the journal cannot be kept at {}; run as root, or give --state FILE", path.display())
}

/// Changes with every change of meaning.
const FORMAT: &str = "fanq.tune/1";
const PART: &str = ".part";
const LOCK: &str = ".lock";

#[cfg(test)]
mod tests;
