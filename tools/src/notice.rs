//! What is said on standard error, by level: quiet is what is wrong, normal what happens, verbose who asked.
//!
//! Invariant: errors and warnings are said at every level, so they do not come by here. The level can change at any
//! time, from any thread. Workers say nothing but warnings.

use std::fmt::Display;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::ValueEnum;
use serde::Deserialize;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Errors and warnings.
    Quiet,
    /// Also the start, tables, and changes.
    #[default]
    Normal,
    /// Also who asks for what.
    Verbose,
}

impl LogLevel {
    pub(crate) const ALL: [Self; 3] = [Self::Quiet, Self::Normal, Self::Verbose];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Normal => "normal",
            Self::Verbose => "verbose",
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Normal as u8);

pub(crate) fn set_level(level: LogLevel) {
    // Relaxed: the number is all that there is to see.
    LEVEL.store(level as u8, Ordering::Relaxed);
}

pub(crate) fn level() -> LogLevel {
    let number = LEVEL.load(Ordering::Relaxed);
    LogLevel::ALL.into_iter().find(|level| *level as u8 == number).unwrap_or_default()
}

/// Says a line unless the level is quiet.
pub(crate) fn normal(line: impl Display) {
    if level() >= LogLevel::Normal {
        eprintln!("{line}");
    }
}

/// Says a line if the level is verbose.
pub(crate) fn verbose(line: impl Display) {
    if level() >= LogLevel::Verbose {
        eprintln!("{line}");
    }
}
