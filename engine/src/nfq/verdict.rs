//! Verdicts and their messages: one packet's verdict, or one verdict for every queued packet up to an id.
//!
//! Invariant: a plain message is 32 bytes and 8 more for a mark or a priority; its sequence number is the packet
//! id, so that an error that comes back names the packet. It deliberately does not know which verdicts may be
//! joined: that is the coalescer's.

use super::attribute::{ATTRIBUTE_HEADER, MessageWriter, NFMSG_HEADER, align, wire_constants};
use super::{ConntrackEdit, PacketId};

/// What becomes of a packet (`NF_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictCode {
    /// Throw it away.
    Drop,
    /// Let it go on to the next chain.
    Accept,
    /// Hand it to another queue.
    Queue {
        /// The other queue's number.
        number: u16,
        /// Whether it is accepted when nobody listens there, rather than dropped.
        bypass: bool,
    },
    /// Send it through the chain that queued it once more. Without a mark that the rules look at it comes back
    /// for ever.
    Repeat,
    /// Let it go on past all later chains of its hook.
    Stop,
}

/// What becomes of a packet, and which numbers are set on it.
///
/// Kept as the kernel's own words: two verdicts are the same when four numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    word: u32,
    /// `SETS_*` bits. A number that is not set is 0.
    sets: u32,
    mark: u32,
    priority: u32,
}

impl Verdict {
    /// Let the packet go on.
    pub const ACCEPT: Self = Self::plain(NF_ACCEPT);
    /// Throw the packet away.
    pub const DROP: Self = Self::plain(NF_DROP);
    /// Send the packet through its chain again. Set a mark that the rules look at, or it comes back for ever.
    pub const REPEAT: Self = Self::plain(NF_REPEAT);
    /// Let the packet go on past all later chains of its hook: no other rule there sees it
    /// (`NF_STOP`, net/netfilter/nfnetlink_queue.c: `nf_reinject`).
    pub const STOP: Self = Self::plain(NF_STOP);

    const fn plain(word: u32) -> Self {
        Self { word, sets: 0, mark: 0, priority: 0 }
    }

    /// Hand the packet to another queue, where it waits for another program. Nobody there: it is dropped, unless
    /// [`bypassing`](Self::bypassing).
    #[must_use]
    pub const fn queue(number: u16) -> Self {
        Self::plain(NF_QUEUE | (number as u32) << 16)
    }

    /// The same verdict; if it hands the packet to a queue where nobody listens, the packet is accepted. Changes
    /// nothing about other verdicts.
    #[must_use]
    pub const fn bypassing(self) -> Self {
        match self.code() {
            VerdictCode::Queue { .. } => Self { word: self.word | QUEUE_BYPASS, ..self },
            _ => self,
        }
    }

    /// The same, and the packet's mark is set to this value, all 32 bits of it. To change some bits only, begin
    /// with the packet's own mark.
    #[must_use]
    pub const fn with_mark(self, mark: u32) -> Self {
        Self { mark, sets: self.sets | SETS_MARK, ..self }
    }

    /// The same, and the packet's priority (`skb->priority`, the class for queueing disciplines) is set. Kernels
    /// before 5.18 do not know it and leave the priority as it is.
    #[must_use]
    pub const fn with_priority(self, priority: u32) -> Self {
        Self { priority, sets: self.sets | SETS_PRIORITY, ..self }
    }

    /// The verdict of a message that somebody wrote, word for word. `None` if the kernel takes no such verdict
    /// (`verdicthdr_get` in net/netfilter/nfnetlink_queue.c).
    pub(super) fn from_wire(word: u32, mark: Option<u32>, priority: Option<u32>) -> Option<Self> {
        let code = word & NF_VERDICT_MASK;
        if code > NF_STOP || code == NF_STOLEN {
            return None;
        }
        let verdict = mark.map_or(Self::plain(word), |mark| Self::plain(word).with_mark(mark));
        Some(priority.map_or(verdict, |priority| verdict.with_priority(priority)))
    }

    /// What becomes of the packet.
    #[inline]
    pub const fn code(self) -> VerdictCode {
        match self.word & NF_VERDICT_MASK {
            NF_DROP => VerdictCode::Drop,
            NF_QUEUE => VerdictCode::Queue {
                number: (self.word >> 16) as u16,
                bypass: self.word & QUEUE_BYPASS != 0,
            },
            NF_REPEAT => VerdictCode::Repeat,
            NF_STOP => VerdictCode::Stop,
            _ => VerdictCode::Accept,
        }
    }

    /// The mark that it sets, if any.
    pub const fn mark(self) -> Option<u32> {
        if self.sets & SETS_MARK != 0 { Some(self.mark) } else { None }
    }

    /// The priority that it sets, if any.
    pub const fn priority(self) -> Option<u32> {
        if self.sets & SETS_PRIORITY != 0 { Some(self.priority) } else { None }
    }

    /// Whether no packet comes out of it, so that its order against others cannot be seen.
    #[inline]
    pub(crate) const fn delivers_nothing(self) -> bool {
        self.word == NF_DROP
    }
}

/// A verdict, ready to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictMessage {
    /// The queue that the packet waits in.
    pub queue: u16,
    /// The packet; in a batch, the last of the packets.
    pub id: PacketId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether every queued packet up to `id` is meant (`NFQNL_MSG_VERDICT_BATCH`), also those that were never
    /// received.
    pub batch: bool,
}

impl VerdictMessage {
    /// The largest message without edits, in bytes: a header, the verdict, a mark and a priority.
    pub const BYTES_MAX: usize = NFMSG_HEADER + 12 + 8 + 8;

    /// The largest message with edits, in bytes.
    pub const EDITED_BYTES_MAX: usize = Self::BYTES_MAX
        + ATTRIBUTE_HEADER
        + ConntrackEdit::BYTES_MAX
        + align(ATTRIBUTE_HEADER + Self::PAYLOAD_BYTES_MAX);

    /// The longest payload that a verdict can carry: an attribute's length has 16 bits and counts its header.
    pub const PAYLOAD_BYTES_MAX: usize = 65_535 - ATTRIBUTE_HEADER;

    /// Writes the message to the front of `buffer` and returns its length.
    ///
    /// # Panics
    /// If the buffer is shorter than [`BYTES_MAX`](Self::BYTES_MAX).
    #[inline]
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        self.begin(buffer).finish()
    }

    /// The same without a sequence number, so that its refusal can be told from that of any other.
    pub(crate) fn encode_unnumbered(&self, buffer: &mut [u8]) -> usize {
        let length = self.encode(buffer);
        // nlmsg_seq of struct nlmsghdr.
        buffer[8..12].fill(0);
        length
    }

    /// Writes the message with what is changed about the packet beside, and returns its length. A batch message
    /// cannot carry edits: the kernel ignores them there.
    ///
    /// # Panics
    /// If the buffer is shorter than [`EDITED_BYTES_MAX`](Self::EDITED_BYTES_MAX) needs it to be for this payload,
    /// if the payload is longer than [`PAYLOAD_BYTES_MAX`](Self::PAYLOAD_BYTES_MAX), or if this is a batch.
    pub fn encode_edited(
        &self,
        conntrack: &ConntrackEdit,
        payload: Option<&[u8]>,
        buffer: &mut [u8],
    ) -> usize {
        assert!(!self.batch, "the kernel takes edits for one packet only");
        let mut message = self.begin(buffer);
        if !conntrack.is_empty() {
            let mut nested = [0; ConntrackEdit::BYTES_MAX];
            let length = conntrack.encode(&mut nested);
            message = message.attribute(CONNTRACK | NESTED, &nested[..length]);
        }
        if let Some(payload) = payload {
            message = message.attribute(PAYLOAD, payload);
        }
        message.finish()
    }

    #[inline]
    fn begin<'a>(&self, buffer: &'a mut [u8]) -> MessageWriter<'a> {
        let kind = if self.batch { MSG_VERDICT_BATCH } else { MSG_VERDICT };
        let mut header = [0; 8];
        header[0..4].copy_from_slice(&self.verdict.word.to_be_bytes());
        header[4..8].copy_from_slice(&self.id.0.to_be_bytes());
        let mut message = MessageWriter::new(buffer, kind, 0, self.id.0, self.queue)
            .attribute(VERDICT_HDR, &header);
        if self.verdict.sets != 0 {
            if let Some(mark) = self.verdict.mark() {
                message = message.attribute(MARK, &mark.to_be_bytes());
            }
            if let Some(priority) = self.verdict.priority() {
                message = message.attribute(PRIORITY, &priority.to_be_bytes());
            }
        }
        message
    }
}

const SETS_MARK: u32 = 1;
const SETS_PRIORITY: u32 = 2;

wire_constants! {
    MSG_VERDICT: u8 = libc::NFQNL_MSG_VERDICT;
    MSG_VERDICT_BATCH: u8 = libc::NFQNL_MSG_VERDICT_BATCH;
    VERDICT_HDR: u16 = libc::NFQA_VERDICT_HDR;
    MARK: u16 = libc::NFQA_MARK;
    PRIORITY: u16 = libc::NFQA_PRIORITY;
    CONNTRACK: u16 = libc::NFQA_CT;
    PAYLOAD: u16 = libc::NFQA_PAYLOAD;
    NESTED: u16 = libc::NLA_F_NESTED;
    NF_DROP: u32 = libc::NF_DROP;
    NF_ACCEPT: u32 = libc::NF_ACCEPT;
    NF_STOLEN: u32 = libc::NF_STOLEN;
    NF_QUEUE: u32 = libc::NF_QUEUE;
    NF_REPEAT: u32 = libc::NF_REPEAT;
    NF_STOP: u32 = libc::NF_STOP;
    /// The kernel's own verdict, without the queue number and its flag.
    NF_VERDICT_MASK: u32 = 0xff;
    /// `NF_VERDICT_FLAG_QUEUE_BYPASS`
    QUEUE_BYPASS: u32 = 0x8000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_tells_what_it_was_made_of() {
        let queue = Verdict::queue(65_535).with_mark(0).with_priority(7);
        assert_eq!(queue.code(), VerdictCode::Queue { number: 65_535, bypass: false });
        assert_eq!((queue.mark(), queue.priority()), (Some(0), Some(7)));
        let bypassing = queue.bypassing();
        assert_eq!(bypassing.code(), VerdictCode::Queue { number: 65_535, bypass: true });
        assert_eq!(Verdict::DROP.bypassing(), Verdict::DROP);
        assert_ne!(Verdict::ACCEPT.with_mark(0), Verdict::ACCEPT);
        assert_eq!(Verdict::STOP.code(), VerdictCode::Stop);
        assert_eq!(Verdict::REPEAT.code(), VerdictCode::Repeat);
    }
}
