//! `poll`, `select` and their kin: a socket whose ring has datagrams is readable.
//!
//! Invariant: what the ring gives rise to is added to what the C library's own call says at that moment, so other
//! descriptors are reported as without this library. Where nothing of ours is ready, what was joined is sent before
//! the call that may wait, and while it waits nothing is taken from the sockets that it watches; what was taken just
//! before is looked for once more. If another thread takes what was there meanwhile, nothing may be ready after all, as
//! with any socket that two threads read.

use std::ffi::{c_int, c_ulong};

use libc::{fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use super::asleep::Asleep;
use super::receive::has_datagrams;
use super::{flush_all, kernel, real, watch};
use crate::table::{self, Entry};

/// poll(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn poll(
    entries: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
) -> c_int {
    // SAFETY: the arguments are the program's; a time-out of 0 keeps it from waiting.
    let own = |wait: bool| unsafe { real::poll(entries, count, if wait { timeout } else { 0 }) };
    // SAFETY: by contract there are so many entries.
    match unsafe { watched(entries, count) } {
        Some(entries) => poll_ours(entries, timeout != 0, own),
        None => own(true),
    }
}

/// ppoll(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn ppoll(
    entries: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let own = |wait: bool| {
        let timeout = if wait { timeout } else { &raw const AT_ONCE };
        // SAFETY: the arguments are the program's; a time-out of 0 keeps it from waiting.
        unsafe { real::ppoll(entries, count, timeout, mask) }
    };
    // SAFETY: by contract there are so many entries, and a time-out or none.
    match unsafe { watched(entries, count) } {
        // SAFETY: as above.
        Some(entries) => poll_ours(entries, !unsafe { is_zero(timeout) }, own),
        None => own(true),
    }
}

/// poll(2) of a program built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn __poll_chk(
    entries: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < nfds(count) {
        // SAFETY: the arguments are the program's; the C library's function ends it.
        return unsafe { real::__poll_chk(entries, count, timeout, room) };
    }
    // SAFETY: the arguments are the program's.
    unsafe { poll(entries, count, timeout) }
}

/// ppoll(2) of a program built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn __ppoll_chk(
    entries: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < nfds(count) {
        // SAFETY: the arguments are the program's; the C library's function ends it.
        return unsafe { real::__ppoll_chk(entries, count, timeout, mask, room) };
    }
    // SAFETY: the arguments are the program's.
    unsafe { ppoll(entries, count, timeout, mask) }
}

/// select(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let own = |wait: bool| {
        let mut at_once = timeval { tv_sec: 0, tv_usec: 0 };
        let timeout = if wait { timeout } else { &raw mut at_once };
        // SAFETY: the arguments are the program's; a time-out of 0 keeps it from waiting.
        unsafe { real::select(count, read, write, except, timeout) }
    };
    // SAFETY: by contract it is a time-out or null.
    let waits =
        unsafe { timeout.as_ref() }.is_none_or(|time| time.tv_sec != 0 || time.tv_usec != 0);
    // SAFETY: by contract the set has `count` descriptors, or is null.
    unsafe { select_ours(count, read, waits, own) }
}

/// pselect(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let own = |wait: bool| {
        let timeout = if wait { timeout } else { &raw const AT_ONCE };
        // SAFETY: the arguments are the program's; a time-out of 0 keeps it from waiting.
        unsafe { real::pselect(count, read, write, except, timeout, mask) }
    };
    // SAFETY: by contract it is a time-out or null.
    let waits = !unsafe { is_zero(timeout) };
    // SAFETY: by contract the set has `count` descriptors, or is null.
    unsafe { select_ours(count, read, waits, own) }
}

/// The entries, if one of them is for reading from something of ours.
///
/// # Safety
/// There are so many.
unsafe fn watched<'a>(entries: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    if entries.is_null() || count == 0 {
        return None;
    }
    // SAFETY: the caller's.
    let entries = unsafe { std::slice::from_raw_parts_mut(entries, nfds(count)) };
    entries.iter().any(|entry| table::entry(entry.fd).is_some()).then_some(entries)
}

fn poll_ours(entries: &mut [pollfd], waits: bool, own: impl Fn(bool) -> c_int) -> c_int {
    kernel::end_if_cancelled();
    let ready = || entries.iter().copied().any(is_ready);
    if !ready() {
        let descriptors = entries.iter().map(|entry| entry.fd);
        if let Some(result) = sleep(waits, descriptors, ready, || own(true)) {
            return result;
        }
    }
    // A program that watches nothing else needs no system call to be told.
    if let [only] = entries {
        only.revents = only.events & READABLE;
        return 1;
    }
    let mut ready = own(false);
    if ready < 0 {
        return ready;
    }
    for entry in entries.iter_mut().filter(|entry| is_ready(**entry)) {
        ready += c_int::from(entry.revents == 0);
        entry.revents |= entry.events & READABLE;
    }
    ready
}

/// Whether the entry is for reading from a ring that has datagrams.
fn is_ready(entry: pollfd) -> bool {
    entry.events & READABLE != 0 && has_something(entry.fd)
}

/// # Safety
/// The set has `count` descriptors, or is null.
unsafe fn select_ours(
    count: c_int,
    read: *mut fd_set,
    waits: bool,
    own: impl Fn(bool) -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    let asked = unsafe { Descriptors::of_set(read, count) };
    if asked.len == 0 {
        return own(true);
    }
    kernel::end_if_cancelled();
    let asked = &asked.numbers[..asked.len];
    let ready = || asked.iter().any(|fd| has_something(*fd));
    if !ready()
        && let Some(result) = sleep(waits, asked.iter().copied(), ready, || own(true))
    {
        return result;
    }
    let mut ready = own(false);
    if ready < 0 {
        return ready;
    }
    for fd in asked.iter().filter(|fd| has_something(**fd)) {
        let (place, bit) = place_in_set(*fd);
        // SAFETY: the descriptor was in the set, so the set reaches to it.
        let word = unsafe { read.cast::<c_ulong>().add(place) };
        // SAFETY: as above.
        let word = unsafe { &mut *word };
        ready += c_int::from(*word & bit == 0);
        *word |= bit;
    }
    ready
}

/// The descriptors of ours in a set.
struct Descriptors {
    numbers: [c_int; DESCRIPTORS_MAX],
    len: usize,
}

impl Descriptors {
    /// # Safety
    /// As for `select_ours`.
    unsafe fn of_set(set: *const fd_set, count: c_int) -> Self {
        let mut found = Self { numbers: [0; DESCRIPTORS_MAX], len: 0 };
        if set.is_null() {
            return found;
        }
        for fd in 0..count {
            // The table first: it is the cheaper look.
            if table::entry(fd).is_some() && found.len < DESCRIPTORS_MAX {
                let (place, bit) = place_in_set(fd);
                // SAFETY: the set has that many descriptors.
                let word = unsafe { set.cast::<c_ulong>().add(place) };
                // SAFETY: as above.
                if unsafe { *word } & bit != 0 {
                    found.numbers[found.len] = fd;
                    found.len += 1;
                }
            }
        }
        found
    }
}

/// Where a descriptor stands in a set: the word, and its bit there. Not `FD_ISSET`: a program's sets may be longer than
/// an `fd_set`, as the kernel takes them (select(2), "BUGS"), and the crate's stops there.
fn place_in_set(fd: c_int) -> (usize, c_ulong) {
    let fd = usize::try_from(fd).unwrap_or(0);
    (fd / BITS, 1 << (fd % BITS))
}

/// Whether reading, or waiting, on the descriptor would find a ring with datagrams.
fn has_something(fd: c_int) -> bool {
    match table::entry(fd) {
        Some(Entry::Socket(socket)) => has_datagrams(socket),
        Some(Entry::Epoll(epoll)) => watch::has_event(epoll),
        None => false,
    }
}

/// Lets the program's own call wait: what was joined is sent, and nothing is taken from under it. None if something is
/// ready after all, as another thread took it just before.
fn sleep(
    waits: bool,
    descriptors: impl Iterator<Item = c_int>,
    ready: impl Fn() -> bool,
    own: impl Fn() -> c_int,
) -> Option<c_int> {
    if !waits {
        return Some(own());
    }
    flush_all();
    let asleep = Asleep::begin(descriptors);
    let result = if ready() { None } else { Some(own()) };
    asleep.end();
    result
}

/// # Safety
/// It points to a time, or is null.
unsafe fn is_zero(timeout: *const timespec) -> bool {
    // SAFETY: the caller's.
    unsafe { timeout.as_ref() }.is_some_and(|time| time.tv_sec == 0 && time.tv_nsec == 0)
}

fn nfds(count: nfds_t) -> usize {
    usize::try_from(count).unwrap_or(0)
}

const READABLE: i16 = libc::POLLIN | libc::POLLRDNORM;
static AT_ONCE: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// Of a word of a set.
const BITS: usize = c_ulong::BITS as usize;

/// More sockets than these in one set are left to the kernel.
const DESCRIPTORS_MAX: usize = 64;
