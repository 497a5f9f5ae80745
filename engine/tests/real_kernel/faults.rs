//! Goal: what fails costs its own packets the policy that was chosen, is told of, and leaves every packet in the
//! account. Method: inspectors that panic, and that block until they are told to go on, on one of two queues.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};

use fanq::pipeline::Pipeline;
use fanq::{DeferralConfig, Deferred, Fate, FaultConfig, FaultReport, InspectDeadline, Placement};

use super::*;

/// What the failing queue's inspectors do, and what they are told.
#[derive(Default)]
struct Plan {
    /// The queue; others accept everything.
    queue: u16,
    panics_at: &'static [u32],
    blocks_at: Option<u32>,
    drops_below: u32,
    go_on: AtomicBool,
}

/// Decides by the plan.
struct Planned {
    queue: u16,
    plan: Arc<Plan>,
}

impl Inspector for Planned {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let (id, plan) = (packet.id().0, &self.plan);
        if self.queue != plan.queue {
            return Verdict::ACCEPT;
        }
        assert!(!plan.panics_at.contains(&id), "on purpose, at {id}");
        while plan.blocks_at == Some(id) && !plan.go_on.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if id < plan.drops_below { Verdict::DROP } else { Verdict::ACCEPT }
    }

    fn unseen(&mut self) -> Verdict {
        Verdict::ACCEPT
    }
}

/// Starts an engine on `first` and the queue behind it, of which `first` is the plan's.
fn start(first: u16, plan: &Arc<Plan>, fault: FaultConfig) -> Engine {
    let queues = fanq::QueueRange::new(first, first + 1).unwrap();
    let builder = Engine::builder().queues(queues).placement(Placement::None).fault(fault);
    let plan = Arc::clone(plan);
    builder.start(move |worker| Planned { queue: worker.queue, plan: Arc::clone(&plan) }).unwrap()
}

const ACCEPTING: FaultConfig =
    FaultConfig { on_fault: Fate::Accept, panics_max: 5, deadline: None };
const WATCHED: FaultConfig = FaultConfig {
    deadline: Some(InspectDeadline { limit: Duration::from_millis(100), required: true }),
    ..ACCEPTING
};

/// Waits until the engine tells of a fault that fits.
fn await_fault(engine: &mut Engine, fits: fn(&FaultReport) -> bool) -> FaultReport {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(report) = engine.take_faults().into_iter().find(fits) {
            return report;
        }
        engine.wait(Some(Duration::from_millis(50))).unwrap();
        assert!(Instant::now() < deadline, "no such report came");
    }
}

#[test]
fn a_panic_costs_its_queue_a_batch_and_the_other_queue_nothing() {
    for (queue, on_fault) in [(50, Fate::Accept), (52, Fate::Drop)] {
        let (lab, other) = (Lab::new(queue, "INPUT"), Lab::new(queue + 1, "INPUT"));
        let plan = Plan { queue, panics_at: &[20, 60], ..Plan::default() };
        let mut engine = start(queue, &Arc::new(plan), FaultConfig { on_fault, ..ACCEPTING });
        let (sink, other_sink) = (Sink::new(&lab), Sink::new(&other));
        for _ in 0..4 {
            lab.send(50, 64);
            other.send(50, 64);
        }
        let is_panic = |report: &FaultReport| matches!(report, FaultReport::Panicked { .. });
        let report = await_fault(&mut engine, is_panic);
        assert!(report.to_string().contains("on purpose, at"), "{report}");
        assert_eq!(other_sink.received(200), 200);
        let stopped = engine.shutdown(LIMIT);
        assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
        let [failing, well] = &stopped.stats.queues[..] else { panic!("two queues") };
        let counts = &failing.counts;
        // A panic may fall into the rest of a batch that an earlier one has cost: then it never happens.
        assert!((1..=2).contains(&counts.panics) && counts.faulted >= counts.panics, "{counts:?}");
        assert_eq!((counts.packets, counts.answered()), (200, 200));
        assert_eq!((counts.id_gaps, counts.verdict_errors, counts.flushed), (0, 0, 0));
        let dropped = if on_fault == Fate::Drop { counts.faulted } else { 0 };
        assert_eq!((counts.dropped, sink.received(200 - dropped)), (dropped, 200 - dropped));
        assert_eq!((well.counts.accepted, well.counts.faulted, well.counts.panics), (200, 0, 0));
        assert!(!queue_is_bound(queue));
    }
}

#[test]
fn after_so_many_panics_the_queue_stays_on_the_policy() {
    let lab = Lab::new(54, "INPUT");
    let plan = Plan { queue: 54, panics_at: &[1, 2, 3, 4, 5, 6, 7, 8, 9], ..Plan::default() };
    let fault = FaultConfig { panics_max: 1, ..ACCEPTING };
    let mut engine = start(54, &Arc::new(plan), fault);
    let sink = Sink::new(&lab);
    lab.send(100, 64);
    let gave_up = await_fault(&mut engine, |r| matches!(r, FaultReport::GaveUp { .. }));
    let expected = FaultReport::GaveUp { queue: 54, panics: 1, on_fault: Fate::Accept };
    assert_eq!(gave_up, expected);
    assert_eq!(sink.received(100), 100);
    let counts = engine.shutdown(LIMIT).stats.totals();
    assert_eq!((counts.panics, counts.faulted, counts.accepted), (1, 100, 100));
}

#[test]
fn a_stuck_inspectors_queue_is_answered_from_outside_until_it_is_back() {
    let (lab, other) = (Lab::new(56, "INPUT"), Lab::new(57, "INPUT"));
    let plan = Plan { queue: 56, blocks_at: Some(5), drops_below: 5, ..Plan::default() };
    let plan = Arc::new(plan);
    let mut engine = start(56, &plan, WATCHED);
    let (sink, other_sink) = (Sink::new(&lab), Sink::new(&other));
    lab.send(100, 64);
    let stuck = await_fault(&mut engine, |r| matches!(r, FaultReport::Stuck { .. }));
    let FaultReport::Stuck { queue: 56, packet: Some(packet), since, .. } = stuck else {
        panic!("{stuck:?}");
    };
    assert!(packet.0 == 5 && since >= Duration::from_millis(100), "{stuck}");
    assert_eq!(sink.received(96), 96, "all from the one that it hangs at on");
    // What comes now is answered as well, and the other queue serves on.
    lab.send(100, 64);
    other.send(50, 64);
    assert_eq!((sink.received(100), other_sink.received(50)), (100, 50));
    plan.go_on.store(true, Ordering::SeqCst);
    let resumed = await_fault(&mut engine, |r| matches!(r, FaultReport::Resumed { .. }));
    assert!(matches!(resumed, FaultReport::Resumed { answered: 196, .. }), "{resumed}");
    lab.send(10, 64);
    assert_eq!(sink.received(10), 10);
    let stopped = engine.shutdown(LIMIT);
    assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
    let counts = &stopped.stats.queues[0].counts;
    assert_eq!((counts.packets, counts.answered(), counts.hangs), (210, 210, 1), "{counts:?}");
    assert_eq!((counts.faulted, counts.dropped, counts.accepted), (196, 4, 206), "{counts:?}");
    assert_eq!((counts.id_gaps, counts.verdict_errors), (0, 0), "{counts:?}");
    let well = &stopped.stats.queues[1].counts;
    assert_eq!((well.accepted, well.faulted, well.hangs), (50, 0, 0));
}

#[test]
fn an_inspector_that_never_comes_back_does_not_keep_the_engine_from_stopping() {
    let lab = Lab::new(58, "INPUT");
    let plan = Arc::new(Plan { queue: 58, blocks_at: Some(5), ..Plan::default() });
    let mut engine = start(58, &plan, WATCHED);
    let sink = Sink::new(&lab);
    lab.send(100, 64);
    await_fault(&mut engine, |report| matches!(report, FaultReport::Stuck { .. }));
    let stopped = engine.shutdown(Duration::from_millis(100));
    let [WorkerError::Stuck { queue: 58, packet: Some(packet) }] = stopped.failures[..] else {
        panic!("{:?}", stopped.failures);
    };
    assert_eq!(packet.0, 5);
    assert_eq!(sink.received(100), 100, "what had been decided and not sent passed as well");
    let counts = &stopped.stats.queues[0].counts;
    assert_eq!((counts.packets, counts.answered(), counts.faulted), (100, 100, 96), "{counts:?}");
    assert!(!queue_is_bound(58) && !queue_is_bound(59));
    plan.go_on.store(true, Ordering::SeqCst);
}

#[test]
fn what_is_still_queued_at_the_end_gets_the_exit_policy() {
    for (queue, on_exit) in [(70, Fate::Accept), (71, Fate::Drop)] {
        let lab = Lab::new(queue, "INPUT");
        let builder = Engine::builder().queues(lab.range()).batch(4).on_exit(on_exit);
        let engine = builder.start(SLOW).unwrap();
        let sink = Sink::new(&lab);
        lab.send(200, 64);
        let counts = engine.shutdown(Duration::ZERO).stats.totals();
        assert!(counts.flushed > 0, "{counts:?}");
        assert_eq!(counts.accepted + counts.flushed, 200);
        let expected = if on_exit == Fate::Accept { 200 } else { counts.accepted };
        assert_eq!(sink.received(expected), expected);
        assert!(!queue_is_bound(queue));
    }
}

/// Takes CAP_NET_ADMIN from its own thread at the first packet.
struct GivesUpItsRight;

impl Inspector for GivesUpItsRight {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        Verdict::ACCEPT
    }
}

#[test]
fn a_worker_that_loses_its_right_ends_and_is_reported_and_its_queue_released() {
    let lab = Lab::new(72, "INPUT");
    let mut engine = Engine::builder().queues(lab.range()).start(|_| GivesUpItsRight).unwrap();
    lab.send(5, 64);
    let deadline = Instant::now() + LIMIT;
    while engine.wait(Some(LIMIT)).unwrap() != Event::WorkerEnded {
        assert!(Instant::now() < deadline, "the end of the worker went unnoticed");
    }
    // Nobody reads these; but nothing was lost for want of room.
    lab.send(5, 64);
    let stopped = engine.shutdown(LIMIT);
    assert_eq!(stopped.stats.totals().id_gaps, 0);
    assert!(matches!(stopped.failures[..], [WorkerError::CapabilityLost { queue: 72 }]));
    assert!(!queue_is_bound(72));
}

/// Does not come back from its first packet until it is told to.
struct Hanging(Arc<AtomicBool>);

impl Inspector for Hanging {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        while !self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Verdict::ACCEPT
    }
}

/// One thread inspects, and may be behind by 48 packets and by 20 ms.
fn start_hanging(lab: &Lab, go_on: &Arc<AtomicBool>) -> Engine {
    let theirs = Arc::clone(go_on);
    let pipeline = Pipeline::new(1, move |_, _| Hanging(Arc::clone(&theirs)));
    let pipeline = pipeline.fallback(Verdict::ACCEPT);
    let (outstanding_max, deadline) = (64, Duration::from_millis(20));
    let deferral = DeferralConfig { outstanding_max, deadline, ..DeferralConfig::default() };
    let builder = Engine::builder().queues(lab.range()).batch(16).deferral(deferral).fault(WATCHED);
    builder.start(move |worker| pipeline.spread(worker)).unwrap()
}

#[test]
fn a_thread_that_hangs_with_all_that_may_be_deferred_is_told_of_and_its_queue_answered() {
    let lab = Lab::new(73, "INPUT");
    let go_on = Arc::default();
    let mut engine = start_hanging(&lab, &go_on);
    let sink = Sink::new(&lab);
    lab.send(200, 64);
    let stuck = await_fault(&mut engine, |r| matches!(r, FaultReport::Stuck { .. }));
    assert!(matches!(stuck, FaultReport::Stuck { queue: 73, packet: None, .. }), "{stuck}");
    assert_eq!(sink.received(200), 200);
    go_on.store(true, Ordering::SeqCst);
    await_fault(&mut engine, |r| matches!(r, FaultReport::Resumed { .. }));
    lab.send(10, 64);
    assert_eq!(sink.received(10), 10);
    let stopped = engine.shutdown(LIMIT);
    assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
    let counts = stopped.stats.totals();
    assert_eq!((counts.packets, counts.answered(), counts.hangs), (210, 210, 1), "{counts:?}");
    assert_eq!((counts.id_gaps, counts.verdict_errors), (0, 0), "{counts:?}");
    assert!(counts.overdue >= 49 && counts.faulted >= 100, "{counts:?}");
}

#[test]
fn a_thread_that_never_comes_back_keeps_no_engine_from_stopping_and_no_packet_from_the_account() {
    let lab = Lab::new(74, "INPUT");
    let go_on = Arc::default();
    for limit in [Duration::ZERO, Duration::from_millis(300)] {
        let mut engine = start_hanging(&lab, &go_on);
        let sink = Sink::new(&lab);
        lab.send(100, 64);
        await_fault(&mut engine, |report| matches!(report, FaultReport::Stuck { .. }));
        lab.send(100, 64);
        let stopped = engine.shutdown(limit);
        assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
        let counts = stopped.stats.totals();
        assert_eq!((counts.packets + counts.flushed, counts.id_gaps), (200, 0), "{counts:?}");
        assert_eq!(sink.received(200), 200);
        assert!(!queue_is_bound(74));
    }
    go_on.store(true, Ordering::SeqCst);
}

/// Gives every handle to the test.
struct HandOver(Sender<Deferred>);

impl Inspector for HandOver {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.send(packet.defer().unwrap()).unwrap();
        Verdict::ACCEPT
    }
}

#[test]
fn a_handle_that_is_kept_does_not_keep_the_queue_bound() {
    let lab = Lab::new(75, "INPUT");
    let (sender, handles) = channel();
    let builder = Engine::builder().queues(lab.range()).deferral(DeferralConfig::default());
    let engine = builder.start(move |_| HandOver(sender.clone())).unwrap();
    lab.send(1, 64);
    let kept = handles.recv_timeout(LIMIT).unwrap();
    let stopped = engine.shutdown(Duration::ZERO);
    assert!(!queue_is_bound(75));
    assert!(!kept.answer(Verdict::ACCEPT) && stopped.late_answers() == 1);
}
