//! Queues that outlive their process in a descriptor store.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Site, Traffic, number, tell};
use crate::space::{Fanq, PATIENCE, await_stopped};

/// A store, which has started `fanq run` once. What both say comes on its standard error.
struct Store {
    keeper: Fanq,
    service: u32,
}

impl Store {
    fn new(site: &Site, options: &str) -> Self {
        Self::told(site, options, ("WATCHDOG_USEC", "200000"))
    }

    /// One that wants to hear something within so many microseconds.
    fn with_watchdog(site: &Site, options: &str, watchdog_us: &str) -> Self {
        Self::told(site, options, ("WATCHDOG_USEC", watchdog_us))
    }

    /// One with this in its environment.
    fn told(site: &Site, options: &str, (name, value): (&str, &str)) -> Self {
        let (script, path) =
            (include_str!("../../../scripts/descriptor_store.py"), site.path("notify"));
        let request = format!("--queues 8-9 --placement none --summary json {options}");
        let mut words = vec!["python3", "-c", script, &path, env!("CARGO_BIN_EXE_fanq"), "run"];
        words.extend(request.split_ascii_whitespace());
        let mut command = site.space.command(&words);
        command.env(name, value);
        let child = command.stdin(Stdio::piped()).spawn().expect("python3 runs");
        let mut store = Self { keeper: Fanq::new(child), service: 0 };
        store.start();
        store
    }

    fn start(&mut self) {
        tell(&mut self.keeper.child, "start");
        let line = self.keeper.await_line("started ");
        self.service = line["started ".len()..].trim().parse().expect("a process id");
    }

    /// Waits until the store has heard that the first start is done, and so has all sockets. What the store hears
    /// and what the service says come in no order.
    fn await_ready(&mut self) -> String {
        self.keeper.await_line("READY=1")
    }

    /// Waits until the service says so, after all else that it says at its start.
    fn await_served(&mut self) -> String {
        self.keeper.await_line("ready: queues")
    }

    fn signal(&self, signal: &str) {
        let words = [format!("-{signal}"), self.service.to_string()];
        assert!(Command::new("kill").args(words).status().expect("kill runs").success());
    }

    /// Ends the service, and waits for that.
    fn end(&mut self, signal: &str) -> String {
        self.signal(signal);
        self.keeper.await_line("ended ")
    }

    /// Waits until the service has read all that its sockets had.
    fn await_all_read(&self) {
        let path = format!("/proc/{}/net/netlink", self.service);
        let deadline = Instant::now() + PATIENCE;
        let unread = |line: &str| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields.get(1) == Some(&"12") && fields.get(4) != Some(&"0")
        };
        while std::fs::read_to_string(&path).unwrap().lines().any(unread) {
            assert!(Instant::now() < deadline, "it does not read");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn killed_again_and_again_it_loses_nothing_that_it_had_not_read() {
    let Some(site) = Site::new() else { return };
    let mut store = Store::new(&site, "--on-orphan accept");
    store.await_ready();
    let traffic = Traffic::start(&site, "2000");
    for _ in 0..12 {
        store.end("KILL");
        store.start();
        store.keeper.await_line("2 of the queues were kept");
        store.await_served();
    }
    let arrived = traffic.stop();
    let sent = number(&arrived, "sent");
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    // SIGTERM is the end of the queues, too.
    store.signal("TERM");
    store.keeper.await_line("told STOPPING=1");
    store.keeper.await_line("told FDNAME=fanq-queue-8 FDSTOREREMOVE=1");
    store.keeper.await_line("told FDNAME=fanq-queue-9 FDSTOREREMOVE=1");
    let deadline = Instant::now() + PATIENCE;
    while !site.space.bound().is_empty() {
        assert!(Instant::now() < deadline, "the queues outlive their end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn packets_that_were_read_get_one_verdict_and_those_that_were_not_are_inspected() {
    for (policy, what, before, after) in [
        ("--on-orphan accept", "accepted", 10, 7),
        ("--on-orphan drop", "dropped", 10, 7),
        ("--on-fault accept", "accepted", 10, 7),
        ("", "dropped", 6, 0),
    ] {
        let Some(site) = Site::new() else { return };
        // A batch takes seconds, so that the process dies over it. Nobody answers for it meanwhile, and it leaves the
        // CPUs to whoever is to kill it.
        let slow = "--work-ns 400000000 --inspect-deadline 0 --nice 19";
        // Nobody looks after the workers meanwhile: the message that wakes one would lie unread behind its batch.
        let mut store = Store::with_watchdog(&site, &format!("{policy} {slow}"), "600000000");
        store.await_ready();
        let traffic = Traffic::start(&site, "0");
        store.signal("STOP");
        await_stopped(store.service);
        site.send(before);
        store.signal("CONT");
        store.await_all_read();
        store.end("KILL");
        site.send(after);
        store.start();
        let line = store.keeper.await_line("packets were left unanswered");
        assert!(line.contains(&format!(" {before} packets")), "{line}");
        assert!(line.contains(&format!("they are {what}")), "{policy}: {line}");
        store.await_served();
        store.signal("TERM");
        store.keeper.await_line("ended 0");
        drop(store.keeper.child.stdin.take());
        let totals = store.keeper.wait().json()["totals"].clone();
        let (before, after) = (u64::from(before), u64::from(after));
        assert_eq!(
            (number(&totals, "orphaned"), number(&totals, "packets")),
            (before, after),
            "{totals}"
        );
        for none in ["id_gaps", "verdict_errors", "flushed"] {
            assert_eq!(number(&totals, none), 0, "{none} in {totals}");
        }
        drop(traffic);
    }
}

#[test]
fn told_to_leave_it_answers_what_it_has_and_the_rest_waits_for_the_next_start() {
    let Some(site) = Site::new() else { return };
    let mut store = Store::new(&site, "");
    store.await_ready();
    let traffic = Traffic::start(&site, "2000");
    for _ in 0..5 {
        store.end("USR2");
        store.start();
        store.await_served();
    }
    let arrived = traffic.stop();
    let sent = number(&arrived, "sent");
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    store.end("TERM");
}

#[test]
fn told_to_leave_without_a_store_it_drains_the_queues() {
    for room in ["0", "1"] {
        let Some(site) = Site::new() else { return };
        let mut store = Store::told(&site, "--work-ns 5000000 --batch 4", ("FDSTORE", room));
        store.await_ready();
        site.send(60);
        store.signal("USR2");
        store.keeper.await_line("told FDNAME=fanq-queue-9 FDSTOREREMOVE=1");
        store.keeper.await_line("ended 0");
        drop(store.keeper.child.stdin.take());
        let totals = store.keeper.wait().json()["totals"].clone();
        assert_eq!((number(&totals, "packets"), number(&totals, "flushed")), (60, 0), "{room}");
    }
}

#[test]
fn descriptors_that_are_none_of_its_queues_are_let_go() {
    let Some(site) = Site::new() else { return };
    let lines = "import fcntl, os, socket, sys
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))
high = [fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in [socket.socket(), netlink, netlink]]
for place, one in enumerate(high, 3): os.dup2(one, place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='4',
                  LISTEN_FDNAMES='fanq-queue-8:fanq-queue-9:fanq-queue-200')
os.execvp(sys.argv[1], sys.argv[1:])";
    let fanq = env!("CARGO_BIN_EXE_fanq");
    let words = ["python3", "-c", lines, fanq, "run", "--queues", "8-9"];
    let mut fanq = Fanq::new(site.space.command(&words).spawn().expect("python3 runs"));
    for reason in [
        "descriptor 6",
        "`fanq-queue-8` is not used: the descriptor given for queue 8 is no netlink socket",
        "`fanq-queue-9` is not used: queue 9 is bound by nobody",
        "`fanq-queue-200` is not used: the queues to be served are 8-9",
    ] {
        fanq.await_line(reason);
    }
    fanq.await_ready();
    assert_eq!(site.space.bound(), [8, 9]);
    fanq.stop("TERM");
}

#[test]
fn the_watchdog_hears_that_all_is_well() {
    let Some(site) = Site::new() else { return };
    let mut store = Store::new(&site, "");
    store.await_ready();
    for _ in 0..3 {
        store.keeper.await_line("told WATCHDOG=1");
    }
    store.end("TERM");
}

#[test]
fn the_watchdog_hears_that_all_is_well_while_large_rules_are_read() {
    let Some(site) = Site::new() else { return };
    let path = site.path("rules.toml");
    std::fs::write(&path, "").unwrap();
    let mut store = Store::new(&site, &format!("--policy {path}"));
    store.await_ready();
    // So many that they take as long as many a word to the watchdog.
    let rule = |n: u32| format!("[[rule]]\nname = 'r{n}'\npattern = '{n:020}'\naction = 'drop'\n");
    std::fs::write(&path, (0..RULES).map(rule).collect::<String>()).unwrap();
    store.signal("HUP");
    let mut told = 0;
    loop {
        let line = store.keeper.next_line("rules read again", PATIENCE);
        told += u32::from(line.contains("told WATCHDOG=1"));
        if line.contains("rules read again") {
            break;
        }
    }
    assert!(told >= 5, "{told} times in all that time");
    store.end("TERM");
}

#[test]
fn the_watchdog_hears_nothing_while_an_inspector_hangs() {
    let Some(site) = Site::new() else { return };
    let options = "--policy hang:3 --inspect-deadline 0.1 --on-fault accept";
    let mut store = Store::new(&site, options);
    store.await_ready();
    let traffic = Traffic::start(&site, "0");
    store.keeper.await_line("told WATCHDOG=1");
    // To one of the two queues three of them come.
    site.send(5);
    store.keeper.await_line("the inspector has not come back at packet 3");
    store.keeper.await_line(SILENT);
    let mut looks = 0;
    while looks < 6 {
        let line = store.keeper.next_line(SILENT, PATIENCE);
        assert!(!line.contains("WATCHDOG=1"), "after {looks} looks");
        looks += u32::from(line.contains(SILENT));
    }
    // What systemd does about it, and what comes of that.
    store.end("KILL");
    store.start();
    store.await_served();
    store.keeper.await_line("told WATCHDOG=1");
    store.end("TERM");
    drop(traffic);
}

/// Seconds of compiling.
const RULES: u32 = 5000;

const SILENT: &str = "told STATUS=no sign of life from the workers of these queues: ";
