//! Goal: `fanq run --policy rules.toml` does to real packets what its rules say, changes rules under traffic without
//! losing any, and writes a log whose lines add up, also where they cannot be written.
//!
//! Method: each test runs the built program in a network namespace of its own; a rule of iptables on its loopback
//! queues what small Python programs send. Every wait is bounded.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

mod space;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use space::{Ended, Fanq, PATIENCE, Space};

/// A namespace whose packets to port 9000 are queued, and a folder.
struct Scene {
    space: Space,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        let space = Space::new()?;
        space.shell(
            "ip link set lo up
             for p in udp tcp; do iptables -A INPUT -p $p --dport 9000 -j NFQUEUE --queue-num 9; done",
        );
        Some(Self { space, folder: tempfile::tempdir().expect("a temporary folder can be made") })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rules(&self, text: &str) {
        fs::write(self.path("rules.toml"), text).expect("the rules can be written");
    }

    /// Starts it with rules and a log, once it is ready.
    fn start(&self, rules: &str) -> Fanq {
        self.rules(rules);
        let eve = self.path("eve.json").display().to_string();
        self.start_with(&[], &eve)
    }

    fn start_with(&self, wrapper: &[&str], eve: &str) -> Fanq {
        let rules = self.path("rules.toml").display().to_string();
        let request = format!(
            "--queues 9 --placement none --summary json --policy {rules} --eve {eve} --eve-stats 0.05"
        );
        let mut fanq = self.space.start(wrapper, &request);
        fanq.await_ready();
        fanq
    }

    /// Runs a Python program in the namespace; what it prints.
    fn python(&self, program: &str) -> String {
        let words = ["timeout", "20", "python3", "-c", program];
        let output = self.space.command(&words).output().expect("python3 runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        events_in(&self.path("eve.json"), kind)
    }
}

fn events_in(path: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("there is a log");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    lines.filter(|line: &Value| line["event_type"] == kind).collect()
}

/// Packets that a rule matched.
fn hits(account: &Value, rule: &str) -> u64 {
    let rules = account["policy"]["rules"].as_array().expect("there are rules");
    let found =
        rules.iter().find(|known| known["name"] == rule).expect("the rule is in the account");
    found["packets"].as_u64().expect("it is a count")
}

/// The account; every packet is in it, and every line.
fn account(ended: &Ended) -> Value {
    let account = ended.json();
    let totals = &account["totals"];
    let lost = [&totals["id_gaps"], &totals["flushed"], &totals["kernel"]["queue_dropped"]];
    assert!(lost.iter().all(|count| *count == 0), "{totals}");
    account
}

const SEND_UDP: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def send(n, text=b'x'):
    for _ in range(n): s.sendto(text, ('127.0.0.1', 9000))
";

/// Sends pieces as segments of their own and prints what arrives.
fn tcp(pieces: &[&str]) -> String {
    format!(
        "
import socket, time
l = socket.create_server(('127.0.0.1', 9000))
c = socket.create_connection(('127.0.0.1', 9000))
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
a, _ = l.accept()
a.settimeout(1)
for piece in {pieces:?}:
    c.sendall(piece.encode())
    time.sleep(0.05)
got = b''
try:
    while True: got += a.recv(4096)
except TimeoutError: pass
print(got.decode())
"
    )
}

#[test]
fn a_pattern_cut_in_two_is_dropped_and_logged_and_others_pass() {
    let Some(scene) = Scene::new() else { return };
    let fanq = scene.start(
        "[[rule]]
         name = 'cut'
         id = 77
         protocol = 'tcp'
         destination-port = 9000
         pattern = { text = 'ATTACK|20|now', ignore-case = true }
         action = 'drop'",
    );
    assert_eq!(scene.python(&tcp(&["an att", "end to", "now"])), "an attend tonow\n");
    assert_eq!(scene.python(&tcp(&["an atta", "ck n", "ow, and more"])), "an attack n\n");
    let account = account(&fanq.stop("TERM"));
    // What was dropped is sent again, and dropped again.
    let dropped = hits(&account, "cut");
    assert!(dropped >= 1 && account["totals"]["dropped"] == dropped, "{account}");
    let (alerts, drops) = (scene.events("alert"), scene.events("drop"));
    assert_eq!((alerts.len() as u64, drops.len() as u64), (dropped, dropped));
    let alert = &alerts[0];
    assert_eq!((&alert["dest_port"], &alert["proto"]), (&9000.into(), &"TCP".into()), "{alert}");
    assert_eq!((&alert["src_ip"], &alert["in_iface"]), (&"127.0.0.1".into(), &"lo".into()));
    assert_eq!(
        (&alert["alert"]["action"], &alert["alert"]["signature_id"]),
        (&"blocked".into(), &77.into())
    );
    assert_eq!(drops[0]["drop"]["reason"], "rules");
    let stats = scene.events("stats");
    let last = &stats.last().expect("statistics were written")["stats"];
    assert_eq!(last["ips"]["blocked"], dropped, "{last}");
    assert_eq!(last["decoder"]["pkts"], account["totals"]["packets"]);
    let lines = fs::read_to_string(scene.path("eve.json")).expect("there is a log").lines().count();
    assert_eq!((&account["eve"]["written"], &account["eve"]["lost"]), (&lines.into(), &0.into()));
}

#[test]
fn rules_change_under_traffic_without_losing_a_packet() {
    let Some(scene) = Scene::new() else { return };
    let rules =
        |name: &str| format!("[[rule]]\nname = '{name}'\nprotocol = 'udp'\naction = 'accept'\n");
    let mut fanq = scene.start(&rules("one"));
    // Each packet is awaited, so that one that is lost is missed.
    let program = "
import socket
r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(('127.0.0.1', 9000)); r.settimeout(5)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9000))
for n in range(1000):
    for m in range(32): s.send(b'%d' % (n * 32 + m))
    for m in range(32): assert r.recv(99) == b'%d' % (n * 32 + m)
print('whole')
";
    let (said, reloads) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| scene.python(program));
        let mut reloads = 0;
        while !sender.is_finished() || reloads < 2 {
            scene.rules(&rules(if reloads % 2 == 0 { "two" } else { "one" }));
            fanq.signal("HUP");
            fanq.await_line("rules read again");
            reloads += 1;
        }
        (sender.join().expect("the sender ends well"), reloads)
    });
    assert_eq!(said, "whole\n");
    scene.rules("default = 'drop'");
    fanq.signal("HUP");
    fanq.await_line("0 rules, 0 patterns, default drop");
    scene.python(&format!("{SEND_UDP}send(10)"));
    let account = account(&fanq.stop("TERM"));
    let totals = &account["totals"];
    assert_eq!((&totals["accepted"], &totals["dropped"]), (&32_000.into(), &10.into()), "{totals}");
    // What rules of all versions matched stays in the account.
    assert_eq!(hits(&account, "one") + hits(&account, "two"), 32_000, "{}", account["policy"]);
    assert_eq!(account["policy"]["reloads"], reloads + 1);
    assert_eq!(scene.events("engine").len(), reloads + 1);
}

#[test]
fn rules_with_an_error_refuse_the_start_and_leave_a_running_program_as_it_is() {
    let Some(scene) = Scene::new() else { return };
    let good = "[[rule]]\nname = 'all'\naction = 'drop'\nlog = false";
    let bad = "[[rule]]\nname = 'all'\naction = 'accept'\nsource = '10.0.0.0/40'";
    scene.rules(bad);
    let rules = scene.path("rules.toml").display().to_string();
    let ended = scene.space.run(&[], &format!("--queues 9 --policy {rules}"));
    let place = format!("{rules}:4:10: `10.0.0.0/40` is too long a prefix");
    ended.assert_refused(2, &[&place], "a bad prefix");

    let mut fanq = scene.start(good);
    scene.rules(bad);
    fanq.signal("HUP");
    let said = fanq.await_line("the rules stay as they are");
    assert!(said.contains(&place), "{said}");
    fs::remove_file(scene.path("rules.toml")).expect("it is there");
    fanq.signal("HUP");
    fanq.await_line("cannot be read");
    scene.python(&format!("{SEND_UDP}send(20)"));
    let account = account(&fanq.stop("TERM"));
    assert_eq!((hits(&account, "all"), &account["totals"]["dropped"]), (20, &20.into()));
    let policy = &account["policy"];
    assert_eq!((&policy["reloads"], &policy["reloads_refused"]), (&0.into(), &2.into()));
    let engine = scene.events("engine");
    assert_eq!((engine.len(), &engine[0]["engine"]["level"]), (2, &"Error".into()));
    assert!(engine[0]["engine"]["message"].as_str().is_some_and(|text| text.contains(&place)));
}

#[test]
fn a_full_disk_costs_lines_which_are_counted_and_leaves_whole_ones() {
    let Some(scene) = Scene::new() else { return };
    scene.rules("[[rule]]\nname = 'all'\naction = 'log'");
    let folder = scene.folder.path().display().to_string();
    // A file system of its own, which goes with the program.
    let mount = format!(
        "mkdir -p {folder}/small && mount -t tmpfs -o size=64k tmpfs {folder}/small && exec \"$@\""
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let fanq = scene.start_with(&wrapper, &format!("{folder}/small/eve.json"));
    let seen = PathBuf::from(format!("/proc/{}/root{folder}/small/eve.json", fanq.child.id()));
    for _ in 0..10 {
        scene.python(&format!("{SEND_UDP}send(100)"));
    }
    let full = |text: &str| text.len() > 60_000;
    await_that(|| fs::read_to_string(&seen).is_ok_and(|text| full(&text)));
    let alerts = events_in(&seen, "alert").len() as u64;
    let mut ended = fanq.stop("TERM");
    assert!(
        ended.stderr.contains("lines for") && ended.stderr.contains("are lost"),
        "{}",
        ended.stderr
    );
    ended.stderr.clear();
    let account = account(&ended);
    assert_eq!((hits(&account, "all"), &account["totals"]["accepted"]), (1000, &1000.into()));
    let count = |key: &str| account["eve"][key].as_u64().expect("it is a count");
    assert!(alerts < 1000 && count("lost") >= 1000 - alerts, "{}, {alerts} alerts", account["eve"]);
    assert!(count("written") + count("lost") >= 1000);
}

#[test]
fn a_reader_on_a_socket_gets_every_line() {
    let Some(scene) = Scene::new() else { return };
    scene.rules("[[rule]]\nname = 'all'\naction = 'log'");
    let socket = scene.path("eve.sock").display().to_string();
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket can be bound");
    let fanq = scene.start_with(&[], &format!("unix:{socket}"));
    let (reader, _) = listener.accept().expect("the program connects");
    let reader =
        std::thread::spawn(move || std::io::read_to_string(reader).expect("it reads to the end"));
    scene.python(&format!("{SEND_UDP}send(50)"));
    let account = account(&fanq.stop("TERM"));
    let text = reader.join().expect("the reader ends well");
    let is_alert = |line: &&str| line.contains("\"event_type\":\"alert\"");
    assert_eq!(text.lines().filter(is_alert).count(), 50);
    let lines = text.lines().count();
    assert_eq!((&account["eve"]["written"], &account["eve"]["lost"]), (&lines.into(), &0.into()));
}

#[test]
fn beyond_a_limit_a_rule_matches() {
    let Some(scene) = Scene::new() else { return };
    let fanq = scene.start(
        "[[rule]]
         name = 'flood'
         direction = 'input'
         in-interface = 'lo'
         protocol = 'udp'
         limit = { per = 'source', count = 5, seconds = 3600 }
         action = 'drop'",
    );
    scene.python(&format!("{SEND_UDP}send(20)"));
    let account = account(&fanq.stop("TERM"));
    assert_eq!((hits(&account, "flood"), &account["totals"]["accepted"]), (15, &5.into()));
}

#[test]
fn what_is_rejected_or_let_past_goes_round_by_its_mark_once() {
    let Some(scene) = Scene::new() else { return };
    let rules = "
        reject-mark = '0x10/0x30'
        bypass-mark = '0x20/0x30'
        [[rule]]
        name = 'no'
        protocol = 'tcp'
        action = 'reject'
        log = false
        [[rule]]
        name = 'past'
        protocol = 'udp'
        action = 'bypass'";
    let connect = "
import socket
s = socket.socket(); s.settimeout(0.2)
print(type(s.connect_ex(('127.0.0.1', 9000))).__name__ and s.connect_ex(('127.0.0.1', 9000)))
";
    // Without rules that take the marks: dropped, and accepted, and counted as such.
    let fanq = scene.start(rules);
    scene.python(connect);
    scene.python(&format!("{SEND_UDP}send(10)"));
    let ended = account(&fanq.stop("TERM"));
    let policy = &ended["policy"];
    assert_eq!(policy["rejects_returned"], hits(&ended, "no"), "{policy}");
    assert_eq!((hits(&ended, "past"), &policy["bypasses_returned"]), (10, &10.into()), "{policy}");
    assert_eq!(ended["totals"]["accepted"], 10);

    scene.space.shell(
        "iptables -I INPUT -p tcp -m mark --mark 0x10/0x30 -j REJECT --reject-with tcp-reset
         iptables -I INPUT -m mark --mark 0x20/0x30 -j ACCEPT",
    );
    let fanq = scene.start(rules);
    let refused = scene.python(
        "
import socket
try: socket.create_connection(('127.0.0.1', 9000), 5)
except ConnectionRefusedError: print('refused')
",
    );
    assert_eq!(refused, "refused\n");
    scene.python(&format!("{SEND_UDP}send(10)"));
    let ended = account(&fanq.stop("TERM"));
    let policy = &ended["policy"];
    assert_eq!((hits(&ended, "no"), hits(&ended, "past")), (1, 10), "{policy}");
    let returned = [&policy["rejects_returned"], &policy["bypasses_returned"]];
    assert!(returned.iter().all(|count| *count == 0), "{policy}");
    assert_eq!(ended["totals"]["repeated"], 11);
}

fn await_that(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
