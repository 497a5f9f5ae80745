//! What the user writes: an inspector, which sees each packet and gives its verdict.
//!
//! Invariant: one inspector belongs to one worker and is called on that worker's thread only, in queue order.
//! It needs no lock, and is called without dynamic dispatch.

use std::ops::Deref;

use crate::cpus::CpuId;
use crate::deferral::{DeferError, Deferred};
use crate::edits::{Edits, RewriteError};
use crate::nfq::{ConntrackEdit, PacketMessage, Verdict};
use crate::sys::{LentDatagram, ReceiveRing, Timestamp};
use crate::wire::PacketEdit;

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

    /// The verdict for a packet whose rewriting was asked for and refused, whatever [`inspect`](Self::inspect)
    /// returned (`verdict`): it must not pass unchanged by oversight. By default it is dropped.
    fn rewrite_refused(&mut self, error: RewriteError, verdict: Verdict) -> Verdict {
        let _ = (error, verdict);
        Verdict::DROP
    }

    /// Whether all who decide deferred packets have work, so that a packet received now would only wait there. The
    /// worker then sleeps until answers come rather than until packets do, which join each other in the kernel
    /// meanwhile; after 10 ms it looks. Asked once a turn, and only of inspectors that may defer packets
    /// ([`EngineBuilder::deferral`](crate::EngineBuilder::deferral)). By default false: nothing is known about them.
    fn awaits_answers(&self) -> bool {
        false
    }
}

/// A packet that waits for its verdict. What the kernel said about it is read through [`PacketMessage`]'s
/// methods; [`payload`](Self::payload) begins with the network header.
///
/// What is changed here goes out with the packet's verdict. A packet that is dropped takes its changes with it.
#[derive(Debug)]
pub struct Packet<'a> {
    message: PacketMessage<'a>,
    edits: &'a mut Edits,
    /// Missing where the packet is not a worker's.
    place: Option<Place<'a>>,
}

/// Where a packet's message lies: what deferring it moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In a slot of a worker's ring.
    Ring(&'a ReceiveRing, usize),
    /// In memory of its own, which is copied.
    Alone(&'a [u8]),
}

impl<'a> Packet<'a> {
    /// Shows a decoded message to an inspector. For tests of inspectors, which look at `edits` afterwards; in the
    /// engine the worker does it.
    pub fn new(message: PacketMessage<'a>, edits: &'a mut Edits) -> Self {
        edits.clear();
        Self { message, edits, place: None }
    }

    /// For the worker, which clears the edits when there were any.
    #[inline]
    pub(crate) fn with_clear_edits(
        message: PacketMessage<'a>,
        edits: &'a mut Edits,
        place: Option<Place<'a>>,
    ) -> Self {
        debug_assert!(!edits.is_touched(), "edits of another packet");
        Self { message, edits, place }
    }

    /// The packet from its network header on, up to the queue's copy range, with what was rewritten so far. Empty
    /// in copy mode `meta`.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.edits.payload().unwrap_or(self.message.payload())
    }

    /// The packet as it came, whatever was rewritten: it lives as long as the message does.
    #[inline]
    pub fn message(&self) -> PacketMessage<'a> {
        self.message
    }

    /// The packet's headers and payload, to be edited by field where they lie: every checksum is right again when the
    /// edit goes out of scope, also one that the kernel had left open.
    ///
    /// # Errors
    /// [`RewriteError`]. After one the packet's verdict is that of [`Inspector::rewrite_refused`].
    #[inline]
    pub fn edit(&mut self) -> Result<PacketEdit<'_>, RewriteError> {
        self.edits.edit(&self.message)
    }

    /// The packet's bytes, to be changed in place. Its length stays; for another one, use
    /// [`replace`](Self::replace). Checksums are up to the caller (`wire` knows how, or use [`edit`](Self::edit)): the
    /// kernel takes the bytes as they are and computes nothing (`nfqnl_mangle`, net/netfilter/nfnetlink_queue.c). Only
    /// one that came open and still is when the verdict is given is filled in; if it is neither open nor right then,
    /// the verdict is that of [`Inspector::rewrite_refused`].
    ///
    /// # Errors
    /// [`RewriteError`]. After one the packet's verdict is that of [`Inspector::rewrite_refused`].
    pub fn payload_mut(&mut self) -> Result<&mut [u8], RewriteError> {
        self.edits.payload_mut(&self.message)
    }

    /// Puts other bytes in the packet's place, from the network header on. Lengths in the headers and checksums
    /// are up to the caller.
    ///
    /// # Errors
    /// As [`payload_mut`](Self::payload_mut); also, a segmented packet cannot change its length.
    pub fn replace(&mut self, bytes: &[u8]) -> Result<(), RewriteError> {
        self.edits.replace(&self.message, bytes)
    }

    /// Lets another thread decide: gives a handle to the packet, to be answered later and from anywhere. The verdict
    /// that [`Inspector::inspect`] then returns is what the packet gets if nobody answers in time, so return the one
    /// that errs on the right side. What was changed about the packet goes with the handle.
    ///
    /// # Errors
    /// [`DeferError`]; the packet is as before, and the verdict that `inspect` returns is its verdict.
    pub fn defer(&mut self) -> Result<Deferred, DeferError> {
        let place = self.place.ok_or(DeferError::NotConfigured)?;
        self.edits.defer(self.message.id(), || match place {
            Place::Ring(ring, index) => ring.lend(index),
            Place::Alone(bytes) => LentDatagram::copied(bytes),
        })
    }

    /// What the verdict changes about the packet's connection. Needs a kernel with
    /// `CONFIG_NETFILTER_NETLINK_GLUE_CT`; others refuse the verdict's attribute in silence.
    pub fn conntrack_mut(&mut self) -> &mut ConntrackEdit {
        self.edits.conntrack_mut()
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
