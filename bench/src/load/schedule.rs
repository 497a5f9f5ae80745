//! When each packet is due, how long it is and to which flow it belongs: a table that a sender goes round.
//!
//! ```text
//!   slot      0        1        2      ...  n-1
//!   gap ns    |--------|-----|----------|---|        sum = n packets at the wanted rate, to the nanosecond
//! ```
//!
//! Invariant: the load is open: packet k is due at `start + round(k)`, whatever became of the packets before it.
//! Equal settings and seed give equal tables, so trials of one run see one load.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, Zipf};

use crate::result::{Arrivals, FlowChoice, FrameSize};

/// What a sender's packets are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pattern {
    /// Packets a second from this sender; none for "as fast as it goes".
    pub(crate) pps: Option<f64>,
    pub(crate) frame: FrameSize,
    pub(crate) flows: u32,
    pub(crate) flow_choice: FlowChoice,
    pub(crate) arrivals: Arrivals,
}

/// One packet of the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Until the next packet is due.
    pub(crate) gap_ns: u32,
    /// 0 to the number of flows.
    pub(crate) flow: u32,
    /// From the Ethernet header on.
    pub(crate) frame_bytes: u16,
}

/// The round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    slots: Vec<Slot>,
    /// When each slot's packet is due, from the round's beginning; and the round's length at the end.
    due_ns: Vec<u64>,
    paced: bool,
}

impl Schedule {
    /// Draws the table. Its length is a power of two, so that a program can go round it by a mask.
    pub(crate) fn new(pattern: &Pattern, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = (pattern.flows as usize).next_power_of_two().clamp(SLOTS_LEAST, SLOTS_MOST);
        let due_ns = due_times(pattern, count, &mut random);
        let slots = due_ns
            .windows(2)
            .map(|pair| Slot {
                gap_ns: u32::try_from(pair[1] - pair[0]).unwrap_or(u32::MAX),
                flow: draw_flow(pattern, &mut random),
                frame_bytes: draw_size(pattern.frame, &mut random),
            })
            .collect();
        Self { slots, due_ns, paced: pattern.pps.is_some() }
    }

    /// The table.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether packets have times at all.
    pub(crate) fn is_paced(&self) -> bool {
        self.paced
    }

    /// The slot of packet `sequence`.
    pub(crate) fn slot(&self, sequence: u64) -> Slot {
        let count = self.slots.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "less than the table's length")]
        let index = (sequence % count) as usize;
        self.slots[index]
    }

    /// When packet `sequence` is due, after the start.
    pub(crate) fn due_ns(&self, sequence: u64) -> u64 {
        let count = self.slots.len();
        #[expect(clippy::cast_possible_truncation, reason = "less than the table's length")]
        let index = (sequence % count as u64) as usize;
        sequence / count as u64 * self.due_ns[count] + self.due_ns[index]
    }
}

/// The times of one round, and its end.
fn due_times(pattern: &Pattern, count: usize, random: &mut SmallRng) -> Vec<u64> {
    let Some(pps) = pattern.pps else {
        return vec![0; count + 1];
    };
    let mean_ns = 1e9 / pps;
    let at: Vec<f64> = match pattern.arrivals {
        Arrivals::Constant => (0..=count).map(|index| as_f64(index) * mean_ns).collect(),
        Arrivals::Burst(size) => {
            let size = size.max(1) as usize;
            (0..=count).map(|index| as_f64(index / size * size) * mean_ns).collect()
        }
        Arrivals::Poisson => {
            let gaps: Vec<f64> = (0..count).map(|_| Exp1.sample(random)).collect();
            let stretch = as_f64(count) * mean_ns / gaps.iter().sum::<f64>();
            let running = gaps.iter().scan(0.0, |at, gap| {
                *at += gap * stretch;
                Some(*at)
            });
            std::iter::once(0.0).chain(running).collect()
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and far below 2^53"
    )]
    at.into_iter().map(|ns| ns.round() as u64).collect()
}

fn draw_flow(pattern: &Pattern, random: &mut SmallRng) -> u32 {
    let flows = pattern.flows.max(1);
    match pattern.flow_choice {
        FlowChoice::Uniform => random.random_range(0..flows),
        FlowChoice::Zipf => {
            let rank: f64 =
                Zipf::new(f64::from(flows), 1.0).map_or(1.0, |zipf| zipf.sample(random));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank from 1 to the number of flows"
            )]
            let rank = rank as u32;
            rank.clamp(1, flows) - 1
        }
    }
}

fn draw_size(frame: FrameSize, random: &mut SmallRng) -> u16 {
    match frame {
        FrameSize::Bytes(bytes) => bytes,
        FrameSize::Imix => match random.random_range(0..48) {
            0..28 => 74,
            28..44 => 570,
            _ => 1518,
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// Enough for a random table to look random, few enough to stay in the cache.
const SLOTS_LEAST: usize = 1 << 13;
/// Enough for 100,000 flows.
const SLOTS_MOST: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(pps: f64, arrivals: Arrivals) -> Pattern {
        Pattern {
            pps: Some(pps),
            frame: FrameSize::Bytes(106),
            flows: 64,
            flow_choice: FlowChoice::Uniform,
            arrivals,
        }
    }

    #[test]
    fn packets_are_due_at_the_rate_for_ever() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson, Arrivals::Burst(64)] {
            let schedule = Schedule::new(&pattern(300_007.0, arrivals), 1);
            let rounds = schedule.slots().len() as u64 * 10;
            let wanted = 1e9 / 300_007.0 * as_f64(usize::try_from(rounds).unwrap());
            let drift = (as_f64(usize::try_from(schedule.due_ns(rounds)).unwrap()) - wanted).abs();
            assert!(drift < 10.0, "{arrivals:?} is {drift} ns off after ten rounds");
            let step_by_step: u64 =
                (0..rounds).map(|sequence| u64::from(schedule.slot(sequence).gap_ns)).sum();
            assert_eq!(step_by_step, schedule.due_ns(rounds), "{arrivals:?}");
        }
    }

    #[test]
    fn arrivals_are_what_they_are_called() {
        let gaps = |arrivals| {
            let schedule = Schedule::new(&pattern(100_000.0, arrivals), 1);
            schedule.slots().iter().map(|slot| slot.gap_ns).collect::<Vec<_>>()
        };
        assert!(gaps(Arrivals::Constant).iter().all(|gap| *gap == 10_000));
        let bursts = gaps(Arrivals::Burst(64));
        assert!(
            bursts
                .iter()
                .enumerate()
                .all(|(index, gap)| { *gap == if index % 64 == 63 { 640_000 } else { 0 } })
        );
        let poisson = gaps(Arrivals::Poisson);
        let short = poisson.iter().filter(|gap| **gap < 10_000).count();
        let share = as_f64(short) / as_f64(poisson.len());
        // 1 - 1/e of exponential gaps are shorter than their mean.
        assert!((0.61..0.655).contains(&share), "{share}");
    }

    #[test]
    fn flows_and_sizes_have_their_shares() {
        let zipf = Pattern {
            flows: 1000,
            flow_choice: FlowChoice::Zipf,
            frame: FrameSize::Imix,
            ..pattern(1e5, Arrivals::Constant)
        };
        let schedule = Schedule::new(&zipf, 1);
        let count = |wanted: &dyn Fn(&Slot) -> bool| {
            as_f64(schedule.slots().iter().filter(|slot| wanted(slot)).count())
                / as_f64(schedule.slots().len())
        };
        // The first of 1,000 has 1/H(1000) = 13.4 %, the second half of that.
        assert!((0.115..0.155).contains(&count(&|slot| slot.flow == 0)));
        assert!((0.055..0.080).contains(&count(&|slot| slot.flow == 1)));
        assert!(schedule.slots().iter().all(|slot| slot.flow < 1000));
        assert!((0.55..0.62).contains(&count(&|slot| slot.frame_bytes == 74)));
        assert!((0.065..0.105).contains(&count(&|slot| slot.frame_bytes == 1518)));
    }

    #[test]
    fn one_seed_gives_one_table() {
        let pattern = pattern(1e5, Arrivals::Poisson);
        assert_eq!(Schedule::new(&pattern, 7), Schedule::new(&pattern, 7));
        assert_ne!(Schedule::new(&pattern, 7), Schedule::new(&pattern, 8));
    }
}
