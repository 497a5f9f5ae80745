//! `fanq completions` and `fanq man`: what a shell and man(1) know of the program, made from the definition of the
//! command line.
//!
//! Invariant: nothing here names an option: what the command line takes is what is written.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

/// For which shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write the pages: fanq.1 and one for each subcommand
    folder: PathBuf,
}

/// One for each subcommand, shown at the end of its help and in its page.
const EXAMPLES: [(&str, &str); 16] = [
    ("run", "fanq run --queues 0-3 --stats 1"),
    ("rules", "fanq rules install --hook forward --queues 0-3 --fanout --bypass"),
    ("rules print", "fanq rules print --hook input --queues 0-3 --fanout --proto udp"),
    ("rules install", "fanq rules install --hook forward --queues 0-3 --fanout --bypass"),
    ("rules show", "fanq rules show"),
    ("rules remove", "fanq rules remove"),
    ("policy", "fanq policy check rules.toml"),
    ("policy check", "fanq policy check rules.toml"),
    ("policy bench", "fanq policy bench rules.toml --payload 1400"),
    ("control", "fanq control statistics"),
    ("control statistics", "fanq control statistics | jq .totals"),
    ("control get", "fanq control get"),
    ("control set", "fanq control set copy-range 128"),
    ("control reload", "fanq control --pid 4711 reload"),
    ("completions", "fanq completions bash > /usr/share/bash-completion/completions/fanq"),
    ("man", "fanq man /usr/local/share/man/man1"),
];

/// The command line with an example in each subcommand's help.
pub(crate) fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, example)| {
        let path: Vec<_> = path.split(' ').collect();
        with_example(command, &path, example)
    })
}

fn with_example(command: Command, path: &[&'static str], example: &str) -> Command {
    match path {
        [] => command.after_help(format!("Example: {example}")),
        [name, rest @ ..] => command.mut_subcommand(name, |sub| with_example(sub, rest, example)),
    }
}

/// Prints the completions.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fanq", &mut text);
    match io::stdout().write_all(&text) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing the completions"),
    }
}

/// Writes the pages.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let folder = args.folder.display();
    if !args.folder.is_dir() {
        anyhow::bail!("{folder} is no folder: mkdir -p {folder}");
    }
    clap_mangen::generate_to(command, &args.folder)
        .with_context(|| format!("writing the pages to {folder}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every subcommand with its path, `fanq rules install`.
    fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            all(sub, &path, found);
            found.push((path, sub.clone()));
        }
    }

    fn subcommands() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        all(&with_examples(crate::Cli::command()), "fanq", &mut found);
        found
    }

    #[test]
    fn every_help_has_an_example_that_the_command_line_takes() {
        for (path, mut command) in subcommands() {
            let help = command.render_long_help().to_string();
            let Some((_, example)) = help.split_once("Example: ") else {
                panic!("`{path} --help` has no example: {help}");
            };
            let example = example.lines().next().unwrap_or_default();
            let all_there =
                path.split(' ').all(|word| example.split(' ').any(|there| there == word));
            assert!(all_there, "the example of `{path}` is `{example}`");
            let words = example.split([' ', '|', '>']).map(|word| word.trim_matches('\''));
            let words = words.take_while(|word| !word.is_empty());
            if let Err(error) = crate::Cli::command().try_get_matches_from(words) {
                panic!("the example `{example}` is refused: {error}");
            }
        }
    }

    #[test]
    fn every_shell_and_every_subcommand_gets_its_own() {
        let commands = subcommands();
        assert!(commands.len() > 5);
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut crate::Cli::command(), "fanq", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("queue-maxlen"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { folder: folder.path().to_owned() };
        man(&args, with_examples(crate::Cli::command())).unwrap();
        for (path, _) in commands {
            let page = folder.path().join(format!("{}.1", path.replace(' ', "-")));
            assert!(page.exists(), "{}", page.display());
        }
        let run = std::fs::read_to_string(folder.path().join("fanq-run.1")).unwrap();
        assert!(
            ["queue\\-maxlen", ".TH", "Example: fanq run"].iter().all(|part| run.contains(part)),
            "{run}"
        );
        let missing = ManArgs { folder: folder.path().join("missing") };
        assert!(man(&missing, crate::Cli::command()).unwrap_err().to_string().contains("mkdir -p"));
    }
}
