//! What a worker does when its queue grows faster than it can answer: headers only, and shedding.
//!
//! ```text
//!   depth     half of the limit             the limit
//!   ----------+-----------------------------+---------------->
//!     whole   | headers only                | one batch verdict for all that is queued:
//!     packets | (if `copy_range` is set)    | their messages are discarded, and counted as shed
//! ```
//!
//! Invariant: what is shed is exactly what was queued when the kernel's row was read: the verdict goes up to the last
//! id given then, so packets that come later are seen as ever. It deliberately looks only after several full batches
//! in a row: a worker that keeps up pays one comparison a turn. An engine that defers packets does not shed: a batch
//! verdict would cover packets that others are deciding.

use super::{Desk, Stage, Worker, packet_id, send};
use crate::inspect::{Inspector, Place};
use crate::nfq::{CopyRange, PacketId, QueueRequest, Verdict};
use crate::overload::OverloadConfig;
use crate::queue::Port;
use crate::sys::Timestamp;
use crate::worker::WorkerError;

/// A worker's view of its load.
#[derive(Debug)]
pub(super) struct LoadWatch {
    config: OverloadConfig,
    /// The copy range without load.
    usual: CopyRange,
    reduced: bool,
    batch: usize,
    full_batches: u32,
}

impl LoadWatch {
    pub(super) fn new(config: OverloadConfig, usual: CopyRange, batch: usize) -> Self {
        Self { config, usual, reduced: false, batch, full_batches: 0 }
    }
}

/// What is to be done about the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Copy(CopyRange),
    Shed(PacketId, Verdict),
}

impl<P: Port, I: Inspector> Worker<P, I> {
    /// Looks at the load after a turn that brought so many datagrams.
    #[inline]
    pub(super) fn watch_load(&mut self, received: usize) -> Result<(), WorkerError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let full = received >= watch.batch;
        if !full && !watch.reduced {
            watch.full_batches = 0;
            return Ok(());
        }
        self.relieve(full)
    }

    #[cold]
    fn relieve(&mut self, full: bool) -> Result<(), WorkerError> {
        while let Some(measure) = self.watch.as_mut().and_then(|watch| watch.next(&self.port, full))
        {
            match measure {
                Measure::Copy(range) => self.set_copy_range(range)?,
                Measure::Shed(last, verdict) => return self.shed(last, verdict),
            }
        }
        Ok(())
    }

    /// Changes the copy range without load. While less is copied under load, that stays so until the load is over.
    #[cold]
    pub(super) fn change_copy_range(&mut self, range: CopyRange) -> Result<(), WorkerError> {
        if let Some(watch) = &mut self.watch {
            watch.usual = range;
            if watch.reduced {
                return Ok(());
            }
        }
        self.set_copy_range(range)
    }

    fn set_copy_range(&mut self, range: CopyRange) -> Result<(), WorkerError> {
        let mut request = [0; QueueRequest::BYTES_MAX];
        let length = QueueRequest::set_copy_range(self.desk.queue, range).encode(&mut request);
        send(&mut self.port, &request[..length], self.desk.queue, &self.desk.shared.counters)
    }

    /// Gives everything queued up to `last` one verdict, and discards its messages.
    fn shed(&mut self, last: PacketId, verdict: Verdict) -> Result<(), WorkerError> {
        let counters = &self.desk.shared.counters;
        counters.send_calls.add(1);
        let messages = self.desk.coalescer.everything_up_to(last, verdict);
        send(&mut self.port, messages, self.desk.queue, counters)?;
        let mut stale = true;
        while stale {
            let received = self.receive_once(false)?;
            if received == 0 {
                break;
            }
            self.desk.batch_time = Timestamp::now();
            self.desk.begin_batch(Stage::Batch);
            for index in 0..received {
                let ring = self.port.ring();
                stale = self.desk.discard(ring.datagram(index), last, Place::Ring(ring, index));
                self.send_if_full()?;
            }
            self.send_verdicts()?;
            self.desk.end_batch();
        }
        Ok(())
    }
}

impl LoadWatch {
    /// What the load asks for now, one thing at a time.
    fn next(&mut self, port: &impl Port, full: bool) -> Option<Measure> {
        if !full {
            // The queue is empty, or nearly.
            self.full_batches = 0;
            return std::mem::take(&mut self.reduced).then_some(Measure::Copy(self.usual));
        }
        self.full_batches += 1;
        if !self.full_batches.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        let row = port.kernel_row()?;
        let limit = u64::from(self.config.depth);
        if let Some(range) = self.config.copy_range
            && !self.reduced
            && range.bytes() < self.usual.bytes()
            && row.queue_total >= limit / 2
        {
            self.reduced = true;
            self.full_batches -= 1; // Looked at again at once.
            return Some(Measure::Copy(range));
        }
        let verdict = self.config.shed.verdict().filter(|_| row.queue_total >= limit)?;
        Some(Measure::Shed(PacketId(row.id_sequence), verdict))
    }
}

impl<I: Inspector> Desk<I> {
    /// Counts a message whose packet was shed; takes any other. Returns whether more such may follow.
    fn discard(&mut self, datagram: &[u8], last: PacketId, place: Place<'_>) -> bool {
        let id = packet_id(datagram);
        if let Some(id) = id
            && let Some(left) = last.distance_from(id)
        {
            self.note_id(id);
            self.shared.counters.shed.add(1);
            return left > 0;
        }
        self.take(datagram, place);
        id.is_none()
    }
}

/// Full batches between two looks at the kernel's row: reading it costs as much as answering some packets.
const LOOK_EVERY: u32 = 8;
