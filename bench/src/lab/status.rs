//! Which labs are up, and what goes on in them.
//!
//! Invariant: changes nothing, except that it clears away the file of a lab that is gone and says so.

use anyhow::Context;
use clap::Args;
use fanq::{KernelTable, PortOwner};
use serde::{Deserialize, Serialize};

use super::build;
use super::programs::{command, run};
use super::shape::Shape;
use super::state::{self, Found, State};
use crate::result::{Hook, Topology};

/// Options of `fanq-bench lab status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    schema: &'static str,
    labs: Vec<LabStatus>,
    /// Labs whose holder ended without `lab down`, and whose files are cleared away now.
    cleared: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LabStatus {
    name: String,
    up: bool,
    hook: Hook,
    topology: Topology,
    shape: Shape,
    user_namespace: bool,
    holder: i32,
    /// Nothing for a lab whose holder is gone.
    inside: Option<Inside>,
    /// Processes in it beside its holder.
    processes: Vec<ProcessStatus>,
}

#[derive(Debug, Serialize)]
struct ProcessStatus {
    pid: i32,
    command: String,
}

/// What only shows from inside.
#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    queues: Vec<Listener>,
    device_drops: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listener {
    queue: u16,
    listener: String,
}

/// `fanq-bench lab status`.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let mut status = Status { schema: "fanq.bench.lab/1", labs: Vec::new(), cleared: Vec::new() };
    for name in state::names()? {
        match state::find(&name)? {
            Found::Nothing => {}
            Found::Up(state) => status.labs.push(LabStatus::new(&state, Some(look_into(&state)?))),
            Found::Stale(state) if state.inhabitants().is_empty() => {
                state.forget()?;
                status.cleared.push(name.to_string());
            }
            Found::Stale(state) => status.labs.push(LabStatus::new(&state, None)),
        }
    }
    if args.json {
        return crate::print_json(&status);
    }
    for name in &status.cleared {
        println!("lab {name}: its holder is gone, and the lab with it; cleared away what said so");
    }
    if status.labs.is_empty() {
        println!("no lab is up");
    }
    status.labs.iter().for_each(LabStatus::print);
    Ok(())
}

impl LabStatus {
    fn new(state: &State, inside: Option<Inside>) -> Self {
        let processes = state.inhabitants().into_iter();
        Self {
            name: state.name.to_string(),
            up: inside.is_some(),
            hook: state.shape.hook,
            topology: state.shape.topology,
            shape: state.shape.clone(),
            user_namespace: state.user_namespace,
            holder: state.holder.pid,
            inside,
            processes: processes
                .map(|process| ProcessStatus { pid: process.pid, command: process.command() })
                .collect(),
        }
    }

    fn print(&self) {
        let Some(inside) = &self.inside else {
            println!(
                "lab {}: its holder (process {}) is gone, but processes are still in it; \
                 end them by `fanq-bench lab down --name {} --force`",
                self.name, self.holder, self.name
            );
            return self.print_processes();
        };
        let rights = if self.user_namespace { ", in a user namespace" } else { "" };
        println!("lab {}: {}{rights}", self.name, self.shape);
        println!("  held by process {}; device drops: {}", self.holder, inside.device_drops);
        for one in &inside.queues {
            println!("  queue {}: {}", one.queue, one.listener);
        }
        if inside.queues.is_empty() {
            println!("  nobody listens on a queue");
        }
        self.print_processes();
    }

    fn print_processes(&self) {
        for process in &self.processes {
            println!("  process {}: {}", process.pid, process.command);
        }
    }
}

/// Asks this program, inside.
fn look_into(state: &State) -> anyhow::Result<Inside> {
    let mut words = state.entry_words()?;
    words.push(std::env::current_exe().context("finding this program")?.into());
    words.extend(["lab", "look"].map(Into::into));
    let text = run(command(&words)?, "").with_context(|| format!("lab {}", state.name))?;
    serde_json::from_str(&text).with_context(|| format!("lab {}: {text:?}", state.name))
}

/// Prints what shows from here, inside.
pub(crate) fn look() -> anyhow::Result<()> {
    let lab = build::find()?;
    let rows = KernelTable::open().context("the kernel has no nfnetlink_queue")?.rows()?;
    let listener = |port_id| PortOwner::find(port_id).to_string();
    let queues = rows
        .iter()
        .map(|row| Listener { queue: row.queue, listener: listener(row.port_id) })
        .collect();
    crate::print_json(&Inside { queues, device_drops: lab.device_drops()? })
}
