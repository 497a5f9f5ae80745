//! What others see of an accelerated program, by the control socket and the metrics: its account, in the form of a
//! run's.
//!
//! Invariant: it tells what the library counts, what the kernel has beside that, and what was asked for at the start;
//! what is not known is left out. Nothing about the program can be changed from here, and who tries is told so.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use fanq::{CopyRange, EngineStats, KernelTable};
use serde_json::{Value, json};

use super::AccelArgs;
use super::account::{CountsFile, UNCOUNTED, UNCOUNTED_METRICS};
use crate::control::Controlled;
use crate::doors;
use crate::metrics::{ProcessTimes, Scraped, Snapshot};
use crate::run::summary::{self, Extras};

/// An accelerated program, for any thread.
#[derive(Clone)]
pub(super) struct AccelView(Arc<Seen>);

struct Seen {
    counts: CountsFile,
    /// Missing in another user's namespace; then the kernel's numbers are not known.
    table: Option<KernelTable>,
    began: Instant,
    program: String,
    /// Once it was started.
    pid: OnceLock<u32>,
    /// What was set for the program; null where it is the program's own affair.
    settings: Value,
    queue_maxlen: Option<u32>,
    fail_open: bool,
}

impl AccelView {
    /// Of a program that is about to be started.
    pub(super) fn new(args: &AccelArgs, program: &Path) -> anyhow::Result<Self> {
        let copied = args.copy_range.map(|range| match range {
            CopyRange::Full => "full".to_owned(),
            range => range.bytes().to_string(),
        });
        let settings = json!({
            "batch": args.batch,
            "rcvbuf": args.rcvbuf.map(|size| size.as_u64()),
            "queue-maxlen": args.queue_maxlen,
            "fail-open": args.fail_open,
            "gso": args.gso,
            "copy-range": copied,
            "cpu": args.cpu,
            "nice": args.nice,
        });
        let name = program.file_name().unwrap_or(program.as_os_str());
        Ok(Self(Arc::new(Seen {
            counts: CountsFile::create()?,
            table: KernelTable::open().ok(),
            began: Instant::now(),
            program: name.to_string_lossy().into_owned(),
            pid: OnceLock::new(),
            settings,
            queue_maxlen: args.queue_maxlen,
            fail_open: args.fail_open,
        })))
    }

    /// The name by which the program's processes open the file of counters.
    pub(super) fn counts_path(&self) -> String {
        self.0.counts.path()
    }

    /// The program runs, as this process.
    pub(super) fn started(&self, pid: u32) {
        // There is one start.
        let _ = self.0.pid.set(pid);
    }

    /// What was counted so far, with the kernel's rows.
    pub(super) fn stats(&self) -> anyhow::Result<EngineStats> {
        self.read(self.0.table.as_ref())
    }

    /// The same without them: they are gone with the program's sockets.
    pub(super) fn last_stats(&self) -> anyhow::Result<EngineStats> {
        self.read(None)
    }

    fn read(&self, table: Option<&KernelTable>) -> anyhow::Result<EngineStats> {
        let mut stats = self.0.counts.read(table)?;
        if self.0.fail_open {
            for queue in &mut stats.queues {
                queue.counts.uninspected = queue.counts.id_gaps;
            }
        }
        Ok(stats)
    }

    /// For an answer: nothing, where the file cannot be read.
    fn stats_or_none(&self) -> EngineStats {
        self.stats().unwrap_or_else(|_| EngineStats { queues: Vec::new() })
    }

    fn times(&self) -> Option<ProcessTimes> {
        ProcessTimes::of(&self.0.pid.get()?.to_string())
    }
}

impl Controlled for AccelView {
    fn statistics(&self) -> Value {
        let cpu = self.times().map(|times| times.cpu);
        let mut account = summary::value(&self.stats_or_none(), &Extras::of_program(cpu));
        leave_out_uncounted(&mut account["totals"]);
        for queue in account["queues"].as_array_mut().into_iter().flatten() {
            leave_out_uncounted(queue);
        }
        let accelerated = json!({ "pid": self.0.pid.get(), "program": self.0.program });
        let beside = json!({ "accelerated": accelerated });
        doors::statistics(account, self.0.began, &self.0.settings, beside)
    }

    fn settings(&self) -> Value {
        self.0.settings.clone()
    }

    fn set(&self, key: &str, value: &str) -> Result<String, String> {
        let program = &self.0.program;
        Err(match self.0.settings.get(key) {
            Some(_) => format!(
                "`{key}` cannot change while {program} runs: start it again, with fanq accel --{key} {value}"
            ),
            None => format!(
                "`{key}` is no setting of fanq accel, and none can change while {program} runs"
            ),
        })
    }

    fn reload(&self, tell: Box<dyn FnOnce(Result<String, String>) + Send>) {
        tell(Err(format!(
            "fanq accel has nothing to read again, and what {} reads is its own affair: see its manual",
            self.0.program
        )));
    }
}

impl Scraped for AccelView {
    fn snapshot(&self) -> Snapshot {
        let times = self.times();
        Snapshot {
            stats: self.stats_or_none(),
            queue_maxlen: self.0.queue_maxlen,
            policy: None,
            eve: None,
            started: times.and_then(|times| times.started()),
            cpu: times.map(|times| times.cpu),
            scrapes: 0,
            accelerated: Some(self.0.program.clone()),
            uncounted: &UNCOUNTED_METRICS,
        }
    }
}

fn leave_out_uncounted(counts: &mut Value) {
    if let Value::Object(counts) = counts {
        counts.retain(|key, _| !UNCOUNTED.contains(&key.as_str()));
    }
}
