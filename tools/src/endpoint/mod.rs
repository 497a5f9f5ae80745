//! An endpoint: one thread that accepts connections, reads bounded requests and answers them.
//!
//! ```text
//!   accept -> Reading -> (whole request) -> the service's answer -> Writing -> Reading again, or Closing
//!                 \ too long, too slow: a word, Closing            \ not read in time: closed
//! ```
//!
//! Invariant: nobody is waited for. The thread sleeps in one poll over all connections; each has a bound of bytes and
//! of time for what it is at, and where there are too many, one that waits for no answer goes first. It
//! deliberately knows no protocol: that is the [`Service`].

mod connection;
mod listener;
mod server;

use std::sync::mpsc::Receiver;
use std::time::Duration;

pub(crate) use listener::{Listener, Stream};
pub(crate) use server::Endpoint;

/// What is asked of an endpoint, and what it answers.
pub(crate) trait Service: Send + 'static {
    /// Looks at who has come. An error is what the client is told before the connection ends.
    fn admit(&mut self, stream: &Stream) -> Result<(), Vec<u8>>;

    /// How many of these bytes are the first request, if it is whole.
    fn request_end(&self, received: &[u8]) -> Option<usize>;

    /// Answers one request. Called by the endpoint's thread, so it must not take long.
    fn answer(&mut self, request: &[u8]) -> Answer;

    /// What a client is told whose request cannot be awaited.
    fn refusal(&self, refusal: Refusal) -> Vec<u8>;
}

/// Why a request is not awaited any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooLong,
    TooSlow,
    /// What was to answer has gone.
    Gone,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Whether another request may follow on the connection.
    pub(crate) stay: bool,
}

/// The bytes of an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Now(Vec<u8>),
    /// Another thread is at it.
    Later(Receiver<Vec<u8>>),
}

/// What an endpoint bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) request_bytes: usize,
    /// From the connection, or from a request's first byte, to its last.
    pub(crate) request_time: Duration,
    /// Between two requests.
    pub(crate) idle_time: Duration,
    /// To take an answer.
    pub(crate) answer_time: Duration,
}
