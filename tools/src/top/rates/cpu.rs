//! How much of a CPU a process, or the threads of one queue, used between two readings.
//!
//! Invariant: threads that were not there before count from their beginning, those that have gone not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::samples::{ProcessSample, QueueSample};

/// Shares of one process: 1.0 is one CPU.
#[derive(Debug, Clone)]
struct Used {
    /// The reading that the next one is compared with.
    last: Arc<ProcessSample>,
    /// Of all threads together; None until there are two readings.
    whole: Option<f64>,
    /// Of the threads that are named after a queue, by the queue.
    queues: BTreeMap<u16, QueueShare>,
}

/// What processes use, by their ids.
#[derive(Debug, Default)]
pub(super) struct CpuShares(BTreeMap<u32, Used>);

/// One queue's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct QueueShare {
    pub(super) share: Option<f64>,
    /// It is that of a whole process, which has other queues as well.
    pub(super) shared: bool,
    /// The CPU where its thread last ran, if there is one such thread.
    pub(super) cpu: Option<u32>,
}

impl CpuShares {
    /// Takes new readings; those that are not new change nothing.
    pub(super) fn take<'a>(&mut self, readings: impl Iterator<Item = &'a Arc<ProcessSample>>) {
        let mut seen = BTreeMap::new();
        for now in readings {
            if seen.contains_key(&now.pid) {
                continue;
            }
            let used = match self.0.remove(&now.pid) {
                Some(used) if used.last.at == now.at => used,
                Some(used) => Used::between(&used.last, now),
                None => Used::first(now),
            };
            seen.insert(now.pid, used);
        }
        self.0 = seen;
    }

    /// What a whole process uses.
    pub(super) fn of_process(&self, pid: u32) -> Option<f64> {
        self.0.get(&pid)?.whole
    }

    /// Whether each of these queues has a thread of this process that is named after it.
    pub(super) fn are_named(&self, pid: u32, queues: &[u16]) -> bool {
        let used = self.0.get(&pid);
        used.is_some_and(|used| queues.iter().all(|queue| used.queues.contains_key(queue)))
    }

    /// What serves this queue uses. Its process has so many queues, which all have threads of theirs, or not.
    pub(super) fn of_queue(
        &self,
        process: &ProcessSample,
        queue: u16,
        queues: usize,
        named: bool,
    ) -> QueueShare {
        let Some(used) = self.0.get(&process.pid) else { return QueueShare::default() };
        if named {
            return used.queues.get(&queue).copied().unwrap_or_default();
        }
        let cpu = match &process.threads[..] {
            [only] => Some(only.cpu),
            _ => None,
        };
        QueueShare { share: used.whole, shared: queues > 1, cpu }
    }
}

impl Used {
    fn first(now: &Arc<ProcessSample>) -> Self {
        let mut queues = BTreeMap::new();
        for thread in &now.threads {
            let Some(queue) = queue_in_name(&thread.name) else { continue };
            let share = QueueShare { share: None, shared: false, cpu: Some(thread.cpu) };
            queues.entry(queue).or_insert(share);
        }
        Self { last: Arc::clone(now), whole: None, queues }
    }

    fn between(then: &ProcessSample, now: &Arc<ProcessSample>) -> Self {
        let mut used = Self::first(now);
        let seconds = now.at.saturating_sub(then.at).as_secs_f64();
        if seconds <= 0.0 {
            return used;
        }
        let mut whole = 0.0;
        for thread in &now.threads {
            let found = then.threads.binary_search_by_key(&thread.id, |thread| thread.id);
            let before = found.map_or(Duration::ZERO, |index| then.threads[index].used);
            let share = thread.used.saturating_sub(before).as_secs_f64() / seconds;
            whole += share;
            let queue = queue_in_name(&thread.name).and_then(|queue| used.queues.get_mut(&queue));
            if let Some(queue) = queue {
                // Inspecting threads behind a worker come after it, and its CPU is the worker's.
                *queue.share.get_or_insert(0.0) += share;
            }
        }
        used.whole = Some(whole);
        used
    }
}

/// The queue of a thread that is called after it: `fanq-3`, `fanq-3-0` (an inspecting thread behind it), `W-NFQ#3`. Any
/// first number after a q is taken, so it says something only where all queues of a process have such threads.
fn queue_in_name(name: &str) -> Option<u16> {
    let (_, tail) = name.split_once(['q', 'Q'])?;
    let begin = tail.find(|c: char| c.is_ascii_digit())?;
    let digits = tail[begin..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// All queues of a process in this sample.
pub(super) fn queues_of(pid: u32, samples: &[QueueSample], queues: &mut Vec<u16>) {
    let ours = |sample: &&QueueSample| sample.owner.as_ref().is_some_and(|owner| owner.pid == pid);
    queues.clear();
    queues.extend(samples.iter().filter(ours).map(|sample| sample.row.queue));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_known_by_the_queue_in_its_name() {
        for (name, queue) in [
            ("fanq-3", Some(3)),
            ("fanq-12-0", Some(12)),
            ("W-NFQ#7", Some(7)),
            ("worker-3", None),
            ("fanq", None),
            ("fanq-70000", None),
            ("fanq-eve", None),
        ] {
            assert_eq!(queue_in_name(name), queue, "{name}");
        }
    }
}
