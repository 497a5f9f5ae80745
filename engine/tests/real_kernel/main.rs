//! Goal: the engine on a running kernel keeps its promises, packet by packet. Method: rules on the loopback of a
//! network namespace that the caller made (scripts/test.sh netns), UDP through them, and an account of each packet.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod faults;
mod lab;
mod succession;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fanq::{
    CopyRange, Engine, Event, Inspector, KernelTable, Packet, QueueError, StartError, Verdict,
    WorkerError,
};
use lab::{Lab, Sink};

/// Gives every packet the same verdict, after a pause.
struct Constant {
    verdict: Verdict,
    pause: Duration,
}

impl Inspector for Constant {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        std::thread::sleep(self.pause);
        self.verdict
    }

    fn unseen(&mut self) -> Verdict {
        self.verdict
    }
}

const ACCEPT: fn(fanq::WorkerInfo) -> Constant =
    |_| Constant { verdict: Verdict::ACCEPT, pause: Duration::ZERO };
const DROP: fn(fanq::WorkerInfo) -> Constant =
    |_| Constant { verdict: Verdict::DROP, pause: Duration::ZERO };
const SLOW: fn(fanq::WorkerInfo) -> Constant =
    |_| Constant { verdict: Verdict::ACCEPT, pause: Duration::from_millis(2) };

const LIMIT: Duration = Duration::from_secs(10);

/// Whether it stays bound: a child that another test starts holds every descriptor of this process until it executes.
fn queue_is_bound(queue: u16) -> bool {
    let table = KernelTable::open().unwrap();
    let until = Instant::now() + Duration::from_secs(1);
    while table.row(queue).unwrap().is_some() {
        if Instant::now() > until {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

#[test]
fn accepted_packets_are_delivered_and_dropped_ones_are_not() {
    for (queue, make, delivered) in [(10, ACCEPT, 200), (11, DROP, 0)] {
        let lab = Lab::new(queue, "INPUT");
        let engine = Engine::builder().queues(lab.range()).start(make).unwrap();
        let sink = Sink::new(&lab);
        lab.send(200, 64);
        assert_eq!(sink.received(delivered), delivered);
        let stopped = engine.shutdown(LIMIT);
        assert!(stopped.failures.is_empty());
        let counts = stopped.stats.totals();
        assert_eq!(
            (counts.packets, counts.accepted, counts.dropped),
            (200, delivered, 200 - delivered)
        );
        assert_eq!(counts.bytes, 200 * (20 + 8 + 64));
        assert_eq!(counts.hooks[1], 200, "all at the input hook");
        assert_eq!((counts.id_gaps, counts.verdict_errors, counts.flushed), (0, 0, 0));
        assert!(!queue_is_bound(queue));
    }
}

#[test]
fn the_kernels_row_stands_beside_the_workers_counters() {
    let lab = Lab::new(12, "INPUT");
    let engine = Engine::builder().queues(lab.range()).start(ACCEPT).unwrap();
    let sink = Sink::new(&lab);
    lab.send(5, 64);
    assert_eq!(sink.received(5), 5);
    let stats = engine.stats();
    let kernel = stats.queues[0].kernel.unwrap();
    assert_eq!((kernel.queue, kernel.id_sequence), (12, 5));
    assert_eq!(stats.totals().packets, 5);
}

#[test]
fn a_shutdown_answers_what_is_queued() {
    let lab = Lab::new(13, "INPUT");
    let engine = Engine::builder().queues(lab.range()).start(SLOW).unwrap();
    let sink = Sink::new(&lab);
    lab.send(200, 64);
    let stopped = engine.shutdown(LIMIT);
    let counts = stopped.stats.totals();
    assert_eq!((counts.accepted, counts.flushed), (200, 0));
    assert_eq!(sink.received(200), 200);
    assert!(!queue_is_bound(13));
}

#[test]
fn a_shutdown_without_time_flushes_what_is_left_and_counts_it() {
    let lab = Lab::new(14, "INPUT");
    let engine = Engine::builder().queues(lab.range()).batch(4).start(SLOW).unwrap();
    let sink = Sink::new(&lab);
    lab.send(200, 64);
    let counts = engine.shutdown(Duration::ZERO).stats.totals();
    assert!(counts.flushed > 0, "{counts:?}");
    assert_eq!(counts.accepted + counts.flushed, 200);
    assert_eq!(sink.received(200), 200, "the flush gave the inspector's verdict, accept");
    assert!(!queue_is_bound(14));
}

#[test]
fn a_taken_queue_is_named_with_its_owner_and_the_others_are_released() {
    let lab = Lab::new(22, "INPUT");
    let owner = Engine::builder().queues(lab.range()).start(ACCEPT).unwrap();
    let error = Engine::builder().queues("20-23".parse().unwrap()).start(ACCEPT).unwrap_err();
    let StartError::Queue(QueueError::Taken { queue: 22, owner: found }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(found.process.as_ref().map(|(pid, _)| *pid), Some(std::process::id()));
    assert!(error.to_string().contains("--queues"), "{error}");
    assert!(
        !queue_is_bound(20) && !queue_is_bound(21) && queue_is_bound(22) && !queue_is_bound(23)
    );
    drop(owner);
    assert!(!queue_is_bound(22));
}

#[test]
fn a_full_socket_loses_in_the_open_and_fail_open_lets_pass_and_counts() {
    for (queue, fail_open) in [(15, false), (16, true)] {
        let lab = Lab::new(queue, "INPUT");
        let builder = Engine::builder().queues(lab.range()).rcvbuf(4096).fail_open(fail_open);
        let engine = builder.start(SLOW).unwrap();
        let sink = Sink::new(&lab);
        lab.send(200, 64);
        let stopped = engine.shutdown(LIMIT);
        let counts = stopped.stats.totals();
        let kernel = stopped.stats.queues[0].kernel.unwrap();
        assert!(counts.id_gaps > 0, "nothing overflowed: {counts:?}");
        assert_eq!(counts.packets + counts.id_gaps, 200);
        if fail_open {
            assert_eq!((counts.uninspected, kernel.user_dropped), (counts.id_gaps, 0));
            assert_eq!(sink.received(200), 200);
        } else {
            assert_eq!((counts.uninspected, kernel.user_dropped), (0, counts.id_gaps));
            assert_eq!(sink.received(counts.packets), counts.packets);
        }
    }
}

#[test]
fn a_full_queue_is_counted_by_the_kernel() {
    let lab = Lab::new(17, "INPUT");
    let engine =
        Engine::builder().queues(lab.range()).queue_maxlen(8).batch(1).start(SLOW).unwrap();
    lab.send(100, 64);
    let stopped = engine.shutdown(LIMIT);
    let kernel = stopped.stats.queues[0].kernel.unwrap();
    assert!(kernel.queue_dropped > 0);
    assert_eq!(stopped.stats.totals().packets + kernel.queue_dropped, 100);
}

/// Notes what it saw of the last packet: captured and original length.
struct Lengths(Arc<AtomicU32>, Arc<AtomicU32>);

impl Inspector for Lengths {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.store(u32::try_from(packet.payload().len()).unwrap(), Ordering::SeqCst);
        self.1.store(packet.length(), Ordering::SeqCst);
        Verdict::ACCEPT
    }
}

#[test]
fn copy_ranges_cut_and_tell_the_whole_length() {
    let whole = 20 + 8 + 1000;
    let ranges = [(CopyRange::Full, whole), (CopyRange::Bytes(60), 60), (CopyRange::Meta, 0)];
    for (range, captured) in ranges {
        let lab = Lab::new(18, "INPUT");
        let (seen, length) = (Arc::new(AtomicU32::new(9)), Arc::new(AtomicU32::new(9)));
        let (seen_too, length_too) = (Arc::clone(&seen), Arc::clone(&length));
        let make = move |_| Lengths(Arc::clone(&seen_too), Arc::clone(&length_too));
        let engine = Engine::builder().queues(lab.range()).copy_range(range).start(make).unwrap();
        let sink = Sink::new(&lab);
        lab.send(1, 1000);
        assert_eq!(sink.received(1), 1);
        drop(engine);
        assert_eq!(seen.load(Ordering::SeqCst), captured, "{range:?}");
        let expected = if range == CopyRange::Meta { 0 } else { whole };
        assert_eq!(length.load(Ordering::SeqCst), expected, "{range:?}");
    }
}

#[test]
fn a_verdict_can_set_the_mark() {
    // The queue is in the mangle table; a rule of the filter table behind it drops what is marked.
    let lab = Lab::new(19, "mangle");
    lab.drop_marked(7);
    let make = |_| Constant { verdict: Verdict::ACCEPT.with_mark(7), pause: Duration::ZERO };
    let engine = Engine::builder().queues(lab.range()).start(make).unwrap();
    let sink = Sink::new(&lab);
    lab.send(10, 64);
    assert_eq!(sink.received(0), 0);
    let counts = engine.shutdown(LIMIT).stats.totals();
    assert_eq!((counts.accepted, counts.marked), (10, 10));
}

/// Gives all capabilities of its thread up while it looks at its third packet.
struct LosesCapability(u32);

impl Inspector for LosesCapability {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        self.0 += 1;
        if self.0 == 3 {
            let none = rustix::thread::CapabilitySet::empty();
            let sets = rustix::thread::CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            };
            rustix::thread::set_capabilities(None, sets).unwrap();
        }
        Verdict::ACCEPT
    }
}

#[test]
fn a_worker_that_loses_the_capability_ends_and_says_so() {
    let lab = Lab::new(29, "INPUT");
    let builder = Engine::builder().queues(lab.range()).batch(1);
    let mut engine = builder.start(|_| LosesCapability(0)).unwrap();
    let sink = Sink::new(&lab);
    lab.send(10, 64);
    assert_eq!(sink.received(2), 2);
    let deadline = Instant::now() + LIMIT;
    while engine.wait(Some(LIMIT)).unwrap() != Event::WorkerEnded {
        assert!(Instant::now() < deadline, "the end of the worker went unnoticed");
    }
    let stopped = engine.shutdown(LIMIT);
    let [failure @ WorkerError::CapabilityLost { queue: 29 }] = &stopped.failures[..] else {
        panic!("{:?}", stopped.failures)
    };
    assert!(failure.to_string().contains("CAP_NET_ADMIN"), "{failure}");
    assert!(stopped.stats.totals().verdict_errors > 0);
    assert!(!queue_is_bound(29));
}

#[test]
fn an_interrupter_ends_the_wait() {
    let mut engine = Engine::builder().queues("25".parse().unwrap()).start(ACCEPT).unwrap();
    let interrupter = engine.interrupter();
    let thread = std::thread::spawn(move || interrupter.interrupt().unwrap());
    assert_eq!(engine.wait(Some(LIMIT)).unwrap(), Event::Interrupted);
    thread.join().unwrap();
    assert_eq!(engine.wait(Some(Duration::from_millis(1))).unwrap(), Event::TimedOut);
}

#[test]
fn a_panic_while_making_inspectors_binds_nothing() {
    let make = |_| -> Constant { panic!("on purpose") };
    let error = Engine::builder().queues("26-27".parse().unwrap()).start(make).unwrap_err();
    assert!(matches!(error, StartError::InspectorPanicked { queue: 26 }), "{error:?}");
    assert!(!queue_is_bound(26) && !queue_is_bound(27));
}

#[test]
fn spinning_workers_serve_and_stop() {
    let lab = Lab::new(28, "INPUT");
    let wait = fanq::Wait::Spin(Duration::from_micros(200));
    let engine = Engine::builder().queues(lab.range()).wait(wait).gso(true).start(ACCEPT).unwrap();
    let sink = Sink::new(&lab);
    lab.send(50, 64);
    assert_eq!(sink.received(50), 50);
    assert_eq!(engine.shutdown(LIMIT).stats.totals().accepted, 50);
}
