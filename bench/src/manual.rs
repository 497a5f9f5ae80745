//! `fanq-bench completions` and `fanq-bench man`: made from the command line's own definition.
//!
//! Invariant: nothing here is written by hand, so it cannot differ from what the program takes.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

/// Options of `fanq-bench completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Options of `fanq-bench man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder that the pages go to, fanq-bench.1, fanq-bench-run.1 and so on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints the completions of a command line.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) {
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut std::io::stdout());
}

/// Writes the pages of all commands.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    clap_mangen::generate_to(command, &args.out)
        .with_context(|| format!("writing the pages into {}", args.out.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_its_page() {
        let folder = std::env::temp_dir().join(format!("fanq-bench-man-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let written = man(&ManArgs { out: folder.clone() }, crate::Cli::command());
        let pages: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        std::fs::remove_dir_all(&folder).unwrap();
        written.unwrap();
        assert!(pages.len() > crate::Cli::command().get_subcommands().count());
    }
}
