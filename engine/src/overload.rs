//! What to do when a queue grows faster than it is answered.
//!
//! Invariant: without it nothing is looked at and nothing is paid; the queue's own limit, and `fail_open`, decide
//! about packets that do not fit.

use crate::nfq::{CopyRange, Verdict};

/// How a worker relieves its queue under load. Needs `/proc/net/netfilter/nfnetlink_queue`, by which the depth is
/// known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverloadConfig {
    /// Packets waiting in one queue from which on they are shed; 1 up to the queue's maxlen. (The copy range shrinks at
    /// half of it.)
    pub depth: u32,
    /// What happens to all that is queued then.
    pub shed: Shed,
    /// How much of each packet is copied under load; back to the usual when the queue is empty.
    pub copy_range: Option<CopyRange>,
}

/// What happens to packets that are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shed {
    /// None is shed.
    #[default]
    Not,
    /// They pass, unseen.
    Accept,
    /// They are dropped, unseen.
    Drop,
}

impl Shed {
    pub(crate) const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Not => None,
            Self::Accept => Some(Verdict::ACCEPT),
            Self::Drop => Some(Verdict::DROP),
        }
    }
}
