//! Verdicts that send a packet back through its chain, with a mark that the rules in front of the queue rule look at.
//!
//! Invariant: no packet goes round for ever. One that comes from the queue with the mark on it has passed rules that
//! do not know the mark: it keeps the verdict that it would have had, and that is said once.

use fanq::Verdict;

use crate::mark::MarkBits;

/// What sends packets back.
#[derive(Debug)]
pub(super) struct SendBack {
    bits: MarkBits,
    /// The option of `fanq rules` that makes the rules for it.
    option: &'static str,
    came_back: bool,
    said: bool,
}

impl SendBack {
    pub(super) const fn new(bits: MarkBits, option: &'static str) -> Self {
        Self { bits, option, came_back: false, said: false }
    }

    /// In place of `verdict`, for a packet with this mark: repeat, with our bits put into the mark.
    #[inline]
    pub(super) fn instead_of(&mut self, verdict: Verdict, mark: u32) -> Verdict {
        if self.bits.is_in(mark) {
            self.came_back = true;
            return verdict;
        }
        let marked = self.bits.put_into(verdict.mark().unwrap_or(mark));
        with_priority_of(verdict, Verdict::REPEAT.with_mark(marked))
    }

    /// Says what is wrong with the rules, the first time.
    #[inline]
    pub(super) fn batch_end(&mut self) {
        if self.came_back && !self.said {
            self.say();
        }
    }

    #[cold]
    fn say(&mut self) {
        self.said = true;
        let Self { bits, option, .. } = self;
        eprintln!(
            "warning: packets with the mark {bits} come to the queue, so the rules do not know it; such packets are \
             accepted at once. Install the rules with {option} {bits}"
        );
    }
}

/// The other verdict, with the priority that the first one sets.
#[inline]
pub(super) fn with_priority_of(verdict: Verdict, other: Verdict) -> Verdict {
    match verdict.priority() {
        Some(priority) => other.with_priority(priority),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_sent_back_once_with_our_bits_and_its_own() {
        let mut send_back = SendBack::new("0x10/0x30".parse().unwrap(), "--repeat-mark");
        let verdict = send_back.instead_of(Verdict::ACCEPT, 0x2f);
        assert_eq!(verdict, Verdict::REPEAT.with_mark(0x1f));
        let ours = Verdict::ACCEPT.with_mark(1).with_priority(7);
        let verdict = send_back.instead_of(ours, 0x2f);
        assert_eq!(verdict, Verdict::REPEAT.with_mark(0x11).with_priority(7));
        assert!(!send_back.came_back);
        assert_eq!(send_back.instead_of(ours, 0x1f), ours);
        send_back.batch_end();
        assert!(send_back.came_back && send_back.said);
    }
}
