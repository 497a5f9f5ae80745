//! A measuring command from its beginning to its end: the lab, the trials so far, the result file.
//!
//! Invariant: what was measured is kept. The document is written after every finding, marked as not complete, and at
//! the end, whether that is a good one or not. An interruption ends between two trials. After a trial from which the
//! host took CPU time comes a rest ([`Rests`]).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::options::MeasureOptions;
use super::rest::Rests;
use crate::lab::Lab;
use crate::machine::{self, StolenTime};
use crate::result::{Document, Findings, Run, SCHEMA, TargetSetting, Trial};
use crate::target::Target;
use crate::trial::{Bench, Request, Traffic, rules};

/// A command that is measuring.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) bench: Bench,
    pub(crate) targets: Vec<Target>,
    pub(crate) document: Document,
    out: PathBuf,
    began: Instant,
    stolen: StolenTime,
    rests: Rests,
    /// Rested since the trial before.
    rested: Duration,
    interrupted: Arc<AtomicBool>,
    progress: ProgressBar,
}

impl Session {
    /// Settles everything before the first trial, so that bad input shows at once.
    pub(crate) fn open(
        lab: Lab,
        options: &MeasureOptions,
        targets: Vec<Target>,
        suite: &str,
    ) -> anyhow::Result<Self> {
        ensure_writable(&options.out)?;
        let mut load = options.load.settle(&lab)?;
        let replay = options.load.capture(&mut load)?;
        let service = options.service(&lab)?;
        rules::check(service.queues, &lab.shape.queue_cpus)?;
        let setting = lab.setting(service.queues.to_string());
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("handling signals")?;
        }
        lab.take_signals();
        let bench = Bench::new(lab, load.clone(), service)?.replaying(replay)?;
        let described =
            targets.iter().map(|target| describe(&bench, target)).collect::<Result<_, _>>()?;
        let document = Document {
            schema: SCHEMA.to_owned(),
            run: Run {
                command: crate::lab::typed_line(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: commit(),
                began: now_rfc3339()?,
                seconds: 0.0,
                suite: suite.to_owned(),
                complete: false,
                cpu: None,
            },
            machine: machine::describe(0.0),
            lab: setting,
            load,
            targets: described,
            findings: Findings::default(),
            trials: Vec::new(),
        };
        let progress = ProgressBar::new_spinner();
        progress.set_style(ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")?);
        Ok(Self {
            bench,
            targets,
            document,
            out: options.out.clone(),
            began: Instant::now(),
            stolen: StolenTime::now()?,
            rests: Rests::new(StolenTime::now()?),
            rested: Duration::ZERO,
            interrupted,
            progress,
        })
    }

    /// Says what comes: on a terminal in one line that moves, else as a line of its own.
    pub(crate) fn say(&self, what: &str) {
        if self.progress.is_hidden() {
            eprintln!("{what}");
        } else {
            self.progress.set_message(what.to_owned());
            self.progress.tick();
        }
    }

    /// The same for what changes many times a second: only where a line can move.
    pub(crate) fn say_often(&self, what: &str) {
        if !self.progress.is_hidden() {
            self.say(what);
        }
    }

    /// Runs a trial and keeps it. A void one is tried again, a few times; the last is returned as it is.
    pub(crate) fn trial(&mut self, request: &Request<'_>) -> anyhow::Result<Trial> {
        self.until_valid(|session| session.trial_once(request))
    }

    /// Runs a trial and keeps it, void or not.
    pub(crate) fn trial_once(&mut self, request: &Request<'_>) -> anyhow::Result<Trial> {
        self.ensure_wanted()?;
        let trial = self.bench.run(request)?;
        self.keep(trial)
    }

    /// Runs a trial of TCP and keeps it; a void one is tried again, as others are.
    pub(crate) fn tcp(
        &mut self,
        target: &Target,
        traffic: Traffic,
        round: usize,
        seconds: f64,
    ) -> anyhow::Result<Trial> {
        self.until_valid(|session| {
            session.ensure_wanted()?;
            let trial = session.bench.run_tcp(target, traffic, round, seconds)?;
            session.keep(trial)
        })
    }

    fn until_valid(
        &mut self,
        mut run: impl FnMut(&mut Self) -> anyhow::Result<Trial>,
    ) -> anyhow::Result<Trial> {
        for _ in 1..TRIES {
            let trial = run(self)?;
            if trial.void.is_none() {
                return Ok(trial);
            }
        }
        run(self)
    }

    /// Puts a trial into the document, and rests after it if the host disturbed it; the next trial says how long.
    pub(super) fn keep(&mut self, mut trial: Trial) -> anyhow::Result<Trial> {
        let rested = std::mem::take(&mut self.rested);
        trial.rested_seconds = (!rested.is_zero()).then_some(rested.as_secs_f64());
        self.document.trials.push(trial.clone());
        self.progress.tick();
        self.rest()?;
        Ok(trial)
    }

    fn rest(&mut self) -> anyhow::Result<()> {
        let mut rests = self.rests;
        self.rested += rests.after_trial(StolenTime::now, |rest, taken| {
            let (percent, seconds) = (taken.share * 100.0, rest.as_secs());
            self.say(&format!(
                "the host took {percent:.1} % of the CPU time: resting for {seconds} s"
            ));
            let end = Instant::now() + rest;
            while Instant::now() < end {
                self.ensure_wanted()?;
                std::thread::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now())));
            }
            Ok(())
        })?;
        self.rests = rests;
        Ok(())
    }

    fn ensure_accounted(&self) -> anyhow::Result<()> {
        let trials = &self.document.trials;
        let open = trials.iter().filter(|trial| trial.account.unaccounted != 0);
        let mut names: Vec<_> = open.map(|trial| trial.target.as_str()).collect();
        let count = names.len();
        names.dedup();
        ensure!(
            count == 0,
            "{count} trials have packets that are unaccounted for: {}; see the result",
            names.join(", ")
        );
        Ok(())
    }

    pub(super) fn ensure_wanted(&self) -> anyhow::Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Writes what there is, not complete yet.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        self.document.run.seconds = self.began.elapsed().as_secs_f64();
        self.document.machine.stolen_share = self.stolen.share_since()?;
        self.document.write(&self.out)
    }

    /// Ends the session: writes the document, and says where it is.
    pub(crate) fn close(mut self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        self.progress.finish_and_clear();
        let outcome = outcome.and_then(|()| self.ensure_accounted());
        self.document.run.complete = outcome.is_ok();
        let saved = self.save();
        super::summary::print(&self.document);
        let shown = self.out.display();
        match (&outcome, &saved) {
            (Ok(()), Ok(())) => {
                println!("result: {shown}; a page of it: fanq-bench report {shown}");
            }
            (Err(_), Ok(())) if !self.document.trials.is_empty() => {
                eprintln!("what was measured until then is in {shown}");
            }
            _ => {}
        }
        outcome.and(saved)
    }
}

/// Tries the folder now rather than after an hour of measuring.
fn ensure_writable(path: &Path) -> anyhow::Result<()> {
    let beside = path.with_extension("json.part");
    std::fs::write(&beside, b"")
        .and_then(|()| std::fs::remove_file(&beside))
        .with_context(|| format!("the result cannot be written to {}", path.display()))
}

fn describe(bench: &Bench, target: &Target) -> anyhow::Result<TargetSetting> {
    let service = target.service(&bench.service)?;
    let words = target.command(&service)?.unwrap_or_default();
    let base = |word: &std::ffi::OsString| {
        let text = word.to_string_lossy();
        text.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let command = words.iter().map(base).collect::<Vec<_>>().join(" ");
    let rules = bench.install_rules(target, "udp")?.commands;
    Ok(TargetSetting { name: target.name.clone(), command, rules })
}

/// The commit of the working folder, if it is a checkout: of this project, where measurements are taken from one.
fn commit() -> String {
    let git = |words: &[&str]| {
        let output =
            Command::new("git").args(words).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::new();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    if changed.is_empty() { commit } else { commit + "-dirty" }
}

fn now_rfc3339() -> anyhow::Result<String> {
    Ok(crate::lab::run_line("date -u +%Y-%m-%dT%H:%M:%SZ")?.trim().to_owned())
}

/// Between two looks at whether a rest was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A trial that is void this often stays so.
const TRIES: usize = 3;
