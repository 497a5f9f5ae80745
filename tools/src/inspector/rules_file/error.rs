//! What is wrong with a rules file, and where.
//!
//! Invariant: an error names the file and, where it stands in the text, line and column, both from 1; columns count
//! characters.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A rules file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RulesFileError {
    path: PathBuf,
    /// Line and column; none where the file as a whole is meant.
    place: Option<(usize, usize)>,
    what: String,
}

impl RulesFileError {
    /// About a file as a whole: it cannot be read.
    pub(super) fn of_file(path: &Path, what: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), place: None, what: what.to_string() }
    }

    /// About a place in its text.
    pub(super) fn at(path: &Path, text: &str, wrong: Wrong) -> Self {
        let place = wrong.span.map(|span| line_and_column(text, span.start));
        Self { path: path.to_owned(), place, what: wrong.what }
    }
}

impl fmt::Display for RulesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.place {
            Some((line, column)) => write!(f, "{path}:{line}:{column}: {}", self.what),
            None => write!(f, "{path}: {}", self.what),
        }
    }
}

impl std::error::Error for RulesFileError {}

/// Something wrong in a text that is not named yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Bytes of the text.
    pub(super) span: Option<Range<usize>>,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn at(span: Range<usize>, what: impl fmt::Display) -> Self {
        Self { span: Some(span), what: what.to_string() }
    }
}

impl From<toml::de::Error> for Wrong {
    fn from(error: toml::de::Error) -> Self {
        Self { span: error.span(), what: error.message().replace('\n', ", ") }
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_in_characters() {
        assert_eq!(line_and_column("", 0), (1, 1));
        assert_eq!(line_and_column("ab\ncd", 4), (2, 2));
        assert_eq!(line_and_column("a\nüx", 4), (2, 2));
        assert_eq!(line_and_column("a", 99), (1, 2), "an offset beyond the text is its end");
    }
}
