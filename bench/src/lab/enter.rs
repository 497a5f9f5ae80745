//! Into a lab, for a command that measures: it starts itself again inside, once, and waits.
//!
//! Inside it is the first process of a process namespace of its own. The kernel ends all processes of such a
//! namespace with the first, so what it started, and a private lab with it, is gone when it ends of whatever cause.
//! In between stands `unshare --kill-child`, which ends it when the process outside ends.
//!
//! ```text
//! fanq-bench ndr                 waits
//!   fanq-bench ndr               a private lab: in namespaces for network and files; builds it, and becomes
//!   unshare --kill-child
//!     fanq-bench ndr             in a process namespace, too: measures
//! ```
//!
//! A lab is built before that last step, as it may have to do with the kernel's threads, which no process namespace
//! but the machine's own shows.
//!
//! Invariant: the process outside does nothing but wait, pass signals on and hand the exit status through.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::build;
use super::inside::{Lab, end_on_signal};
use super::programs::{cannot_start, command, ensure_in_other_namespaces, own_namespaces};
use super::programs::{search_path, unshare_words};
use super::shape::{LabName, Shape, ShapeOptions};
use super::state::{self, Found};

/// Options of every command that measures in a lab.
#[derive(Debug, Clone, Args)]
pub(crate) struct LabOptions {
    #[command(flatten)]
    pub(crate) shape: ShapeOptions,
    /// The lab to run in, which `fanq-bench lab up` made [default: one of its own, gone at the end]
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["hook", "topology", "pairs", "offloads"]
    )]
    pub(crate) lab: Option<LabName>,
    /// Already inside; the value is where it was started
    #[arg(long, hide = true, value_name = "NAMESPACES")]
    pub(crate) inside: Option<String>,
    /// The private lab is built
    #[arg(long, hide = true, requires = "inside")]
    pub(crate) built: bool,
}

/// On which side of the lab's door this process is.
#[derive(Debug)]
pub(crate) enum Entered {
    /// The command ran inside, and ended so: there is nothing left to do.
    Outside(ExitCode),
    /// Go on and measure.
    Inside(Lab),
}

/// Enters the lab that the options say. To be called from the main thread, before other threads are started, and
/// before anything is opened or printed: the command line runs once more inside.
pub(crate) fn enter(options: &LabOptions) -> anyhow::Result<Entered> {
    let Some(outside) = &options.inside else {
        return run_inside(options).map(Entered::Outside);
    };
    ensure_in_other_namespaces(outside)?;
    if options.lab.is_none() && !options.built {
        build::build(&Shape::on_this_machine(&options.shape)?)?;
        return Err(go_on_in_a_process_namespace()?);
    }
    let lab = build::find()?;
    lab.end_on_signal()?;
    Ok(Entered::Inside(lab))
}

/// Becomes `unshare`, which runs this command line once more; returns only why it could not.
fn go_on_in_a_process_namespace() -> anyhow::Result<anyhow::Error> {
    let mut words: Vec<OsString> = vec!["unshare".into()];
    words.extend(END_TOGETHER.map(Into::into));
    words.push("--".into());
    words.extend(own_words(&["--built".into()])?);
    let mut unshare = command(&words)?;
    let error = unshare.exec();
    Ok(cannot_start(&unshare, &error))
}

/// Enters namespaces of its own with nothing in them, for a command that builds there what it needs. `inside` is the
/// value of its hidden option `--inside`. Returns the exit status where the command ran inside and ended so. What is
/// said of [`enter`] holds here, too.
pub(crate) fn enter_empty(inside: Option<&str>) -> anyhow::Result<Option<ExitCode>> {
    let Some(outside) = inside else {
        return run_words(unshare_words(&[&PRIVATE[..], &END_TOGETHER].concat())?, None).map(Some);
    };
    ensure_in_other_namespaces(outside)?;
    end_on_signal(&Arc::new(AtomicBool::new(true)))?;
    Ok(None)
}

/// What ends all processes of a process namespace with the one that started it.
const END_TOGETHER: [&str; 4] = ["--pid", "--mount-proc", "--fork", "--kill-child"];

/// The namespaces that a lab is in.
const PRIVATE: [&str; 2] = ["--net", "--mount"];

/// Runs this command line again inside.
fn run_inside(options: &LabOptions) -> anyhow::Result<ExitCode> {
    let mut words: Vec<OsString> = Vec::new();
    let mut mark = None;
    if let Some(name) = &options.lab {
        let state = match state::find(name)? {
            Found::Up(state) => state,
            found => return Err(found.not_up(name)),
        };
        words.extend(state.entry_words()?);
        words.extend(["unshare", "--mount"].map(Into::into));
        words.extend(END_TOGETHER.map(Into::into));
        words.push("--".into());
        mark = Some(state.mark());
    } else {
        // Settled once more inside; here only for an early error.
        Shape::on_this_machine(&options.shape)?;
        words.extend(unshare_words(&PRIVATE)?);
    }
    run_words(words, mark)
}

/// Runs this command line again where the words lead to, and waits.
fn run_words(way: Vec<OsString>, mark: Option<String>) -> anyhow::Result<ExitCode> {
    let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "KILL", "--"].map(Into::into).into();
    words.extend(way);
    words.extend(own_words(&["--inside".into(), own_namespaces()?.into()])?);
    let mut command = command(&words)?;
    // Of its own process group, it hears of a signal once, from here, and not from the terminal too.
    command.env("PATH", search_path()).process_group(0);
    command.envs(mark.map(|mark| (state::MARK, mark)));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]).context("signals")?;
    let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    let pid = Pid::from_child(&child);
    thread::spawn(move || pass_on(&mut signals, pid));
    let status = child.wait().context("waiting for the command inside the lab")?;
    Ok(exit_code(status))
}

/// This program and its arguments, with a hidden option behind the subcommand.
fn own_words(hidden: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let mut words = vec![std::env::current_exe().context("finding this program")?.into()];
    let mut arguments = std::env::args_os().skip(1).peekable();
    let depth = if arguments.peek().is_some_and(|word| word == "lab") { 2 } else { 1 };
    words.extend(arguments.by_ref().take(depth));
    words.extend(hidden.iter().cloned());
    words.extend(arguments);
    Ok(words)
}

/// This command line as it was typed, but with the programs' own names only: a record names no folder of the machine.
pub(crate) fn typed_line() -> String {
    typed(std::env::args())
}

/// The hidden options and their value go, and of each word all before the last slash.
fn typed(mut words: impl Iterator<Item = String>) -> String {
    let mut typed = Vec::new();
    while let Some(word) = words.next() {
        if word == "--inside" {
            words.next();
        } else if !word.starts_with("--inside=") && word != "--built" {
            typed.push(word.rsplit('/').next().unwrap_or_default().to_owned());
        }
    }
    typed.join(" ")
}

/// The first signal goes to the command inside, which may end in its own way; the second ends it.
fn pass_on(signals: &mut Signals, unshare: Pid) {
    let mut passed = false;
    for signal in signals.forever() {
        let inside = if passed { None } else { only_child(unshare) };
        passed = true;
        // What has ended already needs no signal.
        let _ = match (inside, Signal::from_named_raw(signal)) {
            (Some(inside), Some(signal)) => kill_process(inside, signal),
            _ => kill_process(unshare, Signal::KILL),
        };
    }
}

/// The process whose parent that is (the fourth field of /proc/PID/stat).
fn only_child(parent: Pid) -> Option<Pid> {
    let wanted = parent.as_raw_nonzero().get();
    state::processes().find(|pid| {
        let parent = state::stat_field(pid.as_raw_nonzero().get(), 4);
        parent.and_then(|field| field.parse().ok()) == Some(wanted)
    })
}

/// As a shell says it: the status, or 128 and the number of the signal.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_line_as_typed_without_folders() {
        let line = "/opt/fanq-bench versus --built --inside net:[1],mnt:[2] --reference /x/limit --inside=a --size 9";
        let words = line.split(' ').map(str::to_owned);
        assert_eq!(typed(words), "fanq-bench versus --reference limit --size 9");
    }
}
