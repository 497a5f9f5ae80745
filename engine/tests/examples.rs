//! Goal: the examples in engine/examples do what their first lines say. Method: each one, as built, serves a queue of
//! the loopback in a network namespace that the caller made (scripts/test.sh netns), behind the rules that it asks for.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "real_kernel/lab.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod lab;

use std::net::UdpSocket;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fanq::{Engine, Inspector, KernelTable, Packet, Verdict};
use lab::{Lab, Sink, iptables};

/// A running example, killed at the end.
struct Example(Child);

impl Example {
    /// Starts it on a queue, and waits until it serves it.
    fn start(name: &str, queue: u16) -> Self {
        // Beside the folder of the tests; see the Cargo book, "Build cache".
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().with_file_name("examples").join(name);
        let missing = || format!("no {}: cargo build --package fanq --examples", program.display());
        assert!(program.exists(), "{}", missing());
        let example = Self(Command::new(program).arg(queue.to_string()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while KernelTable::open().unwrap().row(queue).unwrap().is_none_or(|row| row.copy_mode == 0)
        {
            assert!(Instant::now() < deadline, "{name} does not serve queue {queue}");
            std::thread::sleep(Duration::from_millis(5));
        }
        example
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The next program in a row, which lets nothing through.
struct DropAll;

impl Inspector for DropAll {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        Verdict::DROP
    }
}

/// Ids that a queue has given so far: how many packets it took.
fn queued(queue: u16) -> u32 {
    KernelTable::open().unwrap().row(queue).unwrap().unwrap().id_sequence
}

#[test]
fn mode_accept() {
    let lab = Lab::new(60, "INPUT");
    let _example = Example::start("mode_accept", 60);
    let sink = Sink::new(&lab);
    lab.send(20, 64);
    assert_eq!(sink.received(20), 20);
    assert_eq!(queued(60), 20);
}

#[test]
fn mode_repeat() {
    let lab = Lab::new(61, "INPUT");
    let port = lab.port();
    // What `--repeat-mark 0x1` puts before the queue rule, and a rule below it that only a repeated packet sees.
    let pass = format!("-p udp --dport {port} -m mark --mark 0x1/0x1 -j ACCEPT");
    iptables(&format!("-I INPUT {pass}"));
    let _example = Example::start("mode_repeat", 61);
    let sink = Sink::new(&lab);
    lab.send(20, 64);
    assert_eq!(sink.received(20), 20);
    assert_eq!(queued(61), 20);
    // Without the rule it does not go round for ever: each comes back once.
    iptables(&format!("-D INPUT {pass}"));
    lab.send(20, 64);
    assert_eq!(sink.received(20), 20);
    assert_eq!(queued(61), 60);
}

#[test]
fn mode_route() {
    let lab = Lab::new(62, "INPUT");
    let _example = Example::start("mode_route", 62);
    let sink = Sink::new(&lab);
    lab.send(20, 64);
    assert_eq!(sink.received(20), 20, "nobody listens at queue 72, so they pass");

    let engine = Engine::builder().queues("72".parse().unwrap()).start(|_| DropAll).unwrap();
    lab.send(20, 64);
    assert_eq!(sink.received(0), 0);
    let stopped = engine.shutdown(Duration::from_secs(10));
    assert_eq!((stopped.stats.totals().dropped, queued(62)), (20, 40));
}

#[test]
fn bypass_after_handshake() {
    let lab = Lab::new(63, "INPUT");
    let port = lab.port();
    // What `--bypass-mark 0x1` puts before the queue rule, for tracked packets.
    let rules = [
        "-m mark --mark 0x1/0x1 -j CONNMARK --set-xmark 0x1/0x1",
        "-m mark --mark 0x1/0x1 -j MARK --set-xmark 0x0/0x1",
        "-m connmark --mark 0x1/0x1 -j ACCEPT",
    ];
    for rule in rules.iter().rev() {
        iptables(&format!("-I INPUT -p udp --dport {port} {rule}"));
    }
    let _example = Example::start("bypass_after_handshake", 63);
    let sink = Sink::new(&lab);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |count| {
        for _ in 0..count {
            socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
        }
    };
    send(10);
    assert_eq!(sink.received(10), 10);
    send(200);
    assert_eq!(sink.received(200), 200);
    assert_eq!(queued(63), 10);
    // Another flow is another matter.
    lab.send(5, 64);
    assert_eq!(sink.received(5), 5);
    assert_eq!(queued(63), 15);
    for rule in rules {
        iptables(&format!("-D INPUT -p udp --dport {port} {rule}"));
    }
}
