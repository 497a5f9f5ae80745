//! A capture of somebody's own traffic, read whole: pcap or pcapng, Ethernet or bare IP.
//!
//! Invariant: every frame of it is one that the lab's devices can send as it is: whole, with an Ethernet header, and
//! no longer than they take. What is no IP is left out, and counted; all else that cannot be sent is an error that
//! names the file and the record, counted from 1, before anything is measured.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use etherparse::{EtherType, NetSlice, SlicedPacket};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// A capture's frames, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capture {
    /// The file's own name, without its folder.
    pub(crate) name: String,
    pub(crate) frames: Vec<Frame>,
    /// Records that were no IP.
    pub(crate) left_out: usize,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Since the first one; never less than the frame before.
    pub(crate) at: Duration,
    /// From the Ethernet header on, its addresses still to be written.
    pub(crate) bytes: Vec<u8>,
    /// Equal for all that two addresses send each other.
    pub(crate) talk: u64,
}

/// A record as the file has it.
struct Record<'a> {
    at: Duration,
    whole_bytes: u32,
    bytes: &'a [u8],
    link: DataLink,
}

impl Capture {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("opening {shown}"))?;
        let bytes = file.metadata().with_context(|| format!("reading {shown}"))?.len();
        ensure!(
            bytes <= FILE_BYTES_MAX,
            "{shown} has {bytes} bytes, more than {FILE_BYTES_MAX}; cut it: editcap -c 1000000"
        );
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(name, file).with_context(|| shown.to_string())
    }

    fn parse(name: String, mut file: impl Read) -> anyhow::Result<Self> {
        let mut magic = [0; 4];
        file.read_exact(&mut magic).context("it is too short for a capture")?;
        let mut capture = Self { name, frames: Vec::new(), left_out: 0 };
        let whole = magic.as_slice().chain(file);
        match magic {
            [0x0a, 0x0d, 0x0d, 0x0a] => capture.take_pcapng(whole)?,
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1] => capture.take_pcap(whole)?,
            other => bail!(
                "it is neither pcap nor pcapng: it begins with {other:02x?}; write it by: tcpdump -s 0 -w FILE"
            ),
        }
        ensure!(
            !capture.frames.is_empty(),
            "it holds no IP packet ({} other records)",
            capture.left_out
        );
        Ok(capture)
    }

    fn take_pcap(&mut self, file: impl Read) -> anyhow::Result<()> {
        let mut reader =
            PcapReader::new(file).map_err(|error| broken(&error)).context("its header")?;
        let (link, resolution) = (reader.header().datalink, reader.header().ts_resolution);
        ensure_known(link)?;
        let unit = if resolution == TsResolution::NanoSecond { 1 } else { 1_000 };
        let mut first = None;
        for number in 1_usize.. {
            let Some(record) = reader.next_raw_packet() else { break };
            let record = record.map_err(|error| broken(&error));
            let record = record.with_context(|| format!("record {number}"))?;
            let at = Duration::from_secs(record.ts_sec.into())
                + Duration::from_nanos(u64::from(record.ts_frac) * unit);
            let record = Record { at, whole_bytes: record.orig_len, bytes: &record.data, link };
            self.take(&record, &mut first).with_context(|| format!("record {number}"))?;
        }
        Ok(())
    }

    fn take_pcapng(&mut self, file: impl Read) -> anyhow::Result<()> {
        let mut reader =
            PcapNgReader::new(file).map_err(|error| broken(&error)).context("its header")?;
        let mut interfaces: Vec<(DataLink, u64)> = Vec::new();
        let (mut first, mut number) = (None, 0_usize);
        while let Some(block) = reader.next_block() {
            let block = block.map_err(|error| broken(&error));
            match block.with_context(|| format!("behind record {number}"))? {
                Block::SectionHeader(_) => interfaces.clear(),
                Block::InterfaceDescription(interface) => {
                    interfaces.push((interface.linktype, ticks_per_second(&interface)));
                }
                Block::EnhancedPacket(packet) => {
                    number += 1;
                    let interface = interfaces.get(packet.interface_id as usize);
                    let (link, ticks) =
                        interface.with_context(|| format!("record {number} has no interface"))?;
                    // The crate gives the file's own units as if they were nanoseconds.
                    let at = packet.timestamp.as_nanos() * 1_000_000_000 / u128::from(*ticks);
                    let at = Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX));
                    let whole_bytes = packet.original_len;
                    let record = Record { at, whole_bytes, bytes: &packet.data, link: *link };
                    self.take(&record, &mut first).with_context(|| format!("record {number}"))?;
                }
                Block::SimplePacket(_) | Block::Packet(_) => {
                    let number = number + 1;
                    bail!("record {number} is of a kind without time; convert it: editcap -F pcap")
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a record, if it is IP.
    fn take(&mut self, record: &Record<'_>, first: &mut Option<Duration>) -> anyhow::Result<()> {
        let Record { at, whole_bytes, bytes, link } = *record;
        ensure_known(link)?;
        let kept = bytes.len();
        ensure!(
            whole_bytes as usize <= kept,
            "only {kept} of its {whole_bytes} bytes were captured; capture whole packets: tcpdump -s 0"
        );
        ensure!(
            self.frames.len() < FRAMES_MAX,
            "there are more than {FRAMES_MAX} packets; cut it: editcap -c {FRAMES_MAX}"
        );
        let frame = if link == DataLink::ETHERNET { bytes.to_vec() } else { with_header(bytes)? };
        let Some(talk) = talk_of(&frame) else {
            self.left_out += 1;
            return Ok(());
        };
        let ip_bytes = frame.len() - ETHERNET_BYTES;
        ensure!(
            ip_bytes <= IP_BYTES_MAX,
            "it has {ip_bytes} bytes, and the lab's devices take {IP_BYTES_MAX}; capture with segmentation offload \
             turned off (ethtool -K DEVICE gso off tso off gro off)"
        );
        let since_first = at.saturating_sub(*first.get_or_insert(at));
        let before = self.frames.last().map_or(Duration::ZERO, |frame| frame.at);
        self.frames.push(Frame { at: since_first.max(before), bytes: frame, talk });
        Ok(())
    }

    /// From the first frame to the last.
    pub(crate) fn span(&self) -> Duration {
        self.frames.last().map_or(Duration::ZERO, |frame| frame.at)
    }
}

fn broken(error: &PcapError) -> anyhow::Error {
    match error {
        PcapError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            anyhow::anyhow!("the file ends within it")
        }
        PcapError::IoError(error) => anyhow::anyhow!("reading: {error}"),
        other => anyhow::anyhow!("it is broken: {other}"),
    }
}

fn ensure_known(link: DataLink) -> anyhow::Result<()> {
    let known = [DataLink::ETHERNET, DataLink::RAW, DataLink::IPV4, DataLink::IPV6];
    let number = u32::from(link);
    ensure!(
        known.contains(&link),
        "link type {number} ({link:?}) cannot be replayed: Ethernet (1) and bare IP (101, 228, 229) can"
    );
    Ok(())
}

/// `if_tsresol`: a power of ten, or with the highest bit set of two; microseconds if not given.
fn ticks_per_second(interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let exponent = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(exponent) => Some(*exponent),
        _ => None,
    });
    let ticks = match exponent.unwrap_or(6) {
        binary @ 0x80.. => 2_u64.checked_pow(u32::from(binary & 0x7f)),
        decimal => 10_u64.checked_pow(decimal.into()),
    };
    ticks.unwrap_or(u64::MAX)
}

/// An Ethernet header in front of a bare IP packet.
fn with_header(packet: &[u8]) -> anyhow::Result<Vec<u8>> {
    let kind = match packet.first().map(|byte| byte >> 4) {
        Some(4) => EtherType::IPV4,
        Some(6) => EtherType::IPV6,
        _ => bail!("it is neither IPv4 nor IPv6"),
    };
    let mut frame = vec![0; ETHERNET_BYTES];
    frame[12..14].copy_from_slice(&kind.0.to_be_bytes());
    frame.extend(packet);
    Ok(frame)
}

/// What tells the talks of two addresses apart; none for what is no IP. Ports are left out: only a packet's first
/// fragment has them.
fn talk_of(frame: &[u8]) -> Option<u64> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    if !sliced.link_exts.is_empty() {
        return None;
    }
    let mut ends = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            [ip.header().source_addr().into(), ip.header().destination_addr().into()]
        }
        NetSlice::Ipv6(ip) => [
            std::net::IpAddr::from(ip.header().source_addr()),
            ip.header().destination_addr().into(),
        ],
        NetSlice::Arp(_) => return None,
    };
    ends.sort_unstable();
    let mut hasher = DefaultHasher::new();
    ends.hash(&mut hasher);
    Some(hasher.finish())
}

pub(crate) const ETHERNET_BYTES: usize = 14;
/// The lab's MTU.
const IP_BYTES_MAX: usize = 9000;
const FRAMES_MAX: usize = 1 << 23;
/// It is held in memory.
const FILE_BYTES_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests;
