//! The lab as the code that measures in it sees it.
//!
//! Invariant: this process' main thread is in the engine's namespace and stays there; work elsewhere happens on a
//! thread, or in a process, of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use fanq::CpuId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::plan::{self, Pair, Place};
use super::programs::program;
use super::shape::{Offloads, Shape};
use crate::result::{Hook, LabSetting};

/// Ends this process on SIGINT, SIGTERM and SIGHUP as long as the flag is set. As the first process of its process
/// namespace it would be spared by them.
pub(super) fn end_on_signal(ends: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(ends))
            .context("handling signals")?;
    }
    Ok(())
}

/// A lab that is there, seen from its engine's namespace.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) shape: Shape,
    /// In the order of their load CPUs.
    pub(crate) pairs: Vec<Pair>,
    pub(crate) load_cpus: Vec<CpuId>,
    pub(crate) queue_cpus: Vec<CpuId>,
    /// Whether only a user namespace makes this process look like root.
    pub(crate) user_namespace: bool,
    /// Whether signals still end this process at once.
    ends_on_signal: Arc<AtomicBool>,
}

impl Lab {
    /// What was built for `shape` in the network namespace of the calling thread.
    pub(super) fn assemble(shape: Shape) -> anyhow::Result<Self> {
        let cpus = |numbers: &[u16]| numbers.iter().copied().map(CpuId).collect();
        Ok(Self {
            pairs: (0..shape.pairs)
                .map(|number| with_index(Pair::plan(number, shape.hook)))
                .collect::<Result<_, _>>()?,
            load_cpus: cpus(&shape.load_cpus),
            queue_cpus: cpus(&shape.queue_cpus),
            user_namespace: in_user_namespace(),
            ends_on_signal: Arc::new(AtomicBool::new(true)),
            shape,
        })
    }

    /// Ends this process on SIGINT, SIGTERM and SIGHUP until [`take_signals`](Self::take_signals).
    pub(super) fn end_on_signal(&self) -> anyhow::Result<()> {
        end_on_signal(&self.ends_on_signal)
    }

    /// From here on the caller handles SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn take_signals(&self) {
        self.ends_on_signal.store(false, Ordering::SeqCst);
    }

    /// Does the work on a new thread in that namespace. Sockets made there stay there, whoever uses them.
    pub(crate) fn in_namespace<T: Send>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send,
    ) -> anyhow::Result<T> {
        self.ensure_has(place)?;
        place.visit(work)
    }

    /// That namespace, for a thread that enters it by itself.
    pub(crate) fn namespace(&self, place: Place) -> anyhow::Result<File> {
        self.ensure_has(place)?;
        place.open()
    }

    /// A command that runs the words in that namespace. It ends with this process at the latest, and so does all
    /// that it starts.
    pub(crate) fn command(
        &self,
        place: Place,
        words: &[impl AsRef<OsStr>],
    ) -> anyhow::Result<Command> {
        self.ensure_has(place)?;
        let (first, rest) = words.split_first().context("no command was given")?;
        if place == Place::Engine {
            let mut command = program(&first.as_ref().to_string_lossy());
            command.args(rest);
            return Ok(command);
        }
        let mut command = program("nsenter");
        command.arg(format!("--net={}", place.file())).arg("--").arg(first).args(rest);
        Ok(command)
    }

    /// Where the load goes to.
    pub(crate) fn destination(&self) -> Place {
        match self.shape.hook {
            Hook::Forward => Place::Server,
            Hook::Input => Place::Engine,
        }
    }

    /// What the result document says of it.
    pub(crate) fn setting(&self, queues: String) -> LabSetting {
        LabSetting {
            hook: self.shape.hook,
            topology: self.shape.topology,
            pairs: self.shape.pairs,
            offloads: self.shape.offloads == Offloads::On,
            queues,
            load_cpus: self.shape.load_cpus.clone(),
            queue_cpus: self.shape.queue_cpus.clone(),
            user_namespace: self.user_namespace,
        }
    }

    /// Packets that the lab's devices have dropped since it was built, each counted once.
    ///
    /// A packet that the receiving end has no room for, or does not take, is counted by both ends
    /// (`drivers/net/veth.c: veth_xmit`, `net/core/dev.c: enqueue_to_backlog`); a frame made at the receiving end
    /// only there. So for each direction the higher of the two counts holds, which is exact as long as not both
    /// kinds occur beside drops at the sender alone.
    pub(crate) fn device_drops(&self) -> anyhow::Result<u64> {
        let mut places = BTreeMap::new();
        for &place in Place::all(self.shape.hook) {
            let path = "/proc/thread-self/net/dev";
            let text = self.in_namespace(place, || fs::read_to_string(path))?;
            places.insert(place.name(), drops_by_device(&text.context(path)?));
        }
        let drops = |place: Place, device: &str| {
            let known = places.get(place.name()).and_then(|devices| devices.get(device));
            known.copied().with_context(|| format!("{device} is gone from the lab"))
        };
        let mut total = 0;
        for link in plan::links(&self.shape) {
            let engine = drops(Place::Engine, &link.engine_device())?;
            let other = drops(link.other_place, &link.other_device())?;
            total += engine.received.max(other.sent) + other.received.max(engine.sent);
        }
        Ok(total)
    }

    /// Packets that have come to the devices where the load goes, whatever they are, since the lab was built.
    pub(crate) fn arrived_at_far_end(&self) -> anyhow::Result<u64> {
        let path = "/proc/thread-self/net/dev";
        let text = self.in_namespace(self.destination(), || fs::read_to_string(path))?;
        let arrived = arrived_by_device(&text.context(path)?);
        let far = plan::links(&self.shape).into_iter();
        let far = far.filter(|link| link.other_place == self.destination());
        far.map(|link| {
            let device = link.other_device();
            let known = arrived.get(&device).copied();
            known.with_context(|| format!("{device} is gone from the lab"))
        })
        .sum()
    }

    fn ensure_has(&self, place: Place) -> anyhow::Result<()> {
        if place == Place::Server && self.shape.hook == Hook::Input {
            anyhow::bail!("with the input hook the lab has no server: take client or engine");
        }
        Ok(())
    }
}

impl Place {
    /// The file that stands for the namespace, inside the lab.
    pub(super) fn file(self) -> String {
        match self {
            Self::Engine => "/proc/self/ns/net".to_owned(),
            Self::Client | Self::Server => format!("/run/netns/{}", self.name()),
        }
    }

    fn open(self) -> anyhow::Result<File> {
        let path = self.file();
        File::open(&path).with_context(|| format!("opening {path}"))
    }

    /// Does the work on a new thread in the namespace.
    pub(super) fn visit<T: Send>(self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            let visit = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering the {}'s namespace", self.name()))?;
                Ok(work())
            });
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drops {
    received: u64,
    sent: u64,
}

/// From /proc/net/dev: eight columns for receiving and eight for sending, the fourth of each are drops.
fn drops_by_device(text: &str) -> BTreeMap<String, Drops> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let number = |index| numbers.split_ascii_whitespace().nth(index)?.parse().ok();
        Some((name.trim().to_owned(), Drops { received: number(3)?, sent: number(11)? }))
    };
    text.lines().filter_map(parse).collect()
}

/// From /proc/net/dev: the second column are packets received.
fn arrived_by_device(text: &str) -> BTreeMap<String, u64> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let packets = numbers.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((name.trim().to_owned(), packets))
    };
    text.lines().filter_map(parse).collect()
}

fn with_index(mut pair: Pair) -> anyhow::Result<Pair> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("opening a socket")?;
    pair.engine_index = netdevice::name_to_index(any, &pair.engine_device)
        .with_context(|| format!("{} is not in the lab", pair.engine_device))?;
    Ok(pair)
}

/// Every user of the machine maps to itself in the first user namespace, and in no other that somebody else than
/// root could make (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_ascii_whitespace();
    !(fields.next() == Some("0")
        && fields.next() == Some("0")
        && fields.next() == Some("4294967295"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_the_fourth_column_of_each_half() {
        let text = "Inter-|   Receive   |  Transmit\n face |bytes packets errs drop\n\
                    engine0:   10  2  3  4  5  6  7  8  90  10  11  12  13  14  15  16\n  lo: 0\n";
        let drops = drops_by_device(text);
        assert_eq!(drops.len(), 1);
        assert_eq!(drops["engine0"], Drops { received: 4, sent: 12 });
        assert_eq!(arrived_by_device(text)["engine0"], 2);
    }
}
