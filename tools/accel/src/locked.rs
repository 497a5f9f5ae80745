//! A lock that a signal handler cannot deadlock on.
//!
//! ```text
//!   owner         0 | 0         this thread                      0 | 0
//!   inner  unlocked | locked    locked                      locked | unlocked
//!   CHANGING           set        -         what is done        set
//! ```
//!
//! Invariant: a thread that has the lock, or is just taking it or letting it go, never waits for it: it gets `None` and
//! must do without. Whoever asks then is a handler that came in between. It deliberately does not tell which of the
//! three it was.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering, compiler_fence};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

thread_local! {
    /// The address of the lock that this thread is just taking or letting go; 0 if none. Its own address is one that no
    /// other running thread has.
    static CHANGING: Cell<usize> = const { Cell::new(0) };
}

/// Something behind such a lock.
#[derive(Debug)]
pub(crate) struct Locked<T> {
    /// The thread that has it, as an address of its own; 0 if none.
    owner: AtomicUsize,
    inner: Mutex<T>,
}

impl<T> Locked<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self { owner: AtomicUsize::new(0), inner: Mutex::new(inner) }
    }

    /// Locks it. `None` if this very thread is at it already: then this is a signal handler that came in between, which
    /// must do without.
    #[inline]
    pub(crate) fn lock(&self) -> Option<Guard<'_, T>> {
        // Relaxed: only this thread stores its own address, so it reads it exactly if it has the lock.
        if self.owner.load(Ordering::Relaxed) == this_thread() || CHANGING.get() == self.address() {
            return None;
        }
        let change = Change::begin(self.address());
        let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Some(self.held(guard, change))
    }

    /// Locks it, unless somebody has it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let change = Change::begin(self.address());
        let guard = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.held(guard, change))
    }

    #[inline]
    fn held<'a>(&'a self, inner: MutexGuard<'a, T>, change: Change) -> Guard<'a, T> {
        self.owner.store(this_thread(), Ordering::Relaxed);
        drop(change);
        Guard { locked: self, inner, change: None }
    }

    /// Whether this is the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }

    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    locked: &'a Locked<T>,
    inner: MutexGuard<'a, T>,
    /// From when it is let go on. Fields are dropped in their order: this after the lock.
    change: Option<Change>,
}

impl<T> std::ops::Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> std::ops::DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.change = Some(Change::begin(self.locked.address()));
        self.locked.owner.store(0, Ordering::Relaxed);
    }
}

/// For as long as it lives, this thread is taking a lock or letting it go. A handler that does so with another one in
/// between puts back what it found.
#[derive(Debug)]
struct Change {
    before: usize,
}

impl Change {
    #[inline]
    fn begin(address: usize) -> Self {
        let before = CHANGING.replace(address);
        // Seen by a handler on this thread before what follows is done.
        compiler_fence(Ordering::SeqCst);
        Self { before }
    }
}

impl Drop for Change {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        CHANGING.set(self.before);
    }
}

/// An address that no other running thread has.
#[inline]
fn this_thread() -> usize {
    CHANGING.with(|here| ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_the_lock_does_not_get_it_again() {
        let locked = Locked::new(1);
        let guard = locked.lock().unwrap();
        assert!(locked.lock().is_none());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| *locked.lock().unwrap());
            drop(guard);
            assert_eq!(other.join().unwrap(), 1);
        });
        assert!(locked.lock().is_some());
    }

    /// What a handler finds that comes while this thread is between the lock and its owner's name.
    #[test]
    fn a_thread_that_is_just_taking_the_lock_or_letting_it_go_does_not_wait_for_it() {
        let (locked, other) = (Locked::new(1), Locked::new(2));
        let change = Change::begin(locked.address());
        assert!(locked.lock().is_none(), "it would wait for itself");
        assert_eq!(*other.lock().unwrap(), 2, "another lock is another matter");
        assert!(locked.lock().is_none(), "as it was before the other one");
        drop(change);
        assert_eq!(*locked.lock().unwrap(), 1);
        assert_eq!(CHANGING.get(), 0);
    }
}
