//! A queued packet as the kernel describes it: every attribute of `NFQNL_MSG_PACKET`, borrowed from the
//! receive buffer.
//!
//! Invariant: decoding walks the attributes once, checks every length and copies
//! nothing: what an inspector does not ask for costs no more than that. A message with something wrong in it is
//! refused whole, with the id if it was readable. The numbers are those of
//! `include/uapi/linux/netfilter/nfnetlink_queue.h`. What is nested in the conntrack attribute is conntrack.rs's.

use super::attribute::{
    ATTRIBUTE_HEADER, Attributes, NFMSG_HEADER, align, attribute_header, be16, find, wire_constants,
};
use super::conntrack::Conntrack;
use super::fields::{Hook, KernelTime, PacketId, SkbInfo, VlanTag};
use super::{DecodeError, Undecodable};

/// One queued packet: the kernel's message, checked once, read where it lies.
///
/// Invariant: every attribute lies inside `bytes` and has at least the size of its kernel type, so no accessor
/// can fail or panic. An accessor gives `None` where the kernel left the attribute out; when it sends it stands at
/// each, as `nfqnl_build_packet_message` in net/netfilter/nfnetlink_queue.c has it. Id, hook and payload are at
/// hand; the others are looked up when asked for, by a walk over a handful of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMessage<'a> {
    bytes: &'a [u8],
    header: &'a [u8; PACKET_HDR_BYTES],
    payload: &'a [u8],
    original_length: Option<u32>,
}

impl<'a> PacketMessage<'a> {
    /// Checks one `NFQNL_MSG_PACKET`. `bytes` is the whole netlink message, cut at its own length and at least
    /// as long as both headers.
    ///
    /// Runs for every packet, so it is one loop over plain offsets that keeps what it finds in registers. Its
    /// first form stored each attribute's offset in a table and took twice as long, since a table written in pieces
    /// and copied whole stalls the processor (`fanq-bench codec` measures it).
    #[expect(
        clippy::inline_always,
        reason = "as for the message's decode, which it is the body of"
    )]
    #[inline(always)]
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Undecodable> {
        let mut header = None;
        let mut payload: &[u8] = &[];
        let mut original_length = None;
        let mut at = NFMSG_HEADER;
        while at < bytes.len() {
            let Some((attribute, rest)) = bytes[at..].split_first_chunk::<ATTRIBUTE_HEADER>()
            else {
                return Err(broken_at(bytes, at, header));
            };
            let (length, kind) = attribute_header(*attribute);
            let least =
                LEAST_BYTES.get(usize::from(kind)).copied().unwrap_or(ATTRIBUTE_HEADER_BYTES);
            if length < usize::from(least) || length - ATTRIBUTE_HEADER > rest.len() {
                return Err(broken_at(bytes, at, header));
            }
            let value = &rest[..length - ATTRIBUTE_HEADER];
            match kind {
                PACKET_HDR => header = value.first_chunk(),
                PAYLOAD => payload = value,
                CAPTURED_FROM => original_length = number_in(value),
                VLAN => check_vlan(value, header)?,
                _ => {}
            }
            at += align(length);
        }
        match header {
            Some(header) => Ok(Self { bytes, header, payload, original_length }),
            None => Err(DecodeError::NoPacketHeader.into()),
        }
    }

    /// The value of an attribute that is there; of two, the later one.
    fn value(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.bytes, NFMSG_HEADER, kind)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        number_in(self.value(kind)?)
    }

    /// The id to answer.
    #[inline]
    pub fn id(&self) -> PacketId {
        id_in(*self.header)
    }

    /// The queue that it waits in.
    pub fn queue(&self) -> u16 {
        u16::from_be_bytes([self.bytes[18], self.bytes[19]])
    }

    /// Address family of the hook that queued it (`AF_INET`, `AF_INET6`, `AF_BRIDGE`).
    pub fn family(&self) -> u8 {
        self.bytes[16]
    }

    /// EtherType of the payload, such as 0x0800. Always sent, as are id and hook.
    pub fn protocol(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Where it was taken.
    #[inline]
    pub fn hook(&self) -> Hook {
        Hook::from_kernel(self.header[6])
    }

    /// The packet from its network header on, up to the queue's copy range. Empty in copy mode `meta`.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Where the payload lies in the message.
    pub fn payload_range(&self) -> std::ops::Range<usize> {
        // Both are parts of one slice; an empty payload may lie anywhere.
        let start = self.payload.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr());
        if self.payload.is_empty() { 0..0 } else { start..start + self.payload.len() }
    }

    /// How many bytes of it came, at most the queue's copy range.
    #[inline]
    pub fn captured_length(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX)
    }

    /// The packet's own length. Sent where the payload was cut by the copy range (`NFQA_CAP_LEN`), so not in copy
    /// mode `meta`.
    pub fn original_length(&self) -> Option<u32> {
        self.original_length
    }

    /// The packet's length before any cut by the copy range, in bytes.
    #[inline]
    pub fn length(&self) -> u32 {
        self.original_length.unwrap_or(self.captured_length())
    }

    /// Whether the payload was cut by the copy range.
    pub fn is_truncated(&self) -> bool {
        self.original_length.is_some()
    }

    /// The packet mark. Sent where it is not 0; 0 where the kernel sent none.
    pub fn mark(&self) -> u32 {
        self.number(MARK).unwrap_or(0)
    }

    /// When it arrived. Sent while some socket on the machine asks for receive timestamps, at prerouting, input and
    /// forward.
    pub fn time(&self) -> Option<KernelTime> {
        let (seconds, rest) = self.value(TIMESTAMP)?.split_first_chunk()?;
        let microseconds = u64::from_be_bytes(*rest.first_chunk()?);
        Some(KernelTime { seconds: u64::from_be_bytes(*seconds), microseconds })
    }

    /// Index of the interface that it came in by; of a bridge, the bridge. Sent at prerouting, input and forward.
    pub fn indev(&self) -> Option<u32> {
        self.number(INDEV)
    }

    /// Index of the interface that it leaves by; of a bridge, the bridge. Sent at forward, output and postrouting.
    pub fn outdev(&self) -> Option<u32> {
        self.number(OUTDEV)
    }

    /// Index of the bridge port that it came in by. Sent where there is one, by kernels with
    /// `CONFIG_BRIDGE_NETFILTER`.
    pub fn physical_indev(&self) -> Option<u32> {
        self.number(PHYSICAL_INDEV)
    }

    /// Index of the bridge port that it leaves by; sent as the other.
    pub fn physical_outdev(&self) -> Option<u32> {
        self.number(PHYSICAL_OUTDEV)
    }

    /// Link-layer source address, up to 8 bytes (`struct nfqnl_msg_packet_hw`; a longer one is cut). Sent with an
    /// input interface whose link layer has addresses.
    pub fn hardware_address(&self) -> Option<&'a [u8]> {
        let (length, rest) = self.value(HARDWARE_ADDRESS)?.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(HARDWARE_ADDRESS_BYTES_MAX);
        rest.get(2..2 + length)
    }

    /// Checksum and segmentation state; sent where a bit is set, so 0 means finished, checked and single. That the
    /// checksum is unchecked is said at prerouting, input and forward, and at postrouting of what is no local
    /// socket's.
    pub fn skb_info(&self) -> SkbInfo {
        SkbInfo(self.number(SKB_INFO).unwrap_or(0))
    }

    /// The connection that it belongs to. Sent where the queue has the flag `conntrack` and the packet is tracked.
    /// Linux 3.6.
    pub fn conntrack(&self) -> Option<Conntrack<'a>> {
        Some(Conntrack::new(self.value(CONNTRACK)?, self.number(CONNTRACK_INFO)))
    }

    /// Nested conntrack expectation (`CTA_EXPECT_*`), undecoded. Verdicts can have one; no kernel sends one.
    pub fn expectation(&self) -> Option<&'a [u8]> {
        self.value(EXPECTATION)
    }

    /// User id of the packet's local socket (its file's fsuid), as the first user namespace counts. Sent where the
    /// queue has the flag `uid-gid` and the kernel knows a full socket: at output and postrouting the sender's, but
    /// not for what a listener answers a SYN with; at input the receiver's, if it was looked up early
    /// (`net.ipv4.ip_early_demux`: connections only, and not their first packets). Linux 3.14.
    pub fn uid(&self) -> Option<u32> {
        self.number(UID)
    }

    /// Group id of the packet's local socket; sent as [`uid`](Self::uid) is.
    pub fn gid(&self) -> Option<u32> {
        self.number(GID)
    }

    /// Security context of the packet's SECMARK, in the security module's own form (SELinux ends it with a zero).
    /// Sent where the queue has the flag `secctx`, the kernel knows a local socket and a rule marked it. Linux
    /// 4.3.
    pub fn security_context(&self) -> Option<&'a [u8]> {
        self.value(SECURITY_CONTEXT)
    }

    /// The VLAN tag that was taken off the frame. Sent in the bridge family only. Linux 4.7.
    pub fn vlan(&self) -> Option<VlanTag> {
        vlan_tag(self.value(VLAN)?).ok()
    }

    /// Link-layer header. Sent in the bridge family only. Linux 4.7.
    pub fn link_header(&self) -> Option<&'a [u8]> {
        self.value(LINK_HEADER)
    }

    /// `skb->priority`. Sent where it is not 0. Linux 5.18.
    pub fn priority(&self) -> Option<u32> {
        self.number(PRIORITY)
    }

    /// net_cls class of the cgroup of the packet's local socket. Sent where it is not 0, by kernels with
    /// `CONFIG_CGROUP_NET_CLASSID`, without a flag. Linux 6.4.
    pub fn cgroup_classid(&self) -> Option<u32> {
        self.number(CGROUP_CLASSID)
    }
}

#[inline]
fn number_in(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[inline]
pub(super) fn id_in(header: [u8; PACKET_HDR_BYTES]) -> PacketId {
    PacketId(u32::from_be_bytes([header[0], header[1], header[2], header[3]]))
}

/// Says what is wrong with the attribute at `at`.
#[cold]
fn broken_at(bytes: &[u8], at: usize, header: Option<&[u8; PACKET_HDR_BYTES]>) -> Undecodable {
    let error = match Attributes::new(bytes, at).next() {
        Some(Err(error)) => error,
        Some(Ok((kind, value))) => {
            let least =
                LEAST_BYTES.get(usize::from(kind)).copied().unwrap_or(ATTRIBUTE_HEADER_BYTES);
            let need = usize::from(least) - ATTRIBUTE_HEADER;
            DecodeError::ShortAttribute { kind, need, have: value.len() }
        }
        None => DecodeError::NoPacketHeader,
    };
    Undecodable { error, id: header.copied().map(id_in) }
}

/// The tag is nested: its own attributes are checked with the rest.
#[cold]
fn check_vlan(value: &[u8], header: Option<&[u8; PACKET_HDR_BYTES]>) -> Result<(), Undecodable> {
    let checked = vlan_tag(value).map(|_| ());
    checked.map_err(|error| Undecodable { error, id: header.copied().map(id_in) })
}

fn vlan_tag(value: &[u8]) -> Result<VlanTag, DecodeError> {
    let mut tag = VlanTag::default();
    for attribute in Attributes::new(value, 0) {
        match attribute? {
            (kind @ VLAN_PROTO, value) => tag.protocol = be16(kind, value)?,
            (kind @ VLAN_TCI, value) => tag.control = be16(kind, value)?,
            _ => {}
        }
    }
    Ok(tag)
}

/// How many attribute numbers are known, with the unused 0.
const KIND_COUNT: usize = CGROUP_CLASSID as usize + 1;

/// The least length of each attribute: its header, and its kernel type where that has a fixed size.
const LEAST_BYTES: [u8; KIND_COUNT] = {
    let mut least = [ATTRIBUTE_HEADER_BYTES; KIND_COUNT];
    least[PACKET_HDR as usize] += 7;
    least[TIMESTAMP as usize] += 16;
    least[HARDWARE_ADDRESS as usize] += 12;
    let numbers = [
        MARK,
        INDEV,
        OUTDEV,
        PHYSICAL_INDEV,
        PHYSICAL_OUTDEV,
        CONNTRACK_INFO,
        CAPTURED_FROM,
        SKB_INFO,
        UID,
        GID,
        PRIORITY,
        CGROUP_CLASSID,
    ];
    let mut index = 0;
    while index < numbers.len() {
        least[numbers[index] as usize] += 4;
        index += 1;
    }
    least
};

/// [`ATTRIBUTE_HEADER`], as it stands in that table.
const ATTRIBUTE_HEADER_BYTES: u8 = 4;

/// `sizeof(nfqnl_msg_packet_hw.hw_addr)`.
const HARDWARE_ADDRESS_BYTES_MAX: usize = 8;

/// Size of `struct nfqnl_msg_packet_hdr`, which the kernel packs.
pub(super) const PACKET_HDR_BYTES: usize = 7;

wire_constants! {
    PACKET_HDR: u16 = libc::NFQA_PACKET_HDR;
    MARK: u16 = libc::NFQA_MARK;
    TIMESTAMP: u16 = libc::NFQA_TIMESTAMP;
    INDEV: u16 = libc::NFQA_IFINDEX_INDEV;
    OUTDEV: u16 = libc::NFQA_IFINDEX_OUTDEV;
    PHYSICAL_INDEV: u16 = libc::NFQA_IFINDEX_PHYSINDEV;
    PHYSICAL_OUTDEV: u16 = libc::NFQA_IFINDEX_PHYSOUTDEV;
    HARDWARE_ADDRESS: u16 = libc::NFQA_HWADDR;
    PAYLOAD: u16 = libc::NFQA_PAYLOAD;
    CONNTRACK: u16 = libc::NFQA_CT;
    CONNTRACK_INFO: u16 = libc::NFQA_CT_INFO;
    CAPTURED_FROM: u16 = libc::NFQA_CAP_LEN;
    SKB_INFO: u16 = libc::NFQA_SKB_INFO;
    EXPECTATION: u16 = libc::NFQA_EXP;
    UID: u16 = libc::NFQA_UID;
    GID: u16 = libc::NFQA_GID;
    SECURITY_CONTEXT: u16 = libc::NFQA_SECCTX;
    VLAN: u16 = libc::NFQA_VLAN;
    LINK_HEADER: u16 = libc::NFQA_L2HDR;
    PRIORITY: u16 = libc::NFQA_PRIORITY;
    CGROUP_CLASSID: u16 = 22; // NFQA_CGROUP_CLASSID, newer than libc
    VLAN_PROTO: u16 = libc::NFQA_VLAN_PROTO;
    VLAN_TCI: u16 = libc::NFQA_VLAN_TCI;
}
