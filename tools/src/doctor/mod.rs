//! `fanq doctor`: looks at what packets and queues need of the machine, and says what is wrong and what mends it.
//!
//! Invariant: it changes nothing. On a sound machine, and on one that queues nothing, it warns of nothing; what it
//! could not see it says, and never counts as sound or as wrong.

mod counters;
mod cpus;
mod device_steering;
mod devices;
mod finding;
mod kernel;
mod owners;
mod posture;
mod privileges;
mod queues;
mod report;
mod rule_text;
mod spreading;
mod text;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use fanq::QueueRange;

use crate::machine::{Machine, Root, Sample};
use finding::{Finding, Group};
use report::Report;
use view::View;

/// What to look at.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 nothing is wrong, 1 warnings, 2 failures, 64 the command line is wrong

Examples:
  fanq doctor
  fanq doctor --queues 0-3 --dev eth0 --json"
)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object (docs/DOCTOR.md)
    #[arg(long)]
    json: bool,
    /// The queues that are to be served: 0-3, 0:3 or 5 [default: those that rules fill or programs read]
    #[arg(short, long, value_name = "RANGE")]
    queues: Option<QueueRange>,
    /// The devices that packets come in by; may be given several times [default: those on a bus that are up]
    #[arg(long = "dev", value_name = "NAME", value_delimiter = ',')]
    devices: Vec<String>,
    /// Packets are to be dropped, not let through, while no program reads them: warn of rules with bypass, not of those
    /// without
    #[arg(long)]
    fail_closed: bool,
    /// Look at a copy of a machine's files below this folder, with the output of programs in `commands/`
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// The exit status for a command line that is wrong (EX_USAGE of sysexits.h): 1 and 2 are findings here.
pub(crate) const EXIT_USAGE: u8 = 64;

/// The report could not be written (EX_IOERR).
const EXIT_OUTPUT: u8 = 74;

/// Looks, and prints what it found.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    if !args.root.is_dir() {
        eprintln!("fanq: --root {}: no such folder", args.root.display());
        return ExitCode::from(EXIT_USAGE);
    }
    let report = examine(args);
    let text = if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => json + "\n",
            Err(error) => {
                eprintln!("fanq: writing the report as JSON: {error}");
                return ExitCode::from(EXIT_OUTPUT);
            }
        }
    } else {
        text::page(&report, wants_colours())
    };
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        // A reader that has seen enough (`| head`) is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("fanq: writing the report: {error}");
            ExitCode::from(EXIT_OUTPUT)
        }
        _ => ExitCode::from(report.exit_status()),
    }
}

/// As no-color.org asks: never where NO_COLOR is set, and only on a terminal.
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stdout().is_terminal()
}

/// All checks.
fn examine(args: &DoctorArgs) -> Report {
    let root = Root::new(Path::new(&args.root));
    let began = Instant::now();
    let machine = Machine::read(&root, &args.devices);
    if root.is_running_machine() {
        std::thread::sleep(BETWEEN_SAMPLES.saturating_sub(began.elapsed()));
    }
    let later = Sample::read(&root.later(), &machine.cpus.online, &machine.device_names());
    let view = View {
        machine: &machine,
        later: &later,
        asked: args.queues,
        devices_named: !args.devices.is_empty(),
        fail_closed: args.fail_closed,
    };
    let queues = [queues::check(&view), spreading::check(&view), owners::check(&view)];
    let groups: Vec<(Group, Vec<Finding>)> = vec![
        (Group::Kernel, kernel::check(&view)),
        (Group::Privileges, privileges::check(&view)),
        (Group::Queues, queues.concat()),
        (Group::Cpus, cpus::check(&view)),
        (Group::Devices, devices::check(&view)),
        (Group::Counters, counters::check(&view)),
    ];
    Report::new(groups, posture::cases(&view))
}

/// From the start to the second sample, of which the reading itself takes a part.
const BETWEEN_SAMPLES: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests;
