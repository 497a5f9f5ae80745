//! Goal: `fanq run` relieves a queue that grows faster than it is answered, and says what it did: shedding, headers
//! only, threads. Method: datagrams through a queue on the loopback of a namespace of its own, all queued before the
//! program may read one, so that the load does not depend on the machine's speed.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;

use serde_json::Value;
use space::Space;

const PACKETS: u64 = 3000;

/// Lets so many datagrams wait for a stopped `fanq run` before it goes on, and returns its account and how many
/// datagrams arrived.
fn flood(options: &str) -> Option<(Value, u64)> {
    let space = Space::new()?;
    space.shell(
        "mount -t tmpfs tmpfs /run; ip link set lo up
         iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num 9",
    );
    let request = format!("--queues 9 --placement none --summary json {options}");
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    fanq.signal("STOP");
    let script = format!(
        "import socket, sys
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 25) # SO_RCVBUFFORCE
receiver.bind(('127.0.0.1', 9000))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({PACKETS}): sender.sendto(b'x' * 200, ('127.0.0.1', 9000))
print('sent', flush=True)
sys.stdin.readline()
receiver.settimeout(0.3)
count = 0
try:
    while receiver.recv(1000): count += 1
except TimeoutError: pass
print(count)"
    );
    let mut ends = space.command(&["timeout", "60", "python3", "-c", &script]);
    let mut ends = ends.stdin(std::process::Stdio::piped()).spawn().expect("python3 runs");
    let mut said = std::io::BufReader::new(ends.stdout.take().expect("it is piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).expect("it speaks");
    assert_eq!(line, "sent\n");
    fanq.signal("CONT");
    let ended = fanq.stop("TERM");
    std::io::Write::write_all(&mut ends.stdin.take().expect("it is piped"), b"\n")
        .expect("it listens");
    line.clear();
    std::io::BufRead::read_line(&mut said, &mut line).expect("it counts");
    ends.wait().expect("it ends");
    Some((ended.json()["totals"].clone(), line.trim().parse().expect("a count")))
}

fn number(totals: &Value, key: &str) -> u64 {
    totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {totals}"))
}

#[test]
fn a_queue_at_its_depth_is_shed_and_every_packet_accounted_for() {
    for (policy, shed_arrive) in [("accept", true), ("drop", false)] {
        let options = format!("--on-overload {policy} --overload-depth 1000");
        let Some((totals, arrived)) = flood(&options) else { return };
        let (packets, shed) = (number(&totals, "packets"), number(&totals, "shed"));
        assert_eq!(packets + shed, PACKETS, "{totals}");
        assert!(shed > 1000, "{totals}");
        assert_eq!(arrived, if shed_arrive { PACKETS } else { packets }, "{totals}");
        assert_eq!((number(&totals, "verdict_errors"), number(&totals, "id_gaps")), (0, 0));
    }
}

#[test]
fn threads_behind_the_worker_answer_every_packet() {
    let Some((totals, arrived)) = flood("--inspect-threads 2") else { return };
    assert_eq!((number(&totals, "deferred"), arrived), (PACKETS, PACKETS), "{totals}");
    assert_eq!((number(&totals, "unanswered"), number(&totals, "overdue")), (0, 0), "{totals}");
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let Some(space) = Space::new() else { return };
    for (request, part) in [
        ("--queues 9 --overload-depth 5", "add --on-overload accept or drop"),
        ("--queues 9 --on-overload drop --overload-depth 20000", "out of range: 1 to 16384"),
        ("--queues 9 --on-overload drop --inspect-threads 1", "leave on-overload at none"),
        ("--queues 9 --inspect-threads 257", "out of range: 0 to 256"),
        ("--queues 9 --on-overload reject", "none, accept, drop"),
    ] {
        space.run(&[], request).assert_refused(2, &[part], request);
        assert!(space.bound().is_empty(), "{request}");
    }
}
