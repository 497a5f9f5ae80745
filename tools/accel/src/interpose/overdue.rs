//! The thread that flushes for a program which has turned to something else: computing, sleeping, waiting for what this
//! library does not see.
//!
//! Invariant: no joined verdict waits longer than two of its ticks, whatever the program does. The thread begins when
//! first a verdict is left waiting, so under load only; sleeps for good while nothing waits; and takes none of the
//! program's signals. Where there can be no thread, whoever would leave a verdict waiting sends it instead.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{flush, kernel};
use crate::table;

/// Whether the thread is there, and ticks.
static STATE: AtomicU32 = AtomicU32::new(NONE);

/// Something waits: sees to it that the thread ticks. False if there is no thread to be had.
#[inline]
pub(super) fn watch() -> bool {
    // Relaxed: what matters is only that the thread is awake within a tick or so; its locks order the rest.
    STATE.load(Ordering::Relaxed) == TICKING || begin()
}

/// A child has none of its parent's threads.
pub(super) fn forked() {
    STATE.store(NONE, Ordering::Relaxed);
}

#[cold]
fn begin() -> bool {
    match STATE.swap(TICKING, Ordering::AcqRel) {
        IDLE => kernel::wake(&STATE),
        NONE => {
            let began = kernel::without_signals(|| {
                let thread = std::thread::Builder::new().name("fanq-accel".to_owned());
                thread.stack_size(STACK_BYTES).spawn(tick).is_ok()
            });
            if !began {
                STATE.store(NONE, Ordering::Release);
                return false;
            }
        }
        _ => {}
    }
    true
}

fn tick() {
    let mut quiet = 0;
    loop {
        kernel::rest(TICK);
        quiet = if flush_old() { 0 } else { quiet + 1 };
        if quiet < QUIET_MAX {
            continue;
        }
        quiet = 0;
        STATE.store(IDLE, Ordering::Release);
        // Whoever joins a verdict looks at STATE after it has let go of the lock; whoever did so before the store was
        // seen has left something that is found now.
        if flush_old() {
            STATE.store(TICKING, Ordering::Release);
        } else {
            kernel::wait_on(&STATE, IDLE);
            STATE.store(TICKING, Ordering::Release);
        }
    }
}

/// Flushes what has waited for a tick. Whether anything waits at all.
fn flush_old() -> bool {
    let mut waits = false;
    for socket in table::sockets() {
        // Whoever has it is at work on this very socket, and is looked at again at the next tick.
        let Some(mut guard) = socket.try_lock() else {
            waits = true;
            continue;
        };
        let Some(serving) = guard.serving.as_mut().filter(|serving| serving.has_pending()) else {
            continue;
        };
        waits = true;
        if serving.waits_since_last_look() {
            drop(guard);
            flush(socket);
        }
    }
    waits
}

const NONE: u32 = 0;
const IDLE: u32 = 1;
const TICKING: u32 = 2;

const TICK: Duration = Duration::from_millis(1);

/// Ticks without anything waiting after which the thread sleeps.
const QUIET_MAX: u32 = 100;

const STACK_BYTES: usize = 64 * 1024;
