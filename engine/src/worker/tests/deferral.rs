//! Goal: a deferred packet gets its answer or its fallback, once, whatever the order and whoever is late. Method: an
//! inspector that keeps handles and answers them at random while it sees other packets; answers from real threads; the
//! simulated kernel applies what the worker sends.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::{Mutex, mpsc};

use proptest::prelude::*;

use super::*;
use crate::deferral::{Answers, DeferralConfig, Deferred, WhenFull};
use crate::edits::RewriteError;
use crate::queue::WeakQueueWaker;

const FALLBACK: u32 = 4; // NF_REPEAT, which no answer gives

pub(super) fn gate(config: DeferralConfig) -> (Gate, Arc<Answers>) {
    let answers = Arc::new(Answers::new(WeakQueueWaker::of_nobody(), config.outstanding_max));
    (Gate::new(Arc::clone(&answers), config, 64), answers)
}

pub(super) fn patient(outstanding_max: usize, when_full: WhenFull) -> DeferralConfig {
    DeferralConfig { outstanding_max, deadline: Duration::from_secs(600), when_full }
}

/// What to do when one packet comes.
#[derive(Debug, Clone, Copy)]
struct Move {
    defer: bool,
    /// Answers so many of those held, from this place on.
    answer: usize,
    from: usize,
    /// Drops one instead.
    forget: bool,
}

/// Plays moves, one a packet, and notes which verdict each packet is to get.
struct Player<'a> {
    moves: std::vec::IntoIter<Move>,
    held: Vec<Deferred>,
    expected: &'a Mutex<BTreeMap<u32, u32>>,
}

impl Player<'_> {
    /// Even ids are accepted, odd ones dropped.
    fn code(id: u32) -> (Verdict, u32) {
        if id.is_multiple_of(2) { (Verdict::ACCEPT, 1) } else { (Verdict::DROP, 0) }
    }

    fn answer(&mut self, deferred: Deferred) {
        let (verdict, code) = Self::code(deferred.id().0);
        self.expected.lock().unwrap().insert(deferred.id().0, code);
        assert_eq!(deferred.payload(), [0x45; 40]);
        assert!(deferred.answer(verdict));
    }
}

impl Inspector for Player<'_> {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let id = packet.id().0;
        let step = self.moves.next();
        for _ in 0..step.map_or(0, |step| step.answer.min(self.held.len())) {
            let place = step.map_or(0, |step| step.from) % self.held.len();
            let deferred = self.held.remove(place);
            self.answer(deferred);
        }
        if step.is_some_and(|step| step.forget) && !self.held.is_empty() {
            let forgotten = self.held.remove(0);
            self.expected.lock().unwrap().insert(forgotten.id().0, FALLBACK);
        }
        if step.is_some_and(|step| step.defer)
            && let Ok(deferred) = packet.defer()
        {
            assert!(packet.defer().is_err(), "one handle a packet");
            self.held.push(deferred);
            return Verdict::REPEAT;
        }
        let (verdict, code) = Self::code(id);
        self.expected.lock().unwrap().insert(id, code);
        verdict
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = (any::<bool>(), 0..3_usize, any::<usize>(), prop::bool::weighted(0.05));
    let step = step.prop_map(|(defer, answer, from, forget)| Move { defer, answer, from, forget });
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn every_deferred_packet_gets_its_answer_or_its_fallback(
        moves in moves(),
        batches in prop::collection::vec(1..30_u32, 1..30),
        outstanding_max in 64..100_usize,
        releases: bool,
    ) {
        let expected = Mutex::new(BTreeMap::new());
        let player = Player { moves: moves.into_iter(), held: Vec::new(), expected: &expected };
        let script = batches.iter().map(|count| Step::Packets(*count));
        let (gate, _) = gate(patient(outstanding_max, WhenFull::Refuse));
        let (result, kernel, shared) =
            run_deferring(player, Some(gate), script, false, |kernel| {
                kernel.stop_limit = Duration::from_millis(20);
                kernel.releases = releases;
            });
        result.unwrap();
        prop_assert_eq!(kernel.gate_shut, !releases);
        prop_assert!(kernel.waiting.is_empty());
        let packets: u32 = batches.iter().sum();
        prop_assert_eq!(kernel.verdicts.len(), packets as usize);
        for (id, code) in &kernel.verdicts {
            // What was never answered got the fallback in the end.
            let expected = expected.lock().unwrap().get(id).copied().unwrap_or(FALLBACK);
            prop_assert_eq!(*code, expected, "packet {}", id);
        }
        let counts = shared.counters.snapshot();
        prop_assert_eq!(counts.answered(), u64::from(packets));
        prop_assert_eq!(counts.repeated, counts.unanswered + counts.overdue);
        prop_assert_eq!(counts.verdict_errors, 0);
    }
}

/// Hands every packet to another thread.
struct HandOver(mpsc::Sender<Deferred>);

impl Inspector for HandOver {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.send(packet.defer().unwrap()).unwrap();
        Verdict::REPEAT
    }

    fn rewrite_refused(&mut self, error: RewriteError, verdict: Verdict) -> Verdict {
        assert_eq!(verdict, Verdict::ACCEPT);
        assert_eq!(error, RewriteError::TooShort { new: 1, needed: 20 });
        Verdict::DROP
    }
}

#[test]
fn other_threads_answer_rewrite_and_are_waited_for() {
    let (sender, receiver) = mpsc::channel::<Deferred>();
    let (gate, answers) = gate(patient(64, WhenFull::Wait));
    let other = std::thread::spawn(move || {
        for mut deferred in receiver {
            match deferred.id().0 % 4 {
                0 => deferred.payload_mut().unwrap()[0] = 0x46,
                1 => deferred.replace(&[0x45; 50]).unwrap(),
                2 => assert!(deferred.replace(&[0x45; 1]).is_err()),
                _ => assert_eq!(deferred.message().id(), deferred.id()),
            }
            deferred.answer(Verdict::ACCEPT);
        }
    });
    let script = (0..20).map(|_| Step::Packets(60));
    let (result, kernel, shared) =
        run_deferring(HandOver(sender), Some(gate), script, false, |_| {});
    result.unwrap();
    other.join().unwrap();
    assert!(kernel.waiting.is_empty());
    let counts = shared.counters.snapshot();
    assert_eq!((counts.deferred, counts.accepted, counts.dropped), (1200, 900, 300));
    assert_eq!((counts.rewritten, counts.rewrites_refused), (600, 300));
    assert_eq!((counts.unanswered, counts.overdue, counts.late_answers), (0, 0, 0));
    let mut changed = vec![0x45; 40];
    changed[0] = 0x46;
    assert!(
        kernel.rewritten.iter().all(|(id, bytes)| *bytes
            == if id.is_multiple_of(4) { changed.clone() } else { vec![0x45; 50] })
    );
    assert_eq!(answers.late(), 0);
}

#[test]
fn an_answer_after_the_deadline_changes_nothing_and_is_counted() {
    struct Late(Option<Deferred>);
    impl Inspector for Late {
        fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
            match self.0.take() {
                None => self.0 = Some(packet.defer().unwrap()),
                Some(deferred) => {
                    std::thread::sleep(Duration::from_millis(5));
                    assert!(deferred.answer(Verdict::DROP), "the engine still runs");
                }
            }
            Verdict::ACCEPT
        }
    }
    let config = DeferralConfig { deadline: Duration::from_millis(1), ..DeferralConfig::default() };
    // The second packet comes in a batch of its own; its sleep makes the first overdue at the next turn at the
    // latest. The answer and the deadline then meet in one turn: answers go first. So a third turn is needed.
    let script = [Step::Packets(1), Step::Packets(0), Step::Packets(1), Step::Packets(0)];
    let (gate, _) = gate(config);
    let (result, kernel, shared) = run_deferring(Late(None), Some(gate), script, false, |kernel| {
        kernel.pause_on_wait = Duration::from_millis(5);
    });
    result.unwrap();
    assert_eq!(kernel.verdicts.get(&1), Some(&1), "the fallback");
    let counts = shared.counters.snapshot();
    assert_eq!((counts.deferred, counts.overdue, counts.late_answers), (1, 1, 1));
}

#[test]
fn handles_that_outlive_the_worker_are_late() {
    struct Keep<'a>(&'a Mutex<Vec<Deferred>>);
    impl Inspector for Keep<'_> {
        fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
            self.0.lock().unwrap().push(packet.defer().unwrap());
            Verdict::DROP
        }
    }
    let kept = Mutex::new(Vec::new());
    let (gate, answers) = gate(patient(128, WhenFull::Wait));
    let (result, kernel, shared) =
        run_deferring(Keep(&kept), Some(gate), [Step::Packets(3)], false, |kernel| {
            kernel.stop_limit = Duration::from_millis(1);
        });
    result.unwrap();
    assert_eq!(kernel.verdicts.len(), 3, "each got its fallback");
    assert_eq!(shared.counters.snapshot().overdue, 3);
    let mut kept = kept.into_inner().unwrap();
    assert!(!kept.pop().unwrap().answer(Verdict::ACCEPT));
    drop(kept);
    assert_eq!(answers.late(), 3);
}

#[test]
fn without_a_gate_nothing_is_deferred() {
    struct Try;
    impl Inspector for Try {
        fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
            assert!(matches!(packet.defer(), Err(crate::DeferError::NotConfigured)));
            Verdict::ACCEPT
        }
    }
    let (result, kernel, _) = run_with(Try, [Step::Packets(3)], false, |_| {});
    result.unwrap();
    assert_eq!(kernel.verdicts.len(), 3);
}

/// Others have packets 1 and 2 for longer than they may, and give them back when packet 3 comes.
struct TooLate(Vec<Deferred>);

impl Inspector for TooLate {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if packet.id().0 < 3 {
            self.0.push(packet.defer().unwrap());
        } else if let Some(mut refused) = self.0.pop() {
            assert!(refused.replace(&[0x45; 1]).is_err());
            refused.answer(Verdict::DROP);
            self.0.clear();
        }
        Verdict::ACCEPT
    }

    fn rewrite_refused(&mut self, error: RewriteError, _: Verdict) -> Verdict {
        panic!("asked about a packet that has its verdict: {error}")
    }
}

#[test]
fn a_handle_that_comes_back_after_its_deadline_is_late_and_nothing_else() {
    let config = DeferralConfig { deadline: Duration::ZERO, ..DeferralConfig::default() };
    let (gate, _) = gate(config);
    let script = [Step::Packets(2), Step::Packets(0), Step::Packets(1), Step::Packets(0)];
    let (result, _, shared) = run_deferring(TooLate(Vec::new()), Some(gate), script, false, |_| {});
    result.unwrap();
    let counts = shared.counters.snapshot();
    assert_eq!((counts.deferred, counts.overdue, counts.late_answers), (2, 2, 2));
    assert_eq!((counts.unanswered, counts.rewrites_refused, counts.accepted), (0, 0, 3));
}

/// Rewrites 1, which is deferred, and 3, which is not, to as much as a verdict carries; keeps 2.
struct Large(Option<Deferred>);

impl Inspector for Large {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let large = vec![0x45; 65_531];
        match packet.id().0 {
            1 => {
                let mut deferred = packet.defer().unwrap();
                deferred.replace(&large).unwrap();
                deferred.answer(Verdict::ACCEPT);
            }
            2 => self.0 = Some(packet.defer().unwrap()),
            _ => packet.replace(&large).unwrap(),
        }
        Verdict::ACCEPT
    }

    /// So nothing is sent between answers and packets.
    fn awaits_answers(&self) -> bool {
        true
    }
}

#[test]
fn an_answer_and_a_packet_of_one_turn_may_both_be_as_large_as_can_be() {
    let (gate, _) = gate(patient(256, WhenFull::Wait));
    let script = [Step::Packets(2), Step::Packets(1)];
    let (result, kernel, _) = run_deferring(Large(None), Some(gate), script, false, |kernel| {
        kernel.stop_limit = Duration::from_millis(1);
    });
    result.unwrap();
    let rewritten: Vec<_> = kernel.rewritten.iter().map(|(id, to)| (*id, to.len())).collect();
    assert_eq!(rewritten, [(1, 65_531), (3, 65_531)]);
}

/// Keeps every packet.
struct Keeping(Rc<RefCell<Vec<Deferred>>>);

impl Inspector for Keeping {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.borrow_mut().push(packet.defer().unwrap());
        Verdict::DROP
    }
}

#[test]
fn a_worker_that_waits_for_handles_past_their_deadline_shows_no_life_until_one_is_back() {
    for (deadline, alive) in [(Duration::ZERO, false), (Duration::from_secs(600), true)] {
        let kept = Rc::<RefCell<Vec<Deferred>>>::default();
        let beats = Rc::<RefCell<Vec<u64>>>::default();
        let shared: Rc<OnceCell<Arc<WorkerShared>>> = Rc::default();
        let (mut gate, _) = gate(DeferralConfig { deadline, ..patient(64, WhenFull::Wait) });
        let (theirs, seen, beating) = (Rc::clone(&kept), Rc::clone(&beats), Rc::clone(&shared));
        while_waiting(&mut gate, move || {
            seen.borrow_mut().push(beating.get().unwrap().heartbeat.beat());
            if seen.borrow().len() >= 4 {
                theirs.borrow_mut().drain(..).for_each(|one| assert!(one.answer(Verdict::ACCEPT)));
            }
        });
        let script = [Step::Packets(64), Step::Packets(3)];
        let (result, kernel, _) =
            run_deferring(Keeping(kept), Some(gate), script, false, |kernel| {
                shared.set(Arc::clone(&kernel.shared)).unwrap();
            });
        result.unwrap();
        assert_eq!(kernel.verdicts.len(), 67, "it went on when they were back");
        let beats = &beats.borrow()[..4];
        assert!(beats.windows(2).all(|pair| (pair[0] != pair[1]) == alive), "{beats:?}");
    }
}

/// Keeps every packet and says that all who might answer are busy, until it was asked three times; then it answers.
struct Busy {
    held: RefCell<Vec<Deferred>>,
    asked: Cell<u32>,
    /// How often it was asked before the packet came.
    asked_before: Arc<Mutex<BTreeMap<u32, u32>>>,
}

impl Inspector for Busy {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.held.borrow_mut().push(packet.defer().unwrap());
        self.asked_before.lock().unwrap().insert(packet.id().0, self.asked.get());
        Verdict::DROP
    }

    fn awaits_answers(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() == 3 {
            for deferred in self.held.borrow_mut().drain(..) {
                deferred.answer(Verdict::ACCEPT);
            }
        }
        true
    }
}

#[test]
fn while_all_who_answer_are_busy_the_worker_takes_what_there_is_and_then_waits_for_them() {
    let asked_before = Arc::default();
    let busy = Busy {
        held: RefCell::default(),
        asked: Cell::default(),
        asked_before: Arc::clone(&asked_before),
    };
    let (gate, _) = gate(patient(512, WhenFull::Wait));
    // The first receive is a full batch, so more may wait; the second leaves nothing behind.
    let script = [Step::Packets(64), Step::Packets(2), Step::Packets(5)];
    let (result, kernel, _) = run_deferring(busy, Some(gate), script, false, |kernel| {
        kernel.stop_limit = Duration::from_millis(1);
    });
    result.unwrap();
    let asked_before = asked_before.lock().unwrap();
    assert_eq!([1, 65].map(|id| asked_before[&id]), [0, 1], "more waited, and was taken");
    assert!(asked_before[&67] >= 3, "nothing waited: {}", asked_before[&67]);
    let accepted = |id: u32| kernel.verdicts[&id] == 1;
    assert!((1..=66).all(accepted) && !(67..=71).any(accepted), "{:?}", kernel.verdicts);
}
