//! Whose turn it is: every round has each target once, odd rounds backwards, so that none is always first; or, where
//! many rounds follow each other quickly, in an order that is drawn, so that none always comes behind the same other.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::statistics::SEED;

/// Rounds, counted from 0, with the index of each target in its turn.
pub(super) fn turns(rounds: usize, targets: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rounds).flat_map(move |round| {
        let in_turn = move |turn| if round % 2 == 1 { targets - 1 - turn } else { turn };
        (0..targets).map(move |turn| (round, in_turn(turn)))
    })
}

/// The same in an order drawn anew for every round; the same one in every run.
pub(super) fn drawn_turns(rounds: usize, targets: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut random = SmallRng::seed_from_u64(SEED);
    (0..rounds).flat_map(move |round| {
        let mut order: Vec<_> = (0..targets).collect();
        order.shuffle(&mut random);
        order.into_iter().map(move |index| (round, index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_rounds_go_backwards() {
        let all: Vec<_> = turns(2, 3).collect();
        assert_eq!(all, [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]);
        assert_eq!(turns(5, 0).count(), 0);
    }

    #[test]
    fn a_drawn_order_has_each_once_a_round_and_none_always_behind_the_same() {
        let all: Vec<_> = drawn_turns(40, 3).collect();
        let mut before_the_last = [0; 3];
        for (round, turns) in all.chunks(3).enumerate() {
            let mut targets: Vec<_> = turns.iter().map(|(_, target)| *target).collect();
            assert!(turns.iter().all(|(of, _)| *of == round));
            if targets[2] == 0 {
                before_the_last[targets[1]] += 1;
            }
            targets.sort_unstable();
            assert_eq!(targets, [0, 1, 2]);
        }
        assert!(before_the_last[1] > 0 && before_the_last[2] > 0, "{before_the_last:?}");
        assert_eq!(all, drawn_turns(40, 3).collect::<Vec<_>>());
    }
}
