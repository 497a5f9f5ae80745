//! The fields of TCP, UDP and ICMP headers.
//!
//! Invariant: as for [`Fields`]. The data offset, UDP's length and the checksums have no setter: those are kept.

use super::fields::Fields;

/// A TCP header (RFC 9293).
#[derive(Debug)]
pub struct TcpEdit<'e>(pub(super) Fields<'e>);

impl TcpEdit<'_> {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(0))
    }

    /// Sets the source port.
    pub fn set_source_port(&mut self, port: u16) -> &mut Self {
        self.0.write_transport(0, port.to_be_bytes());
        self
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(2))
    }

    /// Sets the destination port.
    pub fn set_destination_port(&mut self, port: u16) -> &mut Self {
        self.0.write_transport(2, port.to_be_bytes());
        self
    }

    /// Sequence number.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.0.read_transport(4))
    }

    /// Sets the sequence number.
    pub fn set_sequence(&mut self, number: u32) -> &mut Self {
        self.0.write_transport(4, number.to_be_bytes());
        self
    }

    /// Acknowledgement number.
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(self.0.read_transport(8))
    }

    /// Sets the acknowledgement number. Those in options (SACK) stay as they are.
    pub fn set_acknowledgement(&mut self, number: u32) -> &mut Self {
        self.0.write_transport(8, number.to_be_bytes());
        self
    }

    /// Flags, from CWR (0x80) over ECE, URG, ACK, PSH, RST, SYN to FIN (0x01).
    pub fn flags(&self) -> u8 {
        let [flags] = self.0.read_transport(13);
        flags
    }

    /// Sets the flags.
    pub fn set_flags(&mut self, flags: u8) -> &mut Self {
        self.0.write_transport(13, [flags]);
        self
    }

    /// Window, before scaling.
    pub fn window(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(14))
    }

    /// Sets the window.
    pub fn set_window(&mut self, window: u16) -> &mut Self {
        self.0.write_transport(14, window.to_be_bytes());
        self
    }

    /// Urgent pointer.
    pub fn urgent(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(18))
    }

    /// Sets the urgent pointer.
    pub fn set_urgent(&mut self, pointer: u16) -> &mut Self {
        self.0.write_transport(18, pointer.to_be_bytes());
        self
    }
}

/// A UDP header (RFC 768). One that was sent without a checksum stays without.
#[derive(Debug)]
pub struct UdpEdit<'e>(pub(super) Fields<'e>);

impl UdpEdit<'_> {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(0))
    }

    /// Sets the source port.
    pub fn set_source_port(&mut self, port: u16) -> &mut Self {
        self.0.write_transport(0, port.to_be_bytes());
        self
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes(self.0.read_transport(2))
    }

    /// Sets the destination port.
    pub fn set_destination_port(&mut self, port: u16) -> &mut Self {
        self.0.write_transport(2, port.to_be_bytes());
        self
    }
}

/// An ICMP (RFC 792) or ICMPv6 (RFC 4443) header. The packet quoted in an error message is its payload.
#[derive(Debug)]
pub struct IcmpEdit<'e>(pub(super) Fields<'e>);

impl IcmpEdit<'_> {
    /// Type: 8 is an ICMP echo request, 128 an ICMPv6 one.
    pub fn message_type(&self) -> u8 {
        let [message_type] = self.0.read_transport(0);
        message_type
    }

    /// Sets the type.
    pub fn set_message_type(&mut self, message_type: u8) -> &mut Self {
        self.0.write_transport(0, [message_type]);
        self
    }

    /// Code.
    pub fn code(&self) -> u8 {
        let [code] = self.0.read_transport(1);
        code
    }

    /// Sets the code.
    pub fn set_code(&mut self, code: u8) -> &mut Self {
        self.0.write_transport(1, [code]);
        self
    }

    /// The rest of the header: of an echo, identifier and sequence number; of an error, its parameter, such as the MTU.
    pub fn rest_of_header(&self) -> [u8; 4] {
        self.0.read_transport(4)
    }

    /// Sets the rest of the header.
    pub fn set_rest_of_header(&mut self, rest: [u8; 4]) -> &mut Self {
        self.0.write_transport(4, rest);
        self
    }
}
