//! What is measured: a program that serves the lab's queues, started, loaded, stopped and asked for its account.
//!
//! Invariant: a target's processes end with its trial, also when the trial fails.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::lab::{Lab, command, take_let_through};

/// How the plain loop answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Batch,
    Multi,
    Single,
}

/// A program under a name.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    program: PathBuf,
    how: How,
}

#[derive(Debug)]
enum How {
    /// One process for all queues.
    Fanq { policy: String, options: String },
    /// One process a queue, started by a command before it.
    Reference { prefix: String, mode: &'static str },
}

/// One target's run over one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trial {
    pub(crate) target: String,
    pub(crate) offered: u64,
    pub(crate) answered: u64,
    pub(crate) accepted: u64,
    /// What a rule behind the queues counted.
    pub(crate) let_through: u64,
    pub(crate) lost: u64,
    pub(crate) recv_calls: u64,
    pub(crate) send_calls: u64,
    pub(crate) cpu_us: f64,
    pub(crate) resident_kib_max: u64,
}

impl Trial {
    /// CPU time per answered packet, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn cpu_us_per_packet(&self) -> f64 {
        self.cpu_us / self.answered.max(1) as f64
    }
}

impl Target {
    pub(crate) fn fanq(program: &Path, policy: &str, options: &str) -> Self {
        let how = How::Fanq { policy: policy.to_owned(), options: options.to_owned() };
        Self { name: format!("fanq {policy}"), program: program.to_owned(), how }
    }

    pub(crate) fn reference(prefix: &str, program: &Path, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Batch => "batch",
            Kind::Multi => "multi",
            Kind::Single => "single",
        };
        let how = How::Reference { prefix: prefix.to_owned(), mode };
        Self { name: mode.to_owned(), program: program.to_owned(), how }
    }

    /// Starts the target, sends the load through it, and takes its account.
    pub(crate) fn measure(&self, lab: &Lab, packets: u32, size: usize) -> anyhow::Result<Trial> {
        let running = self.start(lab)?;
        take_let_through()?;
        lab.load(packets, size)?;
        running.wait_until_empty(lab)?;
        let rows = lab.table.rows()?;
        let lost = rows.iter().map(|row| row.queue_dropped + row.user_dropped).sum();
        let let_through = take_let_through()?;
        let account = running.stop()?;
        let offered = u64::from(packets) * u64::from(lab.queues);
        let trial = Trial { target: self.name.clone(), offered, let_through, lost, ..account };
        if trial.answered + trial.lost != offered || trial.accepted != trial.let_through {
            bail!("the account does not add up: {trial:?}");
        }
        Ok(trial)
    }

    /// Starts the target and waits until all its queues are bound.
    pub(crate) fn start(&self, lab: &Lab) -> anyhow::Result<Running> {
        let last = lab.queues - 1;
        let mut running = Running { name: self.name.clone(), children: Vec::new() };
        match &self.how {
            How::Fanq { policy, options } => {
                let fixed = "--queue-maxlen 65535 --summary json";
                let words = format!("run --queues 0-{last} --policy {policy} {fixed} {options}");
                running.children.push(self.spawn("", &words)?);
            }
            How::Reference { prefix, mode } => {
                for queue in 0..lab.queues {
                    running.children.push(self.spawn(prefix, &format!("{queue} {mode} {queue}"))?);
                }
            }
        }
        let deadline = Instant::now() + START_TIME_MAX;
        while lab.table.rows()?.len() < usize::from(lab.queues) {
            if Instant::now() > deadline {
                bail!("{} did not bind its queues within {START_TIME_MAX:?}", self.name);
            }
            std::thread::sleep(POLL_EVERY);
        }
        Ok(running)
    }

    /// Starts the program with these arguments, by the command before it if there is one.
    fn spawn(&self, prefix: &str, arguments: &str) -> anyhow::Result<Child> {
        let before = prefix.split_ascii_whitespace().map(OsString::from);
        let mut words = before.chain([self.program.clone().into_os_string()]);
        let first = words.next().context("no program")?;
        Command::new(first)
            .args(words)
            .args(arguments.split_ascii_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))
    }
}

/// A started target. Dropped without [`stop`](Self::stop), its processes are killed.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    children: Vec<Child>,
}

impl Running {
    /// Waits until no packet waits in any queue.
    fn wait_until_empty(&self, lab: &Lab) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        while lab.table.rows()?.iter().any(|row| row.queue_total > 0) {
            if Instant::now() > deadline {
                bail!("{}: packets still wait after {DRAIN_TIME_MAX:?}", self.name);
            }
            std::thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    /// Ends the processes and adds up their accounts.
    pub(crate) fn stop(mut self) -> anyhow::Result<Trial> {
        let resident = self.children.iter().map(|child| resident_kib_max(child.id())).sum();
        let mut trial = Trial {
            target: self.name.clone(),
            offered: 0,
            answered: 0,
            accepted: 0,
            let_through: 0,
            lost: 0,
            recv_calls: 0,
            send_calls: 0,
            cpu_us: 0.0,
            resident_kib_max: resident,
        };
        for child in &mut self.children {
            command(&format!("kill -TERM {}", child.id()))?;
            let mut text = String::new();
            child.stdout.take().context("no output")?.read_to_string(&mut text)?;
            child.wait()?;
            let account: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} printed no account: {text:?}", self.name))?;
            let counts = account.get("totals").unwrap_or(&account);
            let number = |key: &str| counts[key].as_u64().unwrap_or(0);
            trial.answered += number("packets");
            trial.accepted +=
                counts.get("accepted").and_then(Value::as_u64).unwrap_or(number("packets"));
            trial.recv_calls += number("recv_calls");
            trial.send_calls += number("send_calls");
            trial.cpu_us += account["cpu_us"].as_f64().unwrap_or(0.0);
        }
        self.children.clear();
        Ok(trial)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // A process that has ended already is as well as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The most memory that a process had resident so far, in KiB (`VmHWM`, proc_pid_status(5)).
fn resident_kib_max(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

const START_TIME_MAX: Duration = Duration::from_secs(10);
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(20);
