//! The coalescer: turns verdicts, packet by packet, into as few messages as the kernel allows.
//!
//! A batch verdict covers *every* queued id up to its own. From that follow the rules, and this module alone
//! keeps them:
//!
//! 1. While an older packet is held back ([`Coalescer::hold`]), everything goes out one by one.
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

use crate::nfq::{PacketId, VERDICT_BYTES_MAX, VerdictCode, VerdictMessage};

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    code: VerdictCode,
    mark: Option<u32>,
}

impl Verdict {
    /// Let the packet go on.
    pub const ACCEPT: Self = Self { code: VerdictCode::Accept, mark: None };
    /// Throw the packet away.
    pub const DROP: Self = Self { code: VerdictCode::Drop, mark: None };
    /// Send the packet through its hook again. Set a mark that the rules look at, or it comes back for ever.
    pub const REPEAT: Self = Self { code: VerdictCode::Repeat, mark: None };

    /// The same, and the packet's mark is set.
    #[must_use]
    pub const fn with_mark(self, mark: u32) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// Accept, drop or repeat.
    pub const fn code(self) -> VerdictCode {
        self.code
    }

    /// The mark that it sets, if any.
    pub const fn mark(self) -> Option<u32> {
        self.mark
    }

    /// Whether no packet comes out of it, so that its order against others cannot be seen.
    const fn delivers_nothing(self) -> bool {
        matches!(self.code, VerdictCode::Drop)
    }
}

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
    held: u32,
}

impl Coalescer {
    /// A coalescer for one queue. Allocates its buffer here and nothing after.
    pub fn new(queue: u16) -> Self {
        Self {
            queue,
            buffer: vec![0; SEND_BYTES_MAX].into_boxed_slice(),
            length: 0,
            run: None,
            ahead: [PacketId(0); INTERRUPTION_MAX],
            ahead_count: 0,
            ahead_verdict: Verdict::DROP,
            held: 0,
        }
    }

    /// Takes the verdict of the next packet. Packets come in the order in which the kernel numbered them.
    ///
    /// # Panics
    /// If the buffer [`is_full`](Self::is_full): send [`take`](Self::take) first.
    #[inline]
    pub fn push(&mut self, id: PacketId, verdict: Verdict) {
        if self.held > 0 {
            self.write(id, verdict, false);
            return;
        }
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

    /// Notes that the next packet gets its verdict later, by [`answer_held`](Self::answer_held). Until then
    /// nothing is joined.
    pub fn hold(&mut self) {
        self.close();
        self.held += 1;
    }

    /// The verdict of a packet that was held.
    ///
    /// # Panics
    /// If none is held, or the buffer is full.
    pub fn answer_held(&mut self, id: PacketId, verdict: Verdict) {
        assert!(self.held > 0, "only a held packet can be answered late");
        self.write(id, verdict, false);
        self.held -= 1;
    }

    /// Whether the next push might not fit. Then [`take`](Self::take) and send before pushing more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.length + WRITTEN_PER_PUSH_MAX * VERDICT_BYTES_MAX > SEND_BYTES_MAX
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
        self.held = 0;
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
        let Verdict { code, mark } = verdict;
        let message = VerdictMessage { queue: self.queue, id, code, mark, batch };
        self.length += message.encode(&mut self.buffer[self.length..]);
    }
}

/// How many packets of another verdict a run may pass over. A third in a row starts a run of its own: two
/// messages then cost less than three.
const INTERRUPTION_MAX: usize = 2;

/// The most messages that one push and the finish after it can write: a run, what lies ahead of it, a run.
const WRITTEN_PER_PUSH_MAX: usize = 2 * INTERRUPTION_MAX + 2;

/// A send of more than a page less the kernel's own overhead takes its large-buffer path, which costs a fifth
/// more per verdict (docs/NFQUEUE.md, "Verdicts").
const SEND_BYTES_MAX: usize = 3_584;

#[cfg(test)]
mod tests;
