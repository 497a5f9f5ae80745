//! What became of a load: the senders' logs held against the sink's.
//!
//! Invariant: figures come from the two logs and the schedule alone, so they can be tested without a kernel. Delay
//! counts from the time at which a packet was *due*: a sender that was held up does not make delays look better.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::load::SentLog;
use crate::sink::ArrivalLog;
use crate::statistics::Delays;

/// What became of it.
#[derive(Debug)]
pub(crate) struct Passage {
    /// Packets; a datagram in fragments is two, and arrives as one.
    pub(crate) offered: u64,
    /// Of those, the ones whose datagram arrived.
    pub(crate) delivered: u64,
    /// Came behind a later packet of its flow.
    pub(crate) reordered: u64,
    /// From the first packet sent to the last.
    pub(crate) seconds: f64,
    /// From due to sent.
    pub(crate) lateness: Delays,
    /// From due to arrival.
    pub(crate) delays: Delays,
}

impl Passage {
    /// Holds the logs against each other. Senders are in the same order in both.
    pub(crate) fn new(sent: &[SentLog], arrived: &ArrivalLog) -> anyhow::Result<Self> {
        let mut passage = Self {
            offered: 0,
            delivered: 0,
            reordered: 0,
            seconds: span_seconds(sent),
            lateness: Delays::new(),
            delays: Delays::new(),
        };
        for (sender, arrivals) in sent.iter().zip(&arrived.times) {
            passage.take(sender, arrivals)?;
        }
        Ok(passage)
    }

    fn take(&mut self, sender: &SentLog, arrivals: &[u64]) -> anyhow::Result<()> {
        ensure!(
            sender.times.len() <= arrivals.len(),
            "the sink's log is shorter than the sender's"
        );
        let unsent = &arrivals[sender.times.len()..];
        ensure!(unsent.iter().all(|time| *time == 0), "packets arrived that were not sent");
        // For each flow, when the earliest of its later packets arrived.
        let mut later: BTreeMap<u32, u64> = BTreeMap::new();
        for (sequence, &sent_at) in sender.times.iter().enumerate().rev() {
            let due = sender.due_ns(sequence);
            self.offered += sender.packets(sequence);
            self.lateness.record(sent_at.saturating_sub(due));
            let arrival = arrivals[sequence];
            if arrival == 0 {
                continue;
            }
            self.delivered += sender.packets(sequence);
            self.delays.record(arrival.saturating_sub(due));
            let flow = sender.schedule.slot(sequence as u64).flow;
            let earliest = later.entry(flow).or_insert(u64::MAX);
            self.reordered += u64::from(arrival > *earliest);
            *earliest = arrival.min(*earliest);
        }
        Ok(())
    }
}

/// From the first packet that any sender sent to the last.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one trial, far below 2^53")]
fn span_seconds(sent: &[SentLog]) -> f64 {
    let first = sent.iter().filter_map(|sender| sender.times.first()).min();
    let last = sent.iter().filter_map(|sender| sender.times.last()).max();
    match (first, last) {
        (Some(first), Some(last)) => last.saturating_sub(*first) as f64 / 1e9,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanq::Timestamp;

    use super::*;
    use crate::load::schedule::{Pattern, Schedule};
    use crate::result::{Arrivals, FlowChoice, FrameSize};

    /// A sender of one packet every 10 us, from 1 ms on, each sent 1 us late.
    fn sender(packets: u64, flows: u32) -> SentLog {
        let pattern = Pattern {
            pps: Some(100_000.0),
            frame: FrameSize::Bytes(74),
            flows,
            flow_choice: FlowChoice::Uniform,
            arrivals: Arrivals::Constant,
        };
        let times = (0..packets).map(|packet| 1_001_000 + packet * 10_000).collect();
        let schedule = Arc::new(Schedule::new(&pattern, 1));
        SentLog { start: Timestamp(1_000_000), schedule, times, fragments: 0.0 }
    }

    fn passage(sent: &[SentLog], times: Vec<Vec<u64>>) -> anyhow::Result<Passage> {
        Passage::new(sent, &ArrivalLog { times, ..ArrivalLog::default() })
    }

    #[test]
    fn delays_count_from_when_packets_were_due() {
        let due = |packet: u64| 1_000_000 + packet * 10_000;
        let arrivals = vec![due(0) + 5_000, 0, due(2) + 5_000, due(3) + 50_000, 0];
        let found = passage(&[sender(4, 1)], vec![arrivals]).unwrap();
        assert_eq!((found.offered, found.delivered, found.reordered), (4, 3, 0));
        assert!((found.seconds - 30e-6).abs() < 1e-12);
        assert!((found.lateness.percentile(50.0).unwrap() - 1.0).abs() < 0.01);
        assert!((found.delays.percentile(50.0).unwrap() - 5.0).abs() < 0.01);
        assert!((found.delays.percentile(100.0).unwrap() - 50.0).abs() < 0.1);
    }

    #[test]
    fn a_datagram_in_fragments_counts_as_its_packets() {
        // Of four datagrams the second and the fourth are cut.
        let sent = SentLog { fragments: 0.5, ..sender(4, 1) };
        let found = passage(&[sent], vec![vec![2_000_000, 0, 2_100_000, 2_200_000]]).unwrap();
        assert_eq!((found.offered, found.delivered), (6, 4));
    }

    #[test]
    fn only_a_flows_own_packets_can_overtake_it() {
        let swapped = vec![2_000_000, 1_900_000, 2_100_000];
        let one_flow = passage(&[sender(3, 1)], vec![swapped.clone()]).unwrap();
        assert_eq!(one_flow.reordered, 1);
        let many = sender(3, 1 << 16);
        let flow = |sequence| many.schedule.slot(sequence).flow;
        assert_ne!(flow(0), flow(1), "the seed gives the first two packets flows of their own");
        assert_eq!(passage(&[many], vec![swapped]).unwrap().reordered, 0);
    }

    #[test]
    fn what_was_not_sent_cannot_arrive() {
        let error = passage(&[sender(2, 1)], vec![vec![5, 6, 7]]).unwrap_err();
        assert!(error.to_string().contains("not sent"));
    }
}
