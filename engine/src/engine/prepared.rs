//! An engine that needs only its queues: workers sit on their CPUs and have their inspectors.
//!
//! Invariant: nothing is bound yet, and what is dropped here leaves nothing behind. All that can fail without a queue
//! has succeeded, so that between the last packet of one process and the first of the next there is as little as can
//! be.

use std::sync::Arc;

use mio::Poll;

use super::{Engine, Seat, WAKE, start_watchdog};
use crate::bound_queue::BoundQueue;
use crate::config::{EngineConfig, QueueConfig};
use crate::cpus::CpuList;
use crate::fault::FaultReports;
use crate::inspect::{Inspector, WorkerInfo};
use crate::kernel_table::KernelTable;
use crate::nfq::{ConfigFlags, Verdict};
use crate::placement::{PlacementWarning, Plan};
use crate::queue::Queue;
use crate::start::{StartError, StartWarning, small_buffer_warning};
use crate::sys;
use crate::wish::FlagWish;

/// An engine about to start. Made by [`EngineBuilder::prepare`](crate::EngineBuilder::prepare).
#[derive(Debug)]
pub struct PreparedEngine {
    config: EngineConfig,
    seats: Vec<Seat>,
    oddities: Vec<PlacementWarning>,
    prioritised: bool,
    poll: Poll,
    waker: Arc<mio::Waker>,
    reports: Arc<FaultReports>,
}

impl PreparedEngine {
    pub(crate) fn new<I, F>(config: &EngineConfig, make: F) -> Result<Self, StartError>
    where
        I: Inspector + 'static,
        F: Fn(WorkerInfo) -> I + Send + Sync + 'static,
    {
        config.check()?;
        let io_failed = |what| move |source| StartError::Io { what, source };
        let online = CpuList::online("/".as_ref()).map_err(io_failed("reading the online CPUs"))?;
        let allowed = sys::allowed_cpus().unwrap_or_else(|| online.clone());
        let plan = Plan::new(config.queues, &config.placement, &online, &allowed)?;
        let poll = Poll::new().map_err(io_failed("creating a poll"))?;
        let waker =
            mio::Waker::new(poll.registry(), WAKE).map_err(io_failed("creating a waker"))?;
        let waker = Arc::new(waker);
        let reports = Arc::new(FaultReports::new(Arc::clone(&waker)));

        let make = Arc::new(make);
        let mut seats = Vec::with_capacity(plan.assignments.len());
        for (index, assignment) in (0..).zip(plan.assignments) {
            seats.push(Seat::prepare(index, assignment, config, Arc::clone(&make), &reports)?);
        }
        let mut prioritised = true;
        for seat in &seats {
            prioritised &= seat.wait_until_placed()?;
        }
        let (config, oddities) = (config.clone(), plan.warnings);
        Ok(Self { config, seats, oddities, prioritised, poll, waker, reports })
    }

    /// Finds out whether these queues can be adopted, without touching them: their present owner may serve them
    /// meanwhile, and goes on if this fails.
    ///
    /// # Errors
    /// A queue outside the range or twice; a missing capability; a required flag that the kernel refuses.
    pub fn check(&self, bound: &[BoundQueue]) -> Result<(), StartError> {
        let range = self.config.queues;
        for (index, queue) in bound.iter().enumerate() {
            let queue = queue.queue();
            let again = bound[..index].iter().any(|earlier| earlier.queue() == queue);
            if again || !(range.first()..=range.last()).contains(&queue) {
                return Err(StartError::NotOurQueue { queue, range });
            }
        }
        if let Some(queue) = bound.first() {
            Queue::find_out(queue.queue(), &self.config.queue)?;
        }
        Ok(())
    }

    /// Binds the queues and starts.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing stays bound.
    pub fn bind(self) -> Result<Engine, StartError> {
        self.adopt(Vec::new(), Verdict::DROP)
    }

    /// Takes these queues as they are, with all that waits in them, binds those of the range that are not among them,
    /// and starts. Whoever served them must have stopped receiving. Packets that one who died had received and not
    /// answered get the verdict `on_orphan` ([`Counts::orphaned`](crate::Counts::orphaned)).
    ///
    /// # Errors
    /// As [`check`](Self::check), and see [`StartError`]. The descriptors are closed; whoever wants the queues to
    /// survive that keeps others of them ([`BoundQueue::try_clone`]).
    pub fn adopt(self, bound: Vec<BoundQueue>, on_orphan: Verdict) -> Result<Engine, StartError> {
        self.check(&bound)?;
        let Self { config, seats, oddities, prioritised, poll, waker, reports } = self;
        let (queues, granted) = take_queues(&config, bound, on_orphan)?;
        // After the first bind: on a kernel that loads nfnetlink_queue on demand the file appears only then.
        let table = KernelTable::open();

        let mut warnings: Vec<_> = oddities.into_iter().map(StartWarning::Placement).collect();
        let refused = config.queue.flags.asked().without(granted);
        warnings.extend(refused.iter().map(|flag| StartWarning::FlagRefused { flag }));
        warnings.extend(small_buffer_warning(config.queue.rcvbuf, &queues));
        warnings.extend(
            table
                .as_ref()
                .err()
                .map(|error| StartWarning::NoKernelTable { reason: error.to_string() }),
        );
        warnings.extend((!prioritised).then_some(StartWarning::NoPriority { nice: config.nice }));
        let (watchdog, unwatched) = start_watchdog(&config, &seats, &queues, &reports)?;
        warnings.extend(unwatched);
        let workers =
            seats.into_iter().zip(queues).map(|(seat, queue)| seat.serve(queue, &config)).collect();
        let (table, copy_range) = (table.ok().map(Arc::new), config.queue.copy_range);
        Ok(Engine { workers, table, copy_range, warnings, granted, poll, waker, reports, watchdog })
    }
}

/// Takes all queues, and says which flags they have. New ones first: binding may fail where adopting cannot. What the
/// kernel refuses to one queue the others are not asked for.
fn take_queues(
    config: &EngineConfig,
    bound: Vec<BoundQueue>,
    on_orphan: Verdict,
) -> Result<(Vec<Queue>, ConfigFlags), StartError> {
    let mut queue_config = config.queue;
    let lent_max = config.deferral.map_or(0, |deferral| deferral.outstanding_max);
    if let Some(first) = bound.first() {
        without(Queue::find_out(first.queue(), &queue_config)?, &mut queue_config);
    }
    let mut queues = Vec::with_capacity(usize::from(config.queues.count()));
    let is_bound = |number| bound.iter().any(|queue| queue.queue() == number);
    for number in config.queues.iter().filter(|number| !is_bound(*number)) {
        let queue = Queue::open(number, &queue_config, config.batch, lent_max)?;
        without(queue.granted(), &mut queue_config);
        queues.push((number, queue));
    }
    let granted = queue_config.flags.asked();
    for queue in bound {
        let number = queue.queue();
        let (batch, config) = (config.batch, &queue_config);
        let queue = Queue::adopt(queue, config, granted, batch, lent_max, on_orphan)?;
        queues.push((number, queue));
    }
    queues.sort_unstable_by_key(|(number, _)| *number);
    if config.overload.is_some() {
        for (number, queue) in &mut queues {
            let what = "reading /proc/net/netfilter/nfnetlink_queue, which on-overload needs";
            queue.watch(*number).map_err(|source| StartError::Io { what, source })?;
        }
    }
    Ok((queues.into_iter().map(|(_, queue)| queue).collect(), granted))
}

/// From now on asks for nothing that was not granted.
fn without(granted: ConfigFlags, config: &mut QueueConfig) {
    for flag in config.flags.asked().without(granted).iter() {
        config.flags.set(flag, FlagWish::Off);
    }
}
