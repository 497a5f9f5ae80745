//! How a worker leaves its queue to whoever serves it next.
//!
//! Invariant: after the order it receives nothing, and it ends with no packet in its hands: all that it has received
//! is answered. The queue keeps its length, its packets and their unread messages.

use super::Worker;
use crate::inspect::Inspector;
use crate::queue::Port;
use crate::sys::Timestamp;
use crate::worker::WorkerError;

impl<P: Port, I: Inspector> Worker<P, I> {
    /// Waits for the answers of deferred packets, until `stop_by`; what has none then gets its fallback. Nothing else
    /// is in a worker's hands between two turns.
    pub(super) fn release(&mut self, stop_by: Timestamp) -> Result<(), WorkerError> {
        // What fills the socket from here on is for whoever serves the queue next.
        self.desk.dismiss_watchdog();
        while self.desk.coalescer.held() > 0 && Timestamp::now() < stop_by {
            if self.collect()? == 0 {
                self.await_answers(stop_by);
            }
            self.send_verdicts()?;
        }
        self.give_up_on_answers()
    }
}
