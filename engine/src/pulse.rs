//! Whether all workers go on, for whoever is to be told so: a service manager's watchdog.
//!
//! ```text
//!   look   the beat is another than at the last look   -> it goes on
//!          the same                                    -> silent: at one batch since then, or its thread does not run
//!          wakes who has nothing in hand               -> one that sleeps has another beat by the next look
//! ```
//!
//! Invariant: a worker that has nothing to do is not taken for one that is stuck, and one whose thread does not run is
//! not taken for one that has nothing to do. It deliberately answers nothing: that is the engine's own
//! [watchdog](crate::watchdog)'s, which this does not need.

use std::sync::Arc;

use crate::monitor::{Monitor, Watched};
use crate::worker::heartbeat::Heartbeat;

/// Looks at all workers of an engine: [`Monitor::pulse`].
#[derive(Debug)]
pub struct Pulse {
    workers: Arc<[Watched]>,
    /// What each worker's beat was at the last look.
    beats: Vec<u64>,
}

impl Monitor {
    /// Begins to look whether all workers go on.
    pub fn pulse(&self) -> Pulse {
        let beats = self.workers.iter().map(|worker| worker.shared.heartbeat.beat()).collect();
        let pulse = Pulse { workers: Arc::clone(&self.workers), beats };
        pulse.wake();
        pulse
    }
}

impl Pulse {
    /// The queues whose workers have not come to a new turn since the last look, in the order of the range. Leave as
    /// much time between two looks as a worker may take for one batch. A worker that has ended is none of them.
    ///
    /// Costs a worker that has nothing in hand one message a look.
    pub fn silent(&mut self) -> Vec<u16> {
        let mut silent = Vec::new();
        for (worker, last) in self.workers.iter().zip(&mut self.beats) {
            let beat = worker.shared.heartbeat.beat();
            if std::mem::replace(last, beat) == beat && !worker.shared.has_ended() {
                silent.push(worker.assignment.queue);
            }
        }
        self.wake();
        silent
    }

    fn wake(&self) {
        for worker in &*self.workers {
            // One at work comes to a new beat by itself, and a message that it cannot read now would only lie there.
            if !Heartbeat::is_at_work(worker.shared.heartbeat.beat()) {
                worker.waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfq::CopyRange;
    use crate::placement::Assignment;
    use crate::queue::WeakQueueWaker;
    use crate::stats::Counts;
    use crate::worker::WorkerShared;

    fn watched(queue: u16) -> Watched {
        Watched {
            assignment: Assignment { queue, cpu: None, filled_by: crate::CpuList::default() },
            shared: Arc::new(WorkerShared::new(false)),
            waker: WeakQueueWaker::of_nobody(),
            carried: Counts::default(),
        }
    }

    #[test]
    fn whoever_has_not_moved_between_two_looks_is_silent() {
        let workers: Arc<[Watched]> = [watched(8), watched(9), watched(10)].into();
        let [sleeps, works, ends] = [0, 1, 2].map(|index| Arc::clone(&workers[index].shared));
        let monitor = Monitor { workers, table: None, copy_range_max: CopyRange::Full };
        let mut pulse = monitor.pulse();
        let woken = |shared: &WorkerShared| {
            shared.heartbeat.begin_batch();
            shared.heartbeat.end_batch();
        };
        ends.end();
        woken(&sleeps);
        works.heartbeat.begin_batch();
        assert_eq!(pulse.silent(), [], "each is at a new beat");
        woken(&sleeps);
        assert_eq!(pulse.silent(), [9], "at the same batch for a look");
        assert_eq!(pulse.silent(), [8, 9], "and one whose thread does not run");
        works.heartbeat.end_batch();
        woken(&sleeps);
        assert_eq!(pulse.silent(), []);
    }
}
