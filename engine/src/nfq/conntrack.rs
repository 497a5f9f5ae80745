//! The connection that a packet belongs to, as the kernel tracks it: the nested attributes of `NFQA_CT`, read
//! where they lie.
//!
//! ```text
//! NFQA_CT -+- CTA_TUPLE_ORIG, CTA_TUPLE_REPLY -+- CTA_TUPLE_IP: addresses
//!          |                                   +- CTA_TUPLE_PROTO: protocol, ports or ICMP type, code and id
//!          +- CTA_ID, CTA_STATUS, CTA_TIMEOUT, CTA_PROTOINFO: always
//!          +- CTA_MARK, CTA_LABELS, CTA_ZONE, counters, helper, ...: as kernel and connection have them
//! ```
//!
//! Invariant: nothing is read before it is asked for, nothing is copied but the value asked for, and no bytes make
//! an accessor panic: what is missing, cut or too short is `None`. Each accessor walks the attributes once, so
//! keep a value that you need twice. What the kernel sends is `__ctnetlink_glue_build` in
//! net/netfilter/nf_conntrack_netlink.c, in this order since kernel 3.6; the numbers are those of
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`. Changing a connection is conntrack_edit.rs's.

use core::net::IpAddr;

use super::attribute::{find, wire_constants};
use super::conntrack_fields::{
    ConntrackCount, ConntrackState, ConntrackStatus, ConntrackTuple, TcpState, TupleKey,
};

/// The tracked connection of one packet, borrowed from the packet's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack<'a> {
    bytes: &'a [u8],
    info: Option<u32>,
}

impl<'a> Conntrack<'a> {
    /// Takes the value of `NFQA_CT`, and that of `NFQA_CT_INFO`, which comes with it.
    pub(super) const fn new(bytes: &'a [u8], info: Option<u32>) -> Self {
        Self { bytes, info }
    }

    /// All of it as it came: a row of netlink attributes (`CTA_*`).
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value of one attribute by its number (`CTA_*`), for what has no accessor here.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.bytes, 0, kind)
    }

    /// Where in its connection this packet stands.
    pub fn state(&self) -> Option<ConntrackState> {
        self.info.map(ConntrackState::from_kernel)
    }

    /// Addresses and ports in the direction of the connection's first packet.
    pub fn original(&self) -> Option<ConntrackTuple> {
        tuple(self.attribute(TUPLE_ORIGINAL)?)
    }

    /// Addresses and ports that answers are expected to have; under NAT not the original ones in reverse.
    pub fn reply(&self) -> Option<ConntrackTuple> {
        tuple(self.attribute(TUPLE_REPLY)?)
    }

    /// The original direction of the connection that this one was expected from, such as FTP's control connection.
    pub fn master(&self) -> Option<ConntrackTuple> {
        tuple(self.attribute(TUPLE_MASTER)?)
    }

    /// A number that tells this connection from all others that exist at the same time: a keyed hash, not a
    /// count (`nf_ct_get_id`). The same for every packet of the connection once it is confirmed.
    pub fn id(&self) -> Option<u32> {
        number(self.attribute(ID)?)
    }

    /// What the kernel knows about the connection.
    pub fn status(&self) -> Option<ConntrackStatus> {
        number(self.attribute(STATUS)?).map(ConntrackStatus)
    }

    /// Seconds until the connection is forgotten if no packet comes.
    pub fn timeout(&self) -> Option<u32> {
        number(self.attribute(TIMEOUT)?)
    }

    /// The connection's mark; also where it is 0. None on a kernel without `CONFIG_NF_CONNTRACK_MARK`.
    pub fn mark(&self) -> Option<u32> {
        number(self.attribute(MARK)?)
    }

    /// The connection's 128 labels, as the kernel has them in memory: on little-endian machines label `n` is bit
    /// `n % 8` of byte `n / 8`. Sent only where one is set, which takes a rule that uses labels.
    pub fn labels(&self) -> Option<[u8; 16]> {
        self.attribute(LABELS)?.first_chunk().copied()
    }

    /// The conntrack zone, where it is not the default one and holds for both directions.
    pub fn zone(&self) -> Option<u16> {
        short(self.attribute(ZONE)?)
    }

    /// TCP's state, for TCP connections.
    pub fn tcp_state(&self) -> Option<TcpState> {
        let tcp = find(self.attribute(PROTOCOL_INFO)?, 0, PROTOCOL_INFO_TCP)?;
        Some(TcpState::from_kernel(*find(tcp, 0, TCP_STATE)?.first()?))
    }

    /// What went in the original direction; only with `net.netfilter.nf_conntrack_acct`.
    pub fn original_count(&self) -> Option<ConntrackCount> {
        count(self.attribute(COUNTERS_ORIGINAL)?)
    }

    /// What went in the reply direction; only with `net.netfilter.nf_conntrack_acct`.
    pub fn reply_count(&self) -> Option<ConntrackCount> {
        count(self.attribute(COUNTERS_REPLY)?)
    }

    /// The name of the connection's helper, such as `ftp`, without its closing zero.
    pub fn helper(&self) -> Option<&'a [u8]> {
        let name = find(self.attribute(HELP)?, 0, HELP_NAME)?;
        Some(name.strip_suffix(&[0]).unwrap_or(name))
    }
}

fn tuple(bytes: &[u8]) -> Option<ConntrackTuple> {
    let (ip, transport) = (find(bytes, 0, TUPLE_IP)?, find(bytes, 0, TUPLE_PROTOCOL)?);
    let address = |v4, v6| match find(ip, 0, v4) {
        Some(v4) => v4.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        None => find(ip, 0, v6)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
    };
    Some(ConntrackTuple {
        source: address(IP_V4_SOURCE, IP_V6_SOURCE)?,
        destination: address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
        protocol: *find(transport, 0, PROTOCOL_NUMBER)?.first()?,
        key: tuple_key(transport),
        zone: find(bytes, 0, TUPLE_ZONE).and_then(short),
    })
}

fn tuple_key(transport: &[u8]) -> TupleKey {
    let short_at = |kind| find(transport, 0, kind).and_then(short);
    let byte_at = |kind| find(transport, 0, kind).and_then(|value| value.first().copied());
    if let (Some(source), Some(destination)) = (short_at(PORT_SOURCE), short_at(PORT_DESTINATION)) {
        return TupleKey::Ports { source, destination };
    }
    let icmp = [(ICMP_ID, ICMP_TYPE, ICMP_CODE), (ICMPV6_ID, ICMPV6_TYPE, ICMPV6_CODE)];
    icmp.into_iter()
        .find_map(|(id, kind, code)| {
            let (id, kind, code) = (short_at(id)?, byte_at(kind)?, byte_at(code)?);
            Some(TupleKey::Icmp { kind, code, id })
        })
        .unwrap_or(TupleKey::None)
}

fn count(bytes: &[u8]) -> Option<ConntrackCount> {
    let wide = |kind| find(bytes, 0, kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    Some(ConntrackCount { packets: wide(COUNTER_PACKETS)?, bytes: wide(COUNTER_BYTES)? })
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn short(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

// libc has none of these.
wire_constants! {
    TUPLE_ORIGINAL: u16 = 1; // CTA_*
    TUPLE_REPLY: u16 = 2;
    STATUS: u16 = 3;
    PROTOCOL_INFO: u16 = 4;
    HELP: u16 = 5;
    TIMEOUT: u16 = 7;
    MARK: u16 = 8;
    COUNTERS_ORIGINAL: u16 = 9;
    COUNTERS_REPLY: u16 = 10;
    ID: u16 = 12;
    TUPLE_MASTER: u16 = 14;
    ZONE: u16 = 18;
    LABELS: u16 = 22;
    TUPLE_IP: u16 = 1; // CTA_TUPLE_*
    TUPLE_PROTOCOL: u16 = 2;
    TUPLE_ZONE: u16 = 3;
    IP_V4_SOURCE: u16 = 1; // CTA_IP_*
    IP_V4_DESTINATION: u16 = 2;
    IP_V6_SOURCE: u16 = 3;
    IP_V6_DESTINATION: u16 = 4;
    PROTOCOL_NUMBER: u16 = 1; // CTA_PROTO_*
    PORT_SOURCE: u16 = 2;
    PORT_DESTINATION: u16 = 3;
    ICMP_ID: u16 = 4;
    ICMP_TYPE: u16 = 5;
    ICMP_CODE: u16 = 6;
    ICMPV6_ID: u16 = 7;
    ICMPV6_TYPE: u16 = 8;
    ICMPV6_CODE: u16 = 9;
    PROTOCOL_INFO_TCP: u16 = 1; // CTA_PROTOINFO_*
    TCP_STATE: u16 = 1; // CTA_PROTOINFO_TCP_*
    COUNTER_PACKETS: u16 = 1; // CTA_COUNTERS_*, 64 bit
    COUNTER_BYTES: u16 = 2;
    HELP_NAME: u16 = 1; // CTA_HELP_*
}
