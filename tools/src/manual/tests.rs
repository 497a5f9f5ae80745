//! Goal: every command has a help that ends with examples which the program takes, a page that renders without a
//! warning, and completions that its shell reads. Method: a walk through the command line's definition; the shells and
//! groff, where they are installed.

use std::process::{Command as Program, Stdio};

use clap::{Command, CommandFactory};

use super::*;
use crate::Cli;

/// Every command with its words, from `fanq` on.
fn all_commands() -> Vec<(Vec<String>, Command)> {
    fn walk(command: &Command, before: &[String], all: &mut Vec<(Vec<String>, Command)>) {
        let words = [before, &[command.get_name().to_owned()]].concat();
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            walk(inner, &words, all);
        }
        all.push((words, command.clone()));
    }
    let mut all = Vec::new();
    let mut command = Cli::command();
    command.build();
    walk(&command, &[], &mut all);
    all
}

/// The words of a shell command line, up to what is the shell's own.
fn words_of(line: &str) -> Vec<&str> {
    let ends = |word: &&str| !["|", "&&", "#", "&"].contains(word) && !word.starts_with('>');
    line.split_ascii_whitespace().take_while(ends).map(|word| word.trim_matches('\'')).collect()
}

#[test]
fn every_help_ends_with_examples_that_the_program_takes() {
    let mut missing = Vec::new();
    for (words, mut command) in all_commands() {
        let name = words.join(" ");
        let help = command.render_long_help().to_string();
        let paragraph = help.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let Some(("Example:" | "Examples:", lines)) = paragraph.split_once('\n') else {
            missing.push(name);
            continue;
        };
        for line in lines.lines() {
            let line = line
                .strip_prefix("  ")
                .unwrap_or_else(|| panic!("{name}: {line:?} is not indented"));
            let ours = line.strip_prefix("sudo ").unwrap_or(line);
            assert!(ours.starts_with("fanq "), "{name}: {line:?} is no command line of ours");
            let parsed = Cli::command().try_get_matches_from(words_of(ours));
            assert!(parsed.is_ok(), "{name}: {line:?}: {}", parsed.unwrap_err());
        }
        let own = lines.lines().any(|line| line.contains(&name));
        assert!(own, "{name}: none of its examples is of {name}");
    }
    assert!(
        missing.is_empty(),
        "the --help of these ends without an example; put \
         `#[command(after_help = \"Examples:\\n  fanq ...\")]` on the arguments (or the variant) of each: {missing:?}"
    );
}

#[test]
fn every_page_renders_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    man(&ManArgs { words: Vec::new(), out: Some(folder.path().to_owned()) }, Cli::command())
        .unwrap();
    for (words, _) in all_commands() {
        let path = folder.path().join(format!("{}.1", words.join("-")));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}", path.display()));
        assert!(page.contains("Example"), "{}", path.display());
        let groff = Program::new("groff")
            .args(["-man", "-ww", "-Tutf8", "-z"])
            .arg(&path)
            .stdin(Stdio::null())
            .output();
        let Ok(output) = groff else {
            eprintln!("SKIPPED: no groff to render the pages with");
            return;
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", path.display());
    }
}

#[test]
fn shells_read_the_completions() {
    for (shell, reads) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "fanq", &mut text);
        let script = String::from_utf8(text).unwrap();
        for (words, _) in all_commands() {
            let word = words.last().unwrap();
            assert!(script.contains(word.as_str()), "{shell}: no {word}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        let Ok(output) = Program::new(reads).arg("-n").arg(file.path()).output() else {
            eprintln!("SKIPPED: no {reads} to read its completions with");
            continue;
        };
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && words.is_empty(), "{reads}: {words}");
    }
}

#[test]
fn a_page_of_one_command_is_found_by_its_words() {
    let args = |words: &[&str]| ManArgs {
        words: words.iter().map(|&w| w.to_owned()).collect(),
        out: None,
    };
    let error = man(&args(&["rules", "instal"]), Cli::command()).unwrap_err().to_string();
    assert!(
        error.contains("`rules` has no command `instal`") && error.contains("install, "),
        "{error}"
    );
}
