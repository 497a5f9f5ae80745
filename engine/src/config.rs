//! How an engine is to run: one value, checked once, before anything is bound.
//!
//! Invariant: a checked configuration has every number in its range. The kernel may still refuse what it does
//! not support.

use std::time::Duration;

use crate::deferral::{DeferralConfig, WhenFull};
use crate::fault::{Fate, FaultConfig};
use crate::nfq::CopyRange;
use crate::overload::{OverloadConfig, Shed};
use crate::placement::Placement;
use crate::queue_range::QueueRange;
use crate::wish::FlagWishes;

/// Bytes in a mebibyte.
pub const MIB: u32 = 1 << 20;

/// What a worker does when nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Sleep until a packet comes.
    #[default]
    Block,
    /// Look again for so long, then sleep. Saves the wake-up at the price of a busy CPU.
    Spin(Duration),
}

/// Everything that an engine is started with. Its fields are documented at the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// See [`EngineBuilder::queues`](crate::EngineBuilder::queues).
    pub queues: QueueRange,
    /// See [`EngineBuilder::placement`](crate::EngineBuilder::placement).
    pub placement: Placement,
    /// See [`EngineBuilder::batch`](crate::EngineBuilder::batch).
    pub batch: usize,
    /// See [`EngineBuilder::wait`](crate::EngineBuilder::wait).
    pub wait: Wait,
    /// See [`EngineBuilder::nice`](crate::EngineBuilder::nice).
    pub nice: i8,
    /// See [`EngineBuilder::deferral`](crate::EngineBuilder::deferral).
    pub deferral: Option<DeferralConfig>,
    /// See [`EngineBuilder::overload`](crate::EngineBuilder::overload).
    pub overload: Option<OverloadConfig>,
    /// See [`EngineBuilder::fault`](crate::EngineBuilder::fault).
    pub fault: FaultConfig,
    /// See [`EngineBuilder::on_exit`](crate::EngineBuilder::on_exit).
    pub on_exit: Option<Fate>,
    /// See [`EngineBuilder::on_watchdog_start`](crate::EngineBuilder::on_watchdog_start).
    pub watchdog_begins: Option<ThreadBegins>,
    /// How each queue is set up.
    pub queue: QueueConfig,
}

/// How one queue is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// See [`EngineBuilder::copy_range`](crate::EngineBuilder::copy_range).
    pub copy_range: CopyRange,
    /// See [`EngineBuilder::queue_maxlen`](crate::EngineBuilder::queue_maxlen).
    pub maxlen: u32,
    /// See [`EngineBuilder::rcvbuf`](crate::EngineBuilder::rcvbuf).
    pub rcvbuf: u32,
    /// See [`EngineBuilder::flag`](crate::EngineBuilder::flag).
    pub flags: FlagWishes,
}

/// What a thread does first.
#[derive(Debug, Clone, Copy)]
pub struct ThreadBegins(pub fn());

impl PartialEq for ThreadBegins {
    /// Whether both are surely the same function.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for ThreadBegins {}

impl EngineConfig {
    /// The most packets that one receive takes.
    pub const BATCH_MAX: usize = 1024;

    /// The defaults, for these queues.
    pub fn new(queues: QueueRange) -> Self {
        Self {
            queues,
            placement: Placement::default(),
            batch: 64,
            wait: Wait::default(),
            nice: -5,
            deferral: None,
            overload: None,
            fault: FaultConfig::default(),
            on_exit: None,
            watchdog_begins: None,
            queue: QueueConfig {
                copy_range: CopyRange::default(),
                maxlen: 16_384,
                rcvbuf: 64 * MIB,
                flags: FlagWishes::default(),
            },
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first that is out of its range, with the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |what, value: i64, min, max| {
            let fits = (min..=max).contains(&value);
            if fits { Ok(()) } else { Err(ConfigError::OutOfRange { what, value, min, max }) }
        };
        range("nice", self.nice.into(), -20, 19)?;
        let wide = |packets: usize| i64::try_from(packets).unwrap_or(i64::MAX);
        range("batch", wide(self.batch), 1, wide(Self::BATCH_MAX))?;
        range("queue-maxlen", self.queue.maxlen.into(), 1, QUEUE_MAXLEN_MAX)?;
        let rcvbuf_max = i32::MAX.unsigned_abs() / 2;
        range("rcvbuf", self.queue.rcvbuf.into(), 4096, rcvbuf_max.into())?;
        if let CopyRange::Bytes(bytes) = self.queue.copy_range {
            range("copy-range", bytes.into(), 1, CopyRange::BYTES_MAX.into())?;
        }
        if let Some(deferral) = &self.deferral {
            let least = if deferral.when_full == WhenFull::Wait { wide(self.batch) } else { 1 };
            let most = wide(deferral.outstanding_max);
            range("deferral outstanding", most, least, QUEUE_MAXLEN_MAX)?;
            let millis = i64::try_from(deferral.deadline.as_millis()).unwrap_or(i64::MAX);
            range("deferral deadline ms", millis, 1, DEADLINE_MS_MAX)?;
        }
        if let Some(overload) = &self.overload {
            range("overload depth", overload.depth.into(), 1, self.queue.maxlen.into())?;
            if overload.shed != Shed::Not && self.deferral.is_some() {
                return Err(ConfigError::ShedsDeferred);
            }
        }
        range("panics-max", self.fault.panics_max.into(), 1, PANICS_MAX)?;
        if let Some(deadline) = self.fault.deadline {
            let millis = i64::try_from(deadline.limit.as_millis()).unwrap_or(i64::MAX);
            range("inspect-deadline ms", millis, 1, DEADLINE_MS_MAX)?;
        }
        if let Wait::Spin(time) = self.wait {
            let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
            range("wait spin", micros, 1, SPIN_US_MAX)?;
        }
        Ok(())
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number that is out of its range.
    #[error("{what} {value} is out of range: {min} to {max}")]
    OutOfRange {
        /// Which setting.
        what: &'static str,
        /// What it was.
        value: i64,
        /// The least that is allowed.
        min: i64,
        /// The most that is allowed.
        max: i64,
    },
    /// Packets that other threads are deciding would be answered over their heads.
    #[error(
        "packets cannot be shed where packets are deferred; leave on-overload at none and let the deferral's limit hold packets back, or decide packets in the worker"
    )]
    ShedsDeferred,
}

/// Kernels that look packets up in a hash table hold 65,536 in a queue whatever its length says; beyond that they
/// lose ids as if the socket had overflowed (`NFQNL_HASH_MAX` in net/netfilter/nfnetlink_queue.c).
const QUEUE_MAXLEN_MAX: i64 = 65_535;

/// The kernel itself keeps a queued packet for ever; an hour is longer than any connection waits.
const DEADLINE_MS_MAX: i64 = 3_600_000;

/// More than sixteen new inspectors a second help nobody.
const PANICS_MAX: i64 = 1000;

/// A second of spinning is no waiting strategy any more.
const SPIN_US_MAX: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::InspectDeadline;

    const DEFERRAL: DeferralConfig = DeferralConfig {
        outstanding_max: 64,
        deadline: Duration::from_secs(1),
        when_full: WhenFull::Wait,
    };
    const SHED: OverloadConfig = OverloadConfig { depth: 100, shed: Shed::Drop, copy_range: None };

    #[test]
    fn defaults_are_in_range_and_each_number_is_checked() {
        let good = EngineConfig::new("0".parse().unwrap());
        assert_eq!(good.check(), Ok(()));
        let bad: [fn(&mut EngineConfig); 17] = [
            |c| c.fault.panics_max = 0,
            |c| c.fault.panics_max = 1001,
            |c| {
                let limit = Duration::from_micros(999);
                c.fault.deadline = Some(InspectDeadline { limit, required: true });
            },
            |c| c.nice = -21,
            |c| c.queue.maxlen = 65_536,
            |c| c.batch = 0,
            |c| c.batch = 1025,
            |c| c.queue.maxlen = 0,
            |c| c.queue.rcvbuf = 100,
            |c| c.queue.rcvbuf = u32::MAX,
            |c| c.queue.copy_range = CopyRange::Bytes(0),
            |c| c.wait = Wait::Spin(Duration::from_secs(2)),
            |c| c.deferral = Some(DeferralConfig { outstanding_max: 63, ..DEFERRAL }),
            |c| c.deferral = Some(DeferralConfig { deadline: Duration::ZERO, ..DEFERRAL }),
            |c| c.overload = Some(OverloadConfig { depth: 0, ..SHED }),
            |c| c.overload = Some(OverloadConfig { depth: 16_385, ..SHED }),
            |c| (c.overload, c.deferral) = (Some(SHED), Some(DEFERRAL)),
        ];
        for change in bad {
            let mut config = good.clone();
            change(&mut config);
            assert!(config.check().is_err(), "{config:?} was taken");
        }
    }
}
