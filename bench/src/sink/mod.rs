//! The sink: logs when each packet of the load arrived, and throws it away.
//!
//! Two ways, one log. As a rule a BPF program filters the sink's UDP socket: it notes the time in the kernel, wakes
//! nobody, and takes nothing, so the sink neither delays nor loses a packet. Where BPF is refused, a thread receives.
//!
//! Invariant: a packet's time is that of its first arrival; each later one is a duplicate. What is no packet of the
//! load is a stray, and in no log.

mod filter;
mod socket;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// A sink that is listening.
#[derive(Debug)]
pub(crate) enum Sink {
    Filter(filter::FilterSink),
    Socket(socket::SocketSink),
}

/// What has arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ArrivalLog {
    /// By sender and sequence number, `CLOCK_MONOTONIC` in nanoseconds; 0 for what did not arrive.
    pub(crate) times: Vec<Vec<u64>>,
    pub(crate) duplicates: u64,
    pub(crate) strays: u64,
    /// Lost by the sink's own socket.
    pub(crate) socket_drops: u64,
}

impl Sink {
    /// Listens on `port` in the network namespace of this thread, for so many senders with so many packets each.
    pub(crate) fn listen(
        port: u16,
        senders: usize,
        packets: usize,
        with_bpf: bool,
    ) -> anyhow::Result<Self> {
        let socket = open(port).with_context(|| format!("opening the sink on UDP port {port}"))?;
        if with_bpf {
            filter::FilterSink::new(socket, senders, packets).map(Self::Filter)
        } else {
            socket::SocketSink::new(socket, senders, packets).map(Self::Socket)
        }
    }

    /// How many have arrived; 0 where that is known only in the end.
    pub(crate) fn arrived_so_far(&self) -> anyhow::Result<usize> {
        match self {
            Self::Filter(sink) => sink.arrived_so_far(),
            Self::Socket(_) => Ok(0),
        }
    }

    /// Stops listening and gives the log.
    pub(crate) fn close(self) -> anyhow::Result<ArrivalLog> {
        match self {
            Self::Filter(sink) => sink.close(),
            Self::Socket(sink) => sink.close(),
        }
    }
}

/// A socket for both families that takes UDP without a checksum, as the load is sent.
fn open(port: u16) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    sys::accept_no_checksum(&socket)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket.into())
}

/// For the sink that receives: it may be kept from running for a while.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;
