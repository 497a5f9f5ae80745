//! One queue's kernel side in memory, as net/netfilter/nfnetlink_queue.c has it: a queue of limited length, a socket of
//! limited room, ids that count up and wrap, verdicts for one packet or for all up to an id.
//!
//! Invariant: each packet that came has one outcome, or waits. What is not asked of it here it refuses.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::*;
use super::World;
use super::chance::Chance;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Verdict(Verdict),
    /// The socket had no room: it has an id that never came.
    Lost,
    /// A base chain was deleted while it waited.
    Reloaded,
}

pub(super) struct Kernel {
    shared: Arc<WorkerShared>,
    first_id: u32,
    next_id: u32,
    maxlen: u32,
    room: usize,
    reloads: u32,
    /// Packets that wait, by when they came.
    queue: BTreeMap<u32, u32>,
    socket: VecDeque<Vec<u8>>,
    outcomes: HashMap<u32, Outcome>,
    decided: HashMap<u32, Verdict>,
    steps_left: u32,
    stop_limit: Duration,
    send_failures: u32,
}

impl Kernel {
    pub(super) fn new(chance: &mut Chance, shared: &Arc<WorkerShared>, stop_at_once: bool) -> Self {
        // Often just before the wrap.
        let first_id = if chance.hits(400) { 0_u32.wrapping_sub(chance.below(200)) } else { 1 };
        Self {
            shared: Arc::clone(shared),
            first_id,
            next_id: first_id,
            maxlen: [20, 100, 1000][chance.below(3) as usize],
            room: [30, 200, 5000][chance.below(3) as usize],
            reloads: if chance.hits(150) { 20 } else { 0 },
            queue: BTreeMap::new(),
            socket: VecDeque::new(),
            outcomes: HashMap::new(),
            decided: HashMap::new(),
            steps_left: 5 + chance.below(60),
            stop_limit: if stop_at_once { Duration::ZERO } else { Duration::from_secs(600) },
            send_failures: 0,
        }
    }

    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(super) fn ids_given(&self) -> u64 {
        u64::from(self.next_id.wrapping_sub(self.first_id))
    }

    pub(super) fn nothing_waits(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.socket.is_empty()
    }

    /// Whether the worker is to stop.
    pub(super) fn is_over(&self) -> bool {
        self.steps_left == 0
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (u32, Outcome)> + '_ {
        self.outcomes.iter().map(|(id, outcome)| (*id, *outcome))
    }

    pub(super) fn decided(&self, id: u32) -> Option<Verdict> {
        self.decided.get(&id).copied()
    }

    /// Notes what a packet's inspector, or whoever it was deferred to, decided.
    pub(super) fn decide(&mut self, id: u32, verdict: Verdict) {
        self.decided.insert(id, verdict);
    }

    /// Packets come: each finds room, or does not.
    pub(super) fn arrive(&mut self, count: u32) {
        for _ in 0..count {
            if self.queue.len() >= self.maxlen as usize {
                continue; // Counted by the kernel; it has no id.
            }
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            if self.socket.len() >= self.room {
                self.outcomes.insert(id, Outcome::Lost);
                continue;
            }
            let message = if id % 97 == 13 {
                Sample::new(QUEUE).header(id, 1).attribute(3, &[1]).finish()
            } else {
                Sample::packet(QUEUE, id, 1, &[0x45; 40])
            };
            self.socket.push_back(message);
            self.queue.insert(id.wrapping_sub(self.first_id), id);
        }
    }

    /// What happens between two receives.
    fn step(&mut self, chance: &mut Chance) {
        if self.steps_left == 0 {
            return self.shared.order_stop(self.stop_limit);
        }
        self.steps_left -= 1;
        let burst = if chance.hits(100) { 150 } else { 12 };
        self.arrive(chance.below(burst));
        if chance.hits(self.reloads) {
            for (_, id) in std::mem::take(&mut self.queue) {
                self.outcomes.insert(id, Outcome::Reloaded);
            }
        }
        if chance.hits(50) {
            let junk = [
                vec![1, 2, 3],
                Sample::error(libc::ENOENT, 0x0301, chance.below(1000)),
                Sample::error(0, 0x0302, 1),
                Sample::new(QUEUE).attribute(10, b"nameless").finish(),
            ];
            let [a, b, c, d] = junk;
            let which = match chance.below(4) {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
            self.socket.push_back(which);
        }
        self.send_failures = if chance.hits(30) { chance.below(5) } else { 0 };
    }

    fn apply(&mut self, message: &[u8]) {
        let field = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        let kind = message[4];
        if kind == 2 {
            // The length of the queue is all that this side sets while it runs.
            assert_eq!((message[22], field(24)), (3, 0), "an unexpected request");
            self.maxlen = 0;
            return;
        }
        let (code, id) = (field(24), field(28));
        let verdict = match code {
            0 => Verdict::DROP,
            1 => Verdict::ACCEPT,
            4 => Verdict::REPEAT,
            other => panic!("an unexpected verdict {other}"),
        };
        let verdict = match mark(&message[32..]) {
            Some(mark) => verdict.with_mark(mark),
            None => verdict,
        };
        let place = id.wrapping_sub(self.first_id);
        let hit: Vec<u32> = match kind {
            // An id before the first is none that was ever given.
            3 if place < 1 << 31 => {
                self.queue.range(..=place.min(MAX_PLACE)).map(|(at, _)| *at).collect()
            }
            1 => self.queue.contains_key(&place).then_some(place).into_iter().collect(),
            _ => Vec::new(),
        };
        if hit.is_empty() && self.socket.len() < self.room {
            let refused = Sample::error(libc::ENOENT, 0x0300 | u16::from(kind), id);
            self.socket.push_back(refused);
        }
        for place in hit {
            let id = self.queue.remove(&place).unwrap();
            let before = self.outcomes.insert(id, Outcome::Verdict(verdict));
            assert_eq!(before, None, "packet {id} has two outcomes");
        }
    }
}

/// What follows a verdict's header: a mark, a payload.
fn mark(mut attributes: &[u8]) -> Option<u32> {
    while let [low, high, kind, _, body @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*low, *high]));
        if *kind == 3 {
            return body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Places count from the first id on; none is so far.
const MAX_PLACE: u32 = u32::MAX >> 1;

/// The queue's socket, as the worker or as the watchdog has it.
pub(super) struct SimulatedPort {
    world: World,
    outside: bool,
    ring: ReceiveRing,
}

impl World {
    pub(super) fn port(&self, outside: bool) -> SimulatedPort {
        SimulatedPort { world: self.clone(), outside, ring: ReceiveRing::new(64, 128, 0).unwrap() }
    }
}

impl SimulatedPort {
    /// What happens while the worker receives; the error that the receive then has, if any.
    fn between_receives(&self, block: bool) -> Result<(), ReceiveError> {
        let World { chance, kernel, traits, .. } = &self.world;
        kernel.borrow_mut().step(&mut chance.borrow_mut());
        if chance.borrow_mut().hits(traits.stops) {
            self.world.hang();
        }
        match chance.borrow_mut().below(100) {
            // The kernel has this for receives that wait.
            0 if block => Err(ReceiveError::Nothing), // EINTR
            1 => Err(ReceiveError::Overrun),
            _ => Ok(()),
        }
    }
}

impl Port for SimulatedPort {
    fn receive(&mut self, block: bool) -> Result<usize, ReceiveError> {
        let mut most = 64;
        if !self.outside {
            self.between_receives(block)?;
            let mut chance = self.world.chance.borrow_mut();
            let short = u32::try_from(super::BATCH).unwrap();
            most = if chance.hits(300) { 1 + chance.below(short) } else { short } as usize;
        }
        let mut kernel = self.world.kernel.borrow_mut();
        let take = kernel.socket.len().min(most);
        let received: Vec<_> = kernel.socket.drain(..take).collect();
        self.ring.simulate_receive(&received);
        if take == 0 && !block { Err(ReceiveError::Nothing) } else { Ok(take) }
    }

    fn wait(&self, _limit: Duration) -> io::Result<()> {
        Ok(())
    }

    fn ring(&self) -> &ReceiveRing {
        &self.ring
    }

    fn ring_mut(&mut self) -> &mut ReceiveRing {
        &mut self.ring
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let mut kernel = self.world.kernel.borrow_mut();
        if kernel.send_failures > 0 {
            kernel.send_failures -= 1;
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let mut rest = messages;
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[0..4].try_into().unwrap()) as usize;
            kernel.apply(&rest[..length]);
            rest = &rest[length..];
        }
        Ok(())
    }

    fn kernel_row(&self) -> Option<KernelRow> {
        let kernel = self.world.kernel.borrow();
        Some(KernelRow {
            queue: QUEUE,
            port_id: 1,
            queue_total: kernel.queue.len() as u64,
            copy_mode: 2,
            copy_range: 65_531,
            queue_dropped: 0,
            user_dropped: 0,
            id_sequence: kernel.next_id.wrapping_sub(1),
        })
    }

    fn is_readable(&self) -> bool {
        !self.world.kernel.borrow().socket.is_empty()
    }
}
