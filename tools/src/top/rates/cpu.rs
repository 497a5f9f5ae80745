//! How much of a CPU a process, or the threads of one queue, used between two readings.
//!
//! Invariant: threads that were not there before count from their beginning, those that have gone not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::samples::{ProcessSample, QueueSample, ThreadSample};

/// Shares of one process: 1.0 is one CPU.
#[derive(Debug, Clone)]
struct Used {
    /// The reading that the next one is compared with.
    last: Arc<ProcessSample>,
    /// Of all threads together, and of each by its id; None until there are two readings.
    whole: Option<f64>,
    threads: BTreeMap<u32, f64>,
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
                None => Used { last: Arc::clone(now), whole: None, threads: BTreeMap::new() },
            };
            seen.insert(now.pid, used);
        }
        self.0 = seen;
    }

    /// What a whole process uses.
    pub(super) fn of_process(&self, pid: u32) -> Option<f64> {
        self.0.get(&pid)?.whole
    }

    /// What serves this queue uses. `queues` are all of its process.
    pub(super) fn of_queue(
        &self,
        process: &ProcessSample,
        queue: u16,
        queues: &[u16],
    ) -> QueueShare {
        let Some(used) = self.0.get(&process.pid) else { return QueueShare::default() };
        let by_name = |queue: u16| {
            process.threads.iter().filter(move |thread| queue_in_name(&thread.name) == Some(queue))
        };
        if queues.iter().all(|queue| by_name(*queue).next().is_some()) {
            let shares = by_name(queue).map(|thread| used.threads.get(&thread.id).copied());
            let first = by_name(queue).min_by_key(|thread| thread.name.len());
            let share = shares.sum::<Option<f64>>();
            return QueueShare { share, shared: false, cpu: first.map(|thread| thread.cpu) };
        }
        let cpu = match &process.threads[..] {
            [only] => Some(only.cpu),
            _ => None,
        };
        QueueShare { share: used.whole, shared: queues.len() > 1, cpu }
    }
}

impl Used {
    fn between(then: &ProcessSample, now: &Arc<ProcessSample>) -> Self {
        let seconds = now.at.saturating_sub(then.at).as_secs_f64();
        let used_before = |thread: &ThreadSample| {
            let found = then.threads.binary_search_by_key(&thread.id, |thread| thread.id);
            found.map_or(Duration::ZERO, |index| then.threads[index].used)
        };
        let share = |thread: &ThreadSample| {
            let used = thread.used.saturating_sub(used_before(thread)).as_secs_f64();
            (thread.id, if seconds > 0.0 { used / seconds } else { 0.0 })
        };
        let threads: BTreeMap<_, _> = now.threads.iter().map(share).collect();
        let whole = (seconds > 0.0).then(|| threads.values().sum());
        Self { last: Arc::clone(now), whole, threads }
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
