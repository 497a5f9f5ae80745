//! Restart without loss: one process hands its queues, still bound, to the next.
//!
//! ```text
//!   the next one                                   the one that serves
//!   inspectors and threads ready
//!   ask ---------------------------------------->  is he of our user, does he speak our version?
//!       <----------------------------------------  offer, and a descriptor of each queue's socket
//!   are these our queues, may we serve them?
//!   take --------------------------------------->  workers stop receiving, answer what they hold
//!       <----------------------------------------  left: how far each queue was served, and the account so far
//!   adopts, serves
//!   serving ------------------------------------>  ends
//! ```
//!
//! Invariants: until `take` the one that serves does nothing but talk, so whatever fails before leaves all as it was.
//! It keeps its descriptors until `serving`, so if the next one fails after `take`, it takes its queues back. If it
//! dies itself, the next one goes on without its word. No wait is without end, on either side. What waits in a queue
//! meanwhile stays in the kernel.
//!
//! It deliberately moves no state of inspectors: flows and limits begin anew.

mod account;
mod channel;
mod giving;
mod message;
mod taking;

pub(crate) use giving::{Door, Request};
pub(crate) use message::{Left, LeftQueue};
pub(crate) use taking::{Predecessor, Taken};
