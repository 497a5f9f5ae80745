//! Goal: `plain`, the peer that needs nothing but a C compiler, answers every packet in each of its modes, by as few
//! calls as the mode promises, ends on a signal with its account, and refuses what it cannot do.
//!
//! Method: it is built from `bench/peers`, and serves two queues in a network namespace of the test's own. While it
//! is stopped (SIGSTOP) both queues fill, so that how many calls it takes to empty them does not hang on timing.
//!
//! Needs root, cc, `unshare`, `nsenter`, `setpriv`, `ip` and `iptables`. Without root each test prints SKIPPED, or
//! fails if CI is set. The other peers take libraries, and are built only by `scripts/peers.sh`.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

#[test]
fn batch_answers_64_packets_by_one_receive_and_one_send() {
    serves_all("batch", CALLS_IN_BATCHES);
}

#[test]
fn multi_answers_64_packets_by_one_receive_and_one_send() {
    serves_all("multi", CALLS_IN_BATCHES);
}

#[test]
fn single_answers_each_packet_by_itself() {
    serves_all("single", 2 * PACKETS);
}

fn serves_all(mode: &str, calls: u64) {
    let Some(space) = Space::new() else { return };
    let mut plain = space.start(&[plain(), "-l", "2000", "-c", &some_cpu(), mode, "0-1"]);
    plain.await_ready();
    let sinks = PORTS.map(|port| {
        let expect = PACKETS.to_string();
        let to = format!("127.0.0.1:{port}");
        let sink = ["receive", "--bind", &to, "--expect", &expect, "--idle", "20"];
        let mut sink = space.start(&[&[BENCH], &sink[..]].concat());
        sink.await_ready();
        sink
    });

    plain.signal("STOP");
    for port in PORTS {
        let (to, count) = (format!("127.0.0.1:{port}"), PACKETS.to_string());
        let sent = space.start(&[BENCH, "send", "--to", &to, "--count", &count]).end();
        assert_eq!(sent.code, Some(0), "{mode}: {}", sent.stderr);
    }
    // Columns: queue, portid, waiting, copy mode, copy range, lost for want of room, lost in the socket, ids.
    let columns = |row: Vec<u64>| (row[0], row[2], row[3], row[5], row[6], row[7]);
    let table: Vec<_> = space.queues().into_iter().map(columns).collect();
    let full = |queue| (queue, PACKETS, COPY_PACKET, 0, 0, PACKETS);
    assert_eq!(table, [full(0), full(1)], "{mode}: all packets wait");

    plain.signal("CONT");
    for sink in sinks {
        let received = sink.end().json();
        assert_eq!(received["received"], PACKETS, "{mode}: {received}");
        assert_eq!(received["duplicates"], 0, "{mode}: {received}");
    }
    let waiting: u64 = space.queues().iter().map(|row| row[2]).sum();
    assert_eq!(waiting, 0, "{mode}: nothing waits any more");

    plain.signal("TERM");
    let ended = plain.end();
    assert_eq!(ended.code, Some(0), "{mode}: {}", ended.stderr);
    let account = ended.json();
    assert_eq!(account["packets"], 2 * PACKETS, "{mode}: {account}");
    assert_eq!(account["recv_calls"], calls, "{mode}: {account}");
    assert_eq!(account["send_calls"], calls, "{mode}: {account}");
    assert!(account["cpu_us"].as_u64().is_some_and(|us| us > 0), "{mode}: {account}");
    assert_eq!(space.queues().len(), 0, "{mode}: the queues are free again");
}

#[test]
fn what_cannot_be_is_refused_with_its_reason_and_no_queue_stays_bound() {
    let Some(space) = Space::new() else { return };
    for (arguments, part) in [
        ("batch 3-1", "write FIRST-LAST"),
        ("batch 65536", "a number from 0 to 65535"),
        ("batch 0-1024", "at most 1024"),
        ("often 0", "no mode `often`"),
        ("-c 1023 single 0", "no thread on CPU 1023"),
        ("-l many single 0", "-l `many`"),
        ("single", "usage: plain"),
    ] {
        let words: Vec<_> = [plain()].into_iter().chain(arguments.split(' ')).collect();
        space.start(&words).end().assert_refused(part, arguments);
        assert_eq!(space.queues().len(), 0, "{arguments}");
    }
    let without = ["setpriv", "--bounding-set=-net_admin", plain(), "multi", "0-1"];
    space.start(&without).end().assert_refused("CAP_NET_ADMIN is missing", "no CAP_NET_ADMIN");

    let mut owner = space.start(&[plain(), "-c", &some_cpu(), "single", "1"]);
    owner.await_ready();
    let taken = space.start(&[plain(), "batch", "0-1"]).end();
    taken.assert_refused("queue 1: another program has it", "queue 1 is taken");
    assert_eq!(space.queues().len(), 1, "the owner's queue alone is bound");
}

/// The path of `plain`, built once for all tests.
fn plain() -> &'static str {
    static PLAIN: OnceLock<PathBuf> = OnceLock::new();
    let path = PLAIN.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/plain.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain");
        let built = Command::new("cc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .args([&program, &source])
            .output()
            .expect("cc runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        program
    });
    path.to_str().expect("the path is text")
}

/// A CPU that may be used here, for both queues.
fn some_cpu() -> String {
    let allowed = fanq::allowed_cpus().expect("the kernel tells");
    allowed.iter().next().expect("this runs on a CPU").to_string()
}

/// A network namespace in which what comes to a port goes into its queue; held open by a sleeping process.
struct Space {
    holder: Child,
}

impl Space {
    /// None where the test is to be skipped.
    fn new() -> Option<Self> {
        let this_process = std::fs::metadata("/proc/self").expect("/proc is mounted");
        if this_process.uid() != 0 {
            skip("needs root");
            return None;
        }
        let rule = |queue: usize| {
            let port = PORTS[queue];
            format!(
                "iptables -t mangle -A INPUT -p udp --dport {port} -j NFQUEUE --queue-num {queue}"
            )
        };
        let script = format!(
            "mount -t tmpfs tmpfs /run && ip link set lo up && {} && {} && echo entered; exec sleep 120",
            rule(0),
            rule(1)
        );
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig=KILL", "unshare", "--net", "--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv runs");
        let stdout = holder.stdout.take().expect("it is piped");
        let space = Self { holder };
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line).expect("the holder speaks");
        if line != "entered\n" {
            skip("no namespace with an NFQUEUE rule can be had here");
            return None;
        }
        Some(space)
    }

    /// Starts a command in it. Each of its words that is a command becomes the next, so the id is the last one's.
    fn start(&self, words: &[&str]) -> Running {
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .args(["setpriv", "--pdeathsig=KILL"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        Running { child }
    }

    /// The rows of the kernel's table of queues.
    fn queues(&self) -> Vec<Vec<u64>> {
        let path = format!("/proc/{}/net/netfilter/nfnetlink_queue", self.holder.id());
        let table = std::fs::read_to_string(path).expect("the kernel lists its queues");
        let number = |column: &str| column.parse().expect("the table has numbers alone");
        table.lines().map(|row| row.split_whitespace().map(number).collect()).collect()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A program, killed when dropped.
struct Running {
    child: Child,
}

impl Running {
    /// Waits for `ready:` at the beginning of a line; the programs here print that, or end.
    fn await_ready(&mut self) {
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        // Byte by byte, as a reader that reads ahead would take away what comes after.
        let mut said = Vec::new();
        while !said.ends_with(b"\n")
            || !said.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"ready:"))
        {
            let mut byte = [0];
            let read = stderr.read(&mut byte).expect("it speaks");
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
    }

    fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("sh runs");
        assert!(sent.success(), "{script}");
        // SIGSTOP stops a program of several threads only when each of them has noticed.
        let state = |status: String| status.lines().any(|line| line.starts_with("State:\tT"));
        let tasks =
            || std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stopped = || {
            let status = |task: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_to_string(task.expect("a thread").path().join("status"))
            };
            tasks().all(|task| status(task).is_ok_and(state))
        };
        let deadline = Instant::now() + PATIENCE;
        while name == "STOP" && !stopped() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // What it printed is far less than a pipe holds.
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().expect("it is piped").read_to_string(&mut stdout).expect("text");
        self.child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a program.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn assert_refused(&self, part: &str, request: &str) {
        assert_eq!(self.code, Some(1), "{request}: {}", self.stderr);
        assert!(self.stderr.contains(part), "{request}: no {part:?} in {}", self.stderr);
        assert!(!self.stderr.contains("ready:"), "{request}: {}", self.stderr);
        assert_eq!(self.stdout, "", "{request}");
    }

    fn json(&self) -> Value {
        let value = serde_json::from_str(&self.stdout);
        value.unwrap_or_else(|error| panic!("{error} in {:?}; {}", self.stdout, self.stderr))
    }
}

/// What cannot be tested here is said, and in CI it is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}

const BENCH: &str = env!("CARGO_BIN_EXE_fanq-bench");

/// What comes to the first goes into queue 0, what comes to the second into queue 1.
const PORTS: [u16; 2] = [9000, 9001];

/// In each queue.
const PACKETS: u64 = 500;

/// 500 packets are 7 full batches of 64 and one of 52, in each of two queues.
const CALLS_IN_BATCHES: u64 = 2 * 8;

/// NFQNL_COPY_PACKET of linux/netfilter/nfnetlink_queue.h.
const COPY_PACKET: u64 = 2;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
