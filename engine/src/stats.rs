//! Counters: one block a worker, written by that worker alone and read from any thread.
//!
//! Invariant: a counter never goes back, and counting is a plain load and store in a cache line that no other
//! worker writes. A snapshot is not one instant: counters read one after the other may differ by what happened
//! in between.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::cpus::CpuId;
use crate::kernel_table::KernelRow;
use crate::nfq::{Hook, Verdict, VerdictCode};

/// A number that one thread counts and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread may call this: it is no atomic addition.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        // Relaxed: a counter orders nothing else, and the only writer is this thread.
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the plain counters once, for the worker's block, the snapshot and the totals.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One worker's counters.
        #[derive(Debug, Default)]
        pub(crate) struct WorkerCounters {
            $(pub(crate) $name: Counter,)*
            pub(crate) batch_sizes: [Counter; BATCH_SIZE_CLASSES],
            pub(crate) batch_times: [Counter; BATCH_TIME_CLASSES],
            pub(crate) hooks: [Counter; Hook::NAMED + 1],
            errors: ErrorCounters,
        }

        /// What one queue's worker, or all of them together, have counted.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Receives by the packets they brought: 1, 2 to 3, 4 to 7, and so on, doubling.
            pub batch_sizes: [u64; BATCH_SIZE_CLASSES],
            /// The same receives by the time from the receive's return to the return of their verdicts' send: up to
            /// 1 us, up to 2 us, up to 4 us, and so on, doubling to 1,048,576 us; then longer ones.
            pub batch_times: [u64; BATCH_TIME_CLASSES],
            /// Packets by hook, in the order of [`Hook::NAMES`], then unknown ones.
            pub hooks: [u64; Hook::NAMED + 1],
            /// Errors that the kernel sent for verdicts, by errno, rising; only those that were seen.
            pub verdict_errors_by_errno: Vec<(i32, u64)>,
        }

        impl WorkerCounters {
            /// Reads all counters.
            pub(crate) fn snapshot(&self) -> Counts {
                Counts {
                    $($name: self.$name.read(),)*
                    batch_sizes: self.batch_sizes.each_ref().map(Counter::read),
                    batch_times: self.batch_times.each_ref().map(Counter::read),
                    hooks: self.hooks.each_ref().map(Counter::read),
                    verdict_errors_by_errno: self.errors.snapshot(),
                }
            }
        }

        impl Counts {
            /// The plain counters, by their names.
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// The plain counter of this name; none if there is no such.
            pub fn by_name_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }

        impl std::ops::AddAssign<&Counts> for Counts {
            fn add_assign(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
                for (sum, add) in self.batch_sizes.iter_mut().zip(&other.batch_sizes) {
                    *sum += add;
                }
                for (sum, add) in self.batch_times.iter_mut().zip(&other.batch_times) {
                    *sum += add;
                }
                for (sum, add) in self.hooks.iter_mut().zip(&other.hooks) {
                    *sum += add;
                }
                self.add_errors(&other.verdict_errors_by_errno);
            }
        }
    };
}

counters! {
    /// Packets received from the kernel.
    packets,
    /// Their bytes from the network header on, before any cut by the copy range.
    bytes,
    /// Packets given `accept`.
    accepted,
    /// Packets given `drop`.
    dropped,
    /// Packets given `repeat`.
    repeated,
    /// Packets given `stop`.
    stopped,
    /// Packets handed to another queue.
    requeued,
    /// Packets whose verdict set a mark.
    marked,
    /// Packets whose bytes were rewritten.
    rewritten,
    /// Packets whose rewriting was refused: answered by the inspector's `rewrite_refused`.
    rewrites_refused,
    /// Packets deferred: answered later, from another thread.
    deferred,
    /// Deferred packets whose handle was dropped: they got their fallback.
    unanswered,
    /// Deferred packets whose answer had not come in time: they got their fallback.
    overdue,
    /// Answers that came after that.
    late_answers,
    /// Receive calls that brought packets.
    recv_calls,
    /// Packets that they brought; fewer than `packets` by those that came while a queue was set up or shed.
    batched,
    /// Time from a receive's return to the return of its verdicts' send, in nanoseconds, all receives together.
    busy_ns,
    /// Send calls with verdicts.
    send_calls,
    /// Packet ids that the kernel gave and that never came: no room in the socket's buffer.
    id_gaps,
    /// Of those, the ones that fail-open let pass unseen.
    uninspected,
    /// Packets answered unseen under load, all at once: by `on_overload`.
    shed,
    /// Packets answered unseen at shutdown, for want of time: by `on_exit`.
    flushed,
    /// Packets that an earlier process had read and not answered when it died: answered unseen, all at once.
    orphaned,
    /// Packets that their inspector failed to judge, and that got the `on_fault` verdict: it panicked, or missed its
    /// deadline. They count as received and as accepted or dropped, too.
    faulted,
    /// Panics of inspectors.
    panics,
    /// Times that a worker did not come back from its inspector within the deadline.
    hangs,
    /// Packets whose message could not be decoded, with an id: answered by the inspector's `unseen`.
    undecodable,
    /// Messages that were no packet that can be answered: malformed without an id, or of an unknown type.
    malformed,
    /// Verdicts that the kernel refused, all errnos together.
    verdict_errors,
    /// Sends that the kernel had no memory for and that were tried again.
    send_retries,
    /// Receives that said the socket had overrun.
    overruns,
}

/// Classes of batch sizes: 1, 2 to 3, and so on up to 1024.
pub const BATCH_SIZE_CLASSES: usize = 11;

/// Classes of batch times: up to 1 us, up to 2 us, and so on up to 2^20 us, and longer.
pub const BATCH_TIME_CLASSES: usize = 22;

/// The first class whose bound, 2^class us, such a time does not exceed.
#[inline]
fn time_class(ns: u64) -> usize {
    let whole_us = ns.saturating_sub(1) / 1000;
    let class = whole_us.checked_ilog2().map_or(0, |power| power as usize + 1);
    class.min(BATCH_TIME_CLASSES - 1)
}

impl WorkerCounters {
    /// Counts one receive that brought so many packets and took so long; one that brought only replies is not
    /// counted.
    #[inline]
    pub(crate) fn count_batch(&self, packets: u64, took: Duration) {
        if let Some(class) = packets.checked_ilog2() {
            self.recv_calls.add(1);
            self.batched.add(packets);
            self.batch_sizes[(class as usize).min(BATCH_SIZE_CLASSES - 1)].add(1);
            let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.busy_ns.add(ns);
            self.batch_times[time_class(ns)].add(1);
        }
    }

    /// Counts one packet by what became of it.
    #[expect(clippy::inline_always, reason = "per packet; its cold callers are rare")]
    #[inline(always)]
    pub(crate) fn count_verdict(&self, verdict: Verdict) {
        match verdict.code() {
            VerdictCode::Accept => self.accepted.add(1),
            VerdictCode::Drop => self.dropped.add(1),
            VerdictCode::Repeat => self.repeated.add(1),
            VerdictCode::Stop => self.stopped.add(1),
            VerdictCode::Queue { .. } => self.requeued.add(1),
        }
        if verdict.mark().is_some() {
            self.marked.add(1);
        }
    }

    /// Counts a refused verdict.
    pub(crate) fn count_verdict_error(&self, errno: i32) {
        self.verdict_errors.add(1);
        self.errors.count(errno);
    }
}

/// Errors by errno. The kernel's errnos end at 133 (`EHWPOISON`); anything else is counted as 0.
#[derive(Debug)]
struct ErrorCounters([Counter; ERRNO_COUNT]);

impl Default for ErrorCounters {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; ERRNO_COUNT])
    }
}

impl ErrorCounters {
    fn count(&self, errno: i32) {
        let known = usize::try_from(errno).ok().filter(|errno| *errno < ERRNO_COUNT);
        self.0[known.unwrap_or(0)].add(1);
    }

    fn snapshot(&self) -> Vec<(i32, u64)> {
        let counts = (0_i32..).zip(&self.0).map(|(errno, count)| (errno, count.read()));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

const ERRNO_COUNT: usize = 134;

impl Counts {
    /// Packets that got a verdict of the inspector's, whatever it was.
    pub fn answered(&self) -> u64 {
        self.accepted + self.dropped + self.repeated + self.stopped + self.requeued
    }

    fn add_errors(&mut self, errors: &[(i32, u64)]) {
        for (errno, count) in errors {
            match self.verdict_errors_by_errno.iter_mut().find(|(known, _)| known == errno) {
                Some((_, sum)) => *sum += count,
                None => self.verdict_errors_by_errno.push((*errno, *count)),
            }
        }
        self.verdict_errors_by_errno.sort_unstable();
    }
}

/// One queue: its worker's counters, with the kernel's beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStats {
    /// The queue's number.
    pub queue: u16,
    /// The CPU that its worker is pinned to, if any.
    pub cpu: Option<CpuId>,
    /// What the worker counted.
    pub counts: Counts,
    /// What the kernel counted, while the queue is bound; after the shutdown, as it was last seen.
    pub kernel: Option<KernelRow>,
}

/// All queues of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStats {
    /// One for each queue, in the order of the range.
    pub queues: Vec<QueueStats>,
}

impl EngineStats {
    /// The sums over all queues.
    pub fn totals(&self) -> Counts {
        let mut totals = Counts::default();
        for queue in &self.queues {
            totals += &queue.counts;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fall_into_classes_that_double() {
        let counters = WorkerCounters::default();
        for packets in [1, 2, 3, 64, 1024, 5000] {
            counters.count_batch(packets, Duration::from_micros(packets));
        }
        counters.count_batch(0, Duration::from_secs(1));
        let counts = counters.snapshot();
        assert_eq!(counts.batch_sizes, [1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!((counts.recv_calls, counts.batched), (6, 6094));
        let mut times = [0; BATCH_TIME_CLASSES];
        for class in [0, 1, 2, 6, 10, 13] {
            times[class] = 1;
        }
        assert_eq!((counts.batch_times, counts.busy_ns), (times, 6_094_000));
    }

    #[test]
    fn a_time_is_in_the_first_class_that_it_does_not_exceed() {
        for (ns, class) in
            [(0, 0), (1000, 0), (1001, 1), (2000, 1), (2001, 2), (4000, 2), (4001, 3)]
        {
            assert_eq!(time_class(ns), class, "{ns} ns");
        }
        let longest = 1000 << 20;
        assert_eq!([longest, longest + 1, u64::MAX].map(time_class), [20, 21, 21]);
    }

    #[test]
    fn every_plain_counter_is_found_by_its_name() {
        let mut counts = Counts { packets: 3, orphaned: 4, ..Counts::default() };
        let names: Vec<_> = counts.by_name().collect();
        assert!(names.contains(&("packets", 3)) && names.contains(&("orphaned", 4)));
        for (name, count) in names {
            assert_eq!(counts.by_name_mut(name), Some(&mut { count }));
        }
        assert_eq!(counts.by_name_mut("lost in thought"), None);
    }

    #[test]
    fn totals_add_every_kind_of_counter() {
        let counters = WorkerCounters::default();
        counters.packets.add(3);
        counters.count_verdict_error(libc::ENOENT);
        counters.count_verdict_error(9999);
        counters.hooks[1].add(2);
        let queue = QueueStats { queue: 0, cpu: None, counts: counters.snapshot(), kernel: None };
        let totals = EngineStats { queues: vec![queue.clone(), queue] }.totals();
        assert_eq!(totals.packets, 6);
        assert_eq!(totals.verdict_errors_by_errno, [(0, 2), (libc::ENOENT, 2)]);
        assert_eq!(totals.hooks[1], 4);
    }
}
