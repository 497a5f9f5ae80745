//! The values that describe a queued packet: its id, its hook, its time, its tag.
//!
//! Invariant: plain values. How they stand in a message is packet.rs's business.

use super::attribute::wire_constants;

/// The number under which a packet waits in its queue. Counts up by one per packet and wraps at 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketId(pub u32);

impl PacketId {
    /// The id that the kernel gives to a queue's first packet (`++queue->id_sequence` from 0).
    pub const FIRST: Self = Self(1);

    /// The id that the kernel gave before this one.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// The id that the kernel gives after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// How many ids lie between `earlier` and this one, if this one is not older: serial-number arithmetic as
    /// in the kernel's own comparison (`nfq_cmp_id`).
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> Option<u32> {
        let distance = self.0.wrapping_sub(earlier.0);
        if distance < 1 << 31 { Some(distance) } else { None }
    }
}

/// Where in the stack the packet was taken (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Routed through this host.
    Forward,
    /// Made by this host.
    Output,
    /// After routing.
    Postrouting,
    /// A number that this version does not know.
    Other(u8),
}

impl Hook {
    /// How many hooks have a name.
    pub const NAMED: usize = 5;
    /// The names, in the order of the kernel's numbers, as nftables writes them.
    pub const NAMES: [&'static str; Self::NAMED] =
        ["prerouting", "input", "forward", "output", "postrouting"];

    #[inline]
    pub(super) const fn from_kernel(number: u8) -> Self {
        match number {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            other => Self::Other(other),
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }
}

/// When the kernel first saw the packet, by its wall clock. Sent only while some socket on the machine asks for
/// receive timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTime {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Microseconds, 0 to 999,999.
    pub microseconds: u64,
}

/// The VLAN tag that was taken off the frame (bridge family).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VlanTag {
    /// EtherType of the tag, such as 0x8100.
    pub protocol: u16,
    /// Priority, drop bit and VLAN id.
    pub control: u16,
}

impl VlanTag {
    /// VLAN id, 0 to 4095.
    #[must_use]
    pub const fn vid(self) -> u16 {
        self.control & 0x0fff
    }

    /// Priority code point, 0 to 7.
    #[must_use]
    pub const fn pcp(self) -> u8 {
        (self.control >> 13) as u8
    }

    /// Drop eligible indicator.
    #[must_use]
    pub const fn dei(self) -> bool {
        self.control & 0x1000 != 0
    }
}

/// What the kernel says about checksums and segmentation (`NFQA_SKB_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkbInfo(pub u32);

impl SkbInfo {
    /// The layer-4 checksum is not yet filled in: it will look wrong, and is not.
    #[must_use]
    pub const fn checksum_not_ready(self) -> bool {
        self.0 & SKB_CSUM_NOT_READY != 0
    }

    /// The packet stands for several segments and may be larger than the link's MTU.
    #[must_use]
    pub const fn is_gso(self) -> bool {
        self.0 & SKB_GSO != 0
    }

    /// The kernel has not checked the layer-4 checksum.
    #[must_use]
    pub const fn checksum_not_verified(self) -> bool {
        self.0 & SKB_CSUM_NOT_VERIFIED != 0
    }
}

wire_constants! {
    SKB_CSUM_NOT_READY: u32 = libc::NFQA_SKB_CSUMNOTREADY;
    SKB_GSO: u32 = libc::NFQA_SKB_GSO;
    SKB_CSUM_NOT_VERIFIED: u32 = libc::NFQA_SKB_CSUM_NOTVERIFIED;
}
