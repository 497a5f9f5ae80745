//! Rests after trials from which the host took CPU time: a host that holds back a guest which used its CPUs for long
//! lets it have them again once it has been idle for a while.
//!
//! Invariant: rests double while the host goes on, up to a bound each, and up to a bound for the whole run. The time
//! of a rest is not looked at: the machine is idle then, and its ticks would thin what the next trial suffered. It
//! judges no trial; what is void was said before.

use std::time::Duration;

use crate::machine::{StolenTime, Taken};

/// How long to rest, trial by trial.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rests {
    /// The end of the last rest, or of the trial before where there was none.
    since: StolenTime,
    next: Duration,
    left: Duration,
}

impl Rests {
    pub(super) fn new(now: StolenTime) -> Self {
        Self { since: now, next: LEAST, left: ALL }
    }

    /// Rests after a trial, by `rest`, if the host took time since the rest or the trial before. Returns for how long.
    pub(super) fn after_trial(
        &mut self,
        clock: impl Fn() -> anyhow::Result<StolenTime>,
        rest: impl FnOnce(Duration, Taken) -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        let now = clock()?;
        let taken = self.since.until(now);
        let length = self.after(taken);
        self.since = if length.is_zero() {
            now
        } else {
            rest(length, taken)?;
            clock()?
        };
        Ok(length)
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
    use std::cell::Cell;

    use anyhow::Context;

    use super::*;

    const PEACE: Taken = Taken { ticks: 1, share: 0.05 };
    const TAKEN: Taken = Taken { ticks: 2, share: 0.05 };
    const LITTLE: Taken = Taken { ticks: 20, share: 0.009 };

    #[test]
    fn rests_double_until_a_trial_is_left_in_peace() {
        let mut rests = Rests::new(StolenTime::now().unwrap());
        let seconds =
            [TAKEN, TAKEN, PEACE, TAKEN, TAKEN, LITTLE, TAKEN, TAKEN, TAKEN, TAKEN, TAKEN]
                .map(|taken| rests.after(taken).as_secs());
        assert_eq!(seconds, [1, 2, 0, 1, 2, 0, 1, 2, 4, 8, 8]);
    }

    /// By a clock of two CPUs with a hundred ticks a second each, as a session has it: a trial of a tenth of a second
    /// of which the host takes a tenth, and a rest in which nobody wants the CPU.
    #[test]
    fn what_a_rest_lasts_does_not_thin_what_the_next_trial_suffered() {
        let ticks = Cell::new((0, 0));
        let pass = |all: u64, stolen: u64| ticks.set((ticks.get().0 + all, ticks.get().1 + stolen));
        let clock = || {
            let (all, stolen) = ticks.get();
            let text = format!("cpu 0 0 0 {} 0 0 0 {stolen}\n", all - stolen);
            StolenTime::parse(&text).context("a line of /proc/stat")
        };
        let mut rests = Rests::new(clock().unwrap());
        let seconds = [(); 5].map(|()| {
            pass(20, 2);
            let rest = |length: Duration, taken: Taken| {
                assert_eq!(taken, Taken { ticks: 2, share: 0.1 });
                pass(200 * length.as_secs(), 0);
                Ok(())
            };
            rests.after_trial(clock, rest).unwrap().as_secs()
        });
        assert_eq!(seconds, [1, 2, 4, 8, 8]);
        pass(20, 0);
        let unwanted = |_, _| panic!("a trial in peace needs no rest");
        assert_eq!(rests.after_trial(clock, unwanted).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_run_rests_only_so_long() {
        let mut rests = Rests::new(StolenTime::now().unwrap());
        let all: Duration = (0..1000).map(|_| rests.after(TAKEN)).sum();
        assert_eq!(all, ALL);
        assert_eq!(rests.after(TAKEN), Duration::ZERO);
    }
}
