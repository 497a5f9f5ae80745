//! A target's processes: started, watched until their queues are bound, measured, ended.
//!
//! Invariant: everything that it started is in its process group, and the group is killed on drop. CPU time is that
//! of all threads of all its processes (`/proc/PID/task/TID/schedstat`, nanoseconds on a CPU), between two looks;
//! what a process used that ended in between is missing, so targets are measured while they run.
//!
//! A program that leaves the group (setsid, once more) ends with the lab, whose process namespace it cannot leave.
//! Until then it may hold the target's pipes, so nothing here waits for their end for ever, and of what comes by them
//! only the last part is kept.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fanq::{KernelTable, QueueRange};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A started target.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    stdout: Option<Said>,
    stderr: Option<Said>,
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
        ensure!(!command.is_empty(), "an empty command");
        // A session of its own, as a service has: in its starter's the scheduler would weigh it together with the load.
        let mut child = Command::new("setsid")
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting target {name} by setsid (package util-linux)"))?;
        let stdout = child.stdout.take().map(Said::collect);
        let stderr = child.stderr.take().map(Said::collect);
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
        Ok(Ended { stdout: self.stdout.take().map(Said::text).unwrap_or_default() })
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
        let said = self.stderr.take().map(Said::text).unwrap_or_default();
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

/// What comes by a pipe, of which the last part is kept.
#[derive(Debug)]
struct Said {
    tail: Arc<Mutex<Vec<u8>>>,
    /// Says nothing; its other side goes with the thread that reads.
    ended: Receiver<()>,
}

impl Said {
    /// Reads a pipe to its end on a thread of its own, so that the target never blocks on it.
    fn collect(mut pipe: impl Read + Send + 'static) -> Self {
        let (ends_with_thread, ended) = channel();
        let tail = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&tail);
        std::thread::spawn(move || {
            let _ends_with_thread = ends_with_thread;
            let mut chunk = vec![0; CHUNK_BYTES];
            // What was read before an error is kept.
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend_from_slice(&chunk[..length]);
                // Seldom, so that a target which says much costs little.
                if tail.len() > 2 * TAIL_BYTES_MAX {
                    keep_tail(&mut tail);
                }
            }
        });
        Self { tail, ended }
    }

    /// The last part of all that came, once the pipe has ended; if somebody holds it open, of what came until now.
    fn text(self) -> String {
        // Nothing is ever sent: either the thread is gone, or the time is up.
        let _ = self.ended.recv_timeout(PIPE_TIME_MAX);
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        keep_tail(&mut tail);
        String::from_utf8_lossy(&tail).into_owned()
    }
}

fn keep_tail(bytes: &mut Vec<u8>) {
    let surplus = bytes.len().saturating_sub(TAIL_BYTES_MAX);
    bytes.drain(..surplus);
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
/// For the end of a pipe whose writers have been killed, but for those who left the group.
const PIPE_TIME_MAX: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 16 << 10;
/// Of each pipe; the account of a program of a thousand queues is shorter.
const TAIL_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

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

    #[test]
    fn the_end_of_what_was_said_is_kept() {
        let mut long = vec![b'x'; 3 * TAIL_BYTES_MAX];
        long.extend_from_slice(b"\n{\"packets\":1}");
        let text = Said::collect(std::io::Cursor::new(long)).text();
        assert!(text.len() == TAIL_BYTES_MAX && text.ends_with("\n{\"packets\":1}"));
        assert_eq!(Said::collect(std::io::empty()).text(), "");
    }

    /// A process that left the group holds the pipe.
    #[test]
    fn whoever_holds_a_pipe_does_not_stop_the_bench() {
        let script = "setsid sleep 30 & echo $!; echo said";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let said = Said::collect(child.stdout.take().unwrap());
        child.wait().unwrap();
        let text = said.text();
        let pid = text.lines().next().unwrap().parse().unwrap();
        assert!(kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok(), "it had ended");
        assert_eq!(text.lines().next_back(), Some("said"));
    }
}
