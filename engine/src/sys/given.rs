//! Descriptors that this process did not open: inherited at its start, or handed to it.
//!
//! Invariant: a descriptor becomes owned at most once. It deliberately judges no socket: what is owned by which queue
//! is for [`BoundQueue`](crate::BoundQueue) to find out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use netlink_sys::Socket;

/// Takes the descriptor with this number, which whoever started this process left open for it (`LISTEN_FDS` of
/// sd_listen_fds(3)), and sees to it that it is passed on to no child.
///
/// # Errors
/// It is not open, or it is closed on exec and so was opened by this process itself: that includes one which was
/// taken before.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer and changes nothing, whatever the number is.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        let what = "it was opened by this process itself, or is taken already";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // SAFETY: F_SETFD takes an int and touches no memory.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nobody here owns it: all that this process opens is closed on exec from the beginning,
    // which this one was not until just now; so it came from before, and is taken for the first time.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The same open socket, as the type that sends and receives.
pub(crate) fn as_netlink(descriptor: OwnedFd) -> Socket {
    // SAFETY: the descriptor is open and given away by its only owner.
    unsafe { Socket::from_raw_fd(descriptor.into_raw_fd()) }
}

/// Whether it is a netlink socket to netfilter.
///
/// # Errors
/// It is no socket at all.
pub(crate) fn is_netfilter(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let domain = int_option(fd, libc::SO_DOMAIN)?;
    let protocol = int_option(fd, libc::SO_PROTOCOL)?;
    Ok((domain, protocol) == (libc::AF_NETLINK, libc::NETLINK_NETFILTER))
}

/// The port that the kernel knows a netlink socket by.
pub(crate) fn netlink_port(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: sockaddr_nl is integers, for which all zeroes are valid values.
    let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_nl>() };
    let mut length = length_of::<libc::sockaddr_nl>();
    // SAFETY: getsockname writes at most `length` bytes at `address`, which is as long as that, and to `length`; both
    // live through the call.
    let result =
        unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    if result == 0 { Ok(address.nl_pid) } else { Err(io::Error::last_os_error()) }
}

/// The network namespace that a socket was made in (ioctl `SIOCGSKNS`).
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN in that namespace.
pub(crate) fn net_namespace(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and touches no memory; it returns a new descriptor.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSKNS) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us (`net/socket.c: open_related_ns`), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

fn int_option(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = length_of::<libc::c_int>();
    // SAFETY: getsockopt writes at most `length` bytes at `value`, an int, and to `length`; both live through the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("addresses and ints are small")
}

/// include/uapi/linux/sockios.h
const SIOCGSKNS: libc::Ioctl = 0x894c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_opened_is_not_inherited() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(inherited_descriptor(file.as_raw_fd()).is_err());
        drop(file);
        assert!(inherited_descriptor(1 << 20).is_err(), "it is not open");
    }

    #[test]
    fn what_was_left_open_is_taken_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: F_DUPFD takes no pointer; the copy is closed by whoever takes it below.
        let number = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 100) };
        let taken = inherited_descriptor(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(inherited_descriptor(number).is_err());
        assert!(is_netfilter(std::os::fd::AsFd::as_fd(&taken)).is_err(), "no socket");
    }
}
