//! What an inspector changed about a packet beside its verdict: its bytes, and its connection.
//!
//! Invariant: an edit that cannot be carried out whole is refused where it is asked for, with the reason, and the
//! refusal is remembered: the packet does not pass as if nothing had been asked (the worker then asks
//! [`Inspector::rewrite_refused`](crate::Inspector::rewrite_refused)). It deliberately knows nothing of protocols
//! beyond the least length of an IP header: checksums and header fields are `wire`'s.

use crate::deferral::{Answer, DeferError, Deferred, Gate};
use crate::nfq::{ConntrackEdit, PacketId, PacketMessage, VerdictMessage};
use crate::sys::LentDatagram;

/// The edits of the packet at hand. Every worker has one and uses it for packet after packet.
#[derive(Debug)]
pub struct Edits {
    /// The packet's new bytes, if `rewritten`. Its capacity is what a verdict can carry: it never grows.
    payload: Vec<u8>,
    rewritten: bool,
    conntrack: ConntrackEdit,
    refused: Option<RewriteError>,
    /// Lets packets be deferred, where the engine was started so.
    gate: Option<Gate>,
    /// Whether this packet was deferred.
    deferred: bool,
    /// Whether there is anything in here: the one thing that is looked at for every packet.
    touched: bool,
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
            rewritten: false,
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
        self.rewritten.then_some(self.payload.as_slice())
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
        self.rewritten = false;
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
        if !self.rewritten {
            let bytes = message.payload();
            check(message, bytes.len()).map_err(|error| self.refuse(error))?;
            self.put(bytes);
        }
        Ok(&mut self.payload)
    }

    /// Other bytes in the packet's place.
    pub(crate) fn replace(
        &mut self,
        message: &PacketMessage<'_>,
        bytes: &[u8],
    ) -> Result<(), RewriteError> {
        check(message, bytes.len()).map_err(|error| self.refuse(error))?;
        self.put(bytes);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(bytes);
        self.rewritten = true;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfq::sample::Sample;
    use crate::nfq::{Message, decode};

    /// A packet message with these attributes beside header and payload, shown to `look`.
    fn with_packet(
        attributes: &[(u16, u32)],
        payload: &[u8],
        look: impl FnOnce(&PacketMessage<'_>),
    ) {
        let mut sample = Sample::new(1).header(1, 1);
        for (kind, value) in attributes {
            sample = sample.attribute(*kind, &value.to_be_bytes());
        }
        let bytes = sample.attribute(10, payload).finish();
        match decode(&bytes).unwrap() {
            (Message::Packet(message), _) => look(&message),
            other => panic!("{other:?}"),
        }
    }

    const CAPTURED_FROM: u16 = 13;
    const SKB_INFO: u16 = 14;
    const GSO: u32 = 2;

    #[test]
    fn what_the_kernel_would_garble_is_refused_with_its_reason() {
        let packet = [0x45; 100];
        with_packet(&[(CAPTURED_FROM, 500)], &packet, |message| {
            let mut edits = Edits::new();
            let refused = RewriteError::Truncated { captured: 100, original: 500 };
            assert_eq!(edits.payload_mut(message).unwrap_err(), refused);
            assert_eq!((edits.refused(), edits.payload()), (Some(refused), None));
        });
        with_packet(&[(SKB_INFO, GSO)], &packet, |message| {
            let mut edits = Edits::new();
            edits.payload_mut(message).unwrap()[99] = 1;
            edits.replace(message, &[0x45; 100]).unwrap();
            let refused = RewriteError::GsoLength { old: 100, new: 99 };
            assert_eq!(edits.replace(message, &[0x45; 99]), Err(refused));
        });
        with_packet(&[], &packet, |message| {
            let mut edits = Edits::new();
            let short = RewriteError::TooShort { new: 19, needed: 20 };
            assert_eq!(edits.replace(message, &[0x45; 19]), Err(short));
            let long = RewriteError::TooLong { new: 65_532 };
            assert_eq!(edits.replace(message, &vec![0x45; 65_532]), Err(long));
            edits.clear();
            edits.replace(message, &vec![0x45; 65_531]).unwrap();
            assert_eq!((edits.payload().map(<[u8]>::len), edits.refused()), (Some(65_531), None));
        });
    }

    #[test]
    fn bytes_are_changed_once_and_stay_changed() {
        with_packet(&[], &[0x45; 40], |message| {
            let mut edits = Edits::new();
            assert!(!edits.is_touched());
            edits.payload_mut(message).unwrap()[3] = 7;
            edits.payload_mut(message).unwrap()[4] = 8;
            let changed = edits.payload().unwrap();
            assert_eq!((changed[3], changed[4], changed[5]), (7, 8, 0x45));
            edits.clear();
            assert_eq!((edits.payload(), edits.is_touched()), (None, false));
        });
    }
}
