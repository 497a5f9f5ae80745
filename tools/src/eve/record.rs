//! What a worker notes about a packet: a record of fixed size, and the ring that takes it to the log's thread.
//!
//! Invariant: making and sending a record allocates nothing, waits for nothing, and writes no cache line that another
//! worker writes.

use fanq::Timestamp;
use fanq::nfq::PacketMessage;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::inspector::{Action, Addresses, PacketFacts};

/// A packet that a rule, or the default, has put into the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EveRecord {
    pub(crate) time: Timestamp,
    pub(crate) judged: Judged,
    pub(crate) addresses: Option<Addresses>,
    pub(crate) protocol: u8,
    pub(crate) ports: Option<(u16, u16)>,
    /// Type and code of ICMP.
    pub(crate) icmp: Option<(u8, u8)>,
    /// Sequence number of the payload.
    pub(crate) tcp_sequence: Option<u32>,
    pub(crate) in_interface: Option<u32>,
    /// Before any cut by the copy range, in bytes.
    pub(crate) length: u32,
    /// The first bytes of the IP header; 0 behind a shorter packet.
    pub(crate) header: [u8; HEADER_BYTES],
}

/// Who decided what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged {
    /// Of the rules.
    pub(crate) version: u32,
    /// None for the default.
    pub(crate) rule: Option<u32>,
    pub(crate) action: Action,
}

impl Judged {
    /// Whether the packet was not let through.
    pub(crate) const fn blocks(self) -> bool {
        matches!(self.action, Action::Drop | Action::Reject)
    }

    /// How many lines it makes: an alert if a rule matched, a drop if the packet was not let through.
    pub(crate) const fn lines(self) -> u64 {
        self.rule.is_some() as u64 + self.blocks() as u64
    }
}

impl EveRecord {
    pub(crate) fn new(
        time: Timestamp,
        judged: Judged,
        message: &PacketMessage<'_>,
        facts: &PacketFacts<'_>,
    ) -> Self {
        let bytes = message.payload();
        let mut header = [0; HEADER_BYTES];
        let there = bytes.len().min(HEADER_BYTES);
        header[..there].copy_from_slice(&bytes[..there]);
        let icmp = facts.payload.first_chunk().filter(|_| ICMP.contains(&facts.protocol));
        Self {
            time,
            judged,
            addresses: facts.addresses,
            protocol: facts.protocol,
            ports: facts.ports,
            icmp: icmp.map(|[kind, code]| (*kind, *code)),
            tcp_sequence: facts.tcp.map(|place| place.sequence),
            in_interface: message.indev(),
            length: message.length(),
            header,
        }
    }
}

/// A worker's end of its ring.
#[derive(Debug)]
pub(crate) struct EveSender(Producer<EveRecord>);

impl EveSender {
    /// Sends a record; false if the ring is full.
    #[inline]
    pub(crate) fn send(&mut self, record: EveRecord) -> bool {
        self.0.push(record).is_ok()
    }
}

/// A ring for one worker.
pub(crate) fn ring() -> (EveSender, Consumer<EveRecord>) {
    let (producer, consumer) = RingBuffer::new(RING_RECORDS);
    (EveSender(producer), consumer)
}

/// As much of the header as lines show: all of IPv4's fixed part, of IPv6's what stands before the addresses.
const HEADER_BYTES: usize = 12;

/// ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// Enough for a whole pause of the thread at a hundred thousand alerts a second.
pub(crate) const RING_RECORDS: usize = 8192;
