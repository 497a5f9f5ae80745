//! Goal: `fanq run` outlives its inspectors' faults, says them, keeps to the policy and accounts for every packet.
//! Method: policies that panic or hang at a packet; datagrams through a queue on the loopback of a namespace of its
//! own. A worker's thread is stopped by a tracer.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use serde_json::Value;
use space::Space;

/// Both ends of the traffic through queue 9: sends as many datagrams as a line asks for, and answers with how many of
/// them arrived.
struct Ends {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Ends {
    fn new(space: &Space) -> Self {
        space.shell(
            "mount -t tmpfs tmpfs /run; ip link set lo up
             iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num 9",
        );
        let script = "import socket, sys
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 25) # SO_RCVBUFFORCE
receiver.bind(('127.0.0.1', 9000))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for line in sys.stdin:
    count, expected = map(int, line.split())
    for _ in range(count): sender.sendto(b'x' * 200, ('127.0.0.1', 9000))
    arrived = 0
    receiver.settimeout(10)
    try:
        while arrived < expected: arrived += bool(receiver.recv(1000))
        receiver.settimeout(0.2)
        while True: arrived += bool(receiver.recv(1000))
    except TimeoutError: pass
    print(arrived, flush=True)";
        let mut command = space.command(&["timeout", "100", "python3", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("python3 runs");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, said }
    }

    /// Sends so many, and waits for so many of them and a moment longer. Returns how many came.
    fn send(&mut self, count: u32, expected: u32) -> u32 {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{count} {expected}").expect("it listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it counts");
        line.trim().parse().expect("a count")
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(totals: &Value, key: &str) -> u64 {
    totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {totals}"))
}

#[test]
fn a_panic_is_said_and_the_queue_served_on_until_there_are_too_many() {
    let Some(space) = Space::new() else { return };
    let mut ends = Ends::new(&space);
    let request = "--queues 9 --placement none --summary json --policy panic:10 --on-fault accept --panics-max 2";
    let mut fanq = space.start(&[], request);
    fanq.await_ready();
    // One by one, so that a batch is a packet.
    for _ in 0..9 {
        assert_eq!(ends.send(1, 1), 1);
    }
    assert_eq!(ends.send(1, 1), 1);
    let said = fanq.await_line("queue 9: the inspector panicked at packet 10");
    assert!(said.contains("as --policy panic asks"), "{said}");
    for _ in 0..10 {
        assert_eq!(ends.send(1, 1), 1);
    }
    fanq.await_line("queue 9: 2 panics within a minute: no new inspector is made");
    assert_eq!(ends.send(100, 100), 100);
    let totals = fanq.stop("TERM").json()["totals"].clone();
    let counts = ["packets", "accepted", "faulted", "panics"].map(|key| number(&totals, key));
    assert_eq!(counts, [120, 120, 102, 2], "{totals}");
    assert_eq!((number(&totals, "id_gaps"), number(&totals, "verdict_errors")), (0, 0));
}

#[test]
fn a_hanging_inspectors_queue_gets_the_policy_and_the_program_still_stops() {
    for (on_fault, arrive) in [("accept", 100), ("drop", 0)] {
        let Some(space) = Space::new() else { return };
        let mut ends = Ends::new(&space);
        let request = format!(
            "--queues 9 --placement none --summary json --policy hang:1 --inspect-deadline 0.1 --on-fault {on_fault} \
             --drain-limit 0.2"
        );
        let mut fanq = space.start(&[], &request);
        fanq.await_ready();
        assert_eq!(ends.send(100, arrive), arrive);
        fanq.await_line("queue 9: the inspector has not come back at packet 1 for");
        assert_eq!(ends.send(100, arrive), arrive);
        fanq.signal("TERM");
        let ended = fanq.end();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let left = "the inspector has not come back from packet 1, and was left behind";
        assert!(ended.stderr.contains(left), "{}", ended.stderr);
        let totals = &ended.json()["totals"];
        let counts = ["packets", "faulted", "hangs"].map(|key| number(totals, key));
        assert_eq!(counts, [200, 200, 1], "{totals}");
        assert_eq!(number(totals, if on_fault == "accept" { "accepted" } else { "dropped" }), 200);
        assert!(space.bound().is_empty());
    }
}

#[test]
fn a_worker_whose_thread_does_not_run_is_found_too() {
    let Some(space) = Space::new() else { return };
    let mut ends = Ends::new(&space);
    let request =
        "--queues 9 --placement none --summary json --inspect-deadline 0.1 --on-fault accept";
    let mut fanq = space.start(&[], request);
    fanq.await_ready();
    assert_eq!(ends.send(10, 10), 10);
    // A signal stops all threads of a process; a tracer stops one.
    let tracer = format!(
        "import ctypes, glob, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
tasks = glob.glob('/proc/{}/task/*')
thread = next(int(os.path.basename(t)) for t in tasks if open(t + '/comm').read().strip() == 'fanq-9')
assert libc.ptrace(16, thread, None, None) == 0, os.strerror(ctypes.get_errno()) # PTRACE_ATTACH
os.waitpid(thread, 0x40000000) # __WALL
print('stopped', flush=True)
sys.stdin.readline()
assert libc.ptrace(17, thread, None, None) == 0 # PTRACE_DETACH
print('goes on', flush=True)",
        fanq.child.id()
    );
    let mut tracer = space.command(&["timeout", "60", "python3", "-c", &tracer]);
    let mut tracer = tracer.stdin(Stdio::piped()).spawn().expect("python3 runs");
    let mut said = BufReader::new(tracer.stdout.take().expect("it is piped")).lines();
    let stopped = said.next().and_then(Result::ok);
    if stopped.as_deref() != Some("stopped") {
        tracer.wait().expect("it ends");
        return space::skip("no thread may be traced here");
    }
    assert_eq!(ends.send(100, 100), 100, "answered in the worker's place");
    fanq.await_line("queue 9: the inspector has not come back for");
    assert_eq!(ends.send(100, 100), 100);
    writeln!(tracer.stdin.take().expect("it is piped"), "go on").expect("it listens");
    assert_eq!(said.next().and_then(Result::ok).as_deref(), Some("goes on"));
    tracer.wait().expect("it ends");
    assert_eq!(ends.send(10, 10), 10);
    fanq.await_line("queue 9: the inspector is back after");
    let totals = fanq.stop("TERM").json()["totals"].clone();
    let counts = ["packets", "accepted", "hangs"].map(|key| number(&totals, key));
    assert_eq!(counts, [220, 220, 1], "{totals}");
    // The last ten may have come while it was still being answered for.
    assert!((200..=210).contains(&number(&totals, "faulted")), "{totals}");
    assert_eq!((number(&totals, "id_gaps"), number(&totals, "verdict_errors")), (0, 0));
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let Some(space) = Space::new() else { return };
    for (request, part) in [
        ("--queues 9 --on-fault reject", "drop, accept"),
        ("--queues 9 --on-exit none", "drop, accept"),
        ("--queues 9 --inspect-deadline=-1", "inspect-deadline -1 is out of range"),
        ("--queues 9 --inspect-deadline 0.001", "out of range: 0.01 to 3600 seconds, or 0"),
        ("--queues 9 --panics-max 0", "panics-max 0 is out of range: 1 to 1000"),
    ] {
        space.run(&[], request).assert_refused(2, &[part], request);
        assert!(space.bound().is_empty(), "{request}");
    }
}
