//! Requests as programs send them, decoded: verdicts and configuration, told apart by whether a verdict may be
//! joined with others.
//!
//! Invariant: any bytes give a value. [`Sent::Verdict`] is `plain` only if a message that fanq writes from its
//! `verdict` would do exactly the same: no wish for an acknowledgement, no attribute but the verdict, a mark and a
//! priority, each at most once, and a verdict that the kernel takes. It deliberately does not check what the kernel
//! will say to the rest: that is passed on as it is.

use super::attribute::{
    ATTRIBUTE_HEADER, Attributes, FLAG_REQUEST, NFMSG_HEADER, align, attribute_header,
    wire_constants,
};
use super::{PacketId, Verdict};

/// One request of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A verdict for one packet (`NFQNL_MSG_VERDICT`).
    Verdict(SentVerdict),
    /// A verdict for every packet up to one (`NFQNL_MSG_VERDICT_BATCH`).
    VerdictUpTo(SentVerdict),
    /// Configuration of a queue.
    Config(SentConfig),
    /// Anything else, what is broken included.
    Other,
}

/// A verdict as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentVerdict {
    /// The queue that the packet waits in.
    pub queue: u16,
    /// The packet, or the last of them.
    pub id: PacketId,
    /// What becomes of it, with mark and priority.
    pub verdict: Verdict,
    /// Whether the message says nothing beyond `verdict`, so that it may be joined.
    pub plain: bool,
    /// Whether the packet's bytes are replaced.
    pub rewrites: bool,
}

/// Configuration as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentConfig {
    /// The queue meant.
    pub queue: u16,
    /// Whether the queue is taken or given up.
    pub command: Option<BindCommand>,
    /// Whether it asks for (part of) the packets' bytes (`NFQNL_COPY_PACKET`).
    pub copies_packets: bool,
}

/// What becomes of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindCommand {
    /// It is taken.
    Bind,
    /// It is given up.
    Unbind,
}

/// Decodes the request at the front of what a program sends, and returns the bytes behind it. A request that ends
/// before its own length says is [`Sent::Other`], and nothing is behind it.
#[must_use]
pub fn decode_sent(bytes: &[u8]) -> (Sent, &[u8]) {
    let Some((header, _)) = bytes.split_first_chunk::<NFMSG_HEADER>() else {
        return (Sent::Other, &[]);
    };
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let Some(message) = bytes.get(..length).filter(|message| message.len() >= NFMSG_HEADER) else {
        return (Sent::Other, &[]);
    };
    let rest = &bytes[align(length).min(bytes.len())..];
    (decode_whole(header, message), rest)
}

/// Decodes a verdict of which only the first bytes are at hand, as far as they go; it is never plain.
#[must_use]
pub fn decode_sent_prefix(prefix: &[u8]) -> Sent {
    let Some((header, _)) = prefix.split_first_chunk::<NFMSG_HEADER>() else { return Sent::Other };
    match decode_whole(header, prefix) {
        Sent::Verdict(sent) => Sent::Verdict(SentVerdict { plain: false, rewrites: true, ..sent }),
        other => other,
    }
}

fn decode_whole(header: &[u8; NFMSG_HEADER], message: &[u8]) -> Sent {
    let queue = u16::from_be_bytes([header[18], header[19]]);
    let flags = u16::from_ne_bytes([header[6], header[7]]);
    match u16::from_ne_bytes([header[4], header[5]]) {
        _ if flags & FLAG_REQUEST == 0 => Sent::Other,
        VERDICT => verdict(queue, flags, message).map_or(Sent::Other, Sent::Verdict),
        VERDICT_BATCH => verdict(queue, flags, message).map_or(Sent::Other, Sent::VerdictUpTo),
        CONFIG => Sent::Config(config(queue, message)),
        _ => Sent::Other,
    }
}

fn verdict(queue: u16, flags: u16, message: &[u8]) -> Option<SentVerdict> {
    if let Some(head) = lone_head(message) {
        let plain = flags == FLAG_REQUEST && message[17] == 0;
        return Some(sent_verdict(queue, head, (None, None), plain, false));
    }
    let (mut head, mut mark, mut priority) = (None, None, None);
    let (mut plain, mut rewrites) = (flags == FLAG_REQUEST && message[17] == 0, false);
    for attribute in Attributes::new(message, NFMSG_HEADER) {
        let Ok((kind, value)) = attribute else {
            plain = false;
            break;
        };
        let once = match kind {
            VERDICT_HDR => head.replace(*value.first_chunk::<8>()?).is_none() && value.len() == 8,
            MARK => mark.replace(number(value)?).is_none() && value.len() == 4,
            PRIORITY => priority.replace(number(value)?).is_none() && value.len() == 4,
            _ => false,
        };
        rewrites |= kind == PAYLOAD;
        plain &= once;
    }
    Some(sent_verdict(queue, head?, (mark, priority), plain, rewrites))
}

/// The verdict of a message that has nothing else in it: what most programs send for every packet.
fn lone_head(message: &[u8]) -> Option<[u8; 8]> {
    const WHOLE: usize = NFMSG_HEADER + ATTRIBUTE_HEADER + 8;
    let message: &[u8; WHOLE] = message.try_into().ok()?;
    let attribute = attribute_header([message[20], message[21], message[22], message[23]]);
    let is_head = attribute == (ATTRIBUTE_HEADER + 8, VERDICT_HDR);
    message.last_chunk().filter(|_| is_head).copied()
}

fn sent_verdict(
    queue: u16,
    head: [u8; 8],
    (mark, priority): (Option<u32>, Option<u32>),
    plain: bool,
    rewrites: bool,
) -> SentVerdict {
    let [word, id] = [[head[0], head[1], head[2], head[3]], [head[4], head[5], head[6], head[7]]];
    let verdict = Verdict::from_wire(u32::from_be_bytes(word), mark, priority);
    let plain = plain && verdict.is_some();
    let id = PacketId(u32::from_be_bytes(id));
    SentVerdict { queue, id, verdict: verdict.unwrap_or(Verdict::DROP), plain, rewrites }
}

fn config(queue: u16, message: &[u8]) -> SentConfig {
    let mut config = SentConfig { queue, command: None, copies_packets: false };
    for (kind, value) in Attributes::new(message, NFMSG_HEADER).filter_map(Result::ok) {
        match (kind, value) {
            (CFG_CMD, [CMD_BIND, ..]) => config.command = Some(BindCommand::Bind),
            (CFG_CMD, [CMD_UNBIND, ..]) => config.command = Some(BindCommand::Unbind),
            (CFG_PARAMS, [_, _, _, _, mode, ..]) => config.copies_packets = *mode == COPY_PACKET,
            _ => {}
        }
    }
    config
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

wire_constants! {
    VERDICT: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_VERDICT;
    VERDICT_BATCH: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_VERDICT_BATCH;
    CONFIG: u16 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_CONFIG;
    VERDICT_HDR: u16 = libc::NFQA_VERDICT_HDR;
    MARK: u16 = libc::NFQA_MARK;
    PAYLOAD: u16 = libc::NFQA_PAYLOAD;
    PRIORITY: u16 = libc::NFQA_PRIORITY;
    CFG_CMD: u16 = libc::NFQA_CFG_CMD;
    CFG_PARAMS: u16 = libc::NFQA_CFG_PARAMS;
    CMD_BIND: u8 = libc::NFQNL_CFG_CMD_BIND;
    CMD_UNBIND: u8 = libc::NFQNL_CFG_CMD_UNBIND;
    COPY_PACKET: u8 = libc::NFQNL_COPY_PACKET;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nfq::{ConfigFlags, ConntrackEdit, CopyRange, QueueRequest, VerdictMessage};

    fn encoded(verdict: Verdict, batch: bool) -> Vec<u8> {
        let mut bytes = vec![0xa5; VerdictMessage::BYTES_MAX];
        let message = VerdictMessage { queue: 3, id: PacketId(9), verdict, batch };
        let length = message.encode(&mut bytes);
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn what_is_plain_is_told_whole() {
        for verdict in [
            Verdict::ACCEPT,
            Verdict::DROP.with_mark(7),
            Verdict::REPEAT.with_mark(0).with_priority(1),
            Verdict::STOP,
            Verdict::queue(80).bypassing(),
        ] {
            let sent =
                SentVerdict { queue: 3, id: PacketId(9), verdict, plain: true, rewrites: false };
            let nothing: &[u8] = &[];
            assert_eq!(decode_sent(&encoded(verdict, false)), (Sent::Verdict(sent), nothing));
            assert_eq!(decode_sent(&encoded(verdict, true)), (Sent::VerdictUpTo(sent), nothing));
        }
    }

    fn is_plain(bytes: &[u8]) -> bool {
        matches!(decode_sent(bytes), (Sent::Verdict(sent), _) if sent.plain)
    }

    #[test]
    fn what_says_more_is_not_plain() {
        let plain = encoded(Verdict::ACCEPT, false);
        assert!(is_plain(&plain));
        let changed = |at: usize, value: u8| {
            let mut bytes = plain.clone();
            bytes[at] = value;
            bytes
        };
        assert!(!is_plain(&changed(6, 5)), "an acknowledgement is asked for");
        assert!(!is_plain(&changed(17, 1)), "another version");
        assert!(!is_plain(&changed(27, 2)), "NF_STOLEN, which the kernel refuses");
        assert!(!is_plain(&changed(27, 6)), "a verdict that no kernel knows");
        assert!(!is_plain(&changed(22, 9)), "another attribute");
        let twice = [&plain[..], &plain[20..]].concat();
        let mut twice = twice;
        twice[0] = 44;
        assert!(!is_plain(&twice), "two verdicts in one message");
        let message =
            VerdictMessage { queue: 3, id: PacketId(9), verdict: Verdict::ACCEPT, batch: false };
        let mut bytes = vec![0; VerdictMessage::EDITED_BYTES_MAX];
        let length = message.encode_edited(&ConntrackEdit::default(), Some(&[1; 100]), &mut bytes);
        let (sent, _) = decode_sent(&bytes[..length]);
        let Sent::Verdict(edited) = sent else { panic!("{sent:?}") };
        assert!(!edited.plain && edited.rewrites);
        assert_eq!((edited.id, edited.queue), (PacketId(9), 3));
        assert_eq!(decode_sent(&bytes[..60]).0, Sent::Other, "its own length is more");
        assert_eq!(decode_sent_prefix(&bytes[..60]), Sent::Verdict(edited));
    }

    #[test]
    fn configuration_says_whose_queue_it_is() {
        let mut bytes = [0; QueueRequest::BYTES_MAX];
        let mut config = |request: QueueRequest| {
            let length = request.encode(&mut bytes);
            decode_sent(&bytes[..length]).0
        };
        let bound = SentConfig { queue: 5, command: Some(BindCommand::Bind), copies_packets: true };
        let bind = QueueRequest::bind(5, CopyRange::Full, 1024, ConfigFlags::NONE);
        assert_eq!(config(bind), Sent::Config(bound));
        let given_up =
            SentConfig { command: Some(BindCommand::Unbind), copies_packets: false, ..bound };
        assert_eq!(config(QueueRequest::unbind(5)), Sent::Config(given_up));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..4) {
            let mut framed = bytes;
            if framed.len() >= 24 {
                let length = u32::try_from(framed.len()).unwrap();
                framed[0..4].copy_from_slice(&length.to_ne_bytes());
                framed[4..8].copy_from_slice(&[kind, 3, 1, 0]);
            }
            for end in 0..framed.len() {
                let _ = decode_sent(&framed[..end]);
                let _ = decode_sent_prefix(&framed[..end]);
            }
            let _ = decode_sent(&framed);
        }
    }
}
