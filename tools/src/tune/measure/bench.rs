//! Runs `fanq-bench` and reads what it leaves.
//!
//! Invariant: it ends before this does: at the end of its rounds, of its time, or with an interruption, which it is
//! told by SIGINT so that it takes its lab down. Its own words go to standard error.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::candidate::{Axes, Candidate};
use super::document::Document;

/// The program, and where its files go meanwhile.
#[derive(Debug)]
pub(super) struct Bench {
    program: PathBuf,
    folder: Folder,
    interrupted: Arc<AtomicBool>,
}

/// How a measurement came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All rounds were measured.
    Well,
    /// The time was over.
    Late,
}

impl Bench {
    /// Looks beside this program, then in PATH.
    pub(super) fn find() -> anyhow::Result<Self> {
        let program = find_program().context(
            "fanq-bench is neither beside this program nor in PATH; build it: cargo build --release, and run \
             target/release/fanq",
        )?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("handling signals")?;
        }
        Ok(Self { program, folder: Folder::new()?, interrupted })
    }

    /// Every combination in turn, for so many rounds or until the time is over.
    pub(super) fn sweep(
        &mut self,
        axes: &Axes,
        rounds: usize,
        until: Instant,
    ) -> anyhow::Result<Document> {
        let file = self.folder.path.join("axes.toml");
        std::fs::write(&file, axes.toml())
            .with_context(|| format!("writing {}", file.display()))?;
        let rounds = rounds.to_string();
        let file = file.to_string_lossy().into_owned();
        self.measure(&["sweep", &file, "--rounds", &rounds, "--packets", SWEEP_PACKETS], until)
    }

    /// The defaults, a candidate, and the defaults again.
    pub(super) fn compare(
        &mut self,
        candidate: &Candidate,
        until: Instant,
    ) -> anyhow::Result<Document> {
        let target = candidate.target();
        let mut words = vec!["cpu", "--target", DEFAULTS, "--target", &target, "--again"];
        if candidate.spins() {
            words.extend(["--apart", "--rounds", "11", "--packets", SWEEP_PACKETS]);
        }
        self.measure(&words, until)
    }

    fn measure(&mut self, words: &[&str], until: Instant) -> anyhow::Result<Document> {
        let out = self.folder.path.join("result.json");
        // Of the measurement before.
        let _ = std::fs::remove_file(&out);
        let mut child = Command::new(&self.program)
            .args(words)
            .args(["--queue-maxlen", "16384", "--frame", "imix", "--out"])
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("running {}", self.program.display()))?;
        let ended = self.wait(&mut child, until);
        let status = child.wait().context("waiting for fanq-bench")?;
        let ended = ended?;
        if ended == Ended::Well && !status.success() {
            bail!("fanq-bench {} ended with {status}; what it said stands above", words.join(" "));
        }
        let text = std::fs::read_to_string(&out).context("fanq-bench left no result")?;
        Document::parse(&text, ended).context("the result of fanq-bench")
    }

    /// Until it has ended, or was told to.
    fn wait(&self, child: &mut Child, until: Instant) -> anyhow::Result<Ended> {
        loop {
            if child.try_wait().context("waiting for fanq-bench")?.is_some() {
                return Ok(Ended::Well);
            }
            let interrupted = self.interrupted.load(Ordering::Relaxed);
            if interrupted || Instant::now() >= until {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                // It may have ended by now.
                let _ = pid.map(|pid| kill_process(pid, Signal::INT));
                if interrupted {
                    bail!("interrupted; nothing was written");
                }
                return Ok(Ended::Late);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn find_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(NAME)).collect::<Vec<_>>();
    beside.into_iter().chain(in_path).find(|program| program.is_file())
}

/// A folder of this process that goes with it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let name = format!("fanq-tune-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // One that is there is somebody else's.
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.path));
    }
}

const NAME: &str = "fanq-bench";

/// With the same length of a queue as the candidate has by default.
const DEFAULTS: &str = "fanq";

/// Of each sender in a trial of some tenths of a second.
const SWEEP_PACKETS: &str = "100000";

const LOOK_EVERY: Duration = Duration::from_millis(50);
