//! Goal: verdicts and marks, new rules between batches, and no allocation on the way. Method: messages as the kernel
//! sends them, through the whole inspector.

use std::fs;
use std::process::Command;

use etherparse::PacketBuilder;
use fanq::Edits;
use fanq::nfq::{Message, decode};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;

use super::*;
use crate::inspector::command::traffic::message;
use crate::inspector::{PolicyControl, SharedPolicy};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// A rules file, the main thread's side, and one worker's.
struct Scene {
    folder: TempDir,
    control: SharedPolicy,
    inspector: RuleInspector,
    edits: Edits,
}

impl Scene {
    fn new(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        fs::write(&path, format!("flow-table = 64\nlimit-table = 64\n{rules}")).unwrap();
        let control = SharedPolicy::new(PolicyControl::start(&path, 1, None).unwrap());
        let inspector = RuleInspector::new(0, control.lock().handover());
        Self { folder, control, inspector, edits: Edits::default() }
    }

    fn reload(&mut self, rules: &str) {
        let path = self.folder.path().join("rules.toml");
        fs::write(path, format!("flow-table = 64\nlimit-table = 64\n{rules}")).unwrap();
        self.read_again().unwrap();
    }

    fn read_again(&self) -> anyhow::Result<String> {
        let next = self.control.read_again();
        self.control.lock().adopt(next, None)
    }

    fn inspect(&mut self, message: &[u8]) -> Verdict {
        let Ok((Message::Packet(packet), _)) = decode(message) else { panic!("no packet") };
        self.inspector.inspect(&mut Packet::new(packet, &mut self.edits))
    }

    fn end_batch(&mut self) {
        self.inspector.batch_end(Timestamp(0));
    }

    fn hits(&self, rule: &str) -> u64 {
        let rules = self.control.lock().account().rules;
        rules.iter().find(|known| known.name == rule).map_or(0, |rule| rule.packets)
    }
}

fn rule(name: &str, keys: &str) -> String {
    format!("[[rule]]\nname = '{name}'\n{keys}\n")
}

fn udp(port: u16, mark: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(5, port).write(&mut packet, b"hello").unwrap();
    message(1, 1, mark, &packet)
}

fn tcp(sequence: u32, text: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp(5, 80, sequence, 9);
    builder.write(&mut packet, text.as_bytes()).unwrap();
    message(1, 1, 0, &packet)
}

#[test]
fn each_action_has_its_verdict_and_keeps_the_marks_of_others() {
    let mut scene = Scene::new(
        &["reject-mark = '0x10/0x30'\nbypass-mark = '0x20/0x30'\ndefault = 'drop'\n".to_owned()]
            .into_iter()
            .chain([
                rule("a", "destination-port = 1\naction = 'accept'"),
                rule("d", "destination-port = 2\naction = 'drop'"),
                rule("r", "destination-port = 3\naction = 'reject'"),
                rule("m", "destination-port = 4\naction = 'mark'\nmark = '0x100/0xf00'"),
                rule("b", "destination-port = 5\naction = 'bypass'"),
                rule("l", "destination-port = [6, 7]\naction = 'log'"),
                rule("a2", "destination-port = 6\naction = 'accept'"),
            ])
            .collect::<String>(),
    );
    for (port, verdict) in [
        (1, Verdict::ACCEPT),
        (2, Verdict::DROP),
        (3, Verdict::REPEAT.with_mark(0x8001_0010)),
        (4, Verdict::ACCEPT.with_mark(0x8001_0100)),
        (5, Verdict::REPEAT.with_mark(0x8001_0020)),
        (6, Verdict::ACCEPT),
        (7, Verdict::DROP),
        (8, Verdict::DROP),
    ] {
        assert_eq!(scene.inspect(&udp(port, 0x8001_0000)), verdict, "{port}");
    }
    assert_eq!(
        ["a", "d", "r", "m", "b", "l", "a2"].map(|rule| scene.hits(rule)),
        [1, 1, 1, 1, 1, 2, 1]
    );
    // What comes back with one of the marks is not sent round again.
    for (mark, verdict) in
        [(0x10, Verdict::DROP), (0x20, Verdict::ACCEPT), (0x8000_0010, Verdict::DROP)]
    {
        for port in 1..9 {
            assert_eq!(scene.inspect(&udp(port, mark)), verdict, "{port} {mark:x}");
        }
    }
    let account = scene.control.lock().account();
    assert_eq!((account.rejects_returned, account.bypasses_returned, account.rejected), (16, 8, 1));
    assert_eq!(scene.inspector.unseen(), Verdict::DROP);
}

#[test]
fn new_rules_come_between_batches_and_what_was_counted_stays() {
    let (accept, drop) = (rule("one", "action = 'accept'"), rule("two", "action = 'drop'"));
    let mut scene = Scene::new(&accept);
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::ACCEPT);
    scene.reload(&drop);
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::ACCEPT, "a batch is decided by one version");
    scene.end_batch();
    assert_eq!(
        scene.inspect(&udp(1, 0)),
        Verdict::DROP,
        "the first packet of the next has the new one"
    );
    scene.end_batch();
    for _ in 0..5 {
        scene.reload(&accept);
        scene.control.lock().tend();
        scene.reload(&drop);
    }
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
    scene.control.lock().tend();
    assert_eq!((scene.hits("one"), scene.hits("two")), (2, 2));
    let path = scene.folder.path().join("rules.toml");
    fs::write(path, "nonsense").unwrap();
    assert!(scene.read_again().is_err());
    scene.end_batch();
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
    let account = scene.control.lock().account();
    assert_eq!((account.reloads, account.reloads_refused), (11, 1));
}

#[test]
fn flows_go_on_under_the_same_patterns_and_begin_anew_under_others() {
    let attack = rule("p", "pattern = 'attack'\naction = 'drop'");
    let mut scene = Scene::new(&attack);
    assert_eq!(scene.inspect(&tcp(100, "att")), Verdict::ACCEPT);
    scene.end_batch();
    scene.reload(&(rule("first", "destination-port = 9\naction = 'drop'") + &attack));
    for _ in 0..3 {
        assert_eq!(scene.inspect(&tcp(103, "ack")), Verdict::DROP, "sent again, dropped again");
    }
    scene.end_batch();
    scene.reload(&(attack + &rule("q", "pattern = 'other'\naction = 'drop'")));
    assert_eq!(scene.inspect(&tcp(103, "ack")), Verdict::ACCEPT);
    assert_eq!(scene.inspect(&tcp(106, "attack")), Verdict::DROP);
}

#[test]
fn what_the_default_drops_changes_no_flow() {
    let pattern = "pattern = 'attack'\naction = 'accept'";
    let mut scene = Scene::new(&("default = 'drop'\n".to_owned() + &rule("p", pattern)));
    assert_eq!(scene.inspect(&tcp(100, "att")), Verdict::DROP);
    assert_eq!(scene.inspect(&tcp(103, "ack")), Verdict::DROP, "nobody got the first half");
    assert_eq!(scene.inspect(&tcp(100, "attack")), Verdict::ACCEPT);
}

#[test]
fn interfaces_that_are_not_known_are_asked_for() {
    let mut scene = Scene::new(&rule("lo", "in-interface = 'lo'\naction = 'drop'"));
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
    let handover = scene.control.lock().handover();
    assert!(!handover.interfaces_asked_for());
    let unknown = message(1, 99_999, 0, &[0x45; 20]);
    assert_eq!(scene.inspect(&unknown), Verdict::ACCEPT);
    assert!(handover.interfaces_asked_for() && !handover.interfaces_asked_for());
    let table = crate::inspector::interfaces::InterfaceTable::default();
    handover.publish_interfaces(&Arc::new(table));
    scene.end_batch();
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::ACCEPT, "the new table knows none");
    scene.control.lock().tend();
    scene.end_batch();
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP, "it was asked for, and read again");
}

#[test]
fn a_table_of_interfaces_is_never_taken_for_that_of_other_rules() {
    let lo = rule("lo", "in-interface = 'lo'\naction = 'drop'");
    let mut scene = Scene::new(&lo);
    let handover = scene.control.lock().handover();
    // It waits in the slot of a worker whose queue is idle.
    handover.ask_for_interfaces();
    scene.control.lock().tend();
    // By name this interface comes first: where `lo` had a bit, it has it now.
    scene.reload(&(rule("another", "in-interface = 'a'\naction = 'accept'") + &lo));
    assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
}

#[test]
fn workers_that_start_again_have_the_rules_in_force_whatever_is_in_the_file() {
    let mut scene = Scene::new(&rule("first", "action = 'accept'"));
    scene.inspect(&udp(1, 0));
    scene.reload(&rule("d", "action = 'drop'"));
    let path = scene.folder.path().join("rules.toml");
    fs::write(path, "nonsense").unwrap();
    let (sender, _records) = crate::eve::ring();
    scene.inspector.desk.log = Some(sender);
    // The one before may be stuck, and come back later.
    for is_stuck in [true, false] {
        scene.control.lock().start_again(None);
        let next = RuleInspector::new(0, scene.control.lock().handover());
        let before = std::mem::replace(&mut scene.inspector, next);
        if is_stuck {
            assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
        }
        drop(before);
        assert_eq!(scene.inspect(&udp(1, 0)), Verdict::DROP);
        scene.end_batch();
    }
    assert_eq!((scene.hits("first"), scene.hits("d")), (1, 3));
    scene.control.lock().tend();
    assert_eq!((scene.hits("first"), scene.hits("d")), (1, 3), "when older counts are folded");
    let account = scene.control.lock().account();
    assert_eq!((account.reloads, account.reloads_refused), (1, 0));
}

#[test]
fn the_way_to_the_log_goes_to_who_starts_again() {
    let mut scene = Scene::new(&rule("d", "action = 'drop'"));
    let (sender, _records) = crate::eve::ring();
    scene.inspector.desk.log = Some(sender);
    drop(scene.inspector);
    scene.control.lock().start_again(None);
    scene.inspector = RuleInspector::new(0, scene.control.lock().handover());
    assert!(scene.inspector.desk.log.is_some());
}

/// The allocator counts for all threads, so this one test runs again in a process of its own.
#[test]
fn no_packet_makes_it_allocate() {
    const CHILD: &str = "FANQ_TEST_COUNTS_ALLOCATIONS";
    if std::env::var_os(CHILD).is_none() {
        let name = "inspector::worker::tests::no_packet_makes_it_allocate";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output =
            command.args(["--exact", name, "--test-threads=1"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let rules = [
        rule("limit", "limit = { per = 'flow', count = 3, seconds = 1 }\naction = 'log'"),
        rule(
            "address",
            "source = ['1.0.0.0/8', '1.1.0.0/16', '::/0']\nin-interface = 'lo'\naction = 'log'",
        ),
        rule("both", "pattern = ['att', { text = 'ACK', ignore-case = true }]\naction = 'log'"),
        rule("one", "pattern = 'attack'\naction = 'drop'"),
    ];
    let mut scene = Scene::new(&rules.concat());
    let (sender, records) = crate::eve::ring();
    scene.inspector.desk.log = Some(sender);
    let texts = ["att", "ack", "attack attack", "", "none", "at"];
    let messages: Vec<_> = (0..2000_u32)
        .map(|n| if n % 5 == 0 { udp(80, n) } else { tcp(n * 3, texts[n as usize % texts.len()]) })
        .collect();
    let region = Region::new(ALLOCATOR);
    for _ in 0..5 {
        for message in &messages {
            scene.inspect(message);
            scene.end_batch();
        }
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
    assert!(["one", "both", "limit", "address"].iter().all(|rule| scene.hits(rule) > 0));
    // What finds the ring full is counted: an alert each, and for a drop another line.
    let account = scene.control.lock().account();
    let hits: u64 = account.rules.iter().map(|rule| rule.packets).sum();
    assert_eq!(records.slots(), crate::eve::RING_RECORDS);
    assert!(account.log_lost >= hits - records.slots() as u64 && account.log_lost < hits * 2);
}

#[test]
fn after_a_panic_the_next_inspector_has_the_rules_and_counts_on_and_forgets_flows() {
    let mut scene = Scene::new(
        &(rule("p", "pattern = 'abcd'\naction = 'drop'")
            + &rule("d", "destination-port = 2\naction = 'drop'")),
    );
    assert_eq!(scene.inspect(&tcp(100, "ab")), Verdict::ACCEPT);
    assert_eq!(scene.inspect(&udp(2, 0)), Verdict::DROP);
    let handover = scene.control.lock().handover();
    // The engine drops the old one before it makes the next.
    let Scene { control, inspector, mut edits, .. } = scene;
    drop(inspector);
    let mut next = RuleInspector::new(0, handover);
    let mut inspect = |message: &[u8]| {
        let Ok((Message::Packet(packet), _)) = decode(message) else { panic!("no packet") };
        next.inspect(&mut Packet::new(packet, &mut edits))
    };
    assert_eq!(inspect(&tcp(102, "cd")), Verdict::ACCEPT, "the first half is forgotten");
    assert_eq!(inspect(&udp(2, 0)), Verdict::DROP);
    let rules = control.lock().account().rules;
    let hits = rules.iter().find(|rule| rule.name == "d").map(|rule| rule.packets);
    assert_eq!(hits, Some(2));
}
