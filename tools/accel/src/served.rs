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
//! The ring is filled only for a program that has given a verdict here, and while nobody else is to be woken by what is
//! there: no other thread is in the kernel for this socket, no other process receives on it, and no epoll watches it
//! for one event. It deliberately makes no system call itself: those are the [`Port`]'s.

mod eagerness;
mod noted;
mod outgoing;
mod threads;

use fanq::nfq::{BindCommand, Sent, SentConfig, SentVerdict, decode_sent, decode_sent_prefix};

use crate::queue::ServedQueue;
use crate::readers::Readers;
use crate::ring::Ring;
use eagerness::Eagerness;
use noted::{Noted, SocketLosses, is_own_reply, note};
use outgoing::Outgoing;
pub(crate) use threads::Threads;

/// The socket as the kernel has it.
pub(crate) trait Port {
    /// Receives what waits, without blocking, into the first `depth` slots of the ring, which is empty, and returns how
    /// many there were. An error is the errno.
    fn receive(&mut self, ring: &mut Ring, depth: usize) -> Result<usize, i32>;

    /// Sends one datagram to the kernel.
    fn send(&mut self, bytes: &[u8]) -> Result<(), i32>;

    /// How many datagrams the socket has had no room for since it was made.
    fn drops(&mut self) -> Option<u32>;

    /// Tells that joined verdicts could not be sent, for this errno: their packets get none.
    fn gave_up(&mut self, errno: i32);
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
    /// The parent that this process has the socket from, while that may be receiving on it.
    pub(crate) shared_with: Option<i32>,
    /// The processes that receive on it.
    pub(crate) readers: Readers,
    /// Whether the program has given a verdict on it: before, it may be setting up what another process will serve.
    has_answered: bool,
    /// An errno that the kernel has told, once, behind datagrams that the program got instead.
    owed: Option<i32>,
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
            shared_with: None,
            readers: Readers::This,
            has_answered: false,
            owed: None,
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
    pub(crate) fn next(&mut self, threads: Threads, port: &mut impl Port) -> Next {
        if self.ring.is_empty() { self.next_of_kernel(threads, port) } else { Next::Take }
    }

    fn next_of_kernel(&mut self, threads: Threads, port: &mut impl Port) -> Next {
        self.flush(port);
        if let Some(errno) = self.owed.take() {
            return Next::Fail(errno);
        }
        self.readers.enter();
        let alone = self.shared_with.is_none() && !self.readers.others() && threads.may_fill();
        if !alone || !self.has_answered {
            return Next::Ask;
        }
        match self.eagerness.depth() {
            0 => Next::Ask,
            depth => self.fill(depth, port),
        }
    }

    /// The kernel has told this errno, or it was told to the program, which got datagrams instead before.
    pub(crate) fn owe(&mut self, errno: Option<i32>) {
        self.owed = errno;
    }

    /// What is still to be told.
    pub(crate) fn owed(&self) -> Option<i32> {
        self.owed
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
        let Self { ring, queues, drops_explained, own_requests, readers, .. } = self;
        let readers = *readers;
        let others = || readers.others();
        let mut losses = SocketLosses { port, explained: drops_explained, others };
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
    /// all. The thread that has it still counts among `threads`: so no other one takes its packet for lost. False if
    /// the program is not to see it, and must ask again.
    pub(crate) fn received_by_program(
        &mut self,
        prefix: &[u8],
        threads: Threads,
        port: &mut impl Port,
    ) -> bool {
        let Self { queues, drops_explained, own_requests, readers, .. } = self;
        let readers = *readers;
        let others = || threads.others_receive() || readers.others();
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

    /// The same of what it has only looked at, and which therefore is there still.
    pub(crate) fn peeked_by_program(&mut self, prefix: &[u8], port: &mut impl Port) -> bool {
        if !self.own_requests || !is_own_reply(prefix) {
            return true;
        }
        if self.ring.is_empty() {
            // Should another thread have been faster, this is the program's, and waits for it in the ring.
            self.fill(1, port);
        }
        false
    }

    /// Whether replies may come that the program is not to see.
    pub(crate) fn may_hide(&self) -> bool {
        self.own_requests
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
        if whole && self.shared_with.is_none() {
            match self.join(bytes, port) {
                Joined::Waits => {
                    self.has_answered = true;
                    // Nobody may come to send it: the program has everything that was received.
                    if self.ring.is_empty() {
                        self.flush(port);
                    }
                    return SentAs::Joined;
                }
                Joined::Alone(Ok(())) => {
                    self.has_answered = true;
                    return SentAs::Joined;
                }
                Joined::Alone(Err(errno)) => return SentAs::Itself(Err(errno)),
                Joined::Not => {}
            }
        }
        self.flush(port);
        let result = itself();
        if result.is_ok() {
            self.note_sent(bytes, whole);
        }
        SentAs::Itself(result)
    }

    /// Joins the verdicts, if there are nothing but verdicts that may be.
    fn join(&mut self, bytes: &[u8], port: &mut impl Port) -> Joined {
        if let (Sent::Verdict(sent), []) = decode_sent(bytes)
            && let Some(at) = place(&self.queues, sent.queue)
        {
            let queue = &mut self.queues[at];
            if !sent.plain || !queue.may_join(sent.id) {
                return Joined::Not;
            }
            if self.outgoing.pending > 0 || !self.ring.is_empty() {
                self.outgoing.join(&mut self.queues, at, &sent, bytes, port);
                return Joined::Waits;
            }
            // Nothing to join it with.
            let result = outgoing::transmit(bytes, port);
            if result.is_ok() {
                queue.coalescer.forget_held(sent.id);
                queue.counters.verdicts(sent.verdict, 1);
                queue.counters.send();
            }
            return Joined::Alone(result);
        }
        self.join_many(bytes, port)
    }

    /// The same where there are several messages.
    fn join_many(&mut self, bytes: &[u8], port: &mut impl Port) -> Joined {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (Sent::Verdict(sent), behind) = decode_sent(rest) else { return Joined::Not };
            let known = self.queues.iter().find(|queue| queue.number == sent.queue);
            if !sent.plain || !known.is_some_and(|queue| queue.may_join(sent.id)) {
                return Joined::Not;
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
        Joined::Waits
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
        self.has_answered = true;
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.number == sent.queue) else {
            return;
        };
        let count = if queue.is_blind() {
            // Of how many packets cannot be told.
            1
        } else if up_to {
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

    /// In a child, which is this process: what waits belongs to the parent.
    pub(crate) fn forked(&mut self, process: i32, parent: i32) {
        self.ring.clear();
        self.outgoing.clear(&mut self.queues);
        self.shared_with = Some(parent);
        self.readers.forked(process.cast_unsigned());
    }

    /// In a child: its parent is gone.
    pub(crate) fn take_over(&mut self) {
        self.shared_with = None;
        self.queues.iter_mut().for_each(ServedQueue::resume);
    }

    /// Joins nothing any more on this socket.
    fn blind(&mut self) {
        self.queues.iter_mut().for_each(ServedQueue::blind);
    }
}

/// What became of verdicts.
enum Joined {
    /// They go out with others.
    Waits,
    /// One went out as it is, since there was nothing to join it with; or the errno.
    Alone(Result<(), i32>),
    /// They may not be joined.
    Not,
}

#[inline]
fn place(queues: &[ServedQueue], number: u16) -> Option<usize> {
    queues.iter().position(|queue| queue.number == number)
}

/// Numbers our own requests.
pub(crate) const OWN_SEQUENCE: u32 = 0x0fa9_acc1;

#[cfg(test)]
mod tests;
