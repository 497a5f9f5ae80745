//! What a queue can be asked for beside queueing: the flags of `NFQA_CFG_FLAGS`, one by one and as a set.
//!
//! Invariant: a set holds known flags only, so it can be sent as it is. It deliberately does not know who asked for
//! what, or how much it matters: that is the engine's configuration.

use core::fmt;

use super::attribute::wire_constants;

/// Something that a queue can be asked for (`NFQA_CFG_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueFlag {
    /// When the queue or the socket is full, let packets pass instead of dropping them.
    FailOpen,
    /// Send the packet's connection with it ([`Conntrack`](super::Conntrack)).
    Conntrack,
    /// Hand over large segmented packets whole, with their checksums unfinished.
    Gso,
    /// Send user and group of the packet's local socket, where the kernel knows it.
    UidGid,
    /// Send the packet's security context, where a local socket and a rule that sets one (SECMARK) are behind it.
    SecurityContext,
}

impl QueueFlag {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// All of them, in the order of the kernel's numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::FailOpen, Self::Conntrack, Self::Gso, Self::UidGid, Self::SecurityContext];

    /// Its name, which is that of the option of `fanq run`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::Conntrack => "conntrack",
            Self::Gso => "gso",
            Self::UidGid => "uid-gid",
            Self::SecurityContext => "secctx",
        }
    }

    /// What a kernel that refuses it lacks (`nfqnl_recv_config` in net/netfilter/nfnetlink_queue.c).
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::FailOpen => "Linux 3.6",
            Self::Conntrack => {
                "CONFIG_NETFILTER_NETLINK_GLUE_CT and the module nf_conntrack_netlink (modprobe nf_conntrack_netlink)"
            }
            Self::Gso => "Linux 3.10",
            Self::UidGid => "Linux 3.14",
            Self::SecurityContext => "Linux 4.3 with CONFIG_NETWORK_SECMARK",
        }
    }

    const fn bit(self) -> u32 {
        match self {
            Self::FailOpen => F_FAIL_OPEN,
            Self::Conntrack => F_CONNTRACK,
            Self::Gso => F_GSO,
            Self::UidGid => F_UID_GID,
            Self::SecurityContext => F_SECURITY_CONTEXT,
        }
    }
}

impl fmt::Display for QueueFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConfigFlags {
    bits: u32,
}

impl ConfigFlags {
    /// No flag.
    pub const NONE: Self = Self { bits: 0 };

    /// Every flag.
    pub const ALL: Self =
        Self { bits: F_FAIL_OPEN | F_CONNTRACK | F_GSO | F_UID_GID | F_SECURITY_CONTEXT };

    /// With one more.
    #[must_use]
    pub const fn with(self, flag: QueueFlag) -> Self {
        Self { bits: self.bits | flag.bit() }
    }

    /// Without those of `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self { bits: self.bits & !others.bits }
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self { bits: self.bits & others.bits }
    }

    /// Whether the flag is in it.
    #[must_use]
    pub const fn contains(self, flag: QueueFlag) -> bool {
        self.bits & flag.bit() != 0
    }

    /// Whether no flag is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The flags that are in it.
    pub fn iter(self) -> impl Iterator<Item = QueueFlag> {
        QueueFlag::ALL.into_iter().filter(move |flag| self.contains(*flag))
    }

    /// The kernel's word.
    pub(super) const fn to_kernel(self) -> u32 {
        self.bits
    }
}

impl FromIterator<QueueFlag> for ConfigFlags {
    fn from_iter<I: IntoIterator<Item = QueueFlag>>(flags: I) -> Self {
        flags.into_iter().fold(Self::NONE, Self::with)
    }
}

/// As `conntrack, gso`, or `none`.
impl fmt::Display for ConfigFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, flag) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{flag}")?;
        }
        Ok(())
    }
}

wire_constants! {
    F_FAIL_OPEN: u32 = libc::NFQA_CFG_F_FAIL_OPEN;
    F_CONNTRACK: u32 = libc::NFQA_CFG_F_CONNTRACK;
    F_GSO: u32 = libc::NFQA_CFG_F_GSO;
    F_UID_GID: u32 = libc::NFQA_CFG_F_UID_GID;
    F_SECURITY_CONTEXT: u32 = libc::NFQA_CFG_F_SECCTX;
}
