//! Asks a program of the machine: `nft`, `iptables-save`, `ethtool`.
//!
//! Invariant: it ends within [`PATIENCE`], killed if need be, and nothing goes through a shell. Only programs that
//! change nothing are asked.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::fact::Fact;

/// What it prints on both of its outputs, the standard one first.
pub(super) fn run(words: &[&str]) -> Fact<String> {
    let [program, arguments @ ..] = words else { return Fact::Unseen("no program".to_owned()) };
    match answer(program, arguments) {
        Ok(text) => Fact::Known(text),
        Err(why) => Fact::Unseen(format!("`{}`: {why}", words.join(" "))),
    }
}

fn answer(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        // What they say is read here, so it must not be translated.
        .env("LC_ALL", "C")
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{program} is not installed"),
            _ => error.to_string(),
        })?;
    let until = Instant::now() + PATIENCE;
    let (stdout, stderr) = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    let read = stdout_and_stderr(&stdout, &stderr, until);
    if read.is_none() {
        // It has ended, or it is about to.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let (stdout, stderr) = read.ok_or(format!("no answer within {} s", PATIENCE.as_secs()))?;
    let unsupported = |text: &str| text.to_lowercase().contains("not supported");
    if status.success() || unsupported(&stderr) || unsupported(&stdout) {
        return Ok(format!("{stdout}{stderr}"));
    }
    let first = stderr.lines().map(str::trim).find(|line| !line.is_empty());
    Err(first.map_or_else(|| status.to_string(), str::to_owned))
}

/// Users' paths often lack the folders of the system's programs.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

fn all_of(source: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            // What came before an error is shown.
            let _ = source.read_to_end(&mut bytes);
        }
        // The reader may have lost its patience.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn stdout_and_stderr(
    stdout: &Receiver<String>,
    stderr: &Receiver<String>,
    until: Instant,
) -> Option<(String, String)> {
    let next = |source: &Receiver<String>| {
        let left = until.saturating_duration_since(Instant::now());
        match source.recv_timeout(left) {
            Ok(text) => Some(text),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(String::new()),
        }
    };
    Some((next(stdout)?, next(stderr)?))
}

/// Longer than any of them takes on a large ruleset, short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_answers_is_missing_or_refuses() {
        assert_eq!(run(&["sh", "-c", "echo a; echo b >&2"]), Fact::Known("a\nb\n".to_owned()));
        let missing = run(&["fanq-no-such-program"]);
        let why = "`fanq-no-such-program`: fanq-no-such-program is not installed";
        assert_eq!(missing.why_unseen(), Some(why));
        let refused = run(&["sh", "-c", "echo no right >&2; exit 4"]);
        assert!(refused.why_unseen().unwrap().ends_with("`: no right"), "{refused:?}");
    }

    #[test]
    fn what_a_device_does_not_support_is_an_answer() {
        let words = ["sh", "-c", "echo netlink error: Operation not supported >&2; exit 76"];
        assert!(run(&words).known().unwrap().contains("not supported"));
    }
}
