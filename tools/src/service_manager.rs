//! What systemd, or whatever starts services in its way, is told and keeps: readiness, the watchdog, and the queues'
//! sockets (sd_notify(3), sd_listen_fds(3)).
//!
//! ```text
//!   start   LISTEN_FDS, LISTEN_FDNAMES=fanq-queue-0:fanq-queue-1   what it kept for us
//!   bound   FDSTORE=1 FDNAME=fanq-queue-0 FDPOLL=0                 what it is to keep
//!   end     FDSTOREREMOVE=1 FDNAME=fanq-queue-0                    the queue is to go, with our own descriptor
//! ```
//!
//! What is sent for its store is not answered. That there is one is believed on its own word: `FDSTORE`, the number of
//! descriptors that it keeps (systemd sets it from version 254 on; a unit can for an older one), or by descriptors that
//! came back. Else an end is an end: queues are drained, not left to nobody.
//!
//! Invariant: it hears that all is well only while every worker goes on, not just the thread that says so. Without
//! `NOTIFY_SOCKET` nothing is sent, and without `LISTEN_FDS` for this very process nothing is taken. What cannot be
//! sent is said once and changes nothing else.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use fanq::{BoundQueue, QueueRange, inherited_descriptor};
use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    present: bool,
    /// How many descriptors it says to keep.
    room: usize,
    /// How often to look whether all is well, if it wants to hear of it.
    pub(crate) watchdog: Option<Duration>,
    /// Queues whose sockets it keeps.
    kept: Vec<u16>,
    /// Whether the last that it heard is that all is not well.
    ailing: bool,
    complained: bool,
}

impl ServiceManager {
    /// Looks for one in the environment.
    pub(crate) fn find() -> Self {
        // It advises half of the time that it allows. Twice as often, so that a worker which is at one batch for as
        // long as that, and then goes on, costs one word and not the process.
        let watchdog = sd_notify::watchdog_enabled().map(|allowed| allowed / 4);
        let present = env::var_os("NOTIFY_SOCKET").is_some();
        let room = room(env::var("FDSTORE").ok().as_deref());
        Self { present, room, watchdog, kept: Vec::new(), ailing: false, complained: false }
    }

    /// Takes back the sockets of these queues that were kept. What else was kept is closed, and no longer kept.
    pub(crate) fn take_back(&mut self, range: QueueRange) -> Vec<BoundQueue> {
        let mut queues: Vec<BoundQueue> = Vec::new();
        for (name, descriptor) in inherited() {
            match take_back_one(&name, descriptor, range) {
                Ok(queue) if queues.iter().any(|other| other.queue() == queue.queue()) => {}
                Ok(queue) => queues.push(queue),
                Err(reason) => {
                    eprintln!(
                        "warning: a descriptor that was kept as `{name}` is not used: {reason}"
                    );
                    self.say(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)], None);
                }
            }
        }
        self.kept = queues.iter().map(BoundQueue::queue).collect();
        if !queues.is_empty() {
            // It may say nothing, and it does keep them.
            self.room = self.room.max(usize::from(range.count()));
        }
        queues
    }

    /// Has the sockets kept, so that the queues outlive this process.
    pub(crate) fn keep(&mut self, queues: &[BoundQueue]) {
        for queue in queues {
            let name = name_of(queue.queue());
            // FDPOLL: an error that is pending on a netlink socket is no reason to let go of it.
            let state =
                [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
            if self.say(&state, Some(queue)) && !self.kept.contains(&queue.queue()) {
                self.kept.push(queue.queue());
            }
        }
    }

    /// Whether the queues outlive this process.
    pub(crate) fn keeps(&self) -> bool {
        !self.kept.is_empty() && self.kept.len() <= self.room
    }

    /// Has the sockets let go, so that the queues end with this process.
    pub(crate) fn let_go(&mut self) {
        for queue in std::mem::take(&mut self.kept) {
            let name = name_of(queue);
            self.say(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)], None);
        }
    }

    /// Every queue is served.
    pub(crate) fn ready(&mut self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(status)], None);
    }

    /// The end has begun.
    pub(crate) fn stopping(&mut self) {
        self.say(&[NotifyState::Stopping], None);
    }

    /// All is well, unless there are queues whose workers do not go on: then it hears that, and, if it goes on for as
    /// long as it allows, ends this process.
    pub(crate) fn alive(&mut self, silent: &[u16]) {
        if silent.is_empty() {
            if std::mem::take(&mut self.ailing) {
                self.say(&[NotifyState::Status("every worker goes on again")], None);
            }
            self.say(&[NotifyState::Watchdog], None);
            return;
        }
        self.ailing = true;
        let queues = silent.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let status = format!("no sign of life from the workers of these queues: {queues}");
        self.say(&[NotifyState::Status(&status)], None);
    }

    /// Sends, and returns whether that went well.
    fn say(&mut self, state: &[NotifyState<'_>], queue: Option<&BoundQueue>) -> bool {
        if !self.present {
            return false;
        }
        let result = match queue {
            Some(queue) => sd_notify::notify_with_fds(state, &[queue.as_fd()]),
            None => sd_notify::notify(state),
        };
        if let Err(error) = &result
            && !std::mem::replace(&mut self.complained, true)
        {
            eprintln!("warning: the service manager at NOTIFY_SOCKET cannot be told: {error}");
        }
        result.is_ok()
    }
}

/// How many descriptors are kept, by what `FDSTORE` says: none where it says nothing (systemd.exec(5)).
fn room(said: Option<&str>) -> usize {
    said.and_then(|said| said.parse().ok()).unwrap_or(0)
}

/// A descriptor for what it is kept as, or why it is not.
fn take_back_one(name: &str, descriptor: OwnedFd, range: QueueRange) -> Result<BoundQueue, String> {
    let queue = queue_of(name)
        .ok_or_else(|| "it is none of a queue's, which are named fanq-queue-N".to_owned())?;
    if !(range.first()..=range.last()).contains(&queue) {
        return Err(format!(
            "the queues to be served are {range}; what waits in queue {queue} is dropped"
        ));
    }
    BoundQueue::check(queue, descriptor).map_err(|error| error.to_string())
}

/// The descriptors that are meant for this process, with their names. (The crate's own function makes them close on
/// exec and leaves the number's owner to the caller; here both are one step.)
fn inherited() -> Vec<(String, OwnedFd)> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
        return Vec::new();
    };
    if pid != std::process::id() {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat("unknown".to_owned()));
    let numbers = FIRST_DESCRIPTOR..FIRST_DESCRIPTOR.saturating_add_unsigned(count.min(COUNT_MAX));
    let taken = names.zip(numbers).filter_map(|(name, number)| {
        let descriptor = inherited_descriptor(number).inspect_err(|error| {
            eprintln!("warning: descriptor {number}, kept as `{name}`, cannot be taken: {error}");
        });
        Some((name, descriptor.ok()?))
    });
    taken.collect()
}

fn name_of(queue: u16) -> String {
    format!("{NAME}{queue}")
}

fn queue_of(name: &str) -> Option<u16> {
    name.strip_prefix(NAME)?.parse().ok()
}

const NAME: &str = "fanq-queue-";

/// `SD_LISTEN_FDS_START`
const FIRST_DESCRIPTOR: i32 = 3;

/// More queues than that there are not.
const COUNT_MAX: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_believed_in_on_its_own_word() {
        let told = |said: Option<&str>, kept: Vec<u16>| ServiceManager {
            present: true,
            room: room(said),
            watchdog: None,
            kept,
            ailing: false,
            complained: false,
        };
        for (said, kept, keeps) in [
            (Some("1024"), vec![8, 9], true),
            (Some("2"), vec![8, 9], true),
            (Some("1"), vec![8, 9], false),
            (Some("0"), vec![8], false),
            (Some("yes"), vec![8], false),
            (None, vec![8, 9], false),
            (Some("1024"), vec![], false),
        ] {
            assert_eq!(told(said, kept).keeps(), keeps, "{said:?}");
        }
    }

    #[test]
    fn a_queues_name_leads_back_to_it() {
        assert_eq!(queue_of(&name_of(65_535)), Some(65_535));
        for name in ["", "fanq-queue-", "fanq-queue-70000", "fanq-queue--1", "stored", "queue-1"] {
            assert_eq!(queue_of(name), None, "{name}");
        }
    }
}
