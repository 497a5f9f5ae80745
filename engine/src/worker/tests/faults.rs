//! Goal: a panic costs its batch's unanswered packets the `on_fault` verdict and nothing else, and is told of once.
//! Method: inspectors that panic by plan, before the simulated kernel. (They unwind without the panic hook, which would
//! only print.) Hangs are in `simulation`.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::deferral::{gate, patient};
use super::*;
use crate::deferral::{Answers, DeferralConfig, Deferred, WhenFull};
use crate::edits::RewriteError;
use crate::fault::{FaultConfig, FaultReport, FaultReports};
use crate::queue::WeakQueueWaker;

/// Accepts odd packets and drops even ones, and panics at those in its list; deferred are those in the other.
struct Plan<'a> {
    panics: &'a [u32],
    defers: &'a [u32],
    held: &'a Mutex<Vec<Deferred>>,
    in_batch_end: bool,
}

impl Inspector for Plan<'_> {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let id = packet.id().0;
        if self.defers.contains(&id) {
            self.held.lock().unwrap().push(packet.defer().unwrap());
        }
        if self.panics.contains(&id) {
            resume_unwind(Box::new(format!("packet {id}")));
        }
        if self.defers.contains(&id) {
            return Verdict::REPEAT;
        }
        if id.is_multiple_of(2) { Verdict::DROP } else { Verdict::ACCEPT }
    }

    fn batch_end(&mut self, _now: Timestamp) {
        for deferred in self.held.lock().unwrap().drain(..) {
            deferred.answer(Verdict::STOP);
        }
        if self.in_batch_end {
            resume_unwind(Box::new("at the end"));
        }
    }
}

struct Played {
    kernel: SimulatedKernel,
    counts: crate::Counts,
    reports: Vec<FaultReport>,
    made: u32,
}

/// Runs a worker over the script with inspectors after this plan; the n-th is made by `make(n)`, the first is 0.
fn play<I: Inspector>(
    config: FaultConfig,
    gate: Option<Gate>,
    script: Vec<Step>,
    make: impl Fn(u32) -> I,
) -> Played {
    let poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
    let reports = Arc::new(FaultReports::new(Arc::new(waker)));
    let shared = Arc::new(WorkerShared::new(false));
    let kernel = SimulatedKernel::new(&shared, script);
    let mut engine = EngineConfig::new("3".parse().unwrap());
    engine.fault = config;
    let count = AtomicU32::new(0);
    let next = || make(count.fetch_add(1, Ordering::SeqCst));
    let worker = Worker::new(QUEUE, kernel, next(), Wait::Block, Arc::clone(&shared), gate);
    let recovery = Recovery::new(config, Arc::clone(&reports));
    let (kernel, _, result) = run_guarded(worker.watching(&engine), recovery, next);
    result.unwrap();
    assert!(kernel.waiting.is_empty(), "{:?} wait", kernel.waiting);
    let counts = shared.snapshot();
    assert_eq!(counts.answered(), counts.packets, "{counts:?}");
    Played { kernel, counts, reports: reports.take(), made: count.into_inner() }
}

const ACCEPTING: FaultConfig =
    FaultConfig { on_fault: Fate::Accept, panics_max: 5, deadline: None };

fn panicked(packet: Option<u32>, message: &str) -> FaultReport {
    let (packet, message) = (packet.map(PacketId), message.to_owned());
    FaultReport::Panicked { queue: QUEUE, packet, message }
}

#[test]
fn a_panic_costs_the_rest_of_its_batch_and_no_more() {
    for (on_fault, code) in [(Fate::Accept, 1), (Fate::Drop, 0)] {
        let held = Mutex::default();
        let plan = |_| Plan { panics: &[14], defers: &[], held: &held, in_batch_end: false };
        let script = vec![Step::Packets(10), Step::Packets(10), Step::Packets(10)];
        let played = play(FaultConfig { on_fault, ..ACCEPTING }, None, script, plan);
        assert_eq!(played.kernel.verdicts.len(), 30);
        for (id, given) in &played.kernel.verdicts {
            let expected = if (14..=20).contains(id) { code } else { id % 2 };
            assert_eq!(*given, expected, "packet {id}");
        }
        assert_eq!((played.counts.faulted, played.counts.panics, played.made), (7, 1, 2));
        assert_eq!(played.reports, [panicked(Some(14), "packet 14")]);
        assert_eq!((played.counts.id_gaps, played.counts.verdict_errors), (0, 0));
    }
}

#[test]
fn deferred_packets_keep_their_answers_whoever_panics() {
    let held = Mutex::default();
    // 12 is deferred and panicked at: it has no fallback yet, and its answer comes late.
    let plan = |_| Plan { panics: &[12], defers: &[3, 11, 12], held: &held, in_batch_end: false };
    let script = vec![Step::Packets(5), Step::Packets(10), Step::Packets(3)];
    let deferral =
        DeferralConfig { deadline: Duration::from_secs(600), ..DeferralConfig::default() };
    let answers = Arc::new(Answers::new(WeakQueueWaker::of_nobody(), deferral.outstanding_max));
    let gate = Gate::new(answers, deferral, 64);
    let played = play(ACCEPTING, Some(gate), script, plan);
    for (id, given) in &played.kernel.verdicts {
        let expected = match id {
            3 | 11 => 5, // NF_STOP, the answer
            12..=15 => 1,
            id => id % 2,
        };
        assert_eq!(*given, expected, "packet {id}");
    }
    let counts = played.counts;
    assert_eq!((counts.deferred, counts.faulted, counts.late_answers), (2, 4, 1));
}

/// Others answer every packet with a rewrite that is refused; at one of these it panics.
struct Asked<'a>(&'a Mutex<Vec<Deferred>>);

impl Inspector for Asked<'_> {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.lock().unwrap().push(packet.defer().unwrap());
        Verdict::DROP
    }

    fn batch_end(&mut self, _now: Timestamp) {
        for mut deferred in self.0.lock().unwrap().drain(..) {
            assert!(deferred.replace(&[0x45; 1]).is_err());
            let id = deferred.id().0;
            deferred.answer(Verdict::STOP.with_mark(id));
        }
    }

    fn rewrite_refused(&mut self, _error: RewriteError, verdict: Verdict) -> Verdict {
        if verdict.mark() == Some(3) {
            resume_unwind(Box::new("at an answer"));
        }
        verdict
    }
}

#[test]
fn a_panic_at_one_answer_costs_its_packet_and_no_other() {
    let held = Mutex::default();
    let (gate, _) = gate(patient(128, WhenFull::Wait));
    let script = vec![Step::Packets(6), Step::Packets(2)];
    let played = play(ACCEPTING, Some(gate), script, |_| Asked(&held));
    for (id, given) in &played.kernel.verdicts {
        assert_eq!(*given, if *id == 3 { 1 } else { 5 }, "packet {id}");
    }
    let counts = &played.counts;
    assert_eq!((counts.packets, counts.faulted, counts.rewrites_refused), (8, 1, 8));
    assert_eq!((counts.unanswered, counts.overdue, counts.late_answers), (0, 0, 0));
    assert_eq!(played.reports, [panicked(Some(3), "at an answer")]);
}

#[test]
fn after_so_many_panics_there_is_no_new_inspector() {
    let held = Mutex::default();
    let plan = |_| Plan { panics: &[2, 7, 12], defers: &[], held: &held, in_batch_end: false };
    let script = (0..6).map(|_| Step::Packets(5)).collect();
    let played = play(FaultConfig { panics_max: 3, ..ACCEPTING }, None, script, plan);
    assert_eq!((played.counts.panics, played.made), (3, 3));
    assert!(played.kernel.verdicts.range(12..).all(|(_, code)| *code == 1), "all accepted");
    assert_eq!(played.counts.faulted, 4 + 4 + 19);
    let gave_up = FaultReport::GaveUp { queue: QUEUE, panics: 3, on_fault: Fate::Accept };
    assert_eq!(played.reports.len(), 4);
    assert_eq!(played.reports.last(), Some(&gave_up));
}

#[test]
fn an_inspector_that_cannot_be_made_anew_is_given_up() {
    let held = Mutex::default();
    let plan = |made: u32| {
        if made > 0 {
            resume_unwind(Box::new("no more"));
        }
        Plan { panics: &[2], defers: &[], held: &held, in_batch_end: false }
    };
    let played = play(ACCEPTING, None, vec![Step::Packets(3), Step::Packets(3)], plan);
    assert_eq!(played.kernel.verdicts.values().sum::<u32>(), 6, "all accepted");
    let gave_up = FaultReport::GaveUp { queue: QUEUE, panics: 2, on_fault: Fate::Accept };
    let expected = [panicked(Some(2), "packet 2"), panicked(None, "no more"), gave_up];
    assert_eq!(played.reports, expected);
}

#[test]
fn a_panic_between_batches_costs_no_packet() {
    let held = Mutex::default();
    let plan = |made| Plan { panics: &[], defers: &[], held: &held, in_batch_end: made == 0 };
    let played = play(ACCEPTING, None, vec![Step::Packets(4), Step::Packets(4)], plan);
    assert!(played.kernel.verdicts.iter().all(|(id, code)| *code == id % 2));
    assert_eq!((played.counts.faulted, played.counts.panics), (0, 1));
    assert_eq!(played.reports, [panicked(None, "at the end")]);
}

#[test]
fn what_there_is_no_time_for_gets_the_exit_policy() {
    for (on_exit, code) in [(Some(Fate::Accept), 1), (Some(Fate::Drop), 0), (None, 0)] {
        let shared = Arc::new(WorkerShared::new(false));
        let mut kernel = SimulatedKernel::new(&shared, [Step::Packets(2)]);
        kernel.stop_limit = Duration::ZERO;
        kernel.batch = 2;
        for _ in 0..7 {
            let message = kernel.queue_packet();
            kernel.delivered.push_back(message);
        }
        let mut config = EngineConfig::new("3".parse().unwrap());
        config.on_exit = on_exit;
        let inspector = Thirds { batches: 0 };
        let worker = Worker::new(QUEUE, kernel, inspector, Wait::Block, Arc::clone(&shared), None);
        let mut worker = worker.watching(&config);
        worker.run().unwrap();
        let (kernel, _) = worker.into_parts();
        let counts = shared.snapshot();
        assert_eq!(counts.packets + counts.flushed, 9);
        assert!(counts.flushed >= 3 && kernel.waiting.is_empty(), "{counts:?}");
        let flushed = kernel.verdicts.range(u32::try_from(counts.packets).unwrap() + 1..);
        assert!(
            flushed.clone().all(|(_, given)| *given == code),
            "{on_exit:?}: {:?}",
            kernel.verdicts
        );
    }
}
