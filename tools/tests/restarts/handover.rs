//! Handover between processes that wish each other well.

use serde_json::Value;

use super::{Site, Traffic, number};
use crate::space::Space;

#[test]
fn many_handovers_lose_and_double_nothing_and_leave_one_account() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let traffic = Traffic::start(&site, "2000");
    for _ in 0..12 {
        let mut next = site.space.start(&[], &site.request(""));
        let taken = next.await_line("handover: process");
        assert!(taken.contains("left 2 queues"), "{taken}");
        next.await_ready();
        let ended = fanq.end();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains("serves the queues"), "{}", ended.stderr);
        fanq = next;
    }
    let arrived = traffic.stop();
    let totals = fanq.stop("TERM").json()["totals"].clone();
    let sent = number(&arrived, "sent");
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    assert_eq!((number(&totals, "packets"), number(&totals, "accepted")), (sent, sent));
    for none in ["id_gaps", "verdict_errors", "orphaned", "flushed", "malformed"] {
        assert_eq!(number(&totals, none), 0, "{none} in {totals}");
    }
    assert!(site.space.bound().is_empty());
    assert_eq!(std::fs::read_dir(site.folder.path()).unwrap().count(), 0, "a socket is left");
}

#[test]
fn what_waits_goes_over_and_what_others_hold_is_answered_first() {
    let Some(site) = Site::new() else { return };
    // Each packet takes 5 ms in a thread behind the worker, so packets are deferred when the order comes.
    let slow = "--work-ns 5000000 --inspect-threads 1 --batch 16";
    let mut first = site.space.start(&[], &site.request(slow));
    first.await_ready();
    site.send(60);
    let mut next = site.space.start(&[], &site.request(""));
    next.await_ready();
    assert_eq!(first.end().code, Some(0));
    let totals = next.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "packets"), number(&totals, "accepted")), (60, 60), "{totals}");
    assert!(number(&totals, "deferred") > 0, "{totals}");
    assert_eq!((number(&totals, "overdue"), number(&totals, "orphaned")), (0, 0), "{totals}");
}

#[test]
fn the_next_one_may_serve_more_queues_with_other_settings_but_not_fewer() {
    let Some(site) = Site::new() else { return };
    let mut first = site.space.start(&[], &site.request(""));
    first.await_ready();
    let fewer = site.request("").replace("8-9", "9");
    let refused = site.space.run(&[], &fewer);
    refused.assert_refused(1, &["queue 8 is bound already", "name all of them"], &fewer);
    first.await_line("the queues stay here");
    let more =
        site.request("--fail-open --copy-range 64 --queue-maxlen 100").replace("8-9", "7-10");
    let mut next = site.space.start(&[], &more);
    assert!(next.await_ready().contains("queues 7-10 bound"));
    assert_eq!(first.end().code, Some(0));
    assert_eq!(site.space.bound(), [7, 8, 9, 10]);
    site.send(5);
    next.signal("TERM");
    let ended = next.end();
    assert_eq!(number(&ended.json()["totals"], "packets"), 5);
}

#[test]
fn whatever_descriptor_the_next_one_lacks_the_first_one_serves_on() {
    let Some(site) = Site::new() else { return };
    let mut first = site.space.start(&[], &site.request(""));
    first.await_ready();
    let traffic = Traffic::start(&site, "2000");
    let mut taken_back = 0;
    let mut limits = 12..100;
    let next = loop {
        let limit = format!("--nofile={0}:{0}", limits.next().expect("so many are enough"));
        let mut next = site.space.start(&["prlimit", &limit], &site.request(""));
        let Some(ended) = next.ready_or_end() else { break next };
        assert_eq!(ended.code, Some(1), "{limit}: {}", ended.stderr);
        if ended.stderr.contains("handover: process") {
            taken_back += 1;
            first.await_line("they are served here again");
            first.await_ready();
        }
    };
    assert!(taken_back > 0, "none came as far as to take the queues");
    assert_eq!(first.end().code, Some(0));
    let arrived = traffic.stop();
    let sent = number(&arrived, "sent");
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    next.stop("TERM");
}

#[test]
fn a_control_socket_at_a_path_goes_over_with_the_queues() {
    let Some(site) = Site::new() else { return };
    let path = site.path("control");
    let request = site.request(&format!("--control {path}"));
    let served_by = || {
        let fanq = env!("CARGO_BIN_EXE_fanq");
        let words = ["timeout", "20", fanq, "control", "--socket", &path, "statistics"];
        let output = site.space.command(&words).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).expect("somebody answers");
        number(&answer, "pid")
    };
    let mut fanq = site.space.start(&[], &request);
    fanq.await_ready();
    for _ in 0..2 {
        assert_eq!(served_by(), u64::from(fanq.child.id()));
        let mut next = site.space.start(&[], &request);
        next.await_ready();
        let ended = fanq.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        fanq = next;
    }
    assert_eq!(served_by(), u64::from(fanq.child.id()));
    // One that fails leaves it where it is.
    let fewer = request.replace("8-9", "9");
    site.space.run(&[], &fewer).assert_refused(1, &["queue 8 is bound already"], &fewer);
    assert_eq!(served_by(), u64::from(fanq.child.id()));
    fanq.stop("TERM");
    assert_eq!(std::fs::read_dir(site.folder.path()).unwrap().count(), 0, "a socket is left");
}

#[test]
fn without_a_predecessor_it_starts_as_ever_also_over_what_a_dead_one_left() {
    let Some(site) = Site::new() else { return };
    for _ in 0..2 {
        let mut fanq = site.space.start(&[], &site.request(""));
        fanq.await_ready();
        fanq.signal("KILL");
        fanq.end();
        assert!(site.space.bound().is_empty());
        assert_eq!(std::fs::read_dir(site.folder.path()).unwrap().count(), 1, "the dead one's");
    }
    let file = site.path("file");
    std::fs::write(&file, "not a socket").unwrap();
    let request = format!("--queues 8-9 --handover {file}");
    site.space.run(&[], &request).assert_refused(2, &["is no socket"], &request);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a socket");
    let far = site.path(&"x".repeat(100));
    let request = format!("--queues 8-9 --handover {far}");
    assert_eq!(site.space.run(&[], &request).code, Some(1));
    assert!(site.space.bound().is_empty());
}

#[test]
fn queues_of_another_namespace_are_not_taken() {
    let (Some(site), Some(elsewhere)) = (Site::new(), Space::new()) else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let request = site.request("");
    elsewhere.run(&[], &request).assert_refused(1, &["in this network namespace"], &request);
    fanq.await_line("handover refused, the queues stay here");
    site.send(3);
    assert_eq!(number(&fanq.stop("TERM").json()["totals"], "packets"), 3);
}
