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

mod program;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fanq::{CpuId, Timestamp};
use rustix::thread::{LinkNameSpaceType, Pid, move_into_link_name_space};

use program::{HEADER_BYTES_MAX, ProgramText, SLOT_BYTES, STATE_BYTES, encode_slots};

use super::SentLog;
use super::frame::Template;
use super::schedule::Schedule;
use crate::stamp::Stamp;
use crate::sys::{self, Program, ProgramKind, SharedBytes};

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

/// A map's value as the numbers that it holds.
pub(crate) fn u64s(bytes: &[u8]) -> Vec<u64> {
    let numbers = bytes.as_chunks::<8>().0.iter();
    numbers.map(|number| u64::from_ne_bytes(*number)).collect()
}

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
