//! Descriptors: made, copied and closed.
//!
//! Invariant: an entry of the table is made after its descriptor and goes before it, so that the table never names a
//! descriptor that is something else. The child of a vfork has its parent's memory and descriptors of its own: what it
//! closes is still the parent's.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::AtomicBool;

use libc::socklen_t;

use super::kernel::KernelSocket;
use super::{process, real, say_once};
use crate::settings::Settings;
use crate::table::{self, Entry};

/// socket(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn socket(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
) -> c_int {
    static FULL: AtomicBool = AtomicBool::new(false);
    // SAFETY: the arguments are the program's, passed on unchanged.
    let fd = unsafe { real::socket(domain, kind, protocol) };
    if domain == libc::AF_NETLINK && protocol == libc::NETLINK_NETFILTER && fd >= 0 {
        // An entry that is still there is of a descriptor that was closed behind our back.
        forget_stale(fd);
        process::begin_counting();
        if !table::add_socket(fd) {
            say_once(
                &FULL,
                "too many netfilter sockets, or too large a descriptor: some are left as they are",
            );
        }
    }
    fd
}

/// close(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    release(fd);
    // SAFETY: the argument is the program's.
    unsafe { real::close(fd) }
}

/// close_range(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn close_range(
    first: c_uint,
    last: c_uint,
    flags: c_int,
) -> c_int {
    if flags == 0 {
        release_range(first, last);
    }
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::close_range(first, last, flags) }
}

/// closefrom(3)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn closefrom(first: c_int) {
    release_range(c_uint::try_from(first).unwrap_or(0), c_uint::MAX);
    // SAFETY: the argument is the program's.
    unsafe { real::closefrom(first) };
}

/// dup(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    // SAFETY: the argument is the program's.
    copied(fd, unsafe { real::dup(fd) })
}

/// dup2(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: the arguments are the program's.
        return unsafe { real::dup2(old, new) };
    }
    release(new);
    // SAFETY: the arguments are the program's.
    copied(old, unsafe { real::dup2(old, new) })
}

/// dup3(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if old != new {
        release(new);
    }
    // SAFETY: the arguments are the program's.
    copied(old, unsafe { real::dup3(old, new, flags) })
}

/// fcntl(2). Its third argument, if there is one, is passed in a register like a declared one (System V's and AAPCS64's
/// calling conventions).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let result = unsafe { real::fcntl(fd, command, argument) };
    if is_copy(command) { copied(fd, result) } else { result }
}

/// fcntl(2) of a program with large files.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn fcntl64(
    fd: c_int,
    command: c_int,
    argument: usize,
) -> c_int {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let result = unsafe { real::fcntl64(fd, command, argument) };
    if is_copy(command) { copied(fd, result) } else { result }
}

/// setsockopt(2): a receive buffer is not made smaller than `fanq accel --rcvbuf` has it.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let is_buffer =
        level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE);
    if is_buffer
        && table::socket(fd).is_some()
        && let Some(least) = Settings::of_this_process().rcvbuf
        && length as usize == size_of::<c_int>()
        && !value.is_null()
    {
        // SAFETY: by contract there are `length` bytes, an int's.
        let wanted = unsafe { value.cast::<c_int>().read_unaligned() };
        if wanted < c_int::try_from(least).unwrap_or(c_int::MAX) {
            process::set_receive_buffer(fd);
            return 0;
        }
    }
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::setsockopt(fd, level, name, value, length) }
}

fn is_copy(command: c_int) -> bool {
    matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC)
}

/// Takes note of a copy, and returns it.
fn copied(original: c_int, copy: c_int) -> c_int {
    if copy >= 0 && copy != original && process::owns(original) {
        table::copied(original, copy);
    }
    copy
}

/// The descriptor is about to be closed.
fn release(fd: c_int) {
    if table::entry(fd).is_some() && process::owns(fd) {
        let_go(fd);
    }
}

fn release_range(first: c_uint, last: c_uint) {
    if !process::is_this_process() {
        return;
    }
    let numbers: Vec<c_int> = table::descriptors();
    for fd in numbers {
        if c_uint::try_from(fd).is_ok_and(|fd| (first..=last).contains(&fd)) {
            let_go(fd);
        }
    }
}

fn let_go(fd: c_int) {
    let Some(entry) = table::entry(fd) else { return };
    table::forget(fd);
    match entry {
        Entry::Socket(socket) => {
            // None: a handler within a call of ours on this very socket. The entry is gone, which is what matters.
            let Some(mut guard) = socket.lock() else { return };
            if let Some(serving) = &mut guard.serving {
                serving.flush(&mut KernelSocket(fd));
            }
            guard.descriptors.retain(|number| *number != fd);
            if guard.descriptors.is_empty() {
                guard.free();
                drop(guard);
                for epoll in table::epolls() {
                    if let Some(mut epoll) = epoll.lock() {
                        epoll.watched.retain(|watched| !watched.socket.is(socket));
                    }
                }
            }
        }
        Entry::Epoll(epoll) => {
            let Some(mut guard) = epoll.lock() else { return };
            guard.descriptors.retain(|number| *number != fd);
            if guard.descriptors.is_empty() {
                guard.watched.clear();
            }
        }
    }
}

/// The number was given out anew: what it was is gone, and nothing can be sent on it any more.
fn forget_stale(fd: c_int) {
    if let Some(Entry::Socket(socket)) = table::entry(fd) {
        table::forget(fd);
        if let Some(mut guard) = socket.lock() {
            guard.descriptors.retain(|number| *number != fd);
            if guard.descriptors.is_empty() {
                guard.free();
            }
        }
    }
}
