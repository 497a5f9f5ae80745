//! Deferral: one thread receives, another decides. All that the kernel needs for a verdict is the packet's id.
//!
//! ```text
//!   worker                                             any other thread
//!   inspect: packet.defer() ---- Deferred ---------->  looks at it, for as long as it likes
//!            hold in the coalescer                     deferred.answer(verdict), or drops it
//!   next turn: collect <------- mailbox ------------   (and the worker is woken, if it sleeps)
//!            answer, joined where rule 1 allows
//! ```
//!
//! Invariants: every deferred packet gets one verdict: the answer's; or the one that
//! [`Inspector::inspect`](crate::Inspector::inspect) returned for it, when its handle is dropped, its deadline passes
//! or the engine stops. A handle answers once, which its type sees to. The packet's memory goes to the other thread
//! and back and is not copied. At most `outstanding_max` handles exist at a time. It deliberately knows no threads:
//! the [`pipeline`](crate::pipeline) does.

mod deferred;
mod mailbox;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use deferred::Answer;
pub use deferred::Deferred;
pub(crate) use mailbox::{Mailbox, Wake};

use crate::queue::WeakQueueWaker;

/// The mailbox of one worker. Whoever has a handle has this, and must not keep the queue bound by it.
pub(crate) type Answers = Mailbox<Answer, WeakQueueWaker>;

/// Lets inspectors defer packets. Without it [`Packet::defer`](crate::Packet::defer) is refused, and nothing is set
/// aside for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeferralConfig {
    /// The most packets of one queue that may be deferred at a time, 1 to 65,535. Each has receive memory of its own:
    /// the copy range and a kilobyte.
    pub outstanding_max: usize,
    /// How long a packet may wait for its answer, 1 ms to 1 hour. Then it gets the verdict that
    /// [`inspect`](crate::Inspector::inspect) returned for it.
    pub deadline: Duration,
    /// What happens when so many are deferred already.
    pub when_full: WhenFull,
}

impl Default for DeferralConfig {
    fn default() -> Self {
        Self {
            outstanding_max: 1024,
            deadline: Duration::from_secs(1),
            when_full: WhenFull::default(),
        }
    }
}

/// What a worker does while no more packets can be deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// It receives no more until answers come: packets wait in the kernel's queue, and the queue's own limit (and
    /// `fail_open`) decides about those that do not fit. [`Packet::defer`](crate::Packet::defer) never fails.
    #[default]
    Wait,
    /// It goes on; [`Packet::defer`](crate::Packet::defer) is refused, and the inspector decides at once.
    Refuse,
}

/// Why a packet cannot be deferred. The inspector decides it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeferError {
    /// The engine was started without it.
    #[error("this engine defers no packets; start it with EngineBuilder::deferral")]
    NotConfigured,
    /// As many are deferred as may be.
    #[error("{outstanding} packets of this queue are deferred, which is the most allowed")]
    Full {
        /// How many.
        outstanding: usize,
    },
    /// This packet has a handle already.
    #[error("this packet is deferred already")]
    Twice,
}

/// What a worker's packets need to be deferred.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) answers: Arc<Answers>,
    pub(crate) config: DeferralConfig,
    /// The most packets that one receive brings.
    pub(crate) batch: usize,
    /// Handles that have not come back.
    pub(crate) outstanding: usize,
    /// Whether the last receive left nothing behind.
    pub(crate) took_all: bool,
    /// Whether the worker waits for others and for nothing else, and shows no life.
    pub(crate) deserted: bool,
    /// What happens, in a test of one thread, while the worker waits for answers.
    #[cfg(test)]
    pub(crate) meanwhile: Option<fn()>,
}

impl Gate {
    pub(crate) fn new(answers: Arc<Answers>, config: DeferralConfig, batch: usize) -> Self {
        Self {
            answers,
            config,
            batch,
            outstanding: 0,
            took_all: false,
            deserted: false,
            #[cfg(test)]
            meanwhile: None,
        }
    }

    /// Lets one more through.
    pub(crate) fn pass(&mut self) -> Result<Arc<Answers>, DeferError> {
        if self.outstanding >= self.config.outstanding_max {
            return Err(DeferError::Full { outstanding: self.outstanding });
        }
        self.outstanding += 1;
        Ok(Arc::clone(&self.answers))
    }
}

impl Drop for Gate {
    /// The worker ends: from now on answers come too late.
    fn drop(&mut self) {
        self.answers.close();
    }
}
