//! The process that holds a lab which stays: how it starts, and how it ends.
//!
//! `up` starts the holder in new namespaces. It builds the lab there, says `ready`, and waits for `keep`, which comes
//! once the lab's file is written; only then does it leave its starter and answer `held`. If `up` ends before, of
//! whatever cause, the holder reads the end of its input and ends too, and the namespaces with it.
//!
//! Invariant: a lab is there for good or not at all.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::build;
use super::plan::Place;
use super::programs::{cannot_start, command, ensure_in_other_namespaces, namespace_of};
use super::programs::{own_namespaces, unshare_words};
use super::shape::{LabName, Shape};
use super::state::{Process, State};
use crate::pipes::write_to_program;

/// Options of the holder, which `up` gives it.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[arg(long)]
    name: LabName,
    /// Where `up` is, which is not where the holder may be
    #[arg(long, required_unless_present = "held")]
    outside: Option<String>,
    /// A settled shape, as JSON
    #[arg(long, required_unless_present = "held")]
    shape: Option<String>,
    /// The lab is built
    #[arg(long)]
    held: bool,
}

/// What the holder says of the lab that it built.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    user_namespace: bool,
    namespaces: Vec<String>,
}

/// Makes the lab and its holder. Returns `None` if somebody else made one of that name meanwhile.
pub(crate) fn start(name: &LabName, shape: &Shape) -> anyhow::Result<Option<State>> {
    let mut starting = Starting::new(name, shape)?;
    let said = starting.read_line()?;
    let ready: Ready =
        serde_json::from_str(&said).with_context(|| format!("the lab's holder said {said:?}"))?;
    let pid = starting.child.id().cast_signed();
    let state = State {
        name: name.clone(),
        holder: Process::of(pid).context("the lab's holder is gone")?,
        user_namespace: ready.user_namespace,
        namespaces: ready.namespaces,
        shape: shape.clone(),
    };
    if !state.publish()? {
        return Ok(None);
    }
    if let Err(error) = starting.keep() {
        state.forget()?;
        return Err(error);
    }
    Ok(Some(state))
}

/// A holder that does not stay yet. Dropped, it is ended.
struct Starting {
    child: Child,
    said: BufReader<ChildStdout>,
    held: bool,
}

impl Starting {
    fn new(name: &LabName, shape: &Shape) -> anyhow::Result<Self> {
        let mut words = unshare_words(&["--net", "--mount"])?;
        words.push(std::env::current_exe().context("finding this program")?.into());
        let shape = serde_json::to_string(shape)?;
        let outside = own_namespaces()?;
        let options =
            ["lab", "hold", "--name", name.as_str(), "--shape", &shape, "--outside", &outside];
        words.extend(options.map(OsString::from));
        let mut command = command(&words)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The holder keeps no folder busy.
        command.current_dir("/");
        let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        let said = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, said, held: false })
    }

    /// What the holder says next, or why it ended.
    fn read_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("reading from the lab's holder")?;
        if !line.is_empty() {
            return Ok(line.trim().to_owned());
        }
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr).context("reading from the lab's holder")?;
        }
        let why = stderr.trim().trim_start_matches("fanq-bench: ").replace('\n', "; ");
        bail!("{}", if why.is_empty() { "the lab's holder ended without a word" } else { &why })
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        let stdin = self.child.stdin.take().context("no input")?;
        write_to_program(stdin, b"keep\n").context("the lab's holder is gone")?;
        let said = self.read_line()?;
        if said != "held" {
            bail!("the lab's holder said {said:?}");
        }
        self.held = true;
        Ok(())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.held {
            // A process that has ended already is as well as killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The holder itself.
pub(crate) fn hold(args: &HoldArgs) -> anyhow::Result<()> {
    if args.held {
        loop {
            std::thread::park();
        }
    }
    ensure_in_other_namespaces(args.outside.as_deref().unwrap_or_default())?;
    let shape: Shape =
        serde_json::from_str(args.shape.as_deref().unwrap_or_default()).context("--shape")?;
    let lab = build::build(&shape)?;
    let files = Place::all(shape.hook).iter().map(|place| place.file());
    let namespaces = files.map(|file| namespace_of(file.as_ref())).collect::<Result<_, _>>()?;
    crate::print_json(&Ready { user_namespace: lab.user_namespace, namespaces })?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading from `lab up`")?;
    if answer != "keep\n" {
        return Ok(());
    }
    rustix::process::setsid().context("leaving the session")?;
    println!("held");
    // The same process again, without a pipe or terminal of `up`.
    let mut again = Command::new(std::env::current_exe().context("finding this program")?);
    again.args(["lab", "hold", "--held", "--name", args.name.as_str()]);
    again.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Err(anyhow!("cannot go on holding the lab: {}", again.exec()))
}

/// Ends a lab: first who is still in it, which takes `force`, then its holder, then its file.
pub(crate) fn end(state: &State, force: bool) -> anyhow::Result<()> {
    let inhabitants = state.inhabitants();
    if !inhabitants.is_empty() && !force {
        let shown = inhabitants.iter().map(|one| format!("\n  {} {}", one.pid, one.command()));
        bail!(
            "lab {} is in use by:{}\nend these, or end them with the lab: \
             `fanq-bench lab down --name {} --force`",
            state.name,
            shown.collect::<String>(),
            state.name
        );
    }
    for process in &inhabitants {
        println!("lab {}: ending process {} {}", state.name, process.pid, process.command());
        end_process(*process)?;
    }
    end_process(state.holder)?;
    state.forget()
}

fn end_process(process: Process) -> anyhow::Result<()> {
    process.kill()?;
    let deadline = Instant::now() + END_TIME_MAX;
    while process.lives() {
        if Instant::now() > deadline {
            bail!("process {} was killed and lives on after {END_TIME_MAX:?}", process.pid);
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(())
}

const END_TIME_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(5);
