//! A queue goes from one engine to the next, with what waits in it.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use fanq::{BoundQueue, BoundQueueError, Counts};

use super::*;

fn bound_queue(engine: &Engine) -> BoundQueue {
    engine.bound_queues().unwrap().remove(0)
}

/// Owns no queue.
fn bystander() -> OwnedFd {
    let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
    socket.bind_auto().unwrap();
    std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().unwrap()
}

#[test]
fn engine_after_engine_serves_a_queue_and_no_packet_is_lost_between_them() {
    let lab = Lab::new(60, "INPUT");
    let sink = Sink::new(&lab);
    let mut engine = Engine::builder().queues(lab.range()).start(ACCEPT).unwrap();
    let mut sent = 0;
    // No more than the sink has room for.
    for _ in 0..4 {
        lab.send(30, 64);
        let bound = bound_queue(&engine);
        let mut released = engine.release(Duration::MAX);
        assert!(released.failures.is_empty());
        let queue = released.queues.remove(0);
        // Nobody receives now.
        lab.send(30, 64);
        sent += 60;
        let bound = bound.served_up_to(queue.next_id.unwrap(), queue.stats.counts);
        let prepared = Engine::builder().queues(lab.range()).prepare(ACCEPT).unwrap();
        engine = prepared.adopt(vec![bound], Verdict::DROP).unwrap();
    }
    assert_eq!(sink.received(sent), sent);
    let counts = engine.shutdown(LIMIT).stats.totals();
    assert_eq!((counts.packets, counts.accepted), (sent, sent), "one account over all of them");
    assert_eq!((counts.id_gaps, counts.orphaned, counts.verdict_errors), (0, 0, 0));
    assert!(!queue_is_bound(60));
}

#[test]
fn without_word_from_the_one_before_nothing_unread_is_taken_for_an_orphan() {
    let lab = Lab::new(61, "INPUT");
    let first = Engine::builder().queues(lab.range()).start(ACCEPT).unwrap();
    // Packets come all the time, so they come at every moment of the taking over.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (sent, packets, engine) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) && sent < 1_000_000 {
                lab.send(8, 64);
                sent += 8;
                std::thread::sleep(Duration::from_micros(200));
            }
            sent
        });
        let (mut packets, mut engine) = (0, first);
        for _ in 0..50 {
            let bound = bound_queue(&engine);
            let released = engine.release(LIMIT);
            packets += released.queues[0].stats.counts.packets;
            let prepared = Engine::builder().queues(lab.range()).prepare(ACCEPT).unwrap();
            engine = prepared.adopt(vec![bound], Verdict::DROP).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), packets, engine)
    });
    let counts = engine.shutdown(LIMIT).stats.totals();
    assert_eq!((packets + counts.packets, counts.orphaned), (sent, 0));
    assert_eq!((counts.id_gaps, counts.verdict_errors), (0, 0));
}

#[test]
fn what_does_not_own_the_queue_is_refused() {
    let lab = Lab::new(62, "INPUT");
    let engine = Engine::builder().queues(lab.range()).start(ACCEPT).unwrap();
    let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    assert!(matches!(BoundQueue::check(62, udp), Err(BoundQueueError::NotNetfilter { .. })));
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    assert!(matches!(BoundQueue::check(62, file), Err(BoundQueueError::NotNetfilter { .. })));
    let error = BoundQueue::check(62, bystander()).unwrap_err();
    assert!(matches!(error, BoundQueueError::OthersQueue { .. }), "{error}");
    let error = BoundQueue::check(63, bystander()).unwrap_err();
    assert!(matches!(error, BoundQueueError::NobodysQueue { .. }), "{error}");

    let twice = vec![bound_queue(&engine), bound_queue(&engine)];
    let prepare =
        |queues: &str| Engine::builder().queues(queues.parse().unwrap()).prepare(ACCEPT).unwrap();
    let error = prepare("62").check(&twice).unwrap_err();
    assert!(matches!(error, StartError::NotOurQueue { queue: 62, .. }), "{error}");
    let error = prepare("63").check(&twice[..1]).unwrap_err();
    assert!(error.to_string().contains("name all of them"), "{error}");
    prepare("61-63").check(&twice[..1]).unwrap();
    drop(twice);

    // Nothing of that has touched it.
    let sink = Sink::new(&lab);
    lab.send(5, 64);
    assert_eq!(sink.received(5), 5);
    let counts = engine.shutdown(LIMIT).stats.totals();
    assert_eq!(counts, Counts { packets: 5, accepted: 5, ..counts.clone() });
    assert!(!queue_is_bound(62));
}

#[test]
fn a_worker_that_does_not_come_back_is_named_and_its_packets_are_orphans() {
    let lab = Lab::new(64, "INPUT");
    let sink = Sink::new(&lab);
    let stuck = |_| Constant { verdict: Verdict::ACCEPT, pause: Duration::from_secs(3) };
    let engine = Engine::builder().queues(lab.range()).start(stuck).unwrap();
    lab.send(1, 64);
    std::thread::sleep(Duration::from_millis(200));
    let bound = bound_queue(&engine);
    let released = engine.release(Duration::from_millis(100));
    assert!(matches!(released.failures[..], [WorkerError::NotBack { queue: 64 }]));
    assert_eq!(released.queues[0].next_id, None);
    let prepared = Engine::builder().queues(lab.range()).prepare(ACCEPT).unwrap();
    let engine = prepared.adopt(vec![bound], Verdict::ACCEPT).unwrap();
    assert_eq!(engine.stats().totals().orphaned, 1);
    lab.send(2, 64);
    assert_eq!(sink.received(3), 3);
    assert_eq!(engine.shutdown(LIMIT).stats.totals().packets, 2);
}
