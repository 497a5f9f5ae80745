//! One netlink message: told apart into packet, reply and anything else.
//!
//! Invariant: any bytes give a value or an error. A reply names the request that it answers, so that a refused
//! verdict is never taken for a refused configuration.

use super::attribute::{
    ATTRIBUTE_HEADER, FLAG_ACK, FLAG_REQUEST, NFMSG_HEADER, NLMSG_HEADER, align, attribute_header,
    wire_constants,
};
use super::packet::{PACKET_HDR, PACKET_HDR_BYTES, id_in};
use super::{DecodeError, PacketId, PacketMessage, Undecodable};

/// What a netlink message from the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet that waits for its verdict.
    Packet(PacketMessage<'a>),
    /// The answer to a request of ours: an error, or the acknowledgement that was asked for.
    Reply(KernelReply),
    /// A type that this version does not know, by its number.
    Unknown(u16),
}

/// An `NLMSG_ERROR`: what became of a request. Refused verdicts send one even unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelReply {
    /// 0 for an acknowledgement, else the positive errno.
    pub errno: i32,
    /// Which kind of request it answers.
    pub request: Request,
    /// That request's sequence number. fanq numbers a verdict by its packet id.
    pub sequence: u32,
}

impl KernelReply {
    /// Whether it says that there were no orphans: their batch verdict has no number, and hit nothing.
    pub(crate) fn is_about_orphans(self) -> bool {
        self.request == Request::VerdictBatch && self.sequence == 0 && self.errno == libc::ENOENT
    }
}

/// The kinds of request that fanq sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Queue configuration.
    Config,
    /// A verdict for one packet.
    Verdict,
    /// A verdict for every packet up to an id.
    VerdictBatch,
    /// The no-op that wakes a worker.
    Wake,
    /// Anything else, by its message type.
    Other(u16),
}

/// Decodes the message at the front of a received datagram and returns it with the bytes behind it (the kernel
/// sends one message a datagram, so as a rule there are none).
///
/// # Errors
/// [`Undecodable`], with the packet id if it was readable. Nothing behind a broken message can be trusted, so
/// the rest of the datagram is lost with it.
#[expect(
    clippy::inline_always,
    reason = "twice as fast in fanq-bench codec: the result is not copied"
)]
#[inline(always)]
pub fn decode(datagram: &[u8]) -> Result<(Message<'_>, &[u8]), Undecodable> {
    let Some((header, _)) = datagram.split_first_chunk::<NFMSG_HEADER>() else {
        return decode_other(datagram);
    };
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    if kind != PACKET || length < NFMSG_HEADER || length > datagram.len() {
        return decode_other(datagram);
    }
    let packet = PacketMessage::decode(&datagram[..length])?;
    Ok((Message::Packet(packet), behind(datagram, length)))
}

/// The queue and the id of a packet, from its message's head and first attribute, where the kernel puts them
/// (`nfqnl_build_packet_message`): for whoever needs nothing else of it, and no walk over the rest ([`decode`]). `None`
/// for all else, a message that is cut short among it: then `decode` says what it is.
#[inline]
#[must_use]
pub fn packet_place(datagram: &[u8]) -> Option<(u16, PacketId)> {
    let (head, rest) = datagram.split_first_chunk::<{ NFMSG_HEADER + ATTRIBUTE_HEADER }>()?;
    let (value, _) = rest.split_first_chunk::<PACKET_HDR_BYTES>()?;
    let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let is_packet = u16::from_ne_bytes([head[4], head[5]]) == PACKET
        && attribute_header([head[20], head[21], head[22], head[23]])
            == (ATTRIBUTE_HEADER + PACKET_HDR_BYTES, PACKET_HDR)
        && (head.len() + PACKET_HDR_BYTES..=datagram.len()).contains(&length);
    is_packet.then_some((u16::from_be_bytes([head[18], head[19]]), id_in(*value)))
}

/// Decodes what is no whole packet message: a reply, an unknown type, or something broken.
#[cold]
fn decode_other(datagram: &[u8]) -> Result<(Message<'_>, &[u8]), Undecodable> {
    let Some((header, _)) = datagram.split_first_chunk::<NLMSG_HEADER>() else {
        return Err(truncated(0, NLMSG_HEADER, datagram.len()).into());
    };
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length < NLMSG_HEADER {
        return Err(DecodeError::LengthTooSmall { offset: 0, length }.into());
    }
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let Some(message) = datagram.get(..length) else {
        return Err(cut_short(datagram, kind, length));
    };
    let decoded = match kind {
        ERROR => Message::Reply(decode_reply(message)?),
        PACKET => return Err(truncated(0, NFMSG_HEADER, length).into()),
        other => Message::Unknown(other),
    };
    Ok((decoded, behind(datagram, length)))
}

/// A message that its buffer had no room for. A packet is decoded as far as it goes, for the sake of its id.
fn cut_short(datagram: &[u8], kind: u16, length: usize) -> Undecodable {
    let error = truncated(0, length, datagram.len());
    if kind != PACKET || datagram.len() < NFMSG_HEADER {
        return error.into();
    }
    match PacketMessage::decode(datagram) {
        Ok(packet) => Undecodable { error, id: Some(packet.id()) },
        Err(undecodable) => undecodable,
    }
}

#[inline]
fn behind(datagram: &[u8], length: usize) -> &[u8] {
    &datagram[align(length).min(datagram.len())..]
}

/// `struct nlmsgerr`: the errno, negated, and the header of the request.
fn decode_reply(message: &[u8]) -> Result<KernelReply, DecodeError> {
    let body = &message[NLMSG_HEADER..];
    let Some((body, _)) = body.split_first_chunk::<{ 4 + NLMSG_HEADER }>() else {
        return Err(truncated(NLMSG_HEADER, 4 + NLMSG_HEADER, body.len()));
    };
    let field = |at: usize| [body[at], body[at + 1], body[at + 2], body[at + 3]];
    let request = match u16::from_ne_bytes([body[8], body[9]]) {
        CONFIG => Request::Config,
        VERDICT => Request::Verdict,
        VERDICT_BATCH => Request::VerdictBatch,
        NOOP => Request::Wake,
        other => Request::Other(other),
    };
    Ok(KernelReply {
        errno: i32::from_ne_bytes(field(0)).saturating_neg(),
        request,
        sequence: u32::from_ne_bytes(field(12)),
    })
}

/// A request that does nothing but be acknowledged. Whoever blocks on a socket is woken by sending this through
/// it: the acknowledgement comes back to the same socket (`net/netlink/af_netlink.c: netlink_rcv_skb`).
#[must_use]
pub fn wake_request() -> [u8; NLMSG_HEADER] {
    let mut message = [0; NLMSG_HEADER];
    message[0..4].copy_from_slice(&16_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&NOOP.to_ne_bytes());
    message[6..8].copy_from_slice(&(FLAG_REQUEST | FLAG_ACK).to_ne_bytes());
    message
}

const fn truncated(offset: usize, need: usize, have: usize) -> DecodeError {
    DecodeError::Truncated { offset, need, have }
}

wire_constants! {
    NOOP: u16 = libc::NLMSG_NOOP;
    ERROR: u16 = libc::NLMSG_ERROR;
    PACKET: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_PACKET;
    VERDICT: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_VERDICT;
    CONFIG: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_CONFIG;
    VERDICT_BATCH: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_VERDICT_BATCH;
}
