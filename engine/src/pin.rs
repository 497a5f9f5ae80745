//! A worker's place: the CPU that its thread was pinned to, and its way back there.
//!
//! ```text
//!   its CPU goes offline    the kernel lets the thread run on any other, and forgets where it was
//!   it comes back           the thread may run there, too, but does not: it is pinned again
//! ```
//!
//! The same mends a cpuset that was changed, which on older kernels gives every thread all CPUs of the set.
//!
//! Invariant: a thread that may run on its CPU alone is in its place, and one that may not run there at all has no way
//! back yet, or was sent elsewhere by somebody who knows why: both are left alone. Whoever sees to it does so from
//! another thread, so it costs the worker nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cpus::{CpuId, CpuList};
use crate::sys::{self, ThreadId, Timestamp};

/// Where a thread belongs; nowhere until [`Pin::hold`].
#[derive(Debug, Default)]
pub(crate) struct Pin {
    place: OnceLock<(ThreadId, CpuId)>,
    /// When it was last looked at ([`Timestamp`]), by the one that looks.
    looked: AtomicU64,
}

impl Pin {
    /// Pins the calling thread to its CPU. False if the kernel refuses.
    pub(crate) fn hold(&self, cpu: CpuId) -> bool {
        // A thread has one place: a second is not noted.
        let _ = self.place.set((ThreadId::current(), cpu));
        sys::pin_to(cpu)
    }

    /// Pins the thread again if it was let go; looks at most once in [`LOOK_EVERY`]. Only for a thread that has not
    /// ended.
    pub(crate) fn keep(&self, now: Timestamp) {
        let Some((thread, cpu)) = self.place.get() else { return };
        // Relaxed: one thread looks.
        if now.since(Timestamp(self.looked.load(Ordering::Relaxed))) < LOOK_EVERY {
            return;
        }
        self.looked.store(now.0, Ordering::Relaxed);
        let allowed = thread.allowed_cpus().unwrap_or_default();
        if allowed.len() > 1 && allowed.contains(*cpu) {
            // If its CPU has gone offline meanwhile, the next look finds it so.
            thread.allow_cpus(&CpuList::from_iter([*cpu]));
        }
    }
}

/// Soon enough for what happens a few times in a machine's life.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    /// What the kernel does to the affinity when a CPU goes and comes back, from outside of a thread that sleeps.
    #[test]
    fn a_thread_that_was_let_go_is_pinned_again_and_one_that_was_sent_away_is_not() {
        let all = sys::allowed_cpus().unwrap();
        let (Some(home), Some(away)) = (all.iter().next(), all.iter().nth(1)) else {
            return; // With one CPU there is nowhere else to be.
        };
        let (pin, (ready, is_ready)) = (Arc::new(Pin::default()), channel());
        let (end, is_over) = channel::<()>();
        pin.keep(at(1));
        let theirs = Arc::clone(&pin);
        let worker = std::thread::spawn(move || {
            ready.send((theirs.hold(home), ThreadId::current())).unwrap();
            // Until the other end is gone.
            let _ = is_over.recv();
        });
        let (held, thread) = is_ready.recv().unwrap();
        let (home, away) = (CpuList::from_iter([home]), CpuList::from_iter([away]));
        assert_eq!((held, thread.allowed_cpus()), (true, Some(home.clone())));

        assert!(thread.allow_cpus(&all));
        pin.keep(at(10));
        assert_eq!(thread.allowed_cpus(), Some(home.clone()));
        assert!(thread.allow_cpus(&all));
        pin.keep(Timestamp(at(10).0 + 999_999_999));
        assert_eq!(thread.allowed_cpus(), Some(all), "looked too soon");
        pin.keep(at(11));
        assert_eq!(thread.allowed_cpus(), Some(home));

        assert!(thread.allow_cpus(&away));
        pin.keep(at(20));
        assert_eq!(thread.allowed_cpus(), Some(away));
        drop(end);
        worker.join().unwrap();
    }
}
