//! The values that describe a tracked connection: its addresses, its state, its status.
//!
//! Invariant: plain values. How they stand in a message is conntrack.rs's business.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConntrackTuple {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The transport protocol by its IP number, such as 6 for TCP.
    pub protocol: u8,
    /// What tells connections between the two hosts apart.
    pub key: TupleKey,
    /// The conntrack zone of this direction alone, where it has one.
    pub zone: Option<u16>,
}

/// What tells connections of one protocol between two hosts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TupleKey {
    /// TCP, UDP, SCTP and other protocols with ports; for GRE, its keys.
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// The message type.
        kind: u8,
        /// The message code.
        code: u8,
        /// The identifier, as in echo requests.
        id: u16,
    },
    /// The protocol has none: all its packets between two hosts are one connection.
    None,
}

/// As `10.0.0.1:40000 > 10.0.0.2:443 protocol 6`.
impl fmt::Display for ConntrackTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, .. } = *self;
        match self.key {
            TupleKey::Ports { source: from, destination: to } => {
                let (from, to) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
                write!(f, "{from} > {to} protocol {protocol}")
            }
            TupleKey::Icmp { kind, code, id } => {
                write!(
                    f,
                    "{source} > {destination} protocol {protocol} type {kind} code {code} id {id}"
                )
            }
            TupleKey::None => write!(f, "{source} > {destination} protocol {protocol}"),
        }
    }
}

/// Where in its connection a packet stands (`enum ip_conntrack_info`). A packet that is not tracked on purpose
/// (`notrack`) has no connection, and so none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConntrackState {
    /// Of a connection that has seen both directions; in the original one.
    Established,
    /// The same, in the reply direction.
    EstablishedReply,
    /// Begins a connection that another one announced, or is an ICMP error about one; in the original direction.
    Related,
    /// The same, in the reply direction.
    RelatedReply,
    /// Of a connection that has seen no answer yet.
    New,
    /// A number that this version does not know.
    Other(u32),
}

impl ConntrackState {
    pub(super) const fn from_kernel(number: u32) -> Self {
        match number {
            0 => Self::Established,
            1 => Self::Related,
            2 => Self::New,
            3 => Self::EstablishedReply,
            4 => Self::RelatedReply,
            other => Self::Other(other),
        }
    }

    /// Whether the packet goes against the direction of its connection's first one.
    #[must_use]
    pub const fn is_reply(self) -> bool {
        matches!(self, Self::EstablishedReply | Self::RelatedReply)
    }

    /// Whether the connection has seen both directions.
    #[must_use]
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Established | Self::EstablishedReply)
    }

    /// Whether another connection announced this one.
    #[must_use]
    pub const fn is_related(self) -> bool {
        matches!(self, Self::Related | Self::RelatedReply)
    }
}

/// What the kernel knows about a connection (`enum ip_conntrack_status`, one bit each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConntrackStatus(pub u32);

impl ConntrackStatus {
    /// Another connection announced it.
    pub const EXPECTED: Self = Self(1);
    /// Packets went both ways. A verdict can set it, not clear it.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// Not to be evicted when the table is full. A verdict can set it, not clear it.
    pub const ASSURED: Self = Self(1 << 2);
    /// In the table: its first packet has passed the last hook.
    pub const CONFIRMED: Self = Self(1 << 3);
    /// Its source address or port is translated.
    pub const SOURCE_NAT: Self = Self(1 << 4);
    /// Its destination address or port is translated.
    pub const DESTINATION_NAT: Self = Self(1 << 5);
    /// About to be forgotten.
    pub const DYING: Self = Self(1 << 9);
    /// Packets do not prolong its timeout. A verdict can change it.
    pub const FIXED_TIMEOUT: Self = Self(1 << 10);
    /// Has a helper by rule. A verdict can change it.
    pub const HELPER: Self = Self(1 << 13);
    /// Handed to a flow table, in software.
    pub const OFFLOAD: Self = Self(1 << 14);
    /// Handed to a flow table, in hardware.
    pub const HARDWARE_OFFLOAD: Self = Self(1 << 15);

    /// The bits that the kernel lets nobody change: a verdict's are ignored (`IPS_UNCHANGEABLE_MASK` in
    /// `include/uapi/linux/netfilter/nf_conntrack_common.h`).
    pub const UNCHANGEABLE: Self = Self(0xdbf9);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set, too.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What went in one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConntrackCount {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
}

/// TCP's state as connection tracking sees it from the middle (`enum tcp_conntrack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// No packet judged yet: at the hook before the first.
    None,
    /// SYN seen.
    SynSent,
    /// SYN and its answer seen.
    SynReceived,
    /// Handshake complete.
    Established,
    /// First FIN seen.
    FinWait,
    /// First FIN acknowledged.
    CloseWait,
    /// Second FIN seen.
    LastAck,
    /// Last acknowledgement seen.
    TimeWait,
    /// Closed by RST.
    Close,
    /// SYN seen from both ends: a simultaneous open.
    SynSentBoth,
    /// A number that this version does not know.
    Other(u8),
}

impl TcpState {
    pub(super) const fn from_kernel(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSentBoth,
            other => Self::Other(other),
        }
    }
}
