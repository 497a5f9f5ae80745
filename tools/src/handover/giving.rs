//! The side of the process that serves: the door at which the next one knocks.
//!
//! Invariant: a peer that is refused, or fails, changes nothing. One peer is heard at a time, each for [`PATIENCE`] at
//! most. The door's file is of mode 0600 from its first moment: it is made under another name.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fanq::{BoundQueue, Interrupter};

use super::channel::{Channel, ChannelError, DESCRIPTORS_MAX, unexpected};
use super::message::{Ask, Left, Message, Offer, Sockets};
use crate::confine::{self, Role};

/// Where the next process knocks. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    /// The file's device and inode: a successor may have put his own in its place.
    file: (u64, u64),
    /// Emptied when the door is closed, so that it keeps no queue alive.
    queues: Arc<Mutex<Vec<BoundQueue>>>,
    requests: Receiver<Request>,
}

/// A process that waits for the queues.
#[derive(Debug)]
pub(crate) struct Request {
    channel: Channel,
    /// Its process id.
    pub(crate) pid: u32,
    /// Its version.
    pub(crate) program: String,
}

impl Door {
    /// Opens the door, in the place of any that is there. Whoever comes for the queues wakes the engine's wait.
    pub(crate) fn open(
        path: &Path,
        queues: Vec<BoundQueue>,
        settings: String,
        release_max: Duration,
        interrupter: Interrupter,
    ) -> anyhow::Result<Self> {
        let (listener, file) = listen(path).with_context(|| {
            format!(
                "--handover: listening at {} (a path of at most 90 bytes in a folder that may be written)",
                path.display()
            )
        })?;
        let offer = Offer {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            queues: queues.iter().map(BoundQueue::queue).collect(),
            settings,
            release_ms_max: u64::try_from(release_max.as_millis()).unwrap_or(u64::MAX),
        };
        let queues = Arc::new(Mutex::new(queues));
        let (sender, requests) = channel();
        let porter = Porter { listener, queues: Arc::clone(&queues), offer, interrupter };
        std::thread::Builder::new()
            .name("fanq-handover".to_owned())
            .spawn(move || {
                confine::thread(Role::Answers);
                porter.serve(&sender);
            })
            .context("starting the handover's thread")?;
        Ok(Self { path: path.to_owned(), file, queues, requests })
    }

    /// Who has come for the queues, if anyone has.
    pub(crate) fn request(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    /// Closes the door. Returns the queues that could be had there.
    pub(crate) fn close(self) -> Vec<BoundQueue> {
        std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let file = fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        if file.is_ok_and(|file| file == self.file) {
            // Where it cannot be removed, the next one finds nobody behind it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that only its owner may use, and its file.
fn listen(path: &Path) -> std::io::Result<(UnixListener, (u64, u64))> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let result = UnixListener::bind(&fresh).and_then(|listener| {
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok((listener, (file.dev(), file.ino())))
    });
    if result.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    result
}

/// The thread behind the door.
struct Porter {
    listener: UnixListener,
    queues: Arc<Mutex<Vec<BoundQueue>>>,
    offer: Offer,
    interrupter: Interrupter,
}

impl Porter {
    /// Hears one peer after the other, until one takes the queues.
    fn serve(&self, requests: &Sender<Request>) {
        loop {
            let heard = match self.listener.accept() {
                Ok((stream, _)) => self.hear(stream),
                Err(error) => Err(error.into()),
            };
            match heard {
                Ok(request) => {
                    // If nobody takes it, the process is about to end, and the peer sees that.
                    let _ = requests.send(request);
                    let _ = self.interrupter.interrupt();
                    return;
                }
                Err(error) => {
                    eprintln!("fanq: handover refused, the queues stay here: {error}");
                    std::thread::sleep(AFTER_A_REFUSAL);
                }
            }
        }
    }

    fn hear(&self, stream: UnixStream) -> Result<Request, ChannelError> {
        let mut channel = Channel::new(stream, PATIENCE);
        match self.converse(&mut channel) {
            Ok((pid, program)) => Ok(Request { channel, pid, program }),
            Err(error) => {
                channel.refuse(&error);
                Err(error)
            }
        }
    }

    fn converse(&self, channel: &mut Channel) -> Result<(u32, String), ChannelError> {
        let pid = channel.check_peer()?;
        let program = match channel.receive()? {
            Message::Ask(Ask { program }) => program,
            other => return Err(unexpected(&other, "what asks for queues")),
        };
        {
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            if queues.is_empty() {
                return Err(ChannelError::Unexpected("this process is about to end".to_owned()));
            }
            channel.send(&Message::Offer(self.offer.clone()))?;
            for part in queues.chunks(DESCRIPTORS_MAX) {
                let numbers = part.iter().map(BoundQueue::queue).collect();
                let descriptors: Vec<_> = part.iter().map(AsFd::as_fd).collect();
                let sockets = Message::Sockets(Sockets { queues: numbers });
                channel.send_with(&sockets, &descriptors)?;
            }
        }
        match channel.receive()? {
            Message::Take => Ok((pid, program)),
            other => Err(unexpected(&other, "what takes the queues")),
        }
    }
}

impl Request {
    /// Says how the queues were left, and waits until they are served. An error means that they are not: then they
    /// are still this process's.
    pub(crate) fn give(mut self, left: Left) -> anyhow::Result<()> {
        self.channel.be_patient(SERVING_TIME_MAX);
        let result = self.channel.send(&Message::Left(left)).and_then(|()| {
            match self.channel.receive()? {
                Message::Serving => Ok(()),
                other => Err(unexpected(&other, "what serves the queues")),
            }
        });
        result.map_err(|error| {
            let error = anyhow::anyhow!("the next process does not serve the queues: {error}");
            self.channel.refuse(&ChannelError::Unexpected("too late".to_owned()));
            error
        })
    }
}

/// For a peer up to `take`: it has all ready before it asks.
const PATIENCE: Duration = Duration::from_secs(5);

/// From `left` to `serving` a process only configures sockets.
const SERVING_TIME_MAX: Duration = Duration::from_secs(10);

/// A peer that comes again and again costs no more than this leaves.
const AFTER_A_REFUSAL: Duration = Duration::from_millis(20);
