//! The netlink socket: opening it with the options that a queue needs, and its receive buffer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

/// What the kernel granted for a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiveBuffer {
    /// Bytes that the kernel charges packets against: `SO_RCVBUF` as read back, twice what was asked for where all
    /// was granted.
    pub bytes: u64,
    /// Whether `SO_RCVBUFFORCE` was allowed, and so `net.core.rmem_max` did not limit it.
    pub forced: bool,
}

/// Opens a socket to netfilter, bound to a port of the kernel's choice, in blocking mode.
///
/// With `NETLINK_NO_ENOBUFS`, so that an overrun loses the packets that did not fit and no others, and
/// `NETLINK_CAP_ACK`, so that an error echoes the request's header only.
pub(crate) fn open_netfilter() -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    let address = socket.bind_auto()?;
    socket.set_no_enobufs(true)?;
    socket.set_cap_ack(true)?;
    Ok((socket, address.port_number()))
}

/// Asks for a receive buffer of `bytes`: by `SO_RCVBUFFORCE`, else, without the capability in the first user
/// namespace, by `SO_RCVBUF` up to `net.core.rmem_max` (socket(7)).
pub(crate) fn set_receive_buffer(socket: &Socket, bytes: u32) -> io::Result<ReceiveBuffer> {
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX);
    let fd = socket.as_fd();
    let forced = set_int(fd, libc::SO_RCVBUFFORCE, wanted).is_ok();
    if !forced {
        set_int(fd, libc::SO_RCVBUF, wanted)?;
    }
    let granted = socket.get_rx_buf_sz()?;
    Ok(ReceiveBuffer { bytes: granted as u64, forced })
}

fn set_int(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int's size fits");
    // SAFETY: setsockopt reads `length` bytes at `value`, an int that lives through the call; `fd` is open, as
    // it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
