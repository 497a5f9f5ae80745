//! Load from a UDP socket: `sendmmsg` of all packets that are due.
//!
//! Invariant: every packet is handed to the kernel, in order, at its time or later; a buffer that is full for the
//! moment is waited for, and the wait shows as lateness. Needs no privilege.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fanq::{CpuId, Timestamp};

use super::frame::Template;
use super::schedule::Schedule;
use super::{SentLog, wait_until};
use crate::stamp::Stamp;
use crate::sys::SendBatch;

/// One CPU's load.
#[derive(Debug)]
pub(crate) struct UdpSender {
    cpu: CpuId,
    /// Its number among the senders.
    index: u16,
    socket: UdpSocket,
    template: Template,
    schedule: Arc<Schedule>,
    total: u64,
}

impl UdpSender {
    /// Opens the socket in the network namespace of this thread.
    pub(crate) fn new(
        cpu: CpuId,
        index: u16,
        template: Template,
        schedule: Arc<Schedule>,
        total: u64,
    ) -> anyhow::Result<Self> {
        let source = SocketAddr::new(template.path().source, super::frame::SOURCE_PORT + index);
        let socket =
            UdpSocket::bind(source).with_context(|| format!("a sender's socket on {source}"))?;
        Ok(Self { cpu, index, socket, template, schedule, total })
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Sends all, on this thread, which it pins.
    pub(crate) fn run(&self) -> anyhow::Result<SentLog> {
        if !fanq::pin_to(self.cpu) {
            bail!("cannot pin a sender to CPU {}: it is offline or outside the cpuset", self.cpu);
        }
        let start = Timestamp(Timestamp::now().0 + LEAD_NS);
        let mut batch = SendBatch::new(self.template.payload_bytes());
        let mut times = Vec::with_capacity(usize::try_from(self.total)?);
        let mut next = 0;
        while next < self.total {
            if self.schedule.is_paced() {
                wait_until(Timestamp(start.0 + self.schedule.due_ns(next)), SPIN_BELOW);
            }
            let now = Timestamp::now();
            batch.clear();
            while next < self.total && !batch.is_full() && self.is_due(next, start, now) {
                let slot = self.schedule.slot(next);
                let due = if self.schedule.is_paced() {
                    start.0 + self.schedule.due_ns(next)
                } else {
                    now.0
                };
                let (flow, sequence) = (slot.flow, next);
                let stamp =
                    Stamp { flow, sequence, sent_ns: due, cpu: self.cpu.0, sender: self.index };
                let to = SocketAddr::new(
                    self.template.path().flow_destination(flow),
                    self.template.path().port,
                );
                let bytes = self.template.payload_bytes_of(slot);
                stamp.write(batch.push(bytes, to));
                times.push(now.0);
                next += 1;
            }
            batch.send(&self.socket).context("sending load")?;
        }
        let schedule = Arc::clone(&self.schedule);
        Ok(SentLog { start, schedule, times, fragments: 0.0 })
    }

    fn is_due(&self, sequence: u64, start: Timestamp, now: Timestamp) -> bool {
        !self.schedule.is_paced() || start.0 + self.schedule.due_ns(sequence) <= now.0
    }
}

/// From the run's beginning to its first packet.
const LEAD_NS: u64 = 2_000_000;
const SPIN_BELOW: Duration = Duration::from_micros(100);
