//! Whose turn it is: every round has each target once, odd rounds backwards, so that none is always first.

/// Rounds, counted from 0, with the index of each target in its turn.
pub(super) fn turns(rounds: usize, targets: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rounds).flat_map(move |round| {
        let in_turn = move |turn| if round % 2 == 1 { targets - 1 - turn } else { turn };
        (0..targets).map(move |turn| (round, in_turn(turn)))
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
}
