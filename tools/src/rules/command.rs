//! Runs `nft` and the iptables programs: text in, text out, and their own words when they refuse.
//!
//! Invariant: a program that is missing and one that refuses are told apart, and no refusal is
//! lost. Nothing here goes through a shell.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// What a program that succeeded has printed.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program to its end with `input` on its standard input.
pub(super) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    input: &str,
) -> Result<Printed, Refusal> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Refusal::Missing { program: program.to_owned() },
        _ => Refusal::NotRun { program: program.to_owned(), source },
    };
    let mut child = Command::new(program)
        .args(arguments)
        // Their messages are read here, so they must not be translated.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Our texts are shorter than a pipe's buffer, so this cannot wait for the program's output.
        // A program that ends before it has read them says why itself.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    let printed = Printed {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    if output.status.success() {
        return Ok(printed);
    }
    let words = first_words(&printed.stderr);
    Err(Refusal::Refused {
        command: command_line(program, arguments),
        words: if words.is_empty() { output.status.to_string() } else { words },
    })
}

/// Why a program did not do what it was told.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not installed, or not in PATH.
    Missing { program: String },
    /// It could not be run.
    NotRun { program: String, source: io::Error },
    /// It, or the kernel, said no.
    Refused { command: String, words: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program } => write!(f, "{program} is not in PATH"),
            Self::NotRun { program, source } => write!(f, "running {program}: {source}"),
            Self::Refused { command, words } => write!(f, "`{command}` says: {words}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Whether it was the right to do so that was missing, and nothing else is known.
    pub(super) fn is_permission(&self) -> bool {
        match self {
            Self::Refused { words, .. } => {
                words.contains("not permitted") || words.contains("Permission denied")
            }
            Self::Missing { .. } | Self::NotRun { .. } => false,
        }
    }

    /// Whether the program does not exist here.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The first line of what a program says, without its full stop. iptables-restore's ends in a colon
/// and goes on in the next.
pub(super) fn first_words(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let words = match lines.next() {
        Some(second) if first.ends_with(':') => format!("{first} {second}"),
        _ => first.to_owned(),
    };
    words.trim_end_matches('.').to_owned()
}

fn command_line<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> String {
    let mut line = program.to_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&argument.as_ref().to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let printed = run("sh", &["-c", "cat; echo no >&2"], "text\n").unwrap();
        assert_eq!((printed.stdout.as_str(), printed.stderr.as_str()), ("text\n", "no\n"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let refusal = run::<&str>("fanq-no-such-program", &[], "").unwrap_err();
        assert!(refusal.is_missing());
        assert_eq!(refusal.to_string(), "fanq-no-such-program is not in PATH");
    }

    #[test]
    fn a_refusal_keeps_the_command_and_its_words() {
        let refusal =
            run("sh", &["-c", "echo; echo Permission denied >&2; exit 4"], "x").unwrap_err();
        assert!(refusal.is_permission());
        assert!(refusal.to_string().ends_with("` says: Permission denied"), "{refusal}");
        let silent = run("sh", &["-c", "exit 4"], "").unwrap_err();
        assert!(silent.to_string().ends_with("says: exit status: 4"), "{silent}");
    }

    #[test]
    fn words_that_go_on_in_the_next_line_are_joined() {
        let text = "iptables-nft-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed\n";
        assert_eq!(
            first_words(text),
            "iptables-nft-restore v1.8.9 (nf_tables): line 3: RULE_APPEND failed"
        );
        assert_eq!(first_words("\nError: no.\nadd rule\n"), "Error: no");
        assert_eq!(first_words(""), "");
    }
}
