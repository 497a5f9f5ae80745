//! `fanq tune`: what of the machine to change for the queues, the changing, and the way back.
//!
//! Invariant: `plan` changes nothing; `apply` changes all or nothing and has first written down, on disk, what was
//! before; `revert` puts that back, also after a kill or a restart.

mod apply;
mod change;
mod ethtool;
mod journal;
mod knobs;
mod measure;
mod plan;
mod revert;
mod setting;
mod show;
mod step;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use fanq::{CpuList, EngineConfig, QueueRange};
use glob::Pattern;

use crate::machine::{Machine, Root};
use crate::usage;
use journal::{Journal, Store};
use knobs::RootKnobs;
use plan::{Plan, Target};

/// Options of `fanq tune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq tune plan --queues 0-3 --dev eth0
  fanq tune --measure -o fanq.toml")]
pub(crate) struct TuneArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    measure: measure::MeasureArgs,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Show what to change, as commands with their reasons; changes nothing. This is what is done without a word.
    #[command(after_help = "Examples:\n  fanq tune plan --queues 0-3 --dev eth0")]
    Plan,
    /// Make the changes of the plan: all of them, or none. What was before is written down first.
    #[command(after_help = "Examples:\n  fanq tune apply --only 'rps.*'")]
    Apply,
    /// Put back what apply has changed, also after a restart or an apply that was killed.
    #[command(after_help = "Examples:\n  fanq tune revert")]
    Revert(RevertArgs),
}

#[derive(Debug, Clone, Copy, Args)]
struct RevertArgs {
    /// Put back also what somebody else has changed since
    #[arg(long)]
    force: bool,
    /// Forget what somebody else has changed since, instead of keeping its old values in the journal
    #[arg(long, conflicts_with = "force")]
    forget: bool,
}

#[derive(Debug, Args)]
struct Common {
    /// Network devices to plan for, as often as wanted [default: the hardware that is up]
    #[arg(long = "dev", value_name = "NAME", global = true)]
    devices: Vec<String>,
    /// The queues to plan for [default: those of the rule with fanout, else one for each online CPU]
    #[arg(short, long, value_name = "RANGE", global = true)]
    queues: Option<QueueRange>,
    /// Only changes whose name matches, such as 'rps.*', as often as wanted
    #[arg(long, value_name = "GLOB", global = true)]
    only: Vec<Pattern>,
    /// No changes whose name matches, as often as wanted
    #[arg(long, value_name = "GLOB", global = true)]
    skip: Vec<Pattern>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// Where apply writes down what was before [default: /var/lib/fanq/tune.json, below the root]
    #[arg(long, value_name = "FILE", global = true)]
    state: Option<PathBuf>,
    /// A folder with a copy of a machine's files, in the place of the running machine
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    root: PathBuf,
}

impl Common {
    fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.root.join(STATE))
    }

    /// Reads the machine and makes the plan.
    fn plan(&self, journal: Option<&Journal>) -> anyhow::Result<Plan> {
        let machine = Machine::read(&Root::new(&self.root), &self.devices);
        if let Some(missing) = machine.devices_missing.first() {
            return Err(usage(format!("there is no network device {missing} here; see: ip link")));
        }
        let engine = EngineConfig::new(self.queues(&machine)?);
        let target = Target {
            queues: engine.queues,
            rcvbuf: engine.queue.rcvbuf,
            maxlen: engine.queue.maxlen,
        };
        let mut plan = Plan::of(&machine, &RootKnobs::new(&self.root), target);
        let listed = |list: &[Pattern], id: &str| list.iter().any(|glob| glob.matches(id));
        plan.changes.retain(|change| {
            let (setting, id) = (&change.setting, change.setting.id());
            let is_made = |journal: &Journal| journal.has_made(setting, &change.new, &change.old);
            let chosen = self.only.is_empty() || listed(&self.only, &id);
            chosen && !listed(&self.skip, &id) && !journal.is_some_and(is_made)
        });
        Ok(plan)
    }

    fn queues(&self, machine: &Machine) -> anyhow::Result<QueueRange> {
        if let Some(queues) = self.queues {
            return Ok(queues);
        }
        let mut fanout = machine.rules.found.iter().filter(|rule| rule.fanout);
        if let Some((first, last)) = fanout.find_map(|rule| rule.queues) {
            return QueueRange::new(first, last).map_err(usage);
        }
        let online = machine.cpus.online.known().map_or(1, CpuList::len);
        let last = u16::try_from(online.saturating_sub(1)).unwrap_or(u16::MAX);
        QueueRange::new(0, last).map_err(usage)
    }
}

/// Does what the command line says.
pub(crate) fn run(args: &TuneArgs) -> anyhow::Result<()> {
    if args.measure.is_asked_for() {
        return match args.action {
            None => measure::run(&args.measure),
            Some(_) => Err(usage("--measure goes by itself: fanq tune --measure")),
        };
    }
    let common = &args.common;
    match &args.action {
        None | Some(Action::Plan) => {
            let journal = journal::read(&common.state())?;
            let plan = common.plan(journal.as_ref())?;
            if common.json {
                return show::json(&plan, journal.as_ref());
            }
            show::text(&plan, journal.as_ref());
            Ok(())
        }
        Some(Action::Apply) => apply_plan(common),
        Some(Action::Revert(args)) => revert_all(common, *args),
    }
}

fn apply_plan(common: &Common) -> anyhow::Result<()> {
    // Taken before the machine is looked at, so that nobody changes it in between.
    let store = Store::open(&common.state())?;
    let plan = common.plan(store.load()?.as_ref())?;
    for note in &plan.notes {
        eprintln!("note: {note}");
    }
    let applied = apply::apply(&mut RootKnobs::new(&common.root), &store, &plan.changes)?;
    for rounded in &applied.rounded {
        eprintln!("note: {rounded}");
    }
    if common.json {
        return show::applied_json(&plan, &applied);
    }
    show::applied(&plan, &applied, store.path());
    Ok(())
}

fn revert_all(common: &Common, args: RevertArgs) -> anyhow::Result<()> {
    let path = common.state();
    if !journal::is_begun(&path) {
        return show::reverted(None, common.json);
    }
    let store = Store::open(&path)?;
    let reverted = revert::revert(&mut RootKnobs::new(&common.root), &store, args.force)?;
    if args.forget && reverted.is_some() {
        store.save(&Journal::new(String::new())).context("forgetting the rest")?;
    }
    show::reverted(reverted.as_ref(), common.json)
}

/// Below the root.
const STATE: &str = "var/lib/fanq/tune.json";
