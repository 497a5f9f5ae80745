//! The `fanq` program: one subcommand, one module.
//!
//! Exit status: 0 done, 1 the machine refused, 2 the request was wrong. `doctor` has its own.

#![forbid(unsafe_code)]

mod accel;
mod confine;
mod control;
mod doctor;
mod doors;
mod endpoint;
mod eve;
mod handover;
mod inspector;
mod machine;
mod manual;
mod mark;
mod metrics;
mod notice;
mod policy;
mod rule_counters;
mod rules;
mod run;
mod service_manager;
#[cfg(feature = "top")]
mod top;
mod tune;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Per-CPU NFQUEUE engine: runs it and installs its rules.
#[derive(Debug, Parser)]
#[command(name = "fanq", version, propagate_version = true)]
#[command(after_help = "Examples:
  fanq rules install --hook forward --queues 0-3 --fanout --bypass
  fanq run --queues 0-3 --stats 1")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, for a moment")]
enum Command {
    /// Serve a range of queues, one pinned worker each.
    Run(run::RunArgs),
    /// Show, install or remove the rules that send packets to the queues.
    Rules(rules::RulesArgs),
    /// Look at the machine, its rules and queues: what is wrong, why it matters, and what mends it.
    Doctor(doctor::DoctorArgs),
    /// Start a program that serves queues by itself, with batched receives and joined verdicts under it.
    Accel(accel::AccelArgs),
    /// Look at a rules file for `run --policy`: what is in it, and what it costs.
    Policy(inspector::PolicyArgs),
    /// Ask a running `fanq run` (or `fanq accel`) for its statistics, and change what may change while it runs.
    Control(control::ControlArgs),
    /// Print the completions of a shell.
    Completions(manual::CompletionsArgs),
    /// Print or write the manual's pages.
    Man(manual::ManArgs),
    /// Plan, make and undo changes of the machine for the queues; or measure which options suit it.
    Tune(tune::TuneArgs),
    /// Show what every queue does now, whosever it is: live, as a table, or as JSON.
    #[cfg(feature = "top")]
    Top(top::TopArgs),
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Doctor(args) => return doctor::run(&args),
        Command::Accel(args) => match accel::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Policy(args) => inspector::run(&args),
        Command::Control(args) => control::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Tune(args) => tune::run(&args),
        #[cfg(feature = "top")]
        Command::Top(args) => top::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanq: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// Says what clap found wrong, or prints the help that was asked for, and ends. `doctor` needs the usual statuses for
/// what it finds.
fn refuse(error: &clap::Error) -> ! {
    let doctor = std::env::args_os().nth(1).is_some_and(|word| word == "doctor");
    if doctor && error.use_stderr() {
        // Where standard error is closed, the status says it.
        let _ = error.print();
        std::process::exit(i32::from(doctor::EXIT_USAGE));
    }
    error.exit()
}

/// A request that cannot be right on any machine. clap finds most of them; this is for the rest.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for UsageError {}

/// Marks an error as the user's to mend in what they typed.
fn usage(message: impl std::fmt::Display) -> anyhow::Error {
    UsageError(message.to_string()).into()
}

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// clap finds contradictions between options only when it is asked, and in a debug build.
    #[test]
    fn the_options_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
