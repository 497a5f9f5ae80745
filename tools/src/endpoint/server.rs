//! The endpoint's thread: one poll over the listener and all connections.
//!
//! Invariant: the thread ends when its [`Endpoint`] is dropped, and with it every socket. It is pinned nowhere and has
//! no priority, so on a busy machine it waits for the workers, never they for it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Interest};
use super::{Bounds, Listener, Service};
use crate::confine::{self, Role};

/// A running endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its thread sees this end closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Serves on a thread of its own, by this name.
    ///
    /// # Errors
    /// The kernel gives no thread, or no pair of sockets.
    pub(crate) fn start<S: Service>(
        name: &str,
        listener: Listener,
        bounds: Bounds,
        service: S,
    ) -> io::Result<Self> {
        listener.set_nonblocking()?;
        let (stop, stopped) = UnixStream::pair()?;
        let mut desk = Desk { listener, stopped, bounds, service, connections: Vec::new() };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            confine::thread(Role::Answers);
            desk.serve();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Had it panicked, it would have said so.
            let _ = thread.join();
        }
    }
}

struct Desk<S> {
    listener: Listener,
    stopped: UnixStream,
    bounds: Bounds,
    service: S,
    connections: Vec<Connection>,
}

impl<S: Service> Desk<S> {
    fn serve(&mut self) {
        let mut accepting = true;
        while let Ok(true) = self.wait(accepting) {
            let now = Instant::now();
            accepting = self.accept(now);
            let Self { connections, service, bounds, .. } = self;
            connections.retain_mut(|connection| connection.step(service, now, bounds));
        }
    }

    /// Sleeps until there is something to do. False: it is time to end.
    fn wait(&self, accepting: bool) -> io::Result<bool> {
        let mut polled = Vec::with_capacity(self.connections.len() + 2);
        polled.push(PollFd::new(&self.stopped, PollFlags::IN));
        if accepting {
            polled.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        let mut limit = if accepting { FAR } else { PAUSE };
        let now = Instant::now();
        for connection in &self.connections {
            let flags = match connection.interest() {
                Interest::Read => PollFlags::IN,
                Interest::Write => PollFlags::OUT,
                Interest::Nothing => {
                    limit = limit.min(LOOK_FOR_ANSWERS);
                    continue;
                }
            };
            limit = limit.min(connection.deadline.saturating_duration_since(now));
            if connection.is_ready(&self.service) {
                limit = Duration::ZERO;
            }
            polled.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), flags));
        }
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut polled, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(polled[0].revents().is_empty()),
        }
    }

    /// Takes who has come. False: no more can be taken for a moment.
    fn accept(&mut self, now: Instant) -> bool {
        for _ in 0..ACCEPT_MAX {
            match self.listener.accept() {
                Ok(stream) => {
                    let admitted = self.service.admit(&stream);
                    let mut connection = Connection::new(stream, now, &self.bounds);
                    if let Err(words) = admitted {
                        connection.dismiss(words, now, &self.bounds);
                    }
                    // What it asks is here already, as a rule; then it needs no place.
                    if connection.step(&mut self.service, now, &self.bounds) {
                        self.make_room();
                        self.connections.push(connection);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Out of descriptors, most likely.
                Err(_) => return false,
            }
        }
        true
    }

    /// Closes a connection if there are as many as there may be: of those with the least claim the oldest.
    fn make_room(&mut self) {
        if self.connections.len() < self.bounds.connections {
            return;
        }
        let all = self.connections.iter().enumerate();
        if let Some((least, _)) = all.min_by_key(|(_, connection)| connection.claim()) {
            self.connections.remove(least);
        }
    }
}

/// How many are accepted between two looks at the others.
const ACCEPT_MAX: usize = 64;

/// How long nothing is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How often another thread's answer is looked for.
const LOOK_FOR_ANSWERS: Duration = Duration::from_millis(20);

/// Longer than any deadline.
const FAR: Duration = Duration::from_secs(3600);
