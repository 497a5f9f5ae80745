//! The end of an engine whose queues go on: another process serves them next.
//!
//! Invariant: once [`Engine::release`] has returned, no worker of this engine receives, and a queue for which it names
//! the next id has every packet before it answered. It gives nothing up by itself, but the queues live only as long as
//! somebody has a descriptor of their sockets: take [`Engine::bound_queues`] before.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Engine, WorkerEnd, WorkerHandle};
use crate::bound_queue::BoundQueue;
use crate::nfq::PacketId;
use crate::stats::QueueStats;
use crate::worker::WorkerError;

/// How an engine ended whose queues go on.
#[derive(Debug)]
pub struct Released {
    /// One for each queue, in the order of the range.
    pub queues: Vec<ReleasedQueue>,
    /// Workers that failed, or did not come back in time.
    pub failures: Vec<WorkerError>,
}

/// One queue that goes on.
#[derive(Debug)]
pub struct ReleasedQueue {
    /// The last statistics.
    pub stats: QueueStats,
    /// The first packet that nobody has received. None if the worker did not end in order: then there may be packets
    /// that it received and did not answer.
    pub next_id: Option<PacketId>,
}

impl Engine {
    /// The sockets of all queues, each with a descriptor of its own: to pass them to another process, or to have them
    /// kept for the next one.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn bound_queues(&self) -> io::Result<Vec<BoundQueue>> {
        let copy = |worker: &WorkerHandle| {
            let socket = worker.waker.socket().try_clone_to_owned()?;
            Ok(BoundQueue::of_engine(worker.assignment.queue, socket))
        };
        self.workers.iter().map(copy).collect()
    }

    /// Stops without giving the queues up: each worker answers what it has received, for `limit` at most, and
    /// receives nothing more. A worker that does not come back by then is left behind: end the process soon.
    pub fn release(mut self, limit: Duration) -> Released {
        // None if it is later than any time there is.
        let deadline = Instant::now().checked_add(limit.saturating_add(GRACE));
        let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
        for worker in &self.workers {
            worker.shared.order_release(limit);
            // A send that fails leaves a worker that some later packet wakes; nothing better can be done.
            let _ = worker.waker.wake();
        }
        let mut released = Released { queues: Vec::new(), failures: Vec::new() };
        for worker in std::mem::take(&mut self.workers) {
            while !worker.thread.is_finished() && in_time() {
                std::thread::sleep(LOOK_EVERY);
            }
            let queue = worker.assignment.queue;
            let table = self.table.as_ref();
            let kernel = table.and_then(|table| table.row(queue).ok().flatten());
            let stats = worker.stats(kernel);
            let (next_id, failure) = end_of(worker.thread, queue);
            released.queues.push(ReleasedQueue { stats, next_id });
            released.failures.extend(failure);
        }
        released
    }
}

/// How far a worker came; why that is not known, if it failed.
fn end_of(
    thread: JoinHandle<Option<WorkerEnd>>,
    queue: u16,
) -> (Option<PacketId>, Option<WorkerError>) {
    if !thread.is_finished() {
        return (None, Some(WorkerError::NotBack { queue }));
    }
    match thread.join() {
        Ok(Some(WorkerEnd { next_id, result: Ok(()), .. })) => (Some(next_id), None),
        Ok(Some(WorkerEnd { result: Err(error), .. })) => (None, Some(error)),
        Ok(None) | Err(_) => (None, Some(WorkerError::Panicked { queue })),
    }
}

/// How much longer than told a worker may take.
const GRACE: Duration = Duration::from_millis(500);

/// The end of a thread has no descriptor to wait on.
const LOOK_EVERY: Duration = Duration::from_micros(50);
