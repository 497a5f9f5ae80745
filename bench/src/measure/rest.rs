//! Rests after trials from which the host took CPU time: a host that holds back a guest which used its CPUs for long
//! lets it have them again once it has been idle for a while.
//!
//! Invariant: rests double while the host goes on, up to a bound each, and up to a bound for the whole run. It judges
//! no trial; what is void was said before.

use std::time::Duration;

use crate::machine::{StolenTime, Taken};

/// How long to rest, trial by trial.
#[derive(Debug)]
pub(super) struct Rests {
    since: StolenTime,
    next: Duration,
    left: Duration,
}

impl Rests {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { since: StolenTime::now()?, next: LEAST, left: ALL })
    }

    /// How long to rest after a trial, by what the host took since the trial before, and what that was.
    pub(super) fn after_trial(&mut self) -> anyhow::Result<(Duration, Taken)> {
        let now = StolenTime::now()?;
        let taken = self.since.until(now);
        self.since = now;
        Ok((self.after(taken), taken))
    }

    /// Zero where it was left in peace, and once all rest is used up.
    fn after(&mut self, taken: Taken) -> Duration {
        if taken.ticks < TICKS_LEAST || taken.share <= SHARE_MOST {
            self.next = LEAST;
            return Duration::ZERO;
        }
        let rest = self.next.min(self.left);
        self.next = (self.next * 2).min(MOST);
        self.left -= rest;
        rest
    }
}

/// In a trial of a tenth of a second a single tick may be what was taken over a much longer time.
const TICKS_LEAST: u64 = 2;
/// What makes a trial void.
const SHARE_MOST: f64 = crate::trial::STOLEN_SHARE_MAX;
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(8);
/// Of one run.
const ALL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const PEACE: Taken = Taken { ticks: 1, share: 0.05 };
    const TAKEN: Taken = Taken { ticks: 2, share: 0.05 };
    const LITTLE: Taken = Taken { ticks: 20, share: 0.009 };

    #[test]
    fn rests_double_until_a_trial_is_left_in_peace() {
        let mut rests = Rests::new().unwrap();
        let seconds =
            [TAKEN, TAKEN, PEACE, TAKEN, TAKEN, LITTLE, TAKEN, TAKEN, TAKEN, TAKEN, TAKEN]
                .map(|taken| rests.after(taken).as_secs());
        assert_eq!(seconds, [1, 2, 0, 1, 2, 0, 1, 2, 4, 8, 8]);
    }

    #[test]
    fn a_run_rests_only_so_long() {
        let mut rests = Rests::new().unwrap();
        let all: Duration = (0..1000).map(|_| rests.after(TAKEN)).sum();
        assert_eq!(all, ALL);
        assert_eq!(rests.after(TAKEN), Duration::ZERO);
    }
}
