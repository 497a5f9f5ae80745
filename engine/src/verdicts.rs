//! The coalescer: turns verdicts, packet by packet, into as few messages as the kernel allows.
//!
//! A batch verdict covers *every* queued id up to its own. From that follow the rules, and this module alone
//! keeps them:
//!
//! 1. While an older packet is held back ([`Coalescer::hold`]), everything goes out one by one. The oldest that is
//!    held has no such neighbour: when it is answered, it may open a run, and the next oldest may join that.
//! 2. A run of equal verdicts becomes one batch message up to its last id.
//! 3. A drop delivers nothing, so it may overtake what does. One or two drops inside a run of accepts, or
//!    accepts inside a run of drops, are sent on their own *ahead* of the run, which then covers the rest:
//!
//! ```text
//!    pushed   1A 2A 3D 4A 5A 6A 7D 8A
//!    sent     drop 3, drop 7, accept everything up to 8
//! ```
//!
//! Invariant: for any sequence pushed, each packet gets its own verdict and no other, packets are delivered in
//! the order pushed, and no id above the last one pushed is touched. It deliberately does not send, wait or
//! know a clock: whoever owns it calls [`Coalescer::finish`] at the end of every turn.

mod held;

use crate::nfq::{ConntrackEdit, PacketId, Verdict, VerdictMessage};
use held::{HeldPackets, Released};

/// Consecutive packets with one verdict that are not written yet.
#[derive(Debug, Clone, Copy)]
struct Run {
    verdict: Verdict,
    last: PacketId,
    /// Whether it has more than one packet, so that a batch message is worth it.
    many: bool,
}

/// Joins verdicts for one queue. See the module's head for its rules.
#[derive(Debug)]
pub struct Coalescer {
    queue: u16,
    buffer: Box<[u8]>,
    length: usize,
    /// What a later verdict may still extend.
    run: Option<Run>,
    /// What came after `run` and may turn out to lie inside it: a few packets of one other verdict.
    ahead: [PacketId; INTERRUPTION_MAX],
    ahead_count: usize,
    ahead_verdict: Verdict,
    held: HeldPackets,
}

impl Coalescer {
    /// A coalescer for one queue. Allocates its buffer here and nothing after.
    pub fn new(queue: u16) -> Self {
        Self::with_held_max(queue, 0)
    }

    /// The same, with room for so many packets held at a time.
    pub fn with_held_max(queue: u16, held_max: usize) -> Self {
        Self {
            queue,
            // calloc'ed: the room for edits is backed by memory only once one is written.
            buffer: vec![0; SEND_BYTES_MAX + VerdictMessage::EDITED_BYTES_MAX].into_boxed_slice(),
            length: 0,
            run: None,
            ahead: [PacketId(0); INTERRUPTION_MAX],
            ahead_count: 0,
            ahead_verdict: Verdict::DROP,
            held: HeldPackets::with_capacity(held_max),
        }
    }

    /// Takes the verdict of the next packet. Packets come in the order in which the kernel numbered them.
    ///
    /// # Panics
    /// If the buffer [`is_full`](Self::is_full): send [`take`](Self::take) first.
    #[inline]
    pub fn push(&mut self, id: PacketId, verdict: Verdict) {
        if self.held.len() > 0 {
            self.push_alone(id, verdict);
        } else {
            self.push_in_line(id, verdict);
        }
    }

    /// A verdict below which nobody is held.
    #[inline]
    fn push_in_line(&mut self, id: PacketId, verdict: Verdict) {
        match &mut self.run {
            Some(run) if run.verdict == verdict => {
                run.last = id;
                run.many = true;
                self.write_ahead();
            }
            Some(run) if run.verdict.delivers_nothing() != verdict.delivers_nothing() => {
                self.push_ahead(id, verdict);
            }
            _ => {
                self.close();
                self.run = Some(Run { verdict, last: id, many: false });
            }
        }
    }

    /// A verdict that must cover nothing but its packet.
    fn push_alone(&mut self, id: PacketId, verdict: Verdict) {
        self.close();
        self.write(id, verdict, false);
    }

    /// Puts one packet ahead of the open run; too many of them in a row become the next run.
    #[inline]
    fn push_ahead(&mut self, id: PacketId, verdict: Verdict) {
        if self.ahead_count > 0 && self.ahead_verdict != verdict {
            // The run drops (else the two others would both deliver nothing, and be equal): both others pass it.
            self.write_ahead();
        }
        if self.ahead_count < INTERRUPTION_MAX {
            self.ahead_verdict = verdict;
            self.ahead[self.ahead_count] = id;
            self.ahead_count += 1;
            return;
        }
        self.close_run();
        self.ahead_count = 0;
        self.run = Some(Run { verdict, last: id, many: true });
    }

    /// Takes the verdict of the next packet together with what is changed about it. Such a verdict is never
    /// joined: a batch message cannot carry a change.
    ///
    /// # Panics
    /// As [`push`](Self::push), and if the payload is longer than a verdict can carry.
    pub fn push_edited(
        &mut self,
        id: PacketId,
        verdict: Verdict,
        conntrack: &ConntrackEdit,
        payload: Option<&[u8]>,
    ) {
        self.close();
        let message = VerdictMessage { queue: self.queue, id, verdict, batch: false };
        let room = &mut self.buffer[self.length..];
        self.length += message.encode_edited(conntrack, payload, room);
    }

    /// Notes that the next packet gets its verdict later, by [`answer_held`](Self::answer_held), or else, when
    /// [`answer_overdue`](Self::answer_overdue) finds `deadline` passed, `fallback`. Deadlines never
    /// go back, and are numbers of the owner's clock.
    pub fn hold(&mut self, id: PacketId, fallback: Verdict, deadline: u64) {
        self.close();
        self.held.hold(id, fallback, deadline);
    }

    /// How many packets are held.
    #[inline]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// When the oldest held packet's time is over.
    pub fn next_deadline(&self) -> Option<u64> {
        self.held.next_deadline()
    }

    /// Whether the packet is held.
    pub fn is_held(&self, id: PacketId) -> bool {
        self.held.contains(id)
    }

    /// Notes that a held packet was answered by a message that this coalescer did not write. The owner has sent all
    /// that was pushed before. False if it was not held.
    pub fn forget_held(&mut self, id: PacketId) -> bool {
        self.held.release(id).is_some()
    }

    /// The same for every held packet up to `last`, as after a batch verdict. Returns how many there were.
    pub fn forget_held_up_to(&mut self, last: PacketId) -> usize {
        self.held.release_up_to(last)
    }

    /// The verdict of a packet that was held; without one, its fallback. Held packets may be answered in any
    /// order, but each answer in the kernel's order saves messages. Returns the verdict that the packet got, or
    /// `None` if it is not held.
    ///
    /// # Panics
    /// If the buffer [`is_full`](Self::is_full).
    pub fn answer_held(&mut self, id: PacketId, verdict: Option<Verdict>) -> Option<Verdict> {
        let released = self.held.release(id)?;
        Some(self.answer_released(released, verdict))
    }

    /// The same, with what is changed about the packet. False if the packet is not held.
    ///
    /// # Panics
    /// As [`push_edited`](Self::push_edited).
    pub fn answer_held_edited(
        &mut self,
        id: PacketId,
        verdict: Verdict,
        conntrack: &ConntrackEdit,
        payload: Option<&[u8]>,
    ) -> bool {
        let held = self.held.release(id).is_some();
        if held {
            self.push_edited(id, verdict, conntrack, payload);
        }
        held
    }

    /// If the oldest held packet's deadline has passed by `now`, gives it its fallback and returns that. To be
    /// called until it returns `None`.
    ///
    /// # Panics
    /// If the buffer [`is_full`](Self::is_full).
    pub fn answer_overdue(&mut self, now: u64) -> Option<Verdict> {
        let released = self.held.release_overdue(now)?;
        Some(self.answer_released(released, None))
    }

    fn answer_released(&mut self, released: Released, verdict: Option<Verdict>) -> Verdict {
        let Released { id, fallback, oldest } = released;
        let verdict = verdict.unwrap_or(fallback);
        if oldest {
            self.push_in_line(id, verdict);
        } else {
            self.push_alone(id, verdict);
        }
        verdict
    }

    /// Whether the next push might not fit. Then [`take`](Self::take) and send before pushing more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.length + WRITTEN_PER_PUSH_MAX * VerdictMessage::BYTES_MAX > SEND_BYTES_MAX
    }

    /// What is written so far, to be sent now. The open run stays open.
    pub fn take(&mut self) -> &[u8] {
        let length = std::mem::take(&mut self.length);
        &self.buffer[..length]
    }

    /// Closes the open run and returns all that is to be sent; empty if nothing was pushed.
    #[inline]
    pub fn finish(&mut self) -> &[u8] {
        self.close();
        self.take()
    }

    /// Finishes, then gives every packet up to `last` the verdict: also those that were never received, and
    /// those that are held. For the end of a queue, when there is no time left for its packets.
    pub fn everything_up_to(&mut self, last: PacketId, verdict: Verdict) -> &[u8] {
        self.close();
        self.write(last, verdict, true);
        self.held.clear();
        self.take()
    }

    /// Writes the run and what came after it.
    #[inline]
    fn close(&mut self) {
        self.close_run();
        match self.ahead_count {
            0 => return,
            1 => self.write(self.ahead[0], self.ahead_verdict, false),
            count => self.write(self.ahead[count - 1], self.ahead_verdict, true),
        }
        self.ahead_count = 0;
    }

    #[inline]
    fn close_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.write(run.last, run.verdict, run.many);
        }
    }

    #[inline]
    fn write_ahead(&mut self) {
        for index in 0..self.ahead_count {
            self.write(self.ahead[index], self.ahead_verdict, false);
        }
        self.ahead_count = 0;
    }

    #[inline]
    fn write(&mut self, id: PacketId, verdict: Verdict, batch: bool) {
        let message = VerdictMessage { queue: self.queue, id, verdict, batch };
        self.length += message.encode(&mut self.buffer[self.length..]);
    }
}

/// How many packets of another verdict a run may pass over. A third in a row starts a run of its own: two
/// messages then cost less than three.
const INTERRUPTION_MAX: usize = 2;

/// The most messages that one push and the finish after it can write: a run, what lies ahead of it, a run.
const WRITTEN_PER_PUSH_MAX: usize = 2 * INTERRUPTION_MAX + 2;

/// A send of more than a page less the kernel's own overhead takes its large-buffer path, which costs a fifth
/// more per verdict (docs/NFQUEUE.md, "Verdicts"). Only a rewritten packet goes beyond.
const SEND_BYTES_MAX: usize = 3_584;

#[cfg(test)]
mod tests;
