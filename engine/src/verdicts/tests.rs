//! Goal: no verdict ever reaches a packet that it was not given for. Method: random verdicts, holds and losses
//! against a model of the kernel's queue, which applies each message as `nfqnl_recv_verdict` and
//! `nfqnl_recv_verdict_batch` do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the kernel did: each packet's verdict in the order in which it was applied.
#[derive(Default)]
struct KernelQueue {
    /// Waiting packets, in queue order (the key is the distance from the first id, so that it may wrap).
    waiting: BTreeMap<u32, PacketId>,
    applied: Vec<(PacketId, Verdict)>,
    messages: usize,
}

impl KernelQueue {
    fn apply(&mut self, first: PacketId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let field = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
            let length = u32::from_ne_bytes(rest[0..4].try_into().unwrap()) as usize;
            let batch = rest[4] == 3;
            let plain = match field(24) {
                0 => Verdict::DROP,
                1 => Verdict::ACCEPT,
                4 => Verdict::REPEAT,
                5 => Verdict::STOP,
                word => Verdict::queue(u16::try_from(word >> 16).unwrap()),
            };
            let verdict = if length > 32 { plain.with_mark(field(36)) } else { plain };
            let id = PacketId(field(28));
            let key = id.0.wrapping_sub(first.0);
            let hit: Vec<u32> = if batch {
                self.waiting.range(..=key).map(|(key, _)| *key).collect()
            } else {
                self.waiting.range(key..=key).map(|(key, _)| *key).collect()
            };
            assert!(!hit.is_empty(), "verdict for {id:?} matches nothing");
            for key in hit {
                let id = self.waiting.remove(&key).unwrap();
                self.applied.push((id, verdict));
            }
            self.messages += 1;
            rest = &rest[length..];
        }
    }
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        6 => Just(Verdict::ACCEPT),
        4 => Just(Verdict::DROP),
        1 => Just(Verdict::ACCEPT.with_mark(7)),
        1 => Just(Verdict::DROP.with_mark(7)),
        1 => Just(Verdict::REPEAT.with_mark(1)),
        1 => Just(Verdict::STOP),
        1 => Just(Verdict::queue(9)),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Answer(Verdict),
    Hold(Verdict),
    /// A packet that the socket had no room for: it has an id and no place in the queue.
    Lost,
    /// One of those held, by its place.
    AnswerHeld(usize),
    /// The fallback for the oldest held.
    OldestIsOverdue,
    EndOfTurn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            30 => verdicts().prop_map(Step::Answer),
            2 => verdicts().prop_map(Step::Hold),
            1 => Just(Step::Lost),
            2 => Just(Step::AnswerHeld(0)),
            1 => any::<usize>().prop_map(Step::AnswerHeld),
            1 => Just(Step::OldestIsOverdue),
            1 => Just(Step::EndOfTurn),
        ],
        0..400,
    )
}

proptest! {
    #[test]
    fn every_packet_gets_its_own_verdict_in_order(
        steps in steps(),
        first in prop_oneof![Just(1), Just(u32::MAX - 50), any::<u32>()],
    ) {
        let first = PacketId(first);
        let mut kernel = KernelQueue::default();
        let mut coalescer = Coalescer::new(3);
        let mut given = Vec::new();
        let mut held = std::collections::VecDeque::new();
        let mut late = Vec::new();
        let mut id = first;
        for step in steps {
            if coalescer.is_full() {
                kernel.apply(first, coalescer.take());
            }
            let key = id.0.wrapping_sub(first.0);
            match step {
                Step::Answer(verdict) => {
                    kernel.waiting.insert(key, id);
                    coalescer.push(id, verdict);
                    given.push((id, verdict));
                    id = id.next();
                }
                Step::Hold(verdict) => {
                    kernel.waiting.insert(key, id);
                    let fallback = Verdict::STOP.with_mark(key);
                    coalescer.hold(id, fallback, u64::from(key));
                    held.push_back((id, verdict));
                    id = id.next();
                }
                Step::Lost => id = id.next(),
                Step::AnswerHeld(place) => if !held.is_empty() {
                    let (id, verdict) = held.remove(place % held.len()).unwrap();
                    prop_assert_eq!(coalescer.answer_held(id, Some(verdict)), Some(verdict));
                    prop_assert_eq!(coalescer.answer_held(id, Some(verdict)), None);
                    late.push((id, verdict));
                },
                Step::OldestIsOverdue => if let Some((id, _)) = held.pop_front() {
                    let deadline = id.0.wrapping_sub(first.0);
                    let fallback = Verdict::STOP.with_mark(deadline);
                    let now = u64::from(deadline);
                    prop_assert_eq!(coalescer.answer_overdue(now), Some(fallback));
                    prop_assert_eq!(coalescer.answer_overdue(now), None);
                    late.push((id, fallback));
                },
                Step::EndOfTurn => kernel.apply(first, coalescer.finish()),
            }
        }
        // A packet that is queued and not yet received must not be touched.
        let unread = id.0.wrapping_sub(first.0);
        kernel.waiting.insert(unread, id);
        kernel.apply(first, coalescer.finish());
        let left: Vec<_> = kernel.waiting.values().copied().collect();
        let mut expected_left: Vec<_> = held.iter().map(|(id, _)| *id).collect();
        expected_left.push(id);
        prop_assert_eq!(left, expected_left);

        let delivered = |verdicts: &[(PacketId, Verdict)]| -> Vec<(PacketId, Verdict)> {
            let in_line = verdicts.iter().filter(|(id, _)| !late.iter().any(|(l, _)| l == id));
            in_line.filter(|(_, verdict)| !verdict.delivers_nothing()).copied().collect()
        };
        prop_assert_eq!(delivered(&kernel.applied), delivered(&given), "order of delivery");
        let by_id = |verdicts: &[(PacketId, Verdict)]| {
            let mut sorted = verdicts.to_vec();
            sorted.sort_by_key(|(id, _)| id.0.wrapping_sub(first.0));
            sorted
        };
        given.extend(late.iter().copied());
        prop_assert_eq!(by_id(&kernel.applied), by_id(&given));
    }
}

fn messages(verdicts: &[Verdict]) -> usize {
    let mut kernel = KernelQueue::default();
    let mut coalescer = Coalescer::new(0);
    for (index, verdict) in (0_u32..).zip(verdicts) {
        kernel.waiting.insert(index, PacketId(1 + index));
        coalescer.push(PacketId(1 + index), *verdict);
    }
    kernel.apply(PacketId(1), coalescer.finish());
    assert!(kernel.waiting.is_empty());
    kernel.messages
}

#[test]
fn equal_verdicts_make_one_message() {
    assert_eq!(messages(&[Verdict::ACCEPT; 64]), 1);
    assert_eq!(messages(&[Verdict::DROP; 64]), 1);
    assert_eq!(messages(&[Verdict::ACCEPT.with_mark(9); 64]), 1);
    assert_eq!(messages(&[]), 0);
}

#[test]
fn single_drops_do_not_break_a_run() {
    const A: Verdict = Verdict::ACCEPT;
    const D: Verdict = Verdict::DROP;
    assert_eq!(messages(&[A, A, D, A, A, A, D, A]), 3);
    assert_eq!(messages(&[D, D, A, D, D, D, A, D]), 3);
    assert_eq!(messages(&[A, D, D, D, A, A]), 3, "three drops in a row are a run of their own");
}

#[test]
fn marks_that_differ_are_not_joined() {
    let verdicts = [Verdict::ACCEPT, Verdict::ACCEPT.with_mark(1), Verdict::ACCEPT.with_mark(2)];
    assert_eq!(messages(&verdicts), 3);
}

#[test]
fn while_one_is_held_nothing_is_joined() {
    let mut coalescer = Coalescer::new(0);
    coalescer.push(PacketId(1), Verdict::ACCEPT);
    coalescer.push(PacketId(2), Verdict::ACCEPT);
    coalescer.hold(PacketId(3), Verdict::DROP, 0);
    assert_eq!(coalescer.take().len(), 32, "what came before the hold is one batch");
    for id in 4..8 {
        coalescer.push(PacketId(id), Verdict::ACCEPT);
    }
    assert_eq!(coalescer.take().len(), 4 * 32);
    coalescer.answer_held(PacketId(3), Some(Verdict::DROP));
    coalescer.push(PacketId(8), Verdict::ACCEPT);
    coalescer.push(PacketId(9), Verdict::ACCEPT);
    assert_eq!(coalescer.finish().len(), 32 + 32);
}

#[test]
fn held_packets_answered_in_order_are_joined() {
    let mut coalescer = Coalescer::with_held_max(0, 64);
    for id in 1..=64 {
        coalescer.hold(PacketId(id), Verdict::DROP, 0);
    }
    for id in 1..=64 {
        coalescer.answer_held(PacketId(id), Some(Verdict::ACCEPT));
    }
    assert_eq!(coalescer.finish().len(), 32, "one batch for all");
}

#[test]
fn a_rewritten_packet_is_never_joined_and_keeps_its_place() {
    let mut kernel = KernelQueue::default();
    let mut coalescer = Coalescer::new(0);
    for id in 0..5 {
        kernel.waiting.insert(id, PacketId(id));
        if id == 2 {
            let payload = [0x45; 40];
            coalescer.push_edited(
                PacketId(id),
                Verdict::ACCEPT,
                &ConntrackEdit::default(),
                Some(&payload),
            );
        } else {
            coalescer.push(PacketId(id), Verdict::ACCEPT);
        }
    }
    let messages = coalescer.finish();
    assert_eq!(messages.len(), 32 + (32 + 4 + 40) + 32);
    assert_eq!(messages[4], 3, "a batch up to packet 1");
    assert_eq!(messages[32 + 4], 1, "a verdict of its own for packet 2");
    assert_eq!(messages[32 + 76 + 4], 3, "a batch up to packet 4");
}

#[test]
fn a_send_stays_below_one_page() {
    let mut coalescer = Coalescer::new(0);
    let mut pushed = 0;
    while !coalescer.is_full() {
        // No two neighbours can be joined.
        coalescer.push(PacketId(pushed), Verdict::ACCEPT.with_mark(pushed));
        pushed += 1;
    }
    assert!(pushed > 80, "only {pushed} verdicts to a send");
    assert!(coalescer.finish().len() <= SEND_BYTES_MAX);
}
