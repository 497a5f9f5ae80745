//! Flow bypass after so many packets, as a wrapper around any inspector: docs/FLOW_BYPASS.md.
//!
//! Invariant: a flow is bypassed only by a packet that the inspector itself accepts, and only after so many packets
//! of it were seen by this worker. It deliberately leaves alone what it cannot name a flow of (no payload, no IP).

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
    /// None if the verdict sets the connection mark.
    send_back: Option<SendBack>,
    flows: FlowCounts,
}

impl<I> BypassAfter<I> {
    pub(super) fn new(inspector: I, bypass: Bypass) -> Self {
        let Bypass { after, mark, by } = bypass;
        let send_back = (by == BypassBy::Mark).then(|| SendBack::new(mark, "--bypass-mark"));
        Self { inspector, after, mark, send_back, flows: FlowCounts::new() }
    }
}

impl<I: Inspector> Inspector for BypassAfter<I> {
    #[inline]
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let verdict = self.inspector.inspect(packet);
        if verdict.code() != VerdictCode::Accept {
            return verdict;
        }
        match self.flows.count(packet.message().payload()) {
            Some(packets) if packets >= self.after => {}
            _ => return verdict,
        }
        if let Some(send_back) = &mut self.send_back {
            return send_back.instead_of(verdict, packet.mark());
        }
        packet.conntrack_mut().mark = Some((self.mark.value(), self.mark.mask()));
        verdict
    }

    fn batch_end(&mut self, now: Timestamp) {
        self.inspector.batch_end(now);
        if let Some(send_back) = &mut self.send_back {
            send_back.batch_end();
        }
    }

    fn unseen(&mut self) -> Verdict {
        self.inspector.unseen()
    }

    fn rewrite_refused(&mut self, error: RewriteError, verdict: Verdict) -> Verdict {
        self.inspector.rewrite_refused(error, verdict)
    }
}
