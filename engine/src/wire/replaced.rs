//! Lengths and checksums of a packet that was built anew, or changed at will.
//!
//! Invariant: an error leaves the bytes as they were. Nothing of a former packet is needed.

use super::WireError;
use super::checksum::Sum;
use super::edit::fill_in;
use super::layout::{Fragment, Layout, Lengths, Transport, Version};

/// Writes the IPv4 header's checksum and the transport's, whatever they were, over the lengths that the headers state.
///
/// In IPv4 a UDP checksum of 0 stays: it means "none" (RFC 768). In IPv6 it is computed. A later fragment has no
/// transport checksum, and of a protocol that is not TCP, UDP, ICMP or ICMPv6 that is left alone.
///
/// # Errors
///
/// As for [`PacketEdit::new`](super::PacketEdit::new); [`WireError::Fragment`] for a first fragment, and
/// [`WireError::UnknownRoute`].
pub fn recompute_checksums(bytes: &mut [u8]) -> Result<(), WireError> {
    let layout = Layout::find(bytes, Lengths::Stated)?;
    check(&layout)?;
    write_checksums(bytes, &layout);
    Ok(())
}

/// Makes the lengths in the headers those of `bytes` (IPv4 total length or IPv6 payload length, and UDP length), and
/// then computes the checksums as [`recompute_checksums`] does: for a packet that grew or shrank.
///
/// # Errors
///
/// As for [`recompute_checksums`], and [`WireError::TooLong`]. No fragment has its length changed.
pub fn set_lengths(bytes: &mut [u8]) -> Result<(), WireError> {
    let layout = Layout::find(bytes, Lengths::OfTheBytes)?;
    if layout.fragment != Fragment::No {
        return Err(WireError::Fragment);
    }
    check(&layout)?;
    let (at, length) = match layout.version {
        Version::V4 { .. } => (2, bytes.len()),
        Version::V6 => (4, bytes.len() - super::layout::IPV6_HEADER),
    };
    let length = u16::try_from(length).map_err(|_| WireError::TooLong { length })?;
    bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
    if let Some(header) = layout.transport.filter(|header| header.kind == Transport::Udp) {
        // Not above the IP length, which fits.
        let length = u16::try_from(header.end - header.at).unwrap_or(u16::MAX);
        bytes[header.at + 4..header.at + 6].copy_from_slice(&length.to_be_bytes());
    }
    write_checksums(bytes, &layout);
    Ok(())
}

/// Whether the checksums can be computed as far as there are any to compute.
fn check(layout: &Layout) -> Result<(), WireError> {
    match (layout.fragment, layout.computable()) {
        (Fragment::Later, _) | (_, Ok(_) | Err(WireError::UnknownTransport { .. })) => Ok(()),
        (_, Err(error)) => Err(error),
    }
}

fn write_checksums(bytes: &mut [u8], layout: &Layout) {
    if let Version::V4 { header_length } = layout.version {
        bytes[10..12].fill(0);
        let checksum = Sum::of(&bytes[..header_length]).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let Ok(header) = layout.computable() else { return };
    let without = header.kind == Transport::Udp
        && layout.version != Version::V6
        && bytes[header.at + 6..header.at + 8] == [0; 2];
    if !without {
        fill_in(bytes, layout, &header);
    }
}
