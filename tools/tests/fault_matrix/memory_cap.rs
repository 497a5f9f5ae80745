//! A cap on the memory of a control group. There the kernel refuses nothing: it ends a process that touches too much.
//! So what serves must never come near to it by itself, and what ends must leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use space::skip;

/// A control group of one's own, for as long as this lives.
struct Capped {
    folder: PathBuf,
    names: &'static Names,
}

/// What the two kinds of control groups call the same.
struct Names {
    cap: &'static str,
    /// Memory and swap together, or swap alone; not everywhere there.
    swap: &'static str,
    peak: &'static str,
    events: &'static str,
}

const FIRST: Names = Names {
    cap: "memory.limit_in_bytes",
    swap: "memory.memsw.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};

const SECOND: Names = Names {
    cap: "memory.max",
    swap: "memory.swap.max",
    peak: "memory.peak",
    events: "memory.events",
};

impl Capped {
    /// None where the test is to be skipped.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let Some((parent, names)) = parent() else {
            skip("control groups that limit memory cannot be made here");
            return None;
        };
        let folder = parent.join(format!("fanq-test-{name}-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&folder) {
            skip(&format!("no control group can be made in {}: {error}", parent.display()));
            return None;
        }
        let capped = Self { folder, names };
        fs::write(capped.folder.join(names.cap), bytes.to_string()).expect("it takes a cap");
        let swap = if std::ptr::eq(names, &SECOND) { 0 } else { bytes };
        // Where swap is not counted there is no such file.
        let _ = fs::write(capped.folder.join(names.swap), swap.to_string());
        Some(capped)
    }

    /// Starts `fanq run` in it.
    fn start(&self, space: &Space, request: &str) -> Fanq {
        let members = self.folder.join("cgroup.procs");
        let members = members.to_str().expect("it is plain");
        space.start(&["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", members], request)
    }

    /// The most that it had. Kernels before 5.19 do not tell for the second kind.
    fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.names.peak)).ok()?.trim().parse().ok()
    }

    /// How many of its processes the kernel has ended for want of memory.
    fn killed(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join(self.names.events)).expect("it is told");
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed.and_then(|count| count.parse().ok()).expect("a number of kills")
    }
}

impl Drop for Capped {
    fn drop(&mut self) {
        // Its last process may be about to go.
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where one can be made: of the first kind below one's own, of the second below the root, as only that may have
/// processes beside groups.
fn parent() -> Option<(PathBuf, &'static Names)> {
    let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
    if first.join("cgroup.procs").exists() {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":memory:/"))?.1;
        let own = first.join(own);
        return Some((if own.exists() { own } else { first.to_owned() }, &FIRST));
    }
    let controllers = fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
    controllers.split_whitespace().any(|name| name == "memory").then(|| (second.into(), &SECOND))
}

#[test]
fn under_a_cap_memory_is_taken_for_packets_and_not_in_advance() {
    let Some(space) = Space::queued() else { return };
    let Some(capped) = Capped::new("serves", CAP) else { return };
    let mut ends = Ends::new(&space);
    // Four times 64 datagrams of a batch and 1024 that may be deferred: 290 MB of addresses.
    let request = USUAL.replace("--queues 9", "--queues 6-9") + " --inspect-threads 1 --fail-open";
    let mut fanq = capped.start(&space, &request);
    if let Some(ended) = fanq.ready_or_end() {
        panic!("status {:?}, {} killed: {}", ended.code, capped.killed(), ended.stderr);
    }
    let mut sent = 0;
    for _ in 0..20 {
        sent = ends.send(200);
        assert_eq!(ends.arrived(sent), sent);
    }
    let totals = fanq.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "id_gaps"), number(&totals, "uninspected")), (0, 0), "{totals}");
    assert_eq!(capped.killed(), 0);
    println!("at most {:?} bytes of {CAP}", capped.peak());
    assert!(capped.peak().is_none_or(|peak| peak < CAP / 2), "{:?}", capped.peak());
    settle(sent, &[("inspected and delivered", number(&totals, "packets"))]);
}

#[test]
fn a_cap_too_low_to_start_ends_it_and_binds_nothing() {
    let Some(space) = Space::queued() else { return };
    let Some(capped) = Capped::new("ends", TOO_LOW) else { return };
    let mut ends = Ends::new(&space);
    let mut fanq = capped.start(&space, USUAL);
    let ended = fanq.ready_or_end().expect("it cannot serve");
    // By the kernel, so it has no say.
    assert_eq!((ended.code, ended.stdout.as_str()), (None, ""), "{}", ended.stderr);
    assert_eq!(capped.killed(), 1);
    await_that("nothing is bound", || space.bound().is_empty());
    // What comes then meets a rule without a listener; the next start finds nothing in its way.
    let sent = ends.send(20);
    assert_eq!(ends.arrived(0), 0);
    let mut fanq = space.start(&[], USUAL);
    fanq.await_ready();
    let sent_later = ends.send(30) - sent;
    assert_eq!(ends.arrived(sent_later), sent_later);
    let totals = fanq.stop("TERM").json()["totals"].clone();
    let inspected = number(&totals, "packets");
    let dropped = rule_counted(&space) - inspected;
    settle(sent + sent_later, &[("inspected", inspected), ("dropped by the rule", dropped)]);
}

const CAP: u64 = 64 << 20;

/// Less than the program's own data.
const TOO_LOW: u64 = 1 << 20;
