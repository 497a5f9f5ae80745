//! Goal: whatever the kernel, the inspector and chance do together, each packet gets one verdict, its own or that of
//! the policy that covers it, and stands in the account once. Method: thousands of random schedules, each grown from
//! one number: bursts, short batches, a small queue and a small socket, interrupted and overrun receives, sends without
//! memory, stale and broken messages, ids that wrap, rulesets that are reloaded; inspectors that defer, panic, and do
//! not come back while the watchdog looks. All of it in one thread, so that a number plays the same every time.
//!
//! `FANQ_SEED=number cargo test -p fanq --lib random_schedules` plays one schedule again, `FANQ_SEEDS=count` so many.

mod chance;
mod kernel;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::*;
use crate::deferral::{Answers, DeferralConfig, Deferred, WhenFull};
use crate::fault::{FaultConfig, FaultReports};
use crate::overload::Shed;
use crate::queue::QueueWaker;
use crate::watchdog::{WatchdogConfig, Watched};
use chance::Chance;
use kernel::{Kernel, Outcome, SimulatedPort};

type Dog = Rc<RefCell<Option<Watched<SimulatedPort>>>>;

/// What all parts of a schedule share.
#[derive(Clone)]
struct World {
    chance: Rc<RefCell<Chance>>,
    kernel: Rc<RefCell<Kernel>>,
    dog: Dog,
    held: Rc<RefCell<Vec<Deferred>>>,
    traits: Traits,
}

/// What a schedule has in it, in chances of a thousand.
#[derive(Debug, Clone, Copy)]
struct Traits {
    panics: u32,
    hangs: u32,
    stops: u32,
    defers: u32,
    shed: Shed,
    stop_at_once: bool,
}

impl Traits {
    fn draw(chance: &mut Chance) -> Self {
        let mut maybe = |per_mille: u32| if chance.hits(400) { per_mille } else { 0 };
        let (panics, hangs, mut stops) = (maybe(15), maybe(15), maybe(60));
        let defers = maybe(250);
        let shed = match chance.below(4) {
            0 if defers == 0 => Shed::Accept,
            1 if defers == 0 => Shed::Drop,
            _ => Shed::Not,
        };
        if shed != Shed::Not {
            // A worker that is stopped while it discards what it shed: those would be counted as answered from outside.
            stops = 0;
        }
        Self { panics, hangs, stops, defers, shed, stop_at_once: chance.hits(300) }
    }
}

/// Decides by chance, and tells the kernel's side what it decided.
struct Fickle(World);

impl Inspector for Fickle {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let World { chance, kernel, held, traits, .. } = &self.0;
        let id = packet.id().0;
        let hits = |per_mille| chance.borrow_mut().hits(per_mille);
        // A worker that may not receive before answers come would wait for ever.
        while hits(200) || held.borrow().len() > HELD_MAX {
            self.0.answer_one();
        }
        let deferred = if hits(traits.defers) { packet.defer().ok() } else { None };
        let is_deferred = deferred.is_some();
        // Who has it also has it after a panic, or the panic drops it.
        let kept = if hits(500) {
            deferred
        } else {
            held.borrow_mut().extend(deferred);
            None
        };
        if hits(traits.hangs) {
            self.0.hang();
        }
        if hits(traits.panics) {
            resume_unwind(Box::new("by chance"));
        }
        held.borrow_mut().extend(kept);
        if is_deferred {
            kernel.borrow_mut().decide(id, Verdict::REPEAT);
            return Verdict::REPEAT;
        }
        let verdict = if hits(700) { Verdict::ACCEPT } else { Verdict::DROP };
        let verdict = if hits(50) { verdict.with_mark(5) } else { verdict };
        kernel.borrow_mut().decide(id, verdict);
        verdict
    }

    fn batch_end(&mut self, _now: Timestamp) {
        let hits = |per_mille| self.0.chance.borrow_mut().hits(per_mille);
        if hits(self.0.traits.hangs) {
            self.0.hang();
        }
        if hits(self.0.traits.panics) {
            resume_unwind(Box::new("between batches"));
        }
    }

    fn unseen(&mut self) -> Verdict {
        UNSEEN
    }
}

impl World {
    /// Some other thread answers a deferred packet, or drops its handle.
    fn answer_one(&self) {
        let count = self.held.borrow().len();
        if count == 0 {
            return;
        }
        let place = self.chance.borrow_mut().below(u32::try_from(count).unwrap()) as usize;
        let deferred = self.held.borrow_mut().swap_remove(place);
        if self.chance.borrow_mut().hits(100) {
            return drop(deferred);
        }
        let verdict =
            if self.chance.borrow_mut().hits(700) { Verdict::ACCEPT } else { Verdict::DROP };
        self.kernel.borrow_mut().decide(deferred.id().0, verdict);
        deferred.answer(verdict);
    }

    /// Time passes in which the worker does nothing, packets come and the watchdog looks.
    fn hang(&self) {
        let mut dog = self.dog.borrow_mut();
        let Some(dog) = dog.as_mut() else { return };
        let mut look = |ms: u64| {
            self.kernel.borrow_mut().arrive(self.chance.borrow_mut().below(40));
            dog.look(Timestamp(ms * 1_000_000));
        };
        let began = 1000;
        look(began);
        let passes = self.chance.borrow_mut().below(8);
        for pass in 1..=u64::from(passes) {
            look(began + 50 * pass);
        }
    }
}

/// Plays one schedule and checks what came of it.
fn play(seed: u64, reports: &Arc<FaultReports>) {
    let mut chance = Chance::new(seed);
    let traits = Traits::draw(&mut chance);
    let shared = Arc::new(WorkerShared::new(chance.hits(500)));
    let kernel = Kernel::new(&mut chance, &shared, traits.stop_at_once);
    shared.heartbeat.set_next_id(PacketId(kernel.next_id()));
    let world = World {
        chance: Rc::new(RefCell::new(chance)),
        kernel: Rc::new(RefCell::new(kernel)),
        dog: Rc::default(),
        held: Rc::default(),
        traits,
    };
    let watchdog = WatchdogConfig {
        deadline: Duration::from_millis(100),
        on_fault: Fate::Drop,
        on_exit: None,
        deferring: traits.defers > 0,
        begins: None,
    };
    let mut dog = Watched::new(QUEUE, world.port(true), Arc::clone(&shared), watchdog);
    dog.answer_with(FAULTED);
    *world.dog.borrow_mut() = Some(dog);

    let gate = (traits.defers > 0).then(|| {
        let refuse = world.chance.borrow_mut().hits(500);
        let when_full = if refuse { WhenFull::Refuse } else { WhenFull::Wait };
        let deadline = Duration::from_secs(3600);
        let config = DeferralConfig { outstanding_max: 100, deadline, when_full };
        Gate::new(Arc::new(Answers::new(QueueWaker::of_nobody(), 100)), config, BATCH)
    });
    let mut config = EngineConfig::new("3".parse().unwrap());
    config.batch = BATCH;
    let overload = OverloadConfig { depth: 40, shed: traits.shed, copy_range: None };
    config.overload = (traits.shed != Shed::Not).then_some(overload);
    let port = world.port(false);
    let worker =
        Worker::new(QUEUE, port, Fickle(world.clone()), Wait::Block, Arc::clone(&shared), gate);
    let mut worker = worker.watching(&config);
    (worker.desk.on_fault, worker.on_exit) = (FAULTED, Some(AT_EXIT));
    let recovery = FaultConfig { panics_max: 3, ..FaultConfig::default() };
    let recovery = Recovery::new(recovery, Arc::clone(reports));
    let (_, next_id, result) = run_guarded(worker, recovery, || Fickle(world.clone()));
    result.unwrap();
    world.held.borrow_mut().clear();
    *world.dog.borrow_mut() = None;
    let kernel = world.kernel.borrow();
    shared.count_last_gap(next_id, kernel.next_id().wrapping_sub(1));
    check(&kernel, &shared.snapshot(), traits);
}

/// Each packet has its outcome, and the account has each packet.
fn check(kernel: &Kernel, counts: &crate::Counts, traits: Traits) {
    assert!(kernel.nothing_waits(), "packets stay queued");
    let count = |outcome| kernel.outcomes().filter(|(_, given)| *given == outcome).count() as u64;
    let reloaded = count(Outcome::Reloaded);
    assert_eq!(counts.answered(), counts.packets, "{counts:?}");
    let seen = counts.packets + counts.shed + counts.flushed + counts.id_gaps;
    assert_eq!(seen, kernel.ids_given(), "unaccounted: {counts:?}");
    assert_eq!(counts.id_gaps, count(Outcome::Lost), "{counts:?}");
    if reloaded > 0 {
        // What was queued and received when rules were reloaded has a verdict that the kernel refused.
        return;
    }
    let mut judged = 0;
    let mut of_policy = [0; 3];
    for (id, outcome) in kernel.outcomes() {
        let Outcome::Verdict(given) = outcome else { continue };
        if given == FAULTED {
            of_policy[0] += 1;
        } else if given == AT_EXIT {
            of_policy[1] += 1;
        } else if given == UNSEEN {
            of_policy[2] += 1;
        } else if let Some(decided) = kernel.decided(id) {
            // An answer that comes together with an end that has no time for it is late.
            let too_late = traits.stop_at_once && given == Verdict::REPEAT;
            assert!(given == decided || too_late, "packet {id} got {given:?} for {decided:?}");
            judged += 1;
        } else {
            // Shedding is what remains; counted below.
            assert!(counts.shed > 0, "packet {id} got {given:?} of nobody");
        }
    }
    let [faulted, at_exit, unseen] = of_policy;
    assert_eq!((counts.faulted, counts.flushed), (faulted, at_exit), "{counts:?}");
    assert!(counts.undecodable >= unseen, "{counts:?}");
    assert_eq!(counts.packets, judged + faulted + unseen, "{counts:?}");
}

#[test]
fn random_schedules_keep_every_packet_in_the_account() {
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
    let reports = Arc::new(FaultReports::new(waker));
    let seeds = match std::env::var("FANQ_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("FANQ_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            0..std::env::var("FANQ_SEEDS").map_or(SEEDS, |count| count.parse().expect("a number"))
        }
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(seed, &reports))) {
            eprintln!(
                "schedule {seed} failed; again: FANQ_SEED={seed} cargo test -p fanq --lib random_schedules"
            );
            resume_unwind(panic);
        }
        let _ = reports.take();
    }
}

const SEEDS: u64 = 2000;
const BATCH: usize = 16;
const HELD_MAX: usize = 60;

/// Verdicts that tell by their mark whose they are.
const FAULTED: Verdict = Verdict::ACCEPT.with_mark(77);
const AT_EXIT: Verdict = Verdict::ACCEPT.with_mark(99);
const UNSEEN: Verdict = Verdict::DROP.with_mark(88);
