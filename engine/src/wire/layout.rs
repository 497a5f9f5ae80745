//! Where a packet's headers stand, and what its transport checksum covers.
//!
//! Invariant: every offset in a [`Layout`] lies inside the bytes that it was made from, every header that it names is
//! there whole, and all of them begin at even offsets: nothing built on it can reach outside or sum out of step.

use core::ops::Range;

use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice, ip_number,
};

use super::checksum::Sum;
use super::extensions::{Extensions, Route, authentication_header};
use super::{Field, WireError};

/// What a packet carries, by its transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP in IPv4.
    Icmp,
    /// ICMPv6 in IPv6.
    Icmpv6,
    /// Any other protocol, by its number; also an end without payload (59).
    Other(u8),
}

/// Whether the packet is part of a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    No,
    /// The part that has the transport header.
    First,
    /// A part without transport header.
    Later,
}

/// Which lengths hold: those that the headers state, or the number of bytes given, for headers that are to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths {
    Stated,
    OfTheBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4 { header_length: usize },
    V6,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) version: Version,
    pub(super) fragment: Fragment,
    /// `None` in later fragments.
    pub(super) transport: Option<TransportHeader>,
    route: Route,
}

/// A transport header: it begins at `at`, its payload at `payload_at`, and what its checksum covers ends at `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransportHeader {
    pub(super) kind: Transport,
    pub(super) at: usize,
    pub(super) payload_at: usize,
    pub(super) end: usize,
}

impl Layout {
    pub(super) fn find(bytes: &[u8], lengths: Lengths) -> Result<Self, WireError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::of_ipv4(bytes, lengths),
            Some(6) => Self::of_ipv6(bytes, lengths),
            Some(version) => Err(WireError::NotIp { version }),
            None => {
                Err(WireError::Length { field: Field::Ipv4Header, offset: 0, need: 20, have: 0 })
            }
        }
    }

    fn of_ipv4(bytes: &[u8], lengths: Lengths) -> Result<Self, WireError> {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(WireError::of_ipv4)?;
        let header_length = header.slice().len();
        let end = match lengths {
            Lengths::OfTheBytes => bytes.len(),
            Lengths::Stated => {
                let stated = usize::from(header.total_len());
                stated_end(Field::Ipv4TotalLength, stated, header_length, bytes.len())?
            }
        };
        let fragment = match (header.fragments_offset().value(), header.more_fragments()) {
            (0, false) => Fragment::No,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        let version = Version::V4 { header_length };
        if fragment == Fragment::Later {
            return Ok(Self { version, fragment, transport: None, route: Route::Direct });
        }
        let (mut protocol, mut at) = (header.protocol(), header_length);
        if protocol == ip_number::AUTH {
            let authentication = authentication_header(&bytes[..end], at)?;
            (protocol, at) = (authentication.next_header(), at + authentication.slice().len());
        }
        let kind = match protocol {
            ip_number::ICMP => Transport::Icmp,
            other => kind_in_both(other),
        };
        let place = Place { at, end, fragment, lengths };
        let transport = Some(transport_header(bytes, kind, place)?);
        let route = Route::of_ipv4_options(header.options());
        Ok(Self { version, fragment, transport, route })
    }

    fn of_ipv6(bytes: &[u8], lengths: Lengths) -> Result<Self, WireError> {
        let header = Ipv6HeaderSlice::from_slice(bytes).map_err(WireError::of_ipv6)?;
        let stated = usize::from(header.payload_length());
        let end = match lengths {
            Lengths::OfTheBytes => bytes.len(),
            // As in the kernel's ip6_rcv_core(): an empty packet may state 0, and may be padded.
            Lengths::Stated if stated == 0 && ends_here(header.next_header(), bytes) => IPV6_HEADER,
            Lengths::Stated => {
                let needed = if stated == 0 { 0 } else { IPV6_HEADER + stated };
                stated_end(Field::Ipv6PayloadLength, needed, IPV6_HEADER, bytes.len())?
            }
        };
        let extensions = Extensions::walk(&bytes[..end], header.next_header())?;
        let transport = match extensions.fragment {
            Fragment::Later => None,
            fragment => {
                let kind = match extensions.last {
                    ip_number::IPV6_ICMP => Transport::Icmpv6,
                    other => kind_in_both(other),
                };
                let place = Place { at: extensions.end, end, fragment, lengths };
                Some(transport_header(bytes, kind, place)?)
            }
        };
        let Extensions { fragment, route, .. } = extensions;
        Ok(Self { version: Version::V6, fragment, transport, route })
    }

    /// Where the addresses stand: source, then destination.
    pub(super) const fn addresses(&self) -> Range<usize> {
        match self.version {
            Version::V4 { .. } => 12..20,
            Version::V6 => 8..40,
        }
    }

    /// Whether the destination in the IP header is the one in the pseudo header.
    pub(super) fn header_has_final_destination(&self) -> bool {
        self.route == Route::Direct
    }

    /// The transport header, if its checksum can be computed from this packet alone.
    pub(super) fn computable(&self) -> Result<TransportHeader, WireError> {
        let (Fragment::No, Some(header)) = (self.fragment, self.transport) else {
            return Err(WireError::Fragment);
        };
        match (header.kind, self.route) {
            (Transport::Other(protocol), _) => Err(WireError::UnknownTransport { protocol }),
            (_, Route::Unknown { kind, offset }) => Err(WireError::UnknownRoute { kind, offset }),
            _ => Ok(header),
        }
    }

    /// The sum over the pseudo header of `header`; nothing where its protocol has none. For computable ones only.
    pub(super) fn pseudo_sum(&self, bytes: &[u8], header: &TransportHeader) -> Sum {
        if !header.has_pseudo_header() {
            return Sum::ZERO;
        }
        let addresses = &bytes[self.addresses()];
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let destination = match self.route {
            Route::FinalAt(at) => &bytes[at..at + destination.len()],
            Route::Direct | Route::Unknown { .. } => destination,
        };
        let length = (header.end - header.at) as u64;
        Sum::of(source)
            .plus(Sum::of(destination))
            .plus(Sum::of_word(u16::from(header.protocol())))
            .plus(Sum::of(&length.to_be_bytes()))
    }
}

impl TransportHeader {
    /// Where its checksum stands.
    pub(super) const fn checksum_at(&self) -> Option<usize> {
        match self.kind {
            Transport::Tcp => Some(self.at + 16),
            Transport::Udp | Transport::Other(UDP_LITE | DCCP) => Some(self.at + 6),
            Transport::Icmp | Transport::Icmpv6 => Some(self.at + 2),
            Transport::Other(_) => None,
        }
    }

    pub(super) fn has_pseudo_header(&self) -> bool {
        self.kind != Transport::Icmp
    }

    /// Whether a checksum of 0 is written as 0xffff.
    pub(super) const fn writes_no_zero(&self) -> bool {
        matches!(self.kind, Transport::Udp | Transport::Other(UDP_LITE))
    }

    pub(super) const fn protocol(&self) -> u8 {
        match self.kind {
            Transport::Tcp => ip_number::TCP.0,
            Transport::Udp => ip_number::UDP.0,
            Transport::Icmp => ip_number::ICMP.0,
            Transport::Icmpv6 => ip_number::IPV6_ICMP.0,
            Transport::Other(protocol) => protocol,
        }
    }
}

/// Where a transport header is looked for.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    end: usize,
    fragment: Fragment,
    lengths: Lengths,
}

fn transport_header(
    bytes: &[u8],
    kind: Transport,
    place: Place,
) -> Result<TransportHeader, WireError> {
    let Place { at, end, .. } = place;
    let rest = &bytes[at..end];
    let fixed = |field, need| match rest.len() {
        have if have < need => Err(WireError::Length { field, offset: at, need, have }),
        _ => Ok(TransportHeader { kind, at, payload_at: at + need, end }),
    };
    match kind {
        Transport::Tcp => {
            let header =
                TcpHeaderSlice::from_slice(rest).map_err(|error| WireError::of_tcp(&error, at))?;
            Ok(TransportHeader { kind, at, payload_at: at + header.slice().len(), end })
        }
        Transport::Udp => {
            let header = UdpHeaderSlice::from_slice(rest)
                .map_err(|error| WireError::of_length(&error, Field::UdpHeader, at))?;
            let end = udp_end(usize::from(header.length()), place)?;
            Ok(TransportHeader { kind, at, payload_at: at + UDP_HEADER, end })
        }
        Transport::Icmp | Transport::Icmpv6 => fixed(Field::IcmpHeader, ICMP_HEADER),
        Transport::Other(UDP_LITE | DCCP) => fixed(Field::OtherHeader, UDP_HEADER),
        Transport::Other(_) => Ok(TransportHeader { kind, at, payload_at: at, end }),
    }
}

/// Where the datagram ends: where its length says, if this is all of it. Bytes behind it are UDP options (RFC 9868).
fn udp_end(stated: usize, place: Place) -> Result<usize, WireError> {
    let have = place.end - place.at;
    let wrong = |need, have| {
        Err(WireError::Length { field: Field::UdpLength, offset: place.at + 4, need, have })
    };
    match (place.lengths, place.fragment) {
        (Lengths::OfTheBytes, _) => Ok(place.end),
        _ if stated < UDP_HEADER => wrong(UDP_HEADER, stated),
        (_, Fragment::No) if stated > have => wrong(stated, have),
        (_, Fragment::No) => Ok(place.at + stated),
        (_, Fragment::First | Fragment::Later) => Ok(place.end),
    }
}

fn kind_in_both(protocol: IpNumber) -> Transport {
    match protocol {
        ip_number::TCP => Transport::Tcp,
        ip_number::UDP => Transport::Udp,
        IpNumber(other) => Transport::Other(other),
    }
}

/// Checks the packet's stated end; a field that says 0 gives 0.
fn stated_end(field: Field, end: usize, header: usize, have: usize) -> Result<usize, WireError> {
    let offset = if field == Field::Ipv4TotalLength { 2 } else { 4 };
    match end {
        0 => Err(WireError::Jumbo { field, offset }),
        _ if end < header => Err(WireError::Length { field, offset, need: header, have: end }),
        _ if end > have => Err(WireError::Length { field, offset, need: end, have }),
        _ => Ok(end),
    }
}

/// Whether an IPv6 packet whose payload length is 0 is an empty one.
fn ends_here(next: IpNumber, bytes: &[u8]) -> bool {
    next == ip_number::IPV6_NO_NEXT_HEADER || bytes.len() == IPV6_HEADER
}

pub(super) const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
/// RFC 3828. Its checksum may cover less than the packet; the pseudo header is always in it.
const UDP_LITE: u8 = ip_number::UDP_LITE.0;
/// RFC 4340; as UDP-Lite.
const DCCP: u8 = ip_number::DCCP.0;
