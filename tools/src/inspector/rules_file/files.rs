//! What a path in a rules file leads to: on the disk, or to texts that a fuzz target made up (`fuzz/targets/rules.rs`).
//!
//! Invariant: a path without symbolic links is one for each file, however the file was named. From the disk only
//! regular files of a bounded size are read.

use std::fs;
use std::path::{Path, PathBuf};

/// Where texts come from. Errors are words for people, without the path.
pub(crate) trait Files {
    /// The path without symbolic links.
    ///
    /// # Errors
    /// There is no such file.
    fn real(&self, path: &Path) -> Result<PathBuf, String>;

    /// The text of the file at a path without symbolic links.
    ///
    /// # Errors
    /// It is no text that is to be read as rules.
    fn text(&self, real: &Path) -> Result<String, String>;

    /// The files whose paths match the pattern, by name. `written` is the wildcard as it stands in the text.
    ///
    /// # Errors
    /// It is no wildcard, or a folder cannot be read.
    fn matching(&self, written: &str, pattern: &str) -> Result<Vec<PathBuf>, String>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk;

impl Files for Disk {
    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        fs::canonicalize(path).map_err(|error| format!("the rules file cannot be read: {error}"))
    }

    fn text(&self, real: &Path) -> Result<String, String> {
        let about = fs::metadata(real).map_err(|error| error.to_string())?;
        if !about.is_file() {
            return Err("this is no regular file: name a file of rules".to_owned());
        }
        if about.len() > FILE_BYTES_MAX {
            let megabytes = FILE_BYTES_MAX >> 20;
            return Err(format!("the file is larger than {megabytes} MiB: split it"));
        }
        fs::read_to_string(real).map_err(|error| format!("the rules file cannot be read: {error}"))
    }

    fn matching(&self, written: &str, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let paths =
            glob::glob(pattern).map_err(|error| format!("`{written}` is no wildcard: {error}"))?;
        paths
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`{written}` cannot be looked up: {error}"))
    }
}

/// A file of rules is far smaller; a device or a log given by mistake is not read whole.
const FILE_BYTES_MAX: u64 = 64 << 20;
