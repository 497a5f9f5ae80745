//! A search that is asked for one trial at a time, so that the searches of several targets take turns on a machine that
//! is faster in one minute than in the next.
//!
//! Method: the search draws no random number, so it asks for the same trials again if it sees the same outcomes. It is
//! run from its beginning over the outcomes so far, until it asks for one that there is not yet.
//!
//! Invariant: it finds what [`search`] finds from the same outcomes.

use anyhow::bail;

use super::{Found, Outcome, Plan, Trials, search};

/// One target's search, between two of its trials.
#[derive(Debug)]
pub(crate) struct Stepwise<'a> {
    target: &'a str,
    plan: &'a Plan,
    outcomes: Vec<Outcome>,
}

/// What a search needs next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The outcome of a trial of the plan's length at this rate, for [`Stepwise::take`].
    Trial { pps: f64 },
    /// Nothing: this is what it found.
    Found(Vec<Found>),
}

impl<'a> Stepwise<'a> {
    pub(crate) fn new(target: &'a str, plan: &'a Plan) -> Self {
        Self { target, plan, outcomes: Vec::new() }
    }

    pub(crate) fn next(&self) -> anyhow::Result<Step> {
        let mut replay = Replay { outcomes: self.outcomes.iter(), asked: None };
        let found = search(self.target, self.plan, &mut replay);
        match replay.asked {
            Some(pps) => Ok(Step::Trial { pps }),
            None => found.map(Step::Found),
        }
    }

    /// The outcome of the trial that [`Stepwise::next`] asked for.
    pub(crate) fn take(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// Trials so far.
    pub(crate) fn trials(&self) -> usize {
        self.outcomes.len()
    }
}

struct Replay<'a> {
    outcomes: std::slice::Iter<'a, Outcome>,
    /// The rate of the first trial that has no outcome yet.
    asked: Option<f64>,
}

impl Trials for Replay<'_> {
    fn measure(&mut self, pps: f64, _seconds: f64) -> anyhow::Result<Outcome> {
        let Some(outcome) = self.outcomes.next() else {
            self.asked = Some(pps);
            bail!("no outcome yet");
        };
        Ok(*outcome)
    }
}
