//! A target's processes: started, watched until their queues are bound, measured, ended.
//!
//! Invariant: everything that it started is in its process group, and the group is killed on drop. CPU time is that
//! of all threads of all its processes (`/proc/PID/task/TID/schedstat`, nanoseconds on a CPU), between two looks;
//! what a process used that ended in between is missing, so targets are measured while they run.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fanq::{KernelTable, QueueRange};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A started target.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// A target that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) stdout: String,
}

impl Running {
    /// Starts the command, and waits until every queue of the range is bound and configured.
    pub(crate) fn start(
        name: &str,
        command: &[OsString],
        queues: QueueRange,
        table: &KernelTable,
    ) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting target {name}: {}", program.display()))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let mut running = Self { name: name.to_owned(), child, stdout, stderr };
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let rows = table.rows().context("reading the kernel's table of queues")?;
            if queues
                .iter()
                .all(|queue| rows.iter().any(|row| row.queue == queue && row.copy_mode > 0))
            {
                return Ok(running);
            }
            if let Some(status) = running.child.try_wait()? {
                bail!(
                    "target {name} ended ({status}) before it had bound queues {queues}; it said: {}",
                    running.last_words()
                );
            }
            if Instant::now() > deadline {
                let bound: Vec<_> = rows.iter().map(|row| row.queue.to_string()).collect();
                bail!(
                    "target {name} did not bind queues {queues} within {} s (bound: {}); \
                     check that its command serves all of them",
                    START_TIME_MAX.as_secs(),
                    if bound.is_empty() { "none".to_owned() } else { bound.join(", ") }
                );
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// CPU time so far, in nanoseconds, of all its processes.
    pub(crate) fn cpu_ns(&self) -> anyhow::Result<u64> {
        let group = self.child.id();
        let mut sum = 0;
        for pid in members_of(group)? {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
                continue; // ended meanwhile
            };
            for task in tasks.filter_map(Result::ok) {
                let stat =
                    std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let on_cpu =
                    stat.split_ascii_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
                sum += on_cpu.unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// The most memory that its processes had resident so far, in KiB, together.
    pub(crate) fn resident_kib_max(&self) -> anyhow::Result<u64> {
        let members = members_of(self.child.id())?;
        Ok(members.into_iter().map(resident_kib_max).sum())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn ensure_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = self.last_words();
            bail!("target {} ended ({status}) during a trial; it said: {said}", self.name);
        }
        Ok(())
    }

    /// Ends it by SIGTERM, and by SIGKILL if that does not help.
    pub(crate) fn stop(mut self) -> anyhow::Result<Ended> {
        self.ensure_alive()?;
        kill_process(self.pid()?, Signal::TERM).context("ending a target")?;
        let deadline = Instant::now() + STOP_TIME_MAX;
        while self.child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "target {} did not end within {} s of SIGTERM and was killed",
                self.name,
                STOP_TIME_MAX.as_secs()
            );
            std::thread::sleep(POLL_EVERY);
        }
        self.end_group();
        Ok(Ended { stdout: self.stdout.take().map(text_of).unwrap_or_default() })
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let raw = i32::try_from(self.child.id())?;
        Pid::from_raw(raw).context("a process has a number")
    }

    /// Ends what is left of its group, which would otherwise keep the queues and the pipes.
    fn end_group(&self) {
        if let Ok(group) = self.pid() {
            // A group that is gone is as well as killed.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn last_words(&mut self) -> String {
        self.end_group();
        let said = self.stderr.take().map(text_of).unwrap_or_default();
        let lines: Vec<_> = said.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join(" / ");
        if last.is_empty() { "nothing".to_owned() } else { last }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_group();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end on a thread of its own, so that the target never blocks on it.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn text_of(thread: JoinHandle<String>) -> String {
    thread.join().unwrap_or_default()
}

/// The processes of a group, by the fifth field of `/proc/PID/stat`.
fn members_of(group: u32) -> anyhow::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context("reading /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| group_of(*pid) == Some(group)).collect())
}

fn group_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold anything but ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// `VmHWM`, proc_pid_status(5).
fn resident_kib_max(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

const START_TIME_MAX: Duration = Duration::from_secs(10);
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);
const LAST_LINES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_group_and_measured() {
        let mut child = Command::new("sleep").arg("30").process_group(0).spawn().unwrap();
        assert_eq!(members_of(child.id()).unwrap(), [child.id()]);
        assert!(resident_kib_max(child.id()) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(members_of(child.id()).unwrap().is_empty());
    }
}
