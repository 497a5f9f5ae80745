//! How a worker ends its queue: everything that is queued is answered first.
//!
//! Invariant: what the kernel had queued when the gate was shut has a verdict and stands in the account when this is
//! over: judged or, for want of time, flushed. A worker that may not receive before answers come does not take that for
//! an empty queue.

use super::{Desk, Worker, packet_id, send};
use crate::inspect::Inspector;
use crate::nfq::{self, Message, PacketId, QueueRequest};
use crate::queue::Port;
use crate::sys::Timestamp;
use crate::worker::WorkerError;

impl<P: Port, I: Inspector> Worker<P, I> {
    /// Empties the queue by `stop_by`, so that its end loses nothing:
    ///
    /// 1. serve on until nothing waits, for half of the time at most;
    /// 2. shut the gate: with a length of 0 the queue takes no more (what comes is dropped and counted by the
    ///    kernel or, under fail-open, passes), so what is left is finite;
    /// 3. serve that, and wait for the answers of deferred packets; what there is no time for gets its fallback or,
    ///    if it was never seen, the `on_exit` verdict or the inspector's `unseen`, all at once.
    pub(super) fn drain(&mut self, stop_by: Timestamp) -> Result<(), WorkerError> {
        let left = stop_by.since(Timestamp::now());
        let gate_at =
            Timestamp(stop_by.0.saturating_sub(u64::try_from(left.as_nanos() / 2).unwrap_or(0)));
        while Timestamp::now() < gate_at {
            if self.turn(false)? > 0 {
                continue;
            }
            if !self.desk.is_full_of_deferred() {
                break;
            }
            self.await_answers(gate_at);
        }

        let mut gate = [0; QueueRequest::BYTES_MAX];
        let length = QueueRequest::set_maxlen(self.desk.queue, 0).encode(&mut gate);
        send(&mut self.port, &gate[..length], self.desk.queue, &self.desk.shared.counters)?;
        let mut empty = false;
        while Timestamp::now() < stop_by {
            let idle = self.turn(false)? == 0;
            empty = idle && !self.desk.is_full_of_deferred();
            if empty && self.desk.coalescer.held() == 0 {
                return Ok(());
            }
            if idle {
                self.await_answers(stop_by);
            }
        }
        self.give_up_on_answers()?;
        if empty { Ok(()) } else { self.flush() }
    }

    /// Answers everything that is still queued by one batch verdict, and counts the messages that are now stale.
    fn flush(&mut self) -> Result<(), WorkerError> {
        let verdict = self.on_exit.unwrap_or_else(|| self.desk.inspector.unseen());
        self.desk.dismiss_watchdog();
        let next = self.desk.shared.heartbeat.next_id();
        let ahead_of_all = PacketId(next.0.wrapping_add(FUTURE));
        let messages = self.desk.coalescer.everything_up_to(ahead_of_all, verdict);
        send(&mut self.port, messages, self.desk.queue, &self.desk.shared.counters)?;
        loop {
            let received = self.receive_once(false)?;
            if received == 0 {
                return Ok(());
            }
            for index in 0..received {
                self.desk.count_flushed(self.port.ring().datagram(index));
            }
        }
    }
}

impl<I: Inspector> Desk<I> {
    fn count_flushed(&mut self, datagram: &[u8]) {
        if let Some(id) = packet_id(datagram) {
            self.note_id(id);
            self.shared.counters.flushed.add(1);
            return;
        }
        match nfq::decode(datagram) {
            Ok((Message::Reply(reply), _)) => self.note_reply(reply),
            _ => self.shared.counters.malformed.add(1),
        }
    }
}

/// Far ahead of any id that is queued, and still "later" in serial-number arithmetic.
const FUTURE: u32 = 1 << 30;
