//! How much a receive asks the kernel for beyond what the program asked for: a whole batch, little, or nothing.
//!
//! ```text
//!   busy:   recvmmsg of a batch
//!   quiet:  recvmmsg of a few, since one found nothing
//!   idle:   the program's own receive alone, since several in a row found nothing; every eighth is tried as when quiet
//! ```
//!
//! Invariant: where packets come one by one, the program makes hardly more system calls than without this library; a
//! load that begins is met within as many packets as are left unfilled. It deliberately knows no clock.

#[derive(Debug)]
pub(super) struct Eagerness {
    batch: usize,
    /// Whether the last fills brought less than they asked for, since one that found nothing.
    quiet: bool,
    /// How many fills in a row found nothing.
    vain: u32,
    /// Receives left that are not preceded by a fill.
    unfilled: u32,
}

impl Eagerness {
    /// That of a socket of which nothing is known yet.
    pub(super) fn new(batch: usize) -> Self {
        Self { batch, quiet: false, vain: 0, unfilled: 0 }
    }

    /// How many datagrams the next fill is to ask for; none where there is to be no fill. Where nothing was there the
    /// last time little will be, and what is prepared for a whole batch costs, too.
    pub(super) fn depth(&mut self) -> usize {
        if self.unfilled > 0 {
            self.unfilled -= 1;
            return 0;
        }
        if self.quiet { QUIET_DEPTH.min(self.batch) } else { self.batch }
    }

    /// A fill found nothing.
    pub(super) fn found_nothing(&mut self) {
        self.quiet = true;
        self.vain = (self.vain + 1).min(VAIN_MAX);
        if self.vain == VAIN_MAX {
            self.unfilled = UNFILLED;
        }
    }

    /// A fill that asked for `depth` found `count`.
    pub(super) fn found(&mut self, count: usize, depth: usize) {
        self.quiet &= count < depth;
        self.vain = 0;
    }
}

/// Datagrams that a fill asks for while few come.
const QUIET_DEPTH: usize = 4;

/// So many fills in a row that found nothing are taken for packets that come one by one.
const VAIN_MAX: u32 = 4;

/// So many receives go without a fill then, before one is tried again.
const UNFILLED: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_fills_are_tried_while_all_are_in_vain_and_all_once_one_was_not() {
        let mut eagerness = Eagerness::new(64);
        let mut fills = 0;
        for _ in 0..80 {
            let depth = eagerness.depth();
            if depth > 0 {
                fills += 1;
                eagerness.found_nothing();
            }
        }
        assert_eq!(fills, 4 + 9, "four in a row, then one of eight");
        while eagerness.depth() == 0 {}
        eagerness.found(4, 4);
        assert_eq!((eagerness.depth(), eagerness.depth()), (64, 64));
        eagerness.found_nothing();
        assert_eq!(eagerness.depth(), 4, "one in vain makes it careful, not idle");
    }
}
