//! Why a packet is not rewritten: small `Copy` values, since the hot path only counts them.

use core::fmt;

use etherparse::err;

/// Why a packet cannot be edited. Nothing was written where one of these comes back. Offsets count bytes from the
/// start of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A header or a length does not fit what is there: the packet was cut (copy range), or it lies. Do not rewrite it.
    #[error("{field} at offset {offset}: {need} bytes needed, {have} there")]
    Length {
        /// The header or length that is wrong.
        field: Field,
        /// Where it stands.
        offset: usize,
        /// How many bytes it asks for.
        need: usize,
        /// How many there are.
        have: usize,
    },
    /// Neither IPv4 nor IPv6: ARP, for one, in the bridge family.
    #[error("version {version} at offset 0: only IPv4 and IPv6 packets can be edited")]
    NotIp {
        /// The upper four bits of the first byte.
        version: u8,
    },
    /// The length field is 0: the packet is larger than 65,535 bytes (jumbogram, BIG TCP), and its real length is not
    /// in a header that can be set. `ip link set DEV gso_max_size 65536` makes the kernel build smaller ones.
    #[error(
        "{field} at offset {offset} is 0: a packet above 65,535 bytes (BIG TCP) cannot be rewritten"
    )]
    Jumbo {
        /// The length that is 0.
        field: Field,
        /// Where it stands.
        offset: usize,
    },
    /// More than [`EXTENSION_HEADERS_MAX`](super::EXTENSION_HEADERS_MAX) extension headers.
    #[error("more than {} extension headers, up to offset {offset}", super::EXTENSION_HEADERS_MAX)]
    TooManyExtensionHeaders {
        /// Where the first one too many begins.
        offset: usize,
    },
    /// The checksum covers bytes of other fragments. A fragment's addresses and, in the first, its ports can be edited;
    /// to edit more, have the kernel put the datagram together first (a rule that uses conntrack does).
    #[error(
        "a fragment: its checksum covers bytes of other fragments, so only header fields can be edited"
    )]
    Fragment,
    /// No checksum of this protocol is known here.
    #[error("IP protocol {protocol}: its checksum cannot be computed here")]
    UnknownTransport {
        /// The protocol's number.
        protocol: u8,
    },
    /// The kernel left a checksum open, and it is not the one in this packet's transport header: most likely that of a
    /// packet inside a tunnel. Serve the queue without the GSO flag: the kernel then finishes checksums itself.
    #[error(
        "the open checksum is not that of IP protocol {protocol} at offset {offset}: a tunnel's inner packet, \
         most likely; serve the queue without the GSO flag to rewrite it"
    )]
    OpenElsewhere {
        /// The number of the protocol of which it is not.
        protocol: u8,
        /// Where that one's header begins.
        offset: usize,
    },
    /// A routing header of a kind that does not tell, here, the final destination, which the checksum covers.
    #[error(
        "routing header of type {kind} at offset {offset}: the final destination cannot be read"
    )]
    UnknownRoute {
        /// The routing header's type.
        kind: u8,
        /// Where it begins.
        offset: usize,
    },
    /// A flow label has 20 bits.
    #[error("flow label {label:#x} has more than 20 bits")]
    FlowLabel {
        /// What was given.
        label: u32,
    },
    /// The length does not fit the length field.
    #[error("{length} bytes: the length field holds 65,535 at most")]
    TooLong {
        /// What the field should have held.
        length: usize,
    },
}

impl WireError {
    pub(super) fn of_ipv4(error: err::ipv4::HeaderSliceError) -> Self {
        use err::ipv4::{HeaderError, HeaderSliceError};
        match error {
            HeaderSliceError::Len(error) => Self::of_length(&error, Field::Ipv4Header, 0),
            HeaderSliceError::Content(HeaderError::UnexpectedVersion { version_number }) => {
                Self::NotIp { version: version_number }
            }
            HeaderSliceError::Content(HeaderError::HeaderLengthSmallerThanHeader { ihl }) => {
                let have = usize::from(ihl) * 4;
                Self::Length { field: Field::Ipv4Header, offset: 0, need: 20, have }
            }
        }
    }

    pub(super) fn of_ipv6(error: err::ipv6::HeaderSliceError) -> Self {
        use err::ipv6::{HeaderError, HeaderSliceError};
        match error {
            HeaderSliceError::Len(error) => Self::of_length(&error, Field::Ipv6Header, 0),
            HeaderSliceError::Content(HeaderError::UnexpectedVersion { version_number }) => {
                Self::NotIp { version: version_number }
            }
        }
    }

    pub(super) fn of_tcp(error: &err::tcp::HeaderSliceError, at: usize) -> Self {
        use err::tcp::{HeaderError, HeaderSliceError};
        match error {
            HeaderSliceError::Len(error) => Self::of_length(error, Field::TcpHeader, at),
            HeaderSliceError::Content(HeaderError::DataOffsetTooSmall { data_offset }) => {
                let have = usize::from(*data_offset) * 4;
                Self::Length { field: Field::TcpHeader, offset: at, need: 20, have }
            }
        }
    }

    pub(super) fn of_length(error: &err::LenError, field: Field, at: usize) -> Self {
        let offset = at + error.layer_start_offset;
        Self::Length { field, offset, need: error.required_len, have: error.len }
    }
}

/// What a [`WireError`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// IPv4 header with its options.
    Ipv4Header,
    /// IPv4 total length.
    Ipv4TotalLength,
    /// IPv6 header.
    Ipv6Header,
    /// IPv6 payload length.
    Ipv6PayloadLength,
    /// Hop-by-hop or destination options, or routing header.
    ExtensionHeader,
    /// IPv6 fragment header.
    FragmentHeader,
    /// IP authentication header.
    AuthenticationHeader,
    /// TCP header with its options.
    TcpHeader,
    /// UDP header.
    UdpHeader,
    /// UDP length.
    UdpLength,
    /// ICMP or ICMPv6 header.
    IcmpHeader,
    /// UDP-Lite or DCCP header.
    OtherHeader,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ipv4Header => "IPv4 header",
            Self::Ipv4TotalLength => "IPv4 total length",
            Self::Ipv6Header => "IPv6 header",
            Self::Ipv6PayloadLength => "IPv6 payload length",
            Self::ExtensionHeader => "IPv6 extension header",
            Self::FragmentHeader => "IPv6 fragment header",
            Self::AuthenticationHeader => "authentication header",
            Self::TcpHeader => "TCP header",
            Self::UdpHeader => "UDP header",
            Self::UdpLength => "UDP length",
            Self::IcmpHeader => "ICMP header",
            Self::OtherHeader => "UDP-Lite or DCCP header",
        })
    }
}
