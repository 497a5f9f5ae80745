//! A queue taken over from another process, or from one that died.
//!
//! What one who died had read and not answered, its orphans, is still queued, below everything that is unread in the
//! socket: the kernel numbers packets and puts their messages into the socket under one lock, so messages lie there
//! in the order of their ids. One batch verdict up to the last orphan answers them all, and nothing else:
//!
//! ```text
//!   queued    17 18        40 41 42 43
//!   unread                 40 41 42 43      a first message: orphans are all ids below it
//!
//!   queued    17 18                         none: orphans are all ids up to the last that was given
//!   unread    -                             when the row was read
//! ```
//!
//! For the second case three things are done in this order: the row is read; the queue is configured, for which the
//! kernel takes that same lock; the socket is looked at. Whoever had an id by the first was done by the second, so its
//! message would be seen by the third.
//!
//! Invariant: no packet whose message is unread is answered. It deliberately waits for no acknowledgement: behind
//! thousands of unread messages that would take a while, and whether the kernel agrees is found out beforehand
//! ([`Queue::find_out`]), while the one before still serves.

use std::io;

use netlink_sys::Socket;

use super::{DATAGRAM_BYTES_MAX, Past, Queue, QueueError, ask, refused_flags, ring};
use crate::bound_queue::BoundQueue;
use crate::config::QueueConfig;
use crate::kernel_table::{KernelRow, KernelTable};
use crate::nfq::{self, ConfigFlags, Message, PacketId, QueueRequest, Verdict, VerdictMessage};
use crate::sys;

impl Queue {
    /// What of the flags asked for the kernel grants to a queue that is bound already, by whomever. Changes nothing.
    ///
    /// # Errors
    /// The process may not configure queues, or a required flag is refused.
    pub(crate) fn find_out(number: u16, config: &QueueConfig) -> Result<ConfigFlags, QueueError> {
        let failed = |call| move |source| QueueError::Socket { call, source };
        let (mut socket, _port) = sys::open_netfilter().map_err(failed("opening the socket"))?;
        let table = KernelTable::open().and_then(|table| table.rows());
        let rows = table.map_err(failed("reading /proc/net/netfilter/nfnetlink_queue"))?;
        // A queue of nobody's: that it is not bound (ENODEV) is said only to those who may ask.
        let free = (0..=u16::MAX).rev().find(|free| rows.iter().all(|row| row.queue != *free));
        if let Some(free) = free {
            let (errno, _) = ask(&mut socket, QueueRequest::set_maxlen(free, 1))?;
            if errno == libc::EPERM {
                return Err(QueueError::NotPermitted { queue: number });
            }
        }
        let asked = config.flags.asked();
        let refused = refused_flags(&mut socket, number, asked)?;
        let missing = refused.and(config.flags.required());
        if !missing.is_empty() {
            return Err(QueueError::FlagsRefused { queue: number, flags: missing });
        }
        Ok(asked.without(refused))
    }

    /// Takes a bound queue as it is, with what waits in it, and configures it anew, with the flags granted. Packets
    /// that one who died had in his hands get the verdict `on_orphan`.
    pub(crate) fn adopt(
        bound: BoundQueue,
        config: &QueueConfig,
        granted: ConfigFlags,
        batch: usize,
        lent_max: usize,
        on_orphan: Verdict,
    ) -> Result<Self, QueueError> {
        let failed = |call| move |source| QueueError::Socket { call, source };
        let number = bound.queue();
        let (descriptor, next_id, carried) = bound.into_parts();
        let mut socket = sys::as_netlink(descriptor);
        // Whoever had it may have set it otherwise.
        socket.set_non_blocking(false).map_err(failed("making the socket block"))?;
        socket.set_no_enobufs(true).map_err(failed("setting NETLINK_NO_ENOBUFS"))?;
        socket.set_cap_ack(true).map_err(failed("setting NETLINK_CAP_ACK"))?;
        let receive_buffer = sys::set_receive_buffer(&socket, config.rcvbuf)
            .map_err(failed("setting the receive buffer"))?;

        let table =
            KernelTable::open().map_err(failed("opening /proc/net/netfilter/nfnetlink_queue"))?;
        let before = row_at_rest(&table, number)?;
        let request = QueueRequest::configure(number, config.copy_range, config.maxlen, granted);
        let mut buffer = [0; QueueRequest::BYTES_MAX];
        let length = request.encode(&mut buffer);
        send(&socket, &buffer[..length]).map_err(failed("sending the configuration"))?;

        let mut past = Past { next_id: PacketId::FIRST, carried, orphaned: 0 };
        if let Some(next_id) = next_id {
            past.next_id = next_id;
        } else {
            let unread = first_unread(&mut socket).map_err(failed("looking for packets"))?;
            past.next_id = unread.unwrap_or(PacketId(before.id_sequence).next());
            let last = past.next_id.previous();
            past.orphaned = answer_orphans(&socket, &table, before, last, on_orphan)?;
        }
        let ring = ring(number, config, granted, batch, lent_max)?;
        let (socket, early) = (socket.into(), Vec::new());
        Ok(Self { socket, ring, early, receive_buffer, granted, watched: None, past })
    }
}

/// Gives all that is queued up to `last` the verdict, and returns how many packets that were.
fn answer_orphans(
    socket: &Socket,
    table: &KernelTable,
    before: KernelRow,
    last: PacketId,
    verdict: Verdict,
) -> Result<u64, QueueError> {
    let KernelRow { queue, .. } = before;
    let mut buffer = [0; VerdictMessage::BYTES_MAX];
    let message = VerdictMessage { queue, id: last, verdict, batch: true };
    let length = message.encode_unnumbered(&mut buffer);
    send(socket, &buffer[..length]).map_err(|source| QueueError::Socket {
        call: "answering packets that were left unanswered",
        source,
    })?;
    let after = row_at_rest(table, queue)?;
    let given = u64::from(after.id_sequence.wrapping_sub(before.id_sequence));
    let not_queued = after.user_dropped.saturating_sub(before.user_dropped);
    let come = given.saturating_sub(not_queued);
    let gone = (before.queue_total + come).saturating_sub(after.queue_total);
    Ok(gone.min(before.queue_total))
}

/// The id of the first packet that is unread, if there is any. Replies before it, which are for whoever had the socket
/// before, are thrown away.
fn first_unread(socket: &mut Socket) -> io::Result<Option<PacketId>> {
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match nfq::decode(&datagram) {
            Ok((Message::Packet(packet), _)) => return Ok(Some(packet.id())),
            Err(undecodable) if undecodable.id.is_some() => return Ok(undecodable.id),
            _ => {}
        }
        datagram.clear();
        socket.recv(&mut datagram, libc::MSG_DONTWAIT)?;
    }
}

/// The queue's row, read until two readings agree: the kernel prints it without a lock, so a packet may be on its way
/// into it. Of a queue that never rests, the last reading.
fn row_at_rest(table: &KernelTable, queue: u16) -> Result<KernelRow, QueueError> {
    let failed =
        |source| QueueError::Socket { call: "reading /proc/net/netfilter/nfnetlink_queue", source };
    let read = || {
        let row = table.row(queue).map_err(failed)?;
        row.ok_or_else(|| failed(io::Error::other("the queue is gone from it")))
    };
    let mut row = read()?;
    for _ in 0..READINGS_MAX {
        let again = read()?;
        if again == row {
            break;
        }
        row = again;
    }
    Ok(row)
}

/// Sends; when the kernel has no memory for the moment, tries again.
fn send(socket: &Socket, message: &[u8]) -> io::Result<()> {
    let mut result = Ok(0);
    for _ in 0..SEND_TRIES {
        result = socket.send(message, 0);
        let passing = [libc::EINTR, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
        let Some(errno) = result.as_ref().err().and_then(io::Error::raw_os_error) else { break };
        if !passing.contains(&errno) {
            break;
        }
        std::thread::yield_now();
    }
    result.map(|_| ())
}

/// At a packet every two readings, which is some hundred thousand a second, two of so many are sure to agree.
const READINGS_MAX: u32 = 256;

/// As the worker's.
const SEND_TRIES: u32 = 10_000;
