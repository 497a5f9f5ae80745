//! Rules read again, beside the main thread: that has a service manager to tell that all is well, and large rules take
//! longer to compile than the manager waits.
//!
//! Invariant: nothing is in force before the main thread has taken the outcome. The thread has what the main thread
//! may do, and nothing more; it is gone when the outcome is there.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};

use super::watch::{Asker, Orders};
use crate::inspector::{NextRules, SharedPolicy};

/// A reading that has begun.
pub(super) struct Reading {
    outcome: Receiver<anyhow::Result<NextRules>>,
    thread: Option<JoinHandle<()>>,
    /// Who asked before it began.
    pub(super) askers: Vec<Asker>,
}

impl Reading {
    /// Begins. The main thread is woken at the end.
    pub(super) fn begin(control: SharedPolicy, askers: Vec<Asker>, orders: Orders) -> Self {
        let (sender, outcome) = channel();
        let refused = sender.clone();
        let read = move || {
            // Nobody takes it if the program ends meanwhile.
            let _ = sender.send(control.read_again());
            orders.nudge();
        };
        let thread = std::thread::Builder::new().name("fanq-rules".to_owned()).spawn(read);
        let thread = thread.context("starting the thread that reads the rules").map_err(|error| {
            let _ = refused.send(Err(error));
        });
        Self { outcome, thread: thread.ok(), askers }
    }

    /// What came of it, once.
    pub(super) fn outcome(&mut self) -> Option<anyhow::Result<NextRules>> {
        let outcome = match self.outcome.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(anyhow!("reading the rules panicked")),
            Ok(outcome) => outcome,
        };
        if let Some(thread) = self.thread.take() {
            // A panic is in the outcome.
            let _ = thread.join();
        }
        Some(outcome)
    }
}
