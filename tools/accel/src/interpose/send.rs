//! `send` and its kin: verdicts are joined, everything else is sent as it is, after what was joined before it.
//!
//! Invariant: what the program sends to the kernel on a socket that serves queues goes out under the socket's lock,
//! so no other thread's verdict overtakes it. A netlink send to the kernel does its work before it returns and never
//! waits.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use fanq::nfq::{BindCommand, Sent, decode_sent};
use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use super::kernel::{self, KernelSocket};
use super::{fail, flush, process, real, receive};
use crate::locked::Locked;
use crate::served::{SentAs, Serving};
use crate::settings::Settings;
use crate::table::{self, Socket};

/// send(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn send(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::send(fd, buffer, length, flags) };
    let Some(socket) = table::socket(fd) else { return own() };
    let mut vector = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    // SAFETY: the header leads to the program's buffer.
    unsafe { transmit(fd, socket, &header(&raw mut vector, 1), flags, own) }
}

/// sendto(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::sendto(fd, buffer, length, flags, address, address_length) };
    let Some(socket) = table::socket(fd) else { return own() };
    let mut vector = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    let mut message = header(&raw mut vector, 1);
    message.msg_name = address.cast_mut().cast();
    message.msg_namelen = address_length;
    // SAFETY: the header leads to the program's buffer and address.
    unsafe { transmit(fd, socket, &message, flags, own) }
}

/// sendmsg(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::sendmsg(fd, message, flags) };
    let Some(socket) = table::socket(fd) else { return own() };
    // SAFETY: by contract it points to a header, or is a fault of the program's.
    match unsafe { message.as_ref() } {
        // SAFETY: the header is the program's.
        Some(message) => unsafe { transmit(fd, socket, message, flags, own) },
        None => own(),
    }
}

/// sendmmsg(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if table::socket(fd).is_none() || messages.is_null() {
        // SAFETY: the arguments are the program's, passed on unchanged.
        return unsafe { real::sendmmsg(fd, messages, count, flags) };
    }
    let mut sent = 0;
    while sent < count {
        // SAFETY: by contract there are `count` headers.
        let message = unsafe { messages.add(sent as usize) };
        // SAFETY: this is one of them.
        let message = unsafe { &mut *message };
        // SAFETY: the header is the program's.
        let bytes = unsafe { sendmsg(fd, &raw const message.msg_hdr, flags) };
        let Ok(bytes) = c_uint::try_from(bytes) else { break };
        message.msg_len = bytes;
        sent += 1;
    }
    // As the kernel has it: an error is told if it came first.
    if sent == 0 && count > 0 { -1 } else { c_int::try_from(sent).unwrap_or(c_int::MAX) }
}

/// write(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn write(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::write(fd, buffer, length) };
    let Some(socket) = table::socket(fd).filter(|_| length > 0) else { return own() };
    let mut vector = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    // SAFETY: the header leads to the program's buffer.
    unsafe { transmit(fd, socket, &header(&raw mut vector, 1), 0, own) }
}

/// writev(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn writev(
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: the arguments are the program's, passed on unchanged.
    let own = || unsafe { real::writev(fd, vectors, count) };
    let Some(socket) = table::socket(fd) else { return own() };
    let message = header(vectors.cast_mut(), usize::try_from(count).unwrap_or(0));
    // SAFETY: the header leads to the program's buffers.
    unsafe { transmit(fd, socket, &message, 0, own) }
}

fn header(vectors: *mut iovec, count: usize) -> msghdr {
    // SAFETY: msghdr is integers and pointers, for which all zeroes are valid values.
    let mut header = unsafe { std::mem::zeroed::<msghdr>() };
    header.msg_iov = vectors;
    header.msg_iovlen = count as _;
    header
}

/// Sends what the header leads to, or lets the program's own call do it.
///
/// # Safety
/// The header's pointers are valid for its lengths, or null.
unsafe fn transmit(
    fd: c_int,
    socket: &'static Locked<Socket>,
    message: &msghdr,
    flags: c_int,
    own: impl Fn() -> ssize_t,
) -> ssize_t {
    kernel::end_if_cancelled();
    let plain_flags = flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) == 0;
    // SAFETY: the caller's.
    if !plain_flags || message.msg_controllen > 0 || !unsafe { goes_to_kernel(message) } {
        flush(socket);
        return own();
    }
    // SAFETY: the caller's.
    let parts = unsafe { receive::vectors(message) };
    let total: usize = parts.iter().map(|part| part.iov_len).sum();
    // Written only where it is needed.
    let mut gathered: [u8; GATHERED_MAX];
    let bytes = if let [only] = parts {
        // SAFETY: by contract the vector has that many bytes to be read.
        unsafe { std::slice::from_raw_parts(only.iov_base.cast::<u8>(), only.iov_len) }
    } else {
        gathered = [0; GATHERED_MAX];
        // SAFETY: the caller's.
        let length = unsafe { gather(message, total, &mut gathered) };
        &gathered[..length]
    };
    let Some(mut guard) = socket.lock() else { return own() };
    let Socket { descriptors, serving, .. } = &mut *guard;
    if descriptors.is_empty() || (serving.is_none() && !begins_to_serve(bytes)) {
        drop(guard);
        return own();
    }
    let mut port = KernelSocket(fd);
    let serving = serving.get_or_insert_with(|| {
        let settings = Settings::of_this_process();
        Box::new(Serving::new(settings.batch, &mut port))
    });
    process::take_over(serving);
    // SAFETY: the caller's.
    let itself = || unsafe { kernel::sendmsg(fd, message, flags) };
    let sent = match serving.send(bytes, bytes.len() == total, &mut port, itself) {
        SentAs::Joined => Ok(total),
        SentAs::Itself(result) => {
            if result.is_ok() {
                process::configure(fd, serving, bytes);
            }
            result
        }
    };
    let pending = serving.has_pending();
    drop(guard);
    if pending && !super::overdue::watch() {
        flush(socket);
    }
    match sent {
        Ok(bytes) => ssize_t::try_from(bytes).unwrap_or(ssize_t::MAX),
        Err(errno) => fail(errno),
    }
}

/// Whether a queue is bound by this.
fn begins_to_serve(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (sent, behind) = decode_sent(rest);
        if matches!(sent, Sent::Config(config) if config.command == Some(BindCommand::Bind)) {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether the message is for the kernel: no other address, or its port 0.
///
/// # Safety
/// As for `transmit`.
unsafe fn goes_to_kernel(message: &msghdr) -> bool {
    if message.msg_name.is_null() {
        return true;
    }
    if (message.msg_namelen as usize) < size_of::<libc::sockaddr_nl>() {
        return false;
    }
    // SAFETY: by contract there is an address of that length, and any bytes are one.
    let address = unsafe { ptr::read_unaligned(message.msg_name.cast::<libc::sockaddr_nl>()) };
    address.nl_pid == 0 && address.nl_groups == 0
}

/// Copies the first of `bytes` bytes to `room`, and returns how many.
///
/// # Safety
/// The header's vectors have `bytes` bytes, or all that they can have.
pub(super) unsafe fn gather(message: &msghdr, bytes: usize, room: &mut [u8]) -> usize {
    let mut length = 0;
    // SAFETY: the caller's.
    for vector in unsafe { receive::vectors(message) } {
        let part = vector.iov_len.min(room.len() - length).min(bytes - length);
        let to = room[length..].as_mut_ptr();
        // SAFETY: the vector has that much, and the room was just measured.
        unsafe { ptr::copy_nonoverlapping(vector.iov_base.cast(), to, part) };
        length += part;
    }
    length
}

/// Longer messages in several parts are no plain verdicts.
const GATHERED_MAX: usize = 512;
