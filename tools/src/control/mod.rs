//! The control socket of a running `fanq run`, or `fanq accel`: statistics, and the settings that may change meanwhile.
//!
//! ```text
//! protocol   requests and answers: one line of JSON each
//! place      where: an abstract name in the network namespace, or a file
//! service    the run's side
//! client     the asker's side
//! command    `fanq control`
//! ```
//!
//! Invariant: only root and the user of the running program are answered, and only by a program of root's or of their
//! own do they let themselves be told anything. docs/CONTROL.md has the protocol.

pub(crate) mod client;
mod command;
pub(crate) mod place;
pub(crate) mod protocol;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use command::{ControlArgs, run};
pub(crate) use place::ControlPlace;
pub(crate) use service::{Controlled, OpenControl, ServedControl};
