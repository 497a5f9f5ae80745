//! `epoll`: which of our sockets are watched, and events for those whose ring has datagrams.
//!
//! Invariant: as for `poll`; what is to be reported, and how often, is `crate::epoll`'s. An event of a one-shot that
//! came from the ring disarms the kernel's watch, too; the ring of a socket that is watched so is not filled any more.

use std::ffi::c_int;
use std::ptr;

use libc::{epoll_event, sigset_t, timespec};

use super::asleep::Asleep;
use super::{flush_all, kernel, process, real};
use crate::epoll::{RingEvent, Watched, merge, told_by_kernel};
use crate::locked::Locked;
use crate::table::{self, Entry, Epoll, Socket};

/// epoll_ctl(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let result = unsafe { real::epoll_ctl(epoll, operation, fd, event) };
    if result == 0 && process::owns(fd) {
        // SAFETY: by contract it points to an event, or is null where none is needed.
        let event = unsafe { event.as_ref() }.map(|event| (event.events, event.u64));
        if let Some(socket) = table::socket(fd) {
            note(epoll, operation, fd, socket, event);
        }
    }
    result
}

fn note(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    socket: &'static Locked<Socket>,
    event: Option<(u32, u64)>,
) {
    if let Some((events, _)) = event
        && events & libc::EPOLLONESHOT.cast_unsigned() != 0
        && let Some(mut socket) = socket.lock()
    {
        socket.threads.one_shot = true;
    }
    let known = || match table::entry(epoll) {
        Some(Entry::Epoll(epoll)) => epoll.lock(),
        _ => None,
    };
    match (operation, event) {
        (libc::EPOLL_CTL_ADD, Some((events, data))) => {
            if known().is_none() && !table::add_epoll(epoll) {
                return;
            }
            if let Some(mut epoll) = known() {
                epoll.watched.push(Watched::new(socket, fd, events, data));
            }
        }
        (libc::EPOLL_CTL_MOD, Some((events, data))) => {
            if let Some(mut epoll) = known() {
                let mut all = epoll.watched.iter_mut();
                if let Some(watched) = all.find(|watched| watched.descriptor == fd) {
                    watched.change(events, data);
                }
            }
        }
        _ => {
            if let Some(mut epoll) = known() {
                epoll.watched.retain(|watched| watched.descriptor != fd);
            }
        }
    }
}

/// epoll_wait(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the arguments are the program's, but for how many events (no more) and how long.
    let own = |count: c_int, wait: bool| unsafe {
        real::epoll_wait(epoll, events, count, if wait { timeout } else { 0 })
    };
    // SAFETY: by contract there is room for so many events.
    unsafe { wait(epoll, events, count, timeout != 0, own) }
}

/// epoll_pwait(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as in epoll_wait.
    let own = |count: c_int, wait: bool| unsafe {
        real::epoll_pwait(epoll, events, count, if wait { timeout } else { 0 }, mask)
    };
    // SAFETY: by contract there is room for so many events.
    unsafe { wait(epoll, events, count, timeout != 0, own) }
}

/// epoll_pwait2(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    static AT_ONCE: timespec = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as in epoll_wait.
    let own = |count: c_int, wait: bool| unsafe {
        let timeout = if wait { timeout } else { &raw const AT_ONCE };
        real::epoll_pwait2(epoll, events, count, timeout, mask)
    };
    // SAFETY: by contract it points to a time, or is null.
    let waits =
        unsafe { timeout.as_ref() }.is_none_or(|time| time.tv_sec != 0 || time.tv_nsec != 0);
    // SAFETY: by contract there is room for so many events.
    unsafe { wait(epoll, events, count, waits, own) }
}

/// # Safety
/// There is room for `count` events.
unsafe fn wait(
    descriptor: c_int,
    events: *mut epoll_event,
    count: c_int,
    waits: bool,
    own: impl Fn(c_int, bool) -> c_int,
) -> c_int {
    let Some(Entry::Epoll(epoll)) = table::entry(descriptor) else { return own(count, true) };
    let Ok(room @ 1..) = usize::try_from(count) else { return own(count, true) };
    if events.is_null() {
        return own(count, true);
    }
    kernel::end_if_cancelled();
    let mut ours = [RingEvent { events: 0, data: 0 }; EVENTS_MAX];
    let mut take = || take_events(descriptor, epoll, &mut ours[..EVENTS_MAX.min(room)]);
    let found = match take() {
        0 => match sleep(descriptor, waits, take, || own(count, true)) {
            Woken::ByKernel(given) => {
                // SAFETY: the kernel has written so many.
                unsafe { note_told(epoll, events, given) };
                return given;
            }
            Woken::ByRing(found) => found,
        },
        found => found,
    };
    // Ours have their place even where the kernel's would fill all of it.
    let left = room - found;
    let given = if left > 0 { usize::try_from(own(clamp(left), false)).unwrap_or(0) } else { 0 };
    // SAFETY: the kernel has written so many.
    unsafe { note_told(epoll, events, clamp(given)) };
    let mut merged = [RingEvent { events: 0, data: 0 }; EVENTS_MAX];
    let whole = given + found <= EVENTS_MAX;
    if !whole {
        // Too many to look for the same data in: ours are told behind the kernel's.
        for (at, event) in (given..).zip(&ours[..found]) {
            // SAFETY: `given` was limited to leave room for ours.
            unsafe { put(events, at, *event) };
        }
        return clamp(given + found);
    }
    for (at, event) in merged[..given].iter_mut().enumerate() {
        // SAFETY: the kernel has written so many.
        let known = unsafe { get(events, at) };
        *event = RingEvent { events: known.events, data: known.u64 };
    }
    let total = merge(&mut merged[..(given + found).min(room)], given, &ours[..found]);
    for (at, event) in merged[..total].iter().enumerate() {
        // SAFETY: `total` is at most `room`.
        unsafe { put(events, at, *event) };
    }
    clamp(total)
}

/// Takes note of what the kernel has told the program.
///
/// # Safety
/// There are `given` events.
unsafe fn note_told(epoll: &Locked<Epoll>, events: *const epoll_event, given: c_int) {
    let Some(mut guard) = epoll.lock() else { return };
    for at in 0..usize::try_from(given).unwrap_or(0) {
        // SAFETY: the caller's.
        let event = unsafe { get(events, at) };
        told_by_kernel(&mut guard.watched, event.u64);
    }
}

/// # Safety
/// There is room for an event at this place.
unsafe fn put(events: *mut epoll_event, at: usize, event: RingEvent) {
    let event = epoll_event { events: event.events, u64: event.data };
    // SAFETY: the caller's.
    let place = unsafe { events.add(at) };
    // SAFETY: the caller's.
    unsafe { ptr::write_unaligned(place, event) };
}

/// # Safety
/// There is an event at this place.
unsafe fn get(events: *const epoll_event, at: usize) -> epoll_event {
    // SAFETY: the caller's.
    let place = unsafe { events.add(at) };
    // SAFETY: the caller's.
    unsafe { ptr::read_unaligned(place) }
}

/// Collects what is to be reported, and notes that it is.
fn take_events(descriptor: c_int, epoll: &Locked<Epoll>, room: &mut [RingEvent]) -> usize {
    let Some(mut guard) = epoll.lock() else { return 0 };
    let mut found = 0;
    for watched in &mut guard.watched {
        let Some(fills) = fills_if_ready(watched.socket) else { continue };
        let Some(event) = watched.event(fills).filter(|_| found < room.len()) else { continue };
        room[found] = event;
        found += 1;
        if watched.was_reported(fills) {
            let mut nothing =
                epoll_event { events: libc::EPOLLONESHOT.cast_unsigned(), u64: event.data };
            let fd = watched.descriptor;
            // SAFETY: the event lives through the call.
            unsafe { real::epoll_ctl(descriptor, libc::EPOLL_CTL_MOD, fd, &raw mut nothing) };
        }
    }
    found
}

/// Whether a wait would report something from a ring.
pub(super) fn has_event(epoll: &Locked<Epoll>) -> bool {
    let Some(guard) = epoll.lock() else { return false };
    guard.watched.iter().any(|watched| {
        fills_if_ready(watched.socket).is_some_and(|fills| watched.event(fills).is_some())
    })
}

/// How often the ring was filled, if it has datagrams.
fn fills_if_ready(socket: &Locked<Socket>) -> Option<u32> {
    let guard = socket.lock()?;
    let serving = guard.serving.as_ref().filter(|serving| !serving.ring.is_empty())?;
    Some(serving.fills)
}

enum Woken {
    /// The program's own call has returned this.
    ByKernel(c_int),
    /// It was not made: so many events were there after all, as another thread filled a ring just before.
    ByRing(usize),
}

/// Lets the program's own call wait.
fn sleep(
    descriptor: c_int,
    waits: bool,
    take: impl FnOnce() -> usize,
    own: impl Fn() -> c_int,
) -> Woken {
    if !waits {
        return Woken::ByKernel(own());
    }
    flush_all();
    let asleep = Asleep::begin(std::iter::once(descriptor));
    let woken = match take() {
        0 => Woken::ByKernel(own()),
        found => Woken::ByRing(found),
    };
    asleep.end();
    woken
}

fn clamp(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// So many sockets of ours may be watched by one epoll; others are left to the kernel.
const EVENTS_MAX: usize = 64;
