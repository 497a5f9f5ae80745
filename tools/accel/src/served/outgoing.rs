//! Verdicts on their way to the kernel: joined by the engine's coalescer, in the program's order across its queues.
//!
//! Invariant: a verdict that waits alone goes out as the very bytes that the program sent. When the program turns to
//! another queue of the same socket, what it said of the first is written before. A send that the kernel has no memory
//! for is tried again; what was joined is thrown away only when there is no hope, which is counted and told.

use fanq::nfq::{SentVerdict, VerdictMessage};

use super::Port;
use crate::counts::QueueCounters;
use crate::queue::ServedQueue;

#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Box<[u8; ROOM]>,
    length: usize,
    /// The queue whose coalescer may have more, by its place.
    current: usize,
    /// Verdicts since the last send.
    pub(super) pending: usize,
    /// How often all that was joined was sent.
    pub(super) sends: u32,
    /// The first of them, as the program sent it.
    original: [u8; VerdictMessage::BYTES_MAX],
    original_length: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([0; ROOM]),
            length: 0,
            current: 0,
            pending: 0,
            sends: 0,
            original: [0; VerdictMessage::BYTES_MAX],
            original_length: 0,
        }
    }

    /// Takes one plain verdict of a packet that is out in the queue at `at`; `message` is what the program sent.
    #[inline]
    pub(super) fn join(
        &mut self,
        queues: &mut [ServedQueue],
        at: usize,
        sent: &SentVerdict,
        message: &[u8],
        port: &mut impl Port,
    ) {
        if self.pending == 0 {
            self.current = at;
            // A plain message has no more than this, but for padding.
            self.original_length = message.len().min(self.original.len());
            self.original[..self.original_length].copy_from_slice(&message[..self.original_length]);
        } else if self.current != at {
            let current = self.current;
            let queue = &mut queues[current];
            self.append(queue.coalescer.finish(), queue.counters, port);
            self.current = at;
        }
        let queue = &mut queues[at];
        if queue.coalescer.is_full() {
            self.append(queue.coalescer.take(), queue.counters, port);
        }
        queue.coalescer.answer_held(sent.id, Some(sent.verdict));
        queue.counters.verdicts(sent.verdict, 1);
        self.pending += 1;
    }

    /// Sends all that was joined.
    pub(super) fn flush(&mut self, queues: &mut [ServedQueue], port: &mut impl Port) {
        let Some(queue) = queues.get_mut(self.current) else { return };
        queue.counters.send();
        let joined = queue.coalescer.finish();
        if self.pending == 1 {
            hand_over(&self.original[..self.original_length], queue.counters, port);
        } else {
            self.append(joined, queue.counters, port);
            hand_over(&self.bytes[..self.length], queue.counters, port);
        }
        (self.length, self.pending) = (0, 0);
        self.sends = self.sends.wrapping_add(1);
    }

    /// In a child: what was joined is the parent's to send.
    pub(super) fn clear(&mut self, queues: &mut [ServedQueue]) {
        if let Some(queue) = queues.get_mut(self.current) {
            queue.coalescer.finish();
        }
        (self.length, self.pending) = (0, 0);
    }

    /// Puts messages behind those that are written, which go out now if there is no room for both in a cheap send.
    fn append(&mut self, messages: &[u8], counters: QueueCounters, port: &mut impl Port) {
        if self.length + messages.len() > ROOM {
            hand_over(&self.bytes[..self.length], counters, port);
            self.length = 0;
        }
        self.bytes[self.length..self.length + messages.len()].copy_from_slice(messages);
        self.length += messages.len();
    }
}

/// Sends what the program believes to be sent: where that fails there is nobody to be told but whoever looks on.
fn hand_over(bytes: &[u8], counters: QueueCounters, port: &mut impl Port) {
    if let Err(errno) = transmit(bytes, port) {
        counters.verdict_error();
        port.gave_up(errno);
    }
}

/// Sends, again where the kernel has no memory for the moment. An error is the errno.
pub(super) fn transmit(bytes: &[u8], port: &mut impl Port) -> Result<(), i32> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut attempts = 1;
    loop {
        match port.send(bytes) {
            // No memory for the moment, and nothing of it was read.
            Err(libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM | libc::EINTR)
                if attempts < SEND_ATTEMPTS =>
            {
                attempts += 1;
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

/// What one send takes at most, below a page with the kernel's own overhead (docs/NFQUEUE.md, "Verdicts").
const ROOM: usize = 3_584;

/// Far beyond any shortage that ends.
const SEND_ATTEMPTS: usize = 10_000;
