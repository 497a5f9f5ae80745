//! Where an accepted packet goes on: the three modes of Suricata's NFQ, as a wrapper around any inspector.
//!
//! | mode | an accepted packet |
//! |---|---|
//! | `accept` | goes on with the next base chain, or with what follows the hook |
//! | `repeat:MARK[/MASK]` | is marked and comes by its chain again, where `fanq rules --repeat-mark` lets it pass |
//! | `route:QUEUE` | goes to another queue, to another program |
//!
//! Invariant: only accepts are changed. Mode `accept` has no wrapper at all, so it costs nothing.

use std::str::FromStr;

use fanq::{Inspector, Packet, RewriteError, Timestamp, Verdict, VerdictCode};

use super::send_back::{SendBack, with_priority_of};
use crate::mark::MarkBits;

/// What an accept becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Accept,
    Repeat(MarkBits),
    Route(Route),
}

/// Another queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) queue: u16,
    /// Whether the packet is accepted when nobody listens there.
    bypass: bool,
    mark: Option<MarkBits>,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            format!(
                "`{text}` is no mode: write accept, repeat:MARK[/MASK], or route:QUEUE[,bypass][,mark=MARK[/MASK]]"
            )
        };
        match text.split_once(':') {
            None if text == "accept" => Ok(Self::Accept),
            Some(("repeat", mark)) => Ok(Self::Repeat(mark.parse()?)),
            Some(("route", words)) => {
                let mut words = words.split(',');
                let queue = words.next().and_then(|queue| queue.parse().ok()).ok_or_else(bad)?;
                let mut route = Route { queue, bypass: false, mark: None };
                for word in words {
                    match word.split_once('=') {
                        None if word == "bypass" => route.bypass = true,
                        Some(("mark", mark)) => route.mark = Some(mark.parse()?),
                        _ => return Err(bad()),
                    }
                }
                Ok(Self::Route(route))
            }
            _ => Err(bad()),
        }
    }
}

/// An inspector whose accepted packets go elsewhere.
#[derive(Debug)]
pub(super) struct Routed<I> {
    inspector: I,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Repeat(SendBack),
    Route(Route),
}

impl<I> Routed<I> {
    /// Around an inspector whose accepted packets are to be repeated.
    pub(super) const fn repeat(inspector: I, bits: MarkBits) -> Self {
        Self { inspector, way: Way::Repeat(SendBack::new(bits, "--repeat-mark")) }
    }

    /// Around an inspector whose accepted packets are to go to another queue.
    pub(super) const fn route(inspector: I, route: Route) -> Self {
        Self { inspector, way: Way::Route(route) }
    }

    #[inline]
    fn routed(&mut self, verdict: Verdict, mark: impl FnOnce() -> u32) -> Verdict {
        if verdict.code() != VerdictCode::Accept {
            return verdict;
        }
        match &mut self.way {
            Way::Repeat(send_back) => send_back.instead_of(verdict, mark()),
            Way::Route(route) => route.instead_of(verdict, mark),
        }
    }
}

impl Route {
    #[inline]
    fn instead_of(self, verdict: Verdict, mark: impl FnOnce() -> u32) -> Verdict {
        let plain = with_priority_of(verdict, Verdict::queue(self.queue));
        let routed = if self.bypass { plain.bypassing() } else { plain };
        match (self.mark, verdict.mark()) {
            (Some(bits), set) => routed.with_mark(bits.put_into(set.unwrap_or_else(mark))),
            (None, Some(set)) => routed.with_mark(set),
            (None, None) => routed,
        }
    }
}

impl<I: Inspector> Inspector for Routed<I> {
    #[inline]
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let verdict = self.inspector.inspect(packet);
        self.routed(verdict, || packet.mark())
    }

    fn batch_end(&mut self, now: Timestamp) {
        self.inspector.batch_end(now);
        if let Way::Repeat(send_back) = &mut self.way {
            send_back.batch_end();
        }
    }

    /// The mark of a packet that is not seen is not known: where one is set, its other bits are 0 then.
    fn unseen(&mut self) -> Verdict {
        let verdict = self.inspector.unseen();
        self.routed(verdict, || 0)
    }

    fn rewrite_refused(&mut self, error: RewriteError, verdict: Verdict) -> Verdict {
        self.inspector.rewrite_refused(error, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, PolicyInspector};

    fn accept() -> PolicyInspector {
        PolicyInspector::new(Policy::Accept, 0)
    }

    #[test]
    fn modes_read_what_the_help_says() {
        let mark = |text: &str| text.parse::<MarkBits>().unwrap();
        let route = |queue, bypass, mark| Ok(Mode::Route(Route { queue, bypass, mark }));
        assert_eq!("accept".parse(), Ok(Mode::Accept));
        assert_eq!("repeat:0x1/0x3".parse(), Ok(Mode::Repeat(mark("1/3"))));
        assert_eq!("route:7".parse(), route(7, false, None));
        assert_eq!("route:7,bypass".parse(), route(7, true, None));
        assert_eq!("route:7,mark=16/48,bypass".parse(), route(7, true, Some(mark("16/48"))));
        for text in [
            "",
            "repeat",
            "repeat:",
            "repeat:0",
            "route",
            "route:",
            "route:65536",
            "route:7,",
            "route:7,mark",
            "route:7,bypass=1",
            "accept:1",
        ] {
            assert!(text.parse::<Mode>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn only_accepts_go_elsewhere() {
        let mut routed = Routed::repeat(accept(), "1".parse().unwrap());
        assert_eq!(routed.routed(Verdict::DROP, || 2), Verdict::DROP);
        assert_eq!(routed.routed(Verdict::STOP, || 2), Verdict::STOP);
        assert_eq!(routed.routed(Verdict::ACCEPT, || 2), Verdict::REPEAT.with_mark(3));
        assert_eq!(routed.unseen(), Verdict::REPEAT.with_mark(1));
    }

    #[test]
    fn a_route_keeps_what_the_verdict_sets() {
        let routed = |text: &str, verdict| {
            let Ok(Mode::Route(route)) = text.parse() else { panic!("{text} is a route") };
            Routed::route(accept(), route).routed(verdict, || 0x2f)
        };
        let accept = Verdict::ACCEPT;
        assert_eq!(routed("route:7", accept), Verdict::queue(7));
        assert_eq!(routed("route:7,bypass", accept), Verdict::queue(7).bypassing());
        assert_eq!(routed("route:7", accept.with_mark(5)), Verdict::queue(7).with_mark(5));
        let marked = Verdict::queue(7).with_mark(0x1f);
        assert_eq!(routed("route:7,mark=0x10/0x30", accept), marked);
        let both = Verdict::queue(7).with_mark(0x15).with_priority(3);
        assert_eq!(routed("route:7,mark=0x10/0x30", accept.with_mark(5).with_priority(3)), both);
    }
}
