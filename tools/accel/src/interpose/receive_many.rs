//! `recvmmsg`: what the ring has comes first; the rest is the C library's call.
//!
//! Invariant: as of the kernel's own, but that an error comes behind what was received before it: it is kept for the
//! next receive, as the kernel keeps it (net/socket.c: do_recvmmsg). Where replies may come that are not for the
//! program, datagrams are asked for one at a time, so that none of them gets a place among the program's headers.

use std::ffi::{c_int, c_uint};

use libc::{mmsghdr, timespec};

use super::receive::{PREFIX, has_datagrams, note, prefix, receive};
use super::{errno, fail, flush_held, kernel, real};
use crate::locked::Locked;
use crate::table::{self, Socket};

/// recvmmsg(2)
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    mut flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let Some(socket) = table::socket(fd).filter(|_| count > 0 && !messages.is_null()) else {
        // SAFETY: the arguments are the program's, passed on unchanged.
        return unsafe { real::recvmmsg(fd, messages, count, flags, timeout) };
    };
    kernel::end_if_cancelled();
    let mut taken = 0;
    loop {
        // SAFETY: by contract there are `count` headers.
        taken += unsafe { from_ring(fd, socket, messages, taken..count, flags) };
        if taken == count {
            return c_int::try_from(taken).unwrap_or(c_int::MAX);
        }
        if taken > 0 && flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        let one_by_one = match begin(socket, taken > 0) {
            Begun::RingFilled => continue,
            Begun::Nothing => return c_int::try_from(taken).unwrap_or(c_int::MAX),
            Begun::Owed(errno) => {
                fail(errno);
                return -1;
            }
            Begun::Receiving { one_by_one } => one_by_one,
        };
        let most = if one_by_one { 1 } else { count - taken };
        // SAFETY: `taken` is less than `count`.
        let rest = unsafe { messages.add(taken as usize) };
        // SAFETY: the arguments are the program's; the headers are some of those that are left.
        let received = unsafe { real::recvmmsg(fd, rest, most, flags, timeout) };
        // SAFETY: the kernel has filled so many headers.
        let hidden = unsafe { end(fd, socket, rest, received, flags, taken > 0) };
        let Ok(received) = c_uint::try_from(received) else {
            return if taken > 0 { c_int::try_from(taken).unwrap_or(c_int::MAX) } else { -1 };
        };
        if hidden {
            continue;
        }
        taken += received;
        // SAFETY: by contract it is a time-out or null. The kernel has put into it what is left.
        let expired =
            unsafe { timeout.as_ref() }.is_some_and(|time| time.tv_sec == 0 && time.tv_nsec == 0);
        if !one_by_one || taken == count || received == 0 || expired {
            return c_int::try_from(taken).unwrap_or(c_int::MAX);
        }
    }
}

/// Hands out what the ring has into these headers, and returns how many were filled.
///
/// # Safety
/// There are headers up to the end of `places`.
unsafe fn from_ring(
    fd: c_int,
    socket: &'static Locked<Socket>,
    messages: *mut mmsghdr,
    places: std::ops::Range<c_uint>,
    flags: c_int,
) -> c_uint {
    let mut taken = 0;
    for place in places {
        if !has_datagrams(socket) {
            break;
        }
        // SAFETY: the caller's.
        let message = unsafe { messages.add(place as usize) };
        // SAFETY: this is one of them.
        let message = unsafe { &mut *message };
        let nothing = || fail(libc::EAGAIN);
        // SAFETY: the header is the program's.
        let received = unsafe { receive(fd, socket, &mut message.msg_hdr, flags, nothing) };
        let Ok(received) = c_uint::try_from(received) else { break };
        message.msg_len = received;
        taken += 1;
    }
    taken
}

enum Begun {
    /// Another thread has received more than it asked for, just now.
    RingFilled,
    /// The kernel has told an errno before, for the program's next receive.
    Owed(i32),
    /// The same, and this receive has datagrams: so not for this one.
    Nothing,
    /// This thread counts among those that receive.
    Receiving { one_by_one: bool },
}

/// The thread goes into the kernel for what the ring has not got. `has_some` if the program gets datagrams anyway.
fn begin(socket: &Locked<Socket>, has_some: bool) -> Begun {
    let Some(mut guard) = socket.lock() else { return Begun::Receiving { one_by_one: false } };
    let mut one_by_one = false;
    if let Some(serving) = &mut guard.serving {
        if !serving.ring.is_empty() {
            return Begun::RingFilled;
        }
        match serving.owed() {
            Some(_) if has_some => return Begun::Nothing,
            Some(errno) => {
                serving.owe(None);
                return Begun::Owed(errno);
            }
            None => {}
        }
        one_by_one = serving.may_hide();
        serving.readers.enter();
    }
    flush_held(&mut guard);
    guard.threads.receiving += 1;
    Begun::Receiving { one_by_one }
}

/// The thread is back with the kernel's result. `has_some` if the program gets datagrams even so. True if the one that
/// was received is not for the program.
///
/// # Safety
/// `received` headers were filled.
unsafe fn end(
    fd: c_int,
    socket: &Locked<Socket>,
    messages: *const mmsghdr,
    received: c_int,
    flags: c_int,
    has_some: bool,
) -> bool {
    let before = errno();
    let mut hidden = false;
    if let Some(mut guard) = socket.lock() {
        let Socket { serving, threads, .. } = &mut *guard;
        if let Some(serving) = serving {
            if received < 0 && has_some && before != libc::EAGAIN {
                serving.owe(Some(before));
            }
            for index in 0..usize::try_from(received).unwrap_or(0) {
                // SAFETY: the caller's.
                let message = unsafe { messages.add(index) };
                // SAFETY: this is one of them.
                let message = unsafe { &*message };
                let mut room = [0; PREFIX];
                // SAFETY: the kernel has filled what it leads to.
                let prefix =
                    unsafe { prefix(&message.msg_hdr, message.msg_len as usize, &mut room) };
                hidden |= !note(fd, serving, *threads, prefix, flags);
            }
        }
        threads.receiving = threads.receiving.saturating_sub(1);
    }
    fail(before);
    hidden
}
