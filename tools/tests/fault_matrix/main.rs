//! Goal: what goes wrong around `fanq run` (no listener, a full queue, a full socket, a kill, rules, devices and
//! namespaces that go away under packets that wait) costs what docs/RELIABILITY.md says, and every packet has a place
//! in the account.
//!
//! Method: numbered datagrams through queue 9 of a namespace of its own; each test says where all that were sent went,
//! and none may be left over. What has to meet a program that does not read meets one that is stopped.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables`, `nft`, `ip` and `python3`. Without root each test prints
//! SKIPPED, or fails if CI is set.

mod limits;
mod memory_cap;
mod overflow;
mod pulled_away;
#[path = "../space/mod.rs"]
mod space;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use space::{Fanq, PATIENCE, Space, await_stopped};

const USUAL: &str = "--queues 9 --placement none --summary json";
const QUEUE: u16 = 9;

/// Both ends of the traffic, or one.
struct Ends {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Ends {
    fn new(space: &Space) -> Self {
        let script = include_str!("ends.py");
        let mut command = space.command(&["timeout", "100", "python3", "-c", script, "9000"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("python3 runs");
        let orders = child.stdin.take().expect("it is piped");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut ends = Self { child, orders, said };
        assert_eq!(ends.next_line(), "ready");
        ends
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("it listens");
        self.next_line()
    }

    /// Sends so many at once over the loopback. Returns how many were sent in all.
    fn send(&mut self, count: u64) -> u64 {
        self.send_to(count, "127.0.0.1")
    }

    fn send_to(&mut self, count: u64, host: &str) -> u64 {
        total(&self.ask(&format!("send {count} {host}")))
    }

    /// Waits for so many, and a moment for any too many. Returns how many arrived in all.
    fn arrived(&mut self, expected: u64) -> u64 {
        let answer = self.ask(&format!("count {expected}"));
        assert!(answer.ends_with(" 0"), "some came twice: {answer}");
        total(&answer)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first number of an answer.
fn total(answer: &str) -> u64 {
    let number = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {answer:?}"))
}

/// Where all packets went. None may be left over.
fn settle(sent: u64, went: &[(&str, u64)]) {
    let found: u64 = went.iter().map(|(_, count)| count).sum();
    println!("{sent} sent: {went:?}, {} unaccounted", i128::from(sent) - i128::from(found));
    assert_eq!(found, sent, "{went:?}");
}

fn number(totals: &Value, key: &str) -> u64 {
    totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {totals}"))
}

/// Packets whose verdict the kernel refused since they were gone (ENOENT). With batches of one that is each of them.
fn gone(totals: &Value) -> u64 {
    totals["verdict_errors_by_errno"]["2"].as_u64().unwrap_or(0)
}

/// Until it is so. `what` says what was awaited in vain.
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Until exactly so many packets wait in the queue.
fn await_waiting(space: &Space, packets: u64) {
    let what = format!("{packets} packets wait");
    await_that(&what, || space.row(QUEUE).is_some_and(|row| row.waiting == packets));
}

fn freeze(fanq: &Fanq) {
    fanq.signal("STOP");
    await_stopped(fanq.child.id());
}

fn thaw(fanq: &Fanq) {
    fanq.signal("CONT");
}

/// What came to the queue rule.
fn rule_counted(space: &Space) -> u64 {
    let output = space.command(&["iptables", "-nvxL", "INPUT"]).output().expect("iptables runs");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let rule = listing.lines().find(|line| line.contains("NFQUEUE"));
    let counted = rule.and_then(|line| line.split_whitespace().next()?.parse().ok());
    counted.unwrap_or_else(|| panic!("no rule in {listing}"))
}
