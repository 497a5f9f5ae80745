//! The C library's own functions behind those that this library exports: the next of that name (`RTLD_NEXT`).
//!
//! Invariant: each is looked up once, at best before the program begins (`resolve_all`), so that no signal handler
//! has to.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, pollfd, sigset_t, size_t, sockaddr,
    socklen_t, ssize_t, timespec, timeval,
};

/// Declares the functions, and what each returns where the C library has none of that name.
macro_rules! real {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $return:ty;)*) => {
        $(
            /// The C library's function of this name.
            #[allow(clippy::too_many_arguments, reason = "they are the C library's")]
            #[inline]
            pub(super) unsafe fn $name($($argument: $type),*) -> $return {
                type Function = unsafe extern "C-unwind" fn($($type),*) -> $return;
                let pointer = resolve(&pointers::$name, concat!(stringify!($name), "\0"));
                if pointer.is_null() {
                    super::fail(libc::ENOSYS);
                    return -1;
                }
                // SAFETY: the symbol of this name in the C library is a function of this type, which is that of its
                // header and manual page; a function pointer and a data pointer have one size here.
                let function = unsafe { std::mem::transmute::<*mut c_void, Function>(pointer) };
                // SAFETY: the arguments are what the program passes under the same contract.
                unsafe { function($($argument),*) }
            }
        )*

        #[allow(non_upper_case_globals, reason = "named as the functions are")]
        mod pointers {
            use super::*;
            $(pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());)*
        }

        /// Looks up all of them.
        pub(super) fn resolve_all() {
            $(resolve(&pointers::$name, concat!(stringify!($name), "\0"));)*
        }
    };
}

#[inline]
fn resolve(known: &AtomicPtr<c_void>, name: &str) -> *mut c_void {
    let pointer = known.load(Ordering::Relaxed);
    if pointer.is_null() { look_up(known, name) } else { pointer }
}

#[cold]
fn look_up(known: &AtomicPtr<c_void>, name: &str) -> *mut c_void {
    // SAFETY: the name ends with a zero byte: each caller in this file concatenates it.
    let pointer = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast::<c_char>()) };
    known.store(pointer, Ordering::Relaxed);
    pointer
}

real! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn closefrom(first: c_int) -> c_int;
    fn dup(fd: c_int) -> c_int;
    fn dup2(old: c_int, new: c_int) -> c_int;
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t,
    ) -> c_int;
    fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t;
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr,
        address_length: *mut socklen_t,
    ) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec,
    ) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t;
    fn readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t;
    fn __recv_chk(
        fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int,
    ) -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t,
    ) -> ssize_t;
    fn __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t;
    fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t;
    fn sendto(
        fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, address: *const sockaddr,
        address_length: socklen_t,
    ) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t;
    fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t;
    fn poll(entries: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    fn __poll_chk(entries: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int;
    fn ppoll(
        entries: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int;
    fn __ppoll_chk(
        entries: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
        room: size_t,
    ) -> c_int;
    fn select(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int;
    fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int;
    fn epoll_pwait(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout: c_int,
        mask: *const sigset_t,
    ) -> c_int;
    fn epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int;
    fn execve(
        path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char,
    ) -> c_int;
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    fn execvp(file: *const c_char, arguments: *const *const c_char) -> c_int;
    fn execvpe(
        file: *const c_char, arguments: *const *const c_char, environment: *const *const c_char,
    ) -> c_int;
    fn _exit(status: c_int) -> c_int;
}
