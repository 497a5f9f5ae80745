//! The side of the next process.
//!
//! Invariant: nothing is taken before every descriptor is known to own its queue, and nothing is read from any of the
//! sockets before the other process has left them, or is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use fanq::nfq::PacketId;
use fanq::{BoundQueue, Counts};

use super::channel::{Channel, ChannelError, DESCRIPTORS_MAX, unexpected};
use super::message::{Ask, LeftQueue, Message, Offer, Sockets};
use crate::usage;

/// The process that serves now, with what it offers.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
    offer: Offer,
    queues: Vec<BoundQueue>,
    pid: u32,
}

/// Queues that are taken. The process that had them waits to hear that they are served.
#[derive(Debug)]
pub(crate) struct Taken {
    channel: Channel,
    /// What happened, for people.
    pub(crate) described: String,
}

impl Predecessor {
    /// Asks whoever listens there. None if nobody does.
    pub(crate) fn ask(path: &Path) -> anyhow::Result<Option<Self>> {
        if std::fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
            return Err(usage(format!(
                "--handover: {} is there and is no socket; name a path that is free, or the socket of a running \
                 process",
                path.display()
            )));
        }
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            // Left over by a process that died, or never there.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("--handover: connecting to {}", path.display()));
            }
        };
        let mut channel = Channel::new(stream, PATIENCE);
        match Self::hear(&mut channel) {
            Ok((offer, queues, pid)) => Ok(Some(Self { channel, offer, queues, pid })),
            Err(error) => {
                // It may be the other's own refusal; it has heard enough of that.
                if !error.is::<ChannelError>() {
                    channel.refuse(&ChannelError::Unexpected(format!("{error:#}")));
                }
                Err(error.context(format!(
                    "taking over from whoever listens at {}; it goes on",
                    path.display()
                )))
            }
        }
    }

    fn hear(channel: &mut Channel) -> anyhow::Result<(Offer, Vec<BoundQueue>, u32)> {
        let pid = channel.check_peer()?;
        channel.send(&Message::Ask(Ask { program: env!("CARGO_PKG_VERSION").to_owned() }))?;
        let offer = match channel.receive()? {
            Message::Offer(offer) => offer,
            other => return Err(unexpected(&other, "an offer").into()),
        };
        if offer.queues.is_empty() || offer.queues.len() > QUEUES_MAX {
            bail!("{} queues are offered, which cannot be", offer.queues.len());
        }
        let mut queues = Vec::with_capacity(offer.queues.len());
        while queues.len() < offer.queues.len() {
            let (numbers, descriptors) = match channel.receive_with()? {
                (Message::Sockets(Sockets { queues }), descriptors) => (queues, descriptors),
                (other, _) => return Err(unexpected(&other, "sockets").into()),
            };
            let due = &offer.queues[queues.len()..];
            let due = &due[..due.len().min(DESCRIPTORS_MAX)];
            if numbers != due || descriptors.len() != due.len() {
                bail!(
                    "{} descriptors came for the queues {numbers:?}, not one for each of {due:?}",
                    descriptors.len()
                );
            }
            for (number, descriptor) in numbers.into_iter().zip(descriptors) {
                queues.push(check(number, descriptor)?);
            }
        }
        Ok((offer, queues, pid))
    }

    /// The queues that are offered.
    pub(crate) fn queues(&self) -> &[BoundQueue] {
        &self.queues
    }

    /// Takes the queues: from now on the other process leaves them. If it dies over that, they are taken as it left
    /// them.
    ///
    /// # Errors
    /// It refuses, or does not leave them in time. Then they are its own.
    pub(crate) fn take(self) -> anyhow::Result<(Vec<BoundQueue>, Taken)> {
        let Self { mut channel, offer, queues, pid } = self;
        let patience = Duration::from_millis(offer.release_ms_max.min(RELEASE_MS_MAX));
        channel.be_patient(patience + PATIENCE);
        let answer = channel.send(&Message::Take).and_then(|()| channel.receive());
        let (left, how) = match answer {
            Ok(Message::Left(left)) => (left.queues, "left"),
            Err(ChannelError::Gone) => (Vec::new(), "was gone before it had left"),
            Ok(other) => return Err(unexpected(&other, "word that the queues are left").into()),
            Err(error) => return Err(error).context("taking over the queues"),
        };
        let described = format!(
            "process {pid} (fanq {}, {}) {how} {} queue{}",
            offer.program,
            offer.settings,
            queues.len(),
            if queues.len() == 1 { "" } else { "s" },
        );
        let queues = queues.into_iter().map(|queue| with_past(queue, &left)).collect();
        Ok((queues, Taken { channel, described }))
    }
}

impl Taken {
    /// Tells the other process that it may end.
    ///
    /// # Errors
    /// It has taken its queues back, or died.
    pub(crate) fn serving(&mut self) -> anyhow::Result<()> {
        self.channel.be_patient(PATIENCE);
        match self.channel.send(&Message::Serving) {
            // Nobody is left to take them back.
            Ok(()) | Err(ChannelError::Gone) => Ok(()),
            Err(error) => Err(error).context("telling the process before that it may end"),
        }
    }
}

fn check(number: u16, descriptor: OwnedFd) -> anyhow::Result<BoundQueue> {
    Ok(BoundQueue::check(number, descriptor)?)
}

/// A queue with what its former owner says about it.
fn with_past(queue: BoundQueue, left: &[LeftQueue]) -> BoundQueue {
    let number = queue.queue();
    match left.iter().find(|left| left.queue == number) {
        Some(LeftQueue { next_id: Some(id), account, .. }) => {
            queue.served_up_to(PacketId(*id), Counts::from(account))
        }
        Some(LeftQueue { next_id: None, account, .. }) => queue.counted(Counts::from(account)),
        None => queue,
    }
}

/// For all answers but the release.
const PATIENCE: Duration = Duration::from_secs(5);

/// A day, the longest drain limit there is.
const RELEASE_MS_MAX: u64 = 86_400_000;

/// As an engine's range.
const QUEUES_MAX: usize = fanq::QueueRange::COUNT_MAX as usize;
