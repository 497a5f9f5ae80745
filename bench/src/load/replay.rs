//! A capture as a load: its frames in their order, again and again if need be, each at its time.
//!
//! Invariant: what two addresses send each other goes through one sender, and so in order; packets keep their
//! addresses, and get only the Ethernet addresses of the lab. Frame k is due at a time that depends on k alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fanq::{CpuId, Timestamp};

use super::capture::Capture;
use super::wait_until;
use crate::sys::FrameSocket;

/// When frames are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as they go.
    Unpaced,
    /// So many a second, at equal distances, all senders together.
    PerSecond(f64),
    /// As they were captured, but so many times as fast.
    Own(f64),
}

/// Of a capture, how much and when.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    pub(crate) capture: Arc<Capture>,
    pub(crate) pace: Pace,
    /// Frames of all senders together; more than there are begin again.
    pub(crate) total: u64,
}

impl Score {
    /// The frames of one of so many senders, by their numbers from 0 on.
    fn numbers_of(&self, sender: usize, senders: usize) -> impl Iterator<Item = u64> + '_ {
        let count = self.capture.frames.len() as u64;
        let frames = self.capture.frames.iter().zip(0_u64..);
        let own: Vec<_> = frames
            .filter(|(frame, _)| frame.talk % senders as u64 == sender as u64)
            .map(|(_, index)| index)
            .collect();
        let rounds = if own.is_empty() { 0 } else { self.total.div_ceil(count) };
        (0..rounds)
            .flat_map(move |round| {
                let own = own.clone();
                own.into_iter().map(move |index| round * count + index)
            })
            .take_while(|number| *number < self.total)
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number % self.capture.frames.len() as u64).unwrap_or(0)
    }

    /// When a frame is due, from the beginning on; none where there is no pace.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "nanoseconds of one trial, far below 2^53"
    )]
    fn due_ns(&self, number: u64) -> Option<u64> {
        let ns = match self.pace {
            Pace::Unpaced => return None,
            Pace::PerSecond(pps) => number as f64 * 1e9 / pps,
            Pace::Own(speed) => {
                let count = self.capture.frames.len() as u64;
                let span = self.capture.span().as_nanos() as f64;
                // From the last frame to the first of the next round it is as long as between any two.
                let round = span + span / (count.max(2) - 1) as f64;
                let at = self.capture.frames[self.index(number)].at.as_nanos() as f64;
                ((number / count) as f64 * round + at) / speed
            }
        };
        Some(ns as u64)
    }
}

/// One CPU's part of it.
#[derive(Debug)]
pub(crate) struct ReplaySender {
    cpu: CpuId,
    socket: FrameSocket,
    score: Score,
    numbers: Vec<u64>,
    /// Its frames, at their place among all.
    frames: Vec<Vec<u8>>,
}

/// What one sender did.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// When each frame was due, or sent where there is no pace, and when it was sent, by `CLOCK_MONOTONIC`.
    pub(crate) times: Vec<(u64, u64)>,
}

impl ReplaySender {
    /// Opens the socket, for the device with this index in the network namespace of this thread.
    pub(crate) fn new(
        cpu: CpuId,
        interface: u32,
        [source_mac, destination_mac]: [[u8; 6]; 2],
        score: &Score,
        (sender, senders): (usize, usize),
    ) -> anyhow::Result<Self> {
        let socket = FrameSocket::open(interface).context("opening a packet socket")?;
        let mut frames = vec![Vec::new(); score.capture.frames.len()];
        let numbers: Vec<_> = score.numbers_of(sender, senders).collect();
        for number in &numbers {
            let index = score.index(*number);
            if frames[index].is_empty() {
                let mut frame = score.capture.frames[index].bytes.clone();
                frame[0..6].copy_from_slice(&destination_mac);
                frame[6..12].copy_from_slice(&source_mac);
                frames[index] = frame;
            }
        }
        Ok(Self { cpu, socket, score: score.clone(), numbers, frames })
    }

    /// Sends all, on this thread, which it pins; frame 0 is due at `start`.
    pub(crate) fn run(&self, start: Timestamp) -> anyhow::Result<Replayed> {
        if !fanq::pin_to(self.cpu) {
            bail!("cannot pin a sender to CPU {}: it is offline or outside the cpuset", self.cpu);
        }
        let mut replayed = Replayed { times: Vec::with_capacity(self.numbers.len()) };
        let mut batch: Vec<&[u8]> = Vec::with_capacity(BATCH);
        let due = |number| self.score.due_ns(number).map(|ns| start.0 + ns);
        let mut next = 0;
        while let Some(&number) = self.numbers.get(next) {
            if let Some(due) = due(number) {
                wait_until(Timestamp(due), SPIN_BELOW);
            }
            let now = Timestamp::now();
            batch.clear();
            while let Some(&number) = self.numbers.get(next) {
                let due = due(number).unwrap_or(now.0);
                if due > now.0 || batch.len() == BATCH {
                    break;
                }
                batch.push(&self.frames[self.score.index(number)]);
                replayed.times.push((due, now.0));
                next += 1;
            }
            self.socket.send(&batch).context("sending a capture's frames")?;
        }
        Ok(replayed)
    }
}

/// Runs all senders at once, each on a thread of its own.
pub(crate) fn replay(senders: &[ReplaySender]) -> anyhow::Result<Vec<Replayed>> {
    let start = Timestamp(Timestamp::now().0 + LEAD_NS);
    std::thread::scope(|scope| {
        let running: Vec<_> =
            senders.iter().map(|sender| scope.spawn(move || sender.run(start))).collect();
        let join = |sender: std::thread::ScopedJoinHandle<'_, _>| {
            sender.join().unwrap_or_else(|_| bail!("a sender panicked"))
        };
        running.into_iter().map(join).collect()
    })
}

const BATCH: usize = 64;
/// From the run's beginning to its first packet.
const LEAD_NS: u64 = 2_000_000;
const SPIN_BELOW: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::capture::Frame;

    /// Three frames, 10 us and 30 us apart, of two talks.
    fn score(pace: Pace, total: u64) -> Score {
        let frame = |at, talk| Frame { at: Duration::from_micros(at), bytes: vec![0; 60], talk };
        let frames = vec![frame(0, 4), frame(10, 7), frame(40, 6)];
        Score {
            capture: Arc::new(Capture { name: String::new(), frames, left_out: 0 }),
            pace,
            total,
        }
    }

    #[test]
    fn a_talk_has_one_sender_and_all_frames_have_one() {
        let score = score(Pace::Unpaced, 8);
        let numbers = |sender| score.numbers_of(sender, 2).collect::<Vec<_>>();
        assert_eq!(numbers(0), [0, 2, 3, 5, 6]);
        assert_eq!(numbers(1), [1, 4, 7]);
        let alone = Score { total: 2, ..score.clone() };
        assert_eq!(alone.numbers_of(0, 1).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(score.numbers_of(2, 1000).count(), 0);
    }

    #[test]
    fn frames_are_due_at_the_captures_times_or_at_a_rate() {
        let due = |pace| (0..5).map(|number| score(pace, 5).due_ns(number)).collect::<Vec<_>>();
        let own = |us: [u64; 5]| us.map(|us| Some(us * 1000)).to_vec();
        // The second round begins 20 us after the first one's end: as long as between two on average.
        assert_eq!(due(Pace::Own(1.0)), own([0, 10, 40, 60, 70]));
        assert_eq!(due(Pace::Own(2.0)), own([0, 5, 20, 30, 35]));
        assert_eq!(due(Pace::PerSecond(100_000.0)), own([0, 10, 20, 30, 40]));
        assert_eq!(due(Pace::Unpaced), [None; 5]);
    }
}
