//! The parent of an accelerated program: passes signals on, lets its counters be seen, and ends as it ended.
//!
//! Invariant: the program is waited for to its end, and the account comes after it. Whoever may ask is answered from
//! before the program's start to its end. A signal that a process has sent here is passed on; what a terminal sends to
//! the whole group (SIGINT, SIGQUIT) has reached the program already.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use fanq::EngineStats;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};

use super::view::AccelView;
use crate::doors::Doors;
use crate::metrics::ProcessTimes;
use crate::run::summary::{self, Extras};

/// What is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// A table, so often.
    pub(super) every: Duration,
    /// The account at the end: as JSON, or as text.
    pub(super) as_json: bool,
}

/// Starts the program and stays until it ends.
pub(super) fn run(
    mut command: Command,
    view: &AccelView,
    doors: Doors,
    shown: Option<Shown>,
) -> anyhow::Result<ExitCode> {
    let all = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let signals = SignalsInfo::<WithOrigin>::new(all);
    let mut signals = signals.context("installing the signal handlers")?;
    // Before the start: nothing that can fail stands between it and the waiting.
    let serving = doors.serve(view)?;
    let program = command.get_program().display().to_string();
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    view.started(child.id());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for signal in &mut signals {
            // The main thread may have ended already.
            let _ = sender.send(signal);
        }
    });
    let (status, seen) = until_it_ends(&mut child, &receiver, view, shown)?;
    drop(serving);
    if let Some(shown) = shown {
        account(view, &seen, shown.as_json)?;
    }
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Passes signals on and shows tables. Returns how it ended, and what the last look at its queues has seen.
fn until_it_ends(
    child: &mut Child,
    signals: &Receiver<Origin>,
    view: &AccelView,
    shown: Option<Shown>,
) -> anyhow::Result<(ExitStatus, EngineStats)> {
    let mut earlier = view.stats()?;
    let mut due = shown.map(|shown| Instant::now() + shown.every);
    loop {
        let signal = match due {
            Some(due) => signals.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match (signal, shown) {
            (Ok(Origin { signal: SIGCHLD, .. }), _) => {
                if let Some(status) = child.try_wait().context("waiting for the program")? {
                    return Ok((status, earlier));
                }
            }
            (Ok(Origin { signal: SIGINT | SIGQUIT, process: None, .. }), _) => {}
            (Ok(Origin { signal, .. }), _) => pass_on(signal, child),
            (Err(RecvTimeoutError::Timeout), Some(Shown { every, .. })) => {
                due = due.map(|due| due + every);
                let now = view.stats()?;
                // Queues come as the program binds them.
                if now.queues.len() == earlier.queues.len() && !now.queues.is_empty() {
                    say(&summary::progress(&earlier, &now, every));
                }
                earlier = now;
            }
            (Err(_), _) => {
                return Ok((child.wait().context("waiting for the program")?, earlier));
            }
        }
    }
}

/// Prints the account of a program that has ended. Its queues are gone: the kernel's numbers are those that were seen.
fn account(view: &AccelView, seen: &EngineStats, as_json: bool) -> anyhow::Result<()> {
    let mut last = view.last_stats()?;
    for queue in &mut last.queues {
        let before = seen.queues.iter().find(|before| before.queue == queue.queue);
        queue.kernel = before.and_then(|before| before.kernel);
    }
    let cpu = ProcessTimes::of("self").map(|times| times.cpu_of_children);
    let extras = Extras::of_program(cpu);
    if as_json {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", summary::json(&last, &extras)).context("printing the account")?;
    } else {
        say(&summary::text(&last, &extras));
    }
    Ok(())
}

/// Tells whoever reads it; that nobody does any more is no reason to end before the program.
fn say(text: &str) {
    let _ = write!(std::io::stderr(), "{text}");
}

fn pass_on(signal: i32, child: &Child) {
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        // It may have ended just now.
        let _ = kill_process(process, signal);
    }
}
