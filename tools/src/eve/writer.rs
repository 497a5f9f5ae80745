//! The log's thread, and what others hold of it.
//!
//! Invariant: the thread alone formats and writes. It looks at the rings at least every [`PAUSE_MAX`]; when the log is
//! closed, it takes what is left in the rings first, so every record sent is written or counted as lost.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use fanq::Timestamp;
use rtrb::Consumer;
use serde_json::Value;

use super::EveTarget;
use super::format::{self, Formatter, Named};
use super::output::Output;
use super::record::{EveRecord, EveSender, ring};
use crate::confine::{self, Role};
use crate::inspector::{InterfaceNames, Rule};

/// The rules of one version, in words.
pub(crate) type RuleNames = Arc<Vec<Rule>>;

/// The log, open: what the program's main thread holds.
#[derive(Debug)]
pub(crate) struct EveLog {
    orders: Sender<Order>,
    counts: Arc<EveCounts>,
    thread: JoinHandle<()>,
}

/// The log's counts, for any thread.
#[derive(Debug, Clone)]
pub(crate) struct EveTally(Arc<EveCounts>);

impl EveTally {
    /// Lines written and lost so far, as [`EveLog::counts`].
    pub(crate) fn counts(&self) -> (u64, u64) {
        read(&self.0)
    }
}

/// What became of lines; written by the log's thread.
#[derive(Debug, Default)]
struct EveCounts {
    written: AtomicU64,
    /// Lines that could not be written; those that found a ring full are counted by the workers.
    lost: AtomicU64,
}

enum Order {
    Ring(Consumer<EveRecord>),
    Rules(u32, RuleNames),
    Stats(Box<Value>),
    Event(&'static str, String),
    Reopen,
}

impl EveLog {
    /// Opens the target and starts the thread. Call it where the network namespace is the workers'.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn start(target: &EveTarget) -> anyhow::Result<Self> {
        let (EveTarget::File(path) | EveTarget::Socket(path)) = target;
        let open = || -> anyhow::Result<_> { Ok((Output::open(target)?, InterfaceNames::open()?)) };
        let (output, names) =
            open().with_context(|| format!("opening the log {} (--eve)", path.display()))?;
        if matches!(target, EveTarget::File(_)) {
            confine::allow([], confine::place_of_log(path));
        }
        let (orders, received) = channel();
        let counts = Arc::new(EveCounts::default());
        let writer = Writer {
            orders: received,
            rings: Vec::new(),
            rules: VecDeque::new(),
            output,
            path: path.clone(),
            formatter: Formatter::default(),
            interfaces: InterfaceCache { names, known: HashMap::new(), read: Instant::now() },
            counts: Arc::clone(&counts),
            lines: Vec::with_capacity(CHUNK_BYTES + LINE_BYTES),
            line_count: 0,
            complained: None,
        };
        let thread = std::thread::Builder::new().name("fanq-eve".to_owned());
        let thread = thread.spawn(move || {
            confine::thread(Role::Log);
            writer.run();
        });
        let thread = thread.context("starting the log's thread")?;
        Ok(Self { orders, counts, thread })
    }

    /// A ring for one worker.
    pub(crate) fn sender(&self) -> EveSender {
        let (sender, consumer) = ring();
        self.order(Order::Ring(consumer));
        sender
    }

    /// Makes the words of a version known, before any worker has its rules.
    pub(crate) fn rules(&self, version: u32, words: &RuleNames) {
        self.order(Order::Rules(version, Arc::clone(words)));
    }

    /// Writes a line of statistics.
    pub(crate) fn stats(&self, stats: Value) {
        self.order(Order::Stats(Box::new(stats)));
    }

    /// Writes a line about the engine itself; the level is one of Suricata's: Info, Error.
    pub(crate) fn event(&self, level: &'static str, message: String) {
        self.order(Order::Event(level, message));
    }

    /// Opens the file anew, as its old one may have been moved.
    pub(crate) fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Lines written and lost so far; those lost in the workers' rings are not among them.
    pub(crate) fn counts(&self) -> (u64, u64) {
        read(&self.counts)
    }

    /// The same for other threads.
    pub(crate) fn tally(&self) -> EveTally {
        EveTally(Arc::clone(&self.counts))
    }

    /// Writes what is left and ends the thread. Workers must have ended.
    pub(crate) fn close(self) -> (u64, u64) {
        drop(self.orders);
        // A thread that panicked has said so already, and its counts stand.
        let _ = self.thread.join();
        read(&self.counts)
    }

    fn order(&self, order: Order) {
        // The thread ends before this only by a panic, of which it has told.
        let _ = self.orders.send(order);
    }
}

fn read(counts: &EveCounts) -> (u64, u64) {
    (counts.written.load(Ordering::Relaxed), counts.lost.load(Ordering::Relaxed))
}

struct Writer {
    orders: Receiver<Order>,
    rings: Vec<Consumer<EveRecord>>,
    /// The last few versions: records of one may still lie in a ring after the next has come.
    rules: VecDeque<(u32, RuleNames)>,
    output: Output,
    path: std::path::PathBuf,
    formatter: Formatter,
    interfaces: InterfaceCache,
    counts: Arc<EveCounts>,
    /// Lines that are not written yet, and how many.
    lines: Vec<u8>,
    line_count: u64,
    /// When it was last said that lines are lost.
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let is_over = self.take_orders(pause);
            let taken = self.take_records();
            self.write();
            if is_over {
                return;
            }
            pause = if taken > 0 { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        }
    }

    /// Waits for an order, or a while, then carries out all there are. True when the log is closed.
    fn take_orders(&mut self, pause: Duration) -> bool {
        match self.orders.recv_timeout(pause) {
            Ok(order) => self.carry_out(order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
        }
        self.take_waiting_orders();
        false
    }

    fn take_waiting_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.carry_out(order);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Ring(ring) => self.rings.push(ring),
            Order::Rules(version, words) => {
                self.rules.push_back((version, words));
                if self.rules.len() > VERSIONS_KEPT {
                    self.rules.pop_front();
                }
            }
            Order::Stats(stats) => {
                format::stats(SystemTime::now(), &stats, &mut self.lines);
                self.line_count += 1;
            }
            Order::Event(level, message) => {
                format::engine(SystemTime::now(), level, &message, &mut self.lines);
                self.line_count += 1;
            }
            Order::Reopen => {
                self.write();
                if let Err(error) = self.output.reopen() {
                    let path = self.path.display();
                    eprintln!("fanq: {path} cannot be opened again, the old file is kept: {error}");
                }
            }
        }
    }

    /// Formats what lies in the rings. Returns how many records that were.
    fn take_records(&mut self) -> usize {
        let (now, wall_now) = (Timestamp::now(), SystemTime::now());
        let mut taken = 0;
        for index in 0..self.rings.len() {
            // No more than was there at first: the other rings get their turn.
            for _ in 0..self.rings[index].slots() {
                let Ok(record) = self.rings[index].pop() else { break };
                let ago = now.since(record.time);
                self.format(&record, wall_now.checked_sub(ago).unwrap_or(wall_now));
                taken += 1;
                if self.lines.len() >= CHUNK_BYTES {
                    self.write();
                }
            }
        }
        taken
    }

    fn format(&mut self, record: &EveRecord, time: SystemTime) {
        let rule = match record.judged.rule {
            None => None,
            Some(number) => {
                if self.words(record.judged.version).is_none() {
                    // They are made known before the rules are, but perhaps after this thread looked.
                    self.take_waiting_orders();
                }
                let Some(words) = self.words(record.judged.version) else {
                    self.counts.lost.fetch_add(record.judged.lines(), Ordering::Relaxed);
                    return;
                };
                Some((number, words))
            }
        };
        let in_interface = record.in_interface.and_then(|index| self.interfaces.name(index));
        let rule = rule
            .as_ref()
            .and_then(|(number, words)| words.get(*number as usize).map(|words| (*number, words)));
        let named = Named { time, in_interface: in_interface.as_deref(), rule };
        self.line_count += self.formatter.packet(record, named, &mut self.lines);
    }

    fn words(&self, version: u32) -> Option<RuleNames> {
        let known = self.rules.iter().rev().find(|(known, _)| *known == version);
        known.map(|(_, words)| Arc::clone(words))
    }

    fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let written = self.output.write(&self.lines);
        debug_assert_eq!(written.lines + written.lost, self.line_count);
        self.counts.written.fetch_add(written.lines, Ordering::Relaxed);
        self.counts.lost.fetch_add(written.lost, Ordering::Relaxed);
        if let Some(failure) = written.failure {
            complain(&self.path, &failure, &mut self.complained);
        }
        self.lines.clear();
        self.line_count = 0;
    }
}

/// Says that lines are lost, once a minute at most.
fn complain(path: &Path, failure: &str, last: &mut Option<Instant>) {
    if last.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
        eprintln!("fanq: lines for {} are lost and counted: {failure}", path.display());
        *last = Some(Instant::now());
    }
}

/// Names of interfaces, looked up now and then.
struct InterfaceCache {
    names: InterfaceNames,
    known: HashMap<u32, Option<Arc<str>>>,
    read: Instant,
}

impl InterfaceCache {
    fn name(&mut self, index: u32) -> Option<Arc<str>> {
        if self.read.elapsed() >= NAMES_EVERY {
            self.known.clear();
            self.read = Instant::now();
        }
        let names = &self.names;
        self.known.entry(index).or_insert_with(|| names.name(index).map(Arc::from)).clone()
    }
}

/// How long the thread sleeps after records came, and when none have come for long.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// What is written at once.
const CHUNK_BYTES: usize = 64 << 10;
const LINE_BYTES: usize = 4 << 10;

const VERSIONS_KEPT: usize = 8;
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);
const NAMES_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_ordered_is_written_in_order_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.json");
        let log = EveLog::start(&EveTarget::File(path.clone())).unwrap();
        log.event("Info", "one \"quoted\"\nline".to_owned());
        log.stats(serde_json::json!({"uptime": 1}));
        let moved = folder.path().join("moved");
        while log.counts().0 < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.event("Error", "three".to_owned());
        assert_eq!(log.close(), (3, 0));
        let read = |path| {
            let mut text = String::new();
            std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
            let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
            text.lines().map(line).collect::<Vec<_>>()
        };
        let (first, second) = (read(&moved), read(&path));
        assert_eq!((first.len(), second.len()), (2, 1));
        assert_eq!(first[0]["engine"]["message"], "one \"quoted\"\nline");
        assert_eq!(
            (&first[1]["event_type"], &first[1]["stats"]["uptime"]),
            (&"stats".into(), &1.into())
        );
        assert_eq!(second[0]["engine"]["level"], "Error");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let log = EveLog::start(&EveTarget::File("/dev/full".into())).unwrap();
        for _ in 0..5 {
            log.event("Info", "lost".to_owned());
        }
        assert_eq!(log.close(), (0, 5));
    }
}
