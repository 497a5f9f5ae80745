//! Scrapes in a namespace, and `promtool` as the judge of them: what tests of metrics share.
//!
//! Invariant: every wait is bounded. Needs `python3`; without `promtool` (of Debian's package prometheus) what it would
//! judge is SKIPPED aloud, or a failure if CI is set.

#![allow(dead_code, reason = "each test program uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::space::{Space, skip};

/// Runs a script of Python in the namespace and returns what it prints.
pub(crate) fn python(space: &Space, script: &str) -> String {
    let output = space.command(&["timeout", "60", "python3", "-c", script]).output();
    let output = output.expect("python3 runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// One scrape of port 9477, and what kind of text it is.
pub(crate) fn scrape(space: &Space, accept: &str) -> (String, String) {
    let script = format!(
        "
import urllib.request
request = urllib.request.Request('http://127.0.0.1:9477/metrics', headers={{'Accept': '{accept}'}})
with urllib.request.urlopen(request, timeout=20) as response:
    print(response.headers['Content-Type'])
    print(response.read().decode(), end='')"
    );
    let said = python(space, &script);
    let (kind, text) = said.split_once('\n').expect("a kind and a text");
    (kind.to_owned(), text.to_owned())
}

/// The value of one sample, all labels given as they stand there.
pub(crate) fn sample<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// One that is a whole number.
pub(crate) fn count(text: &str, name: &str) -> u64 {
    let value = sample(text, name);
    value.strip_suffix(".0").unwrap_or(value).parse().expect("a whole number")
}

/// A file of what is committed for Prometheus and Grafana.
pub(crate) fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring").join(file)
}

/// Has promtool judge something, given on its standard input.
pub(crate) fn judge(words: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(words)
        .current_dir(monitoring("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return skip(&format!("promtool: {error}")),
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that reads nothing ends before.
    let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {words:?}: {said}\n{input}");
}
