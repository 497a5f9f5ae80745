//! What happens to packets when their inspector fails, and how that is told.
//!
//! Invariant: a failing inspector costs its own queue's packets the verdict that was chosen for this, and is reported
//! once each time; no other queue notices. It deliberately says nothing of overload, which is no fault.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::nfq::{PacketId, Verdict};

/// What becomes of packets that nobody judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// They are dropped: what cannot be judged does not pass.
    #[default]
    Drop,
    /// They pass: the network goes on without its judge.
    Accept,
}

impl Fate {
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Drop => Verdict::DROP,
            Self::Accept => Verdict::ACCEPT,
        }
    }
}

impl From<Fate> for Verdict {
    fn from(fate: Fate) -> Self {
        fate.verdict()
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Accept => "accept",
        })
    }
}

/// What a worker does when its inspector panics, and when it does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultConfig {
    /// What packets get whose inspector panicked or missed its deadline.
    pub on_fault: Fate,
    /// Panics within a minute from which on the worker makes no new inspector and stays on `on_fault`; 1 to 1,000.
    pub panics_max: u32,
    /// By when an inspector must be back; without it nobody looks.
    pub deadline: Option<InspectDeadline>,
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self { on_fault: Fate::default(), panics_max: 5, deadline: None }
    }
}

/// How long a worker may be at one batch of packets, and whether the engine starts where nobody can see to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectDeadline {
    /// How long, 1 ms to 1 hour. Beyond it the queue is answered from outside.
    pub limit: Duration,
    /// Whether the start fails without `/proc/net/netfilter/nfnetlink_queue`, by which is known what is queued. If
    /// not, it is a warning.
    pub required: bool,
}

/// Something that went wrong with an inspector, or is well again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultReport {
    /// It panicked. There is a new one, unless the worker gave up.
    Panicked {
        /// Its queue.
        queue: u16,
        /// The packet that it was shown, if it was at one.
        packet: Option<PacketId>,
        /// What the panic said. (Where it was, the panic hook has said.)
        message: String,
    },
    /// There will be no new inspector: the worker stays on the policy.
    GaveUp {
        /// Its queue.
        queue: u16,
        /// Panics within a minute.
        panics: u32,
        /// The policy.
        on_fault: Fate,
    },
    /// A worker has not come back, or those have not to whom it has deferred as many packets as it may.
    Stuck {
        /// Its queue.
        queue: u16,
        /// The packet that its inspector was shown, if it was at one.
        packet: Option<PacketId>,
        /// For how long so far.
        since: Duration,
        /// What its queue gets meanwhile.
        on_fault: Fate,
    },
    /// It has come back.
    Resumed {
        /// Its queue.
        queue: u16,
        /// After how long.
        after: Duration,
        /// Packets that were answered meanwhile.
        answered: u64,
    },
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |packet: &Option<PacketId>| {
            packet.map_or_else(String::new, |id| format!(" at packet {}", id.0))
        };
        match self {
            Self::Panicked { queue, packet, message } => {
                write!(f, "queue {queue}: the inspector panicked{}: {message}", at(packet))
            }
            Self::GaveUp { queue, panics, on_fault } => write!(
                f,
                "queue {queue}: {panics} panics within a minute: no new inspector is made, every packet gets `{on_fault}` (on-fault) until a restart"
            ),
            Self::Stuck { queue, packet, since, on_fault } => write!(
                f,
                "queue {queue}: the inspector has not come back{} for {since:.1?}: its queue gets `{on_fault}` (on-fault) until it does",
                at(packet)
            ),
            Self::Resumed { queue, after, answered } => write!(
                f,
                "queue {queue}: the inspector is back after {after:.1?}; {answered} packets were answered meanwhile"
            ),
        }
    }
}

/// Reports on their way from workers and watchdog to the engine's owner.
#[derive(Debug)]
pub(crate) struct FaultReports {
    list: Mutex<Vec<FaultReport>>,
    waker: Arc<mio::Waker>,
}

impl FaultReports {
    pub(crate) fn new(waker: Arc<mio::Waker>) -> Self {
        Self { list: Mutex::default(), waker }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultReport>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a report and ends the engine's wait. Beyond a number that nobody has read it is left out: the counters
    /// have it.
    pub(crate) fn post(&self, report: FaultReport) {
        let mut list = self.lock();
        if list.len() < REPORTS_MAX {
            list.push(report);
        }
        drop(list);
        self.wake();
    }

    /// Ends the engine's wait.
    pub(crate) fn wake(&self) {
        // If the eventfd cannot be written, the next wake-up finds what is to be seen.
        let _ = self.waker.wake();
    }

    pub(crate) fn take(&self) -> Vec<FaultReport> {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Unread reports. Workers have each their own limit of panics; this is for an owner that never looks.
const REPORTS_MAX: usize = 1000;
