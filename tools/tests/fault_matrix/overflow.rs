//! Nobody who listens, no room in the socket, no room in the queue, and an end without a farewell.

use super::*;

/// A namespace with a rule like this, of root or of a user who is root nowhere else.
fn with_rule(of_a_user: bool, bypass: &str) -> Option<Space> {
    let space = if of_a_user { Space::of_a_user()? } else { Space::new()? };
    space.shell(&format!(
        "ip link set lo up
         iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-num {QUEUE} {bypass}"
    ));
    Some(space)
}

#[test]
fn without_a_listener_the_rule_decides_alone() {
    for (of_a_user, bypass, passes) in
        [(false, "", 0), (false, "--queue-bypass", 20), (true, "", 0), (true, "--queue-bypass", 20)]
    {
        let Some(space) = with_rule(of_a_user, bypass) else { return };
        let mut ends = Ends::new(&space);
        let sent = ends.send(20);
        let arrived = ends.arrived(passes);
        assert_eq!(arrived, passes, "{bypass}");
        let dropped = rule_counted(&space) - arrived;
        settle(sent, &[("passed", arrived), ("dropped by the rule", dropped)]);
    }
}

#[test]
fn under_bypass_and_fail_open_starts_and_stops_lose_nothing() {
    let Some(space) = with_rule(false, "--queue-bypass") else { return };
    let mut ends = Ends::new(&space);
    assert_eq!(ends.ask("stream 2000 127.0.0.1"), "streaming");
    let mut inspected = 0;
    for _ in 0..8 {
        let mut fanq = space.start(&[], &format!("{USUAL} --fail-open"));
        fanq.await_ready();
        await_that("packets come", || space.row(QUEUE).is_some_and(|row| row.ids_given > 20));
        let totals = fanq.stop("TERM").json()["totals"].clone();
        for none in ["id_gaps", "flushed", "verdict_errors", "dropped"] {
            assert_eq!(number(&totals, none), 0, "{none} in {totals}");
        }
        assert_eq!(number(&totals["kernel"], "queue_dropped"), 0, "{totals}");
        inspected += number(&totals, "packets");
    }
    let sent = total(&ends.ask("halt"));
    assert_eq!((ends.arrived(sent), rule_counted(&space)), (sent, sent));
    assert!(inspected > 160, "{inspected}");
    settle(sent, &[("inspected", inspected), ("passed without a listener", sent - inspected)]);
}

#[test]
fn what_overflows_the_socket_of_a_stopped_program_is_counted_and_afterwards_nothing_is_lost() {
    let Some(space) = with_rule(false, "") else { return };
    let mut ends = Ends::new(&space);
    let mut fanq = space.start(&[], &format!("{USUAL} --rcvbuf 64KiB"));
    fanq.await_ready();
    freeze(&fanq);
    ends.send(2000);
    let overflown = space.row(QUEUE).expect("it is bound").user_dropped;
    assert!(overflown > 1000, "{overflown}");
    thaw(&fanq);
    await_waiting(&space, 0);
    let sent = ends.send(50);
    assert_eq!(ends.arrived(sent - overflown), sent - overflown);
    let totals = fanq.stop("TERM").json()["totals"].clone();
    let (packets, gaps) = (number(&totals, "packets"), number(&totals, "id_gaps"));
    assert_eq!((gaps, number(&totals["kernel"], "user_dropped")), (overflown, overflown));
    assert_eq!(number(&totals, "uninspected"), 0);
    settle(sent, &[("inspected and delivered", packets), ("lost in the socket", gaps)]);
}

#[test]
fn what_a_full_queue_has_no_room_for_passes_or_is_dropped_as_asked_and_takes_no_id() {
    for (of_a_user, fail_open) in [(false, true), (false, false), (true, true)] {
        let Some(space) = with_rule(of_a_user, "") else { return };
        let mut ends = Ends::new(&space);
        let request = format!("{USUAL} --queue-maxlen 8 --fail-open={fail_open}");
        let mut fanq = space.start(&[], &request);
        fanq.await_ready();
        freeze(&fanq);
        let sent = ends.send(12);
        let unseen = if fail_open { 4 } else { 0 };
        assert_eq!(ends.arrived(unseen), unseen, "what passes need not wait for the program");
        await_waiting(&space, 8);
        thaw(&fanq);
        let arrived = ends.arrived(8 + unseen);
        let row = space.row(QUEUE).expect("it is bound");
        assert_eq!((arrived, row.ids_given, row.queue_dropped), (8 + unseen, 8, 4 - unseen));
        // The kernel leaves no other trace of what passed than the rule's counter.
        let passed = rule_counted(&space) - row.ids_given - row.queue_dropped;
        let account = fanq.stop("TERM").json();
        let told = account["queue_full_passed"].as_u64();
        assert_eq!(told, fail_open.then_some(passed), "{account}");
        let totals = &account["totals"];
        assert_eq!((number(totals, "packets"), number(totals, "id_gaps")), (8, 0), "{totals}");
        let lost = number(&totals["kernel"], "queue_dropped");
        settle(sent, &[("inspected", 8), ("passed unseen", passed), ("lost in the queue", lost)]);
    }
}

#[test]
fn killed_without_a_keeper_it_takes_what_waits_with_it_even_under_bypass() {
    let Some(space) = with_rule(false, "--queue-bypass") else { return };
    let mut ends = Ends::new(&space);
    let mut fanq = space.start(&[], USUAL);
    fanq.await_ready();
    ends.send(10);
    assert_eq!(ends.arrived(10), 10);
    freeze(&fanq);
    ends.send(50);
    await_waiting(&space, 50);
    fanq.signal("KILL");
    assert_eq!(fanq.end().code, None);
    await_that("the queue is gone", || space.bound().is_empty());
    let sent = ends.send(30);
    let arrived = ends.arrived(40);
    assert_eq!((arrived, rule_counted(&space)), (40, sent));
    settle(
        sent,
        &[("inspected", 10), ("passed without a listener", 30), ("gone with the queue", 50)],
    );
}
