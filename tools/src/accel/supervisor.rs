//! The parent of an accelerated program: passes signals on, shows its counters, and ends as it ended.
//!
//! Invariant: the program is waited for to its end, and the account comes after it. What a terminal sends to the whole
//! group (SIGINT, SIGQUIT) is left to the program.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use fanq::KernelTable;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::account::CountsFile;
use crate::run::summary;

/// Starts the program and stays until it ends.
pub(super) fn run(
    mut command: Command,
    counts: &CountsFile,
    every: Duration,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let all = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = Signals::new(all).context("installing the signal handlers")?;
    let program = command.get_program().display().to_string();
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for signal in &mut signals {
            // The main thread may have ended already.
            let _ = sender.send(signal);
        }
    });
    // Missing in another user's namespace; then the kernel's columns are empty.
    let table = KernelTable::open().ok();
    let mut earlier = counts.read(table.as_ref())?;
    let mut due = Instant::now() + every;
    let status = loop {
        match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(SIGCHLD) => {
                if let Some(status) = child.try_wait().context("waiting for the program")? {
                    break status;
                }
            }
            Ok(SIGINT | SIGQUIT) => {}
            Ok(signal) => pass_on(signal, &child),
            Err(RecvTimeoutError::Timeout) => {
                due += every;
                let now = counts.read(table.as_ref())?;
                // Queues come as the program binds them.
                if now.queues.len() == earlier.queues.len() && !now.queues.is_empty() {
                    eprint!("{}", summary::progress(&earlier, &now, every));
                }
                earlier = now;
            }
            Err(RecvTimeoutError::Disconnected) => {
                break child.wait().context("waiting for the program")?;
            }
        }
    };
    let mut last = counts.read(None)?;
    // The queues are gone with the program: the kernel's numbers are those of the last look.
    for queue in &mut last.queues {
        let seen = earlier.queues.iter().find(|before| before.queue == queue.queue);
        queue.kernel = seen.and_then(|before| before.kernel);
    }
    let extras = summary::Extras::default();
    if as_json {
        println!("{}", summary::json(&last, &extras));
    } else {
        eprint!("{}", summary::text(&last, &extras));
    }
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn pass_on(signal: i32, child: &Child) {
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        // It may have ended just now.
        let _ = kill_process(process, signal);
    }
}
