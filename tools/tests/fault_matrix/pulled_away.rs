//! Rules, devices and namespaces that go away under packets that wait: the kernel drops these by itself, and refuses
//! the verdicts that come for them.
//!
//! With batches of one each verdict is a message of its own, so each refusal is a packet.

use super::*;

#[test]
fn deleting_a_base_chain_of_others_throws_away_what_waits_and_emptying_it_does_not() {
    let Some(space) = Space::queued() else { return };
    space.shell(
        "nft add table ip others
         nft 'add chain ip others c { type filter hook input priority 10; policy accept; }'
         nft add rule ip others c counter",
    );
    let mut ends = Ends::new(&space);
    let mut fanq = space.start(&[], &format!("{USUAL} --batch 1"));
    fanq.await_ready();
    freeze(&fanq);
    ends.send(20);
    await_waiting(&space, 20);
    space.shell("nft flush chain ip others c");
    await_waiting(&space, 20);
    space.shell("nft delete chain ip others c");
    await_waiting(&space, 0);
    thaw(&fanq);
    let sent = ends.send(30);
    let arrived = ends.arrived(30);
    let totals = fanq.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "packets"), number(&totals, "id_gaps")), (sent, 0), "{totals}");
    assert_eq!(number(&totals, "verdict_errors"), gone(&totals), "{totals}");
    settle(sent, &[("inspected and delivered", arrived), ("flushed", gone(&totals))]);
}

/// The namespace of the queue, and another whose packets come to it by a device.
struct Joined {
    inner: Space,
    outer: Space,
}

impl Joined {
    fn new() -> Option<Self> {
        let (inner, outer) = (Space::queued()?, Space::new()?);
        inner.shell(&format!(
            "ip link add inner0 type veth peer name outer0 netns {}
             ip address add 10.7.7.1/24 dev inner0; ip link set inner0 up",
            outer.id()
        ));
        outer.shell(
            "ip link set lo up; ip address add 10.7.7.2/24 dev outer0; ip link set outer0 up",
        );
        let joined = Self { inner, outer };
        joined.await_up();
        Some(joined)
    }

    /// Before that the kernel throws away what is sent.
    fn await_up(&self) {
        for (space, device) in [(&self.inner, "inner0"), (&self.outer, "outer0")] {
            space.shell(&format!(
                "until ip link show {device} | grep -q 'state UP'; do sleep 0.02; done"
            ));
        }
    }
}

#[test]
fn a_device_that_goes_takes_its_own_packets_and_no_others() {
    let Some(joined) = Joined::new() else { return };
    let Joined { inner, outer } = &joined;
    let (mut local, mut remote) = (Ends::new(inner), Ends::new(outer));
    let mut fanq = inner.start(&[], &format!("{USUAL} --batch 1"));
    fanq.await_ready();
    let (mut sent, mut arrived) = (0, 0);
    for (end, of_the_device) in [("ip link set inner0 down", 10), ("ip link del inner0", 6)] {
        // That there is a way is seen from what comes by it.
        remote.send_to(7, "10.7.7.1");
        arrived += 7;
        assert_eq!(local.arrived(arrived), arrived);
        freeze(&fanq);
        remote.send_to(of_the_device, "10.7.7.1");
        local.send(5);
        await_waiting(inner, of_the_device + 5);
        inner.shell(end);
        await_waiting(inner, 5);
        thaw(&fanq);
        arrived += 5;
        assert_eq!(local.arrived(arrived), arrived);
        sent += 7 + of_the_device + 5;
        if end.ends_with("down") {
            inner.shell("ip link set inner0 up");
            joined.await_up();
        }
    }
    let totals = fanq.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "packets"), number(&totals, "id_gaps")), (sent, 0), "{totals}");
    assert_eq!(number(&totals, "verdict_errors"), gone(&totals), "{totals}");
    settle(sent, &[("inspected and delivered", arrived), ("flushed", gone(&totals))]);
}

#[test]
fn a_namespace_that_is_deleted_lives_until_the_program_ends_and_leaves_no_device() {
    let Some(Joined { inner, outer }) = Joined::new() else { return };
    let mut remote = Ends::new(&outer);
    let mut fanq = inner.start(&[], USUAL);
    fanq.await_ready();
    remote.send_to(20, "10.7.7.1");
    await_that("they come", || inner.row(QUEUE).is_some_and(|row| row.ids_given == 20));
    // As `ip netns del` does, this takes away all that held the namespace but the program that serves in it.
    drop(inner);
    let sent = remote.send_to(20, "10.7.7.1");
    let ended = fanq.stop("TERM");
    let totals = ended.json()["totals"].clone();
    assert_eq!(number(&totals, "accepted"), sent, "{totals}");
    settle(sent, &[("inspected and delivered", number(&totals, "packets"))]);
    outer.shell("while ip link show outer0 2>/dev/null >&2; do sleep 0.02; done");
}
