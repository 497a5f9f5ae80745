//! One change of the machine: what is set, from what to what, why, and what it costs.
//!
//! Invariant: it does nothing; a person can do and undo it with the commands that it names.

use super::setting::Setting;

/// A change that a plan proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) setting: Setting,
    /// Byte for byte as it was read.
    pub(crate) old: String,
    pub(crate) new: String,
    /// In one line.
    pub(crate) reason: String,
    /// In one line.
    pub(crate) cost: &'static str,
}

impl Change {
    /// What a person types to do it.
    pub(crate) fn command(&self) -> String {
        self.setting.command(&self.new)
    }

    /// What a person types to undo it.
    pub(crate) fn undo(&self) -> String {
        self.setting.command(&self.old)
    }
}
