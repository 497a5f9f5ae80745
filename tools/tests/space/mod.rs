//! A network namespace, and `fanq run` in it: what tests of the running program share.
//!
//! Invariant: nothing outlives the value that started it, also after a panic: namespaces and programs are killed when
//! dropped. Every wait is bounded.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A network namespace, for as long as this lives.
pub(crate) struct Space {
    holder: Child,
    /// Whether it has a user namespace too, in which root is root of nothing else.
    of_a_user: bool,
}

impl Space {
    /// None where the test is to be skipped.
    pub(crate) fn new() -> Option<Self> {
        Self::unshared(&["--net", "--mount"], false)
    }

    /// A namespace whose UDP to port 9000 goes through queue 9.
    pub(crate) fn queued() -> Option<Self> {
        let space = Self::new()?;
        space.shell(
            "mount -t tmpfs tmpfs /run; ip link set lo up
             iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num 9",
        );
        Some(space)
    }

    pub(crate) fn of_a_user() -> Option<Self> {
        Self::unshared(&["--user", "--map-root-user", "--net", "--mount"], true)
    }

    pub(crate) fn unshared(what: &[&str], of_a_user: bool) -> Option<Self> {
        let this_process = std::fs::metadata("/proc/self").expect("/proc is mounted");
        if this_process.uid() != 0 {
            skip("needs root");
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(what).args(["sh", "-c", "echo entered; exec sleep 120"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut space = Self { holder: command.spawn().expect("unshare runs"), of_a_user };
        let stdout = space.holder.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the holder speaks");
        if line != "entered\n" {
            skip("unshare may not make namespaces here");
            return None;
        }
        Some(space)
    }

    /// Each of these becomes the next, so the child's id is that of the last.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let space = format!("--net=/proc/{}/ns/net", self.holder.id());
        let mut command = Command::new("nsenter");
        if self.of_a_user {
            command.arg(format!("--user=/proc/{}/ns/user", self.holder.id()));
            // Whoever started the holder looks like root in there already.
            command.arg("--preserve-credentials");
        }
        command.arg(space).args(["setpriv", "--pdeathsig=KILL"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts `fanq run` behind a wrapper, with a request whose words are parted by blanks.
    pub(crate) fn start(&self, wrapper: &[&str], request: &str) -> Fanq {
        let request: Vec<_> = request.split(' ').collect();
        let words = [wrapper, &[env!("CARGO_BIN_EXE_fanq"), "run"], &request].concat();
        Fanq::new(self.command(&words).spawn().expect("nsenter runs"))
    }

    /// Runs `fanq run` to its end.
    pub(crate) fn run(&self, wrapper: &[&str], request: &str) -> Ended {
        self.start(wrapper, request).end()
    }

    pub(crate) fn shell(&self, script: &str) {
        let output = self.command(&["timeout", "20", "bash", "-c", script]).output();
        let output = output.expect("bash runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {}, {stderr}", output.status);
    }

    /// The queues that are bound, by the kernel's word.
    pub(crate) fn bound(&self) -> Vec<u16> {
        let path = format!("/proc/{}/net/netfilter/nfnetlink_queue", self.holder.id());
        let table = std::fs::read_to_string(&path).expect("the kernel lists its queues");
        let queue = |row: &str| row.split_whitespace().next()?.parse().ok();
        table.lines().map(|row| queue(row).expect("a row begins with its queue")).collect()
    }

    /// What the kernel says about one of them.
    pub(crate) fn row(&self, queue: u16) -> Option<Row> {
        let path = format!("/proc/{}/net/netfilter/nfnetlink_queue", self.holder.id());
        let table = std::fs::read_to_string(&path).expect("the kernel lists its queues");
        let numbers =
            |row: &str| row.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
        let rows = table.lines().map(|row| numbers(row).expect("a row is numbers"));
        let row = rows.into_iter().find(|row| row[0] == u64::from(queue))?;
        Some(Row {
            waiting: row[2],
            queue_dropped: row[5],
            user_dropped: row[6],
            ids_given: row[7],
        })
    }

    /// A process in there.
    pub(crate) fn id(&self) -> u32 {
        self.holder.id()
    }
}

/// Of the kernel's table of queues (`seq_show` in nfnetlink_queue.c).
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) waiting: u64,
    pub(crate) queue_dropped: u64,
    pub(crate) user_dropped: u64,
    /// Ids count up from 1.
    pub(crate) ids_given: u64,
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A `fanq run`, killed when dropped.
pub(crate) struct Fanq {
    pub(crate) child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What has been taken from `stderr`.
    said: String,
}

impl Fanq {
    pub(crate) fn new(mut child: Child) -> Self {
        let stdout: ChildStdout = child.stdout.take().expect("it is piped");
        let stderr: ChildStderr = child.stderr.take().expect("it is piped");
        Self { child, stdout: lines_of(stdout), stderr: lines_of(stderr), said: String::new() }
    }

    pub(crate) fn await_ready(&mut self) -> String {
        self.await_line("ready:")
    }

    /// Waits until it serves. If it ends instead, how.
    pub(crate) fn ready_or_end(&mut self) -> Option<Ended> {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => return Some(self.wait()),
                Err(RecvTimeoutError::Timeout) => panic!("neither: {}", self.said),
            }
            if self.said.contains("ready: queues") {
                return None;
            }
        }
    }

    /// The next line on standard error with this part.
    pub(crate) fn await_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.next_line(part, deadline.saturating_duration_since(Instant::now()));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The next line on standard error; `awaited` is what would be missing.
    pub(crate) fn next_line(&mut self, awaited: &str, patience: Duration) -> String {
        match self.stderr.recv_timeout(patience) {
            Ok(line) => {
                self.said.push_str(&line);
                line
            }
            Err(error) => panic!("no `{awaited}` ({error}) in {}", self.said),
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let script = format!("kill -{signal} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("sh runs");
        assert!(sent.success(), "{script}");
    }

    /// Sends the signal and holds it to a good end.
    pub(crate) fn stop(mut self, signal: &str) -> Ended {
        self.signal(signal);
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "after SIG{signal}: {}", ended.stderr);
        ended
    }

    pub(crate) fn end(mut self) -> Ended {
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Ended {
        let stdout = rest_of(&self.stdout);
        let stderr = std::mem::take(&mut self.said) + &rest_of(&self.stderr);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Ended { code: status.code(), stdout, stderr };
            }
            assert!(Instant::now() < deadline, "it closed its output but does not end: {stderr}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Fanq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands over line by line what comes, so that a reader can stop waiting.
fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            // The test may have gone on without listening.
            let _ = sender.send(line + "\n");
        }
    });
    receiver
}

fn rest_of(lines: &Receiver<String>) -> String {
    let mut rest = String::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => rest.push_str(&line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("it does not end; the rest so far: {rest}"),
        }
    }
}

/// What became of a `fanq run`.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn assert_refused(&self, code: i32, parts: &[&str], request: &str) {
        assert_eq!(self.code, Some(code), "{request}: {}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{request}: no {part:?} in {}", self.stderr);
        }
        let panicked = self.stderr.contains("panicked");
        assert!(!panicked && !self.stderr.contains("ready:"), "{request}: {}", self.stderr);
        assert_eq!(self.stdout, "", "{request}");
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("standard output is one JSON object")
    }
}

/// Waits until every thread of a process that was sent SIGSTOP has stopped.
pub(crate) fn await_stopped(process: u32) {
    let tasks = format!("/proc/{process}/task");
    let is_stopped = |task: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // Behind the name, which is in parentheses.
        stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('T'))
    };
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_dir(&tasks)
        .expect("it runs")
        .map_while(Result::ok)
        .all(|task| is_stopped(&task))
    {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What cannot be tested here is said, and in CI it is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
