//! What the user writes: an inspector, which sees each packet and gives its verdict.
//!
//! Invariant: one inspector belongs to one worker and is called on that worker's thread only, in queue order.
//! It needs no lock, and is called without dynamic dispatch.

use std::ops::Deref;

use crate::cpus::CpuId;
use crate::nfq::PacketMessage;
use crate::sys::Timestamp;
use crate::verdicts::Verdict;

/// Decides packets.
pub trait Inspector {
    /// Gives one packet its verdict. Called in the order in which the kernel queued the packets.
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict;

    /// Called after the verdicts of each batch were sent. `now` is the time when the batch was received: use it
    /// rather than a clock of your own per packet.
    fn batch_end(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// The verdict for packets that cannot be shown to [`inspect`](Self::inspect): their message could not be
    /// decoded, or the engine had no time left to read them when it stopped. By default they are dropped.
    fn unseen(&mut self) -> Verdict {
        Verdict::DROP
    }
}

/// A packet that waits for its verdict. What the kernel said about it is read through [`PacketMessage`]'s
/// methods: `packet.payload()` begins with the network header.
#[derive(Debug)]
pub struct Packet<'a> {
    message: PacketMessage<'a>,
}

impl<'a> Packet<'a> {
    /// Shows a decoded message to an inspector. For tests of inspectors; the worker does it in the engine.
    pub const fn new(message: PacketMessage<'a>) -> Self {
        Self { message }
    }
}

impl<'a> Deref for Packet<'a> {
    type Target = PacketMessage<'a>;

    fn deref(&self) -> &Self::Target {
        &self.message
    }
}

/// What an inspector learns about the worker that it is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerInfo {
    /// The queue that the worker serves.
    pub queue: u16,
    /// Its place in the range, from 0.
    pub index: u16,
    /// The CPU that it is pinned to, if any.
    pub cpu: Option<CpuId>,
}
