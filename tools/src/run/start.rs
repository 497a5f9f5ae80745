//! Starts the engine with an inspector and with what the options put around it.
//!
//! Invariant: an option that is not given costs nothing per packet. Each combination is a start of its own, so that
//! the worker's loop is compiled for it, and the plain one has no wrapper in it.

use fanq::pipeline::Pipeline;
use fanq::{Engine, EngineBuilder, Inspector, StartError, WorkerInfo};

use super::bypass::BypassAfter;
use super::mode::{Mode, Routed};
use super::options::RunOptions;

/// Starts the engine with these inspectors, `make`'s, one a worker.
pub(super) fn start<I, F>(options: &RunOptions, make: F) -> Result<Engine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
{
    match options.bypass {
        None => start_in_mode(options, make),
        Some(bypass) => {
            start_in_mode(options, move |worker| BypassAfter::new(make(worker), bypass))
        }
    }
}

fn start_in_mode<I, F>(options: &RunOptions, make: F) -> Result<Engine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
{
    match options.mode {
        Mode::Accept => start_in_threads(options, make),
        Mode::Repeat(bits) => {
            start_in_threads(options, move |worker| Routed::repeat(make(worker), bits))
        }
        Mode::Route(route) => {
            start_in_threads(options, move |worker| Routed::route(make(worker), route))
        }
    }
}

fn start_in_threads<I, F>(options: &RunOptions, make: F) -> Result<Engine, StartError>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
{
    let builder = EngineBuilder::from(options.engine.clone());
    match options.inspect_threads {
        0 => builder.start(make),
        threads => {
            let pipeline = Pipeline::new(threads, move |worker, _lane| make(worker));
            let pipeline = pipeline.fallback(options.engine.fault.on_fault.into());
            builder.start(move |worker| pipeline.spread(worker))
        }
    }
}
