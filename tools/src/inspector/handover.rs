//! Rules on their way to the workers: how a running worker gets new ones.
//!
//! ```text
//! main thread                                worker, at the first packet of a batch
//!   compile, make a matcher for each worker
//!   put it into the worker's slot
//!   change number up                ----->   another number? take it from the slot, put the old one there
//!   look into the slots, free the old ones
//! ```
//!
//! Invariant: a worker reads one number a batch, and takes its slot's lock only when that has changed; memory is taken
//! and given back by the main thread. A packet is decided by one version of the rules, whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;

use super::compiled::CompiledPolicy;
use super::interfaces::InterfaceTable;
use super::matcher::Matcher;
use crate::eve::EveSender;

/// Compiled rules, and which they are.
#[derive(Debug)]
pub(crate) struct PolicyVersion {
    /// Counts up from 1 with each set of rules.
    pub(crate) number: u32,
    pub(crate) policy: CompiledPolicy,
}

/// All that a worker needs to decide by one version of the rules. Those of two workers lie next to each other, and
/// share no cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Assignment {
    pub(crate) version: Arc<PolicyVersion>,
    pub(crate) matcher: Matcher,
    pub(crate) interfaces: Arc<InterfaceTable>,
    pub(crate) tally: Arc<RuleTally>,
}

/// Packets and bytes by rule that one worker counted under one version; written by that worker only.
#[derive(Debug)]
pub(crate) struct RuleTally {
    /// In whole cache lines, which no other worker's counts share.
    rules: Box<[CachePadded<[RuleCount; RULES_TOGETHER]>]>,
    count: usize,
}

#[derive(Debug, Default)]
struct RuleCount {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What one worker counts besides; written by that worker only.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounts {
    /// Lines for the log that found its ring full.
    pub(crate) log_lost: AtomicU64,
    /// Flows and limits that had to give way to others.
    pub(crate) flows_evicted: AtomicU64,
    pub(crate) limits_evicted: AtomicU64,
    /// Packets that came back with the reject mark: no rule took them.
    pub(crate) rejects_returned: AtomicU64,
    /// The same with the bypass mark.
    pub(crate) bypasses_returned: AtomicU64,
}

/// One slot a worker.
#[derive(Debug)]
pub(crate) struct Handover {
    changes: AtomicU64,
    slots: Box<[Slot]>,
    /// Set by a worker that sees an interface which it does not know.
    unknown_interface: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    contents: Mutex<SlotContents>,
    counts: Arc<CachePadded<WorkerCounts>>,
}

#[derive(Debug, Default)]
struct SlotContents {
    next: Option<Box<Assignment>>,
    interfaces: Option<Arc<InterfaceTable>>,
    previous: Option<Box<Assignment>>,
    left: Option<Left>,
    /// The way to the log, while no inspector has it.
    log: Option<EveSender>,
}

/// What an inspector leaves to the next one of its worker.
#[derive(Debug)]
struct Left {
    version: Arc<PolicyVersion>,
    interfaces: Arc<InterfaceTable>,
    tally: Arc<RuleTally>,
}

impl PolicyVersion {
    /// A fresh assignment for one worker.
    pub(crate) fn assignment(
        self: &Arc<Self>,
        interfaces: &Arc<InterfaceTable>,
    ) -> Box<Assignment> {
        let count = self.policy.words.len();
        let rules = (0..count.div_ceil(RULES_TOGETHER)).map(|_| CachePadded::default()).collect();
        Box::new(Assignment {
            version: Arc::clone(self),
            matcher: Matcher::new(&self.policy),
            interfaces: Arc::clone(interfaces),
            tally: Arc::new(RuleTally { rules, count }),
        })
    }
}

impl RuleTally {
    /// Counts a packet. Loads and stores: nobody else writes.
    #[inline]
    pub(crate) fn count(&self, rule: u32, bytes: u32) {
        let rule = rule as usize;
        let count = &self.rules[rule / RULES_TOGETHER][rule % RULES_TOGETHER];
        add(&count.packets, 1);
        add(&count.bytes, u64::from(bytes));
    }

    /// Packets and bytes of each rule.
    pub(crate) fn read(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = self.rules.iter().flat_map(|counts| counts.iter()).take(self.count);
        counts.map(move |count| (read(&count.packets), read(&count.bytes)))
    }
}

/// Adds to a counter that only this thread writes.
#[inline]
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl Handover {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            changes: AtomicU64::new(0),
            slots: (0..workers).map(|_| Slot::default()).collect(),
            unknown_interface: AtomicBool::new(false),
        }
    }

    /// Slots for workers that start again in the place of these, with their counts and their ways to the log. Those
    /// before may still be there, behind an inspector that does not come back: they keep to their own slots.
    pub(crate) fn again(&self) -> Self {
        let slots = self.slots.iter().map(|slot| {
            let contents = SlotContents { log: slot.lock().log.take(), ..SlotContents::default() };
            Slot { contents: Mutex::new(contents), counts: Arc::clone(&slot.counts) }
        });
        Self {
            changes: AtomicU64::new(0),
            slots: slots.collect(),
            unknown_interface: AtomicBool::new(false),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn counts(&self, worker: usize) -> &Arc<CachePadded<WorkerCounts>> {
        &self.slots[worker].counts
    }

    /// Puts an assignment into each worker's slot, in the order of workers, and lets them know.
    pub(crate) fn publish(&self, assignments: impl Iterator<Item = Box<Assignment>>) {
        for (slot, assignment) in self.slots.iter().zip(assignments) {
            let mut slot = slot.lock();
            slot.next = Some(assignment);
            // A table that was not taken is by the bits of the rules before.
            slot.interfaces = None;
        }
        self.announce();
    }

    /// The same with nothing but the interfaces.
    pub(crate) fn publish_interfaces(&self, interfaces: &Arc<InterfaceTable>) {
        for slot in &self.slots {
            slot.lock().interfaces = Some(Arc::clone(interfaces));
        }
        self.announce();
    }

    fn announce(&self) {
        // Release: pairs with the load in `changes`, so that a worker which sees the number finds the slot filled.
        // (The slot's lock would do that, too; the number alone says that there is something.)
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The number that tells a worker to look into its slot.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What lies in a worker's slot: at first its first assignment; after a panic newer rules, or those that there
    /// were, with everything about flows forgotten.
    pub(crate) fn take_first(&self, worker: usize) -> Option<Box<Assignment>> {
        let mut slot = self.slots[worker].lock();
        slot.next.take().or_else(|| {
            let Left { version, interfaces, tally, .. } = slot.left.take()?;
            let matcher = Matcher::new(&version.policy);
            Some(Box::new(Assignment { version, matcher, interfaces, tally }))
        })
    }

    /// The way to the log that is laid ready for this worker, or that an earlier inspector of it had.
    pub(crate) fn take_log(&self, worker: usize) -> Option<EveSender> {
        self.slots[worker].lock().log.take()
    }

    /// Lays ways to the log ready for the workers that have none.
    pub(crate) fn lay_logs(&self, make: impl Fn() -> EveSender) {
        for slot in &self.slots {
            slot.lock().log.get_or_insert_with(&make);
        }
    }

    /// Leaves what the worker's next inspector can go on with.
    pub(crate) fn leave(&self, worker: usize, current: &Assignment, log: Option<EveSender>) {
        let Assignment { version, interfaces, tally, .. } = current;
        let (version, interfaces) = (Arc::clone(version), Arc::clone(interfaces));
        let mut slot = self.slots[worker].lock();
        slot.left = Some(Left { version, interfaces, tally: Arc::clone(tally) });
        slot.log = log;
    }

    /// Changes a worker's assignment for the one in its slot, if there is one.
    pub(crate) fn exchange(&self, worker: usize, current: &mut Box<Assignment>) {
        let mut slot = self.slots[worker].lock();
        if let Some(mut next) = slot.next.take() {
            next.matcher.inherit(&next.version.policy, current);
            slot.previous = Some(std::mem::replace(current, next));
        }
        if let Some(interfaces) = slot.interfaces.take() {
            current.interfaces = interfaces;
        }
    }

    /// Frees what the workers gave back.
    pub(crate) fn free_previous(&self) {
        for slot in &self.slots {
            let previous = slot.lock().previous.take();
            drop(previous);
        }
    }

    /// Called by a worker: asks for the table of interfaces to be read again. Written once, not for each packet.
    #[cold]
    pub(crate) fn ask_for_interfaces(&self) {
        if !self.unknown_interface.load(Ordering::Relaxed) {
            self.unknown_interface.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a worker has asked since the last time.
    pub(crate) fn interfaces_asked_for(&self) -> bool {
        self.unknown_interface.swap(false, Ordering::Relaxed)
    }
}

impl Slot {
    /// What a thread that panicked left in a slot is whole: nothing panics between two writes.
    fn lock(&self) -> MutexGuard<'_, SlotContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of so many rules fill the two cache lines that a processor may load together.
const RULES_TOGETHER: usize = 8;
