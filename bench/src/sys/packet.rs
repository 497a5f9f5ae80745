//! A packet socket that sends whole frames by one device: packet(7).

#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

/// A socket that sends by one device, and receives nothing.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    socket: Socket,
}

impl FrameSocket {
    /// Opens one for the device with this index in the network namespace of this thread.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // "If protocol is set to zero, no packets are received." (packet(7))
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        // SAFETY: sockaddr_ll is integers, for which all zeroes are valid values.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
        let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        let pointer = (&raw const address).cast();
        // SAFETY: `pointer` is to an address of `length` bytes that outlives the call, which reads it.
        let result = unsafe { libc::bind(socket.as_raw_fd(), pointer, length) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// Hands all frames to the device, in as many calls as the kernel wants. What the device refuses it has dropped,
    /// and counts.
    pub(crate) fn send(&self, frames: &[&[u8]]) -> io::Result<()> {
        for batch in frames.chunks(BATCH) {
            self.send_batch(batch)?;
        }
        Ok(())
    }

    fn send_batch(&self, frames: &[&[u8]]) -> io::Result<()> {
        let mut vectors: [libc::iovec; BATCH] =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: mmsghdr is integers and pointers, for which all zeroes are valid values.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (index, frame) in frames.iter().enumerate() {
            let iov_base = frame.as_ptr().cast_mut().cast();
            vectors[index] = libc::iovec { iov_base, iov_len: frame.len() };
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        let mut sent = 0;
        while sent < frames.len() {
            let rest = &mut headers[sent..frames.len()];
            let length = libc::c_uint::try_from(rest.len()).map_err(io::Error::other)?;
            // SAFETY: `length` headers, each with one vector that lives in this function and points to a frame that
            // is borrowed for as long; sendmmsg reads them, and writes only msg_len.
            let result =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), length, 0) };
            match usize::try_from(result) {
                Ok(taken) => sent += taken,
                Err(_) => match io::Error::last_os_error() {
                    // The device took the frame and dropped it (net/packet/af_packet.c: packet_snd).
                    error if error.raw_os_error() == Some(libc::ENOBUFS) => sent += 1,
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// Frames of one call.
const BATCH: usize = 64;
