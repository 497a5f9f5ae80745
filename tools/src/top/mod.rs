//! `fanq top`: what every queue does now, whosever it is.
//!
//! Three parts, each without the next: `samples` reads, `rates` computes, `view` draws. `terminal` and `plain` show
//! it: live, or as lines.
//!
//! Invariant: it only looks. It binds no queue, sends the kernel nothing, and needs no rights of its own to show the
//! caller's network namespace.

mod detail;
#[cfg(test)]
mod fake;
mod format;
mod plain;
mod rates;
mod samples;
mod terminal;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fanq::QueueRange;

use self::detail::Details;
use self::rates::Board;
use self::samples::{Sample, Sampler};
use self::view::{Choices, Glyphs, SortKey};
use crate::usage;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq top --interval 0.5
  fanq top --once --json")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct TopArgs {
    /// Only these queues: 0-3, 0:3 or 5; may be given again
    #[arg(short, long, value_name = "RANGE")]
    queues: Vec<QueueRange>,
    /// Seconds between two looks, 0.05 to 3600
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// End after so many refreshes
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Look twice, print one table, and end
    #[arg(long)]
    once: bool,
    /// Print one JSON object a refresh, each a line
    #[arg(long)]
    json: bool,
    /// What the lines are sorted by
    #[arg(long, value_name = "KEY", default_value = "queue")]
    sort: SortKey,
    /// Use no colours; so does the variable NO_COLOR
    #[arg(long)]
    no_color: bool,
    /// Draw with ASCII signs only, as without a UTF-8 locale
    #[arg(long)]
    ascii: bool,
    /// Look at the network namespace of this process
    #[arg(long, value_name = "PID")]
    netns_of: Option<u32>,
    /// Read proc/ below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Shows the queues until it is told to end.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<()> {
    let interval = Some(args.interval).filter(|seconds| (0.05..=3600.0).contains(seconds));
    let interval = interval.map(Duration::from_secs_f64).ok_or_else(|| {
        usage(format!("interval {} is out of range: 0.05 to 3600 seconds", args.interval))
    })?;
    let mut choices = Choices::new(interval);
    choices.sort = args.sort;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let dumb = variable("TERM") == "dumb";
    let is_terminal = std::io::stdout().is_terminal();
    choices.colour = is_terminal && !args.no_color && !dumb && variable("NO_COLOR").is_empty();
    if !args.ascii && !dumb && speaks_utf8(variable) {
        choices.glyphs = Glyphs::UNICODE;
    }
    let as_lines = args.once || args.json || dumb;
    let can_be_live = is_terminal && std::io::stdin().is_terminal();
    if !(as_lines || can_be_live) {
        return Err(usage(
            "the live view needs a terminal for its input and output: write `fanq top --once` for one table, or \
             --json for a line each second",
        ));
    }
    let mut looks = Looks::open(args)?;
    if as_lines {
        let count = if args.once { Some(1) } else { args.count };
        return plain::run(&mut looks, &choices, args.json, count);
    }
    choices.live = true;
    terminal::run(&mut looks, choices, args.count)
}

/// The samples so far, and what came of them.
struct Looks {
    sampler: Sampler,
    sample: Sample,
    board: Board,
    began: Instant,
}

impl Looks {
    fn open(args: &TopArgs) -> anyhow::Result<Self> {
        let root: &Path = &args.root;
        let details = Details::new(root == Path::new("/") && args.netns_of.is_none());
        let sampler = Sampler::open(root, args.netns_of, args.queues.clone(), details)?;
        let (sample, board) = (Sample::default(), Board::default());
        Ok(Self { sampler, sample, board, began: Instant::now() })
    }

    /// Looks once more. With `whole`, also at what is looked at less often.
    fn look(&mut self, whole: bool) -> anyhow::Result<()> {
        self.sampler.read(self.began.elapsed(), whole, &mut self.sample)?;
        self.board.take(&self.sample);
        Ok(())
    }
}

/// Whether the locale's characters are UTF-8, by the order in which POSIX looks at the variables.
fn speaks_utf8(variable: impl Fn(&str) -> String) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().map(variable).find(|l| !l.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
