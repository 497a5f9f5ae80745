//! What a verdict changes about the packet's connection: the value of `NFQA_CT` in `NFQNL_MSG_VERDICT`.
//!
//! Invariant: only bits under a mask are changed. The kernel takes the old value without the masked bits and *xors*
//! the new one onto it (`ctnetlink_change_mark`, `replace_u32` in nf_conntrack_labels.c), so bits of the value
//! outside the mask would toggle; they are cleared here.
//!
//! What the kernel makes of it (`ctnetlink_glue_parse_ct` in net/netfilter/nf_conntrack_netlink.c, as read in
//! 6.18): it takes timeout, status, helper, labels and mark, in this order whatever the order in the message,
//! and nothing else. The first that it refuses ends it there: what comes later in that order is not applied, what
//! came before is, the packet gets its verdict all the same, and *nobody is told* (`nfqnl_ct_parse` throws the errno
//! away). A batch verdict has no such attribute, and a kernel without `CONFIG_NETFILTER_NETLINK_GLUE_CT` (or with
//! nf_conntrack_netlink not loaded) ignores it.

use super::attribute::{put, wire_constants};

/// Changes to a packet's connection, sent with the packet's verdict. The queue needs no flag for it.
///
/// None of the fields changes anything where it is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConntrackEdit {
    /// The connection's mark: value and mask. Bits outside the mask stay. The kernel never refuses it.
    pub mark: Option<(u32, u32)>,
    /// The connection's labels, in the kernel's layout ([`Conntrack::labels`](super::Conntrack::labels)): value and
    /// mask. Bits outside the mask stay. Refused where the connection has no room for labels: it has where a rule
    /// used labels when its first packet came.
    pub labels: Option<([u8; 16], [u8; 16])>,
    /// Seconds until the connection is forgotten. The connection's next packet sets it back to its protocol's own
    /// unless [`ConntrackStatus::FIXED_TIMEOUT`](super::ConntrackStatus::FIXED_TIMEOUT) is set, which may come with
    /// the same verdict. Refused once it is set.
    pub timeout: Option<u32>,
    /// The connection's whole status ([`ConntrackStatus`](super::ConntrackStatus)): a bit that is not set here is
    /// cleared. The kernel ignores what is in
    /// [`ConntrackStatus::UNCHANGEABLE`](super::ConntrackStatus::UNCHANGEABLE), and refuses to clear `SEEN_REPLY`
    /// and `ASSURED`, so begin with the status that the packet came with.
    pub status: Option<u32>,
}

impl ConntrackEdit {
    /// The longest encoding, in bytes.
    pub const BYTES_MAX: usize = 4 * (4 + 4) + 2 * (4 + 16);

    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self { mark: None, labels: None, timeout: None, status: None })
    }

    /// Writes the attributes that stand nested in `NFQA_CT`, without its own header, to the front of `buffer`, and
    /// returns their length: a multiple of 4, and 0 if there is nothing to change.
    ///
    /// # Panics
    /// If the buffer is shorter than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        let buffer = &mut buffer[..Self::BYTES_MAX];
        let mut at = 0;
        if let Some(timeout) = self.timeout {
            at = put(buffer, at, TIMEOUT, &timeout.to_be_bytes());
        }
        if let Some(status) = self.status {
            at = put(buffer, at, STATUS, &status.to_be_bytes());
        }
        if let Some((value, mask)) = self.labels {
            let mut masked = value;
            for (byte, mask) in masked.iter_mut().zip(mask) {
                *byte &= mask;
            }
            at = put(buffer, at, LABELS, &masked);
            at = put(buffer, at, LABELS_MASK, &mask);
        }
        if let Some((value, mask)) = self.mark {
            at = put(buffer, at, MARK, &(value & mask).to_be_bytes());
            at = put(buffer, at, MARK_MASK, &mask.to_be_bytes());
        }
        at
    }
}

wire_constants! {
    STATUS: u16 = 3; // CTA_*, which libc lacks
    TIMEOUT: u16 = 7;
    MARK: u16 = 8;
    MARK_MASK: u16 = 21;
    LABELS: u16 = 22;
    LABELS_MASK: u16 = 23;
}
