//! One queue of the program's: which of its packets are out, and what may be joined.
//!
//! Invariant: a packet is *out* from when this process received it, or knows that somebody else has it, until its
//! verdict was given; and the coalescer holds exactly those. So no batch verdict covers a packet that its program has
//! not answered. An id that was never seen is out too, unless the socket's count of drops says that it was lost; if
//! even that cannot be told, or more are out than could ever be answered, the queue is *blind*: nothing is joined and
//! nothing is remembered any more. It deliberately knows no descriptor.

use fanq::Coalescer;
use fanq::nfq::{PacketId, Verdict};

use crate::counts::QueueCounters;

/// A queue that is bound on one of the program's sockets.
#[derive(Debug)]
pub(crate) struct ServedQueue {
    pub(crate) number: u16,
    pub(crate) coalescer: Coalescer,
    pub(crate) counters: QueueCounters,
    /// The id that comes next.
    expected: PacketId,
    blind: bool,
    /// Whether what is missing before the next packet may be another process's, which is gone.
    inherited: bool,
    /// Whether the program has asked for the packets' bytes.
    pub(crate) copies_packets: bool,
}

/// What may explain that ids are missing.
pub(crate) trait Losses {
    /// Whether nobody else, thread or process, was receiving meanwhile, and the socket has dropped so many datagrams
    /// that nothing else explains. Then they are explained.
    fn explain(&mut self, missing: u32) -> bool;
}

impl ServedQueue {
    /// A queue that was bound just now.
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            coalescer: Coalescer::with_held_max(number, OUT_MAX),
            counters: QueueCounters::of(number),
            expected: FIRST,
            blind: false,
            inherited: false,
            copies_packets: false,
        }
    }

    /// Whether the packet is out and its verdict may be joined.
    #[inline]
    pub(crate) fn may_join(&self, id: PacketId) -> bool {
        !self.blind && self.coalescer.is_held(id)
    }

    /// Joins nothing from now on. All that was said of other packets before was sent.
    #[cold]
    pub(crate) fn blind(&mut self) {
        self.blind = true;
        self.coalescer.forget_held_up_to(PacketId(self.expected.0.wrapping_sub(1)));
    }

    /// Whether nothing is known of what is out.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
    }

    /// The process that received on this socket before is gone.
    pub(crate) fn resume(&mut self) {
        self.inherited = true;
    }

    /// Notes that this process has received the packet.
    #[inline]
    pub(crate) fn received(&mut self, id: PacketId, losses: &mut impl Losses) {
        if self.blind {
            return;
        }
        match id.distance_from(self.expected) {
            Some(0) => self.inherited = false,
            Some(missing) => {
                if !self.gap(missing, losses) {
                    self.blind();
                    return;
                }
            }
            None => {
                // Another thread received it before those that are known; it was held as a gap, or this is the end of
                // knowing who has what.
                if !self.coalescer.is_held(id) {
                    self.blind();
                }
                return;
            }
        }
        self.expected = id.next();
        self.coalescer.hold(id, Verdict::DROP, 0);
        if self.coalescer.held() > HELD_MAX {
            self.blind();
        }
    }

    /// Accounts for ids that are missing. False if they are too many.
    #[cold]
    fn gap(&mut self, missing: u32, losses: &mut impl Losses) -> bool {
        let inherited = std::mem::take(&mut self.inherited);
        if !inherited && losses.explain(missing) {
            self.counters.lost(missing);
            return true;
        }
        if missing > GAP_MAX {
            return false;
        }
        for _ in 0..missing {
            self.coalescer.hold(self.expected, Verdict::DROP, 0);
            self.expected = self.expected.next();
        }
        true
    }
}

/// The id that a queue gives first (`__enqueue_entry` counts up before it assigns).
const FIRST: PacketId = PacketId(1);

/// So many packets may be out without an allocation: what a queue of the default length holds. The list of them is
/// walked round and round, so it is to stay in the cache.
const OUT_MAX: usize = 1_024;

/// The longest gap that is held id by id.
const GAP_MAX: u32 = 4_096;

/// More packets than these are not out: by default a queue holds 1,024 (`NFQNL_QMAX_DEFAULT`), and `fanq accel` sets at
/// most 65,535. Some of them must have been lost, and which cannot be told.
const HELD_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    struct Lost(u32);

    impl Losses for Lost {
        fn explain(&mut self, missing: u32) -> bool {
            let enough = self.0 >= missing;
            self.0 -= if enough { missing } else { 0 };
            enough
        }
    }

    fn received(ids: &[u32], lost: u32) -> ServedQueue {
        let (mut queue, mut losses) = (ServedQueue::new(0), Lost(lost));
        for id in ids {
            queue.received(PacketId(*id), &mut losses);
        }
        queue
    }

    #[test]
    fn what_is_received_is_out_until_it_is_answered() {
        let mut queue = received(&[1, 2], 0);
        assert!(queue.may_join(PacketId(2)) && !queue.may_join(PacketId(3)));
        assert_eq!(
            queue.coalescer.answer_held(PacketId(2), Some(Verdict::DROP)),
            Some(Verdict::DROP)
        );
        assert!(!queue.may_join(PacketId(2)));
    }

    #[test]
    fn an_id_that_somebody_else_may_have_is_out() {
        let mut queue = received(&[1, 4], 1);
        assert_eq!(queue.coalescer.held(), 4, "one drop does not explain two ids");
        queue.received(PacketId(2), &mut Lost(0));
        assert!(queue.may_join(PacketId(2)), "the one who had it notes it later");
    }

    #[test]
    fn an_id_that_was_lost_is_not() {
        let queue = received(&[1, 4, 6], 3);
        assert_eq!(queue.coalescer.held(), 3);
    }

    #[test]
    fn an_old_id_that_was_taken_for_lost_ends_the_joining() {
        let mut queue = received(&[1, 3], 1);
        assert!(queue.may_join(PacketId(3)));
        queue.received(PacketId(2), &mut Lost(0));
        assert!(!queue.may_join(PacketId(3)));
    }

    #[test]
    fn a_gap_beyond_all_bounds_ends_the_joining() {
        let queue = received(&[1, 1_000_000], 5);
        assert!(!queue.may_join(PacketId(1)) && !queue.may_join(PacketId(1_000_000)));
    }

    /// As where another thread is always in the kernel, so that no loss is ever explained.
    #[test]
    fn what_is_lost_unexplained_takes_bounded_memory() {
        let (mut queue, mut losses) = (ServedQueue::new(0), Lost(0));
        let mut most = 0;
        for id in 1..70_000 {
            queue.received(PacketId(2 * id), &mut losses);
            queue.coalescer.forget_held(PacketId(2 * id));
            most = most.max(queue.coalescer.held());
        }
        assert_eq!(most, HELD_MAX - 1);
        assert_eq!((queue.coalescer.held(), queue.is_blind()), (0, true));
    }

    #[test]
    fn what_a_process_that_is_gone_may_have_had_is_not_taken_for_lost() {
        let (mut queue, mut losses) = (received(&[1], 0), Lost(9));
        queue.resume();
        queue.received(PacketId(4), &mut losses);
        assert_eq!(queue.coalescer.held(), 4, "2 and 3 may have been received");
        queue.received(PacketId(6), &mut losses);
        assert_eq!(queue.coalescer.held(), 5, "5 came after its end, and was lost");
        let (mut queue, mut losses) = (received(&[1], 0), Lost(9));
        queue.resume();
        queue.received(PacketId(2), &mut losses);
        queue.received(PacketId(4), &mut losses);
        assert_eq!(queue.coalescer.held(), 3, "nothing was missing when it took over");
    }
}
