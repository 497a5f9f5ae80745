//! A rule for one queue on the loopback, and both ends of the traffic through it. Each test has a queue and a port of
//! its own, so that they may run side by side.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use fanq::QueueRange;

/// The rule, taken out when dropped.
pub(crate) struct Lab {
    queue: u16,
    rules: Vec<String>,
}

impl Lab {
    /// Queues UDP to this queue's port: at INPUT of the filter table, or of the mangle table.
    pub(crate) fn new(queue: u16, place: &str) -> Self {
        let table = if place == "mangle" { "mangle" } else { "filter" };
        Self::with_rule(queue, table, "INPUT")
    }

    /// Queues UDP to this queue's port as it leaves, in the filter table.
    pub(crate) fn at_output(queue: u16) -> Self {
        Self::with_rule(queue, "filter", "OUTPUT")
    }

    fn with_rule(queue: u16, table: &str, chain: &str) -> Self {
        PREPARED.call_once(prepare);
        let mut lab = Self { queue, rules: Vec::new() };
        lab.add(format!(
            "-t {table} -A {chain} -p udp --dport {} -j NFQUEUE --queue-num {queue}",
            lab.port()
        ));
        lab
    }

    /// Drops, behind a queue of the mangle table, this port's packets with the mark.
    pub(crate) fn drop_marked(&self, mark: u32) {
        let rule = format!(
            "-t filter -A INPUT -p udp --dport {} -m mark --mark {mark} -j DROP",
            self.port()
        );
        iptables(&rule);
    }

    fn add(&mut self, rule: String) {
        iptables(&rule);
        self.rules.push(rule);
    }

    pub(crate) fn range(&self) -> QueueRange {
        QueueRange::new(self.queue, self.queue).unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        9000 + self.queue
    }

    /// Sends so many datagrams with payloads of so many bytes.
    pub(crate) fn send(&self, count: u32, bytes: usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let payload = vec![0x5a; bytes];
        for _ in 0..count {
            socket.send_to(&payload, ("127.0.0.1", self.port())).unwrap();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for rule in &self.rules {
            iptables(&rule.replacen(" -A ", " -D ", 1));
        }
    }
}

/// Makes the base chains before the first packet waits: one that is added later, ahead of a queue rule at the same
/// hook, sends the packets that wait there through that rule again.
fn prepare() {
    run("ip", "link set lo up");
    for place in ["filter INPUT", "mangle INPUT", "filter OUTPUT"] {
        let (table, chain) = place.split_once(' ').unwrap();
        for action in ["-A", "-D"] {
            iptables(&format!("-t {table} {action} {chain} -p udp --dport 1 -j ACCEPT"));
        }
    }
}

static PREPARED: Once = Once::new();

/// The receiving end.
pub(crate) struct Sink(UdpSocket);

impl Sink {
    pub(crate) fn new(lab: &Lab) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", lab.port())).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self(socket)
    }

    /// Waits for `expected` datagrams, and a moment longer for any too many. Returns how many came.
    pub(crate) fn received(&self, expected: u64) -> u64 {
        let mut buffer = [0; 2048];
        let mut count = 0;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut quiet = 0;
        while Instant::now() < deadline && quiet < 4 {
            if self.0.recv(&mut buffer).is_ok() {
                count += 1;
            } else if count >= expected {
                quiet += 1;
            }
        }
        count
    }
}

pub(crate) fn iptables(rule: &str) {
    // -w: tests run side by side and the table has one lock.
    run("iptables", &format!("-w {rule}"));
}

fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split_ascii_whitespace()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {message}");
}
