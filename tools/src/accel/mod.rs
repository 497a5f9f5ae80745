//! `fanq accel`: starts a program with the library under it that batches its receives and joins its verdicts.
//!
//! Invariant: unless the program is to be watched (`--stats`, `--metrics`, `--control`), this process becomes it: same
//! process id, signals, standard streams and exit status. Else it stays as the program's parent, passes signals on, and
//! ends as the program ended. A program that cannot be helped is not started. The library itself is the package
//! fanq-accel (`tools/accel`); what it is told goes by environment variables (`FANQ_ACCEL_*`).

mod account;
mod program;
mod supervisor;
mod view;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use fanq::{CopyRange, CpuList};

use crate::control::ControlPlace;
use crate::doors::Doors;
use crate::metrics::MetricsAddress;
use crate::usage;
use supervisor::Shown;
use view::AccelView;

/// Options of `fanq accel`.
#[derive(Debug, Args)]
#[command(
    after_help = "The program is started as it is, with LD_PRELOAD set. docs/ACCEL.md says what changes for it
(speed) and what cannot be helped (static programs, Go's own system calls).

Examples:
  fanq accel -- my-ips --queue 0
  fanq accel --cpu same --stats 10 -- my-ips --queue 0
  fanq accel --metrics 9477 -- my-ips --queue 0"
)]
pub(crate) struct AccelArgs {
    /// The library [default: libfanq_accel.so beside this program, or in ../lib/fanq]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// The most packets that one receive takes, 1 to 256
    #[arg(long, value_name = "PACKETS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Receive buffer of each socket, at least, such as 64MiB [default: the program's]
    #[arg(long, value_name = "SIZE")]
    rcvbuf: Option<ByteSize>,
    /// The most packets that wait in one queue [default: the program's]
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    queue_maxlen: Option<u32>,
    /// Let packets pass unseen when a queue is full
    #[arg(long)]
    fail_open: bool,
    /// Hand over large segmented packets whole. The program must be able to take packets of 64 KiB whose checksums are
    /// not finished
    #[arg(long)]
    gso: bool,
    /// How much of each packet is copied: full or BYTES [default: the program's]
    #[arg(long, value_name = "RANGE", value_parser = copy_range)]
    copy_range: Option<CopyRange>,
    /// Where the thread that reads a queue runs: same or same:FIRST (queue FIRST + i on CPU i, as fanout fills them),
    /// or a list as 2,3 for the queues from 0 on, or LIST@FIRST [default: where the program has it]
    #[arg(long, value_name = "WHERE", value_parser = cpus)]
    cpu: Option<String>,
    /// Niceness of the thread that reads a queue, -20 to 19, where it has 0; 0 leaves it so [default: -5, where that is
    /// permitted]
    #[arg(
        long,
        value_name = "NICE",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i8).range(-20..=19)
    )]
    nice: Option<i8>,
    /// Print a table to standard error every so many seconds, and an account at the end
    #[arg(long, value_name = "SECONDS")]
    stats: Option<f64>,
    /// How the account of --stats is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    summary: SummaryFormat,
    /// Where `fanq top` and `fanq control` see what the program does: abstract (a name that only this network namespace
    /// sees), the PATH of a socket file, or none [default: abstract with --stats or --metrics, else none]
    #[arg(long, value_name = "WHERE")]
    control: Option<ControlPlace>,
    /// Serve the numbers to Prometheus at http://ADDRESS/metrics; an address, a port (of 127.0.0.1) or both, such as
    /// 127.0.0.1:9477 [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<MetricsAddress>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    Text,
    Json,
}

/// Starts the program; returns only if it is watched, or could not be started.
pub(crate) fn run(args: &AccelArgs) -> anyhow::Result<ExitCode> {
    let every = args.stats.map(Duration::try_from_secs_f64).transpose();
    let every = every.map_err(|_| usage("--stats: a number of seconds is needed, such as 1"))?;
    if every.is_some_and(|every| every.is_zero()) {
        return Err(usage("--stats: more than 0 seconds are needed"));
    }
    let (name, arguments) = args.command.split_first().context("no command")?;
    let path = program::find(name)?;
    if let Some(why) = program::cannot_be_helped(&path)? {
        bail!("{} {why}", path.display());
    }
    let library = library(args.library.as_deref())?;
    if args.gso {
        eprintln!(
            "warning: --gso: packets come whole, up to 64 KiB, with unfinished checksums; a program that was not \
             written for that cuts or damages them"
        );
    }
    let mut command = Command::new(&path);
    command.arg0(name).args(arguments).env("LD_PRELOAD", preloaded(&library)?);
    for (variable, value) in variables(args)? {
        command.env(format!("FANQ_ACCEL_{variable}"), value);
    }
    let control = match &args.control {
        Some(control) => control.clone(),
        None if every.is_some() || args.metrics.is_some() => ControlPlace::Abstract,
        None => ControlPlace::Nowhere,
    };
    if every.is_none() && args.metrics.is_none() && control == ControlPlace::Nowhere {
        return Err(command.exec()).with_context(|| format!("starting {}", path.display()));
    }
    let doors = Doors::open(&control, args.metrics, false)?;
    let view = AccelView::new(args, &path)?;
    command.env("FANQ_ACCEL_COUNTS", view.counts_path());
    let shown = every.map(|every| Shown { every, as_json: args.summary == SummaryFormat::Json });
    supervisor::run(command, &view, doors, shown)
}

/// The library, and those that were to be loaded anyway.
fn preloaded(library: &Path) -> anyhow::Result<OsString> {
    // What ld.so(8) takes for a separator.
    if library.as_os_str().as_encoded_bytes().iter().any(|byte| b" :".contains(byte)) {
        bail!(
            "{}: the loader takes no path with a blank or a colon; put the library elsewhere and give it with --library",
            library.display()
        );
    }
    let mut all = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    Ok(all)
}

/// What the library is told, by variable.
fn variables(args: &AccelArgs) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut variables = vec![("BATCH", args.batch.to_string())];
    if let Some(size) = args.rcvbuf {
        let bytes = i32::try_from(size.as_u64());
        let bytes = bytes.map_err(|_| usage("--rcvbuf: at most 2047MiB"))?;
        variables.push(("RCVBUF", bytes.to_string()));
    }
    if let Some(maxlen) = args.queue_maxlen {
        variables.push(("QUEUE_MAXLEN", maxlen.to_string()));
    }
    if let Some(range) = args.copy_range {
        variables.push(("COPY_RANGE", range.bytes().to_string()));
    }
    if let Some(cpus) = &args.cpu {
        variables.push(("CPUS", cpus.clone()));
    }
    if let Some(nice) = args.nice {
        variables.push(("NICE", nice.to_string()));
    }
    let flags = [("FAIL_OPEN", args.fail_open), ("GSO", args.gso)];
    variables
        .extend(flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "1".to_owned())));
    Ok(variables)
}

/// Where the library lies.
fn library(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let places = match given {
        Some(given) => vec![given.to_owned()],
        None => beside(&std::env::current_exe().context("finding this program's own folder")?),
    };
    match places.iter().find(|place| place.is_file()) {
        Some(found) => found.canonicalize().with_context(|| found.display().to_string()),
        None => bail!(
            "there is no library {}; build it (cargo build --release), or say where it is: --library FILE",
            places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" or ")
        ),
    }
}

fn beside(program: &Path) -> Vec<PathBuf> {
    let folder = program.parent().unwrap_or(Path::new("."));
    vec![folder.join(LIBRARY), folder.join("../lib/fanq").join(LIBRARY)]
}

fn copy_range(text: &str) -> Result<CopyRange, String> {
    match text.parse() {
        _ if text == "full" => Ok(CopyRange::Full),
        Ok(bytes @ 1..=CopyRange::BYTES_MAX) => Ok(CopyRange::Bytes(bytes)),
        _ => Err(format!("write full, or a number of bytes from 1 to {}", CopyRange::BYTES_MAX)),
    }
}

/// `same[:FIRST]` or `LIST[@FIRST]`, as the library takes them.
fn cpus(text: &str) -> Result<String, String> {
    let wrong = || "write same, same:FIRST, a list of CPUs such as 2-5, or LIST@FIRST".to_owned();
    let queue = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    if let Some(rest) = text.strip_prefix("same") {
        let first = rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "0" } else { rest });
        return Ok(format!("same:{}", queue(first)?));
    }
    let (list, first) = text.split_once('@').unwrap_or((text, "0"));
    list.parse::<CpuList>().map_err(|_| wrong())?;
    Ok(format!("list:{}:{list}", queue(first)?))
}

/// Whether this is one of the words.
fn is_one_of(word: &OsStr, words: &[&str]) -> bool {
    words.iter().any(|known| word == *known)
}

const LIBRARY: &str = "libfanq_accel.so";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_threads_are_told_in_the_librarys_words() {
        assert_eq!(cpus("same").unwrap(), "same:0");
        assert_eq!(cpus("same:4").unwrap(), "same:4");
        assert_eq!(cpus("2-3").unwrap(), "list:0:2-3");
        assert_eq!(cpus("1@8").unwrap(), "list:8:1");
        for text in ["", "sameness", "same:x", "a@1", "1@", "1@70000"] {
            assert!(cpus(text).unwrap_err().contains("LIST@FIRST"), "{text}");
        }
    }

    #[test]
    fn a_copy_range_is_in_bytes_or_full() {
        assert_eq!(copy_range("full").unwrap(), CopyRange::Full);
        assert_eq!(copy_range("128").unwrap(), CopyRange::Bytes(128));
        assert!(copy_range("0").is_err() && copy_range("65532").is_err());
    }

    #[test]
    fn the_loader_gets_no_path_that_it_would_cut() {
        let error = preloaded(Path::new("/a b/libfanq_accel.so")).unwrap_err().to_string();
        assert!(error.contains("--library"), "{error}");
    }
}
