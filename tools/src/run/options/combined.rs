//! What options mean together.
//!
//! Invariant: a combination that cannot work, or would go round for ever, is refused before any queue is bound, with
//! what would be right.

use fanq::{CopyRange, QueueRange};

use super::super::bypass::{Bypass, BypassBy};
use super::super::mode::Mode;
use crate::mark::MarkBits;
use crate::usage;

/// A packet that is routed to a queue of ours would come back for ever.
pub(super) fn check_mode(mode: Mode, queues: QueueRange) -> anyhow::Result<()> {
    match mode {
        Mode::Route(route) if (queues.first()..=queues.last()).contains(&route.queue) => {
            Err(usage(format!(
                "mode route:{} leads back into the queues {queues}, for ever: name a queue of another program",
                route.queue
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn bypass(
    after: Option<u32>,
    mark: Option<MarkBits>,
    by: Option<BypassBy>,
) -> anyhow::Result<Option<Bypass>> {
    match (after, mark) {
        (Some(0), _) => {
            Err(usage("bypass-after 0 is out of range: a flow is known from its packet 1 on"))
        }
        (Some(after), Some(mark)) => Ok(Some(Bypass { after, mark, by: by.unwrap_or_default() })),
        (Some(_), None) => Err(usage(
            "bypass-after needs bypass-mark, the one that the rules have: --bypass-mark 0x1",
        )),
        (None, None) if by.is_none() => Ok(None),
        (None, _) => Err(usage("bypass-mark and bypass-by need bypass-after: --bypass-after 10")),
    }
}

/// Flows are told by addresses and ports.
pub(crate) fn check_headers_are_copied(copy_range: CopyRange) -> anyhow::Result<()> {
    let copied = match copy_range {
        CopyRange::Full => return Ok(()),
        CopyRange::Bytes(bytes) => bytes,
        CopyRange::Meta => 0,
    };
    if copied < HEADER_BYTES {
        return Err(usage(format!(
            "bypass-after tells flows by their headers, which a copy range of {copied} bytes leaves out: write \
             full, or {HEADER_BYTES} or more"
        )));
    }
    Ok(())
}

/// IPv4's longest header, and of TCP's as much as holds the ports and flags; IPv6's header is shorter.
const HEADER_BYTES: u16 = 60 + 14;
