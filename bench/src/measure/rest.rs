//! Rests after trials from which the host took CPU time: a host that holds back a guest which used its CPUs for long
//! lets it have them again once it has been idle for a while.
//!
//! Invariant: rests double while trials stay disturbed, up to a bound each, and up to a bound for the whole run. It
//! judges no trial; what is void was said before.

use std::time::Duration;

/// How long to rest, trial by trial.
#[derive(Debug)]
pub(super) struct Rests {
    next: Duration,
    left: Duration,
}

impl Rests {
    pub(super) fn new() -> Self {
        Self { next: LEAST, left: ALL }
    }

    /// How long to rest after a trial, by whether the host disturbed it; zero after one in peace, and once all rest
    /// is used up.
    pub(super) fn after(&mut self, disturbed: bool) -> Duration {
        if !disturbed {
            self.next = LEAST;
            return Duration::ZERO;
        }
        let rest = self.next.min(self.left);
        self.next = (self.next * 2).min(MOST);
        self.left -= rest;
        rest
    }
}

const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(8);
/// Of one run.
const ALL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_until_a_trial_is_left_in_peace() {
        let mut rests = Rests::new();
        let seconds: Vec<_> = [true, true, false, true, true, true, true, true]
            .map(|disturbed| rests.after(disturbed).as_secs())
            .into();
        assert_eq!(seconds, [1, 2, 0, 1, 2, 4, 8, 8]);
    }

    #[test]
    fn a_run_rests_only_so_long() {
        let mut rests = Rests::new();
        let all: Duration = (0..1000).map(|_| rests.after(true)).sum();
        assert_eq!(all, ALL);
        assert_eq!(rests.after(true), Duration::ZERO);
    }
}
