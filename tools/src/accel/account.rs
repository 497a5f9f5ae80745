//! The counters of an accelerated program: read from the file into which the library under it counts.
//!
//! Invariant: the file has no name but its descriptor's in this process, so it goes with it. It names its own
//! numbers, so a library of another version is understood as far as it has the same names. What the library does not
//! count is listed here, so that nobody takes it for 0.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::Context;
use fanq::{Counts, EngineStats, KernelTable, QueueStats};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// The file.
#[derive(Debug)]
pub(super) struct CountsFile {
    file: File,
}

impl CountsFile {
    /// An empty one.
    pub(super) fn create() -> anyhow::Result<Self> {
        let memory = memfd_create("fanq-accel", MemfdFlags::CLOEXEC);
        let file = memory.context("making the file of counters")?;
        ftruncate(&file, FILE_BYTES).context("making the file of counters")?;
        Ok(Self { file: file.into() })
    }

    /// The name by which the program's processes open it, while this one lives.
    pub(super) fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// What was counted so far, with the kernel's own numbers beside it where its table is at hand.
    pub(super) fn read(&self, table: Option<&KernelTable>) -> anyhow::Result<EngineStats> {
        let mut bytes = vec![0; usize::try_from(FILE_BYTES)?];
        let length = self.file.read_at(&mut bytes, 0).context("reading the counters")?;
        let rows = table.map(KernelTable::rows).transpose();
        let rows = rows.or_else(|_: io::Error| anyhow::Ok(None))?.unwrap_or_default();
        let mut queues = queues(&bytes[..length]);
        for queue in &mut queues {
            queue.kernel = rows.iter().find(|row| row.queue == queue.queue).copied();
        }
        Ok(EngineStats { queues })
    }
}

/// The queues in a file, by number.
fn queues(file: &[u8]) -> Vec<QueueStats> {
    let head = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(names) = str::from_utf8(head).ok().and_then(|head| head.strip_prefix(SCHEMA)) else {
        return Vec::new();
    };
    let names: Vec<&str> = names.rsplit(' ').next().unwrap_or_default().split(',').collect();
    let numbers = file.get(HEAD_BYTES..).unwrap_or_default();
    let mut queues: Vec<_> = numbers
        .chunks_exact(8 * (1 + names.len()))
        .filter_map(|block| {
            let mut numbers = block.chunks_exact(8).map(number);
            let queue = u16::try_from(numbers.next()?.checked_sub(1)?).ok()?;
            let mut counts = counts(&names, numbers);
            if !names.contains(&"batched") {
                // There is no other way for them to come.
                counts.batched = counts.packets;
            }
            if counts.verdict_errors > 0 {
                counts.verdict_errors_by_errno = vec![(ANY_ERRNO, counts.verdict_errors)];
            }
            Some(QueueStats { queue, cpu: None, counts, kernel: None })
        })
        .collect();
    queues.sort_by_key(|queue| queue.queue);
    queues
}

fn counts(names: &[&str], numbers: impl Iterator<Item = u64>) -> Counts {
    let mut counts = Counts::default();
    let (mut batches, mut hooks) = (0, 0);
    for (name, number) in names.iter().zip(numbers) {
        let place = match *name {
            "batch_sizes" => match counts.batch_sizes.get_mut(batches) {
                Some(class) => {
                    batches += 1;
                    class
                }
                None => continue,
            },
            "hooks" => match counts.hooks.get_mut(hooks) {
                Some(hook) => {
                    hooks += 1;
                    hook
                }
                None => continue,
            },
            name => match counts.by_name_mut(name) {
                Some(count) => count,
                None => continue,
            },
        };
        *place = number;
    }
    counts
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Keys of the account that the library has no counts for.
pub(super) const UNCOUNTED: [&str; 8] = [
    "rewrites_refused",
    "deferred",
    "unanswered",
    "overdue",
    "late_answers",
    "malformed",
    "batch_times",
    "busy_ns",
];

/// Metrics of these, and of workers, which there are none.
pub(super) const UNCOUNTED_METRICS: [&str; 12] = [
    "fanq_rewrites_refused",
    "fanq_deferred_packets",
    "fanq_deferred_unanswered",
    "fanq_deferred_overdue",
    "fanq_late_answers",
    "fanq_inspector_panics",
    "fanq_inspector_hangs",
    "fanq_malformed_messages",
    "fanq_send_retries",
    "fanq_socket_overruns",
    "fanq_batch_seconds",
    "fanq_worker_info",
];

/// As the engine counts an errno that it does not know.
const ANY_ERRNO: i32 = 0;

const SCHEMA: &str = "fanq.accel/1 ";
const HEAD_BYTES: usize = 4096;

/// Room for far more queues than the library counts.
const FILE_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(head: &str, numbers: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[..head.len()].copy_from_slice(head.as_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes
    }

    #[test]
    fn numbers_go_by_their_names() {
        let head = "fanq.accel/1 3 packets,something_new,batch_sizes,batch_sizes,hooks\n";
        let read = queues(&file(head, &[8, 70, 1, 2, 3, 4, 6, 50, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]));
        let numbers: Vec<_> =
            read.iter().map(|queue| (queue.queue, queue.counts.packets)).collect();
        assert_eq!(numbers, [(5, 50), (7, 70)], "an empty place is no queue");
        assert_eq!((read[1].counts.batch_sizes[1], read[1].counts.hooks[0]), (3, 4));
        assert_eq!(read[1].counts.batched, 70, "all come by the receives that are counted");
    }

    #[test]
    fn another_file_has_no_queues() {
        for head in ["", "fanq.accel/2 1 packets\n", "fanq.accel/1 "] {
            assert!(queues(&file(head, &[1, 2, 3, 4])).len() < 3, "{head}");
        }
        assert!(queues(b"fanq.accel/1 1 packets\n").is_empty());
    }
}
