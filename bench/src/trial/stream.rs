//! Trials of TCP, from the client to where the load goes: one long connection, or many short ones.
//!
//! Invariant: what is counted is counted where it arrives. What the queue loses, TCP sends again: there is no account
//! of packets, and the figure is what a user of the connection gets. Segments have the size that the devices'
//! offloads give them; a target that asks for GSO gets them whole.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use socket2::SockRef;

use super::{Bench, PORT, account_of, why_disturbed};
use crate::lab::Place;
use crate::machine::StolenTime;
use crate::result::{Account, Family, Trial};
use crate::target::{Running, Target};

/// What goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// As many bytes as one connection takes.
    Bulk,
    /// Connections one after the other, each with one request and its answer.
    Connections,
}

/// What arrived.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    bytes: u64,
    connections: u64,
    took: Duration,
}

impl Bench {
    /// Sends for so many seconds through the first pair.
    pub(crate) fn run_tcp(
        &self,
        target: &Target,
        traffic: Traffic,
        round: usize,
        seconds: f64,
    ) -> anyhow::Result<Trial> {
        self.install_rules(target, "tcp")?;
        let service = target.service(&self.service)?;
        let running = self.start(target, &service)?;
        let stolen = StolenTime::now()?;
        let cpu_before = running.as_ref().map(Running::cpu_ns).transpose()?;
        let length = Duration::try_from_secs_f64(seconds).context("the length of a trial")?;
        let arrived = self.exchange(traffic, length)?;
        let stolen_share = stolen.share_since()?;
        let cpu_after = running.as_ref().map(Running::cpu_ns).transpose()?;
        let queues = self.queue_shares(service.queues)?;
        let answered = super::pass::answered(&queues, self.waiting(service.queues)?);
        let ns = cpu_after.unwrap_or(0).saturating_sub(cpu_before.unwrap_or(0));
        let cpu = match running {
            None => None,
            Some(running) => Some(account_of(running, target, ns, answered)?.0),
        };
        let took = arrived.took.as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "counts of one trial, far below 2^53")]
        let (gbit, connections) =
            (arrived.bytes as f64 * 8e-9 / took, arrived.connections as f64 / took);
        let (purpose, is_bulk) = match traffic {
            Traffic::Bulk => ("tcp", true),
            Traffic::Connections => ("connections", false),
        };
        Ok(Trial {
            purpose: purpose.to_owned(),
            target: target.name.clone(),
            round,
            intended_pps: None,
            seconds: arrived.took.as_secs_f64(),
            account: Account::default(),
            void: why_disturbed(stolen_share),
            lateness_us_p99: None,
            stolen_share,
            rested_seconds: None,
            cpu,
            queues,
            latency: Vec::new(),
            gbit_per_s: is_bulk.then_some(gbit),
            connections_per_s: (!is_bulk).then_some(connections),
        })
    }

    /// A server where the load goes, a client at the client's.
    fn exchange(&self, traffic: Traffic, length: Duration) -> anyhow::Result<Arrived> {
        let pair = self.lab.pairs.first().context("a lab has a pair")?;
        let address: IpAddr = match self.load.family {
            Family::Ipv4 => pair.destination_v4.into(),
            Family::Ipv6 => pair.destination_v6.into(),
        };
        let to = SocketAddr::new(address, PORT);
        let listener = self.lab.in_namespace(self.lab.destination(), || TcpListener::bind(to))?;
        let listener = listener.with_context(|| format!("listening on {to}"))?;
        std::thread::scope(|scope| match traffic {
            Traffic::Bulk => {
                let server = scope.spawn(move || receive(&listener));
                let sent = self.lab.in_namespace(Place::Client, move || send(to, length))?;
                let arrived = server.join().unwrap_or_else(|_| bail!("the server panicked"));
                sent.and(arrived)
            }
            Traffic::Connections => {
                let server = scope.spawn(move || answer_all(&listener));
                let asked = self.lab.in_namespace(Place::Client, move || ask_often(to, length))?;
                server.join().unwrap_or_else(|_| bail!("the server panicked"))?;
                asked
            }
        })
    }
}

fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| {
        format!("connecting to {to} through the target; check that it accepts packets")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The next connection, if one comes in time.
fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    // Accepting keeps to it, too: socket(7).
    SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
    let (stream, _) = listener.accept().context("no connection came through the target")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Writes for so long, then closes.
fn send(to: SocketAddr, length: Duration) -> anyhow::Result<()> {
    let mut stream = connect(to)?;
    let part = vec![0x5a; PART_BYTES];
    let end = Instant::now() + length;
    while Instant::now() < end {
        stream.write_all(&part).context("sending through the target")?;
    }
    Ok(())
}

/// Reads to the end.
fn receive(listener: &TcpListener) -> anyhow::Result<Arrived> {
    let mut stream = accept(listener)?;
    let (mut part, mut bytes, begin) = (vec![0; PART_BYTES], 0, Instant::now());
    loop {
        match stream.read(&mut part).context("receiving behind the target")? {
            0 => return Ok(Arrived { bytes, connections: 1, took: begin.elapsed() }),
            read => bytes += read as u64,
        }
    }
}

/// Connects, asks and hangs up, again and again for so long; the last request is to end.
fn ask_often(to: SocketAddr, length: Duration) -> anyhow::Result<Arrived> {
    let (mut connections, begin) = (0, Instant::now());
    while begin.elapsed() < length {
        ask(to, REQUEST)?;
        connections += 1;
    }
    let took = begin.elapsed();
    ask(to, LAST_REQUEST)?;
    let bytes = connections * REQUEST.len() as u64 * 2;
    Ok(Arrived { bytes, connections, took })
}

fn ask(to: SocketAddr, request: [u8; REQUEST_BYTES]) -> anyhow::Result<()> {
    let mut stream = connect(to)?;
    let mut answer = [0; REQUEST_BYTES];
    stream.write_all(&request).context("sending a request through the target")?;
    stream.read_exact(&mut answer).context("no answer came back")?;
    Ok(())
}

/// Answers each connection's request with its own bytes, up to the last.
fn answer_all(listener: &TcpListener) -> anyhow::Result<()> {
    loop {
        let mut stream = accept(listener)?;
        let mut request = [0; REQUEST_BYTES];
        stream.read_exact(&mut request).context("receiving a request behind the target")?;
        stream.write_all(&request).context("answering a request")?;
        if request == LAST_REQUEST {
            return Ok(());
        }
    }
}

const REQUEST_BYTES: usize = 64;
const REQUEST: [u8; REQUEST_BYTES] = [0x5a; REQUEST_BYTES];
const LAST_REQUEST: [u8; REQUEST_BYTES] = [0; REQUEST_BYTES];
const PART_BYTES: usize = 256 << 10;
/// How long one end waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
