//! CPUs: which ones this thread may use, which one it is on, and staying on one.

use std::time::Duration;

use crate::cpus::{CpuId, CpuList};

/// The CPUs that the calling thread may run on (its affinity mask, which a cpuset limits). Ask before pinning:
/// after it, this is one CPU. `None` on machines with more than 1,024 CPUs.
#[must_use]
pub fn allowed_cpus() -> Option<CpuList> {
    let ids = core_affinity::get_core_ids()?;
    Some(ids.into_iter().filter_map(|core| u16::try_from(core.id).ok()).map(CpuId).collect())
}

/// Pins the calling thread to one CPU. False if the kernel refuses: the CPU is offline or outside the cpuset.
#[must_use]
pub fn pin_to(cpu: CpuId) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(cpu.0) })
}

/// Lets the calling thread run on these CPUs and no others. False if the kernel refuses: none of them is online and
/// inside the cpuset.
pub(crate) fn allow_cpus(cpus: &CpuList) -> bool {
    THIS_THREAD.allow_cpus(cpus)
}

/// A thread of this process, by the kernel's number for it, which is another's some time after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        // SAFETY: gettid has no arguments and touches no memory of ours.
        Self(unsafe { libc::gettid() })
    }

    /// The online CPUs that the thread may run on. `None` once it has ended.
    pub(crate) fn allowed_cpus(self) -> Option<CpuList> {
        let mut mask = [0_u64; CPU_MASK_WORDS];
        // SAFETY: sched_getaffinity writes up to `size_of_val(&mask)` bytes at the pointer, an array of that size that
        // lives through the call.
        let result = unsafe {
            libc::sched_getaffinity(self.0, size_of_val(&mask), mask.as_mut_ptr().cast())
        };
        let bits = (0..=u16::MAX).filter(|cpu| mask[usize::from(cpu / 64)] >> (cpu % 64) & 1 == 1);
        (result == 0).then(|| bits.map(CpuId).collect())
    }

    /// Lets the thread run on these CPUs and no others. False if the kernel refuses: none of them is online and inside
    /// the cpuset, or the thread has ended.
    pub(crate) fn allow_cpus(self, cpus: &CpuList) -> bool {
        let mut mask = [0_u64; CPU_MASK_WORDS];
        for cpu in cpus.iter() {
            mask[usize::from(cpu.0) / 64] |= 1 << (cpu.0 % 64);
        }
        // SAFETY: sched_setaffinity reads `size_of_val(&mask)` bytes at the pointer, an array of that size that lives
        // through the call. The kernel takes masks of any length.
        let result =
            unsafe { libc::sched_setaffinity(self.0, size_of_val(&mask), mask.as_ptr().cast()) };
        result == 0
    }
}

/// The CPU that the calling thread is on at this moment.
#[must_use]
pub fn current_cpu() -> Option<CpuId> {
    // SAFETY: sched_getcpu has no arguments and touches no memory of ours.
    let number = unsafe { libc::sched_getcpu() };
    u16::try_from(number).ok().map(CpuId)
}

/// Asks the scheduler to let the calling thread in soon and for short turns, and gives it `nice` (-20 to 19, lower
/// comes first) if that is more than it has. False if the niceness was refused, for want of `CAP_SYS_NICE`; kernels
/// before 6.12 ignore the length of turns.
///
/// A thread under another policy than `SCHED_OTHER` was put there by someone who knows why, and is left alone.
pub(crate) fn prefer_short_turns(nice: i8) -> bool {
    schedule(|attributes| {
        attributes.sched_runtime = u64::try_from(WORKER_TURN.as_nanos()).unwrap_or(u64::MAX);
        attributes.sched_nice = attributes.sched_nice.min(i32::from(nice));
    })
}

/// Gives the calling thread, of whatever program, the niceness `nice` (-20 to 19) unless somebody has given it another
/// than 0. False if that was refused, for want of `CAP_SYS_NICE`.
///
/// What the thread begins later, processes and threads, does not have it (`SCHED_FLAG_RESET_ON_FORK`, sched(7)). A
/// thread under another policy than `SCHED_OTHER` is left alone.
#[must_use]
pub fn take_priority(nice: i8) -> bool {
    schedule(|attributes| {
        attributes.sched_flags |= RESET_ON_FORK;
        if attributes.sched_nice == 0 {
            attributes.sched_nice = nice.into();
        }
    })
}

/// Changes how the calling thread is scheduled; all but its niceness if that is refused.
fn schedule(change: impl FnOnce(&mut libc::sched_attr)) -> bool {
    let Some(mut attributes) = scheduling() else { return true };
    if attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() {
        return true;
    }
    let nice_before = attributes.sched_nice;
    change(&mut attributes);
    let granted = set_scheduling(&attributes);
    if !granted {
        attributes.sched_nice = nice_before;
        set_scheduling(&attributes);
    }
    granted
}

/// The calling thread's scheduling attributes (sched_getattr(2)).
fn scheduling() -> Option<libc::sched_attr> {
    // SAFETY: sched_attr is integers only, for which all zeroes are valid values.
    let mut attributes = unsafe { std::mem::zeroed::<libc::sched_attr>() };
    let size = libc::c_uint::try_from(size_of_val(&attributes)).expect("the struct is small");
    // SAFETY: sched_getattr writes up to `size` bytes at the pointer, a struct of that size that lives through the
    // call.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_getattr, THIS_THREAD.0, &raw mut attributes, size, NO_FLAGS)
    };
    (result == 0).then_some(attributes)
}

/// Sets the calling thread's scheduling attributes; false if the kernel refuses.
fn set_scheduling(attributes: &libc::sched_attr) -> bool {
    // SAFETY: sched_setattr reads as many bytes at the pointer as the struct's own `size` says, which the kernel
    // wrote in `scheduling` and which is no more than the struct has.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            THIS_THREAD.0,
            std::ptr::from_ref(attributes),
            NO_FLAGS,
        )
    };
    result == 0
}

/// Room for every CPU number there is.
const CPU_MASK_WORDS: usize = (u16::MAX as usize + 1) / 64;

/// `sched_flags`: children are scheduled as any other process (linux/sched.h).
const RESET_ON_FORK: u64 = 1;

/// How long a worker may keep its CPU before the scheduler looks who else wants it: about two batches' work. The
/// kernel's own default is milliseconds, in which a queue grows by thousands of packets (docs/ARCHITECTURE.md,
/// "Scheduling", has the measurement).
const WORKER_TURN: Duration = Duration::from_micros(200);

const THIS_THREAD: ThreadId = ThreadId(0);
const NO_FLAGS: libc::c_uint = 0;
