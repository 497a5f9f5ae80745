//! What the rules that lead to our queues have counted, asked of the kernel itself: `nft` is a program, and `fanq run`
//! may start none once it is confined.
//!
//! ```text
//!   request   NFT_MSG_GETRULE, dump        every rule of this network namespace, iptables-nft's too
//!   answer    rule: expressions: [ .. counter {packets} .. queue {number, total} ]
//!                                [ .. counter {packets} .. target NFQUEUE {number, total} ]
//! ```
//!
//! Invariant: what cannot be known is none, never a guess: a rule that leads to our queues and does not count, one that
//! leads elsewhere too, one that takes the queue from a map, an answer that is broken. It deliberately changes nothing,
//! and does not see rules of iptables-legacy.

use std::os::fd::OwnedFd;
use std::time::Duration;

use fanq::QueueRange;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::net::{recv, send, socket_with};

/// A way to ask.
#[derive(Debug)]
pub(crate) struct RuleCounters(OwnedFd);

impl RuleCounters {
    /// # Errors
    /// The kernel has no netfilter sockets, or the process no descriptor left.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let netfilter = Some(netlink::NETFILTER);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, netfilter)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Packets that have come to rules for these queues, all rules together.
    pub(crate) fn came_to(&self, queues: QueueRange) -> Option<u64> {
        // Again if rules were changed meanwhile.
        (0..TRIES).find_map(|_| self.dump(queues))?.packets()
    }

    /// One answer, whole; none if it was cut or broken.
    fn dump(&self, queues: QueueRange) -> Option<Tally> {
        send(&self.0, &REQUEST, SendFlags::empty()).ok()?;
        let mut tally = Tally::default();
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).ok()?;
            if tally.take(&buffer[..length], queues).ok()? == Heard::All {
                return Some(tally);
            }
        }
    }
}

/// Whether more is to come.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Part,
    All,
}

/// It is broken, refused, or of a dump that was overtaken by a change.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// The rules so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    packets: u64,
    rules: u32,
    /// Whether a rule may lead to our queues of which it is not known how many packets came to them.
    unknown: bool,
}

impl Tally {
    fn packets(&self) -> Option<u64> {
        (self.rules > 0 && !self.unknown).then_some(self.packets)
    }

    /// Takes one datagram of the answer.
    fn take(&mut self, mut datagram: &[u8], queues: QueueRange) -> Result<Heard, Broken> {
        while !datagram.is_empty() {
            let length = u32::from_ne_bytes(*datagram.first_chunk().ok_or(Broken)?) as usize;
            let message = datagram.get(..length).ok_or(Broken)?;
            let header = message.first_chunk::<HEADER>().ok_or(Broken)?;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            match kind {
                DONE => return Ok(Heard::All),
                NEW_RULE if flags & DUMP_INTERRUPTED == 0 => {
                    self.take_rule(message.get(HEADER + NFGENMSG..).ok_or(Broken)?, queues)?;
                }
                _ => return Err(Broken),
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Heard::Part)
    }

    fn take_rule(&mut self, rule: &[u8], queues: QueueRange) -> Result<(), Broken> {
        let Some(mut expressions) = attribute(rule, RULE_EXPRESSIONS)? else { return Ok(()) };
        let mut counted = None;
        while let Some((_, expression)) = next(&mut expressions)? {
            let name = attribute(expression, EXPRESSION_NAME)?.unwrap_or_default();
            let data = attribute(expression, EXPRESSION_DATA)?.unwrap_or_default();
            let leads_to = match name {
                b"counter\0" => {
                    let bytes = attribute(data, COUNTER_PACKETS)?.ok_or(Broken)?;
                    counted = Some(u64::from_be_bytes(bytes.try_into().map_err(|_| Broken)?));
                    continue;
                }
                b"queue\0" => of_statement(data)?,
                b"target\0" if attribute(data, TARGET_NAME)? == Some(b"NFQUEUE\0") => {
                    of_target(attribute(data, TARGET_INFO)?)
                }
                _ => continue,
            };
            self.note(leads_to, counted, queues);
        }
        Ok(())
    }

    /// Notes a rule that leads to these queues, first and last.
    fn note(&mut self, leads_to: Option<(u32, u32)>, counted: Option<u64>, queues: QueueRange) {
        let (ours, theirs) = ((u32::from(queues.first()), u32::from(queues.last())), leads_to);
        match (theirs, counted) {
            (Some((first, last)), _) if last < ours.0 || first > ours.1 => {}
            (Some((first, last)), Some(packets)) if first >= ours.0 && last <= ours.1 => {
                self.rules += 1;
                self.packets += packets;
            }
            _ => self.unknown = true,
        }
    }
}

/// Queues of nft's own statement, first and last; none if a map has them.
fn of_statement(data: &[u8]) -> Result<Option<(u32, u32)>, Broken> {
    let number = |bytes: &[u8]| two_bytes(bytes, u16::from_be_bytes).ok_or(Broken);
    let Some(first) = attribute(data, QUEUE_NUMBER)?.map(number).transpose()? else {
        return Ok(None);
    };
    let total = attribute(data, QUEUE_TOTAL)?.map(number).transpose()?.unwrap_or(1).max(1);
    Ok(Some((first, first + total - 1)))
}

/// Queues of the xtables target (`struct xt_NFQ_info` and its later forms begin alike: number, then total).
fn of_target(info: Option<&[u8]>) -> Option<(u32, u32)> {
    let info = info?;
    let first = two_bytes(info.get(..2)?, u16::from_ne_bytes)?;
    // Of the first form it is padding.
    let total = info.get(2..4).and_then(|bytes| two_bytes(bytes, u16::from_ne_bytes));
    Some((first, first + total.unwrap_or(1).max(1) - 1))
}

fn two_bytes(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Option<u32> {
    bytes.try_into().ok().map(read).map(u32::from)
}

/// Takes the next attribute off.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u16, &'a [u8])>, Broken> {
    if rest.is_empty() {
        return Ok(None);
    }
    let header = rest.first_chunk::<4>().ok_or(Broken)?;
    let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
    let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
    let value = rest.get(4..length).ok_or(Broken)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok(Some((kind, value)))
}

/// The first attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Result<Option<&[u8]>, Broken> {
    while let Some((kind, value)) = next(&mut attributes)? {
        if kind == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

// include/uapi/linux/netlink.h, nfnetlink.h, nf_tables.h of Linux 6.12.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const NEW_RULE: u16 = (10 << 8) | 6;
const KIND_MASK: u16 = 0x3fff;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const QUEUE_NUMBER: u16 = 1;
const QUEUE_TOTAL: u16 = 2;
const TARGET_NAME: u16 = 1;
const TARGET_INFO: u16 = 3;

/// Length, NFT_MSG_GETRULE, NLM_F_REQUEST and NLM_F_DUMP, sequence and port 0; every family.
const REQUEST: [u8; HEADER + NFGENMSG] = {
    let mut bytes = [0; HEADER + NFGENMSG];
    let length = 20_u32.to_ne_bytes();
    let kind = ((10_u16 << 8) | 7).to_ne_bytes();
    let flags = 0x301_u16.to_ne_bytes();
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (length[0], length[1], length[2], length[3]);
    (bytes[4], bytes[5], bytes[6], bytes[7]) = (kind[0], kind[1], flags[0], flags[1]);
    bytes
};

/// The kernel answers a dump in pieces of at most this size (`NLMSG_GOODSIZE` and, for large receives, 32 KiB).
const ANSWER_BYTES: usize = 64 << 10;

/// A dump that is overtaken by a change of the rules is asked for again.
const TRIES: u32 = 3;

/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
