//! What can be wrong with a message from the kernel: small `Copy` values, since the hot path only counts them.

use super::fields::PacketId;

/// Why a message could not be decoded. Offsets count bytes from the start of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before something that it announces. Seen when a receive buffer was too small
    /// (`MSG_TRUNC`).
    #[error("truncated: {need} bytes needed at offset {offset}, {have} there")]
    Truncated {
        /// Where the missing piece begins.
        offset: usize,
        /// How many bytes it needs.
        need: usize,
        /// How many bytes are there.
        have: usize,
    },
    /// A length field is smaller than the header that it stands in.
    #[error("length {length} at offset {offset} is shorter than its own header")]
    LengthTooSmall {
        /// Where the length field stands.
        offset: usize,
        /// What it says.
        length: usize,
    },
    /// An attribute of fixed size is shorter than its kernel type.
    #[error("attribute {kind} has {have} bytes, its type needs {need}")]
    ShortAttribute {
        /// The attribute's number (`NFQA_*`).
        kind: u16,
        /// The size of the kernel's type for it.
        need: usize,
        /// The size of what came.
        have: usize,
    },
    /// A packet message without `NFQA_PACKET_HDR`: it has no id, so it cannot be answered by one.
    #[error("packet message without NFQA_PACKET_HDR")]
    NoPacketHeader,
}

/// A message that could not be decoded, with the packet id where that much was readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Undecodable {
    /// What was wrong.
    pub error: DecodeError,
    /// The packet's id, if the message got as far as naming it: enough to give a verdict.
    pub id: Option<PacketId>,
}

impl From<DecodeError> for Undecodable {
    fn from(error: DecodeError) -> Self {
        Self { error, id: None }
    }
}
