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
        Self::start_with(name, queue, &[])
    }

    fn start_with(name: &str, queue: u16, arguments: &[&str]) -> Self {
        // Beside the folder of the tests; see the Cargo book, "Build cache".
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().with_file_name("examples").join(name);
        let missing = || format!("no {}: cargo build --package fanq --examples", program.display());
        assert!(program.exists(), "{}", missing());
        let example =
            Self(Command::new(program).arg(queue.to_string()).args(arguments).spawn().unwrap());
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

/// The next program in a row, which lets only IPv4 packets of one TTL through.
struct OnlyTtl(u8);

impl Inspector for OnlyTtl {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if packet.payload().get(8) == Some(&self.0) { Verdict::ACCEPT } else { Verdict::DROP }
    }
}

/// Ids that a queue has given so far: how many packets it took.
fn queued(queue: u16) -> u32 {
    KernelTable::open().unwrap().row(queue).unwrap().unwrap().id_sequence
}

#[test]
fn accept_all() {
    let lab = Lab::new(50, "INPUT");
    let _example = Example::start("accept_all", 50);
    let sink = Sink::new(&lab);
    lab.send(20, 64);
    assert_eq!((sink.received(20), queued(50)), (20, 20));
}

#[test]
fn drop_port() {
    let lab = Lab::new(51, "INPUT");
    let sink = Sink::new(&lab);
    {
        let _example = Example::start_with("drop_port", 51, &["23"]);
        lab.send(20, 64);
        assert_eq!(sink.received(20), 20);
    }
    let _example = Example::start_with("drop_port", 51, &[&lab.port().to_string()]);
    lab.send(20, 64);
    assert_eq!((sink.received(0), queued(51)), (0, 20));
}

#[test]
fn rewrite_dns() {
    let lab = Lab::new(52, "INPUT");
    let receiver = UdpSocket::bind(("127.0.0.1", lab.port())).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _example = Example::start("rewrite_dns", 52);
    // One question (a.b, A), two answers: an alias, and an address by a pointer to the name.
    let mut answer = vec![0, 7, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    answer.extend(b"\x01a\x01b\0\0\x01\0\x01");
    answer.extend(b"\x01a\x01b\0\0\x05\0\x01\0\0\0\x3c\0\x04\xc0\x0c\xc0\x0c");
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
    let mut expected = answer.clone();
    answer.extend([198, 51, 100, 7]);
    expected.extend([192, 0, 2, 1]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(&answer, ("127.0.0.1", lab.port())).unwrap();
    let mut bytes = [0; 200];
    let length = receiver.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], expected);
    // What is no DNS passes as it is.
    sender.send_to(b"no dns", ("127.0.0.1", lab.port())).unwrap();
    let length = receiver.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"no dns");
}

#[test]
fn set_ttl() {
    // The mangle table is asked before the filter table.
    let lab = Lab::new(55, "mangle");
    let port = lab.port();
    let behind = format!("-A INPUT -p udp --dport {port} -j NFQUEUE --queue-num 75");
    iptables(&behind);
    let engine = Engine::builder().queues("75".parse().unwrap()).start(|_| OnlyTtl(7)).unwrap();
    let sink = Sink::new(&lab);
    {
        let _example = Example::start_with("set_ttl", 55, &["7"]);
        lab.send(20, 64);
        assert_eq!(sink.received(20), 20);
    }
    let _example = Example::start_with("set_ttl", 55, &["8"]);
    lab.send(20, 64);
    assert_eq!((sink.received(0), queued(55)), (0, 20));
    let stopped = engine.shutdown(Duration::from_secs(10));
    assert_eq!(stopped.stats.totals().dropped, 20);
    iptables(&behind.replacen("-A", "-D", 1));
}

#[test]
fn defer_to_pool() {
    let lab = Lab::new(53, "INPUT");
    let _example = Example::start("defer_to_pool", 53);
    let sink = Sink::new(&lab);
    lab.send(100, 64);
    lab.send(20, 1200);
    assert_eq!((sink.received(120), queued(53)), (120, 120));
}

#[test]
fn signature_ips() {
    let lab = Lab::new(54, "INPUT");
    let _example = Example::start_with("signature_ips", 54, &["evil", "worse"]);
    let sink = Sink::new(&lab);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for payload in ["good", "so EVIL a word", "and a wors", "e one", "or worse"] {
        sender.send_to(payload.as_bytes(), ("127.0.0.1", lab.port())).unwrap();
    }
    assert_eq!((sink.received(3), queued(54)), (3, 5));
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
