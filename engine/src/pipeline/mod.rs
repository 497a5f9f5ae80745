//! The pipeline: several inspecting threads behind each worker, each flow with one of them.
//!
//! ```text
//!                    by flow            +-> lane 0: thread, inspector --+
//!   worker: receive, defer, hand over --+-> lane 1: thread, inspector --+-> answers -> worker: joined verdicts
//!                                       +-> lane 2: thread, inspector --+
//! ```
//!
//! For inspectors that need more time than one CPU has. A worker costs about a microsecond a packet; what a lane adds
//! is the way there and back, so an inspector that is quick is better off in the worker.
//!
//! Invariants: packets of one flow, in both directions, are inspected by one inspector, in the order in which the
//! kernel queued them, and delivered in that order. Packets are handed over a batch at a time, at the end of the
//! worker's turn: no timer delays them. It deliberately keeps no queue of its own beyond what deferral allows
//! ([`DeferralConfig`](crate::DeferralConfig) bounds it and says what happens then).

mod flow;
mod lane;

use std::sync::Arc;

use crate::cpus::CpuList;
use crate::deferral::Deferred;
use crate::edits::RewriteError;
use crate::inspect::{Inspector, Packet, WorkerInfo};
use crate::nfq::Verdict;
use crate::sys::{Timestamp, allowed_cpus};
use lane::Lane;

/// How inspecting threads are made. Every worker gets its own.
///
/// ```no_run
/// # use fanq::{DeferralConfig, Engine, Inspector, Packet, Verdict, pipeline::Pipeline};
/// # struct Slow;
/// # impl Inspector for Slow {
/// #     fn inspect(&mut self, _: &mut Packet<'_>) -> Verdict { Verdict::ACCEPT }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pipeline = Pipeline::new(3, |_worker, _lane| Slow);
/// let engine = Engine::builder()
///     .deferral(DeferralConfig::default())
///     .start(move |worker| pipeline.spread(worker))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pipeline<F> {
    lanes: usize,
    cpus: Option<CpuList>,
    fallback: Verdict,
    make: Arc<F>,
}

impl<I, F> Pipeline<F>
where
    I: Inspector + 'static,
    F: Fn(WorkerInfo, usize) -> I + Send + Sync + 'static,
{
    /// So many threads behind each worker, 1 at least. `make` makes the inspector of one lane, on the lane's own
    /// thread; the lanes of a worker are numbered from 0. Threads may run on every CPU that the calling thread may use
    /// now.
    pub fn new(lanes: usize, make: F) -> Self {
        let (cpus, fallback) = (allowed_cpus(), Verdict::DROP);
        Self { lanes: lanes.max(1), cpus, fallback, make: Arc::new(make) }
    }

    /// The CPUs on which the inspecting threads may run. Leaving out those that fill queues keeps the workers fast.
    #[must_use]
    pub fn on(mut self, cpus: CpuList) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// The verdict for packets that no inspector answers: its thread died, the deadline passed, or no more packets
    /// may be deferred ([`WhenFull::Refuse`](crate::WhenFull)). By default they are dropped.
    #[must_use]
    pub fn fallback(mut self, verdict: Verdict) -> Self {
        self.fallback = verdict;
        self
    }

    /// Starts the threads behind one worker.
    ///
    /// # Panics
    /// If the system refuses a thread; the engine's start then fails.
    pub fn spread(&self, worker: WorkerInfo) -> Spread {
        let lanes = (0..self.lanes).map(|number| {
            let make = Arc::clone(&self.make);
            Lane::start(worker.queue, number, self.cpus.clone(), move || make(worker, number))
        });
        Spread { lanes: lanes.collect(), fallback: self.fallback }
    }
}

/// The inspector that hands packets to the lanes of its worker. Made by [`Pipeline::spread`]. When it is dropped, its
/// threads end after the packets that they have.
#[derive(Debug)]
pub struct Spread {
    lanes: Vec<Lane>,
    fallback: Verdict,
}

impl Inspector for Spread {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let lanes = self.lanes.len() as u64;
        let place = usize::try_from(flow::symmetric_hash(packet.payload()) % lanes).unwrap_or(0);
        match packet.defer() {
            Ok(deferred) => self.lanes[place].add(deferred),
            Err(refused) => {
                let _ = refused;
            }
        }
        self.fallback
    }

    fn batch_end(&mut self, _now: Timestamp) {
        self.lanes.iter_mut().for_each(Lane::hand_over);
    }

    fn unseen(&mut self) -> Verdict {
        self.fallback
    }

    /// The inspector of its lane has been asked already.
    fn rewrite_refused(&mut self, _error: RewriteError, verdict: Verdict) -> Verdict {
        verdict
    }

    fn awaits_answers(&self) -> bool {
        self.lanes.iter().all(Lane::is_busy)
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        lane::end(&mut self.lanes);
    }
}

#[cfg(test)]
mod tests;
