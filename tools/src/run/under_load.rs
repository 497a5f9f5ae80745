//! The options for a queue that grows faster than it is answered: shedding, headers only, more threads.
//!
//! Invariant: what the engine would refuse is refused here first, in the words of the options.

use clap::ValueEnum;
use fanq::{CopyRange, CpuList, DeferralConfig, OverloadConfig, Shed};
use serde::Deserialize;

use crate::usage;

/// What happens to packets that are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnOverload {
    None,
    Accept,
    Drop,
}

/// What the worker is to do under load; nothing if no option asks for it.
pub(super) fn overload(
    on_overload: Option<OnOverload>,
    depth: Option<u32>,
    copy_range: Option<CopyRange>,
    queue_maxlen: u32,
) -> anyhow::Result<Option<OverloadConfig>> {
    let shed = match on_overload {
        None | Some(OnOverload::None) => Shed::Not,
        Some(OnOverload::Accept) => Shed::Accept,
        Some(OnOverload::Drop) => Shed::Drop,
    };
    if shed == Shed::Not && copy_range.is_none() {
        return match depth {
            None => Ok(None),
            Some(_) => Err(usage(
                "overload-depth alone changes nothing: add --on-overload accept or drop, or --copy-under-load",
            )),
        };
    }
    let depth = depth.unwrap_or((queue_maxlen / 4 * 3).max(1));
    Ok(Some(OverloadConfig { depth, shed, copy_range }))
}

/// What the pipeline needs of the engine.
pub(super) fn deferral(threads: usize, batch: usize) -> anyhow::Result<Option<DeferralConfig>> {
    if threads > THREADS_MAX {
        return Err(usage(format!(
            "inspect-threads {threads} is out of range: 0 to {THREADS_MAX}"
        )));
    }
    let usual = DeferralConfig::default();
    // Room for one batch that is received while others are inspected.
    let outstanding_max = usual.outstanding_max.max(4 * batch);
    Ok((threads > 0).then_some(DeferralConfig { outstanding_max, ..usual }))
}

/// Whether inspecting threads can run where they are asked to, if these CPUs are `allowed`.
pub(super) fn check_cpus(
    wanted: Option<&CpuList>,
    threads: usize,
    allowed: Option<&CpuList>,
) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if threads == 0 {
        return Err(usage("inspect-cpus alone changes nothing: add --inspect-threads 1 or more"));
    }
    let Some(allowed) = allowed else { return Ok(()) };
    let missing: CpuList = wanted.iter().filter(|cpu| !allowed.contains(*cpu)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(usage(format!(
        "inspect-cpus {wanted}: this process may not run on {missing} (allowed: {allowed}); name others \
         or widen its cpuset"
    )))
}

/// More threads behind one queue than this have only each other to wait for.
const THREADS_MAX: usize = 256;
