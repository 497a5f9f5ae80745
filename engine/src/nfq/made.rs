//! Packet messages made by hand, so that an inspector can be tried without a kernel.
//!
//! Invariant: what is made here decodes, and has what a kernel always sends: header and payload. It deliberately
//! makes no other attributes; a test that needs them takes bytes captured from a kernel.

use super::attribute::{MessageWriter, wire_constants};
use super::{Hook, PacketId};

/// What a made message is longer than its payload, at most.
pub const MADE_MESSAGE_OVERHEAD: usize = 20 + 12 + 4 + 3;

/// Writes the message of a packet that waits in queue 0 to the front of `buffer`, and returns it. The payload begins
/// with its IP header, whose version says what is written as the message's family and protocol.
///
/// ```
/// use fanq::nfq::{self, Hook, Message, PacketId};
///
/// let mut buffer = [0; 128];
/// let bytes = nfq::made_message(&mut buffer, PacketId(1), Hook::Input, &[0x45; 20]);
/// let Ok((Message::Packet(packet), _)) = nfq::decode(bytes) else { panic!("it decodes") };
/// assert_eq!((packet.id(), packet.protocol(), packet.payload()), (PacketId(1), 0x0800, &[0x45; 20][..]));
/// ```
///
/// # Panics
/// If the buffer is shorter than the payload and [`MADE_MESSAGE_OVERHEAD`], or the payload longer than 65,531 bytes.
pub fn made_message<'a>(
    buffer: &'a mut [u8],
    id: PacketId,
    hook: Hook,
    payload: &[u8],
) -> &'a [u8] {
    let is_ipv6 = payload.first().is_some_and(|byte| byte >> 4 == 6);
    let (family, protocol) = if is_ipv6 { (10, 0x86dd_u16) } else { (2, 0x0800) };
    let ([a, b, c, d], [high, low]) = (id.0.to_be_bytes(), protocol.to_be_bytes());
    let length = MessageWriter::new(buffer, MSG_PACKET, 0, 0, 0)
        .attribute(PACKET_HDR, &[a, b, c, d, high, low, hook.number()])
        .attribute(PAYLOAD, payload)
        .finish();
    buffer[16] = family;
    &buffer[..length]
}

wire_constants! {
    MSG_PACKET: u8 = libc::NFQNL_MSG_PACKET;
    PACKET_HDR: u16 = libc::NFQA_PACKET_HDR;
    PAYLOAD: u16 = libc::NFQA_PAYLOAD;
}
