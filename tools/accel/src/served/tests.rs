//! Goal: whatever a program does, each packet gets the verdict that the program gave it, in the order in which it gave
//! them; it sees every datagram once and in order; and nothing waits while it could block. Method: random programs,
//! which receive, answer in any order, send what is not plain, and read with others, against a model of the kernel's
//! queue that applies each message as `nfqnl_recv_verdict` and `nfqnl_recv_verdict_batch` do.

use std::collections::{BTreeSet, VecDeque};

use fanq::nfq::{
    self, BindCommand, ConfigFlags, CopyRange, Hook, Message, PacketId, QueueRequest,
    VerdictMessage, made_message,
};
use fanq::{Verdict, VerdictCode};
use proptest::prelude::*;

use super::*;

mod company;

/// The kernel's side of one socket with two queues.
#[derive(Default)]
struct Kernel {
    /// Datagrams in the socket's buffer.
    buffer: VecDeque<Vec<u8>>,
    waiting: [BTreeSet<u32>; QUEUES],
    /// The last id given, by queue.
    ids: [u32; QUEUES],
    applied: Vec<(u16, u32, Verdict)>,
    drops: u32,
    sends: usize,
    receives: usize,
    /// Sends to refuse for want of memory.
    refusals: u32,
    /// Errnos of sends that were given up.
    given_up: Vec<i32>,
}

impl Kernel {
    fn arrive(&mut self, queue: u16, lost: bool) {
        let id = &mut self.ids[usize::from(queue)];
        *id += 1;
        if lost {
            self.drops += 1;
            return;
        }
        let mut bytes = [0; 128];
        let mut message =
            made_message(&mut bytes, PacketId(*id), Hook::Input, &[0x45; 28]).to_vec();
        message[18..20].copy_from_slice(&queue.to_be_bytes());
        self.buffer.push_back(message);
        self.waiting[usize::from(queue)].insert(*id);
    }

    fn apply(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (sent, behind) = decode_sent(rest);
            match sent {
                Sent::Verdict(sent) => self.answer(sent, sent.id.0),
                Sent::VerdictUpTo(sent) => self.answer(sent, 0),
                other => panic!("{other:?} reached the kernel"),
            }
            rest = behind;
        }
    }

    fn answer(&mut self, sent: SentVerdict, first: u32) {
        let waiting = &mut self.waiting[usize::from(sent.queue)];
        let hit: Vec<u32> = waiting.range(first..=sent.id.0).copied().collect();
        for id in hit {
            waiting.remove(&id);
            self.applied.push((sent.queue, id, sent.verdict));
        }
    }
}

impl Port for Kernel {
    fn receive(&mut self, ring: &mut Ring, depth: usize) -> Result<usize, i32> {
        let count = depth.min(self.buffer.len());
        for (memory, slot) in ring.free_slots().take(count) {
            let datagram = self.buffer.pop_front().unwrap();
            memory[..datagram.len()].copy_from_slice(&datagram);
            slot.length = datagram.len();
        }
        self.receives += 1;
        if count > 0 { Ok(count) } else { Err(libc::EAGAIN) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), i32> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(libc::ENOBUFS);
        }
        self.sends += 1;
        self.apply(bytes);
        Ok(())
    }

    fn drops(&mut self) -> Option<u32> {
        Some(self.drops)
    }

    fn gave_up(&mut self, errno: i32) {
        self.given_up.push(errno);
    }
}

/// A program on that socket, with the library under it.
struct Program {
    serving: Serving,
    kernel: Kernel,
    /// Its other threads.
    threads: Threads,
    /// What it has received and not answered.
    out: Vec<(u16, u32)>,
    given: Vec<(u16, u32, Verdict)>,
    seen: Vec<(u16, u32)>,
}

impl Program {
    fn new(batch: usize) -> Self {
        let mut kernel = Kernel::default();
        let mut serving = Serving::new(batch, &mut kernel);
        for queue in 0..u16::try_from(QUEUES).unwrap() {
            let command = Some(BindCommand::Bind);
            serving.configured(SentConfig { queue, command, copies_packets: true });
        }
        let (out, given, seen) = (Vec::new(), Vec::new(), Vec::new());
        Self { serving, kernel, threads: Threads::NONE, out, given, seen }
    }

    /// One that has given a verdict before.
    fn serving(batch: usize) -> Self {
        let mut program = Self::new(batch);
        program.serving.has_answered = true;
        program
    }

    fn next(&mut self) -> Next {
        self.serving.next(self.threads, &mut self.kernel)
    }

    /// Takes note of what a thread has received by its own call, from which it is just back.
    fn is_back(&mut self, datagram: &[u8]) -> bool {
        let threads = Threads { receiving: self.threads.receiving + 1, ..self.threads };
        self.serving.received_by_program(datagram, threads, &mut self.kernel)
    }

    /// Receives without waiting.
    fn receive(&mut self) -> Option<(u16, u32)> {
        let datagram = if self.next() == Next::Take {
            let datagram = self.serving.ring.front().unwrap().bytes.to_vec();
            self.serving.ring.pop();
            datagram
        } else {
            assert!(!self.serving.has_pending(), "it may block, and verdicts wait");
            let datagram = self.kernel.buffer.pop_front()?;
            assert!(self.is_back(&datagram));
            datagram
        };
        let Ok((Message::Packet(packet), _)) = nfq::decode(&datagram) else { panic!("no packet") };
        let packet = (packet.queue(), packet.id().0);
        self.seen.push(packet);
        self.out.push(packet);
        Some(packet)
    }

    fn answer(&mut self, place: usize, verdict: Verdict, plain: bool) {
        if self.out.is_empty() {
            return;
        }
        let (queue, id) = self.out.remove(place % self.out.len());
        let mut bytes = [0; VerdictMessage::BYTES_MAX];
        let message = VerdictMessage { queue, id: PacketId(id), verdict, batch: false };
        let length = message.encode(&mut bytes);
        if !plain {
            bytes[6] |= 4; // NLM_F_ACK
        }
        self.send(&bytes[..length]);
        self.given.push((queue, id, verdict));
    }

    fn send(&mut self, bytes: &[u8]) {
        let Self { serving, kernel, .. } = self;
        let mut itself = Vec::new();
        // The model applies it after what was flushed before, as the kernel does.
        let sent = serving.send(bytes, true, kernel, || {
            itself = bytes.to_vec();
            Ok(bytes.len())
        });
        kernel.apply(&itself);
        assert!(matches!(sent, SentAs::Joined | SentAs::Itself(Ok(_))));
        assert!(!serving.has_pending() || !serving.ring.is_empty(), "nobody may come to send it");
    }

    /// The program's own batch verdict: everything up to the newest that it has of a queue.
    fn answer_up_to(&mut self, queue: u16, verdict: Verdict) {
        let newest = self.out.iter().filter(|(of, _)| *of == queue).map(|(_, id)| *id).max();
        let Some(last) = newest else { return };
        let mut bytes = [0; VerdictMessage::BYTES_MAX];
        let message = VerdictMessage { queue, id: PacketId(last), verdict, batch: true };
        let length = message.encode(&mut bytes);
        self.send(&bytes[..length]);
        let mut covered: Vec<_> =
            self.out.iter().filter(|(of, id)| *of == queue && *id <= last).copied().collect();
        covered.sort_unstable();
        self.out.retain(|(of, id)| *of != queue || *id > last);
        self.given.extend(covered.into_iter().map(|(queue, id)| (queue, id, verdict)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { queue: u16, count: usize },
    Lost(u16),
    Receive,
    Answer { place: usize, verdict: Verdict, plain: bool },
    AnswerOldest(Verdict),
    AnswerUpTo(u16, Verdict),
    SomebodySleeps(bool),
    SomebodyReceives(bool),
    OneShot(bool),
    Shortage,
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        6 => Just(Verdict::ACCEPT),
        3 => Just(Verdict::DROP),
        1 => Just(Verdict::ACCEPT.with_mark(7)),
        1 => Just(Verdict::REPEAT.with_mark(1)),
        1 => Just(Verdict::queue(9)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let queue = || 0..u16::try_from(QUEUES).unwrap();
    let answer = (any::<usize>(), verdicts(), prop::bool::weighted(0.9));
    prop::collection::vec(
        prop_oneof![
            6 => (queue(), 1..20_usize).prop_map(|(queue, count)| Step::Arrive { queue, count }),
            1 => queue().prop_map(Step::Lost),
            30 => Just(Step::Receive),
            20 => verdicts().prop_map(Step::AnswerOldest),
            6 => answer.prop_map(|(place, verdict, plain)| Step::Answer { place, verdict, plain }),
            1 => (queue(), verdicts()).prop_map(|(queue, verdict)| Step::AnswerUpTo(queue, verdict)),
            1 => any::<bool>().prop_map(Step::SomebodySleeps),
            1 => any::<bool>().prop_map(Step::SomebodyReceives),
            1 => prop::bool::weighted(0.2).prop_map(Step::OneShot),
            1 => Just(Step::Shortage),
        ],
        0..500,
    )
}

proptest! {
    #[test]
    fn every_packet_gets_the_programs_verdict_in_its_order(steps in steps(), batch in 1..70_usize) {
        let mut program = Program::new(batch);
        for step in steps {
            match step {
                Step::Arrive { queue, count } => {
                    (0..count).for_each(|_| program.kernel.arrive(queue, false));
                }
                Step::Lost(queue) => program.kernel.arrive(queue, true),
                Step::Receive => { program.receive(); }
                Step::Answer { place, verdict, plain } => program.answer(place, verdict, plain),
                Step::AnswerOldest(verdict) => program.answer(0, verdict, true),
                Step::AnswerUpTo(queue, verdict) => program.answer_up_to(queue, verdict),
                Step::SomebodySleeps(sleeps) => program.threads.waiting = u32::from(sleeps),
                Step::SomebodyReceives(receives) => program.threads.receiving = u32::from(receives),
                Step::OneShot(one_shot) => program.threads.one_shot = one_shot,
                Step::Shortage => program.kernel.refusals = 3,
            }
        }
        program.serving.flush(&mut program.kernel);
        let Program { kernel, given, seen, out, .. } = program;

        // Drops deliver nothing, so where they stand among the others cannot be seen.
        let delivered = |verdicts: &[(u16, u32, Verdict)]| -> Vec<(u16, u32, Verdict)> {
            verdicts.iter().filter(|(_, _, verdict)| verdict.code() != VerdictCode::Drop).copied().collect()
        };
        prop_assert_eq!(delivered(&kernel.applied), delivered(&given), "order of delivery");
        let sorted = |verdicts: &[(u16, u32, Verdict)]| {
            let mut sorted = verdicts.to_vec();
            sorted.sort_by_key(|(queue, id, _)| (*queue, *id));
            sorted
        };
        prop_assert_eq!(sorted(&kernel.applied), sorted(&given));
        for (queue, id) in out {
            prop_assert!(kernel.waiting[usize::from(queue)].contains(&id), "{queue}: {id} was not answered");
        }
        for queue in 0..u16::try_from(QUEUES).unwrap() {
            let ids: Vec<u32> = seen.iter().filter(|(of, _)| *of == queue).map(|(_, id)| *id).collect();
            prop_assert!(ids.is_sorted_by(|a, b| a < b), "each once, in order: {ids:?}");
        }
    }
}

#[test]
fn a_loop_of_receive_and_accept_takes_two_calls_for_a_batch() {
    let mut program = Program::new(64);
    (0..640).for_each(|_| program.kernel.arrive(0, false));
    while program.receive().is_some() {
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert_eq!((program.kernel.applied.len(), program.kernel.sends), (640, 1 + 10));
    assert_eq!(
        program.kernel.receives, 11,
        "the first was the program's own, the last found nothing"
    );
}

#[test]
fn packets_that_come_one_by_one_cost_hardly_more_calls_than_without() {
    let mut program = Program::new(64);
    for _ in 0..80 {
        assert_ne!(program.next(), Next::Take, "nothing is there");
        program.kernel.arrive(0, false);
        let datagram = program.kernel.buffer.pop_front().unwrap();
        assert!(program.is_back(&datagram));
        program.out.push((0, program.kernel.ids[0]));
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert!(program.kernel.receives <= 4 + 80 / 8, "{} fills", program.kernel.receives);
    assert_eq!(program.kernel.sends, 80);
    (0..100).for_each(|_| program.kernel.arrive(0, false));
    while program.receive().is_some() {
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert!(program.kernel.sends <= 80 + 7 + 3, "a load is met after a few packets");
    assert_eq!(program.kernel.applied.len(), 180);
}

#[test]
fn what_was_lost_does_not_end_the_joining() {
    let mut program = Program::new(64);
    for _ in 0..10 {
        (0..63).for_each(|_| program.kernel.arrive(0, false));
        program.kernel.arrive(0, true);
        while program.receive().is_some() {
            program.answer(0, Verdict::ACCEPT, true);
        }
    }
    assert_eq!(program.kernel.applied.len(), 630);
    // The first packet goes alone; after a receive that found nothing the next one asks for few.
    assert_eq!(program.kernel.sends, 2 + 9 * 2);
}

#[test]
fn a_packet_that_somebody_else_reads_is_not_covered() {
    let mut program = Program::new(64);
    (0..3).for_each(|_| program.kernel.arrive(0, false));
    let taken = program.kernel.buffer.remove(1).unwrap();
    while program.receive().is_some() {
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert!(program.kernel.waiting[0].contains(&2), "it is another process's to answer");
    drop(taken);
}

/// Keeps what is sent.
struct Watching(Vec<Vec<u8>>);

impl Port for Watching {
    fn receive(&mut self, _: &mut Ring, _: usize) -> Result<usize, i32> {
        Err(libc::EAGAIN)
    }
    fn send(&mut self, bytes: &[u8]) -> Result<(), i32> {
        self.0.push(bytes.to_vec());
        Ok(())
    }
    fn drops(&mut self) -> Option<u32> {
        None
    }
    fn gave_up(&mut self, errno: i32) {
        panic!("errno {errno}");
    }
}

#[test]
fn a_lone_verdict_goes_out_as_the_program_wrote_it() {
    let mut program = Program::new(64);
    program.kernel.arrive(0, false);
    program.receive();
    let mut bytes = [0; VerdictMessage::BYTES_MAX];
    let message =
        VerdictMessage { queue: 0, id: PacketId(1), verdict: Verdict::ACCEPT, batch: false };
    let length = message.encode(&mut bytes);
    bytes[8..12].copy_from_slice(&0xdead_beef_u32.to_ne_bytes());
    let mut port = Watching(Vec::new());
    let sent = program.serving.send(&bytes[..length], true, &mut port, || Err(libc::EIO));
    assert_eq!((sent, &port.0[..]), (SentAs::Joined, &[bytes[..length].to_vec()][..]));
}

#[test]
fn what_no_queue_of_ours_is_meant_by_goes_as_it_is() {
    let mut program = Program::new(64);
    program.kernel.arrive(0, false);
    program.receive();
    for (queue, id) in [(0, 2), (7, 1)] {
        let mut bytes = [0; VerdictMessage::BYTES_MAX];
        let message =
            VerdictMessage { queue, id: PacketId(id), verdict: Verdict::ACCEPT, batch: false };
        let length = message.encode(&mut bytes);
        let sent =
            program.serving.send(&bytes[..length], true, &mut program.kernel, || Err(libc::EPERM));
        assert_eq!(sent, SentAs::Itself(Err(libc::EPERM)), "queue {queue}, id {id}");
    }
}

#[test]
fn replies_to_our_own_requests_are_hidden_and_others_are_not() {
    let mut program = Program::serving(4);
    program.serving.expect_own_replies();
    program.kernel.buffer.extend([reply(OWN_SEQUENCE), reply(3), reply(OWN_SEQUENCE)]);
    assert_eq!(program.next(), Next::Take);
    assert_eq!(program.serving.ring.front().unwrap().bytes, reply(3));
    program.serving.ring.pop();
    assert!(program.serving.ring.is_empty());
    assert!(!program.is_back(&reply(OWN_SEQUENCE)));
}

#[test]
fn a_reply_to_our_own_request_is_not_seen_by_one_that_only_looks() {
    let mut program = Program::serving(4);
    let Program { serving, kernel, .. } = &mut program;
    assert!(serving.peeked_by_program(&reply(OWN_SEQUENCE), kernel), "no request went out");
    serving.expect_own_replies();
    kernel.buffer.extend([reply(OWN_SEQUENCE), reply(3)]);
    assert!(!serving.peeked_by_program(&reply(OWN_SEQUENCE), kernel));
    assert_eq!((kernel.buffer.len(), serving.ring.is_empty()), (1, true), "it is gone");
    assert!(serving.peeked_by_program(&reply(3), kernel));
    // Another thread has taken the reply meanwhile: what is there instead is kept for the program.
    assert!(!serving.peeked_by_program(&reply(OWN_SEQUENCE), kernel));
    assert_eq!(serving.ring.front().unwrap().bytes, reply(3));
}

/// The kernel's refusal of a request with this number.
fn reply(sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    bytes[0..4].copy_from_slice(&36_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[16..20].copy_from_slice(&(-95_i32).to_ne_bytes());
    bytes[24..26].copy_from_slice(&0x0302_u16.to_ne_bytes());
    bytes[28..32].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

#[test]
fn a_queue_that_is_given_up_and_taken_again_begins_anew() {
    let mut program = Program::new(4);
    program.kernel.arrive(0, false);
    program.receive();
    let mut bytes = [0; QueueRequest::BYTES_MAX];
    let requests =
        [QueueRequest::unbind(0), QueueRequest::bind(0, CopyRange::Full, 9, ConfigFlags::NONE)];
    for request in requests {
        let length = request.encode(&mut bytes);
        let sent = program.serving.send(&bytes[..length], true, &mut program.kernel, || Ok(length));
        assert_eq!(sent, SentAs::Itself(Ok(length)));
    }
    program.kernel.ids[0] = 0;
    program.kernel.waiting[0].clear();
    (0..3).for_each(|_| program.kernel.arrive(0, false));
    program.out.clear();
    while program.receive().is_some() {
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert_eq!((program.kernel.applied.len(), program.kernel.sends), (3, 2));
}

const QUEUES: usize = 2;
