//! Goal: lanes answer every packet, each flow in order, and a lane that dies takes no packet with it. Method: the
//! pipeline's inspector with handles made by hand; a mailbox in the worker's place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::deferral::{Answer, Answers, DeferralConfig, Gate};
use crate::edits::{Edits, RewriteError};
use crate::inspect::Place;
use crate::nfq::sample::Sample;
use crate::nfq::{Message, decode};
use crate::queue::WeakQueueWaker;

const WORKER: WorkerInfo = WorkerInfo { queue: 1, index: 0, cpu: None };
const PACKETS: u32 = 600;
const FLOWS: u32 = 20;

/// A UDP packet message of one of the flows.
fn message(id: u32) -> Vec<u8> {
    let mut payload = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    payload.extend([0, u8::try_from(id % FLOWS).unwrap(), 0, 53, 0, 8, 0, 0]);
    Sample::packet(1, id, 1, &payload)
}

/// Shows packets to the pipeline as a worker does, which hands them over a batch at a time.
fn show(spread: &mut Spread, packets: std::ops::Range<u32>) -> (Arc<Answers>, Edits) {
    let config = DeferralConfig { outstanding_max: 1000, ..DeferralConfig::default() };
    let answers = Arc::new(Answers::new(WeakQueueWaker::of_nobody(), 1000));
    let mut edits = Edits::with_gate(Some(Gate::new(Arc::clone(&answers), config, 64)));
    for id in packets.clone() {
        let bytes = message(id);
        let (Message::Packet(packet), _) = decode(&bytes).unwrap() else { panic!("a packet") };
        let place = Some(Place::Alone(&bytes));
        spread.inspect(&mut Packet::with_clear_edits(packet, &mut edits, place));
        edits.clear();
        if id % 50 == 49 || id + 1 == packets.end {
            spread.batch_end(Timestamp::now());
        }
    }
    (answers, edits)
}

/// Shows packets and collects what comes back.
fn play(spread: &mut Spread, packets: std::ops::Range<u32>) -> Vec<Answer> {
    let count = packets.len();
    let (answers, _gate) = show(spread, packets);
    let mut all = Vec::new();
    while all.len() < count {
        answers.wait(Duration::from_secs(10));
        let mut letters = Vec::new();
        answers.collect(&mut letters);
        assert!(!letters.is_empty(), "{} of {count} came back", all.len());
        all.extend(letters);
    }
    all
}

/// Notes what each lane saw.
struct Noting {
    lane: usize,
    seen: Arc<Mutex<Vec<(usize, u32)>>>,
}

impl Inspector for Noting {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let id = packet.id().0;
        self.seen.lock().unwrap().push((self.lane, id));
        if id.is_multiple_of(7) {
            packet.payload_mut().unwrap()[8] = 63;
        }
        Verdict::ACCEPT.with_mark(id)
    }
}

#[test]
fn each_flow_has_one_lane_and_keeps_its_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&seen);
    let pipeline = Pipeline::new(4, move |_, lane| Noting { lane, seen: Arc::clone(&theirs) });
    let answers = play(&mut pipeline.spread(WORKER), 0..PACKETS);
    for answer in &answers {
        assert_eq!(answer.verdict, Some(Verdict::ACCEPT.with_mark(answer.id.0)));
        let rewritten = answer.payload().map(|payload| payload[8]);
        assert_eq!(rewritten, answer.id.0.is_multiple_of(7).then_some(63));
    }
    let seen = seen.lock().unwrap();
    let mut lanes_used = std::collections::BTreeSet::new();
    for flow in 0..FLOWS {
        let of_flow: Vec<_> = seen.iter().filter(|(_, id)| id % FLOWS == flow).collect();
        lanes_used.insert(of_flow[0].0);
        assert!(of_flow.iter().all(|(lane, _)| *lane == of_flow[0].0), "flow {flow}");
        assert!(of_flow.is_sorted_by_key(|(_, id)| *id), "flow {flow}: {of_flow:?}");
        assert_eq!(of_flow.len(), (PACKETS / FLOWS) as usize);
    }
    assert!(lanes_used.len() > 1, "{lanes_used:?}");
}

/// Dies of one packet.
struct Mortal;

impl Inspector for Mortal {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        assert_ne!(packet.id().0, 120, "the packet that kills");
        Verdict::ACCEPT
    }
}

#[test]
fn a_lane_that_panics_gives_back_what_it_has_and_goes_on() {
    let mut spread = Pipeline::new(1, |_, _| Mortal).spread(WORKER);
    let answers = play(&mut spread, 0..200);
    let verdict_of = |id: u32| answers.iter().find(|a| a.id.0 == id).unwrap().verdict;
    assert_eq!(verdict_of(119), Some(Verdict::ACCEPT), "decided before");
    assert_eq!(verdict_of(120), None);
    // What a panic left is no work, from when the thread has got over it.
    while spread.awaits_answers() {
        std::thread::yield_now();
    }
    let answers = play(&mut spread, 200..300);
    assert!(answers.iter().all(|answer| answer.verdict == Some(Verdict::ACCEPT)));
}

#[test]
fn a_lane_that_panics_again_and_again_ends_and_its_packets_come_back() {
    let mut spread = Pipeline::new(1, |_, _| Mortal).spread(WORKER);
    for _ in 0..5 {
        assert_eq!(play(&mut spread, 120..121)[0].verdict, None);
    }
    // The thread may not have ended yet, or have taken these before it did.
    while play(&mut spread, 1..2)[0].verdict.is_some() {
        std::thread::yield_now();
    }
    assert!(!spread.awaits_answers(), "nobody is there to give any");
}

/// Waits before each packet until the test lets it go on.
struct Held(Arc<Mutex<()>>);

impl Inspector for Held {
    fn inspect(&mut self, _: &mut Packet<'_>) -> Verdict {
        drop(self.0.lock().unwrap());
        Verdict::ACCEPT
    }
}

#[test]
fn answers_are_awaited_from_lanes_that_all_have_packets_and_from_no_others() {
    let door = Arc::new(Mutex::new(()));
    for lanes in [1, 2] {
        let theirs = Arc::clone(&door);
        let mut spread = Pipeline::new(lanes, move |_, _| Held(Arc::clone(&theirs))).spread(WORKER);
        assert!(!spread.awaits_answers());
        let closed = door.lock().unwrap();
        // Of one flow, so they go to one lane.
        let (first, _gate) = show(&mut spread, 1..2);
        assert_eq!(spread.awaits_answers(), lanes == 1);
        let (second, _gate) = show(&mut spread, 100..200);
        assert!(spread.awaits_answers(), "of {lanes} lanes with 20 flows");
        drop(closed);
        let mut letters = Vec::new();
        let mut missing = 101;
        while missing > 0 {
            for answers in [&first, &second] {
                answers.collect(&mut letters);
                missing -= letters.drain(..).count();
            }
            std::thread::yield_now();
        }
        // At once, not some time later: a worker that has all answers must not sleep until others come.
        assert!(!spread.awaits_answers());
    }
}

/// Rewrites every packet to what is refused, and has a word of its own about that; dies of one.
struct Refused;

impl Inspector for Refused {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        assert!(packet.replace(&[0x45]).is_err());
        Verdict::ACCEPT.with_mark(packet.id().0)
    }

    fn rewrite_refused(&mut self, _: RewriteError, verdict: Verdict) -> Verdict {
        assert_ne!(verdict.mark(), Some(3), "the answer that kills");
        Verdict::REPEAT.with_mark(verdict.mark().unwrap())
    }
}

#[test]
fn a_lanes_own_inspector_is_asked_about_refused_rewrites() {
    let mut spread = Pipeline::new(1, |_, _| Refused).spread(WORKER);
    for answer in play(&mut spread, 0..6) {
        let id = answer.id.0;
        match answer.verdict {
            // Of what was handed over together the panic cost what lay behind it, too.
            None => assert!(id >= 3, "{id}"),
            Some(verdict) => {
                assert_eq!(verdict, Verdict::REPEAT.with_mark(id));
                let error = answer.refused.unwrap();
                assert_eq!(spread.rewrite_refused(error, verdict), verdict);
            }
        }
    }
}

/// Does not come back from a packet before another lane has ended.
struct Outliving(Arc<Lives>);

#[derive(Default)]
struct Lives {
    at_work: AtomicU32,
    ended: AtomicU32,
}

impl Inspector for Outliving {
    fn inspect(&mut self, _: &mut Packet<'_>) -> Verdict {
        self.0.at_work.fetch_add(1, Ordering::SeqCst);
        while self.0.ended.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        Verdict::ACCEPT
    }
}

impl Drop for Outliving {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn lanes_end_together_and_none_waits_for_the_end_of_another() {
    // Packets of several flows, so that each lane has one in some round.
    for id in 0..6 {
        let lives = Arc::<Lives>::default();
        let theirs = Arc::clone(&lives);
        let make = move |_, _| Outliving(Arc::clone(&theirs));
        let mut spread = Pipeline::new(2, make).spread(WORKER);
        let _gate = show(&mut spread, id..id + 1);
        while lives.at_work.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        drop(spread);
        assert_eq!(lives.ended.load(Ordering::SeqCst), 2, "packet {id}");
    }
}
