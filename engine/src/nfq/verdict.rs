//! Verdict messages: one packet's verdict, or one verdict for every queued packet up to an id.
//!
//! Invariant: a message is 32 bytes, 40 with a mark; its sequence number is the packet id, so that an error
//! that comes back names the packet. It deliberately does not know which verdicts may be joined: that is the
//! coalescer's.

use super::PacketId;
use super::attribute::{MessageWriter, NFMSG_HEADER, wire_constants};

/// The largest verdict message, in bytes: a header, the verdict and a mark.
pub const VERDICT_BYTES_MAX: usize = NFMSG_HEADER + 12 + 8;

/// What becomes of a packet (`NF_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictCode {
    /// Throw it away.
    Drop,
    /// Let it go on.
    Accept,
    /// Send it through the hook that queued it once more. Without a mark that the rules look at it comes back
    /// for ever.
    Repeat,
}

impl VerdictCode {
    const fn to_kernel(self) -> u32 {
        match self {
            Self::Drop => NF_DROP,
            Self::Accept => NF_ACCEPT,
            Self::Repeat => NF_REPEAT,
        }
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
    pub code: VerdictCode,
    /// The packet mark to set, if any.
    pub mark: Option<u32>,
    /// Whether every queued packet up to `id` is meant (`NFQNL_MSG_VERDICT_BATCH`), also those that were never
    /// received.
    pub batch: bool,
}

impl VerdictMessage {
    /// Writes the message to the front of `buffer` and returns its length.
    ///
    /// # Panics
    /// If the buffer is shorter than [`VERDICT_BYTES_MAX`].
    #[inline]
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        let kind = if self.batch { MSG_VERDICT_BATCH } else { MSG_VERDICT };
        let mut header = [0; 8];
        header[0..4].copy_from_slice(&self.code.to_kernel().to_be_bytes());
        header[4..8].copy_from_slice(&self.id.0.to_be_bytes());
        let message = MessageWriter::new(buffer, kind, 0, self.id.0, self.queue)
            .attribute(VERDICT_HDR, &header);
        match self.mark {
            Some(mark) => message.attribute(MARK, &mark.to_be_bytes()).finish(),
            None => message.finish(),
        }
    }
}

wire_constants! {
    MSG_VERDICT: u8 = libc::NFQNL_MSG_VERDICT;
    MSG_VERDICT_BATCH: u8 = libc::NFQNL_MSG_VERDICT_BATCH;
    VERDICT_HDR: u16 = libc::NFQA_VERDICT_HDR;
    MARK: u16 = libc::NFQA_MARK;
    NF_DROP: u32 = libc::NF_DROP;
    NF_ACCEPT: u32 = libc::NF_ACCEPT;
    NF_REPEAT: u32 = libc::NF_REPEAT;
}
