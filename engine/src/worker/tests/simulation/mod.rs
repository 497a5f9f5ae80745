//! Goal: whatever the kernel, the inspector and chance do together, each packet gets one verdict, its own or that of
//! the policy that covers it, and stands in the account once. Method: thousands of random schedules, each grown from
//! one number: bursts, short batches, a small queue and a small socket, interrupted and overrun receives, sends without
//! memory, stale and broken messages, ids that wrap, rulesets that are reloaded; inspectors that defer, panic, and do
//! not come back while the watchdog looks; others who keep as many packets as may be deferred, and longer than they
//! may, and whose rewrites are large, or refused. All of it in one thread, so that a number plays the same every time.
//!
//! `FANQ_SEED=number cargo test -p fanq --lib random_schedules` plays one schedule again, `FANQ_SEEDS=count` so many.

mod chance;
mod kernel;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::*;
use crate::deferral::{Answers, DeferralConfig, Deferred, WhenFull};
use crate::edits::RewriteError;
use crate::fault::{FaultConfig, FaultReports};
use crate::overload::Shed;
use crate::queue::WeakQueueWaker;
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
    /// In milliseconds, for the watchdog.
    clock: Rc<Cell<u64>>,
    /// How often in a row the worker has waited for answers while it had packets to read and others kept what they have
    /// for longer than they may.
    deserted: Rc<Cell<u32>>,
    shared: Arc<WorkerShared>,
    traits: Traits,
}

/// What a schedule has in it, in chances of a thousand.
#[derive(Debug, Clone, Copy)]
struct Traits {
    panics: u32,
    hangs: u32,
    stops: u32,
    defers: u32,
    /// Answers that come with a rewrite, large or refused.
    rewrites: u32,
    /// Whether others keep as many packets as they get.
    hoards: bool,
    /// Whether every deadline of a deferred packet is over by the next turn.
    impatient: bool,
    shed: Shed,
    stop_at_once: bool,
}

impl Traits {
    fn draw(chance: &mut Chance) -> Self {
        let mut maybe = |per_mille: u32| if chance.hits(400) { per_mille } else { 0 };
        let (panics, hangs, mut stops) = (maybe(15), maybe(15), maybe(60));
        let (mut defers, rewrites) = (maybe(250), maybe(20));
        let hoards = defers > 0 && maybe(1) > 0;
        let impatient = defers > 0 && maybe(1) > 0;
        if hoards {
            defers = 800;
        }
        let shed = match chance.below(4) {
            0 if defers == 0 => Shed::Accept,
            1 if defers == 0 => Shed::Drop,
            _ => Shed::Not,
        };
        if shed != Shed::Not {
            // A worker that is stopped while it discards what it shed: those would be counted as answered from outside.
            stops = 0;
        }
        let stop_at_once = chance.hits(300);
        Self { panics, hangs, stops, defers, rewrites, hoards, impatient, shed, stop_at_once }
    }
}

/// Decides by chance, and tells the kernel's side what it decided.
struct Fickle(World);

impl Inspector for Fickle {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let World { chance, kernel, held, traits, .. } = &self.0;
        let id = packet.id().0;
        let hits = |per_mille| chance.borrow_mut().hits(per_mille);
        while hits(200) || (held.borrow().len() > HELD_MAX && !traits.hoards) {
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
        if hits(traits.rewrites) {
            packet.replace(&LARGE).unwrap();
        }
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

    fn rewrite_refused(&mut self, _error: RewriteError, verdict: Verdict) -> Verdict {
        if self.0.chance.borrow_mut().hits(10 * self.0.traits.panics) {
            resume_unwind(Box::new("at an answer"));
        }
        verdict
    }

    fn awaits_answers(&self) -> bool {
        self.0.traits.hoards && self.0.chance.borrow_mut().hits(300)
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
        self.deserted.set(0);
        let mut deferred = self.held.borrow_mut().swap_remove(place);
        if self.chance.borrow_mut().hits(100) {
            return drop(deferred);
        }
        if self.chance.borrow_mut().hits(5 * self.traits.rewrites) {
            let refused = self.chance.borrow_mut().hits(500);
            let bytes = if refused { &LARGE[..1] } else { &LARGE[..] };
            assert_eq!(deferred.replace(bytes).is_err(), refused);
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
        let mut look = |after_ms: u64| {
            self.kernel.borrow_mut().arrive(self.chance.borrow_mut().below(40));
            dog.look(self.later(after_ms));
        };
        look(1000);
        let passes = self.chance.borrow_mut().below(8);
        for _ in 0..passes {
            look(50);
        }
    }

    fn later(&self, ms: u64) -> Timestamp {
        self.clock.set(self.clock.get() + ms);
        Timestamp(self.clock.get() * 1_000_000)
    }

    /// The worker waits for answers: packets come, the watchdog looks, and now and then somebody answers.
    fn meanwhile(&self) {
        if let Some(dog) = self.dog.borrow_mut().as_mut() {
            let stopping = self.kernel.borrow().is_over();
            if !stopping {
                self.kernel.borrow_mut().arrive(self.chance.borrow_mut().below(10));
            }
            let unread = self.kernel.borrow().has_unread();
            dog.look(self.later(40));
            if self.traits.impatient && unread && !stopping {
                self.deserted.set(self.deserted.get() + 1);
                assert!(
                    self.deserted.get() < 6 || self.shared.is_stuck(),
                    "nobody serves the queue"
                );
            }
        }
        if self.kernel.borrow().is_over() || self.chance.borrow_mut().hits(150) {
            self.answer_one();
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
        clock: Rc::default(),
        deserted: Rc::default(),
        shared: Arc::clone(&shared),
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
        let deadline = Duration::from_secs(if traits.impatient { 0 } else { 3600 });
        let config = DeferralConfig { outstanding_max: 100, deadline, when_full };
        let answers = Arc::new(Answers::new(WeakQueueWaker::of_nobody(), 100));
        let mut gate = Gate::new(answers, config, BATCH);
        let theirs = world.clone();
        while_waiting(&mut gate, move || theirs.meanwhile());
        gate
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
    shared.count_last_gap(next_id, kernel.next_id().wrapping_sub(1), 0);
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
            // An answer may be late, also one that comes together with an end that has no time for it.
            let may_be_late = traits.impatient || traits.stop_at_once;
            let too_late = may_be_late && given == Verdict::REPEAT;
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

/// Two of these are more than a coalescer has room for.
static LARGE: [u8; 40_000] = [0x45; 40_000];

/// Verdicts that tell by their mark whose they are.
const FAULTED: Verdict = Verdict::ACCEPT.with_mark(77);
const AT_EXIT: Verdict = Verdict::ACCEPT.with_mark(99);
const UNSEEN: Verdict = Verdict::DROP.with_mark(88);
