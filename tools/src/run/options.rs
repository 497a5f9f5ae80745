//! The options of `fanq run`: from the command line, from a file, or the defaults, in that order.
//!
//! Invariant: both sources have the same keys and the same notation, and a key that is not known is an error.

mod combined;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use fanq::{
    CopyRange, CpuList, EngineConfig, Fate, FlagWish, FlagWishes, Placement, QueueFlag, QueueRange,
    Wait, allowed_cpus,
};
use serde::Deserialize;

use super::bypass::{Bypass, BypassBy};
use super::mode::Mode;
use super::on_fault::{self, FateOption};
use super::under_load::{self, OnOverload};
use crate::confine::{Confine, Wanted};
use crate::control::ControlPlace;
use crate::eve::EveTarget;
use crate::mark::MarkBits;
use crate::metrics::MetricsAddress;
use crate::notice::LogLevel;
use crate::policy::{Policy, PolicyChoice};
use crate::usage;
pub(super) use combined::check_headers_are_copied;
use combined::{bypass, check_mode};

/// Every setting, each of which may be missing.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    /// Queues to serve, one worker each: 0-3, 0:3 or 5 [default: one for each online CPU, from 0]
    #[arg(short, long, value_name = "RANGE")]
    queues: Option<Text<QueueRange>>,
    /// Where workers run: same (the CPU that fills the queue), spare:CPUS, or none [default: same]
    #[arg(long, value_name = "WHERE")]
    placement: Option<Text<PlacementText>>,
    /// The most packets that one receive takes, 1 to 1024 [default: 64]
    #[arg(long, value_name = "PACKETS")]
    batch: Option<usize>,
    /// How much of each packet is copied: full, BYTES or meta [default: full]
    #[arg(long, value_name = "RANGE")]
    copy_range: Option<Text<CopyRangeText>>,
    /// The most packets that wait in one queue, 1 to 65535 [default: 16384]
    #[arg(long, value_name = "PACKETS")]
    queue_maxlen: Option<u32>,
    /// Receive buffer of each queue's socket, such as 64MiB [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    rcvbuf: Option<ByteSize>,
    /// Let packets pass unseen when a queue is full, instead of dropping them: required (the same as true; stops the
    /// start where the kernel refuses it), wanted, or false [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "WISH")]
    fail_open: Option<Text<FlagWish>>,
    /// Take large segmented packets whole: required, wanted or false [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "WISH")]
    gso: Option<Text<FlagWish>>,
    /// Have each packet's connection sent with it: required, wanted or false [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "WISH")]
    conntrack: Option<Text<FlagWish>>,
    /// Have the user and group of local packets sent with them: required, wanted or false [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "WISH")]
    uid_gid: Option<Text<FlagWish>>,
    /// Have the security context of local packets sent with them: required, wanted or false [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "WISH")]
    secctx: Option<Text<FlagWish>>,
    /// What an idle worker does: block, or spin:MICROSECONDS before it blocks [default: block]
    #[arg(long, value_name = "HOW")]
    wait: Option<Text<WaitText>>,
    /// Niceness of the workers, -20 to 19; below 0 they go before what fills their queues [default: -5]
    #[arg(long, value_name = "NICE", allow_negative_numbers = true)]
    nice: Option<i8>,
    /// What happens to packets: accept, drop, drop:PERCENT, or what the rules in FILE.toml say, which are read again on
    /// SIGHUP [default: accept]
    #[arg(long, value_name = "POLICY")]
    policy: Option<Text<PolicyChoice>>,
    /// Write alerts, drops and statistics as EVE JSON lines to a file, opened again on SIGHUP, or to a listening
    /// socket: FILE or unix:PATH [default: nowhere]
    #[arg(long, value_name = "TARGET")]
    eve: Option<Text<EveTarget>>,
    /// Write statistics to it every so many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    eve_stats: Option<f64>,
    /// Where accepted packets go: accept, repeat:MARK/MASK (back to the rules, which want --repeat-mark), or
    /// route:QUEUE (to another queue; also route:QUEUE,bypass,mark=MARK/MASK) [default: accept]
    #[arg(long, value_name = "MODE")]
    mode: Option<Text<Mode>>,
    /// Bypass a flow once a worker has seen so many of its packets: later ones do not come to the queue. Needs
    /// --bypass-mark
    #[arg(long, value_name = "PACKETS")]
    bypass_after: Option<u32>,
    /// The mark of bypassed connections, which the rules must have as well (fanq rules --bypass-mark)
    #[arg(long, value_name = "MARK[/MASK]")]
    bypass_mark: Option<Text<MarkBits>>,
    /// Who marks the connection: the rules, told by the packet mark, or the verdict (ct; not on every kernel)
    /// [default: mark]
    #[arg(long, value_name = "HOW")]
    bypass_by: Option<BypassBy>,
    /// What happens to all that is queued when a queue is overload-depth long: none, accept or drop, unseen and counted
    /// as shed [default: none]
    #[arg(long, value_name = "WHAT")]
    on_overload: Option<OnOverload>,
    /// Packets waiting in a queue that are an overload [default: three quarters of queue-maxlen]
    #[arg(long, value_name = "PACKETS")]
    overload_depth: Option<u32>,
    /// Copy only so much of each packet, BYTES or meta, while a queue is over half of overload-depth [default: as ever]
    #[arg(long, value_name = "RANGE")]
    copy_under_load: Option<Text<CopyRangeText>>,
    /// What packets get that the inspector failed to judge, as it panicked or missed inspect-deadline; counted as
    /// faulted [default: drop]
    #[arg(long, value_name = "WHAT")]
    on_fault: Option<FateOption>,
    /// Seconds within which an inspector must have judged a batch; then its queue gets on-fault until it is back. 0:
    /// nobody looks [default: 1]
    #[arg(long, value_name = "SECONDS")]
    inspect_deadline: Option<f64>,
    /// Panics within a minute after which a queue stays on on-fault, 1 to 1000 [default: 5]
    #[arg(long, value_name = "COUNT")]
    panics_max: Option<u32>,
    /// What packets get that are still queued when drain-limit is over; counted as flushed [default: what the policy
    /// has for packets that it cannot read]
    #[arg(long, value_name = "WHAT")]
    on_exit: Option<FateOption>,
    /// Threads behind each worker that inspect packets, each flow with one of them; 0: the worker does it [default: 0]
    #[arg(long, value_name = "THREADS")]
    inspect_threads: Option<usize>,
    /// CPUs on which these threads may run: 4-7 or 0,2 [default: every CPU that fanq may use]
    #[arg(long, value_name = "CPUS")]
    inspect_cpus: Option<Text<CpuList>>,
    /// Busy time for each packet, 0 to 1000000000 ns, to stand for an inspector's work [default: 0]
    #[arg(long, value_name = "NS")]
    work_ns: Option<u32>,
    /// Take over the queues of the process that listens at this path, and listen there for the next one [default: no]
    #[arg(long, value_name = "PATH")]
    handover: Option<PathBuf>,
    /// What happens to packets that a process had read and not answered when it died: accept or drop [default: as
    /// on-fault]
    #[arg(long, value_name = "WHAT")]
    on_orphan: Option<FateOption>,
    /// Print a table to standard error every so many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    stats: Option<f64>,
    /// How the account is printed at exit [default: text]
    #[arg(long, value_name = "FORMAT")]
    summary: Option<SummaryFormat>,
    /// The most seconds that stopping may take [default: 5]
    #[arg(long, value_name = "SECONDS")]
    drain_limit: Option<f64>,
    /// What is given up once it serves: capabilities, files, system calls. auto: all that this kernel lets; full: all,
    /// or no start; off: nothing [default: auto]
    #[arg(long, value_name = "HOW")]
    confine: Option<Confine>,
    /// Run as this user: a name, or UID:GID [default: whoever starts it]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Where `fanq control` and `fanq top` reach this program: abstract (a name that only this network namespace
    /// sees), the PATH of a socket file, or none [default: abstract]
    #[arg(long, value_name = "WHERE")]
    control: Option<Text<ControlPlace>>,
    /// Serve the numbers to Prometheus at http://ADDRESS/metrics; an address, a port (of 127.0.0.1) or both, such as
    /// 127.0.0.1:9477 [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Text<MetricsAddress>>,
    /// What is said on standard error: quiet (what is wrong), normal or verbose [default: normal]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

/// Options of `fanq run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq run --queues 0-3 --stats 1
  fanq run --config /etc/fanq.toml --policy rules.toml --eve /var/log/eve.json")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    settings: Settings,
    /// A TOML file with the same keys (queues = "0-3"); the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How the account is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SummaryFormat {
    Text,
    Json,
}

/// The settings, complete and checked.
#[derive(Debug)]
pub(crate) struct RunOptions {
    pub(crate) engine: EngineConfig,
    pub(crate) policy: PolicyChoice,
    pub(crate) eve: Option<EveTarget>,
    pub(crate) eve_stats_every: Option<Duration>,
    pub(crate) mode: Mode,
    pub(crate) bypass: Option<Bypass>,
    /// Inspecting threads behind each worker.
    pub(crate) inspect_threads: usize,
    /// Where they may run; everywhere if nothing is said.
    pub(crate) inspect_cpus: Option<CpuList>,
    pub(crate) work_ns: u32,
    pub(crate) handover: Option<PathBuf>,
    pub(crate) on_orphan: Fate,
    pub(crate) stats_every: Option<Duration>,
    pub(crate) summary: SummaryFormat,
    pub(crate) drain_limit: Duration,
    pub(crate) wanted: Wanted,
    pub(crate) control: ControlPlace,
    pub(crate) metrics: Option<MetricsAddress>,
    pub(crate) log_level: LogLevel,
}

impl RunOptions {
    /// Joins the sources and checks every number.
    pub(crate) fn resolve(args: &RunArgs) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Self::from_settings(args.settings.clone().or(file))
    }

    fn from_settings(settings: Settings) -> anyhow::Result<Self> {
        let flags = settings.flag_wishes();
        let queues = match settings.queues {
            Some(Text(queues)) => queues,
            None => one_queue_per_cpu()?,
        };
        let mut engine = EngineConfig::new(queues);
        set(&mut engine.placement, settings.placement.map(|text| text.0.0));
        set(&mut engine.batch, settings.batch);
        set(&mut engine.wait, settings.wait.map(|text| text.0.0));
        set(&mut engine.nice, settings.nice);
        set(&mut engine.queue.copy_range, settings.copy_range.map(|text| text.0.0));
        set(&mut engine.queue.maxlen, settings.queue_maxlen);
        if let Some(size) = settings.rcvbuf {
            engine.queue.rcvbuf = u32::try_from(size.as_u64()).map_err(|_| {
                usage(format!("rcvbuf {size} is too large: a socket takes less than 1GiB"))
            })?;
        }
        engine.queue.flags = flags;
        engine.overload = under_load::overload(
            settings.on_overload,
            settings.overload_depth,
            settings.copy_under_load.map(|text| text.0.0),
            engine.queue.maxlen,
        )?;
        engine.fault =
            on_fault::fault(settings.on_fault, settings.panics_max, settings.inspect_deadline)?;
        engine.on_exit = settings.on_exit.map(Into::into);
        let inspect_threads = settings.inspect_threads.unwrap_or(0);
        engine.deferral = under_load::deferral(inspect_threads, engine.batch)?;
        let inspect_cpus = settings.inspect_cpus.map(|text| text.0);
        under_load::check_cpus(inspect_cpus.as_ref(), inspect_threads, allowed_cpus().as_ref())?;
        engine.check().map_err(usage)?;
        if settings.eve_stats.is_some() && settings.eve.is_none() {
            return Err(usage("eve-stats needs a log to write to: add --eve FILE"));
        }
        let mode = settings.mode.map_or(Mode::Accept, |text| text.0);
        check_mode(mode, queues)?;
        let mark = settings.bypass_mark.map(|text| text.0);
        let bypass = bypass(settings.bypass_after, mark, settings.bypass_by)?;
        if bypass.is_some() {
            check_headers_are_copied(engine.queue.copy_range)?;
        }
        Ok(Self {
            on_orphan: settings.on_orphan.map_or(engine.fault.on_fault, Into::into),
            engine,
            mode,
            bypass,
            policy: settings.policy.map_or(PolicyChoice::Plain(Policy::Accept), |text| text.0),
            eve: settings.eve.map(|text| text.0),
            eve_stats_every: settings.eve_stats.map(|s| seconds("eve-stats", s)).transpose()?,
            inspect_threads,
            inspect_cpus,
            work_ns: work_ns(settings.work_ns.unwrap_or(0))?,
            handover: settings.handover,
            stats_every: settings.stats.map(|s| seconds("stats", s)).transpose()?,
            summary: settings.summary.unwrap_or(SummaryFormat::Text),
            drain_limit: seconds("drain-limit", settings.drain_limit.unwrap_or(DRAIN_SECONDS))?,
            wanted: Wanted {
                confine: settings.confine.unwrap_or_default(),
                user: settings.user,
                lanes: inspect_threads > 0,
            },
            control: settings.control.map_or_else(ControlPlace::default, |text| text.0),
            metrics: settings.metrics.map(|text| text.0),
            log_level: settings.log_level.unwrap_or_default(),
        })
    }
}

impl Settings {
    fn flag_wishes(&self) -> FlagWishes {
        let mut wishes = FlagWishes::default();
        for (flag, setting) in [
            (QueueFlag::FailOpen, &self.fail_open),
            (QueueFlag::Gso, &self.gso),
            (QueueFlag::Conntrack, &self.conntrack),
            (QueueFlag::UidGid, &self.uid_gid),
            (QueueFlag::SecurityContext, &self.secctx),
        ] {
            wishes.set(flag, setting.as_ref().map_or(FlagWish::Off, |wish| wish.0));
        }
        wishes
    }

    /// What is missing here is taken from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            queues: self.queues.or(other.queues),
            placement: self.placement.or(other.placement),
            batch: self.batch.or(other.batch),
            copy_range: self.copy_range.or(other.copy_range),
            queue_maxlen: self.queue_maxlen.or(other.queue_maxlen),
            rcvbuf: self.rcvbuf.or(other.rcvbuf),
            fail_open: self.fail_open.or(other.fail_open),
            gso: self.gso.or(other.gso),
            conntrack: self.conntrack.or(other.conntrack),
            uid_gid: self.uid_gid.or(other.uid_gid),
            secctx: self.secctx.or(other.secctx),
            wait: self.wait.or(other.wait),
            nice: self.nice.or(other.nice),
            policy: self.policy.or(other.policy),
            eve: self.eve.or(other.eve),
            eve_stats: self.eve_stats.or(other.eve_stats),
            mode: self.mode.or(other.mode),
            bypass_after: self.bypass_after.or(other.bypass_after),
            bypass_mark: self.bypass_mark.or(other.bypass_mark),
            bypass_by: self.bypass_by.or(other.bypass_by),
            on_overload: self.on_overload.or(other.on_overload),
            overload_depth: self.overload_depth.or(other.overload_depth),
            copy_under_load: self.copy_under_load.or(other.copy_under_load),
            on_fault: self.on_fault.or(other.on_fault),
            inspect_deadline: self.inspect_deadline.or(other.inspect_deadline),
            panics_max: self.panics_max.or(other.panics_max),
            on_exit: self.on_exit.or(other.on_exit),
            inspect_threads: self.inspect_threads.or(other.inspect_threads),
            inspect_cpus: self.inspect_cpus.or(other.inspect_cpus),
            work_ns: self.work_ns.or(other.work_ns),
            handover: self.handover.or(other.handover),
            on_orphan: self.on_orphan.or(other.on_orphan),
            stats: self.stats.or(other.stats),
            summary: self.summary.or(other.summary),
            drain_limit: self.drain_limit.or(other.drain_limit),
            confine: self.confine.or(other.confine),
            user: self.user.or(other.user),
            control: self.control.or(other.control),
            metrics: self.metrics.or(other.metrics),
            log_level: self.log_level.or(other.log_level),
        }
    }
}

fn work_ns(ns: u32) -> anyhow::Result<u32> {
    if ns > WORK_NS_MAX {
        return Err(usage(format!("work-ns {ns} is too long: at most {WORK_NS_MAX} ns a packet")));
    }
    Ok(ns)
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the configuration file {}", path.display()))?;
    toml::from_str(&text).map_err(|error| usage(format!("{}: {error}", path.display())))
}

fn one_queue_per_cpu() -> anyhow::Result<QueueRange> {
    let online = CpuList::online("/".as_ref()).context("reading the online CPUs")?;
    let last = u16::try_from(online.len().saturating_sub(1)).unwrap_or(u16::MAX);
    QueueRange::new(0, last).map_err(usage)
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn seconds(what: &str, seconds: f64) -> anyhow::Result<Duration> {
    let in_range = (0.01..=86_400.0).contains(&seconds);
    in_range
        .then(|| Duration::from_secs_f64(seconds))
        .ok_or_else(|| usage(format!("{what} {seconds} is out of range: 0.01 to 86400 seconds")))
}

/// A setting with a notation of its own, read the same way from the command line and from a file.
#[derive(Debug, Clone, PartialEq)]
struct Text<T>(T);

impl<T: FromStr> FromStr for Text<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A number is taken for its digits: `queues = 5` means what `--queues 5` means. So are true and false.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Scalar {
            Text(String),
            Number(u64),
            Bool(bool),
        }
        let text = match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Bool(truth) => truth.to_string(),
        };
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct PlacementText(Placement);

impl FromStr for PlacementText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "same" => Ok(Self(Placement::SameCpu)),
            None if text == "none" => Ok(Self(Placement::None)),
            Some(("spare", cpus)) => {
                let cpus = cpus.parse().map_err(|error: fanq::CpuListError| error.to_string())?;
                Ok(Self(Placement::Spare(cpus)))
            }
            _ => Err(format!("`{text}` is no placement: write same, spare:<cpus> or none")),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct CopyRangeText(pub(super) CopyRange);

impl std::fmt::Display for CopyRangeText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            CopyRange::Full => f.write_str("full"),
            CopyRange::Meta => f.write_str("meta"),
            CopyRange::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

impl FromStr for CopyRangeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "full" => Ok(Self(CopyRange::Full)),
            "meta" => Ok(Self(CopyRange::Meta)),
            bytes => match bytes.parse() {
                Ok(bytes @ 1..=CopyRange::BYTES_MAX) => Ok(Self(CopyRange::Bytes(bytes))),
                _ => Err(format!(
                    "`{text}` is no copy range: write full, meta, or 1 to {} bytes",
                    CopyRange::BYTES_MAX
                )),
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct WaitText(Wait);

impl FromStr for WaitText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let micros = text.strip_prefix("spin:").and_then(|micros| micros.parse().ok());
        match (text, micros) {
            ("block", _) => Ok(Self(Wait::Block)),
            (_, Some(micros)) => Ok(Self(Wait::Spin(Duration::from_micros(micros)))),
            _ => Err(format!("`{text}` is no way to wait: write block or spin:<microseconds>")),
        }
    }
}

/// A second.
const WORK_NS_MAX: u32 = 1_000_000_000;

/// Long enough for a full queue at a slow inspector, short enough for a service manager's patience.
const DRAIN_SECONDS: f64 = 5.0;

#[cfg(test)]
mod tests;
