//! The asker's side.
//!
//! Invariant: no call waits longer than the time given; what answers is root's or of one's own user, so a stranger
//! cannot pose as `fanq run` by taking its name.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use rustix::net::sockopt::socket_peercred;
use serde_json::Value;

use super::place::ControlAddress;
use super::protocol::{Request, parse_answer};

/// A connection to a running program.
#[derive(Debug)]
pub(crate) struct Client {
    address: ControlAddress,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody serves there, or a stranger does.
    pub(crate) fn connect(address: &ControlAddress) -> anyhow::Result<Self> {
        let stream = address.connect().with_context(|| {
            format!("connecting to {address}: no fanq run serves there (in this network namespace)")
        })?;
        let peer = socket_peercred(&stream).context("asking whose program it is")?;
        let own = rustix::process::geteuid();
        if !peer.uid.is_root() && peer.uid != own {
            anyhow::bail!(
                "{address} belongs to user {}: only root's programs and your own are asked",
                peer.uid.as_raw()
            );
        }
        Ok(Self { address: address.clone(), stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer for so long.
    ///
    /// # Errors
    /// The program refuses, in its words; or it does not answer.
    pub(crate) fn ask(&mut self, request: &Request, limit: Duration) -> anyhow::Result<Value> {
        let what = || format!("asking {}", self.address);
        let socket = self.stream.get_ref();
        socket.set_read_timeout(Some(limit)).with_context(what)?;
        socket.set_write_timeout(Some(limit)).with_context(what)?;
        // A refusal may lie there already, and the other end be closed: it is read all the same.
        let sent = self.stream.get_mut().write_all(request.line().as_bytes());
        let mut line = Vec::new();
        let mut answer = Read::by_ref(&mut self.stream).take(ANSWER_BYTES_MAX);
        let read = answer.read_until(b'\n', &mut line);
        if !line.ends_with(b"\n") {
            sent.and(read).with_context(what)?;
            anyhow::bail!("{} has ended", self.address);
        }
        match parse_answer(&line) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(words)) => Err(anyhow::anyhow!("{} refuses: {words}", self.address)),
            Err(words) => Err(anyhow::anyhow!(words).context(what())),
        }
    }

    /// The account so far.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn statistics(&mut self) -> anyhow::Result<Value> {
        self.ask(&Request::Statistics, PATIENCE)
    }
}

/// How long an answer may take that needs no reading of files.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A kilobyte for each of the 1024 queues that there can be, several times over.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
