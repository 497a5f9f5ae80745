//! The `fanq` program: one subcommand, one module.
//!
//! Exit status: 0 done, 1 the machine refused, 2 the request was wrong.

#![forbid(unsafe_code)]

mod accel;
mod eve;
mod inspector;
mod mark;
mod policy;
mod rules;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Per-CPU NFQUEUE engine: runs it and installs its rules.
#[derive(Debug, Parser)]
#[command(name = "fanq", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a range of queues, one pinned worker each.
    Run(run::RunArgs),
    /// Show, install or remove the rules that send packets to the queues.
    Rules(rules::RulesArgs),
    /// Start a program that serves queues by itself, with batched receives and joined verdicts under it.
    Accel(accel::AccelArgs),
    /// Look at a rules file for `run --policy`: what is in it, and what it costs.
    Policy(inspector::PolicyArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Accel(args) => match accel::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Policy(args) => inspector::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanq: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
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
    use clap::CommandFactory;

    /// clap finds contradictions between options only when it is asked, and in a debug build.
    #[test]
    fn the_options_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
