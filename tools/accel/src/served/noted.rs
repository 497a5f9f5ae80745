//! Datagrams as they come: which are packets, that are out now, and which the program is not to see.
//!
//! Invariant: every packet that this process receives is noted once, before the program has it or while the thread that
//! has it still counts as receiving. It deliberately keeps nothing itself.

use fanq::nfq::{self, KernelReply, Message, PacketId, Request};

use super::{OWN_SEQUENCE, Port, place};
use crate::queue::{Losses, ServedQueue};

/// What a datagram was.
pub(super) enum Noted {
    /// A packet of the queue at this place.
    Packet(usize),
    /// The reply to a request of ours.
    Own,
    Other,
}

/// Takes note of one datagram that came: which packet is out now.
#[inline]
pub(super) fn note(
    queues: &mut [ServedQueue],
    datagram: &[u8],
    own_requests: bool,
    losses: &mut impl Losses,
) -> Noted {
    if let Some((queue, id)) = nfq::packet_place(datagram)
        && let Some(at) = place(queues, queue)
        && !queues[at].counters.are_kept()
    {
        queues[at].received(id, losses);
        return Noted::Packet(at);
    }
    match nfq::decode(datagram) {
        Ok((Message::Packet(packet), _)) => {
            let Some(at) = place(queues, packet.queue()) else { return Noted::Other };
            queues[at].counters.packet(&packet);
            queues[at].received(packet.id(), losses);
            Noted::Packet(at)
        }
        Ok((Message::Reply(reply), _)) => {
            let is_verdict = matches!(reply.request, Request::Verdict | Request::VerdictBatch);
            if is_verdict
                && reply.errno != 0
                && let Some(queue) = queues.first()
            {
                queue.counters.verdict_error();
            }
            if own_requests && is_own(&reply) { Noted::Own } else { Noted::Other }
        }
        Err(undecodable) => undecoded(queues, datagram, undecodable.id, losses),
        Ok((Message::Unknown(_), _)) => Noted::Other,
    }
}

/// Whether this is the reply to a request of ours.
pub(super) fn is_own_reply(datagram: &[u8]) -> bool {
    matches!(nfq::decode(datagram), Ok((Message::Reply(reply), _)) if is_own(&reply))
}

fn is_own(reply: &KernelReply) -> bool {
    reply.sequence == OWN_SEQUENCE && reply.request == Request::Config
}

/// A message that its buffer had no room for: the queue stands in its header.
#[cold]
fn undecoded(
    queues: &mut [ServedQueue],
    datagram: &[u8],
    id: Option<PacketId>,
    losses: &mut impl Losses,
) -> Noted {
    let queue = datagram.get(18..20).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let at = queue.and_then(|queue| place(queues, queue));
    let (Some(id), Some(at)) = (id, at) else { return Noted::Other };
    queues[at].counters.undecodable();
    queues[at].received(id, losses);
    Noted::Packet(at)
}

/// Ids that are missing, held against the socket's count of what it had no room for.
pub(super) struct SocketLosses<'a, P, O> {
    pub(super) port: &'a mut P,
    pub(super) explained: &'a mut u32,
    /// Whether somebody else may have received them.
    pub(super) others: O,
}

impl<P: Port, O: Fn() -> bool> Losses for SocketLosses<'_, P, O> {
    fn explain(&mut self, missing: u32) -> bool {
        if (self.others)() {
            return false;
        }
        let Some(drops) = self.port.drops() else { return false };
        let enough = drops.wrapping_sub(*self.explained) >= missing;
        if enough {
            *self.explained = self.explained.wrapping_add(missing);
        }
        enough
    }
}
