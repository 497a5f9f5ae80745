//! Flow bypass after so many packets, as a wrapper around any inspector: docs/FLOW_BYPASS.md.
//!
//! Invariant: a flow is bypassed only by a packet that the inspector itself accepts, and only after so many packets
//! of it were seen by this worker. It deliberately leaves alone what it cannot name a flow of (no payload, no IP,
//! a fragment, ports behind extension headers).

use clap::ValueEnum;
use fanq::{Inspector, Packet, RewriteError, Timestamp, Verdict, VerdictCode};
use serde::Deserialize;

use super::flow_counts::FlowCounts;
use super::send_back::SendBack;
use crate::mark::MarkBits;

/// When and how flows are bypassed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bypass {
    /// The packet of a flow with which it is bypassed, from 1.
    pub(crate) after: u32,
    pub(crate) mark: MarkBits,
    pub(crate) by: BypassBy,
}

/// Who sets the connection mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BypassBy {
    /// The rules, for a packet that comes back with the mark.
    #[default]
    Mark,
    /// The verdict itself (`NFQA_CT`).
    Ct,
}

/// An inspector whose flows are bypassed after so many packets.
#[derive(Debug)]
pub(super) struct BypassAfter<I> {
    inspector: I,
    after: u32,
    mark: MarkBits,
    way: Way,
    flows: FlowCounts,
}

/// How the connection mark is set.
#[derive(Debug)]
enum Way {
    Rules(SendBack),
    Verdict(Unheard),
}

impl<I> BypassAfter<I> {
    pub(super) fn new(inspector: I, bypass: Bypass) -> Self {
        let Bypass { after, mark, by } = bypass;
        let way = match by {
            BypassBy::Mark => Way::Rules(SendBack::new(mark, "--bypass-mark")),
            BypassBy::Ct => Way::Verdict(Unheard::default()),
        };
        Self { inspector, after, mark, way, flows: FlowCounts::new() }
    }
}

impl<I: Inspector> Inspector for BypassAfter<I> {
    #[inline]
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let verdict = self.inspector.inspect(packet);
        if verdict.code() != VerdictCode::Accept {
            return verdict;
        }
        let Some(packets) = self.flows.count(packet.message().payload()) else { return verdict };
        if packets < self.after {
            return verdict;
        }
        match &mut self.way {
            Way::Rules(send_back) => send_back.instead_of(verdict, packet.mark()),
            Way::Verdict(unheard) => {
                unheard.note(packets - self.after);
                packet.conntrack_mut().mark = Some((self.mark.value(), self.mark.mask()));
                verdict
            }
        }
    }

    fn batch_end(&mut self, now: Timestamp) {
        self.inspector.batch_end(now);
        match &mut self.way {
            Way::Rules(send_back) => send_back.batch_end(),
            Way::Verdict(unheard) => unheard.batch_end(self.mark),
        }
    }

    fn unseen(&mut self) -> Verdict {
        self.inspector.unseen()
    }

    fn rewrite_refused(&mut self, error: RewriteError, verdict: Verdict) -> Verdict {
        self.inspector.rewrite_refused(error, verdict)
    }
}

/// Finds out that connection marks have no effect: a kernel that cannot set them from a verdict does not say so.
#[derive(Debug, Default)]
struct Unheard {
    found: bool,
    said: bool,
}

impl Unheard {
    /// A flow's packet, so many after the one with which the flow was bypassed.
    #[inline]
    fn note(&mut self, packets_after: u32) {
        self.found |= packets_after > ON_THEIR_WAY_MAX;
    }

    fn batch_end(&mut self, mark: MarkBits) {
        if self.found && !self.said {
            self.said = true;
            eprintln!(
                "warning: a flow still comes to the queue {ON_THEIR_WAY_MAX} packets after it was bypassed. Either the \
                 rules do not know its mark (fanq rules install --bypass-mark {mark}), or this kernel takes no \
                 connection marks from verdicts (modprobe nf_conntrack_netlink; it needs \
                 CONFIG_NETFILTER_NETLINK_GLUE_CT): then use --bypass-by mark"
            );
        }
    }
}

/// More cannot have waited in the queue when the mark was set: it holds 65,535 at most.
const ON_THEIR_WAY_MAX: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_without_effect_are_found_once_nothing_can_be_on_its_way_any_more() {
        let mut unheard = Unheard::default();
        unheard.note(ON_THEIR_WAY_MAX);
        assert!(!unheard.found);
        unheard.note(ON_THEIR_WAY_MAX + 1);
        unheard.note(0);
        unheard.batch_end("1".parse().unwrap());
        assert!(unheard.found && unheard.said);
    }
}
