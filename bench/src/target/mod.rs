//! What is measured: nothing, a rule of the kernel's own, or a program that serves the queues.
//!
//! Invariant: a target's processes end with its trial, also when the trial fails, and its CPU time is taken from
//! outside, the same way for all.

pub(crate) mod account;
mod peers;
mod process;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use fanq::{CpuId, QueueRange};

pub(crate) use process::Running;

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As given, or the name that it was given.
    pub(crate) name: String,
    kind: Kind,
    /// How many queues it serves; none for as many as there are.
    queues: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// No rule.
    None,
    /// A rule that counts and accepts.
    Kernel,
    /// `fanq run`, with more options.
    Fanq(Vec<String>),
    /// One of the programs that `scripts/peers.sh` builds.
    Peer(String),
    /// Any of the two below, under `fanq accel`.
    Accelerated(Box<Kind>),
    /// A command with `{queues}`, `{first}`, `{last}` in it.
    Exec(Vec<String>),
}

/// What every target is given.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) queues: QueueRange,
    /// The CPUs that fill the queues, in order of the queues.
    pub(crate) cpus: Vec<CpuId>,
    pub(crate) maxlen: u32,
    pub(crate) rcvbuf: usize,
}

impl std::str::FromStr for Target {
    type Err = String;

    /// `SPEC`, or `NAME=SPEC` to give it a name of one's own.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, spec) =
            text.split_once('=').filter(|(name, _)| is_name(name)).unwrap_or((text, text));
        let kind = Kind::parse(spec)?;
        Ok(Self { name: name.to_owned(), kind, queues: None })
    }
}

impl Kind {
    fn parse(spec: &str) -> Result<Self, String> {
        let words =
            |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Ok(match spec.split_once(':').unwrap_or((spec, "")) {
            ("none", "") => Self::None,
            ("kernel", "") => Self::Kernel,
            ("fanq", options) => Self::Fanq(words(options)),
            ("accel", program) => match Self::parse(program)? {
                kind @ (Self::Peer(_) | Self::Exec(_)) => Self::Accelerated(Box::new(kind)),
                _ => {
                    return Err("accel: goes before a peer or exec:, as accel:libnetfilter_queue"
                        .to_owned());
                }
            },
            ("exec", command) if !command.contains('{') => {
                return Err(
                    "the command after exec: must say where the queues go: {queues} (0-3), or \
                            {first} and {last}"
                        .to_owned(),
                );
            }
            ("exec", command) => Self::Exec(words(command)),
            (peer, "") if peers::names().any(|name| name == peer) => Self::Peer(peer.to_owned()),
            _ => {
                return Err(format!(
                    "no target {spec:?}; there are none, kernel, fanq, fanq:OPTIONS, {}, exec:COMMAND, and \
                     accel: before the last of these",
                    peers::names().collect::<Vec<_>>().join(", ")
                ));
            }
        })
    }

    /// The command that serves the queues; none where the kernel does it alone.
    fn command(&self, service: &Service) -> anyhow::Result<Option<Vec<OsString>>> {
        let Service { queues, cpus, maxlen, rcvbuf } = service;
        let command = match self {
            Self::None | Self::Kernel => return Ok(None),
            Self::Fanq(options) => fanq(options, service)?,
            Self::Peer(name) => peers::command(name, *queues, cpus, *maxlen, *rcvbuf)?,
            Self::Accelerated(program) => {
                let mut command = vec![beside_this_program("fanq")?.into_os_string()];
                command.extend(["accel", "--"].map(OsString::from));
                command.extend(program.command(service)?.unwrap_or_default());
                command
            }
            Self::Exec(words) => words
                .iter()
                .map(|word| {
                    word.replace("{queues}", &queues.to_string())
                        .replace("{first}", &queues.first().to_string())
                        .replace("{last}", &queues.last().to_string())
                        .into()
                })
                .collect(),
        };
        Ok(Some(command))
    }
}

/// The command of `fanq run`, with these options more.
fn fanq(options: &[String], service: &Service) -> anyhow::Result<Vec<OsString>> {
    let mut command = vec![beside_this_program("fanq")?.into_os_string()];
    command.push(OsString::from("run"));
    let maxlen = service.maxlen.to_string();
    let rcvbuf = service.rcvbuf.to_string();
    let queues = service.queues.to_string();
    let ours = [
        ("--queues", queues.as_str()),
        ("--queue-maxlen", &maxlen),
        ("--rcvbuf", &rcvbuf),
        ("--summary", "json"),
    ];
    // What the options say themselves is theirs.
    for (option, value) in ours {
        if !options.iter().any(|word| word.split('=').next() == Some(option)) {
            command.extend([option, value].map(OsString::from));
        }
    }
    command.extend(options.iter().map(OsString::from));
    Ok(command)
}

impl Target {
    /// The same target once more, to see how far a thing differs from itself.
    pub(crate) fn again(&self) -> Self {
        Self { name: format!("{} (again)", self.name), ..self.clone() }
    }

    /// The same target with so many queues, which its name says.
    pub(crate) fn on_queues(&self, count: u16) -> Self {
        let queues = if count == 1 { "queue" } else { "queues" };
        let name = format!("{} on {count} {queues}", self.name);
        Self { name, queues: Some(count), ..self.clone() }
    }

    /// What it is given where others are given `all`: the first queues of it, if it takes fewer. Packets of CPUs
    /// behind the last queue's come into the first ones again, as the kernel's fanout counts.
    pub(crate) fn service(&self, all: &Service) -> anyhow::Result<Service> {
        let Some(count) = self.queues else { return Ok(all.clone()) };
        let (first, last) = (all.queues.first(), all.queues.last());
        let most = u32::from(last - first) + 1;
        ensure!(
            (1..=most).contains(&u32::from(count)),
            "{}: the lab's load fills {most} queues; give 1 to {most}",
            self.name
        );
        let queues = QueueRange::new(first, first + (count - 1))?;
        let cpus = all.cpus.iter().copied().take(count.into()).collect();
        Ok(Service { queues, cpus, ..all.clone() })
    }

    /// Whether its packets go through queues.
    pub(crate) fn is_program(&self) -> bool {
        !matches!(self.kind, Kind::None | Kind::Kernel)
    }

    /// Whether there is a rule at all.
    pub(crate) fn has_rule(&self) -> bool {
        self.kind != Kind::None
    }

    /// The mark of the flows that it bypasses, as its options have it: its rules must know it.
    pub(crate) fn bypass_mark(&self) -> Option<&str> {
        self.option("--bypass-mark")
    }

    /// Whether the calls that it counts reach the kernel as such: those of an accelerated program end in the library.
    pub(crate) fn makes_the_calls_it_counts(&self) -> bool {
        !matches!(self.kind, Kind::Accelerated(_))
    }

    /// Whether its options have it drop the packets that are too many.
    pub(crate) fn drops_what_it_sheds(&self) -> bool {
        self.option("--on-overload") == Some("drop")
    }

    /// The value of an option of ours.
    fn option(&self, name: &str) -> Option<&str> {
        let Kind::Fanq(options) = &self.kind else { return None };
        let is_it = |word: &String| word.split('=').next() == Some(name);
        let at = options.iter().position(is_it)?;
        match options[at].split_once('=') {
            Some((_, mark)) => Some(mark),
            None => options.get(at + 1).map(String::as_str),
        }
    }

    /// The command that serves the queues; none where the kernel does it alone.
    pub(crate) fn command(&self, service: &Service) -> anyhow::Result<Option<Vec<OsString>>> {
        self.kind.command(service)
    }
}

/// What may stand before the `=`: no part of a target itself.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// A program of ours, where this one lies.
fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("where this program lies")?.with_file_name(name);
    if !path.exists() {
        anyhow::bail!("there is no {name} beside this program; build it: cargo build --release");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_as_the_help_says() {
        for name in
            ["none", "kernel", "fanq", "fanq:--nice 0 --batch 32", "exec:my-ips -q {queues}"]
                .into_iter()
                .chain(["accel:libnetfilter_queue", "accel:exec:my-ips -q {queues}"])
        {
            let target: Target = name.parse().unwrap();
            assert_eq!(target.name, name);
            assert_eq!(target.makes_the_calls_it_counts(), !name.starts_with("accel:"), "{name}");
        }
        for name in [
            "",
            "nothing",
            "none:1",
            "exec:",
            "exec:my-ips 0-3",
            "accel:",
            "accel:fanq",
            "accel:accel:limit",
        ] {
            assert!(name.parse::<Target>().is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn a_target_may_have_a_name_of_its_own() {
        let named: Target = "mine=exec:my-ips --set a=b {queues}".parse().unwrap();
        assert_eq!(named.name, "mine");
        assert_eq!(named.kind, "exec:my-ips --set a=b {queues}".parse::<Target>().unwrap().kind);
        let limit: Target = "limit".parse().unwrap();
        assert_eq!(limit.again().kind, limit.kind);
        assert_ne!(limit.again().name, limit.name);
        assert_eq!("fanq:--rcvbuf=1MiB".parse::<Target>().unwrap().name, "fanq:--rcvbuf=1MiB");
    }

    #[test]
    fn the_mark_of_a_bypass_is_found() {
        for (target, mark) in [
            ("fanq:--bypass-after 10 --bypass-mark 0x1", Some("0x1")),
            ("fanq:--bypass-mark=0x1/0x3 --gso", Some("0x1/0x3")),
            ("fanq:--bypass-mark", None),
            ("fanq:--gso", None),
            ("none", None),
        ] {
            assert_eq!(target.parse::<Target>().unwrap().bypass_mark(), mark, "{target}");
        }
        for (target, drops) in [
            ("fanq:--on-overload drop", true),
            ("fanq:--on-overload=accept", false),
            ("exec:other {queues} --on-overload drop", false),
        ] {
            assert_eq!(target.parse::<Target>().unwrap().drops_what_it_sheds(), drops, "{target}");
        }
    }

    #[test]
    fn a_target_may_take_fewer_queues_than_there_are() {
        let all = Service {
            queues: "4-7".parse().unwrap(),
            cpus: (0..4).map(CpuId).collect(),
            maxlen: 1024,
            rcvbuf: 1 << 20,
        };
        let target: Target = "limit".parse().unwrap();
        assert_eq!(target.service(&all).unwrap().queues, all.queues);
        let two = target.on_queues(2);
        assert_eq!(two.name, "limit on 2 queues");
        let service = two.service(&all).unwrap();
        assert_eq!((service.queues, service.cpus.len()), ("4-5".parse().unwrap(), 2));
        let error = target.on_queues(5).service(&all).unwrap_err().to_string();
        assert!(error.contains("on 5 queues") && error.contains("1 to 4"), "{error}");
    }

    #[test]
    fn a_command_gets_the_queues_in_its_own_way() {
        let service = Service {
            queues: "2-5".parse().unwrap(),
            cpus: vec![CpuId(2), CpuId(3)],
            maxlen: 1024,
            rcvbuf: 1 << 20,
        };
        let target: Target = "exec:my-ips -q {first}:{last} --name x{queues}".parse().unwrap();
        let command = target.command(&service).unwrap().unwrap();
        assert_eq!(command, ["my-ips", "-q", "2:5", "--name", "x2-5"]);
        let fanq: Target = "fanq:--rcvbuf 1MiB --batch=8".parse().unwrap();
        if let Ok(Some(command)) = fanq.command(&service) {
            let words: Vec<_> = command[1..].iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(words.iter().filter(|word| **word == "--rcvbuf").count(), 1);
            assert!(words.contains(&"--queue-maxlen".into()));
        }
        assert_eq!("kernel".parse::<Target>().unwrap().command(&service).unwrap(), None);
    }
}
