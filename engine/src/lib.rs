//! fanq: a per-CPU NFQUEUE engine.
//!
//! The kernel spreads packets over a range of queues by CPU (`nft ... queue flags fanout to 0-3`). fanq serves
//! each queue by a worker of its own, pinned to the CPU that fills it: it receives many packets with one system
//! call, has each decided by an [`Inspector`], and answers them with as few messages as the kernel allows.
//!
//! ```no_run
//! use fanq::{Engine, Inspector, Packet, Verdict};
//!
//! struct DropFragments;
//!
//! impl Inspector for DropFragments {
//!     fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
//!         let fragment = packet.payload().get(6..8).is_some_and(|f| f[0] & 0x3f != 0 || f[1] != 0);
//!         if packet.protocol() == 0x0800 && fragment { Verdict::DROP } else { Verdict::ACCEPT }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut engine = Engine::builder().queues("0-3".parse()?).start(|_worker| DropFragments)?;
//! engine.wait(Some(std::time::Duration::from_secs(60)))?;
//! let stopped = engine.shutdown(std::time::Duration::from_secs(1));
//! println!("{} packets", stopped.stats.totals().packets);
//! # Ok(())
//! # }
//! ```
//!
//! Modules, in the order in which a packet passes them: [`nfq`] decodes it, the worker hands it to the
//! inspector, the [`Coalescer`] joins verdicts, and `nfq` encodes them. docs/ARCHITECTURE.md has the map.
//!
//! The library installs no rules, prints nothing and reads no configuration files: that is the `fanq` program.

mod bound_queue;
mod builder;
mod config;
mod cpus;
mod deferral;
mod edits;
mod engine;
mod fault;
mod inspect;
mod kernel_table;
mod monitor;
pub mod nfq;
mod overload;
mod pin;
pub mod pipeline;
mod placement;
mod pulse;
mod queue;
mod queue_range;
mod start;
mod stats;
mod sys;
mod verdicts;
mod watchdog;
pub mod wire;
mod wish;
mod worker;

pub use bound_queue::{BoundQueue, BoundQueueError};
pub use builder::EngineBuilder;
pub use config::{ConfigError, EngineConfig, MIB, QueueConfig, ThreadBegins, Wait};
pub use cpus::{CpuId, CpuList, CpuListError};
pub use deferral::{DeferError, DeferralConfig, Deferred, WhenFull};
pub use edits::{Edits, RewriteError};
pub use engine::{Engine, Event, Interrupter, PreparedEngine, Released, ReleasedQueue, Stopped};
pub use fault::{Fate, FaultConfig, FaultReport, InspectDeadline};
pub use inspect::{Inspector, Packet, WorkerInfo};
pub use kernel_table::{KernelRow, KernelTable, PortOwner};
pub use monitor::Monitor;
pub use nfq::{ConfigFlags, ConntrackEdit, CopyRange, QueueFlag, Verdict, VerdictCode};
pub use overload::{OverloadConfig, Shed};
pub use placement::{Assignment, Placement, PlacementError, PlacementWarning, Plan};
pub use pulse::Pulse;
pub use queue::QueueError;
pub use queue_range::{QueueRange, QueueRangeError};
pub use start::{StartError, StartWarning};
pub use stats::{BATCH_SIZE_CLASSES, BATCH_TIME_CLASSES, Counts, EngineStats, QueueStats};
pub use sys::{
    CpuTime, Timestamp, allowed_cpus, cpu_time, current_cpu, inherited_descriptor, pin_to,
    take_priority,
};
pub use verdicts::Coalescer;
pub use wish::{FlagWish, FlagWishError, FlagWishes};
pub use worker::WorkerError;

/// The examples of the page on inspectors must compile and hold.
#[cfg(doctest)]
#[doc = include_str!("../../docs/WRITING_AN_INSPECTOR.md")]
struct WritingAnInspector;

/// The page's examples must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/DEFERRAL.md")]
struct DeferralPage;

/// The page's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/RESTARTS.md")]
struct RestartsPage;

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
