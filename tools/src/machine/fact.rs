//! What is known about the machine, or why it is not.
//!
//! Invariant: what could not be read is never taken for a value. It carries the words that a person needs to see it
//! next time.

/// A value that was read, or the reason why it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact<T> {
    /// As the machine says.
    Known(T),
    /// What stands in the way: `/proc/config.gz: No such file or directory`.
    Unseen(String),
}

impl<T> Fact<T> {
    /// The value, where there is one.
    pub(crate) const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unseen(_) => None,
        }
    }

    /// Why there is no value.
    pub(crate) fn why_unseen(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unseen(why) => Some(why),
        }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(change(value)),
            Self::Unseen(why) => Fact::Unseen(why),
        }
    }

    pub(crate) fn and_then<U>(self, change: impl FnOnce(T) -> Fact<U>) -> Fact<U> {
        match self {
            Self::Known(value) => change(value),
            Self::Unseen(why) => Fact::Unseen(why),
        }
    }

    /// This if it is known, else the other; the words of the first are kept if neither is.
    pub(crate) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Known(value) => Self::Known(value),
            Self::Unseen(why) => match other() {
                Self::Known(value) => Self::Known(value),
                Self::Unseen(_) => Self::Unseen(why),
            },
        }
    }
}
