//! The exported functions, in the place of the C library's, and the system calls of this library's own.
//!
//! ```text
//!   program -> recv (here) -> none of ours:          libc's recv
//!                          -> ring has one:          copied
//!                          -> else:                  recvmmsg without waiting, or libc's recv, which may wait
//! ```
//!
//! Invariant: what may wait is always the C library's own function, called with the program's own arguments and no lock
//! held: so time-outs, signals and thread cancellation are as without this library. What is done under a lock are bare
//! system calls, which are no cancellation points. No frame here owns anything while the program's call runs, so a
//! cancellation may unwind through it; the calls that may be served without it look for one first.

#![allow(unsafe_code, reason = "C calls these functions, and they call C")]

mod asleep;
mod descriptors;
mod kernel;
mod overdue;
mod process;
mod readiness;
mod real;
mod receive;
mod receive_many;
mod send;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::locked::Locked;
use crate::table::{self, Socket};
use kernel::KernelSocket;

/// Sends what any socket has joined: something is about to wait.
fn flush_all() {
    for socket in table::sockets() {
        flush(socket);
    }
}

fn flush(socket: &Locked<Socket>) {
    if let Some(mut guard) = socket.lock() {
        flush_held(&mut guard);
    }
}

/// The same of one that the caller has locked.
fn flush_held(socket: &mut Socket) {
    if let (Some(serving), Some(descriptor)) = (&mut socket.serving, socket.descriptors.first()) {
        serving.flush(&mut KernelSocket(*descriptor));
    }
}

/// Says on standard error what cannot be done, once for each `said`.
fn say_once(said: &AtomicBool, message: &str) {
    if !said.swap(true, Ordering::Relaxed) {
        kernel::write_error(format!("fanq accel: {message}\n").as_bytes());
    }
}

/// Sets errno, and returns what a failed call returns.
fn fail(errno: i32) -> isize {
    // SAFETY: it touches no memory of ours.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the calling thread's errno is always valid to write.
    unsafe { *place = errno };
    -1
}

/// The calling thread's errno.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
