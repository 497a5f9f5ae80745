//! `fanq-bench disorder`: a listener that answers as badly as one may: the last packet first, and each verdict among
//! others for packets that do not exist. For tests of the kernel and of what stands beside such a listener.
//!
//! Invariant: every packet received is accepted once. Refused verdicts are counted, never taken for a packet's own. It
//! deliberately uses nothing of the engine but the codec: the engine answers in order.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use fanq::nfq::{Message, PacketId, QueueRequest, VerdictMessage, decode};
use fanq::{ConfigFlags, CopyRange, QueueRange, Verdict};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, Socket, Type};

/// Options of `fanq-bench disorder`.
///
/// Example: fanq-bench disorder --queues 0-7
#[derive(Debug, Args)]
pub(crate) struct DisorderArgs {
    /// Queues to serve, each by a thread of its own
    #[arg(short, long)]
    queues: QueueRange,
    /// Packets that are collected before the last is answered first
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Verdicts for packets that do not exist, beside each true one
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=1000))]
    bogus: u16,
}

#[derive(Debug, Default, Serialize)]
struct DisorderResult {
    schema: &'static str,
    packets: u64,
    bogus: u64,
    /// Refusals that the kernel sent; some are lost where there are more than the socket holds.
    refused: u64,
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(args: &DisorderArgs) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("taking the signals")?;
    }
    let listeners = args.queues.iter().map(|queue| Listener::open(queue, args));
    let listeners = listeners.collect::<anyhow::Result<Vec<_>>>()?;
    eprintln!("ready: queues {} bound", args.queues);
    let mut sum = DisorderResult { schema: "fanq.disorder/1", ..DisorderResult::default() };
    std::thread::scope(|scope| {
        let serve = |mut listener: Listener| {
            let stop = &stop;
            scope.spawn(move || listener.serve(stop).map(|()| listener.counts))
        };
        let threads: Vec<_> = listeners.into_iter().map(serve).collect();
        for thread in threads {
            let counts = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            sum.packets += counts.packets;
            sum.bogus += counts.bogus;
            sum.refused += counts.refused;
        }
        anyhow::Ok(())
    })?;
    crate::print_json(&sum)
}

/// One queue and its socket.
struct Listener {
    queue: u16,
    socket: Socket,
    batch: usize,
    bogus: u32,
    waiting: Vec<PacketId>,
    counts: DisorderResult,
}

impl Listener {
    fn open(queue: u16, args: &DisorderArgs) -> anyhow::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_NETFILTER);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))
            .context("opening a netlink socket")?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.set_read_timeout(Some(IDLE))?;
        let mut request = [0; QueueRequest::BYTES_MAX];
        let bind = QueueRequest::bind(queue, CopyRange::Meta, QUEUE_MAXLEN, ConfigFlags::NONE);
        let length = bind.encode(&mut request);
        socket.send(&request[..length]).context("sending to the kernel")?;
        let mut listener = Self {
            queue,
            socket,
            batch: args.batch.into(),
            bogus: args.bogus.into(),
            waiting: Vec::new(),
            counts: DisorderResult::default(),
        };
        let mut buffer = [0; MESSAGE_BYTES];
        let length = (&listener.socket).read(&mut buffer).context("binding the queue")?;
        match decode(&buffer[..length]) {
            Ok((Message::Reply(reply), _)) if reply.errno == 0 => Ok(listener),
            Ok((Message::Packet(packet), _)) => {
                // It was bound, and a packet came before the acknowledgement.
                listener.waiting.push(packet.id());
                Ok(listener)
            }
            Ok((Message::Reply(reply), _)) => {
                let error = std::io::Error::from_raw_os_error(reply.errno);
                Err(error).with_context(|| format!("binding queue {queue}"))
            }
            other => bail!("the kernel answered the bind with {other:?}"),
        }
    }

    fn serve(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut buffer = [0; MESSAGE_BYTES];
        loop {
            let idle = match (&self.socket).read(&mut buffer) {
                Ok(length) => self.take(&buffer[..length]),
                // Refusals that had no room.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => false,
                Err(error) if error.kind() == ErrorKind::Interrupted => false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                Err(error) => return Err(error).context("receiving"),
            };
            if idle || self.waiting.len() >= self.batch {
                self.answer()?;
            }
            if idle && stop.load(Relaxed) {
                return Ok(());
            }
        }
    }

    /// Takes a message; never a reason to idle.
    fn take(&mut self, datagram: &[u8]) -> bool {
        match decode(datagram) {
            Ok((Message::Packet(packet), _)) => self.waiting.push(packet.id()),
            Ok((Message::Reply(reply), _)) if reply.errno != 0 => self.counts.refused += 1,
            _ => {}
        }
        false
    }

    /// Answers all that wait, the last first, in one message each with its bogus ones around it.
    fn answer(&mut self) -> anyhow::Result<()> {
        let mut messages = vec![0; VerdictMessage::BYTES_MAX * (self.bogus as usize + 1)];
        while let Some(id) = self.waiting.pop() {
            let bogus = (1..=self.bogus).map(|n| PacketId(id.0.wrapping_add(FAR + n)));
            let middle = self.bogus as usize / 2;
            let mut ids: Vec<_> = bogus.collect();
            ids.insert(middle, id);
            let mut length = 0;
            for id in ids {
                let verdict = VerdictMessage {
                    queue: self.queue,
                    id,
                    verdict: Verdict::ACCEPT,
                    batch: false,
                };
                length += verdict.encode(&mut messages[length..]);
            }
            let sent = self.socket.send(&messages[..length]).context("sending verdicts")?;
            ensure!(sent == length, "the kernel took {sent} of {length} bytes");
            self.counts.packets += 1;
            self.counts.bogus += u64::from(self.bogus);
        }
        Ok(())
    }
}

/// Ids that no queue has given.
const FAR: u32 = 1 << 24;
const QUEUE_MAXLEN: u32 = 4096;
/// Room for the refusals of some hundred packets.
const BUFFER_BYTES: usize = 8 << 20;
/// A packet without its payload, or a refusal.
const MESSAGE_BYTES: usize = 8192;
const IDLE: Duration = Duration::from_millis(50);
