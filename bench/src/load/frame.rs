//! Frames as a sender makes them: one template, and what differs from packet to packet.
//!
//! ```text
//!  IPv4   0  Ethernet  14  IP  24 checksum  30 destination  34  UDP  38 length  42  stamp ...
//!  IPv6   0  Ethernet  14  IP  18 length    38 destination  54  UDP  58 length  62  stamp ...
//! ```
//!
//! Invariant: with a slot's [`Changes`] applied, a frame is well-formed: lengths and the IPv4 header checksum are
//! right. UDP goes without a checksum, which IPv6 takes only where the receiver allows it: the sink does. A flow is
//! its own destination address, since the receiver can own a whole range; ranges do not cross
//! the address's last four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use etherparse::{IpNumber, PacketBuilder};

use super::schedule::Slot;
use crate::result::{Family, FrameSize};
use crate::stamp::Stamp;

/// Where frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) source_mac: [u8; 6],
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source: IpAddr,
    /// Flow 0; the others count up from there.
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
}

/// The frame that all of a sender's frames begin as.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    path: Path,
    bytes: Vec<u8>,
}

/// What one packet has of its own; multi-byte fields in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) destination: [u8; 4],
    pub(crate) flow: [u8; 4],
    /// Total length (IPv4) or payload length (IPv6).
    pub(crate) ip_length: [u8; 2],
    pub(crate) udp_length: [u8; 2],
    /// IPv4 only.
    pub(crate) ip_checksum: [u8; 2],
    pub(crate) frame_bytes: u16,
}

/// Where the changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub(crate) ip_length: usize,
    pub(crate) ip_checksum: Option<usize>,
    /// The last four bytes of the destination address.
    pub(crate) destination: usize,
    pub(crate) udp_length: usize,
    pub(crate) stamp: usize,
}

impl Template {
    /// A frame of the largest size that occurs, with a stamp from this sender.
    pub(crate) fn new(path: Path, frame: FrameSize, cpu: u16, sender: u16) -> anyhow::Result<Self> {
        let bytes = match frame {
            FrameSize::Bytes(bytes) => bytes,
            FrameSize::Imix => 1518,
        };
        let least = Self::least_bytes(path.family());
        if bytes < least {
            bail!(
                "a frame of {bytes} bytes has no room for the headers and the stamp: {least} at least"
            );
        }
        let mut payload = vec![0; usize::from(bytes) - path.offsets().stamp];
        Stamp { flow: 0, sequence: 0, sent_ns: 0, cpu, sender }.write(&mut payload);
        let ethernet = PacketBuilder::ethernet2(path.source_mac, path.destination_mac);
        let ip = match (path.source, path.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), HOPS)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), HOPS)
            }
            _ => bail!("source and destination are of different families"),
        };
        let mut bytes = Vec::with_capacity(usize::from(bytes));
        ip.udp(SOURCE_PORT, path.port).write(&mut bytes, &payload).context("building a frame")?;
        let checksum = path.offsets().udp_length + 2;
        bytes[checksum..checksum + 2].fill(0);
        Ok(Self { path, bytes })
    }

    /// The smallest frame that holds a stamp.
    pub(crate) fn least_bytes(family: Family) -> u16 {
        let stamp = u16::try_from(Stamp::BYTES).unwrap_or(u16::MAX);
        match family {
            Family::Ipv4 => 42 + stamp,
            Family::Ipv6 => 62 + stamp,
        }
    }

    /// The bytes that each frame begins with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn offsets(&self) -> Offsets {
        self.path.offsets()
    }

    /// The largest UDP payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.offsets().stamp
    }

    /// The UDP payload of a slot's packet.
    pub(crate) fn payload_bytes_of(&self, slot: Slot) -> usize {
        usize::from(slot.frame_bytes) - self.offsets().stamp
    }

    /// What a slot's packet has of its own.
    pub(crate) fn changes(&self, slot: Slot) -> Changes {
        let Slot { flow, frame_bytes, .. } = slot;
        let ip_bytes = frame_bytes - 14;
        let (udp_bytes, ip_length) = match self.path.family() {
            Family::Ipv4 => (ip_bytes - 20, ip_bytes),
            Family::Ipv6 => (ip_bytes - 40, ip_bytes - 40),
        };
        let destination = match self.path.flow_destination(flow) {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => last_four(address),
        };
        let mut changes = Changes {
            destination,
            flow: flow.to_be_bytes(),
            ip_length: ip_length.to_be_bytes(),
            udp_length: udp_bytes.to_be_bytes(),
            ip_checksum: [0; 2],
            frame_bytes,
        };
        if self.path.family() == Family::Ipv4 {
            let mut header = [0; 20];
            header.copy_from_slice(&self.bytes[14..34]);
            header[2..4].copy_from_slice(&changes.ip_length);
            header[16..20].copy_from_slice(&changes.destination);
            header[10..12].fill(0);
            let parsed = etherparse::Ipv4HeaderSlice::from_slice(&header).map(|ip| ip.to_header());
            let checksum = parsed.map_or(0, |ip| ip.calc_header_checksum());
            changes.ip_checksum = checksum.to_be_bytes();
        }
        changes
    }
}

impl Template {
    /// A slot's whole frame with this stamp.
    pub(crate) fn frame(&self, slot: Slot, stamp: Stamp) -> Vec<u8> {
        let (at, changes) = (self.offsets(), self.changes(slot));
        let mut frame = self.bytes[..usize::from(changes.frame_bytes)].to_vec();
        frame[at.ip_length..][..2].copy_from_slice(&changes.ip_length);
        if let Some(checksum) = at.ip_checksum {
            frame[checksum..][..2].copy_from_slice(&changes.ip_checksum);
        }
        frame[at.destination..][..4].copy_from_slice(&changes.destination);
        frame[at.udp_length..][..2].copy_from_slice(&changes.udp_length);
        stamp.write(&mut frame[at.stamp..]);
        frame
    }
}

impl Path {
    pub(crate) fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// Where a flow goes.
    pub(crate) fn flow_destination(&self, flow: u32) -> IpAddr {
        match self.destination {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(flow)).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(flow.into())).into(),
        }
    }

    fn offsets(&self) -> Offsets {
        match self.family() {
            Family::Ipv4 => Offsets {
                ip_length: 16,
                ip_checksum: Some(24),
                destination: 30,
                udp_length: 38,
                stamp: 42,
            },
            Family::Ipv6 => Offsets {
                ip_length: 18,
                ip_checksum: None,
                destination: 50,
                udp_length: 58,
                stamp: 62,
            },
        }
    }
}

fn last_four(address: Ipv6Addr) -> [u8; 4] {
    let [.., a, b, c, d] = address.octets();
    [a, b, c, d]
}

/// The sender's port.
pub(crate) const SOURCE_PORT: u16 = 5000;
const HOPS: u8 = 64;
const _: () = assert!(IpNumber::UDP.0 == 17);

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn every_slots_frame_is_well_formed() {
        let paths = [("10.77.0.2", "10.112.0.0", 74), ("fd77::2", "fd97::", 94)];
        for (source, destination, least) in paths {
            let path = Path {
                source_mac: [2, 0, 0, 0, 0, 2],
                destination_mac: [2, 0, 0, 0, 0, 1],
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                port: 9000,
            };
            let template = Template::new(path, FrameSize::Imix, 3, 1).unwrap();
            for (flow, frame_bytes) in [(0, least), (1, 570), (0x1_0005, 1518)] {
                let stamp = Stamp { flow, sequence: 0, sent_ns: 0, cpu: 3, sender: 1 };
                let frame = template.frame(Slot { gap_ns: 0, flow, frame_bytes }, stamp);
                let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header().to_header();
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        let shown = IpAddr::from(header.destination);
                        assert_eq!(shown, path.flow_destination(flow));
                    }
                    NetSlice::Ipv6(ip) => {
                        let shown = IpAddr::from(ip.header().destination_addr());
                        assert_eq!(shown, path.flow_destination(flow));
                    }
                    NetSlice::Arp(_) => panic!("an ARP packet"),
                }
                let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
                assert_eq!(udp.destination_port(), 9000);
                let stamp = Stamp::read(udp.payload()).unwrap();
                assert_eq!((stamp.cpu, stamp.sender), (3, 1));
                let headers = template.offsets().stamp;
                assert_eq!(udp.payload().len(), usize::from(frame_bytes) - headers);
            }
        }
    }

    #[test]
    fn too_small_a_frame_is_refused_with_the_least() {
        let path = Path {
            source_mac: [0; 6],
            destination_mac: [0; 6],
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            port: 9,
        };
        let refused = Template::new(path, FrameSize::Bytes(60), 0, 0).unwrap_err().to_string();
        assert!(refused.contains("70 at least"), "{refused}");
    }
}
