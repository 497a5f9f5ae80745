//! `fanq rules`: shows, installs and removes the rule that sends packets to the queues.
//!
//! Invariant: installing again and removing lose no packet that waits in a queue, `print` changes
//! nothing, and after a failed install all is as it was. What the two backends have to do for that
//! is in `nft` and `iptables`.
//!
//! One loss is not prevented: conntrack unhooks itself when the last rule that uses it goes, and
//! that empties the queues. To install a rule without conntrack over one that had it, by
//! `--bypass-mark` or in its `--match`, does just that; to wait for the queues first would mean to let packets pass
//! uninspected.

mod backend;
mod command;
mod installed;
mod iptables;
mod nft;
mod remove;
mod show;
mod spec;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanq::{CpuList, QueueRange};

use crate::usage;
use backend::{Backend, Choice, Neither};
use iptables::Flavour;
use spec::{
    Family, Hook, IfaceName, Marks, Matches, PortSet, Proto, RawMatch, RuleSpec, TableName,
};

/// Options of `fanq rules`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq rules install --hook forward --queues 0-3 --fanout --bypass
  fanq rules show")]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what install would do, and change nothing.
    #[command(after_help = "Examples:
  fanq rules print --queues 0-3 --fanout
  fanq rules print --backend iptables --hook input --queues 0-3 --proto tcp --dport 80,443")]
    Print(RuleArgs),
    /// Put the rule in place. If one of this name is there, it is replaced.
    #[command(after_help = "Examples:
  fanq rules install --hook forward --queues 0-3 --fanout --bypass
  fanq rules install --queues 0-3 --fanout --reject-mark 0x10/0x30 --bypass-mark 0x20/0x30")]
    Install(RuleArgs),
    /// Show what is installed, with the packets that each rule has counted.
    #[command(after_help = "Examples:
  fanq rules show
  fanq rules show --backend nft")]
    Show(show::ShowArgs),
    /// Take the rule out, wait until the queues are empty, and delete what install made.
    #[command(after_help = "Examples:
  fanq rules remove
  fanq rules remove --drain-limit 10")]
    Remove(remove::RemoveArgs),
}

/// Who applies the rule, and under which name.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// What applies the rule; auto takes the first that this kernel accepts, nft before iptables
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
    /// Name of the nft table, or of the iptables chain
    #[arg(long, value_name = "NAME", default_value = TableName::DEFAULT)]
    table: TableName,
}

#[derive(Debug, Args)]
struct RuleArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Which versions of IP
    #[arg(long, value_enum, default_value = "both")]
    family: Family,
    /// Where in the packet's way the rule stands
    #[arg(long, value_enum, default_value = "forward")]
    hook: Hook,
    /// Queues to fill: 0-3, 0:3 or 5 [default: one for each online CPU, from 0]
    #[arg(short, long, value_name = "RANGE")]
    queues: Option<QueueRange>,
    /// Choose the queue by CPU; without this, by a hash of the addresses
    #[arg(long)]
    fanout: bool,
    /// Let packets pass unseen while no program serves their queue; without this they are dropped
    #[arg(long)]
    bypass: bool,
    /// Only packets that came in here
    #[arg(long, value_name = "NAME")]
    in_iface: Option<IfaceName>,
    /// Only packets that go out here
    #[arg(long, value_name = "NAME")]
    out_iface: Option<IfaceName>,
    /// Only this protocol: tcp, udp, icmp, icmpv6, sctp or a number
    #[arg(long, value_name = "PROTOCOL")]
    proto: Option<Proto>,
    /// Only these source ports: 53, 1000-2000 or 53,80,8000-8080
    #[arg(long, value_name = "PORTS")]
    sport: Option<PortSet>,
    /// Only these destination ports: 53, 1000-2000 or 53,80,8000-8080
    #[arg(long, value_name = "PORTS")]
    dport: Option<PortSet>,
    /// Only what this matches, in the backend's own syntax (iptables: without quotes)
    #[arg(long = "match", value_name = "TEXT", allow_hyphen_values = true)]
    raw: Option<RawMatch>,
    #[command(flatten)]
    marks: Marks,
}

impl RuleArgs {
    fn spec(&self) -> anyhow::Result<RuleSpec> {
        if let Some(raw) = &self.raw {
            match self.place.backend {
                Backend::Auto => {
                    bail!(usage(
                        "--match is in one backend's syntax: add --backend nft or iptables"
                    ))
                }
                Backend::Iptables if raw.as_str().contains(['"', '\'']) => {
                    bail!(usage("--match is split at white space for iptables: it holds no quotes"))
                }
                Backend::Nft | Backend::Iptables => {}
            }
        }
        if self.marks.reject.is_some() && self.hook == Hook::Prerouting {
            self.place.backend.check_reject_in_prerouting()?;
        }
        let spec = RuleSpec {
            table: self.place.table.clone(),
            family: self.family,
            hook: self.hook,
            queues: self.queues.map_or_else(one_queue_per_cpu, Ok)?,
            fanout: self.fanout,
            bypass: self.bypass,
            matches: Matches {
                in_iface: self.in_iface.clone(),
                out_iface: self.out_iface.clone(),
                proto: self.proto,
                sport: self.sport.clone(),
                dport: self.dport.clone(),
                raw: self.raw.clone(),
            },
            marks: self.marks,
        };
        spec.check()?;
        Ok(spec)
    }
}

fn one_queue_per_cpu() -> anyhow::Result<QueueRange> {
    let online = CpuList::online("/".as_ref())
        .context("reading which CPUs are online; say which queues with --queues 0-3")?;
    let last = u16::try_from(online.len().saturating_sub(1)).unwrap_or(u16::MAX);
    QueueRange::new(0, last).map_err(usage)
}

/// Does what the command line says.
pub(crate) fn run(args: &RulesArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Print(rule) => print(rule),
        Action::Install(rule) => install(rule),
        Action::Show(args) => show::show(args),
        Action::Remove(args) => remove::remove(args),
    }
}

fn print(args: &RuleArgs) -> anyhow::Result<()> {
    let spec = args.spec()?;
    let as_asked = || "as asked for; not tried".to_owned();
    let (flavour, why) = match args.place.backend {
        Backend::Nft => (None, as_asked()),
        Backend::Iptables => (Some(Flavour::usual()), as_asked()),
        Backend::Auto => match backend::choose(&spec) {
            Ok(Choice::Nft) => (None, "this kernel accepts it".to_owned()),
            Ok(Choice::Iptables(flavour, nft)) => (
                Some(flavour),
                format!("this kernel accepts it, and nft does not take the rule here: {nft}"),
            ),
            Err(Neither { nft, iptables }) => (
                None,
                format!("what this kernel accepts is not known. nft: {nft}; iptables: {iptables}"),
            ),
        },
    };
    let (name, title, loader, text) = match flavour {
        None => ("nft", nft::title(&spec), "nft -f FILE", nft::file(&spec)),
        Some(flavour) => {
            let script = iptables::script(&spec, flavour);
            ("iptables", iptables::title(&spec), "sh FILE", script)
        }
    };
    print!("# backend {name}: {why}\n# {title}, {spec}; to load it: {loader}\n{text}");
    Ok(())
}

fn install(args: &RuleArgs) -> anyhow::Result<()> {
    let spec = args.spec()?;
    match args.place.backend {
        Backend::Nft => {
            backend::ask_nft(&spec)?;
            install_with_nft(&spec)
        }
        Backend::Iptables => install_with_iptables(&spec, backend::ask_iptables(&spec)?),
        Backend::Auto => match backend::choose(&spec)? {
            Choice::Nft => install_with_nft(&spec),
            Choice::Iptables(flavour, nft) => {
                eprintln!("note: by iptables, since nft does not take the rule here: {nft}");
                install_with_iptables(&spec, flavour)
            }
        },
    }
}

fn install_with_nft(spec: &RuleSpec) -> anyhow::Result<()> {
    let present = nft::find(&spec.table)?;
    // Without iptables there is nothing of iptables' in the way.
    refuse_both(iptables::find(&spec.table).unwrap_or_default().first(), "iptables", spec)?;
    nft::install(spec, &present)
        .with_context(|| format!("{} is not installed, nothing has changed", nft::title(spec)))?;
    eprintln!("installed: {}, {spec}", nft::title(spec));
    Ok(())
}

fn install_with_iptables(spec: &RuleSpec, flavour: Flavour) -> anyhow::Result<()> {
    refuse_both(nft::find(&spec.table).unwrap_or_default().first(), "nft", spec)?;
    iptables::install(spec, flavour)
        .with_context(|| format!("installing {}", iptables::title(spec)))?;
    eprintln!("installed: {}, {spec}", iptables::title(spec));
    Ok(())
}

/// With a rule of each backend, every packet would be queued twice.
fn refuse_both<T: std::fmt::Display>(
    other: Option<&T>,
    backend: &str,
    spec: &RuleSpec,
) -> anyhow::Result<()> {
    let Some(other) = other else { return Ok(()) };
    bail!(
        "{other} is installed already, and packets would be queued twice. First remove it: \
         fanq rules remove --backend {backend}{}",
        spec.table.as_option()
    )
}
