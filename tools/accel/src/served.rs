//! A socket that serves queues: what becomes of the program's receives and sends on it.
//!
//! ```text
//!   receive:  ring has one -> hand it out
//!             else flush -> fill the ring without blocking -> hand out the first, or let the program's own call block
//!   send:     all plain verdicts of packets that are out -> join them; flush if the ring is empty
//!             else flush -> send it as it is -> note what it did
//! ```
//!
//! Invariant: joined verdicts wait only while the ring has datagrams, so a program that could block has none of them
//! waiting; what goes to the kernel has the program's order, but that a drop, which delivers nothing, may come sooner.
//! While a thread sleeps in the kernel for this socket the ring is not filled, so that nothing is taken from under it.
//! It deliberately makes no system call itself: those are the [`Port`]'s.

mod eagerness;
mod outgoing;

use fanq::nfq::{
    self, BindCommand, Message, PacketId, Request, Sent, SentConfig, SentVerdict, decode_sent,
    decode_sent_prefix,
};

use crate::queue::{Losses, ServedQueue};
use crate::ring::Ring;
use eagerness::Eagerness;
use outgoing::Outgoing;

/// The socket as the kernel has it.
pub(crate) trait Port {
    /// Receives what waits, without blocking, into the first `depth` slots of the ring, which is empty, and returns how
    /// many there were. An error is the errno.
    fn receive(&mut self, ring: &mut Ring, depth: usize) -> Result<usize, i32>;

    /// Sends one datagram to the kernel.
    fn send(&mut self, bytes: &[u8]) -> Result<(), i32>;

    /// How many datagrams the socket has had no room for since it was made.
    fn drops(&mut self) -> Option<u32>;
}

/// What a receive of the program's is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take the front of the ring.
    Take,
    /// Ask the kernel, and report by [`Serving::received_by_program`].
    Ask,
    /// The same, unless the program does not wait: nothing is there.
    Wait,
    /// The kernel has this errno for the program, which it tells once.
    Fail(i32),
}

/// What became of something that the program sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentAs {
    /// Verdicts that wait, or went out, with others.
    Joined,
    /// As it was, with this result: how many bytes, or the errno.
    Itself(Result<usize, i32>),
}

/// A socket on which queues were bound.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) ring: Ring,
    queues: Vec<ServedQueue>,
    outgoing: Outgoing,
    /// Threads that are in the kernel for this socket: receiving, or waiting for it to be readable.
    pub(crate) sleepers: u32,
    /// The parent that this process has the socket from, while that may be receiving on it.
    pub(crate) shared_with: Option<i32>,
    /// Whether packets were received since this was last put to false: who received them reads this socket, which one
    /// that only set it up does not.
    pub(crate) packets_came: bool,
    /// Counts the times that the ring was filled.
    pub(crate) fills: u32,
    /// Of the socket's drops, those that were found to be packets' ids.
    drops_explained: u32,
    /// Whether requests of ours went out on it.
    own_requests: bool,
    eagerness: Eagerness,
    /// Sends when the flushing thread looked last.
    sends_seen: u32,
}

impl Serving {
    pub(crate) fn new(batch: usize, port: &mut impl Port) -> Self {
        Self {
            ring: Ring::new(batch),
            queues: Vec::with_capacity(4),
            outgoing: Outgoing::new(),
            sleepers: 0,
            shared_with: None,
            packets_came: false,
            fills: 0,
            drops_explained: port.drops().unwrap_or(0),
            own_requests: false,
            eagerness: Eagerness::new(batch),
            sends_seen: 0,
        }
    }

    /// The queues that are bound, by number.
    pub(crate) fn queues(&self) -> impl Iterator<Item = u16> + '_ {
        self.queues.iter().map(|queue| queue.number)
    }

    /// Whether the queue is bound on this socket.
    pub(crate) fn is_bound(&self, queue: u16) -> bool {
        self.queues().any(|number| number == queue)
    }

    /// Whether verdicts wait for others.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.outgoing.pending > 0
    }

    /// Whether what waits has waited since this was asked last.
    pub(crate) fn waits_since_last_look(&mut self) -> bool {
        let sends = self.outgoing.sends;
        std::mem::replace(&mut self.sends_seen, sends) == sends
    }

    /// What a receive is to do. Afterwards, unless the program only looks, the front is popped.
    #[inline]
    pub(crate) fn next(&mut self, port: &mut impl Port) -> Next {
        if self.ring.is_empty() {
            self.flush(port);
            if self.sleepers > 0 || self.shared_with.is_some() {
                return Next::Ask;
            }
            return match self.eagerness.depth() {
                0 => Next::Ask,
                depth => self.fill(depth, port),
            };
        }
        Next::Take
    }

    /// Fills the ring with what waits, up to `depth` datagrams.
    fn fill(&mut self, depth: usize, port: &mut impl Port) -> Next {
        let count = match port.receive(&mut self.ring, depth) {
            Ok(count @ 1..) => count,
            Ok(0) | Err(libc::EINTR) => return Next::Ask,
            Err(libc::EAGAIN) => {
                self.eagerness.found_nothing();
                return Next::Wait;
            }
            Err(errno) => return Next::Fail(errno),
        };
        self.eagerness.found(count, depth);
        self.ring.received(count);
        self.fills = self.fills.wrapping_add(1);
        let Self { ring, queues, drops_explained, own_requests, .. } = self;
        let mut losses = SocketLosses { port, explained: drops_explained, others: false };
        let (mut packets, mut place) = (0, 0);
        for index in 0..count {
            match note(queues, ring.datagram(index), *own_requests, &mut losses) {
                Noted::Packet(queue) => (packets, place) = (packets + 1, queue),
                Noted::Own => ring.hide(index),
                Noted::Other => {}
            }
        }
        if let Some(queue) = queues.get(place) {
            queue.counters.receive(packets);
        }
        self.packets_came |= packets > 0;
        if self.ring.is_empty() { Next::Ask } else { Next::Take }
    }

    /// Takes note of what the program has received by its own call, of which `prefix` is at least the first 32 bytes or
    /// all. False if the program is not to see it, and must ask again.
    pub(crate) fn received_by_program(&mut self, prefix: &[u8], port: &mut impl Port) -> bool {
        let others = self.sleepers > 0;
        let Self { queues, drops_explained, own_requests, .. } = self;
        let mut losses = SocketLosses { port, explained: drops_explained, others };
        match note(queues, prefix, *own_requests, &mut losses) {
            Noted::Packet(queue) => {
                queues[queue].counters.receive(1);
                self.packets_came = true;
            }
            Noted::Own => return false,
            Noted::Other => {}
        }
        true
    }

    /// Sends on what the program sends. `bytes` is all of it if `whole`, else its beginning. `itself` sends it as it
    /// is.
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        whole: bool,
        port: &mut impl Port,
        itself: impl FnOnce() -> Result<usize, i32>,
    ) -> SentAs {
        if whole && self.shared_with.is_none() && self.join(bytes, port) {
            // Nobody may come to send it: the program has everything that was received.
            if self.ring.is_empty() {
                self.flush(port);
            }
            return SentAs::Joined;
        }
        self.flush(port);
        let result = itself();
        if result.is_ok() {
            self.note_sent(bytes, whole);
        }
        SentAs::Itself(result)
    }

    /// Joins the verdicts, if there are nothing but verdicts that may be.
    fn join(&mut self, bytes: &[u8], port: &mut impl Port) -> bool {
        if let (Sent::Verdict(sent), []) = decode_sent(bytes)
            && let Some(at) = place(&self.queues, sent.queue)
        {
            let queue = &mut self.queues[at];
            let may = sent.plain && queue.may_join(sent.id);
            if may && self.outgoing.pending == 0 && self.ring.is_empty() {
                // Nothing to join it with.
                queue.coalescer.forget_held(sent.id);
                queue.counters.verdicts(sent.verdict, 1);
                queue.counters.send();
                outgoing::transmit(bytes, port);
            } else if may {
                self.outgoing.join(&mut self.queues, at, &sent, bytes, port);
            }
            return may;
        }
        self.join_many(bytes, port)
    }

    /// The same where there are several messages.
    fn join_many(&mut self, bytes: &[u8], port: &mut impl Port) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (Sent::Verdict(sent), behind) = decode_sent(rest) else { return false };
            let known = self.queues.iter().find(|queue| queue.number == sent.queue);
            if !sent.plain || !known.is_some_and(|queue| queue.may_join(sent.id)) {
                return false;
            }
            rest = behind;
        }
        rest = bytes;
        while let (Sent::Verdict(sent), behind) = decode_sent(rest) {
            let message = &rest[..rest.len() - behind.len()];
            if let Some(at) = self.queues.iter().position(|queue| queue.number == sent.queue) {
                self.outgoing.join(&mut self.queues, at, &sent, message, port);
            }
            rest = behind;
        }
        true
    }

    /// Sends all that waits.
    #[inline]
    pub(crate) fn flush(&mut self, port: &mut impl Port) {
        if self.has_pending() {
            self.outgoing.flush(&mut self.queues, port);
        }
    }

    /// Takes note of what the program has sent past the joining.
    fn note_sent(&mut self, bytes: &[u8], whole: bool) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (mut sent, behind) = decode_sent(rest);
            if sent == Sent::Other && !whole {
                sent = decode_sent_prefix(rest);
                if sent == Sent::Other {
                    // Whom it answers cannot be told.
                    self.blind();
                }
            }
            match sent {
                Sent::Verdict(sent) => self.answered(&sent, false),
                Sent::VerdictUpTo(sent) => self.answered(&sent, true),
                Sent::Config(config) => self.configured(config),
                Sent::Other => {}
            }
            rest = behind;
        }
    }

    fn answered(&mut self, sent: &SentVerdict, up_to: bool) {
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.number == sent.queue) else {
            return;
        };
        let count = if up_to {
            queue.coalescer.forget_held_up_to(sent.id)
        } else {
            usize::from(queue.coalescer.forget_held(sent.id))
        };
        queue.counters.verdicts(sent.verdict, count);
        queue.counters.send();
        if sent.rewrites {
            queue.counters.rewritten();
        }
    }

    /// What a configuration changes: which queues there are. One that is bound twice is refused by the kernel and stays
    /// what it was; one that is given up begins anew when it is bound again.
    pub(crate) fn configured(&mut self, config: SentConfig) {
        let known = self.queues.iter().position(|queue| queue.number == config.queue);
        match (config.command, known) {
            (Some(BindCommand::Bind), None) => self.queues.push(ServedQueue::new(config.queue)),
            (Some(BindCommand::Unbind), Some(at)) => {
                self.queues.swap_remove(at);
            }
            _ => {}
        }
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.number == config.queue) {
            queue.copies_packets |= config.copies_packets;
        }
    }

    /// Whether the program has asked for the bytes of this queue's packets.
    pub(crate) fn copies_packets(&self, queue: u16) -> bool {
        self.queues.iter().any(|known| known.number == queue && known.copies_packets)
    }

    /// Requests of ours go out from now on, numbered [`OWN_SEQUENCE`]: the kernel's refusals of them are not the
    /// program's to see.
    pub(crate) fn expect_own_replies(&mut self) {
        self.own_requests = true;
    }

    /// In a child: what waits belongs to the parent.
    pub(crate) fn forked(&mut self, parent: i32) {
        self.ring.clear();
        self.sleepers = 0;
        self.shared_with = Some(parent);
    }

    /// Joins nothing any more on this socket.
    fn blind(&mut self) {
        self.queues.iter_mut().for_each(ServedQueue::blind);
    }
}

enum Noted {
    /// A packet of the queue at this place.
    Packet(usize),
    /// The reply to a request of ours.
    Own,
    Other,
}

/// Takes note of one datagram that came: which packet is out now.
#[inline]
fn note(
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
            let own = own_requests && reply.sequence == OWN_SEQUENCE;
            if own && reply.request == Request::Config { Noted::Own } else { Noted::Other }
        }
        Err(undecodable) => undecoded(queues, datagram, undecodable.id, losses),
        Ok((Message::Unknown(_), _)) => Noted::Other,
    }
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

#[inline]
fn place(queues: &[ServedQueue], number: u16) -> Option<usize> {
    queues.iter().position(|queue| queue.number == number)
}

/// Ids that are missing, held against the socket's count of what it had no room for.
struct SocketLosses<'a, P> {
    port: &'a mut P,
    explained: &'a mut u32,
    others: bool,
}

impl<P: Port> Losses for SocketLosses<'_, P> {
    fn explain(&mut self, missing: u32) -> bool {
        let Some(drops) = self.port.drops().filter(|_| !self.others) else { return false };
        let enough = drops.wrapping_sub(*self.explained) >= missing;
        if enough {
            *self.explained = self.explained.wrapping_add(missing);
        }
        enough
    }
}

/// Numbers our own requests.
pub(crate) const OWN_SEQUENCE: u32 = 0x0fa9_acc1;

#[cfg(test)]
mod tests;
