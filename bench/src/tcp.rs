//! `fanq-bench tcp-send` and `tcp-receive`: one stream of known bytes, compared at the other end.
//!
//! Invariant: both ends make the same bytes from the same seed, so a byte that a queue changed is found.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Options of `fanq-bench tcp-send`.
#[derive(Debug, Args)]
pub(crate) struct TcpSendArgs {
    /// Where to connect to
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// How many bytes to send
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u64,
}

/// Options of `fanq-bench tcp-receive`.
#[derive(Debug, Args)]
pub(crate) struct TcpReceiveArgs {
    /// Where to listen for one connection
    #[arg(long, value_name = "ADDRESS:PORT")]
    bind: SocketAddr,
}

#[derive(Debug, Serialize)]
struct TcpResult {
    schema: &'static str,
    bytes: u64,
    seconds: f64,
}

/// Sends the stream.
pub(crate) fn send(args: &TcpSendArgs) -> anyhow::Result<()> {
    let connect = TcpStream::connect_timeout(&args.to, PATIENCE);
    let mut stream = connect.with_context(|| format!("connecting to {}", args.to))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (mut source, mut part, mut left) = (source(), vec![0; PART_BYTES], args.bytes);
    let start = Instant::now();
    while left > 0 {
        source.fill_bytes(&mut part);
        let length = usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES);
        stream.write_all(&part[..length]).context("sending")?;
        left -= length as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    crate::print_json(&TcpResult { schema: "fanq.tcp-send/1", bytes: args.bytes, seconds })
}

/// Receives one stream to its end and compares it.
pub(crate) fn receive(args: &TcpReceiveArgs) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(args.bind).with_context(|| format!("listening on {}", args.bind))?;
    eprintln!("ready: listening on {}", args.bind);
    let (mut stream, _peer) = listener.accept().context("accepting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut source, mut expected, mut part) = (source(), vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let mut bytes = 0;
    let start = Instant::now();
    loop {
        let length = read_part(&mut stream, &mut part).context("receiving")?;
        source.fill_bytes(&mut expected);
        if part[..length] != expected[..length] {
            bail!(
                "the stream differs from what was sent, within {PART_BYTES} bytes of byte {bytes}"
            );
        }
        bytes += length as u64;
        if length < PART_BYTES {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    crate::print_json(&TcpResult { schema: "fanq.tcp-receive/1", bytes, seconds })
}

/// Fills the part, or as much of it as there is before the stream's end.
fn read_part(stream: &mut TcpStream, part: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < part.len() {
        match stream.read(&mut part[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn source() -> SmallRng {
    SmallRng::seed_from_u64(0x66_61_6e_71)
}

const PART_BYTES: usize = 64 << 10;

/// How long one end waits for the other.
const PATIENCE: Duration = Duration::from_secs(20);
