//! The fields of IPv4 and IPv6 headers.
//!
//! Invariant: as for [`Fields`]. Lengths, versions and protocol numbers have no setter: they say where everything else
//! is. [`set_lengths`](super::set_lengths) sets lengths for a packet that was built anew.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::WireError;
use super::fields::Fields;

/// An IPv4 header (RFC 791). Each setter updates its checksum; an address also that of the transport header.
#[derive(Debug)]
pub struct Ipv4Edit<'e>(pub(super) Fields<'e>);

impl Ipv4Edit<'_> {
    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        self.0.read(12).into()
    }

    /// Sets the source address.
    pub fn set_source(&mut self, address: Ipv4Addr) -> &mut Self {
        self.0.write_address(12, address.octets(), true);
        self
    }

    /// Destination address: the next stop's, where a source route has stops left.
    pub fn destination(&self) -> Ipv4Addr {
        self.0.read(16).into()
    }

    /// Sets the destination address. Where a source route has stops left the transport checksum does not cover this
    /// address (RFC 1122, section 4.2.3.8), and stays as it is.
    pub fn set_destination(&mut self, address: Ipv4Addr) -> &mut Self {
        let in_pseudo_header = self.0.layout.header_has_final_destination();
        self.0.write_address(16, address.octets(), in_pseudo_header);
        self
    }

    /// Time to live, in hops.
    pub fn ttl(&self) -> u8 {
        let [ttl] = self.0.read(8);
        ttl
    }

    /// Sets the time to live.
    pub fn set_ttl(&mut self, hops: u8) -> &mut Self {
        self.0.write(8, [hops]);
        self
    }

    /// The traffic class (`tos`): DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168).
    pub fn traffic_class(&self) -> u8 {
        let [class] = self.0.read(1);
        class
    }

    /// Sets DSCP and ECN.
    pub fn set_traffic_class(&mut self, class: u8) -> &mut Self {
        self.0.write(1, [class]);
        self
    }

    /// Identification, by which fragments are put together.
    pub fn identification(&self) -> u16 {
        u16::from_be_bytes(self.0.read(4))
    }

    /// Sets the identification: of a fragment, in every one of its datagram.
    pub fn set_identification(&mut self, number: u16) -> &mut Self {
        self.0.write(4, number.to_be_bytes());
        self
    }
}

/// An IPv6 header (RFC 8200). It has no checksum of its own; addresses are covered by that of the transport header.
#[derive(Debug)]
pub struct Ipv6Edit<'e>(pub(super) Fields<'e>);

impl Ipv6Edit<'_> {
    /// Source address.
    pub fn source(&self) -> Ipv6Addr {
        self.0.read(8).into()
    }

    /// Sets the source address.
    pub fn set_source(&mut self, address: Ipv6Addr) -> &mut Self {
        self.0.write_address(8, address.octets(), true);
        self
    }

    /// Destination address: the next stop's, where a routing header has segments left.
    pub fn destination(&self) -> Ipv6Addr {
        self.0.read(24).into()
    }

    /// Sets the destination address. Where a routing header has segments left the transport checksum does not cover
    /// this address (RFC 8200, section 8.1), and stays as it is.
    pub fn set_destination(&mut self, address: Ipv6Addr) -> &mut Self {
        let in_pseudo_header = self.0.layout.header_has_final_destination();
        self.0.write_address(24, address.octets(), in_pseudo_header);
        self
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        let [hops] = self.0.read(7);
        hops
    }

    /// Sets the hop limit.
    pub fn set_hop_limit(&mut self, hops: u8) -> &mut Self {
        self.0.write(7, [hops]);
        self
    }

    /// Traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub fn traffic_class(&self) -> u8 {
        let [class, ..] = (self.first_word() << 4).to_be_bytes();
        class
    }

    /// Sets DSCP and ECN.
    pub fn set_traffic_class(&mut self, class: u8) -> &mut Self {
        let others = self.first_word() & !(0xff << FLOW_LABEL_BITS);
        self.0.write(0, (others | u32::from(class) << FLOW_LABEL_BITS).to_be_bytes());
        self
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        self.first_word() & FLOW_LABEL
    }

    /// Sets the flow label.
    ///
    /// # Errors
    ///
    /// [`WireError::FlowLabel`] if it has more than 20 bits.
    pub fn set_flow_label(&mut self, label: u32) -> Result<&mut Self, WireError> {
        if label > FLOW_LABEL {
            return Err(WireError::FlowLabel { label });
        }
        self.0.write(0, (self.first_word() & !FLOW_LABEL | label).to_be_bytes());
        Ok(self)
    }

    /// Version, traffic class and flow label.
    fn first_word(&self) -> u32 {
        u32::from_be_bytes(self.0.read(0))
    }
}

const FLOW_LABEL_BITS: u32 = 20;
const FLOW_LABEL: u32 = (1 << FLOW_LABEL_BITS) - 1;
