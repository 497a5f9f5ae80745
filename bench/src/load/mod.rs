//! Load: packets in a known order at known times, from one sender on each CPU.
//!
//! A sender takes a [`Schedule`] and returns a [`SentLog`]: when each packet was really sent. The
//! sink logs when each arrived ([`crate::sink`]); all figures come from these two logs and the schedule.
//!
//! Invariant: senders are open-loop. They are pinned, and fill the queue of their CPU.

pub(crate) mod capture;
pub(crate) mod fragments;
pub(crate) mod frame;
pub(crate) mod replay;
pub(crate) mod schedule;
pub(crate) mod udp;
pub(crate) mod xdp;

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use fanq::Timestamp;

use fragments::FragmentSender;
use schedule::Schedule;
use udp::UdpSender;
use xdp::{SenderHandle, XdpSender};

/// What one sender did.
#[derive(Debug)]
pub(crate) struct SentLog {
    /// When its first packet was due.
    pub(crate) start: Timestamp,
    pub(crate) schedule: Arc<Schedule>,
    /// When each packet was sent, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub(crate) times: Vec<u64>,
    /// The share of datagrams that went as two packets.
    pub(crate) fragments: f64,
}

impl SentLog {
    /// When a packet was due; with no pace, when it was sent.
    pub(crate) fn due_ns(&self, sequence: usize) -> u64 {
        if self.schedule.is_paced() {
            self.start.0 + self.schedule.due_ns(sequence as u64)
        } else {
            self.times[sequence]
        }
    }

    /// How many packets a datagram was.
    pub(crate) fn packets(&self, sequence: usize) -> u64 {
        1 + u64::from(fragments::is_fragmented(self.fragments, sequence as u64))
    }
}

/// One CPU's load, of either kind.
#[derive(Debug)]
pub(crate) enum Sender {
    Xdp(XdpSender),
    Udp(UdpSender),
    Fragments(FragmentSender),
}

impl Sender {
    /// How many datagrams it is to send.
    pub(crate) fn total(&self) -> u64 {
        match self {
            Self::Xdp(sender) => sender.total(),
            Self::Udp(sender) => sender.total(),
            Self::Fragments(sender) => sender.total(),
        }
    }

    /// How many packets these are.
    pub(crate) fn packets(&self) -> u64 {
        match self {
            Self::Fragments(sender) => sender.packets(),
            Self::Xdp(_) | Self::Udp(_) => self.total(),
        }
    }
}

/// Runs all senders at once, each on a thread of its own, and returns their logs in the same order.
pub(crate) fn send(senders: &[Sender]) -> anyhow::Result<Vec<SentLog>> {
    let handles: Vec<_> = senders.iter().map(|_| SenderHandle::new()).collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        let running: Vec<_> = senders
            .iter()
            .zip(&handles)
            .map(|(sender, handle)| {
                if let Sender::Xdp(sender) = sender {
                    scope.spawn(move || sender.watch(handle));
                }
                scope.spawn(move || match sender {
                    Sender::Xdp(sender) => sender.run(handle),
                    Sender::Udp(sender) => sender.run(),
                    Sender::Fragments(sender) => sender.run(),
                })
            })
            .collect();
        let join = |sender: std::thread::ScopedJoinHandle<'_, _>| {
            sender.join().unwrap_or_else(|_| bail!("a sender panicked"))
        };
        running.into_iter().map(join).collect()
    })
}

/// Sleeps for the most part, then spins: a sleep alone is late by tens of microseconds.
pub(crate) fn wait_until(due: Timestamp, spin_below: Duration) {
    loop {
        let left = due.since(Timestamp::now());
        if left.is_zero() {
            return;
        }
        if left > spin_below {
            std::thread::sleep(left.saturating_sub(spin_below));
        }
        std::hint::spin_loop();
    }
}
