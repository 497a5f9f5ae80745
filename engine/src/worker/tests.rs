//! Goal: the real worker loop answers every packet once and counts what it cannot, whatever the kernel does.
//! Method: a simulated kernel at the `Port` seam plays a script of arrivals and faults, and applies verdicts as the
//! real one does.

mod deferral;
mod drain;
mod faults;
mod overload;
mod release;
mod simulation;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::kernel_table::KernelRow;
use crate::nfq::sample::Sample;
use crate::overload::OverloadConfig;
use crate::sys::ReceiveRing;

const QUEUE: u16 = 3;

/// What the next receive finds, one step a receive.
enum Step {
    /// So many packets are queued and their messages delivered.
    Packets(u32),
    /// So many packets are given ids and lost, as the socket has no room.
    Lost(u32),
    /// A datagram as it is.
    Raw(Vec<u8>),
    /// The receive fails.
    Fail(i32),
}

/// The kernel's side of one queue.
struct SimulatedKernel {
    script: VecDeque<Step>,
    shared: Arc<WorkerShared>,
    stop_limit: Duration,
    batch: usize,
    next_id: u32,
    waiting: BTreeSet<u32>,
    verdicts: BTreeMap<u32, u32>,
    rewritten: BTreeMap<u32, Vec<u8>>,
    delivered: VecDeque<Vec<u8>>,
    ring: ReceiveRing,
    early: Vec<Vec<u8>>,
    gate_shut: bool,
    /// Packets that came after that: the real kernel drops them.
    came_too_late: u32,
    copy_ranges: Vec<u32>,
    send_failures: u32,
    /// How long a wait for packets takes.
    pause_on_wait: Duration,
    /// Whether the order at the script's end is to leave the queue.
    releases: bool,
}

impl SimulatedKernel {
    fn new(shared: &Arc<WorkerShared>, script: impl IntoIterator<Item = Step>) -> Self {
        Self {
            script: script.into_iter().collect(),
            shared: Arc::clone(shared),
            stop_limit: Duration::from_secs(60),
            batch: 64,
            next_id: 1,
            waiting: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            rewritten: BTreeMap::new(),
            delivered: VecDeque::new(),
            ring: ReceiveRing::new(64, 128, 0).unwrap(),
            early: Vec::new(),
            gate_shut: false,
            came_too_late: 0,
            copy_ranges: Vec::new(),
            send_failures: 0,
            pause_on_wait: Duration::ZERO,
            releases: false,
        }
    }

    /// Queues one packet and returns its message.
    fn queue_packet(&mut self) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id);
        self.came_too_late += u32::from(self.gate_shut);
        Sample::packet(QUEUE, id, 1, &[0x45; 40])
    }

    /// A new maxlen or a new copy range.
    fn apply_config(&mut self, message: &[u8]) {
        match message[22] {
            2 => self.copy_ranges.push(u32::from_be_bytes(message[24..28].try_into().unwrap())),
            _ => self.gate_shut = true,
        }
    }

    fn apply_verdict(&mut self, kind: u8, message: &[u8]) {
        let field = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        let (code, id) = (field(24), field(28));
        if message.len() > 32 && message[34] == 10 {
            let end = 32 + usize::from(u16::from_ne_bytes([message[32], message[33]]));
            self.rewritten.insert(id, message[36..end].to_vec());
        }
        let first = if kind == 3 { 0 } else { id };
        let hit: Vec<u32> = self.waiting.range(first..=id).copied().collect();
        if hit.is_empty() {
            self.delivered.push_back(Sample::error(libc::ENOENT, 0x0300 | u16::from(kind), id));
        }
        for id in hit {
            self.waiting.remove(&id);
            self.verdicts.insert(id, code);
        }
    }
}

impl Port for SimulatedKernel {
    fn receive(&mut self, block: bool) -> Result<usize, ReceiveError> {
        match self.script.pop_front() {
            Some(Step::Packets(count)) => {
                for _ in 0..count {
                    let message = self.queue_packet();
                    self.delivered.push_back(message);
                }
            }
            Some(Step::Lost(count)) => self.next_id += count,
            Some(Step::Raw(datagram)) => self.delivered.push_back(datagram),
            Some(Step::Fail(libc::ENOBUFS)) => return Err(ReceiveError::Overrun),
            Some(Step::Fail(errno)) => {
                return Err(ReceiveError::Fatal(io::Error::from_raw_os_error(errno)));
            }
            None if self.releases => self.shared.order_release(self.stop_limit),
            None => self.shared.order_stop(self.stop_limit),
        }
        let take = self.delivered.len().min(self.batch);
        let received: Vec<_> = self.delivered.drain(..take).collect();
        self.ring.simulate_receive(&received);
        if received.is_empty() && !block { Err(ReceiveError::Nothing) } else { Ok(take) }
    }

    fn kernel_row(&self) -> Option<KernelRow> {
        Some(KernelRow {
            queue: QUEUE,
            port_id: 1,
            queue_total: self.waiting.len() as u64,
            copy_mode: 2,
            copy_range: 65_531,
            queue_dropped: 0,
            user_dropped: 0,
            id_sequence: self.next_id - 1,
        })
    }

    fn wait(&self, _limit: Duration) -> io::Result<()> {
        std::thread::sleep(self.pause_on_wait);
        Ok(())
    }

    fn ring(&self) -> &ReceiveRing {
        &self.ring
    }

    fn ring_mut(&mut self) -> &mut ReceiveRing {
        &mut self.ring
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        if self.send_failures > 0 {
            self.send_failures -= 1;
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let mut rest = messages;
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[0..4].try_into().unwrap()) as usize;
            match rest[4] {
                2 => self.apply_config(&rest[..length]),
                kind => self.apply_verdict(kind, &rest[..length]),
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    fn take_early(&mut self) -> Option<Vec<u8>> {
        self.early.pop()
    }
}

thread_local! {
    static MEANWHILE: RefCell<Box<dyn FnMut()>> = RefCell::new(Box::new(|| {}));
}

/// Has this happen whenever a worker of this test waits for answers, in place of waiting.
fn while_waiting(gate: &mut Gate, happens: impl FnMut() + 'static) {
    MEANWHILE.set(Box::new(happens));
    gate.meanwhile = Some(|| MEANWHILE.with_borrow_mut(|happens| happens()));
}

/// Accepts odd ids of every three, drops the rest, so that runs are short.
struct Thirds {
    batches: u32,
}

impl Inspector for Thirds {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if packet.id().0.is_multiple_of(3) { Verdict::DROP } else { Verdict::ACCEPT }
    }

    fn batch_end(&mut self, _now: Timestamp) {
        self.batches += 1;
    }
}

/// Runs a worker over the script to its end.
fn run(
    script: impl IntoIterator<Item = Step>,
    fail_open: bool,
    change: impl FnOnce(&mut SimulatedKernel),
) -> (Result<(), WorkerError>, SimulatedKernel, Arc<WorkerShared>) {
    run_with(Thirds { batches: 0 }, script, fail_open, change)
}

fn run_with(
    inspector: impl Inspector,
    script: impl IntoIterator<Item = Step>,
    fail_open: bool,
    change: impl FnOnce(&mut SimulatedKernel),
) -> (Result<(), WorkerError>, SimulatedKernel, Arc<WorkerShared>) {
    run_deferring(inspector, None, script, fail_open, change)
}

fn run_deferring(
    inspector: impl Inspector,
    gate: Option<Gate>,
    script: impl IntoIterator<Item = Step>,
    fail_open: bool,
    change: impl FnOnce(&mut SimulatedKernel),
) -> (Result<(), WorkerError>, SimulatedKernel, Arc<WorkerShared>) {
    run_configured(inspector, gate, None, script, fail_open, change)
}

fn run_configured(
    inspector: impl Inspector,
    gate: Option<Gate>,
    overload: Option<OverloadConfig>,
    script: impl IntoIterator<Item = Step>,
    fail_open: bool,
    change: impl FnOnce(&mut SimulatedKernel),
) -> (Result<(), WorkerError>, SimulatedKernel, Arc<WorkerShared>) {
    let shared = Arc::new(WorkerShared::new(fail_open));
    let mut kernel = SimulatedKernel::new(&shared, script);
    change(&mut kernel);
    let mut config = EngineConfig::new("3".parse().unwrap());
    config.overload = overload;
    let worker = Worker::new(QUEUE, kernel, inspector, Wait::Block, Arc::clone(&shared), gate);
    let mut worker = worker.watching(&config);
    let result = worker.run();
    let (kernel, _next_id) = worker.into_parts();
    (result, kernel, shared)
}

#[test]
fn every_packet_gets_its_verdict_and_the_gate_is_shut() {
    let script = [Step::Packets(64), Step::Packets(1), Step::Packets(200), Step::Packets(0)];
    let (result, kernel, shared) = run(script, false, |_| {});
    result.unwrap();
    assert!(kernel.waiting.is_empty() && kernel.gate_shut);
    assert_eq!(kernel.verdicts.len(), 265);
    assert!(kernel.verdicts.iter().all(|(id, code)| (*code == 0) == id.is_multiple_of(3)));
    let counts = shared.counters.snapshot();
    assert_eq!((counts.packets, counts.accepted, counts.dropped), (265, 177, 88));
    assert_eq!(counts.bytes, 265 * 40);
    assert_eq!(counts.hooks[1], 265);
    assert_eq!((counts.id_gaps, counts.verdict_errors, counts.malformed), (0, 0, 0));
    assert_eq!((counts.recv_calls, counts.send_calls), (6, 6), "64, 1, then 200 in four batches");
}

/// Rewrites in every way that packets allow and refuse.
struct Rewriter;

impl Inspector for Rewriter {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        match packet.id().0 {
            1 => packet.payload_mut().unwrap()[0] = 0x46,
            2 => packet.replace(&[0x45; 60]).unwrap(),
            3 => assert!(packet.replace(&[0x45; 5]).is_err()),
            4 => {
                packet.payload_mut().unwrap()[0] = 0x47;
                return Verdict::DROP;
            }
            5 => packet.conntrack_mut().mark = Some((1, 1)),
            _ => assert_eq!(packet.payload(), [0x45; 40], "the next packet has no old edits"),
        }
        Verdict::ACCEPT
    }
}

#[test]
fn rewritten_packets_go_out_with_their_verdicts_and_refused_ones_do_not_pass() {
    let (result, kernel, shared) = run_with(Rewriter, [Step::Packets(8)], false, |_| {});
    result.unwrap();
    assert!(kernel.waiting.is_empty());
    let mut first = vec![0x45; 40];
    first[0] = 0x46;
    let rewritten: Vec<_> = kernel.rewritten.into_iter().collect();
    assert_eq!(rewritten, [(1, first), (2, vec![0x45; 60])]);
    let codes: Vec<_> = kernel.verdicts.values().copied().collect();
    assert_eq!(codes, [1, 1, 0, 0, 1, 1, 1, 1], "3 was refused, 4 dropped");
    let counts = shared.counters.snapshot();
    assert_eq!((counts.rewritten, counts.rewrites_refused), (2, 1));
}

#[test]
fn ids_that_never_came_are_counted() {
    let script = || [Step::Packets(3), Step::Lost(5), Step::Packets(2)];
    for (fail_open, uninspected) in [(false, 0), (true, 5)] {
        let (result, kernel, shared) = run(script(), fail_open, |_| {});
        result.unwrap();
        assert!(kernel.waiting.is_empty());
        let counts = shared.counters.snapshot();
        assert_eq!((counts.packets, counts.id_gaps, counts.uninspected), (5, 5, uninspected));
    }
}

#[test]
fn what_was_lost_behind_the_last_packet_is_counted_from_the_kernels_row() {
    let shared = WorkerShared::new(true);
    shared.count_last_gap(PacketId(10), 12, 0);
    shared.count_last_gap(PacketId(13), 12, 0);
    for unread in [3, 4, u64::MAX] {
        shared.count_last_gap(PacketId(10), 12, unread);
    }
    let counts = shared.counters.snapshot();
    assert_eq!((counts.id_gaps, counts.uninspected), (3, 3));
}

#[test]
fn broken_messages_are_counted_and_answered_where_they_have_an_id() {
    let script = [
        Step::Packets(1),
        Step::Raw(vec![1, 2, 3]),
        Step::Raw(Vec::new()),
        Step::Raw(Sample::new(QUEUE).attribute(10, b"nameless").finish()),
        Step::Raw(Sample::new(QUEUE).header(2, 1).attribute(3, &[1]).finish()),
        // That one took id 2.
        Step::Lost(1),
        Step::Packets(1),
    ];
    let (result, kernel, shared) = run(script, false, |kernel| {
        // The packet behind the broken message with an id is queued like any other.
        kernel.waiting.insert(2);
    });
    result.unwrap();
    let counts = shared.counters.snapshot();
    assert_eq!((counts.malformed, counts.undecodable), (3, 1));
    assert_eq!(kernel.verdicts.get(&2), Some(&0), "the inspector's `unseen` verdict is drop");
    assert!(kernel.waiting.is_empty());
    assert_eq!(counts.id_gaps, 0);
}

#[test]
fn refused_verdicts_are_counted_by_errno_and_survived() {
    let stale = |id| Step::Raw(Sample::error(libc::ENOENT, 0x0301, id));
    let acknowledgement = Step::Raw(Sample::error(0, 0x0302, 1));
    let script = [stale(9), Step::Packets(1), acknowledgement, stale(9)];
    let (result, _, shared) = run(script, false, |_| {});
    result.unwrap();
    let counts = shared.counters.snapshot();
    assert_eq!(counts.verdict_errors_by_errno, [(libc::ENOENT, 2)]);
    assert_eq!(counts.packets, 1);
}

#[test]
fn losing_the_capability_ends_the_worker() {
    let script = [Step::Packets(1), Step::Raw(Sample::error(libc::EPERM, 0x0303, 1))];
    let (result, _, _) = run(script, false, |_| {});
    assert!(matches!(result, Err(WorkerError::CapabilityLost { queue: QUEUE })));
}

#[test]
fn a_send_without_memory_is_tried_again() {
    let (result, kernel, shared) =
        run([Step::Packets(10)], false, |kernel| kernel.send_failures = 3);
    result.unwrap();
    assert_eq!(kernel.verdicts.len(), 10);
    assert_eq!(shared.counters.snapshot().send_retries, 3);
}

#[test]
fn overruns_are_counted_and_a_broken_socket_is_an_error() {
    let script = [Step::Fail(libc::ENOBUFS), Step::Packets(1), Step::Fail(libc::EBADF)];
    let (result, kernel, shared) = run(script, false, |_| {});
    assert!(matches!(result, Err(WorkerError::Receive { .. })));
    assert_eq!((shared.counters.snapshot().overruns, kernel.verdicts.len()), (1, 1));
}

#[test]
fn packets_that_came_during_the_set_up_are_answered_first() {
    let (result, kernel, _) = run([Step::Packets(2)], false, |kernel| {
        let (first, second) = (kernel.queue_packet(), kernel.queue_packet());
        kernel.early = vec![second, first];
    });
    result.unwrap();
    assert_eq!(kernel.verdicts.len(), 4);
    assert!(kernel.waiting.is_empty());
}

#[test]
fn without_time_to_drain_everything_gets_the_unseen_verdict() {
    let (result, kernel, shared) = run([Step::Packets(2)], false, |kernel| {
        kernel.stop_limit = Duration::ZERO;
        kernel.batch = 2;
        // These wait unread when the order to stop comes.
        for _ in 0..5 {
            let message = kernel.queue_packet();
            kernel.delivered.push_back(message);
        }
    });
    result.unwrap();
    assert!(kernel.waiting.is_empty(), "nothing stays queued");
    let counts = shared.counters.snapshot();
    assert!(counts.flushed > 0, "{counts:?}");
    assert_eq!(counts.packets + counts.flushed, 7);
}
