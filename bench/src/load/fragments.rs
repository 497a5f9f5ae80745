//! Load of which a share goes as two IP fragments each: UDP datagrams from a packet socket, cut here, since the
//! kernel would cut only what is longer than a device takes, and IPv6 nothing below 1280 bytes.
//!
//! Invariant: which datagrams are cut depends on their number and the share alone, spread evenly; the stamp is in the
//! first fragment. Two datagrams of one flow that are in flight together have different identifications.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use etherparse::{IpFragOffset, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeader, Ipv6HeaderSlice};
use fanq::{CpuId, Timestamp};

use super::frame::Template;
use super::schedule::Schedule;
use super::{SentLog, wait_until};
use crate::result::Family;
use crate::stamp::Stamp;
use crate::sys::FrameSocket;

/// One CPU's load.
#[derive(Debug)]
pub(crate) struct FragmentSender {
    cpu: CpuId,
    /// Its number among the senders.
    index: u16,
    socket: FrameSocket,
    template: Template,
    schedule: Arc<Schedule>,
    share: f64,
    total: u64,
}

impl FragmentSender {
    /// Opens the socket for the device with this index in the network namespace of this thread.
    pub(crate) fn new(
        (cpu, index): (CpuId, u16),
        interface: u32,
        template: Template,
        schedule: Arc<Schedule>,
        share: f64,
        total: u64,
    ) -> anyhow::Result<Self> {
        let socket = FrameSocket::open(interface).context("opening a packet socket")?;
        Ok(Self { cpu, index, socket, template, schedule, share, total })
    }

    /// Datagrams.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Packets, two for each datagram that is cut.
    pub(crate) fn packets(&self) -> u64 {
        packets(self.share, self.total)
    }

    /// Sends all, on this thread, which it pins.
    pub(crate) fn run(&self) -> anyhow::Result<SentLog> {
        if !fanq::pin_to(self.cpu) {
            bail!("cannot pin a sender to CPU {}: it is offline or outside the cpuset", self.cpu);
        }
        let start = Timestamp(Timestamp::now().0 + LEAD_NS);
        let mut frames: Vec<Vec<u8>> = Vec::with_capacity(BATCH + 1);
        let mut times = Vec::with_capacity(usize::try_from(self.total)?);
        let mut next = 0;
        let is_paced = self.schedule.is_paced();
        let due = |sequence| start.0 + self.schedule.due_ns(sequence);
        while next < self.total {
            if is_paced {
                wait_until(Timestamp(due(next)), SPIN_BELOW);
            }
            let now = Timestamp::now();
            frames.clear();
            while next < self.total && frames.len() < BATCH && (!is_paced || due(next) <= now.0) {
                self.make(next, if is_paced { due(next) } else { now.0 }, &mut frames)?;
                times.push(now.0);
                next += 1;
            }
            let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
            self.socket.send(&frames).context("sending load")?;
        }
        let (schedule, fragments) = (Arc::clone(&self.schedule), self.share);
        Ok(SentLog { start, schedule, times, fragments })
    }

    fn make(&self, sequence: u64, sent_ns: u64, frames: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
        let slot = self.schedule.slot(sequence);
        let stamp =
            Stamp { flow: slot.flow, sequence, sent_ns, cpu: self.cpu.0, sender: self.index };
        let frame = self.template.frame(slot, stamp);
        if is_fragmented(self.share, sequence) {
            #[expect(clippy::cast_possible_truncation, reason = "it counts round")]
            frames.extend(cut(&frame, self.template.path().family(), sequence as u32)?);
        } else {
            frames.push(frame);
        }
        Ok(())
    }
}

/// Whether the datagram of this number is cut.
pub(crate) fn is_fragmented(share: f64, sequence: u64) -> bool {
    packets(share, sequence + 1) - packets(share, sequence) == 2
}

/// How many packets so many datagrams are.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count far below 2^53"
)]
pub(crate) fn packets(share: f64, datagrams: u64) -> u64 {
    datagrams + (datagrams as f64 * share) as u64
}

/// The two fragments of a frame, cut near the middle.
fn cut(frame: &[u8], family: Family, identification: u32) -> anyhow::Result<[Vec<u8>; 2]> {
    let (ethernet, packet) = frame.split_at(ETHERNET_BYTES);
    let header_bytes = if family == Family::Ipv4 { IPV4_BYTES } else { IPV6_BYTES };
    let payload = &packet[header_bytes..];
    // All fragments but the last have a multiple of eight bytes (RFC 791).
    let first = payload.len().div_ceil(16) * 8;
    ensure!(first < payload.len(), "a datagram of {} bytes is too short to be cut", payload.len());
    let parts = [(0, &payload[..first], true), (first, &payload[first..], false)];
    let mut fragments = [Vec::new(), Vec::new()];
    for (fragment, (at, part, more_fragments)) in fragments.iter_mut().zip(parts) {
        let fragment_offset = IpFragOffset::try_new(u16::try_from(at / 8)?)?;
        fragment.extend(ethernet);
        if family == Family::Ipv4 {
            let mut header = Ipv4HeaderSlice::from_slice(&packet[..IPV4_BYTES])?.to_header();
            header.total_len = u16::try_from(IPV4_BYTES + part.len())?;
            header.identification = u16::try_from(identification & 0xffff)?;
            (header.dont_fragment, header.more_fragments) = (false, more_fragments);
            header.fragment_offset = fragment_offset;
            header.header_checksum = header.calc_header_checksum();
            fragment.extend(header.to_bytes());
        } else {
            let mut header = Ipv6HeaderSlice::from_slice(&packet[..IPV6_BYTES])?.to_header();
            let next_header = header.next_header;
            header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            header.payload_length = u16::try_from(Ipv6FragmentHeader::LEN + part.len())?;
            fragment.extend(header.to_bytes());
            let own = Ipv6FragmentHeader::new(
                next_header,
                fragment_offset,
                more_fragments,
                identification,
            );
            fragment.extend(own.to_bytes());
        }
        fragment.extend(part);
    }
    Ok(fragments)
}

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Frames of one call; a cut datagram may make it one more.
const BATCH: usize = 64;
/// From the run's beginning to its first packet.
const LEAD_NS: u64 = 2_000_000;
const SPIN_BELOW: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::frame::Path;
    use crate::load::schedule::Slot;
    use crate::result::FrameSize;
    use etherparse::{NetSlice, SlicedPacket};

    #[test]
    fn a_share_is_spread_evenly() {
        for (share, cut) in [(0.0, 0), (0.25, 250), (0.3, 300), (1.0, 1000)] {
            let all = (0..1000).filter(|sequence| is_fragmented(share, *sequence));
            assert!(all.clone().count().abs_diff(cut) <= 1, "{share}");
            assert_eq!(packets(share, 1000), 1000 + all.count() as u64);
        }
        let which: Vec<_> = (0..8).filter(|sequence| is_fragmented(0.5, *sequence)).collect();
        assert_eq!(which, [1, 3, 5, 7]);
    }

    #[test]
    fn fragments_are_well_formed_and_together_the_datagram() {
        for (family, source, destination, least) in
            [(Family::Ipv4, "10.77.0.2", "10.128.0.0", 74), (Family::Ipv6, "fd77::2", "fd96::", 94)]
        {
            let path = Path {
                source_mac: [2; 6],
                destination_mac: [3; 6],
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                port: 9000,
            };
            let template = Template::new(path, FrameSize::Bytes(1000), 0, 0).unwrap();
            for frame_bytes in [least, 333, 1000] {
                let slot = Slot { gap_ns: 0, flow: 5, frame_bytes };
                let stamp = Stamp { flow: 5, sequence: 9, sent_ns: 7, cpu: 0, sender: 0 };
                let whole = template.frame(slot, stamp);
                let header_bytes = if family == Family::Ipv4 { 34 } else { 54 };
                let mut joined = whole[..header_bytes].to_vec();
                for (number, fragment) in cut(&whole, family, 0x1_2345).unwrap().iter().enumerate()
                {
                    let sliced = SlicedPacket::from_ethernet(fragment).unwrap();
                    let payload = match sliced.net.unwrap() {
                        NetSlice::Ipv4(ip) => {
                            let header = ip.header().to_header();
                            assert_eq!(header.header_checksum, header.calc_header_checksum());
                            assert_eq!(header.identification, 0x2345);
                            assert_eq!(header.more_fragments, number == 0);
                            ip.payload().payload.to_vec()
                        }
                        NetSlice::Ipv6(ip) => {
                            assert!(ip.is_payload_fragmented());
                            ip.payload().payload.to_vec()
                        }
                        NetSlice::Arp(_) => panic!("an ARP packet"),
                    };
                    joined.extend(payload);
                }
                assert_eq!(joined, whole, "{family:?}, {frame_bytes} bytes");
            }
        }
    }
}
