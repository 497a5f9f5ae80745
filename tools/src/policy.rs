//! The built-in inspector of `fanq run`: accepts, drops, or drops a share at random; it may spend time on each
//! packet, to stand for an inspector that has work to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fanq::{Inspector, Packet, Timestamp, Verdict};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What to do with every packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Policy {
    /// Let all pass.
    Accept,
    /// Drop all.
    Drop,
    /// Drop this share, 0.0 to 1.0, of all, at random.
    DropShare(f64),
    /// For tests of what happens then: accept, and panic at every so manieth packet.
    PanicAt(u32),
    /// The same, and never come back from it.
    HangAt(u32),
}

/// Who decides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PolicyChoice {
    /// The same for every packet.
    Plain(Policy),
    /// The rules of this file.
    Rules(PathBuf),
}

impl fmt::Display for PolicyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(Policy::Accept) => f.write_str("accept"),
            Self::Plain(Policy::Drop) => f.write_str("drop"),
            Self::Plain(Policy::DropShare(share)) => write!(f, "drop:{}", share * 100.0),
            Self::Plain(Policy::PanicAt(nth)) => write!(f, "panic:{nth}"),
            Self::Plain(Policy::HangAt(nth)) => write!(f, "hang:{nth}"),
            Self::Rules(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for PolicyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = Path::new(text);
        if path.extension().is_some_and(|extension| extension == "toml") {
            return Ok(Self::Rules(path.to_owned()));
        }
        text.parse().map(Self::Plain)
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            format!(
                "`{text}` is no policy: write accept, drop, or drop:<percent 0 to 100>, or the path of a rules file, \
                 which ends in .toml"
            )
        };
        match text.split_once(':') {
            None if text == "accept" => Ok(Self::Accept),
            None if text == "drop" => Ok(Self::Drop),
            Some(("panic", nth)) => nth.parse().map(Self::PanicAt).map_err(|_| bad()),
            Some(("hang", nth)) => nth.parse().map(Self::HangAt).map_err(|_| bad()),
            Some(("drop", percent)) => {
                let percent: f64 = percent.trim_end_matches('%').parse().map_err(|_| bad())?;
                if (0.0..=100.0).contains(&percent) {
                    Ok(Self::DropShare(percent / 100.0))
                } else {
                    Err(bad())
                }
            }
            _ => Err(bad()),
        }
    }
}

/// One worker's copy of the policy, with its own source of chance.
#[derive(Debug)]
pub(crate) struct PolicyInspector {
    policy: Policy,
    work_ns: u32,
    random: SmallRng,
    /// Packets until it fails, where it is to.
    left: u32,
}

impl PolicyInspector {
    pub(crate) fn new(policy: Policy, work_ns: u32) -> Self {
        let left = match policy {
            Policy::PanicAt(nth) | Policy::HangAt(nth) => nth,
            _ => 0,
        };
        Self { policy, work_ns, random: SmallRng::from_rng(&mut rand::rng()), left }
    }

    #[inline]
    fn decide(&mut self) -> Verdict {
        let drop = match self.policy {
            Policy::Accept => false,
            Policy::Drop => true,
            Policy::DropShare(share) => self.random.random_bool(share),
            Policy::PanicAt(_) | Policy::HangAt(_) => self.fail_in_time(),
        };
        if drop { Verdict::DROP } else { Verdict::ACCEPT }
    }
}

impl PolicyInspector {
    /// Counts down to the failure that was asked for. False until then: nothing is dropped.
    #[cold]
    fn fail_in_time(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            assert!(!matches!(self.policy, Policy::PanicAt(_)), "as --policy panic asks");
            loop {
                std::thread::park();
            }
        }
        false
    }
}

impl Inspector for PolicyInspector {
    #[inline]
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        if self.work_ns > 0 {
            spend(self.work_ns);
        }
        self.decide()
    }

    fn unseen(&mut self) -> Verdict {
        match self.policy {
            Policy::PanicAt(_) | Policy::HangAt(_) => Verdict::ACCEPT,
            _ => self.decide(),
        }
    }
}

/// Keeps the CPU busy for so long. The clock itself takes some of it: below about 50 ns it is longer.
fn spend(ns: u32) {
    let until = Timestamp::now().0 + u64::from(ns);
    while Timestamp::now().0 < until {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_what_the_help_says() {
        assert_eq!("accept".parse(), Ok(Policy::Accept));
        assert_eq!("drop".parse(), Ok(Policy::Drop));
        assert_eq!("drop:10".parse(), Ok(Policy::DropShare(0.1)));
        assert_eq!("drop:100%".parse(), Ok(Policy::DropShare(1.0)));
        for text in ["", "Accept", "drop:", "drop:x", "drop:101", "drop:-1", "drop:nan", "accept:1"]
        {
            assert!(text.parse::<Policy>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_path_that_ends_in_toml_is_a_rules_file() {
        assert_eq!("a/rules.toml".parse(), Ok(PolicyChoice::Rules("a/rules.toml".into())));
        assert_eq!("drop".parse(), Ok(PolicyChoice::Plain(Policy::Drop)));
        assert!("rules.tml".parse::<PolicyChoice>().unwrap_err().contains("ends in .toml"));
    }

    #[test]
    fn a_share_drops_about_that_share() {
        let mut inspector = PolicyInspector::new(Policy::DropShare(0.1), 0);
        let dropped = (0..100_000).filter(|_| inspector.decide() == Verdict::DROP).count();
        // Ten standard deviations around 10,000.
        assert!((9_050..10_950).contains(&dropped), "{dropped} of 100000");
    }
}
