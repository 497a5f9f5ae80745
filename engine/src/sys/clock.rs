//! Time: the monotonic clock that all processes of a machine share, and the CPU time that this one has used.

use std::time::Duration;

/// A reading of `CLOCK_MONOTONIC`, in nanoseconds. Comparable between processes of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Reads the clock (a vDSO call: no switch to the kernel where the clock source allows it).
    #[must_use]
    #[inline]
    pub fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime writes one timespec, and `time` is one that lives through the call.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        debug_assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
        Self(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// CPU time that this process has used, all threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel, on behalf of this process.
    pub system: Duration,
}

/// Reads the CPU time used so far.
#[must_use]
pub fn cpu_time() -> CpuTime {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes one rusage, and `usage` has room for one and lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "getrusage fails only for a bad pointer or target");
    // SAFETY: rusage is integers only, for which the zeroes that it began with are valid already.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    CpuTime { user: duration(usage.ru_utime), system: duration(usage.ru_stime) }
}
