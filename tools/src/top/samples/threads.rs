//! What the threads of the owners used: `/proc/PID/task/TID/stat`.
//!
//! Invariant: read at most once every [`EVERY`], however often samples are taken: CPU time comes in ticks of 10 ms,
//! so a shorter time tells nothing, and it is the dearest thing to read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::owners::printable;
use super::process_path;

/// A process's threads at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::top) struct ProcessSample {
    pub(in crate::top) pid: u32,
    /// When it was read, on the sample's clock.
    pub(in crate::top) at: Duration,
    pub(in crate::top) threads: Vec<ThreadSample>,
}

/// A thread at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::top) struct ThreadSample {
    pub(in crate::top) id: u32,
    pub(in crate::top) name: String,
    /// The kernel's letter: R running, S sleeping, T stopped, Z gone and not waited for.
    pub(in crate::top) state: char,
    /// CPU time used, user and system.
    pub(in crate::top) used: Duration,
    /// The CPU that it last ran on.
    pub(in crate::top) cpu: u32,
}

#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    tick: Duration,
    known: Vec<Arc<ProcessSample>>,
    pids: Vec<u32>,
    text: Vec<u8>,
}

impl Processes {
    pub(super) fn new(proc: PathBuf) -> Self {
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
        let tick = Duration::from_secs(1) / ticks.max(1);
        Self { proc, tick, known: Vec::new(), pids: Vec::new(), text: Vec::new() }
    }

    /// Reads the threads of these processes, if it is time or one of them is new. True if one of them has gone.
    pub(super) fn update(
        &mut self,
        pids: impl Iterator<Item = u32>,
        now: Duration,
        whole: bool,
    ) -> bool {
        self.pids.clear();
        self.pids.extend(pids);
        self.pids.sort_unstable();
        self.pids.dedup();
        let pids = std::mem::take(&mut self.pids);
        self.known.retain(|process| pids.binary_search(&process.pid).is_ok());
        let mut gone = false;
        for pid in &pids {
            let known = self.known.iter().position(|process| process.pid == *pid);
            let age = known.map(|index| now.saturating_sub(self.known[index].at));
            if !whole && age.is_some_and(|age| age < EVERY) {
                continue;
            }
            match (self.look(*pid, now), known) {
                (Some(new), Some(index)) => self.known[index] = Arc::new(new),
                (Some(new), None) => self.known.push(Arc::new(new)),
                (None, index) => {
                    gone = true;
                    index.map(|index| self.known.swap_remove(index));
                }
            }
        }
        self.pids = pids;
        gone
    }

    pub(super) fn of(&self, pid: u32) -> Option<Arc<ProcessSample>> {
        self.known.iter().find(|process| process.pid == pid).cloned()
    }

    fn look(&mut self, pid: u32, at: Duration) -> Option<ProcessSample> {
        let tasks = fs::read_dir(process_path(&self.proc, pid, "task")).ok()?;
        let mut threads = Vec::new();
        for task in tasks.filter_map(Result::ok).take(THREADS_MAX) {
            let mut path = task.path();
            path.push("stat");
            threads.extend(self.thread(&path));
        }
        threads.sort_unstable_by_key(|thread| thread.id);
        (!threads.is_empty()).then_some(ProcessSample { pid, at, threads })
    }

    fn thread(&mut self, path: &Path) -> Option<ThreadSample> {
        self.text.clear();
        std::io::Read::read_to_end(&mut fs::File::open(path).ok()?, &mut self.text).ok()?;
        parse_stat(&self.text, self.tick)
    }
}

/// Reads a line as `fs/proc/array.c: do_task_stat` prints it. The name stands in brackets and may hold brackets.
fn parse_stat(line: &[u8], tick: Duration) -> Option<ThreadSample> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let id = str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
    let name = printable(line.get(open + 1..close)?);
    // From field 3, the state; 14 and 15 are user and system time, 39 is the CPU.
    let mut fields = str::from_utf8(line.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
    let ticks = number(10)?.saturating_add(number(0)?);
    let cpu = u32::try_from(number(23)?).ok()?;
    let used = tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
    Some(ThreadSample { id, name, state, used, cpu })
}

/// How often threads are read.
const EVERY: Duration = Duration::from_millis(950);

/// More than any program that serves queues has.
const THREADS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    #[test]
    fn a_stat_line_as_the_kernel_prints_it() {
        // Captured from a kernel; name, times and CPU set apart here.
        let line = b"10587 (fanq) 3) R 7214 7214 31820 0 -1 4194304 100 0 0 0 1500 500 0 0 20 0 1 0 3647058 \
            3133440 412 18446744073709551615 94692680081408 94692680101289 140737207580160 0 0 0 0 0 0 0 0 0 17 3 0 \
            0 0 0 0 94692680117296 94692680118912 94692850487296 140737207585494 140737207585514 140737207585514 \
            140737207586795 0\n";
        let expected = ThreadSample {
            id: 10587,
            name: "fanq) 3".to_owned(),
            state: 'R',
            used: Duration::from_secs(20),
            cpu: 3,
        };
        assert_eq!(parse_stat(line, TICK), Some(expected));
    }

    #[test]
    fn what_is_no_stat_line_is_nothing() {
        for line in ["", "1", "1 (x", ") (", "1 (x) R 2 3", "a (x) R"] {
            assert_eq!(parse_stat(line.as_bytes(), TICK), None, "{line:?}");
        }
    }
}
