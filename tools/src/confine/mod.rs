//! Least privilege for `fanq run`: once it serves, it can do what serving takes, and no more.
//!
//! ```text
//! begin     main thread, alone   another user if asked for; no new privileges; nothing to inherit; memory locked
//! thread    each thread          no capability but CAP_NET_ADMIN (workers and main), the files and the system calls
//!                                of its role
//! complete  main thread, last    the same for itself, and a look at every thread of the process
//! ```
//!
//! Invariant: what is given up does not come back: every step is one of the kernel's that only adds limits. What this
//! kernel has not is named, and under `full` it stops the start. A system call that is not on a thread's list fails
//! with EPERM; it does not kill: a program that every packet passes is not to be brought down by one call.
//! docs/SECURITY.md says what is left, and why.

mod calls;
mod capabilities;
mod files;
mod memory;
mod tasks;
mod user;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Deserialize;

use files::Places;
pub(crate) use files::{folders_of, place_of_log};

/// How much is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Confine {
    /// All that this kernel lets be given up; the rest is said.
    #[default]
    Auto,
    /// All; where this kernel cannot, the start fails.
    Full,
    /// Nothing.
    Off,
}

/// What a thread is for: that says which files and system calls it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves a queue.
    Worker,
    /// Inspects behind a worker.
    Lane,
    /// Answers in the place of a worker that is stuck, and puts one back on its CPU.
    Watchdog,
    /// Writes the log.
    Log,
    /// Waits for signals.
    Signals,
    /// Answers questions over sockets that are bound already.
    Answers,
    /// Starts and stops all, reads rules, answers questions; also threads that came with it and have no role.
    Main,
}

impl Role {
    /// Whether the kernel asks this thread for CAP_NET_ADMIN: it does so with each verdict and each request.
    fn keeps_net_admin(self) -> bool {
        matches!(self, Self::Worker | Self::Lane | Self::Watchdog | Self::Main)
    }
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) confine: Confine,
    /// A name or `UID[:GID]`.
    pub(crate) user: Option<String>,
    /// Whether workers start threads of their own, also later.
    pub(crate) lanes: bool,
}

/// What threads are to do.
struct Plan {
    confine: Confine,
    calls: Result<calls::Lists, String>,
    places: Mutex<Places>,
    /// What could not be done, each once.
    refusals: Mutex<Vec<String>>,
    /// `memory locked`, or why it is not: that is no limit, and no reason not to start.
    memory: String,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

thread_local! {
    /// Whether this thread has been through it: an inspector may be made twice on one thread.
    static DONE: Cell<bool> = const { Cell::new(false) };
}

/// Takes the first steps, on the main thread while it is alone.
///
/// # Errors
/// The user is unknown or may not be taken; under `full`, whatever this kernel cannot do.
pub(crate) fn begin(wanted: &Wanted) -> anyhow::Result<()> {
    // Before another user is become, who may not do this.
    let inherited = match wanted.confine {
        Confine::Off => Ok(()),
        Confine::Auto | Confine::Full => capabilities::nothing_to_inherit(),
    };
    if let Some(name) = &wanted.user {
        user::become_user(name).with_context(|| format!("becoming the user {name} (--user)"))?;
    }
    if !rustix::process::geteuid().is_root() {
        // Else a file of rules would be read now that cannot be read again.
        capabilities::use_it(user::TABLE, false).context("putting a capability aside")?;
    }
    if wanted.confine == Confine::Off {
        return Ok(());
    }
    let plan = Plan {
        confine: wanted.confine,
        calls: calls::Lists::compile(wanted.lanes),
        places: Mutex::default(),
        refusals: Mutex::default(),
        memory: match memory::lock() {
            Ok(()) => "memory locked".to_owned(),
            Err(error) => format!("memory not locked: {error} (LimitMEMLOCK=infinity lets it)"),
        },
    };
    let steps =
        [("new privileges", capabilities::no_new_privileges()), ("the bounding set", inherited)];
    for (what, result) in steps {
        if let Err(error) = result {
            plan.refuse(format!("{what}: {error}"));
        }
    }
    if let Err(error) = &plan.calls {
        plan.refuse(format!("system calls: {error}"));
    }
    // A second run in one process, as tests have it, keeps the first plan.
    let _ = PLAN.set(plan);
    Ok(())
}

/// Opens queues: only in here is the capability used by which somebody else than root reads the kernel's table of them.
pub(crate) fn while_opening<T>(open: impl FnOnce() -> T) -> T {
    // Without it the table is not read, which the engine says.
    let _ = capabilities::use_it(user::TABLE, true);
    let opened = open();
    if !rustix::process::geteuid().is_root() {
        let _ = capabilities::use_it(user::TABLE, false);
    }
    opened
}

/// Names the files that are to stay within reach.
pub(crate) fn allow(
    read: impl IntoIterator<Item = PathBuf>,
    write: impl IntoIterator<Item = PathBuf>,
) {
    let Some(plan) = PLAN.get() else { return };
    if let Ok(mut places) = plan.places.lock() {
        places.read.extend(read);
        places.write.extend(write);
    }
}

/// Names socket files of ours, which the main thread is to remove in the end.
pub(crate) fn allow_sockets(sockets: impl IntoIterator<Item = PathBuf>) {
    let Some(plan) = PLAN.get() else { return };
    if let Ok(mut places) = plan.places.lock() {
        places.sockets.extend(sockets.into_iter().flat_map(|socket| folders_of(&socket)));
    }
}

/// Confines the calling thread to its role, once; call it when the thread has what it needs. Without [`begin`] it does
/// nothing.
pub(crate) fn thread(role: Role) {
    let Some(plan) = PLAN.get() else { return };
    if DONE.replace(true) {
        return;
    }
    for result in [
        capabilities::keep_net_admin(role.keeps_net_admin())
            .map_err(|error| format!("capabilities: {error}")),
        plan.confine_files(role).map_err(|error| format!("files: {error}")),
        plan.confine_calls(role).map_err(|error| format!("system calls: {error}")),
    ] {
        if let Err(refusal) = result {
            plan.refuse(refusal);
        }
    }
}

/// Confines the main thread, and looks at all threads. Returns a line on what is given up, and one on what is not.
///
/// # Errors
/// Under `full`, whatever is not given up.
pub(crate) fn complete() -> anyhow::Result<(String, Option<String>)> {
    let Some(plan) = PLAN.get() else {
        return Ok(("limited: nothing (--confine off)".to_owned(), None));
    };
    // /proc shows other threads only before the limits on files.
    let patience = if plan.confine == Confine::Full { PATIENCE_FULL } else { PATIENCE };
    let mut open = tasks::unconfined(plan.calls.is_ok(), patience);
    let places = plan.places.lock().map(|places| places.to_string()).unwrap_or_default();
    thread(Role::Main);
    let refusals = plan.refusals.lock().map(|refusals| refusals.clone()).unwrap_or_default();
    open.splice(0..0, refusals.iter().cloned());
    if plan.confine == Confine::Full && !open.is_empty() {
        bail!(
            "this cannot be confined (--confine full): {}; auto does without what is missing",
            open.join("; ")
        );
    }
    let is_free = |what: &&str| !refusals.iter().any(|refusal| refusal.starts_with(what));
    let parts = ["capabilities", "new privileges", "files", "system calls"];
    let given = parts.into_iter().filter(is_free).collect::<Vec<_>>().join(", ");
    let said = format!("limited: {given}; files in reach: {places}; {}", plan.memory);
    Ok((said, (!open.is_empty()).then(|| open.join("; "))))
}

impl Plan {
    fn refuse(&self, refusal: String) {
        if let Ok(mut refusals) = self.refusals.lock()
            && !refusals.contains(&refusal)
        {
            refusals.push(refusal);
        }
    }

    fn confine_files(&self, role: Role) -> Result<(), String> {
        let places = self.places.lock().map_err(|_| "a thread has panicked".to_owned())?.clone();
        files::confine(&places.of(role))
    }

    fn confine_calls(&self, role: Role) -> Result<(), String> {
        self.calls.as_ref().map_or(Ok(()), |lists| lists.apply(role))
    }
}

/// How long threads that are still starting are waited for, where one that is not limited is a warning,
const PATIENCE: Duration = Duration::from_millis(500);
/// and where it is the end.
const PATIENCE_FULL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
