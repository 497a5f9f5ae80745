//! What an inspector changed about a packet beside its verdict: its bytes, and its connection.
//!
//! Invariant: an edit that cannot be carried out whole is refused where it is asked for, with the reason, and the
//! refusal is remembered: the packet does not pass as if nothing had been asked (the worker then asks
//! [`Inspector::rewrite_refused`](crate::Inspector::rewrite_refused)). Nor does one with a checksum that was open when
//! it came and is neither open nor right now. It deliberately knows nothing of protocols beyond the least length of an
//! IP header: checksums and header fields are `wire`'s.

use crate::deferral::{Answer, DeferError, Deferred, Gate};
use crate::nfq::{ConntrackEdit, PacketId, PacketMessage, VerdictMessage};
use crate::sys::LentDatagram;
use crate::wire::{self, Editable, L4Checksum, PacketEdit, WireError};

/// The edits of the packet at hand. Every worker has one and uses it for packet after packet.
#[derive(Debug)]
pub struct Edits {
    /// The packet's new bytes, if it was rewritten. Its capacity is what a verdict can carry: it never grows.
    payload: Vec<u8>,
    rewritten: Rewriting,
    conntrack: ConntrackEdit,
    refused: Option<RewriteError>,
    /// Lets packets be deferred, where the engine was started so.
    gate: Option<Gate>,
    /// Whether this packet was deferred.
    deferred: bool,
    /// Whether there is anything in here: the one thing that is looked at for every packet.
    touched: bool,
}

/// Whether there are new bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewriting {
    Not,
    /// And their checksum is the caller's, or was filled in.
    Whole,
    /// And the packet came with a checksum that nothing has closed since: see [`Edits::settle`].
    Open,
}

impl Rewriting {
    fn of(message: &PacketMessage<'_>) -> Self {
        if is_open(message) { Self::Open } else { Self::Whole }
    }
}

impl Default for Edits {
    fn default() -> Self {
        Self::new()
    }
}

impl Edits {
    /// No edits. Allocates here and nothing after.
    pub fn new() -> Self {
        Self {
            payload: Vec::with_capacity(VerdictMessage::PAYLOAD_BYTES_MAX),
            rewritten: Rewriting::Not,
            conntrack: ConntrackEdit::default(),
            refused: None,
            gate: None,
            deferred: false,
            touched: false,
        }
    }

    /// The same, for packets that may be deferred.
    pub(crate) fn with_gate(gate: Option<Gate>) -> Self {
        Self { gate, ..Self::new() }
    }

    pub(crate) fn gate_mut(&mut self) -> Option<&mut Gate> {
        self.gate.as_mut()
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// Hands the packet over, with what was changed about it so far.
    pub(crate) fn defer(
        &mut self,
        id: PacketId,
        datagram: impl FnOnce() -> LentDatagram,
    ) -> Result<Deferred, DeferError> {
        if self.deferred {
            return Err(DeferError::Twice);
        }
        let answers = self.gate.as_mut().ok_or(DeferError::NotConfigured)?.pass()?;
        let mut answer = Answer::new(id, datagram());
        self.move_into(&mut answer);
        self.deferred = true;
        self.touched = true;
        Ok(Deferred::new(answer, answers))
    }

    /// Moves the edits into an answer.
    pub(crate) fn move_into(&mut self, answer: &mut Answer) {
        if let Some(payload) = self.payload() {
            answer.rewrite(payload);
        }
        answer.conntrack = self.conntrack;
        answer.refused = self.refused.or(answer.refused);
        self.clear();
    }

    /// The packet's new bytes, if they were rewritten.
    #[inline]
    pub fn payload(&self) -> Option<&[u8]> {
        (self.rewritten != Rewriting::Not).then_some(self.payload.as_slice())
    }

    /// What is to change about the packet's connection.
    pub fn conntrack(&self) -> &ConntrackEdit {
        &self.conntrack
    }

    /// Why the last rewrite that was asked for was refused.
    pub fn refused(&self) -> Option<RewriteError> {
        self.refused
    }

    #[inline]
    pub(crate) const fn is_touched(&self) -> bool {
        self.touched
    }

    /// Forgets all: the next packet begins with none.
    pub(crate) fn clear(&mut self) {
        self.rewritten = Rewriting::Not;
        self.conntrack = ConntrackEdit::default();
        self.refused = None;
        self.deferred = false;
        self.touched = false;
    }

    pub(crate) fn conntrack_mut(&mut self) -> &mut ConntrackEdit {
        self.touched = true;
        &mut self.conntrack
    }

    /// The packet's bytes, to be changed where they lie.
    pub(crate) fn payload_mut(
        &mut self,
        message: &PacketMessage<'_>,
    ) -> Result<&mut [u8], RewriteError> {
        if self.rewritten == Rewriting::Not {
            let bytes = message.payload();
            check(message, bytes.len()).map_err(|error| self.refuse(error))?;
            self.put(bytes);
        }
        self.rewritten = Rewriting::of(message);
        Ok(&mut self.payload)
    }

    /// The packet's headers, to be edited where they lie.
    pub(crate) fn edit(
        &mut self,
        message: &PacketMessage<'_>,
    ) -> Result<PacketEdit<'_>, RewriteError> {
        let bytes = self.payload().unwrap_or(message.payload());
        let editable = Editable::find(bytes, message.skb_info().into())
            .map_err(|reason| self.refuse(RewriteError::Headers { reason }))?;
        self.payload_mut(message)?;
        // The edit closes it.
        self.rewritten = Rewriting::Whole;
        Ok(editable.edit(&mut self.payload))
    }

    /// Why the packet's new bytes cannot go out, if so. A checksum that is still open is filled in now: the kernel
    /// takes a rewritten packet as it stands.
    pub(crate) fn settle(&mut self) -> Option<RewriteError> {
        if self.refused.is_none() && self.rewritten == Rewriting::Open {
            self.refused = close_checksum(&mut self.payload).err();
            self.rewritten = Rewriting::Whole;
        }
        self.refused
    }

    /// Other bytes in the packet's place.
    pub(crate) fn replace(
        &mut self,
        message: &PacketMessage<'_>,
        bytes: &[u8],
    ) -> Result<(), RewriteError> {
        check(message, bytes.len()).map_err(|error| self.refuse(error))?;
        self.put(bytes);
        self.rewritten = Rewriting::of(message);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(bytes);
        self.touched = true;
    }

    #[cold]
    fn refuse(&mut self, error: RewriteError) -> RewriteError {
        self.refused = Some(error);
        self.touched = true;
        error
    }
}

/// Whether a packet may be rewritten to so many bytes. The kernel itself checks next to nothing: it cuts or
/// extends the packet to what it is given and, where that is shorter than a header, drops it without a word
/// (`nfqnl_mangle` and the IP stack behind it).
pub(crate) fn check(message: &PacketMessage<'_>, new: usize) -> Result<(), RewriteError> {
    let captured = message.payload().len();
    let needed = header_bytes_min(message.protocol());
    if let Some(original) = message.original_length() {
        Err(RewriteError::Truncated { captured, original })
    } else if new < needed {
        Err(RewriteError::TooShort { new, needed })
    } else if new > VerdictMessage::PAYLOAD_BYTES_MAX {
        Err(RewriteError::TooLong { new })
    } else if message.skb_info().is_gso() && new != captured {
        Err(RewriteError::GsoLength { old: captured, new })
    } else {
        Ok(())
    }
}

/// Whether the kernel left the packet's checksum to be filled in later, which a rewrite takes from it.
pub(crate) fn is_open(message: &PacketMessage<'_>) -> bool {
    L4Checksum::from(message.skb_info()) == L4Checksum::Open
}

/// Fills in the checksum of a rewritten packet that came with an open one.
pub(crate) fn close_checksum(bytes: &mut [u8]) -> Result<(), RewriteError> {
    wire::complete_open(bytes).map_err(|reason| RewriteError::OpenChecksum { reason })
}

/// The least that the stack needs of a packet of this EtherType.
const fn header_bytes_min(protocol: u16) -> usize {
    match protocol {
        0x0800 => 20,
        0x86dd => 40,
        _ => 1,
    }
}

/// Why a packet cannot be rewritten so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// Only a part of the packet was copied: the kernel would send that part alone.
    #[error(
        "only {captured} of the packet's {original} bytes were copied; a rewrite needs all of them: set the copy range to full"
    )]
    Truncated {
        /// Bytes that came.
        captured: usize,
        /// Bytes that the packet has.
        original: u32,
    },
    /// The packet stands for several segments, whose lengths the kernel knows: it must keep its length.
    #[error(
        "a segmented (GSO) packet of {old} bytes cannot become {new}; keep its length, or start the queue without gso"
    )]
    GsoLength {
        /// Its length in bytes.
        old: usize,
        /// The length asked for.
        new: usize,
    },
    /// It would not even hold an IP header.
    #[error("{new} bytes are no packet: its header alone has {needed}")]
    TooShort {
        /// The length asked for.
        new: usize,
        /// The least.
        needed: usize,
    },
    /// It does not fit into a verdict.
    #[error(
        "{new} bytes do not fit into a verdict, which carries {max} at most",
        max = VerdictMessage::PAYLOAD_BYTES_MAX
    )]
    TooLong {
        /// The length asked for.
        new: usize,
    },
    /// Its headers cannot be edited with their checksums kept right.
    #[error("the packet's headers cannot be edited: {reason}")]
    Headers {
        /// What is in the way.
        reason: WireError,
    },
    /// The kernel left its checksum to be filled in later, and takes a rewritten packet for complete; here it could not
    /// be filled in, and what was written is not right.
    #[error(
        "the packet came with a checksum still to be filled in, which cannot be done after this rewrite: {reason}; \
         start the queue without gso, and the kernel does it before"
    )]
    OpenChecksum {
        /// What is in the way.
        reason: WireError,
    },
}

#[cfg(test)]
mod tests;
