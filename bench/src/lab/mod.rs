//! The lab: network namespaces in which measurements touch nobody and nobody touches them.
//!
//! There are two kinds of one thing. A private lab is made by a measuring command for itself ([`enter()`]) and goes
//! with it. One that stays is made by `fanq-bench lab up`, held by a process of its own, entered by `lab exec` and by
//! measuring commands with `--lab`, and goes by `lab down`. [`plan`] shows what is in it.
//!
//! Invariant: nothing is made outside of namespaces that only the lab's own processes keep alive, except the file
//! that tells of a lab that stays. So whatever ends, of whatever cause, nothing is left but perhaps that file, which
//! the next command clears away. Which rules lead to which queues is not the lab's business.

mod build;
mod cpus;
mod enter;
mod holder;
mod inside;
mod plan;
mod programs;
mod shape;
mod state;
mod status;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

pub(crate) use enter::{Entered, LabOptions, enter, enter_empty, typed_line};
pub(crate) use inside::Lab;
pub(crate) use plan::{Pair, Place};
pub(crate) use programs::run_line;
use shape::{LabName, Shape, ShapeOptions};

use programs::{cannot_start, command, search_path};
use state::Found;

use crate::result::Hook;

/// Options of `fanq-bench lab`.
#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Make a lab that stays.
    Up(UpArgs),
    /// End a lab; nothing of it is left.
    Down(DownArgs),
    /// Show the labs that are up, and who listens on queues in them.
    Status(status::StatusArgs),
    /// Run a command in a lab that is up; its exit status becomes this one's.
    Exec(ExecArgs),
    /// Run a command in a lab as a measuring command does: all that it started ends with it.
    #[command(hide = true)]
    Run(RunArgs),
    #[command(hide = true)]
    Hold(holder::HoldArgs),
    #[command(hide = true)]
    Look,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// What to call it
    #[arg(long, default_value = "default")]
    name: LabName,
    #[command(flatten)]
    shape: ShapeOptions,
}

#[derive(Debug, Args)]
struct DownArgs {
    /// Which one
    #[arg(long, default_value = "default")]
    name: LabName,
    /// All of this user's
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Kill the processes that are still in it
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ExecArgs {
    /// Which lab
    #[arg(long, default_value = "default")]
    name: LabName,
    /// Where in it
    #[arg(value_enum)]
    place: Place,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    lab: LabOptions,
    #[arg(value_enum)]
    place: Place,
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

/// Runs `fanq-bench lab`.
pub(crate) fn run(args: &LabArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        LabCommand::Up(args) => up(args)?,
        LabCommand::Down(args) => return down(args),
        LabCommand::Status(args) => status::status(args)?,
        LabCommand::Exec(args) => exec(args)?,
        LabCommand::Run(args) => return run_command(args),
        LabCommand::Hold(args) => holder::hold(args)?,
        LabCommand::Look => status::look()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(args: &UpArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let shape = Shape::on_this_machine(&args.shape)?;
    match state::find(name)? {
        Found::Nothing => {}
        Found::Stale(state) => {
            holder::end(&state, false)?;
            println!(
                "lab {name}: an earlier one is gone without `lab down`; cleared away its file"
            );
        }
        Found::Up(state) if state.shape == shape => {
            println!("lab {name}: already up: {shape}");
            return Ok(());
        }
        Found::Up(state) => bail!(
            "lab {name} is up already, and other than asked for: {}; \
             end it by `fanq-bench lab down --name {name}`, or take another --name",
            state.shape
        ),
    }
    let state = holder::start(name, &shape)?
        .with_context(|| format!("somebody else made lab {name} at the same time; try again"))?;
    println!("lab {name}: up: {shape}; held by process {}", state.holder.pid);
    Ok(())
}

fn down(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let names = if args.all { state::names()? } else { vec![args.name.clone()] };
    if names.is_empty() {
        println!("no lab is up");
    }
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let ended = state::find(&name).and_then(|found| match found {
            Found::Nothing => Ok(format!("lab {name} is not up")),
            Found::Up(state) => {
                holder::end(&state, args.force).map(|()| format!("lab {name}: down"))
            }
            Found::Stale(state) => holder::end(&state, args.force)
                .map(|()| format!("lab {name}: was gone already; cleared away its file")),
        });
        match ended {
            Ok(what) => println!("{what}"),
            // The others are ended all the same.
            Err(error) => {
                eprintln!("fanq-bench: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Becomes the command, so that its exit status, its signals and its terminal are its own.
fn exec(args: &ExecArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let state = match state::find(name)? {
        Found::Up(state) => state,
        found => return Err(found.not_up(name)),
    };
    if args.place == Place::Server && state.shape.hook == Hook::Input {
        bail!("lab {name} takes packets at input, so it has no server: take client or engine");
    }
    let mut words = state.entry_words()?;
    if args.place != Place::Engine {
        words.extend(["ip", "netns", "exec", args.place.name()].map(Into::into));
    }
    words.extend(args.words.iter().cloned());
    let mut command = command(&words)?;
    let error = command.env("PATH", search_path()).env(state::MARK, state.mark()).exec();
    Err(cannot_start(&command, &error))
}

fn run_command(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let lab = match enter(&args.lab)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(lab) => lab,
    };
    let mut command = lab.command(args.place, &args.words)?;
    let status = command.status().map_err(|error| cannot_start(&command, &error))?;
    Ok(enter::exit_code(status))
}
