//! From samples to what is shown: rates, shares, histories, and what is wrong.
//!
//! Invariant: pure. What comes out depends on the samples put in and their order, on no clock and no file. Counters
//! that wrap at 2^32 count on; a queue that was bound anew since the last sample begins at 0, and so does one that was
//! not there; time that stands still gives no rate.

mod board;
mod cpu;
mod histogram;
mod kernel;
mod problems;
mod told;

pub(super) use board::{Board, Program, QueueLine, Totals};
pub(super) use problems::{Problem, Severity};

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and rates are not exact")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// How many bars a history has: as many samples are remembered.
pub(super) const HISTORY_LENGTH: usize = 60;

#[cfg(test)]
mod tests;
