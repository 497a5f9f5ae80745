//! The places between which a process may be killed. In the program they are nothing; the tests end there.
//!
//! Invariant: every change of the machine and of the journal has one before it and one behind it.

/// Marks a place.
#[inline]
pub(super) fn step() {
    #[cfg(test)]
    kill::step();
}

/// Ends what runs at the n-th place, as a kill would: nothing behind it is done.
#[cfg(test)]
pub(super) mod kill {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// What a killed run leaves in the place of its result.
    #[derive(Debug)]
    pub(crate) struct Killed;

    pub(super) fn step() {
        match LEFT.get() {
            None => {}
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    /// Runs `work` and kills it at place `n`, counted from 0. Its result, if it came to its end before.
    pub(crate) fn at<T>(n: usize, work: impl FnOnce() -> T) -> Result<T, Killed> {
        LEFT.set(Some(n));
        let result = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(None);
        result.map_err(|cause| match cause.downcast::<Killed>() {
            Ok(killed) => *killed,
            Err(other) => resume_unwind(other),
        })
    }
}
