//! The programs of the system by which labs are made, and the words that lead into namespaces.
//!
//! Invariant: a program that is missing is named with its Debian package. Nothing of the machine is touched from
//! outside a namespace of one's own.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};

use crate::pipes::write_to_program;

/// A program of the system, found also where only root's PATH leads.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", search_path());
    command
}

/// PATH with the folders of system programs, which users often lack.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// Starts the words of a command.
pub(crate) fn command(words: &[OsString]) -> anyhow::Result<Command> {
    let (first, rest) = words.split_first().context("an empty command")?;
    let mut command = program(&first.to_string_lossy());
    command.args(rest);
    Ok(command)
}

/// Runs a program to its end with this input, and returns what it prints.
pub(crate) fn run(mut command: Command, input: &str) -> anyhow::Result<String> {
    let shown = shown(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    if let Some(stdin) = child.stdin.take() {
        // A program that ends before it has read all says why in its own words, below.
        let _ = write_to_program(stdin, input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| shown.clone())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, stderr.trim().replace('\n', "; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command of plain words.
pub(crate) fn run_line(line: &str) -> anyhow::Result<String> {
    let words: Vec<OsString> = line.split_ascii_whitespace().map(OsString::from).collect();
    run(command(&words)?, "")
}

/// Why a command did not start, and what to install.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> anyhow::Error {
    let name = command.get_program().to_string_lossy();
    let package = PACKAGES.iter().find(|(program, _)| *program == name);
    match package {
        Some((_, package)) if error.kind() == ErrorKind::NotFound => {
            anyhow!("{name} is missing: install the package {package} (apt-get install {package})")
        }
        _ => anyhow!("cannot start {name}: {error}"),
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Words that lead into new namespaces of these kinds, without root by way of a user namespace. That comes first,
/// by itself: the kernel gives /proc/net/netfilter/nfnetlink_queue to the root of the network namespace's owner, who
/// has none before the users are mapped.
pub(crate) fn unshare_words(kinds: &[&str]) -> anyhow::Result<Vec<OsString>> {
    let root = rustix::process::geteuid().is_root();
    let mut words = Vec::new();
    if !root {
        words.extend(["unshare", "--user", "--map-root-user", "--"]);
    }
    words.push("unshare");
    words.extend(kinds);
    words.push("--");
    let attempt = run_line(&[&words[..], &["true"]].concat().join(" "));
    attempt.context(if root {
        "no namespaces of one's own here: root needs CAP_SYS_ADMIN (a container may lack it)"
    } else {
        "no namespaces of one's own here: run as root, or let users make user namespaces \
         (user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0)"
    })?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// The network and mount namespace of this process, in one word.
pub(crate) fn own_namespaces() -> anyhow::Result<String> {
    let link = |kind: &str| {
        let path = format!("/proc/self/ns/{kind}");
        let target = std::fs::read_link(&path).with_context(|| format!("reading {path}"))?;
        Ok::<_, anyhow::Error>(target.to_string_lossy().into_owned())
    };
    Ok(format!("{},{}", link("net")?, link("mnt")?))
}

/// Refuses to go on in the namespaces of whoever started this: there it would change the machine's own network.
pub(crate) fn ensure_in_other_namespaces(outside: &str) -> anyhow::Result<()> {
    let own = own_namespaces()?;
    let same = own.split(',').zip(outside.split(',')).any(|(own, outside)| own == outside);
    if same || outside.split(',').count() != 2 {
        bail!(
            "this is not a namespace of its own ({own}); leave out the hidden option that says so"
        );
    }
    Ok(())
}

/// The identity of a network namespace by its file, as /proc/PID/ns/net shows it.
pub(crate) fn namespace_of(file: &Path) -> anyhow::Result<String> {
    let metadata = file.metadata().with_context(|| format!("reading {}", file.display()))?;
    Ok(format!("net:[{}]", metadata.ino()))
}

const PACKAGES: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
];
