//! An inspector that is too slow, and a machine that has too little memory.

use super::*;

/// Resident memory of the program.
fn resident_kib(fanq: &Fanq) -> u64 {
    let path = format!("/proc/{}/status", fanq.child.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.expect("its memory is told")
}

#[test]
fn a_slow_inspector_costs_what_the_queue_has_no_room_for_and_no_memory() {
    let Some(space) = Space::queued() else { return };
    let mut ends = Ends::new(&space);
    let request = format!("{USUAL} --queue-maxlen 64 --batch 16 --work-ns 1000000");
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    // Whatever memory it ever touches it has touched now.
    ends.send(64);
    await_waiting(&space, 0);
    let before = resident_kib(&fanq);
    let (mut sent, mut deepest) = (0, 0);
    for _ in 0..40 {
        sent = ends.send(100);
        deepest = deepest.max(space.row(QUEUE).expect("it is bound").waiting);
    }
    await_waiting(&space, 0);
    let after = resident_kib(&fanq);
    assert!((1..=64).contains(&deepest), "{deepest} waited");
    assert!(after <= before + 256, "{before} KiB before, {after} KiB after");
    let row = space.row(QUEUE).expect("it is bound");
    let arrived = ends.arrived(sent - row.queue_dropped);
    let totals = fanq.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "packets"), number(&totals, "id_gaps")), (arrived, 0), "{totals}");
    let lost = number(&totals["kernel"], "queue_dropped");
    assert!(lost > 1000, "{totals}");
    settle(sent, &[("inspected and delivered", arrived), ("lost in the queue", lost)]);
}

#[test]
fn too_little_memory_refuses_the_start_and_what_has_started_serves() {
    let Some(space) = Space::queued() else { return };
    let mut ends = Ends::new(&space);
    let (mut refused, mut told, mut sent) = (0, 0, 0);
    for mib in [8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024] {
        let limit = format!("--as={}", mib << 20);
        let wrapper = ["prlimit", &limit];
        let mut fanq = space.start(&wrapper, &format!("{USUAL} --fail-open --inspect-threads 1"));
        let end = fanq.ready_or_end();
        if let Some(ended) = end {
            refused += 1;
            told += u32::from(ended.stderr.contains("no memory to receive into"));
            assert_ne!(ended.code, Some(0), "{mib} MiB: {}", ended.stderr);
            assert!(space.bound().is_empty(), "{mib} MiB");
            continue;
        }
        sent = ends.send(200);
        assert_eq!(ends.arrived(sent), sent, "{mib} MiB");
        let totals = fanq.stop("TERM").json()["totals"].clone();
        assert_eq!((number(&totals, "packets"), number(&totals, "id_gaps")), (200, 0), "{totals}");
    }
    // The least of them leave no room for the program's libraries, or for its threads, which is told by others.
    assert!(told >= 3 && sent > 0, "{told} of {refused} refused starts said why, {sent} sent");
    settle(sent, &[("inspected and delivered", ends.arrived(sent))]);
}
