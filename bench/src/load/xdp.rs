//! Load made in the kernel: a BPF program that sees a stream of frames, lets one pass when it is due, and writes
//! flow, sequence number and due time into it.
//!
//! ```text
//! for each frame of the stream:                      the kernel runs this without a pause, on the sender's CPU
//!   first of all                      start = due = now + 2 ms
//!   index == total, or now < due      -> drop         nothing is due: the frame goes back to the pool
//!   slot = slots[index & mask]        due += slot.gap
//!   sent_at[index] = now
//!   write headers, destination, lengths, checksum, stamp; cut to the slot's size
//!   pass                                              into the stack, as if the interface had received it
//!   or redirect                                       to the other end of the wire, whose driver takes it up
//! ```
//!
//! The headers are written anew each time: a frame's page comes back to the pool as the stack left it, and a router
//! has put other addresses and another TTL into it.
//!
//! Invariant: one run makes at most `total` packets, each at its time or later, never earlier; when was it
//! really, is logged for each. The sender's CPU is busy all the time: looking at the clock is its way of waiting.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fanq::{CpuId, Timestamp};
use rustix::thread::{LinkNameSpaceType, Pid, move_into_link_name_space};

use super::SentLog;
use super::frame::{Offsets, Template};
use super::schedule::Schedule;
use crate::stamp::Stamp;
use crate::sys::{
    self, Assembler, Instruction, Program, ProgramKind, Register, SharedBytes, When, Width,
};

/// Where frames come into the stack.
#[derive(Debug)]
pub(crate) enum Entry {
    /// By this interface, on the sender's CPU.
    Receive(u32),
    /// Over the wire: out of this interface of that namespace, and in where the driver of the other end takes it up.
    Wire { interface: u32, namespace: File },
}

impl Entry {
    fn interface(&self) -> u32 {
        match self {
            Self::Receive(interface) | Self::Wire { interface, .. } => *interface,
        }
    }
}

/// One CPU's load, ready to run.
#[derive(Debug)]
pub(crate) struct XdpSender {
    cpu: CpuId,
    entry: Entry,
    template: Template,
    schedule: Arc<Schedule>,
    total: u64,
    program: Program,
    state: SharedBytes,
    sent_at: SharedBytes,
    alone: bool,
}

impl XdpSender {
    /// Loads the program for `total` packets of this schedule.
    pub(crate) fn new(
        cpu: CpuId,
        entry: Entry,
        template: Template,
        schedule: Arc<Schedule>,
        total: u64,
    ) -> anyhow::Result<Self> {
        if template.bytes().len() > FRAME_BYTES_MAX {
            bail!(
                "frames made in the kernel have at most {FRAME_BYTES_MAX} bytes, one page less its overhead; use --load udp for larger ones"
            );
        }
        let log_slots = usize::try_from(total)?.next_power_of_two();
        if log_slots > PACKETS_MAX {
            bail!("{total} packets for one sender are too many: {PACKETS_MAX} at most");
        }
        let slots = SharedBytes::new(schedule.slots().len() * SLOT_BYTES)?;
        slots.write(&encode_slots(&template, &schedule))?;
        let headers = SharedBytes::new(HEADER_BYTES_MAX)?;
        headers.write(&template.bytes()[..template.offsets().stamp + Stamp::BYTES])?;
        let state = SharedBytes::new(STATE_BYTES)?;
        let sent_at = SharedBytes::new(log_slots * 8)?;
        let text = ProgramText {
            state: state.fd(),
            headers: headers.fd(),
            slots: slots.fd(),
            slot_mask: i32::try_from(schedule.slots().len() - 1)?,
            sent_at: sent_at.fd(),
            sent_at_mask: i32::try_from(log_slots - 1)?,
            offsets: template.offsets(),
            paced: schedule.is_paced(),
            redirect_to: match entry {
                Entry::Receive(_) => None,
                Entry::Wire { interface, .. } => Some(i32::try_from(interface)?),
            },
            cuts: schedule
                .slots()
                .iter()
                .any(|slot| usize::from(slot.frame_bytes) != template.bytes().len()),
        };
        let program = Program::load(ProgramKind::Xdp, &text.assemble())?;
        Ok(Self { cpu, entry, template, schedule, total, program, state, sent_at, alone: false })
    }

    /// Sends. Runs on a thread of its own in the receiving namespace, which it pins, and takes to the namespace of a
    /// wire; returns when all are sent, or when [`SenderHandle::end`] is called.
    pub(crate) fn run(&self, handle: &SenderHandle) -> anyhow::Result<SentLog> {
        if !fanq::pin_to(self.cpu) {
            bail!("cannot pin a sender to CPU {}: it is offline or outside the cpuset", self.cpu);
        }
        if self.alone {
            // Without the right to it, the sender has to share its CPU with what else runs there.
            let _ = rustix::process::nice(NICENESS);
        }
        if let Entry::Wire { namespace, .. } = &self.entry {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering the namespace that the load comes from")?;
        }
        handle.announce();
        let mut state = [0; STATE_BYTES];
        state[16..24].copy_from_slice(&self.total.to_ne_bytes());
        self.state.write(&state)?;
        let repeat = if self.schedule.is_paced() { u32::MAX } else { u32::try_from(self.total)? };
        let ran = self.program.run_live(self.template.bytes(), self.entry.interface(), repeat);
        handle.withdraw();
        ran.context("running the load's BPF program")?;
        let State { start, sent, .. } = self.state()?;
        let mut times = u64s(&self.sent_at.read()?);
        times.truncate(usize::try_from(sent)?);
        let schedule = Arc::clone(&self.schedule);
        Ok(SentLog { start, schedule, times, fragments: 0.0 })
    }

    /// Nothing that is measured runs on the sender's CPU: it may take it whole.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn state(&self) -> anyhow::Result<State> {
        let fields = u64s(&self.state.read()?);
        Ok(State { sent: fields[1], start: Timestamp(fields[3]) })
    }

    /// Waits until all are sent, or until they are so late that they will not be, and ends the run. A run without a
    /// pace ends by itself.
    pub(crate) fn watch(&self, handle: &SenderHandle) -> anyhow::Result<()> {
        if !self.schedule.is_paced() {
            return Ok(());
        }
        let last_due_ns = self.schedule.due_ns(self.total.saturating_sub(1));
        let mut give_up = Timestamp(Timestamp::now().0 + BEGIN_MAX_NS);
        let mut has_begun = false;
        while !handle.is_over() && Timestamp::now() < give_up {
            let State { start, sent } = self.state()?;
            if sent >= self.total {
                break;
            }
            if start.0 > 0 && !has_begun {
                has_begun = true;
                let last_due = Timestamp(start.0 + last_due_ns);
                give_up = Timestamp(last_due.0 + LATE_MAX_NS);
                std::thread::sleep(last_due.since(Timestamp::now()));
            }
            std::thread::sleep(WATCH_EVERY);
        }
        handle.end();
        Ok(())
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
struct State {
    sent: u64,
    /// When the first packet was due; 0 before.
    start: Timestamp,
}

/// The way to end a run from another thread: a signal to its thread.
#[derive(Debug)]
pub(crate) struct SenderHandle {
    thread: Mutex<Running>,
}

#[derive(Debug, Clone, Copy)]
enum Running {
    NotYet,
    On(Pid),
    Over,
}

impl SenderHandle {
    /// Makes the signal harmless to this process, for good.
    pub(crate) fn new() -> anyhow::Result<Self> {
        static HARMLESS: OnceLock<bool> = OnceLock::new();
        let harmless = *HARMLESS.get_or_init(|| {
            let ignored = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(sys::INTERRUPTION, ignored).is_ok()
        });
        ensure!(harmless, "no handler could be set for the signal that ends a sender");
        Ok(Self { thread: Mutex::new(Running::NotYet) })
    }

    fn set(&self, running: Running) {
        *self.thread.lock().expect("nobody panics while holding it") = running;
    }

    fn announce(&self) {
        self.set(Running::On(rustix::thread::gettid()));
    }

    fn withdraw(&self) {
        self.set(Running::Over);
    }

    fn is_over(&self) -> bool {
        matches!(*self.thread.lock().expect("nobody panics while holding it"), Running::Over)
    }

    /// Ends the run. The lock is held meanwhile, so the thread cannot have ended and its id not been given again.
    pub(crate) fn end(&self) {
        while let Running::On(thread) = *self.thread.lock().expect("nobody panics while holding it")
        {
            sys::interrupt(thread);
            // A signal that came just before the run did is lost: again.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the program is assembled from.
#[derive(Debug)]
struct ProgramText {
    state: i32,
    headers: i32,
    slots: i32,
    slot_mask: i32,
    sent_at: i32,
    sent_at_mask: i32,
    offsets: Offsets,
    paced: bool,
    redirect_to: Option<i32>,
    cuts: bool,
}

impl ProgramText {
    /// `R6` context, `R7` now, `R8` index, `R9` state; then `R3` slot, `R4` packet, `R1` due.
    fn assemble(&self) -> Vec<Instruction> {
        use Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
        use Width::{Double, Word};
        let mut program = Assembler::default();
        let nothing_due = program.label();
        program.copy(R6, R1);
        program.load_map(R9, self.state);
        program.load(Double, R8, R9, STATE_SENT);
        program.load(Double, R2, R9, STATE_TOTAL);
        program.jump_if(R8, When::GreaterOrEqual, R2, nothing_due);
        program.call(sys::KTIME_GET_NS);
        program.copy(R7, R0);
        if self.paced {
            let begun = program.label();
            program.load(Double, R1, R9, STATE_DUE);
            program.jump_if_value(R1, When::NotEqual, 0, begun);
            program.copy(R1, R7);
            program.add_value(R1, LEAD_NS);
            program.store(Double, R9, STATE_START, R1);
            program.store(Double, R9, STATE_DUE, R1);
            program.place(begun);
            program.jump_if(R7, When::Less, R1, nothing_due);
        } else {
            program.copy(R1, R7);
        }

        program.load(Word, R4, R6, CONTEXT_DATA);
        program.load(Word, R5, R6, CONTEXT_DATA_END);
        program.copy(R2, R4);
        let end = self.offsets.stamp + Stamp::BYTES;
        program.add_value(R2, i32::try_from(end).expect("headers are short"));
        program.jump_if(R2, When::Greater, R5, nothing_due);

        program.copy(R2, R8);
        program.mask(R2, self.slot_mask);
        program.shift_left(R2, SLOT_BYTES.ilog2().cast_signed());
        program.load_map(R3, self.slots);
        program.add(R3, R2);
        if self.paced {
            program.load(Word, R2, R3, SLOT_GAP);
            program.add(R2, R1);
            program.store(Double, R9, STATE_DUE, R2);
        }
        program.copy(R2, R8);
        program.mask(R2, self.sent_at_mask);
        program.shift_left(R2, 3);
        program.load_map(R5, self.sent_at);
        program.add(R5, R2);
        program.store(Double, R5, 0, R7);
        program.copy(R2, R8);
        program.add_value(R2, 1);
        program.store(Double, R9, STATE_SENT, R2);

        self.write_packet(&mut program);
        if let Some(interface) = self.redirect_to {
            program.set(R1, interface);
            program.set(R2, 0);
            program.call(sys::REDIRECT);
            program.give_back_result();
        } else {
            program.give_back(sys::XDP_PASS);
        }
        program.place(nothing_due);
        program.give_back(sys::XDP_DROP);
        program.finish()
    }

    fn write_packet(&self, program: &mut Assembler) {
        use Register::{R1, R2, R3, R4, R5, R6, R8};
        use Width::{Double, Half, Word};
        let at = self.offsets;
        let offset = |bytes: usize| i16::try_from(bytes).expect("headers are short");
        program.load_map(R5, self.headers);
        let end = at.stamp + Stamp::BYTES;
        let mut from = 0;
        while from < end {
            let (width, bytes) = match end - from {
                8.. => (Double, 8),
                4..8 => (Word, 4),
                _ => (Half, 2),
            };
            program.load(width, R2, R5, offset(from));
            program.store(width, R4, offset(from), R2);
            from += bytes;
        }
        let mut copy = |width, from, to| {
            program.load(width, R2, R3, from);
            program.store(width, R4, offset(to), R2);
        };
        copy(Word, SLOT_DESTINATION, at.destination);
        copy(Word, SLOT_FLOW, at.stamp + Stamp::FLOW);
        copy(Half, SLOT_IP_LENGTH, at.ip_length);
        copy(Half, SLOT_UDP_LENGTH, at.udp_length);
        if let Some(checksum) = at.ip_checksum {
            copy(Half, SLOT_IP_CHECKSUM, checksum);
        }
        program.copy(R2, R8);
        program.network_order(R2, 64);
        program.store(Double, R4, offset(at.stamp + Stamp::SEQUENCE), R2);
        program.network_order(R1, 64);
        program.store(Double, R4, offset(at.stamp + Stamp::SENT_NS), R1);
        if self.cuts {
            program.load(Word, R2, R3, SLOT_CUT);
            program.copy(R1, R6);
            program.call(sys::XDP_ADJUST_TAIL);
        }
    }
}

/// The schedule as the program reads it.
fn encode_slots(template: &Template, schedule: &Schedule) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(schedule.slots().len() * SLOT_BYTES);
    for slot in schedule.slots() {
        let changes = template.changes(*slot);
        let longest = i32::try_from(template.bytes().len()).expect("frames are short");
        bytes.extend(slot.gap_ns.to_ne_bytes());
        bytes.extend(changes.destination);
        bytes.extend(changes.flow);
        bytes.extend(changes.ip_length);
        bytes.extend(changes.udp_length);
        bytes.extend(changes.ip_checksum);
        bytes.extend([0; 2]);
        bytes.extend((i32::from(changes.frame_bytes) - longest).to_ne_bytes());
        bytes.extend([0; 8]);
    }
    bytes
}

/// A map's value as the numbers that it holds.
pub(crate) fn u64s(bytes: &[u8]) -> Vec<u64> {
    let numbers = bytes.as_chunks::<8>().0.iter();
    numbers.map(|number| u64::from_ne_bytes(*number)).collect()
}

/// State: when the next packet is due, how many were sent, how many are to be, when the first was due.
const STATE_DUE: i16 = 0;
const STATE_SENT: i16 = 8;
const STATE_TOTAL: i16 = 16;
const STATE_START: i16 = 24;
const STATE_BYTES: usize = 32;

/// From the run's beginning to its first packet.
const LEAD_NS: i32 = 2_000_000;

/// Slot, in the order of [`encode_slots`].
const SLOT_GAP: i16 = 0;
const SLOT_DESTINATION: i16 = 4;
const SLOT_FLOW: i16 = 8;
const SLOT_IP_LENGTH: i16 = 12;
const SLOT_UDP_LENGTH: i16 = 14;
const SLOT_IP_CHECKSUM: i16 = 16;
const SLOT_CUT: i16 = 20;
const SLOT_BYTES: usize = 32;

/// Room for the longest headers and a stamp.
const HEADER_BYTES_MAX: usize = 128;

/// `struct xdp_md`
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;

/// A page less the headroom and the tail that `net/bpf/test_run.c` keeps.
const FRAME_BYTES_MAX: usize = 3_400;

/// Of a sender that has a CPU for itself.
const NICENESS: i32 = -20;

/// The logs of one sender take 8 bytes a packet in the kernel.
pub(crate) const PACKETS_MAX: usize = 1 << 24;

/// A run takes about 25 ms to begin.
const BEGIN_MAX_NS: u64 = 5_000_000_000;
/// A sender that is later than this is ended.
const LATE_MAX_NS: u64 = 500_000_000;
const WATCH_EVERY: Duration = Duration::from_millis(3);
