//! The running kernel: a rule that nobody reads is found, who reads it is named, and who hangs.
//!
//! Needs root, `unshare`, `nsenter`, `iptables` and `nft`. Without root it prints SKIPPED, or fails if CI is set.

use std::time::Instant;

use serde_json::Value;

use crate::space::{PATIENCE, Space};
use crate::turned;

fn look(space: &Space) -> (Value, i32) {
    let output = space.command(&[env!("CARGO_BIN_EXE_fanq"), "doctor", "--json"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (report, output.status.code().unwrap())
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"))
}

#[test]
fn a_rule_without_a_program_its_owner_and_one_that_hangs() {
    let Some(space) = Space::new() else { return };
    let (report, _) = look(&space);
    assert_eq!(report["posture"], Value::Array(vec![]), "nothing is queued: {report:#}");
    assert!(!turned(&report).iter().any(|one| one.starts_with("queue")), "{report:#}");

    space.shell(
        "ip link set lo up; iptables -A INPUT -p udp -j NFQUEUE --queue-balance 20:21 --queue-cpu-fanout",
    );
    let (report, status) = look(&space);
    assert_eq!(status, 2);
    let served = check(&report, "queue-served");
    assert_eq!(
        (&served["status"], &served["mend"][0]),
        (&"fail".into(), &"fanq run --queues 20-21".into())
    );
    assert_eq!(report["posture"][0]["packets"], "dropped");

    let mut fanq = space.start(&[], "--queues 20-21 --placement none");
    fanq.await_ready();
    let (report, _) = look(&space);
    assert_eq!(check(&report, "queue-served")["status"], "ok", "{report:#}");
    assert_eq!(check(&report, "queue-fed")["status"], "ok", "{report:#}");
    let owner = check(&report, "queue-owner")["evidence"][0].as_str().unwrap();
    assert_eq!(owner, format!("queues 20-21: process {} (fanq)", fanq.child.id()));
    assert_eq!(check(&report, "counters-answered")["status"], "ok", "{report:#}");
    assert_eq!(check(&report, "cpus-workers")["status"], "warn", "not pinned: {report:#}");

    fanq.signal("STOP");
    let until = Instant::now() + PATIENCE;
    loop {
        // Until the signal has come to all threads, some are answered.
        space.shell("for i in 1 2 3 4 5; do echo x >/dev/udp/127.0.0.1/9000; done");
        let (report, status) = look(&space);
        if check(&report, "counters-answered")["status"] == "fail" {
            assert_eq!(status, 2);
            break;
        }
        assert!(Instant::now() < until, "{report:#}");
    }
    fanq.signal("CONT");
    fanq.stop("TERM");
}
