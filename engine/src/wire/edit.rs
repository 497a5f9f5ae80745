//! A packet whose headers are being edited.
//!
//! Invariant: while a [`PacketEdit`] lives nobody else can see the bytes, and when it goes every checksum in them is
//! filled in: a complete one is kept right by each edit, one that is open, or whose payload was handed out, is
//! computed once, in `Drop`. That cannot be forgotten, and cannot fail: whatever could be wrong was found in `new`.

use super::checksum::{Sum, updated};
use super::fields::Fields;
use super::layout::{Fragment, Layout, Lengths, Transport, TransportHeader, Version};
use super::{IcmpEdit, Ipv4Edit, Ipv6Edit, TcpEdit, UdpEdit, WireError};
use crate::nfq::SkbInfo;

/// Whether the transport checksum in the packet is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4Checksum {
    /// It is, right or wrong.
    Complete,
    /// The kernel left it to the network card: the field holds the pseudo header's sum (`CHECKSUM_PARTIAL`).
    Open,
}

impl From<SkbInfo> for L4Checksum {
    /// Open where the kernel says that it is not ready, and in every packet that is still to be segmented.
    fn from(info: SkbInfo) -> Self {
        if info.checksum_not_ready() || info.is_gso() { Self::Open } else { Self::Complete }
    }
}

/// Whether [`PacketEdit::new`] takes this packet: to ask before bytes are handed over for writing.
///
/// # Errors
///
/// Those of [`PacketEdit::new`].
#[inline]
pub fn check(bytes: &[u8], checksum: L4Checksum) -> Result<(), WireError> {
    prepare(bytes, checksum).map(|_| ())
}

/// Fills in the transport checksum if it is open, and leaves one that is complete and right as it is: for a packet that
/// came with an open one ([`L4Checksum::Open`]), whatever was written to it since.
///
/// # Errors
///
/// Those of [`PacketEdit::new`]: among them that the checksum is neither open nor right. The bytes are as before.
pub fn complete_open(bytes: &mut [u8]) -> Result<(), WireError> {
    PacketEdit::new(bytes, L4Checksum::Open).map(PacketEdit::finish)
}

/// What is known of a packet that [`PacketEdit`] takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Editable {
    layout: Layout,
    upkeep: Upkeep,
}

impl Editable {
    /// Finds the headers; the errors are those of [`PacketEdit::new`].
    #[inline]
    pub(crate) fn find(bytes: &[u8], checksum: L4Checksum) -> Result<Self, WireError> {
        let (layout, upkeep) = prepare(bytes, checksum)?;
        Ok(Self { layout, upkeep })
    }

    /// An edit of these same bytes, or of a copy of them.
    #[inline]
    pub(crate) fn edit(self, bytes: &mut [u8]) -> PacketEdit<'_> {
        PacketEdit { bytes, layout: self.layout, upkeep: self.upkeep }
    }
}

/// The headers of one packet, ready to be edited by field. Bytes behind the length that the IP header states are
/// padding, and are left alone.
#[derive(Debug)]
pub struct PacketEdit<'a> {
    bytes: &'a mut [u8],
    layout: Layout,
    upkeep: Upkeep,
}

/// How the transport checksum is kept right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upkeep {
    /// There is none that is known: another protocol, a later fragment, UDP sent without.
    Nothing,
    /// Updated with each edit.
    EachEdit,
    /// Computed whole at the end.
    AtTheEnd,
}

impl<'a> PacketEdit<'a> {
    /// Finds the headers of a packet that begins with its network header.
    ///
    /// # Errors
    ///
    /// Whatever does not let its checksums be kept right; see [`WireError`]. Truncated packets are among it. The bytes
    /// are as before.
    #[inline]
    pub fn new(bytes: &'a mut [u8], checksum: L4Checksum) -> Result<Self, WireError> {
        let (layout, upkeep) = prepare(bytes, checksum)?;
        Ok(Self { bytes, layout, upkeep })
    }

    /// What the packet carries; `None` in a fragment that is not the first.
    #[inline]
    pub fn transport(&self) -> Option<Transport> {
        self.layout.transport.map(|header| header.kind)
    }

    /// Whether it is part of a larger packet.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        self.layout.fragment
    }

    /// Its IPv4 header.
    #[inline]
    pub fn ipv4(&mut self) -> Option<Ipv4Edit<'_>> {
        matches!(self.layout.version, Version::V4 { .. }).then(|| Ipv4Edit(self.fields()))
    }

    /// Its IPv6 header.
    #[inline]
    pub fn ipv6(&mut self) -> Option<Ipv6Edit<'_>> {
        (self.layout.version == Version::V6).then(|| Ipv6Edit(self.fields()))
    }

    /// Its TCP header.
    #[inline]
    pub fn tcp(&mut self) -> Option<TcpEdit<'_>> {
        (self.transport() == Some(Transport::Tcp)).then(|| TcpEdit(self.fields()))
    }

    /// Its UDP header.
    #[inline]
    pub fn udp(&mut self) -> Option<UdpEdit<'_>> {
        (self.transport() == Some(Transport::Udp)).then(|| UdpEdit(self.fields()))
    }

    /// Its ICMP (in IPv4) or ICMPv6 (in IPv6) header.
    #[inline]
    pub fn icmp(&mut self) -> Option<IcmpEdit<'_>> {
        matches!(self.transport(), Some(Transport::Icmp | Transport::Icmpv6))
            .then(|| IcmpEdit(self.fields()))
    }

    /// What follows the transport header, as far as the packet's lengths say; for a protocol that is not known here,
    /// all that follows IP's headers; for a later fragment, nothing.
    #[inline]
    pub fn l4_payload(&self) -> &[u8] {
        self.layout.transport.map_or(&[], |header| &self.bytes[header.payload_at..header.end])
    }

    /// The same, to be written to. The transport checksum is then computed whole at the end, whatever it was before:
    /// one that was wrong comes out right. UDP that was sent without a checksum stays so.
    ///
    /// # Errors
    ///
    /// [`WireError::Fragment`], [`WireError::UnknownTransport`], [`WireError::UnknownRoute`]: the checksum could not be
    /// computed.
    pub fn l4_payload_mut(&mut self) -> Result<&mut [u8], WireError> {
        let header = self.layout.computable()?;
        if self.upkeep == Upkeep::EachEdit {
            self.upkeep = Upkeep::AtTheEnd;
        }
        Ok(&mut self.bytes[header.payload_at..header.end])
    }

    /// Ends the edit: the same as letting it go out of scope.
    pub fn finish(self) {}

    #[inline]
    fn fields(&mut self) -> Fields<'_> {
        Fields { bytes: self.bytes, layout: &self.layout, upkeep: self.upkeep }
    }
}

impl Drop for PacketEdit<'_> {
    #[inline]
    fn drop(&mut self) {
        if let (Upkeep::AtTheEnd, Some(header)) = (self.upkeep, self.layout.transport) {
            fill_in(self.bytes, &self.layout, &header);
        }
    }
}

/// Computes the checksum of a transport header that is [computable](Layout::computable), and writes it.
pub(super) fn fill_in(bytes: &mut [u8], layout: &Layout, header: &TransportHeader) {
    let Some(at) = header.checksum_at() else { return };
    bytes[at..at + 2].fill(0);
    let sum = layout.pseudo_sum(bytes, header).plus(Sum::of(&bytes[header.at..header.end]));
    let checksum = match sum.checksum() {
        0 if header.writes_no_zero() => 0xffff,
        checksum => checksum,
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The transport checksum for words that summed to `before` and now sum to `after`.
#[inline]
pub(super) fn update(bytes: &mut [u8], header: &TransportHeader, before: Sum, after: Sum) {
    let Some(at) = header.checksum_at() else { return };
    let checksum = match updated(word(bytes, at), before, after) {
        0 if header.writes_no_zero() || sums_to_nothing(bytes, header, at) => 0xffff,
        checksum => checksum,
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether everything that the checksum at `at` covers is 0, as far as it is here: the case that an update cannot see.
/// In a first fragment that leaves it open; 0xffff is then right in any case, as it verifies over a sum of -0, too.
#[cold]
fn sums_to_nothing(bytes: &[u8], header: &TransportHeader, at: usize) -> bool {
    let around = Sum::of(&bytes[header.at..at]).plus(Sum::of(&bytes[at + 2..header.end]));
    !header.has_pseudo_header() && around == Sum::ZERO
}

fn prepare(bytes: &[u8], checksum: L4Checksum) -> Result<(Layout, Upkeep), WireError> {
    let layout = Layout::find(bytes, Lengths::Stated)?;
    let upkeep = match checksum {
        L4Checksum::Complete => upkeep_of_complete(bytes, &layout),
        L4Checksum::Open => upkeep_of_open(bytes, &layout)?,
    };
    Ok((layout, upkeep))
}

fn upkeep_of_complete(bytes: &[u8], layout: &Layout) -> Upkeep {
    let Some(header) = layout.transport else { return Upkeep::Nothing };
    match header.checksum_at() {
        // UDP without a checksum; in IPv6, too, where tunnels may send it (RFC 6935).
        Some(at) if header.kind == Transport::Udp && word(bytes, at) == 0 => Upkeep::Nothing,
        Some(_) => Upkeep::EachEdit,
        None => Upkeep::Nothing,
    }
}

/// An open checksum can be computed only where it is this header's. In a tunnel it may be the inner packet's, and
/// nothing says so but the field: the kernel leaves the pseudo header's sum in the one that is open.
fn upkeep_of_open(bytes: &[u8], layout: &Layout) -> Result<Upkeep, WireError> {
    let header = match layout.computable() {
        Err(WireError::UnknownTransport { .. }) => return Err(elsewhere(layout)),
        other => other?,
    };
    let Some(at) = header.checksum_at() else { return Err(elsewhere(layout)) };
    let (pseudo, field) = (layout.pseudo_sum(bytes, &header), word(bytes, at));
    // The same number, whichever of its two zeros.
    if pseudo.plus(Sum::of_word(!field)).verifies() {
        return Ok(Upkeep::AtTheEnd);
    }
    // Not open at all: a packet still to be segmented that was rewritten in a queue before this one.
    let whole = pseudo.plus(Sum::of(&bytes[header.at..header.end]));
    let without = header.kind == Transport::Udp && field == 0;
    if whole.verifies() && !without { Ok(Upkeep::EachEdit) } else { Err(elsewhere(layout)) }
}

fn elsewhere(layout: &Layout) -> WireError {
    match layout.transport {
        Some(header) => WireError::OpenElsewhere { protocol: header.protocol(), offset: header.at },
        None => WireError::Fragment,
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
