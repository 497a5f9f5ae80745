//! The only unsafe code of the engine: the system calls that no safe crate offers.
//!
//! Invariant: every block says which obligation it has and what meets it; nothing above this module needs to
//! know a pointer. It deliberately decides nothing: what an error means for the engine is the caller's.

#![allow(unsafe_code, reason = "system calls live here and nowhere else")]

mod clock;
mod cpu;
mod given;
mod receive;
mod socket;

pub use clock::{CpuTime, Timestamp, cpu_time};
pub(crate) use cpu::{ThreadId, allow_cpus, prefer_short_turns};
pub use cpu::{allowed_cpus, current_cpu, pin_to, take_priority};
pub use given::inherited_descriptor;
pub(crate) use given::{as_netlink, is_netfilter, net_namespace, netlink_port};
pub(crate) use receive::{LentDatagram, ReceiveError, ReceiveRing, wait_readable};
pub(crate) use socket::{ReceiveBuffer, open_netfilter, set_receive_buffer};
