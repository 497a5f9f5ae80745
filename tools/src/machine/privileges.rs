//! What this process may do: its capabilities, and whether it is in the first user namespace.
//!
//! Invariant: reads only; asks for nothing that it may not have.

use super::fact::Fact;
use super::root::Root;

/// The rights of the process that looks.
#[derive(Debug)]
pub(crate) struct Privileges {
    /// Bits of CAP_* that count now (`CapEff`).
    pub(crate) effective: Fact<u64>,
    /// Whether its user namespace is the machine's first: user numbers are mapped onto themselves, all of them.
    pub(crate) first_user_namespace: Fact<bool>,
}

impl Privileges {
    pub(super) fn read(root: &Root) -> Self {
        let status = root.text("proc/self/status");
        let effective = status.and_then(|text| match effective_in(&text) {
            Some(bits) => Fact::Known(bits),
            None => Fact::Unseen("/proc/self/status has no CapEff".to_owned()),
        });
        let first = |map: String| {
            let numbers: Vec<u64> =
                map.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            numbers == [0, 0, u64::from(u32::MAX)]
        };
        Self { effective, first_user_namespace: root.text("proc/self/uid_map").map(first) }
    }

    /// Whether it has the right with this number (capability.h).
    pub(crate) fn has(&self, capability: u32) -> Option<bool> {
        self.effective.known().map(|bits| bits >> capability & 1 == 1)
    }
}

fn effective_in(status: &str) -> Option<u64> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

/// Rules, queues and verdicts.
pub(crate) const CAP_NET_ADMIN: u32 = 12;
/// To look into other users' processes.
pub(crate) const CAP_SYS_PTRACE: u32 = 19;
/// A niceness below 0.
pub(crate) const CAP_SYS_NICE: u32 = 23;
