//! What is asked of the queues beside queueing, flag by flag, and how much it matters.
//!
//! Invariant: a wish says what happens when the kernel refuses; whether it does is found out by binding, in
//! queue.rs.

use std::str::FromStr;

use crate::nfq::{ConfigFlags, QueueFlag};

/// How much one flag matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlagWish {
    /// Not asked for.
    #[default]
    Off,
    /// Asked for; a kernel that refuses it is a warning.
    Wanted,
    /// Asked for; a kernel that refuses it stops the start.
    Required,
}

/// `true` is required: who asks for something without more words counts on it.
impl From<bool> for FlagWish {
    fn from(on: bool) -> Self {
        if on { Self::Required } else { Self::Off }
    }
}

/// `wanted`, `required` (or `true`), `off` (or `false`).
impl FromStr for FlagWish {
    type Err = FlagWishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" | "false" => Ok(Self::Off),
            "wanted" => Ok(Self::Wanted),
            "required" | "true" => Ok(Self::Required),
            _ => Err(FlagWishError(text.to_owned())),
        }
    }
}

/// A text that is no wish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no wish: write wanted, required (or true), or off (or false)")]
pub struct FlagWishError(String);

/// The wishes for all flags. By default all are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlagWishes([FlagWish; QueueFlag::COUNT]);

impl FlagWishes {
    /// The wish for one flag.
    #[must_use]
    pub fn of(&self, flag: QueueFlag) -> FlagWish {
        self.0[flag as usize]
    }

    /// Changes the wish for one flag.
    pub fn set(&mut self, flag: QueueFlag, wish: FlagWish) {
        self.0[flag as usize] = wish;
    }

    /// Those that are asked for.
    #[must_use]
    pub fn asked(&self) -> ConfigFlags {
        QueueFlag::ALL.into_iter().filter(|flag| self.of(*flag) != FlagWish::Off).collect()
    }

    /// Those that the start depends on.
    #[must_use]
    pub fn required(&self) -> ConfigFlags {
        QueueFlag::ALL.into_iter().filter(|flag| self.of(*flag) == FlagWish::Required).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_kept_apart_and_read_in_every_notation() {
        let mut wishes = FlagWishes::default();
        assert!(wishes.asked().is_empty() && wishes.required().is_empty());
        for (index, flag) in QueueFlag::ALL.into_iter().enumerate() {
            assert_eq!(wishes.of(flag), FlagWish::Off);
            wishes.set(flag, if index % 2 == 0 { FlagWish::Required } else { FlagWish::Wanted });
        }
        assert_eq!(wishes.asked(), ConfigFlags::ALL);
        assert_eq!(wishes.required().to_string(), "fail-open, gso, secctx");
        for (text, wish) in [
            ("off", FlagWish::Off),
            ("false", FlagWish::from(false)),
            ("wanted", FlagWish::Wanted),
            ("required", FlagWish::Required),
            ("true", FlagWish::from(true)),
        ] {
            assert_eq!(text.parse(), Ok(wish));
        }
        assert!("yes".parse::<FlagWish>().unwrap_err().to_string().contains("wanted, required"));
    }
}
