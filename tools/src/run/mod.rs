//! `fanq run`: starts the engine, shows it at work, stops it on a signal, and accounts for every packet.
//!
//! Invariant: `ready:` is printed once every queue is bound and configured, and nothing but the summary goes to
//! standard output. With a plain policy there are no rules, no log and no more threads than without them.

mod bypass;
mod flow_counts;
mod mode;
mod options;
mod send_back;
mod start;
pub(crate) mod summary;
mod under_load;
mod watch;

use std::sync::Mutex;

use fanq::{Engine, WorkerInfo};

use crate::eve::{EveLog, EveSender};
use crate::inspector::{PolicyControl, RuleInspector};
use crate::policy::{PolicyChoice, PolicyInspector};

pub(crate) use options::RunArgs;
use options::{RunOptions, SummaryFormat};
use summary::{Extras, LogAccount};
use watch::{Orders, Watch};

/// Runs the engine until SIGINT or SIGTERM.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let options = RunOptions::resolve(args)?;
    let with_rules = matches!(options.policy, PolicyChoice::Rules(_));
    // Taken from here on: a signal that comes before the engine runs is carried out once it does.
    let orders = Orders::listen(with_rules || options.eve.is_some())?;
    let log = options.eve.as_ref().map(EveLog::start).transpose()?;
    let (mut engine, control) = start_by_policy(&options, log.as_ref())?;
    orders.wake(engine.interrupter());
    announce(&engine, &options, control.as_ref());

    let mut watch = Watch::new(&options, orders, control, log);
    let ended_by_worker = watch.until_stopped(&mut engine)?;
    let stopped = engine.shutdown(options.drain_limit);
    let (account, log) = watch.finish(&stopped.stats);
    let log = log.map(|(written, lost)| {
        let in_rings = account.as_ref().map_or(0, |account| account.log_lost);
        LogAccount { written, lost: lost + in_rings }
    });
    let extras = Extras { policy: account, eve: log };
    match options.summary {
        SummaryFormat::Json => println!("{}", summary::json(&stopped.stats, &extras)),
        SummaryFormat::Text => print!("{}", summary::text(&stopped.stats, &extras)),
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

/// Starts the engine with the inspector that the policy needs: each kind is an engine of its own, without dynamic
/// dispatch.
fn start_by_policy(
    options: &RunOptions,
    log: Option<&EveLog>,
) -> anyhow::Result<(Engine, Option<PolicyControl>)> {
    let path = match &options.policy {
        PolicyChoice::Plain(policy) => {
            let (policy, work_ns) = (*policy, options.work_ns);
            let engine =
                start::start(options, move |_worker| PolicyInspector::new(policy, work_ns))?;
            return Ok((engine, None));
        }
        PolicyChoice::Rules(path) => path,
    };
    let workers = usize::from(options.engine.queues.count());
    let control = PolicyControl::start(path, workers, log)?;
    let sender = |_| Mutex::new(log.map(EveLog::sender));
    let senders: Vec<Mutex<Option<EveSender>>> = (0..workers).map(sender).collect();
    let handover = control.handover();
    let engine = start::start(options, move |worker: WorkerInfo| {
        let index = usize::from(worker.index);
        let sender = senders[index].lock().map_or(None, |mut sender| sender.take());
        RuleInspector::new(index, std::sync::Arc::clone(&handover), sender)
    })?;
    Ok((engine, Some(control)))
}

/// Says which queue runs where, what is odd, and that all is ready.
fn announce(engine: &Engine, options: &RunOptions, control: Option<&PolicyControl>) {
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
    if let Some(control) = control {
        eprintln!("rules: {}", control.described());
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
