//! `fanq completions` and `fanq man`: what a shell and a reader need, made from the command line's own definition.
//!
//! Invariant: nothing here is written by hand, so it cannot differ from what the program takes. Every command's help
//! ends with examples, and each of them is a command line that the program takes: the tests see to both, for commands
//! to come as well.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::usage;

/// Options of `fanq completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq completions bash >/usr/share/bash-completion/completions/fanq
  fanq completions zsh >/usr/share/zsh/vendor-completions/_fanq")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Options of `fanq man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq man rules install | man -l -
  fanq man --out /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command whose page is printed, such as `rules install` [default: fanq itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    words: Vec<String>,
    /// Write the pages of all commands into this folder, fanq.1, fanq-run.1 and so on
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completions of a command line.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    print(&text)
}

/// Prints one page, or writes all.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    if let Some(folder) = &args.out {
        return clap_mangen::generate_to(command, folder)
            .with_context(|| format!("writing the pages into {}", folder.display()));
    }
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut page = &command;
    for word in &args.words {
        page = page.find_subcommand(word).ok_or_else(|| unknown(page, word))?;
    }
    let mut text = Vec::new();
    Man::new(page.clone()).render(&mut text)?;
    print(&text)
}

fn unknown(command: &Command, word: &str) -> anyhow::Error {
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    usage(format!("`{}` has no command `{word}`; it has: {known}", command.get_name()))
}

/// A reader who has seen enough is no failure.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("printing")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
