//! What is known from outside of a lab that stays: a file for each, and whether the process that holds it lives.
//!
//! Invariant: a process is only ever taken for a lab's if it is certain to be: the holder by its process id and
//! start time together, others by the namespace that the living holder keeps from being reused, or by a mark in
//! their environment too. A file appears whole and never replaces another.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{env, ffi::OsString, io};

use anyhow::{Context, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::shape::{LabName, Shape};

/// A lab that was made to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: LabName,
    pub(crate) holder: Process,
    pub(crate) user_namespace: bool,
    /// Of the engine, the client and the server, as /proc/PID/ns/net shows them.
    pub(crate) namespaces: Vec<String>,
    pub(crate) shape: Shape,
}

/// A process, told from a later one of the same id by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks after the machine started.
    pub(crate) start_ticks: u64,
}

/// What is found under a name.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Up(State),
    /// The file is there, the process that held the lab is not.
    Stale(State),
}

impl Found {
    /// Why nobody can enter, and what to do.
    pub(crate) fn not_up(&self, name: &LabName) -> anyhow::Error {
        let gone = match self {
            Self::Stale(state) => {
                format!(" any more: its holder (process {}) ended", state.holder.pid)
            }
            Self::Nothing | Self::Up(_) => String::new(),
        };
        anyhow::anyhow!("lab {name} is not up{gone}; make it by `fanq-bench lab up --name {name}`")
    }
}

impl Process {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        // A process that has ended and was not waited for yet still has its line.
        let state = stat_field(pid, 3)?;
        let start_ticks = stat_field(pid, 22)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, start_ticks })
    }

    pub(crate) fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it, and no other that has its id by now.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid).context("a process id of 0")?;
        let Ok(file) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        if !self.lives() {
            return Ok(());
        }
        match pidfd_send_signal(&file, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("ending process {}", self.pid)),
        }
    }

    /// Its command line, or its name in brackets.
    pub(crate) fn command(self) -> String {
        let read = |file: &str| fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        let words = read("cmdline");
        let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
        if words.is_empty() {
            return format!("[{}]", String::from_utf8_lossy(&read("comm")).trim());
        }
        words
    }
}

impl State {
    /// Words that lead a command into the lab's engine, in the folder that it was called in.
    pub(crate) fn entry_words(&self) -> anyhow::Result<Vec<OsString>> {
        let mut words: Vec<OsString> = vec!["nsenter".into()];
        words.push(format!("--target={}", self.holder.pid).into());
        let user = |of: &str| {
            let path = format!("/proc/{of}/ns/user");
            fs::read_link(&path).with_context(|| format!("reading {path} (lab {})", self.name))
        };
        if user(&self.holder.pid.to_string())? != user("self")? {
            words.extend(["--user", "--preserve-credentials"].map(Into::into));
        }
        words.extend(["--net", "--mount", "--", "env"].map(Into::into));
        // Entering a mount namespace leads to its root.
        let mut folder = OsString::from("--chdir=");
        folder.push(env::current_dir().context("finding the current folder")?);
        words.push(folder);
        Ok(words)
    }

    /// What the environment of each process says that was led into this lab.
    pub(crate) fn mark(&self) -> String {
        format!("{}:{}:{}", self.name, self.holder.pid, self.holder.start_ticks)
    }

    /// Whether the holder lives and still holds the lab; when it ends, it lets go of that first.
    fn is_up(&self) -> bool {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.holder.pid)).unwrap_or_default();
        self.holder.lives() && self.namespaces.iter().any(|one| link == Path::new(one))
    }

    /// The processes in the lab, but for its holder.
    pub(crate) fn inhabitants(&self) -> Vec<Process> {
        let up = self.is_up();
        let mark = format!("{MARK}={}", self.mark());
        let inside = |process: &Process| {
            let link = fs::read_link(format!("/proc/{}/ns/net", process.pid)).unwrap_or_default();
            let there = self.namespaces.iter().any(|namespace| link == Path::new(namespace));
            there && (up || has_in_environment(process.pid, mark.as_bytes()))
        };
        let all = processes().filter_map(|pid| Process::of(pid.as_raw_nonzero().get()));
        all.filter(|process| *process != self.holder).filter(inside).collect()
    }

    /// Writes the file; `false` if there is one of this name already.
    pub(crate) fn publish(&self) -> anyhow::Result<bool> {
        let folder = folder();
        let text = serde_json::to_string_pretty(self)? + "\n";
        let mut attempts = 0;
        loop {
            make_private(&folder)?;
            attempts += 1;
            match self.publish_in(&folder, &text) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                // The last of the other labs took the folder along at this very moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 10 => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("writing in {}", folder.display()));
                }
            }
        }
    }

    fn publish_in(&self, folder: &Path, text: &str) -> io::Result<()> {
        let draft = folder.join(format!(".{}.{}", self.name, std::process::id()));
        let linked = fs::write(&draft, text).and_then(|()| fs::hard_link(&draft, file(&self.name)));
        // Not there if writing failed, which is then said.
        let _ = fs::remove_file(&draft);
        linked
    }

    /// Removes the file, and the folder if it was the last.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        let path = file(&self.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
        // Others' labs keep it.
        let _ = fs::remove_dir(folder());
        Ok(())
    }
}

/// Looks for the lab of this name.
pub(crate) fn find(name: &LabName) -> anyhow::Result<Found> {
    ensure_private(&folder())?;
    let path = file(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let state: State = serde_json::from_str(&text).with_context(|| {
        let path = path.display();
        format!("{path} was not written by this version; end the lab's holder and remove the file")
    })?;
    Ok(if state.is_up() { Found::Up(state) } else { Found::Stale(state) })
}

/// The names of all labs of this user that have a file, in order.
pub(crate) fn names() -> anyhow::Result<Vec<LabName>> {
    let folder = folder();
    ensure_private(&folder)?;
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let name = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.strip_suffix(".json")?.parse::<LabName>().ok()
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).filter_map(name).collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(names)
}

/// All processes that this one can see.
pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// A field of /proc/PID/stat, counted from 1 as proc_pid_stat(5) does; from the third on, as the second, a name in
/// parentheses, may hold anything.
pub(crate) fn stat_field(pid: i32, number: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

fn has_in_environment(pid: i32, setting: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == setting)
}

fn file(name: &LabName) -> PathBuf {
    folder().join(format!("{name}.json"))
}

/// Where this user's files lie.
fn folder() -> PathBuf {
    let user = geteuid();
    if user.is_root() {
        return "/run/fanq-lab".into();
    }
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    match own {
        Some(own) => own.join("fanq-lab"),
        None => env::temp_dir().join(format!("fanq-lab-{}", user.as_raw())),
    }
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("creating {}", folder.display()))
        }
        _ => ensure_private(folder),
    }
}

/// Refuses a folder in which somebody else could have put something.
fn ensure_private(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    let metadata = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.with_context(|| format!("reading {shown}"))?,
    };
    let private = metadata.is_dir()
        && metadata.uid() == geteuid().as_raw()
        && metadata.mode() & 0o777 == 0o700;
    ensure!(private, "{shown} is not a folder of this user alone (mode 0700): remove it");
    Ok(())
}

/// The variable that marks processes in a lab.
pub(crate) const MARK: &str = "FANQ_BENCH_LAB";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(own.lives());
        let recycled = Process { start_ticks: own.start_ticks + 1, ..own };
        assert!(!recycled.lives());
        // Does nothing, or this test would end here.
        recycled.kill().unwrap();
        assert!(own.command().contains("fanq_bench"), "{}", own.command());
    }

    #[test]
    fn an_ended_process_that_nobody_waited_for_does_not_live() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        process.kill().unwrap();
        while process.lives() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
