//! `fanq run`: starts the engine, shows it at work, stops it on a signal, and accounts for every packet.
//!
//! Invariant: `ready:` is printed once every queue is bound and configured, and nothing but the summary goes to
//! standard output. With a plain policy there are no rules, no log and no more threads than without them.

mod bypass;
mod flow_counts;
mod inspectors;
mod mode;
mod on_fault;
mod options;
mod passed_unseen;
mod reading;
mod send_back;
mod session;
mod start;
mod succession;
pub(crate) mod summary;
mod under_load;
mod view;
mod watch;

use fanq::{Engine, EngineStats, WorkerError};

use crate::confine;
use crate::eve::EveLog;
use crate::inspector::SharedPolicy;
use crate::notice;
use crate::policy::PolicyChoice;

pub(crate) use options::RunArgs;
use options::{RunOptions, SummaryFormat};
use passed_unseen::PassedUnseen;
use succession::{Given, Succession};
use summary::{Extras, LogAccount};
use view::{RunView, Views};
use watch::{End, Orders, Watch};

/// Runs the engine until SIGINT or SIGTERM, or until another process serves the queues.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let options = RunOptions::resolve(args)?;
    // Before another user is become, who may not do this.
    session::take_priority(options.engine.nice, options.engine.queues.count());
    confine::begin(&options.wanted)?;
    let with_rules = matches!(options.policy, PolicyChoice::Rules(_));
    // Taken from here on: a signal that comes before the engine runs is carried out once it does.
    let orders = Orders::listen(with_rules || options.eve.is_some())?;
    notice::set_level(options.log_level);
    // Until the end of this function: what is left of the packets can be seen while the engine stops.
    let mut views = Views::new(view::open_doors(&options)?);
    let mut log = options.eve.as_ref().map(EveLog::start).transpose()?;
    let mut succession = Succession::new(&options);
    let (mut control, mut given_up) = (None, None);
    loop {
        let prepared = inspectors::prepare(&options, log.as_ref(), &mut control)?;
        let (mut engine, limits) = succession.start(prepared, |engine| {
            orders.wake(engine.interrupter());
            views.show(engine, control.clone(), || {
                RunView::new(&options, engine, control.clone(), log.as_ref(), orders.clone())
            })?;
            // Once: what was given up does not come back, and who starts again has it given up already.
            given_up.take().map_or_else(confine::complete, Ok)
        })?;
        views.take_places();
        let passed = PassedUnseen::begin(&engine, options.engine.queues);
        announce(&engine, &options, control.as_ref(), &limits);
        given_up = Some(limits);

        let (control, watchdog) = (control.clone(), succession.manager.watchdog);
        let mut watch = Watch::new(&options, orders.clone(), control, log.take(), watchdog);
        match watch.until_stopped(&mut engine, &mut succession)? {
            End::GiveAway(request) => match succession.give(engine, request) {
                Given::Back => log = watch.into_log(),
                Given::Away(stats, failures) => {
                    // The account goes on with who serves the queues now, and is printed there.
                    watch.finish(&stats);
                    return judge(failures, false);
                }
            },
            end => {
                // Before the queues are shut: what comes then is no overload.
                let passed = passed.and_then(|passed| passed.count(&engine));
                return finish(&options, engine, &mut succession, (watch, passed), &end);
            }
        }
    }
}

/// Ends the engine, prints its account, and tells how it went.
fn finish(
    options: &RunOptions,
    engine: Engine,
    succession: &mut Succession,
    (watch, queue_full_passed): (Watch, Option<u64>),
    end: &End,
) -> anyhow::Result<()> {
    let leaves = !matches!(end, End::Stop) && succession.leave();
    let (stats, failures) = if leaves {
        let released = engine.release(options.drain_limit);
        let queues = released.queues.into_iter().map(|queue| queue.stats).collect();
        (EngineStats { queues }, released.failures)
    } else {
        succession.give_up();
        let stopped = engine.shutdown(options.drain_limit);
        watch.tell(&stopped.faults);
        (stopped.stats, stopped.failures)
    };
    let (account, log) = watch.finish(&stats);
    let log = log.map(|(written, lost)| {
        let in_rings = account.as_ref().map_or(0, |account| account.log_lost);
        LogAccount { written, lost: lost + in_rings }
    });
    let extras = Extras { policy: account, eve: log, queue_full_passed, cpu: None };
    match options.summary {
        SummaryFormat::Json => println!("{}", summary::json(&stats, &extras)),
        SummaryFormat::Text => print!("{}", summary::text(&stats, &extras)),
    }
    judge(failures, matches!(end, End::WorkerEnded))
}

/// The first failure is the result, the others are said.
fn judge(failures: Vec<WorkerError>, ended_by_worker: bool) -> anyhow::Result<()> {
    let mut failures = failures.into_iter();
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
fn announce(
    engine: &Engine,
    options: &RunOptions,
    control: Option<&SharedPolicy>,
    (limited, unlimited): &(String, Option<String>),
) {
    for assignment in engine.assignments() {
        let place = match assignment.cpu {
            Some(cpu) => format!("worker on CPU {cpu}"),
            None => "worker on any CPU".to_owned(),
        };
        let filled = match assignment.filled_by.len() {
            0 => "filled by no CPU under fanout".to_owned(),
            _ => format!("filled by CPU {} under fanout", assignment.filled_by),
        };
        notice::normal(format_args!("queue {}: {place}, {filled}", assignment.queue));
    }
    for warning in engine.warnings() {
        eprintln!("warning: {warning}");
    }
    if let Some(control) = control {
        notice::normal(format_args!("rules: {}", control.lock().described()));
    }
    notice::normal(limited);
    if let Some(unlimited) = unlimited {
        eprintln!("warning: not limited: {unlimited}");
    }
    let config = &options.engine;
    notice::normal(format_args!(
        "ready: queues {} bound, {} worker{}, batch {}, queue-maxlen {}, flags {}",
        config.queues,
        config.queues.count(),
        if config.queues.count() == 1 { "" } else { "s" },
        config.batch,
        config.queue.maxlen,
        engine.granted_flags(),
    ));
}
