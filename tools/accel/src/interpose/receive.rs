//! `recv` and its kin: from the ring, or by the C library's own call.
//!
//! Invariant: every way of receiving is brought to one `struct msghdr`, filled as net/socket.c and `netlink_recvmsg`
//! fill it: the bytes that fit, `MSG_TRUNC` where that is not all, the kernel's address, control messages whole or
//! `MSG_CTRUNC`.

use std::ffi::{c_int, c_void};
use std::ptr;

use libc::{iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use super::kernel::{self, KernelSocket};
use super::{errno, fail, process, real};
use crate::locked::Locked;
use crate::ring::Datagram;
use crate::served::{Next, Serving, Threads};
use crate::table::{self, Socket};

/// recv(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::recv(fd, buffer, length, flags) };
    let Some(socket) = table::socket(fd) else { return own() };
    let mut vector = iovec { iov_base: buffer, iov_len: length };
    // SAFETY: the header leads to the program's buffer, which by contract has `length` bytes.
    unsafe { receive(fd, socket, &mut header(&raw mut vector), flags, own) }
}

/// recvfrom(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::recvfrom(fd, buffer, length, flags, address, address_length) };
    let Some(socket) = table::socket(fd) else { return own() };
    let mut vector = iovec { iov_base: buffer, iov_len: length };
    let mut message = header(&raw mut vector);
    let from_ring = !address.is_null() && !address_length.is_null();
    if from_ring {
        message.msg_name = address.cast();
        // SAFETY: by contract it can be read where there is an address.
        message.msg_namelen = unsafe { *address_length };
    }
    let before = message.msg_namelen;
    // SAFETY: the header leads to the program's buffers, of the lengths that it gave.
    let received = unsafe { receive(fd, socket, &mut message, flags, own) };
    if from_ring && received >= 0 && message.msg_namelen != before {
        // SAFETY: by contract it can be written.
        unsafe { *address_length = message.msg_namelen };
    }
    received
}

/// recvmsg(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn recvmsg(
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::recvmsg(fd, message, flags) };
    let Some(socket) = table::socket(fd) else { return own() };
    // SAFETY: by contract it points to a header, or is a fault of the program's.
    match unsafe { message.as_mut() } {
        // SAFETY: the header is the program's.
        Some(message) => unsafe { receive(fd, socket, message, flags, own) },
        None => own(),
    }
}

/// read(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn read(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::read(fd, buffer, length) };
    // A read of nothing takes no datagram (net/socket.c: sock_read_iter).
    let Some(socket) = table::socket(fd).filter(|_| length > 0) else { return own() };
    let mut vector = iovec { iov_base: buffer, iov_len: length };
    // SAFETY: the header leads to the program's buffer, which by contract has `length` bytes.
    unsafe { receive(fd, socket, &mut header(&raw mut vector), 0, own) }
}

/// readv(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn readv(
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::readv(fd, vectors, count) };
    let Some(socket) = table::socket(fd) else { return own() };
    let mut message = header(ptr::null_mut());
    message.msg_iov = vectors.cast_mut();
    message.msg_iovlen = usize::try_from(count).unwrap_or(0) as _;
    // SAFETY: by contract there are `count` vectors.
    if unsafe { room(&message) } == 0 {
        return own();
    }
    // SAFETY: the header leads to the program's buffers.
    unsafe { receive(fd, socket, &mut message, 0, own) }
}

/// recv(2) of a program built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    space: size_t,
    flags: c_int,
) -> ssize_t {
    if length > space || table::socket(fd).is_none() {
        // SAFETY: the arguments are the program's, passed on unchanged.
        return unsafe { real::__recv_chk(fd, buffer, length, space, flags) };
    }
    // SAFETY: the arguments are the program's.
    unsafe { recv(fd, buffer, length, flags) }
}

/// recvfrom(2) of a program built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    space: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    if length > space || table::socket(fd).is_none() {
        // SAFETY: the arguments are the program's, passed on unchanged.
        return unsafe {
            real::__recvfrom_chk(fd, buffer, length, space, flags, address, address_length)
        };
    }
    // SAFETY: the arguments are the program's.
    unsafe { recvfrom(fd, buffer, length, flags, address, address_length) }
}

/// read(2) of a program built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    space: size_t,
) -> ssize_t {
    if length > space || table::socket(fd).is_none() {
        // SAFETY: the arguments are the program's, passed on unchanged.
        return unsafe { real::__read_chk(fd, buffer, length, space) };
    }
    // SAFETY: the arguments are the program's.
    unsafe { read(fd, buffer, length) }
}

/// A header with one vector.
fn header(vector: *mut iovec) -> msghdr {
    // SAFETY: msghdr is integers and pointers, for which all zeroes are valid values.
    let mut header = unsafe { std::mem::zeroed::<msghdr>() };
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header
}

/// Receives into what the header leads to: from the ring, or by `own`, which is the program's call.
///
/// # Safety
/// The header's pointers are valid for its lengths, or null.
pub(super) unsafe fn receive(
    fd: c_int,
    socket: &'static Locked<Socket>,
    message: &mut msghdr,
    flags: c_int,
    own: impl Fn() -> ssize_t,
) -> ssize_t {
    kernel::end_if_cancelled();
    // Something else than datagrams is asked for; or this is a handler within one of our calls.
    if flags & !SERVED_FLAGS != 0 {
        return own();
    }
    loop {
        let Some(mut guard) = socket.lock() else { return own() };
        let Socket { descriptors, serving, threads } = &mut *guard;
        if descriptors.is_empty() {
            drop(guard);
            return own();
        }
        if let Some(serving) = serving {
            process::take_over(serving);
            match serving.next(*threads, &mut KernelSocket(fd)) {
                Next::Take => {
                    if serving.packets_came {
                        process::place_reader(serving);
                    }
                    // SAFETY: the caller's.
                    return unsafe { take(serving, message, flags) };
                }
                Next::Fail(errno) => return fail(errno),
                Next::Wait if flags & libc::MSG_DONTWAIT != 0 => return fail(libc::EAGAIN),
                Next::Wait | Next::Ask => {}
            }
        }
        threads.receiving += 1;
        drop(guard);
        let received = own();
        // SAFETY: the kernel has filled what the header leads to.
        if unsafe { is_back(fd, socket, message, received, flags) } {
            return received;
        }
    }
}

/// Hands out the front of the ring.
///
/// # Safety
/// As for `receive`.
unsafe fn take(serving: &mut Serving, message: &mut msghdr, flags: c_int) -> ssize_t {
    let Some(datagram) = serving.ring.front() else { return fail(libc::EAGAIN) };
    // SAFETY: the caller's.
    let received = unsafe { hand_out(&datagram, message, flags) };
    if flags & libc::MSG_PEEK == 0 {
        serving.ring.pop();
    }
    received
}

/// Whether the ring has datagrams for the program.
pub(super) fn has_datagrams(socket: &Locked<Socket>) -> bool {
    let Some(guard) = socket.lock() else { return false };
    guard.serving.as_ref().is_some_and(|serving| !serving.ring.is_empty())
}

/// The thread is back from the kernel with the result of its own call: takes note of what it received, and then no
/// longer counts it among those that receive. False if the program is not to see that, and must ask again.
///
/// # Safety
/// What the header leads to was filled with `received` bytes, or as many as fit.
unsafe fn is_back(
    fd: c_int,
    socket: &'static Locked<Socket>,
    message: &msghdr,
    received: ssize_t,
    flags: c_int,
) -> bool {
    let before = errno();
    let mut room = [0; PREFIX];
    // SAFETY: the caller's.
    let prefix =
        usize::try_from(received).ok().map(|bytes| unsafe { prefix(message, bytes, &mut room) });
    let mut for_program = true;
    // A handler within one of our calls comes not here: it has not got the lock before, either.
    if let Some(mut guard) = socket.lock() {
        let Socket { serving, threads, .. } = &mut *guard;
        if let (Some(serving), Some(prefix)) = (serving, prefix) {
            for_program = note(fd, serving, *threads, prefix, flags);
        }
        threads.receiving = threads.receiving.saturating_sub(1);
    }
    fail(before);
    for_program
}

/// Takes note of one datagram that the program received by its own call. False if it is not to see it.
pub(super) fn note(
    fd: c_int,
    serving: &mut Serving,
    threads: Threads,
    prefix: &[u8],
    flags: c_int,
) -> bool {
    if flags & libc::MSG_PEEK != 0 {
        return serving.peeked_by_program(prefix, &mut KernelSocket(fd));
    }
    let for_program = serving.received_by_program(prefix, threads, &mut KernelSocket(fd));
    if serving.packets_came {
        process::place_reader(serving);
    }
    for_program
}

/// The beginning of what a header leads to, as much as tells what it is.
///
/// # Safety
/// It was filled with `bytes` bytes, or as many as fit.
pub(super) unsafe fn prefix<'a>(
    message: &'a msghdr,
    bytes: usize,
    room: &'a mut [u8; PREFIX],
) -> &'a [u8] {
    // SAFETY: the caller's.
    match unsafe { vectors(message) }.first() {
        Some(first) if first.iov_len >= bytes.min(PREFIX) && !first.iov_base.is_null() => {
            // SAFETY: the kernel has filled that much of the first vector.
            unsafe { std::slice::from_raw_parts(first.iov_base.cast(), bytes.min(first.iov_len)) }
        }
        _ => {
            // SAFETY: the caller's.
            let length = unsafe { super::send::gather(message, bytes, room) };
            &room[..length]
        }
    }
}

/// Copies a datagram to where the header leads.
///
/// # Safety
/// As for `receive`.
unsafe fn hand_out(datagram: &Datagram<'_>, message: &mut msghdr, flags: c_int) -> ssize_t {
    let (mut rest, slot) = (datagram.bytes, datagram.slot);
    // SAFETY: the caller's.
    for vector in unsafe { vectors(message) } {
        let length = rest.len().min(vector.iov_len);
        // SAFETY: the vector has that much room, by contract, and is none of the ring's memory.
        unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), vector.iov_base.cast(), length) };
        rest = &rest[length..];
    }
    let copied = datagram.bytes.len() - rest.len();
    let cut = copied < slot.length;
    message.msg_flags = (slot.flags & !(libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC))
        | (flags & libc::MSG_CMSG_CLOEXEC)
        | if cut { libc::MSG_TRUNC } else { 0 };
    if !message.msg_name.is_null() {
        let length = slot.name_length.min(message.msg_namelen as usize);
        // SAFETY: the program gave room for that much of an address.
        unsafe { ptr::copy_nonoverlapping(slot.name.as_ptr(), message.msg_name.cast(), length) };
        message.msg_namelen = socklen_t::try_from(slot.name_length).unwrap_or(0);
    }
    let room = if message.msg_control.is_null() { 0 } else { message.msg_controllen };
    let fits = slot.control_length <= room;
    if !fits {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
    let control = if fits { slot.control_length } else { 0 };
    if control > 0 {
        // SAFETY: the program gave room for that much, and the slot has it.
        unsafe {
            ptr::copy_nonoverlapping(slot.control.as_ptr(), message.msg_control.cast(), control);
        }
    }
    message.msg_controllen = control;
    let said = if flags & libc::MSG_TRUNC != 0 { slot.length } else { copied };
    ssize_t::try_from(said).unwrap_or(ssize_t::MAX)
}

/// The vectors of a header.
///
/// # Safety
/// There are as many as it says.
pub(super) unsafe fn vectors(message: &msghdr) -> &[iovec] {
    if message.msg_iov.is_null() || message.msg_iovlen == 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen) }
}

/// How many bytes fit.
///
/// # Safety
/// As for `vectors`.
unsafe fn room(message: &msghdr) -> usize {
    // SAFETY: the caller's.
    unsafe { vectors(message) }.iter().map(|vector| vector.iov_len).sum()
}

/// What a receive from the ring knows.
const SERVED_FLAGS: c_int = libc::MSG_DONTWAIT
    | libc::MSG_PEEK
    | libc::MSG_TRUNC
    | libc::MSG_WAITALL
    | libc::MSG_NOSIGNAL
    | libc::MSG_WAITFORONE
    | libc::MSG_CMSG_CLOEXEC;

/// So much of a datagram tells what it is: a packet's id stands in the first attribute.
pub(super) const PREFIX: usize = 128;
