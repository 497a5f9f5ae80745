//! A trial of TCP: bytes through one connection for a while, from the client to where the load goes.
//!
//! Invariant: bytes are counted where they arrive. What the queue loses, TCP sends again: there is no account of
//! packets, and the figure is what a user of the connection gets. Segments have the size that the devices' offloads
//! give them; a target that asks for GSO gets them whole.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Bench, PORT};
use crate::lab::Place;
use crate::machine::StolenTime;
use crate::result::{Account, CpuUse, Family, Trial};
use crate::target::{Running, Target};

impl Bench {
    /// Sends for so many seconds through the first pair.
    pub(crate) fn run_stream(
        &self,
        target: &Target,
        round: usize,
        seconds: f64,
    ) -> anyhow::Result<Trial> {
        self.install_rules(target, "tcp")?;
        let mut running = self.start(target)?;
        let pair = self.lab.pairs.first().context("a lab has a pair")?;
        let address: IpAddr = match self.load.family {
            Family::Ipv4 => pair.destination_v4.into(),
            Family::Ipv6 => pair.destination_v6.into(),
        };
        let to = SocketAddr::new(address, PORT);
        let listener = self.lab.in_namespace(self.lab.destination(), || TcpListener::bind(to))?;
        let listener = listener.with_context(|| format!("listening on {to}"))?;
        let stolen = StolenTime::now()?;
        let cpu_before = running.as_ref().map(Running::cpu_ns).transpose()?;

        let length = Duration::try_from_secs_f64(seconds).context("the length of a trial")?;
        let (bytes, took) = std::thread::scope(|scope| {
            let server = scope.spawn(move || receive(&listener));
            let client = self.lab.in_namespace(Place::Client, move || send(to, length));
            let received = server.join().unwrap_or_else(|_| bail!("the server panicked"));
            client??;
            received
        })?;

        let cpu_after = running.as_ref().map(Running::cpu_ns).transpose()?;
        let queues = self.queue_shares()?;
        let answered = queues.iter().map(|queue| queue.packets - queue.socket_drops).sum();
        let cpu = match running.take() {
            None => None,
            Some(running) => {
                let resident_kib_max = running.resident_kib_max()?;
                running.stop()?;
                let ns = cpu_after.unwrap_or(0).saturating_sub(cpu_before.unwrap_or(0));
                #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one trial")]
                let us = ns as f64 / 1000.0;
                Some(CpuUse {
                    us,
                    answered,
                    receive_calls: None,
                    send_calls: None,
                    resident_kib_max,
                })
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "bytes of one trial, far below 2^53")]
        let gbit_per_s = bytes as f64 * 8e-9 / took.as_secs_f64().max(1e-9);
        Ok(Trial {
            purpose: "tcp".to_owned(),
            target: target.name.clone(),
            round,
            intended_pps: None,
            seconds: took.as_secs_f64(),
            account: Account::default(),
            void: None,
            lateness_us_p99: None,
            stolen_share: stolen.share_since()?,
            cpu,
            queues,
            latency: Vec::new(),
            gbit_per_s: Some(gbit_per_s),
        })
    }
}

/// Writes for so long, then closes.
fn send(to: SocketAddr, length: Duration) -> anyhow::Result<()> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE);
    let mut stream = stream.with_context(|| {
        format!("connecting to {to} through the target; check that it accepts packets")
    })?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let part = vec![0x5a; PART_BYTES];
    let end = Instant::now() + length;
    while Instant::now() < end {
        stream.write_all(&part).context("sending through the target")?;
    }
    Ok(())
}

/// Reads to the end: bytes, and the time from the first to the last.
fn receive(listener: &TcpListener) -> anyhow::Result<(u64, Duration)> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error.into());
            }
            Err(_) if Instant::now() > deadline => bail!("no connection came through the target"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut part, mut bytes, begin) = (vec![0; PART_BYTES], 0, Instant::now());
    loop {
        match stream.read(&mut part).context("receiving behind the target")? {
            0 => return Ok((bytes, begin.elapsed())),
            read => bytes += read as u64,
        }
    }
}

const PART_BYTES: usize = 256 << 10;
/// How long one end waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
