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

/// The CPU that the calling thread is on at this moment.
#[must_use]
pub fn current_cpu() -> Option<CpuId> {
    // SAFETY: sched_getcpu has no arguments and touches no memory of ours.
    let number = unsafe { libc::sched_getcpu() };
    u16::try_from(number).ok().map(CpuId)
}

/// Asks the scheduler to give the calling thread short turns, of `slice`, without asking for more time in all.
///
/// A worker shares its CPU with what fills its queue. With turns of milliseconds the queue grows deep in between,
/// and every packet is out of the cache when its turn comes; with short ones the worker is let in as soon as a
/// batch waits. Kernels before 6.12 ignore it; a refusal changes nothing else, so it is not reported.
pub(crate) fn prefer_short_turns(slice: Duration) {
    // SAFETY: sched_attr is integers only, for which all zeroes are valid values.
    let mut attributes = unsafe { std::mem::zeroed::<libc::sched_attr>() };
    let size = libc::c_uint::try_from(size_of_val(&attributes)).expect("the struct is small");
    let this_thread: libc::pid_t = 0;
    let no_flags: libc::c_uint = 0;
    // SAFETY: sched_getattr writes up to `size` bytes at the pointer, a struct of that size that lives through the
    // call.
    let read = unsafe {
        libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, no_flags)
    };
    let normal = libc::SCHED_OTHER.unsigned_abs();
    if read != 0 || attributes.sched_policy != normal {
        return;
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: sched_setattr reads as many bytes at the pointer as the struct's own `size` says, which the kernel
    // wrote above and which is no more than the struct has.
    unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, no_flags) };
}
