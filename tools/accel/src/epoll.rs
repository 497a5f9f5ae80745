//! What an epoll knows of our sockets: which it watches, for what, and what it was told already.
//!
//! Invariant: a watched socket whose ring has datagrams is reported as the kernel would report it if they were still
//! in its own queue: always where the watch is by level; once for each filling where it is by edge; once until it is
//! armed again where it is a one-shot. It deliberately keeps no list of other descriptors: those are the kernel's.

use crate::locked::Locked;
use crate::table::Socket;

/// One socket that an epoll watches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) socket: &'static Locked<Socket>,
    /// The number by which it was added.
    pub(crate) descriptor: i32,
    /// `EPOLL*` bits.
    events: u32,
    pub(crate) data: u64,
    /// The socket's count of fillings when it was last reported.
    reported: u32,
    /// False after the event of a one-shot.
    armed: bool,
}

/// An event that the ring gives rise to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingEvent {
    pub(crate) events: u32,
    pub(crate) data: u64,
}

impl Watched {
    pub(crate) fn new(
        socket: &'static Locked<Socket>,
        descriptor: i32,
        events: u32,
        data: u64,
    ) -> Self {
        Self { socket, descriptor, events, data, reported: 0, armed: true }
    }

    /// The watch is changed, and armed.
    pub(crate) fn change(&mut self, events: u32, data: u64) {
        *self = Self::new(self.socket, self.descriptor, events, data);
    }

    /// What is to be reported of a socket whose ring, filled so many times, has datagrams. Not yet noted as reported.
    pub(crate) fn event(&self, fills: u32) -> Option<RingEvent> {
        let is_new = self.events & EDGE == 0 || self.reported != fills;
        let events = self.events & READABLE;
        (self.armed && is_new && events != 0).then_some(RingEvent { events, data: self.data })
    }

    /// The program was told. True if the kernel must be kept from telling it again, as this was a one-shot.
    pub(crate) fn was_reported(&mut self, fills: u32) -> bool {
        self.reported = fills;
        let one_shot = self.events & ONE_SHOT != 0;
        // No `&=`: rustc 1.95 (LLVM 22.1.2), optimising, stores false here whatever `one_shot` is.
        if one_shot {
            self.armed = false;
        }
        one_shot
    }
}

/// The kernel has reported the event with this data: a one-shot is not reported by us, too.
pub(crate) fn told_by_kernel(watched: &mut [Watched], data: u64) {
    let fired = |watched: &&mut Watched| watched.data == data && watched.events & ONE_SHOT != 0;
    if let Some(watched) = watched.iter_mut().find(fired) {
        watched.armed = false;
    }
}

/// Adds our events to those that the kernel gave: into the one with the same data, or behind them. Returns how many
/// there are, at most as many as fit.
pub(crate) fn merge(events: &mut [RingEvent], given: usize, ours: &[RingEvent]) -> usize {
    let mut count = given;
    for event in ours {
        if let Some(same) = events[..count].iter_mut().find(|known| known.data == event.data) {
            same.events |= event.events;
        } else if count < events.len() {
            events[count] = *event;
            count += 1;
        }
    }
    count
}

/// `EPOLLIN | EPOLLRDNORM`
const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM).cast_unsigned();
const EDGE: u32 = libc::EPOLLET.cast_unsigned();
const ONE_SHOT: u32 = libc::EPOLLONESHOT.cast_unsigned();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn watched(descriptor: i32, events: u32) -> Watched {
        assert!(table::add_socket(descriptor));
        Watched::new(table::socket(descriptor).unwrap(), descriptor, events, 7)
    }

    #[test]
    fn by_level_it_is_reported_as_long_as_the_ring_has_datagrams() {
        let mut level = watched(61_001, READABLE);
        for _ in 0..3 {
            assert_eq!(level.event(1), Some(RingEvent { events: READABLE, data: 7 }));
            assert!(!level.was_reported(1));
        }
        level.change(libc::EPOLLOUT.cast_unsigned(), 7);
        assert_eq!(level.event(1), None, "nobody asked whether it is readable");
    }

    #[test]
    fn by_edge_it_is_reported_once_for_each_filling() {
        let mut edge = watched(61_002, READABLE | EDGE);
        assert!(edge.event(1).is_some() && !edge.was_reported(1));
        assert_eq!(edge.event(1), None);
        assert!(edge.event(2).is_some());
        edge.change(READABLE | EDGE, 8);
        assert_eq!(edge.event(1).unwrap().data, 8, "a change reports what is there");
    }

    #[test]
    fn a_one_shot_is_reported_until_it_is_armed_again() {
        let mut once = watched(61_003, READABLE | ONE_SHOT);
        assert!(once.event(1).is_some() && once.was_reported(1));
        assert_eq!(once.event(2), None);
        once.change(READABLE | ONE_SHOT, 7);
        assert!(once.event(2).is_some());
        let mut all = [once];
        told_by_kernel(&mut all, 8);
        assert!(all[0].event(2).is_some());
        told_by_kernel(&mut all, 7);
        assert_eq!(all[0].event(2), None, "the kernel has told it");
    }

    #[test]
    fn events_are_merged_by_their_data_and_never_beyond_the_room() {
        let event = |events, data| RingEvent { events, data };
        let mut events = [event(4, 7), event(0, 0), event(0, 0)];
        let ours = [event(1, 7), event(1, 8), event(1, 9), event(1, 10)];
        assert_eq!(merge(&mut events, 1, &ours), 3);
        assert_eq!(events, [event(5, 7), event(1, 8), event(1, 9)]);
    }
}
