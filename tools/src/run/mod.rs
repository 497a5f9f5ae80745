//! `fanq run`: starts the engine, shows it at work, stops it on a signal, and accounts for every packet.
//!
//! Invariant: `ready:` is printed once every queue is bound and configured, and nothing but the summary goes to
//! standard output.

mod bypass;
mod flow_counts;
mod mode;
mod options;
mod send_back;
mod start;
mod summary;

use std::time::{Duration, Instant};

use anyhow::Context;
use fanq::{Engine, Event};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::policy::PolicyInspector;

pub(crate) use options::RunArgs;
use options::{RunOptions, SummaryFormat};

/// Runs the engine until SIGINT or SIGTERM.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let options = RunOptions::resolve(args)?;
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .context("installing the signal handlers")?;
    let (policy, work_ns) = (options.policy, options.work_ns);
    let mut engine = start::start(&options, move |_worker| PolicyInspector::new(policy, work_ns))?;
    let interrupter = engine.interrupter();
    std::thread::spawn(move || {
        for _signal in &mut signals {
            // If the eventfd cannot be written, the next signal tries again.
            let _ = interrupter.interrupt();
        }
    });
    announce(&engine, &options);

    let ended_by_worker = watch(&mut engine, options.stats_every)?;
    let stopped = engine.shutdown(options.drain_limit);
    match options.summary {
        SummaryFormat::Json => println!("{}", summary::json(&stopped.stats)),
        SummaryFormat::Text => print!("{}", summary::text(&stopped.stats)),
    }
    let mut failures = stopped.failures.into_iter();
    match failures.next() {
        Some(failure) => {
            for other in failures {
                eprintln!("fanq: {other}");
            }
            Err(failure.into())
        }
        None if ended_by_worker => anyhow::bail!("a worker ended without a reason"),
        None => Ok(()),
    }
}

/// Says which queue runs where, what is odd, and that all is ready.
fn announce(engine: &Engine, options: &RunOptions) {
    for assignment in engine.assignments() {
        let place = match assignment.cpu {
            Some(cpu) => format!("worker on CPU {cpu}"),
            None => "worker on any CPU".to_owned(),
        };
        let filled = match assignment.filled_by.len() {
            0 => "filled by no CPU under fanout".to_owned(),
            _ => format!("filled by CPU {} under fanout", assignment.filled_by),
        };
        eprintln!("queue {}: {place}, {filled}", assignment.queue);
    }
    for warning in engine.warnings() {
        eprintln!("warning: {warning}");
    }
    let config = &options.engine;
    eprintln!(
        "ready: queues {} bound, {} worker{}, batch {}, queue-maxlen {}, flags {}",
        config.queues,
        config.queues.count(),
        if config.queues.count() == 1 { "" } else { "s" },
        config.batch,
        config.queue.maxlen,
        engine.granted_flags(),
    );
}

/// Waits for the end, with a table on standard error every so often. True if a worker ended by itself.
fn watch(engine: &mut Engine, stats_every: Option<Duration>) -> anyhow::Result<bool> {
    let mut earlier = engine.stats();
    let mut next = stats_every.map(|every| Instant::now() + every);
    loop {
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        match engine.wait(left).context("waiting")? {
            Event::Interrupted => return Ok(false),
            Event::WorkerEnded => return Ok(true),
            Event::TimedOut => {}
        }
        if let (Some(every), Some(due)) = (stats_every, next)
            && Instant::now() >= due
        {
            let now = engine.stats();
            eprint!("{}", summary::progress(&earlier, &now, every));
            (earlier, next) = (now, Some(due + every));
        }
    }
}
