//! What other threads see of a running engine, and what they may change about it.
//!
//! Invariant: reading needs no worker's attention, and a change is only an order: each worker carries it out itself, on
//! its own socket, between two turns. A monitor keeps no socket open, so it may outlive the engine; then its counters
//! stand still and its orders reach nobody.

use std::sync::Arc;

use crate::config::ConfigError;
use crate::kernel_table::KernelTable;
use crate::nfq::CopyRange;
use crate::placement::Assignment;
use crate::queue::WeakQueueWaker;
use crate::stats::{Counts, EngineStats, QueueStats};
use crate::worker::WorkerShared;

/// A handle on a running engine for any thread: [`Engine::monitor`](crate::Engine::monitor).
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(crate) workers: Arc<[Watched]>,
    pub(crate) table: Option<Arc<KernelTable>>,
    /// The copy range of the start, for which the workers' buffers were made.
    pub(crate) copy_range_max: CopyRange,
}

/// One worker, seen from outside.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) assignment: Assignment,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) waker: WeakQueueWaker,
    /// What was counted by those who served the queue before.
    pub(crate) carried: Counts,
}

impl Monitor {
    /// Reads all counters, with the kernel's beside them. The kernel's table is read once.
    pub fn stats(&self) -> EngineStats {
        let rows = self.table.as_ref().and_then(|table| table.rows().ok()).unwrap_or_default();
        let queues = self.workers.iter().map(|worker| {
            let Assignment { queue, cpu, .. } = worker.assignment;
            let kernel = rows.iter().find(|row| row.queue == queue).copied();
            let mut counts = worker.carried.clone();
            counts += &worker.shared.snapshot();
            QueueStats { queue, cpu, counts, kernel }
        });
        EngineStats { queues: queues.collect() }
    }

    /// Has all workers change how much of each packet is copied, each at the end of its turn; a worker that has shrunk
    /// it under load does so when the load is over. Packets that wait already have what was copied before.
    ///
    /// # Errors
    /// More than at the start, for which the workers' buffers were made, or 0 bytes (that is [`CopyRange::Meta`]).
    pub fn set_copy_range(&self, range: CopyRange) -> Result<(), ConfigError> {
        let (value, max) = (range.bytes().into(), self.copy_range_max.bytes().into());
        let least = i64::from(range != CopyRange::Meta);
        if !(least..=max).contains(&value) {
            return Err(ConfigError::OutOfRange { what: "copy-range", value, min: least, max });
        }
        for worker in &*self.workers {
            worker.shared.order_copy_range(range);
            worker.waker.wake();
        }
        Ok(())
    }
}
