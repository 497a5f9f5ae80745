//! The log: alerts, drops and statistics as lines of JSON in the format of Suricata's EVE.
//!
//! ```text
//! worker 0 -> ring of records \
//! worker 1 -> ring of records  -> one thread: format, write -> file or unix socket
//! main     -> messages        /
//! ```
//!
//! Invariant: a worker never waits for the log. It writes a record of fixed size into its own ring; what finds the ring
//! full is counted by the worker, what cannot be written by the thread, so lines written + lost = lines due.

mod format;
mod output;
mod record;
mod writer;

pub(crate) use record::{EveRecord, EveSender, Judged};
#[cfg(test)]
pub(crate) use record::{RING_RECORDS, ring};
pub(crate) use writer::{EveLog, EveTally, RuleNames};

use std::path::PathBuf;
use std::str::FromStr;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EveTarget {
    /// Appended to a file, which is opened again on SIGHUP.
    File(PathBuf),
    /// A stream socket on which a reader listens; it may come and go.
    Socket(PathBuf),
}

impl FromStr for EveTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, is_socket) = match text.strip_prefix("unix:") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err(format!("`{text}` names no file: write FILE or unix:PATH"));
        }
        Ok(if is_socket { Self::Socket(path.into()) } else { Self::File(path.into()) })
    }
}
