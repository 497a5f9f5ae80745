//! The headers between IP's and the transport's: which there are, where they end, and where a route leads.
//!
//! Invariant: as for [`Layout`](super::layout::Layout). A walk takes a bounded number of steps. Headers come in any
//! order, since receivers take them so (RFC 8200, section 4.1). Mobility, HIP and Shim6 end the walk: they carry no
//! transport header in practice.

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice, err, ip_number,
};

use super::layout::IPV6_HEADER;
use super::{Field, Fragment, WireError};

/// How many extension headers are walked over before a packet is refused. Eight is what RFC 8200 has kinds and repeats
/// for; each costs the walk a few nanoseconds, and a packet has room for 8,000.
pub const EXTENSION_HEADERS_MAX: usize = 16;

/// What a walk over IPv6's extension headers found.
pub(super) struct Extensions {
    /// The number of what follows them.
    pub(super) last: IpNumber,
    /// Where that begins.
    pub(super) end: usize,
    pub(super) fragment: Fragment,
    pub(super) route: Route,
}

impl Extensions {
    /// Walks in any order, as receivers do (RFC 8200, section 4.1). `bytes` ends where the packet does.
    pub(super) fn walk(bytes: &[u8], first: IpNumber) -> Result<Self, WireError> {
        let mut found =
            Self { last: first, end: IPV6_HEADER, fragment: Fragment::No, route: Route::Direct };
        for _ in 0..EXTENSION_HEADERS_MAX {
            if !found.step(bytes)? {
                return Ok(found);
            }
        }
        match found.last {
            ip_number::IPV6_HOP_BY_HOP
            | ip_number::IPV6_DEST_OPTIONS
            | ip_number::IPV6_ROUTE
            | ip_number::IPV6_FRAG
            | ip_number::AUTH => Err(WireError::TooManyExtensionHeaders { offset: found.end }),
            _ => Ok(found),
        }
    }

    /// Walks over one header; false if there is none, or none that this packet has.
    fn step(&mut self, bytes: &[u8]) -> Result<bool, WireError> {
        let (offset, rest) = (self.end, &bytes[self.end..]);
        match self.last {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|error| {
                    WireError::of_length(&error, Field::ExtensionHeader, offset)
                })?;
                if self.last == ip_number::IPV6_ROUTE {
                    self.route = Route::of(header.payload(), offset, self.route);
                }
                (self.last, self.end) = (header.next_header(), offset + header.slice().len());
            }
            ip_number::AUTH => {
                let header = authentication_header(bytes, offset)?;
                (self.last, self.end) = (header.next_header(), offset + header.slice().len());
            }
            ip_number::IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest)
                    .map_err(|error| WireError::of_length(&error, Field::FragmentHeader, offset))?;
                if header.fragment_offset().value() != 0 {
                    // What follows is the middle of something.
                    self.fragment = Fragment::Later;
                    return Ok(false);
                }
                if header.more_fragments() {
                    self.fragment = Fragment::First;
                }
                (self.last, self.end) = (header.next_header(), offset + header.slice().len());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Route {
    /// Looks for a source route with stops left (RFC 791, section 3.1). Options that cannot be read have none.
    pub(super) fn of_ipv4_options(options: &[u8]) -> Self {
        let mut at = 0;
        while let Some(rest) = options.get(at..).filter(|rest| !rest.is_empty()) {
            at += match *rest {
                [END_OF_OPTIONS, ..] => break,
                [NO_OPERATION, ..] => 1,
                // The pointer counts from 1.
                [LOOSE_ROUTE | STRICT_ROUTE, length @ 7..=255, pointer, ..]
                    if pointer <= length && usize::from(length) <= rest.len() =>
                {
                    return Self::FinalAt(IPV4_HEADER + at + usize::from(length) - 4);
                }
                [_, length @ 2..=255, ..] => usize::from(length),
                _ => break,
            };
        }
        Self::Direct
    }

    /// Reads a routing header at `offset`, of which `payload` is what follows next header and length.
    fn of(payload: &[u8], offset: usize, before: Self) -> Self {
        let &[kind, segments_left, ..] = payload else { return before };
        if segments_left == 0 {
            return before;
        }
        // Addresses begin at byte 8, after type, segments left and four bytes of the type's own.
        let addresses = (payload.len() - 6) / 16;
        match kind {
            // Source route and mobile IPv6 (RFC 2460, RFC 6275): in the order of travel.
            0 | 2 if addresses > 0 => Self::FinalAt(offset + 8 + 16 * (addresses - 1)),
            // Segment routing (RFC 8754): in reverse.
            4 if addresses > 0 => Self::FinalAt(offset + 8),
            _ => Self::Unknown { kind, offset },
        }
    }
}

/// Which destination the pseudo header has: with stops of a source route left, not that of the IP header (RFC 8200,
/// section 8.1; RFC 1122, section 4.2.3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Direct,
    FinalAt(usize),
    Unknown { kind: u8, offset: usize },
}

pub(super) fn authentication_header(
    bytes: &[u8],
    at: usize,
) -> Result<IpAuthHeaderSlice<'_>, WireError> {
    IpAuthHeaderSlice::from_slice(&bytes[at..]).map_err(|error| match error {
        err::ip_auth::HeaderSliceError::Len(error) => {
            WireError::of_length(&error, Field::AuthenticationHeader, at)
        }
        // Its length field, in words less 2, says 0: 8 bytes, where the header has 12 at least.
        err::ip_auth::HeaderSliceError::Content(_) => {
            WireError::Length { field: Field::AuthenticationHeader, offset: at, need: 12, have: 8 }
        }
    })
}

const IPV4_HEADER: usize = 20;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
