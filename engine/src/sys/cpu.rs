//! CPUs: which ones this thread may use, which one it is on, and staying on one.

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
