//! The run's side: the socket, who may ask, and what is answered.
//!
//! Invariant: a request changes nothing before it was understood whole, and no client keeps another from its answer
//! for long: the endpoint's bounds hold, and a reload is awaited beside the others.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context;
use rustix::net::sockopt::socket_peercred;
use serde_json::Value;

use super::place::{self, ControlPlace, SocketFile};
use super::protocol::{self, Request};
use crate::endpoint::{Answer, Bounds, Endpoint, Listener, Refusal, Reply, Service, Stream};
use crate::notice;

/// What can be asked about a run.
pub(crate) trait Controlled: Send + 'static {
    fn statistics(&self) -> Value;

    fn settings(&self) -> Value;

    /// Sets one setting. Returns what is in force now.
    ///
    /// # Errors
    /// In words, with what can be set.
    fn set(&self, key: &str, value: &str) -> Result<String, String>;

    /// Has things read again and `tell` called with the outcome, later and from another thread. If the program ends
    /// first, `tell` is dropped.
    fn reload(&self, tell: Box<dyn FnOnce(Result<String, String>) + Send>);
}

/// The socket, while nobody answers there yet.
#[derive(Debug)]
pub(crate) struct OpenControl {
    listener: UnixListener,
    file: Option<SocketFile>,
}

/// A socket that is served, until this is dropped.
#[derive(Debug)]
pub(crate) struct ServedControl {
    _endpoint: Endpoint,
    /// Gone after the endpoint.
    file: Option<SocketFile>,
}

impl OpenControl {
    /// Opens the socket; none if that is what is wished for. Without the abstract name, which nobody has asked for, a
    /// program can do: that it is taken is a warning. A path at which a `predecessor` may serve is left to it for now.
    ///
    /// # Errors
    /// There can be no socket at the path.
    pub(crate) fn open(place: &ControlPlace, predecessor: bool) -> anyhow::Result<Option<Self>> {
        match place {
            ControlPlace::Nowhere => Ok(None),
            ControlPlace::File(path) => {
                let (listener, file) = if predecessor {
                    SocketFile::bind_beside(path)?
                } else {
                    SocketFile::bind(path)?
                };
                Ok(Some(Self { listener, file: Some(file) }))
            }
            ControlPlace::Abstract => match place::bind_abstract() {
                Ok(listener) => Ok(Some(Self { listener, file: None })),
                Err(error) => {
                    eprintln!(
                        "warning: no control socket (@fanq-{}: {error}); name a file: --control /run/fanq.sock",
                        std::process::id()
                    );
                    Ok(None)
                }
            },
        }
    }

    /// Answers there from now on.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn serve(self, run: impl Controlled) -> anyhow::Result<ServedControl> {
        let service = ControlService { run, user: rustix::process::geteuid().as_raw() };
        let listener = Listener::Unix(self.listener);
        let endpoint = Endpoint::start("fanq-control", listener, BOUNDS, service)
            .context("starting the control socket's thread")?;
        Ok(ServedControl { _endpoint: endpoint, file: self.file })
    }
}

impl ServedControl {
    /// From now on the path is this program's, whoever had it.
    pub(crate) fn take_place(&mut self) {
        if let Some(Err(error)) = self.file.as_mut().map(SocketFile::take_place) {
            eprintln!("warning: the control socket cannot be put in its place: {error}");
        }
    }
}

/// Answers requests.
pub(super) struct ControlService<C> {
    pub(super) run: C,
    /// Whose program this is.
    pub(super) user: u32,
}

impl<C: Controlled> Service for ControlService<C> {
    fn admit(&mut self, stream: &Stream) -> Result<(), Vec<u8>> {
        match socket_peercred(stream) {
            Ok(peer) if [0, self.user].contains(&peer.uid.as_raw()) => Ok(()),
            Ok(peer) => {
                let (user, own) = (peer.uid.as_raw(), self.user);
                notice::verbose(format_args!("control: user {user} was refused"));
                Err(protocol::answer(Err(format!(
                    "only root and user {own} may ask here, and you are user {user}: try sudo"
                ))))
            }
            Err(error) => Err(protocol::answer(Err(format!("who asks is not known: {error}")))),
        }
    }

    fn request_end(&self, received: &[u8]) -> Option<usize> {
        received.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
    }

    fn answer(&mut self, line: &[u8]) -> Answer {
        let now = |outcome| Reply::Now(protocol::answer(outcome));
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(words) => return Answer { reply: now(Err(words)), stay: true },
        };
        notice::verbose(format_args!("control: asked for {request:?}"));
        let reply = match request {
            Request::Statistics => now(Ok(self.run.statistics())),
            Request::Get => now(Ok(self.run.settings())),
            Request::Set { key, value } => now(self.run.set(&key, &value).map(Value::from)),
            Request::Reload => {
                let (answer, later) = channel();
                self.run.reload(Box::new(move |outcome| {
                    // Whoever asked may have gone.
                    let _ = answer.send(protocol::answer(outcome.map(Value::from)));
                }));
                Reply::Later(later)
            }
        };
        Answer { reply, stay: true }
    }

    fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        protocol::answer(Err(match refusal {
            Refusal::TooLong => {
                format!("a request is one line of at most {} bytes", BOUNDS.request_bytes)
            }
            Refusal::TooSlow => "the line was not ended in time".to_owned(),
            Refusal::Gone => "the program is stopping".to_owned(),
        }))
    }
}

const BOUNDS: Bounds = Bounds {
    connections: 32,
    request_bytes: 4096,
    request_time: Duration::from_secs(5),
    // A view that is refreshed once a minute stays connected.
    idle_time: Duration::from_secs(120),
    answer_time: Duration::from_secs(5),
};
