//! The way back from other threads to a worker: letters are left, and the worker is woken if it sleeps.
//!
//! Invariant: a worker that went to sleep after [`Mailbox::fall_asleep`] agreed is woken by the next letter, however
//! the two meet; while it is awake, nobody pays for a wake-up. All of it is one short critical section, entered once
//! a letter by those who leave them and once a turn by the worker; the worker reads letters outside of it. (A test
//! goes through every interleaving.) It allocates only beyond its capacity.

#[cfg(not(feature = "_loom"))]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "_loom")]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(feature = "_loom")]
use std::sync::PoisonError;

/// Wakes a sleeper that waits in a system call.
pub(crate) trait Wake {
    /// Makes the call return.
    fn wake(&self);
}

/// Letters for one worker.
#[derive(Debug)]
pub(crate) struct Mailbox<T, W> {
    inner: Mutex<Inner<T>>,
    /// For a worker that sleeps here.
    arrived: Condvar,
    /// For a worker that sleeps in a receive.
    waker: W,
}

#[derive(Debug)]
struct Inner<T> {
    letters: Vec<T>,
    asleep: Option<Asleep>,
    open: bool,
    /// Letters that came after the end.
    late: u64,
}

/// Where the worker sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asleep {
    /// In a receive on its socket.
    InReceive,
    /// In [`Mailbox::wait`].
    Here,
}

impl<T, W: Wake> Mailbox<T, W> {
    pub(crate) fn new(waker: W, capacity: usize) -> Self {
        let inner =
            Inner { letters: Vec::with_capacity(capacity), asleep: None, open: true, late: 0 };
        Self { inner: Mutex::new(inner), arrived: Condvar::new(), waker }
    }

    /// A thread that panicked in here left nothing half-done: every critical section is a few plain stores.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a letter. False if the worker has ended: then it is counted, and given back to nobody.
    pub(crate) fn post(&self, letter: T) -> bool {
        self.post_all(std::iter::once(letter))
    }

    /// Leaves several at once.
    pub(crate) fn post_all(&self, letters: impl IntoIterator<Item = T>) -> bool {
        let mut inner = self.lock();
        if !inner.open {
            // Dropped without the lock: a letter may hold much memory.
            drop(inner);
            let count = letters.into_iter().count();
            self.lock().late += count as u64;
            return false;
        }
        inner.letters.extend(letters);
        let asleep = inner.asleep.take();
        drop(inner);
        match asleep {
            Some(Asleep::InReceive) => self.waker.wake(),
            Some(Asleep::Here) => self.arrived.notify_one(),
            None => {}
        }
        true
    }

    /// Takes all letters, in exchange for an empty vector of the same capacity.
    pub(crate) fn collect(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty(), "letters are read before more are collected");
        std::mem::swap(&mut self.lock().letters, into);
    }

    /// Agrees that the worker may sleep in its receive; not if a letter waits.
    pub(crate) fn fall_asleep(&self) -> bool {
        let mut inner = self.lock();
        let may = inner.letters.is_empty();
        inner.asleep = may.then_some(Asleep::InReceive);
        may
    }

    /// The worker woke by itself.
    pub(crate) fn wake_up(&self) {
        self.lock().asleep = None;
    }

    /// Sleeps until a letter comes or the mailbox is closed, `limit` at most.
    #[cfg_attr(feature = "_loom", expect(unused_variables, reason = "loom has no time"))]
    pub(crate) fn wait(&self, limit: Duration) {
        let mut inner = self.lock();
        if !inner.letters.is_empty() || !inner.open {
            return;
        }
        inner.asleep = Some(Asleep::Here);
        #[cfg(not(feature = "_loom"))]
        let (mut inner, _) =
            self.arrived.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner);
        #[cfg(feature = "_loom")]
        let mut inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        inner.asleep = None;
    }

    /// Ends it: letters that wait and those that come are late.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.open = false;
        let letters = std::mem::take(&mut inner.letters);
        inner.late += letters.len() as u64;
        let asleep = inner.asleep.take();
        drop(inner);
        drop(letters);
        if asleep == Some(Asleep::Here) {
            self.arrived.notify_one();
        }
    }

    /// Whether it is not closed.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// How many letters came after the end.
    pub(crate) fn late(&self) -> u64 {
        self.lock().late
    }
}

#[cfg(all(test, not(feature = "_loom")))]
mod tests;

#[cfg(all(test, feature = "_loom"))]
#[path = "mailbox/tests/every_interleaving.rs"]
mod every_interleaving;
