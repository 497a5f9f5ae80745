//! Prepares the engine with an inspector and with what the options put around it.
//!
//! Invariant: an option that is not given costs nothing per packet. Each combination is a start of its own, so that
//! the worker's loop is compiled for it, and the plain one has no wrapper in it.

use fanq::pipeline::Pipeline;
use fanq::{EngineBuilder, Inspector, PreparedEngine, StartError, WorkerInfo};

use super::bypass::BypassAfter;
use super::mode::{Mode, Routed};
use super::options::RunOptions;
use crate::confine::{self, Role};

/// Prepares the engine with these inspectors: `make`'s, one for each lane of a worker; its only lane is 0 where the
/// worker inspects by itself.
pub(super) fn prepare<I, F>(options: &RunOptions, make: F) -> Result<PreparedEngine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo, usize) -> I + Send + Sync + 'static,
{
    match options.bypass {
        None => prepare_in_mode(options, make),
        Some(bypass) => {
            let make = move |worker, lane| BypassAfter::new(make(worker, lane), bypass);
            prepare_in_mode(options, make)
        }
    }
}

fn prepare_in_mode<I, F>(options: &RunOptions, make: F) -> Result<PreparedEngine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo, usize) -> I + Send + Sync + 'static,
{
    match options.mode {
        Mode::Accept => prepare_in_threads(options, make),
        Mode::Repeat(bits) => prepare_in_threads(options, move |worker, lane| {
            Routed::repeat(make(worker, lane), bits)
        }),
        Mode::Route(route) => prepare_in_threads(options, move |worker, lane| {
            Routed::route(make(worker, lane), route)
        }),
    }
}

fn prepare_in_threads<I, F>(options: &RunOptions, make: F) -> Result<PreparedEngine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo, usize) -> I + Send + Sync + 'static,
{
    let builder = EngineBuilder::from(options.engine.clone())
        .on_watchdog_start(|| confine::thread(Role::Watchdog));
    match options.inspect_threads {
        0 => builder.prepare(move |worker| confined(Role::Worker, make(worker, 0))),
        threads => {
            let make = move |worker, lane| confined(Role::Lane, make(worker, lane));
            let pipeline = Pipeline::new(threads, make);
            let pipeline = pipeline.fallback(options.engine.fault.on_fault.into());
            let pipeline = match &options.inspect_cpus {
                Some(cpus) => pipeline.on(cpus.clone()),
                None => pipeline,
            };
            builder.prepare(move |worker| confined(Role::Worker, pipeline.spread(worker)))
        }
    }
}

/// The inspector is made, on its own thread, so that thread has all it needs.
fn confined<I>(role: Role, inspector: I) -> I {
    confine::thread(role);
    inspector
}
