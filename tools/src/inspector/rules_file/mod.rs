//! The rules file: what it may say, read and checked whole.
//!
//! Invariant: a [`RulesFile`] is complete and can be compiled without error. Whatever is wrong in the text, or in a
//! file that it includes, is one error with file, line, column and what was expected; nothing is guessed. It knows
//! no packet: that is the compiled policy's business.

mod error;
pub(crate) mod files;
mod include;
mod rule;
mod schema;
mod values;

use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::mark::MarkBits;
use error::Wrong;
use files::{Disk, Files};
use schema::{FileText, Scalar};

pub(crate) use error::RulesFileError;
pub(crate) use rule::{Action, Conditions, Limit, LimitScope, Rule, WITH_PORTS};
pub(crate) use values::{Pattern, PortRange, Prefix};

/// A rules file with all that it includes.
#[derive(Debug, Clone)]
pub(crate) struct RulesFile {
    /// In the order in which they are tried.
    pub(crate) rules: Vec<Rule>,
    pub(crate) settings: Settings,
    /// All files that were read, the first one first.
    pub(crate) files: Vec<PathBuf>,
}

/// What holds for all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What becomes of a packet that no rule decides.
    pub(crate) default_drops: bool,
    /// Whether such a drop is written to the log.
    pub(crate) default_log: bool,
    /// What a packet to be rejected is marked with.
    pub(crate) reject_mark: Option<MarkBits>,
    /// What a packet is marked with whose flow is to be seen no more.
    pub(crate) bypass_mark: Option<MarkBits>,
    /// How many flows each worker keeps pattern state of.
    pub(crate) flow_table: usize,
    /// How many addresses and flows each worker counts for limits.
    pub(crate) limit_table: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_drops: false,
            default_log: false,
            reject_mark: None,
            bypass_mark: None,
            flow_table: TABLE_DEFAULT,
            limit_table: TABLE_DEFAULT,
        }
    }
}

impl RulesFile {
    /// Reads a file and all that it includes.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub(crate) fn load(path: &Path) -> Result<Self, RulesFileError> {
        Self::read(path, &Disk)
    }

    /// Reads a file and all that it includes, from wherever files are.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub(crate) fn read(path: &Path, files: &impl Files) -> Result<Self, RulesFileError> {
        let (rules, settings, files) = include::read(path, files)?;
        Ok(Self { rules, settings, files })
    }
}

/// Reads the keys that only the first file may have.
fn settings(file: &mut FileText) -> Result<Settings, Wrong> {
    let mut settings = Settings::default();
    if let Some(default) = file.default.take() {
        settings.default_drops = match default.get_ref().as_str() {
            "accept" => false,
            "drop" => true,
            other => {
                let what = format!("`{other}` is no default: write \"accept\" or \"drop\"");
                return Err(Wrong::at(default.span(), what));
            }
        };
    }
    settings.default_log = file.default_log.take().is_some_and(Spanned::into_inner);
    settings.reject_mark = mark(file.reject_mark.take())?;
    let bypass_span = file.bypass_mark.as_ref().map(Spanned::span);
    settings.bypass_mark = mark(file.bypass_mark.take())?;
    if let (Some(reject), Some(bypass), Some(span)) =
        (settings.reject_mark, settings.bypass_mark, bypass_span)
        && reject.blurs_with(bypass)
    {
        let what = format!(
            "bypass-mark {bypass} and reject-mark {reject} are taken for each other: write one with another bit"
        );
        return Err(Wrong::at(span, what));
    }
    settings.flow_table = table_size("flow-table", file.flow_table.take())?;
    settings.limit_table = table_size("limit-table", file.limit_table.take())?;
    Ok(settings)
}

/// The place of a key that an included file may not have.
fn key_of_the_first_file(file: &FileText) -> Option<Wrong> {
    let spans = [
        ("default", file.default.as_ref().map(Spanned::span)),
        ("default-log", file.default_log.as_ref().map(Spanned::span)),
        ("reject-mark", file.reject_mark.as_ref().map(Spanned::span)),
        ("bypass-mark", file.bypass_mark.as_ref().map(Spanned::span)),
        ("flow-table", file.flow_table.as_ref().map(Spanned::span)),
        ("limit-table", file.limit_table.as_ref().map(Spanned::span)),
    ];
    let found = spans.into_iter().find_map(|(key, span)| Some((key, span?)));
    found.map(|(key, span)| {
        Wrong::at(
            span,
            format!("`{key}` holds for all rules: write it in the file that includes this one"),
        )
    })
}

fn mark(value: Option<Spanned<Scalar>>) -> Result<Option<MarkBits>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    values::mark(value.get_ref()).map(Some).map_err(|what| Wrong::at(value.span(), what))
}

fn table_size(key: &str, value: Option<Spanned<i64>>) -> Result<usize, Wrong> {
    let Some(value) = value else { return Ok(TABLE_DEFAULT) };
    let size = usize::try_from(*value.get_ref()).ok();
    size.filter(|size| (TABLE_MIN..=TABLE_MAX).contains(size)).ok_or_else(|| {
        let number = value.get_ref();
        Wrong::at(
            value.span(),
            format!("{key} {number} is out of range: {TABLE_MIN} to {TABLE_MAX}"),
        )
    })
}

/// Entries in each worker's tables.
const TABLE_DEFAULT: usize = 65_536;
const TABLE_MIN: usize = 64;
/// 16 Mi flows are more than a gigabyte a worker.
const TABLE_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests;
