//! Reading and writing one field, and keeping the checksums over it right: what the typed edits of all headers share.
//!
//! Invariant: every field that is named here lies inside a header that [`Layout`] has seen whole.

use super::checksum::{Sum, updated};
use super::edit::{Upkeep, update};
use super::layout::{Layout, Version};

#[derive(Debug)]
pub(super) struct Fields<'e> {
    pub(super) bytes: &'e mut [u8],
    pub(super) layout: &'e Layout,
    pub(super) upkeep: Upkeep,
}

impl Fields<'_> {
    /// The bytes of a field of the network header.
    #[inline]
    pub(super) fn read<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        let mut value = [0; BYTES];
        value.copy_from_slice(&self.bytes[at..at + BYTES]);
        value
    }

    /// The bytes of a field of the transport header.
    #[inline]
    pub(super) fn read_transport<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        self.read(self.transport_at() + at)
    }

    /// Writes a field of the network header that only the header's own checksum covers, if any.
    #[inline]
    pub(super) fn write<const BYTES: usize>(&mut self, at: usize, value: [u8; BYTES]) {
        let (before, after) = self.replace(at, value);
        self.update_network(before, after);
    }

    /// Writes an address, which a pseudo header has if `in_pseudo_header`.
    #[inline]
    pub(super) fn write_address<const BYTES: usize>(
        &mut self,
        at: usize,
        value: [u8; BYTES],
        in_pseudo_header: bool,
    ) {
        let (before, after) = self.replace(at, value);
        self.update_network(before, after);
        if let (Some(header), Upkeep::EachEdit, true) =
            (self.layout.transport, self.upkeep, in_pseudo_header)
            && header.has_pseudo_header()
        {
            update(self.bytes, &header, before, after);
        }
    }

    /// Writes a field of the transport header.
    #[inline]
    pub(super) fn write_transport<const BYTES: usize>(&mut self, at: usize, value: [u8; BYTES]) {
        let (before, after) = self.replace(self.transport_at() + at, value);
        if let (Some(header), Upkeep::EachEdit) = (self.layout.transport, self.upkeep) {
            update(self.bytes, &header, before, after);
        }
    }

    /// Writes, and says what the 16-bit words around the field summed to before and sum to now.
    #[inline]
    fn replace<const BYTES: usize>(&mut self, at: usize, value: [u8; BYTES]) -> (Sum, Sum) {
        let words = (at & !1)..(at + BYTES).next_multiple_of(2);
        let before = Sum::of(&self.bytes[words.clone()]);
        self.bytes[at..at + BYTES].copy_from_slice(&value);
        (before, Sum::of(&self.bytes[words]))
    }

    #[inline]
    fn update_network(&mut self, before: Sum, after: Sum) {
        if let Version::V4 { .. } = self.layout.version {
            let checksum = updated(u16::from_be_bytes(self.read(IPV4_CHECKSUM)), before, after);
            self.bytes[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    fn transport_at(&self) -> usize {
        self.layout.transport.map_or(0, |header| header.at)
    }
}

/// RFC 791: the header checksum.
const IPV4_CHECKSUM: usize = 10;
