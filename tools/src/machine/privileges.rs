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
    /// The user that it acts as, as its user namespace calls it.
    pub(crate) user: Fact<u32>,
    /// Whether its user namespace is the machine's first: user numbers are mapped onto themselves, all of them.
    pub(crate) first_user_namespace: Fact<bool>,
}

impl Privileges {
    pub(super) fn read(root: &Root) -> Self {
        let status = root.text("proc/self/status");
        let line = |text: String, name: &str| match line_of(&text, name) {
            Some(value) => Fact::Known(value.to_owned()),
            None => Fact::Unseen(format!("/proc/self/status has no {name}")),
        };
        let bits = status.clone().and_then(|text| line(text, "CapEff:"));
        let effective = bits.and_then(|bits| match u64::from_str_radix(&bits, 16) {
            Ok(bits) => Fact::Known(bits),
            Err(error) => Fact::Unseen(format!("/proc/self/status: CapEff: {error}")),
        });
        // Real, effective, saved and file system's.
        let users = status.and_then(|text| line(text, "Uid:"));
        let user =
            users.and_then(|users| match users.split_ascii_whitespace().nth(1).map(str::parse) {
                Some(Ok(user)) => Fact::Known(user),
                _ => Fact::Unseen("/proc/self/status: no user in Uid".to_owned()),
            });
        let first = |map: String| {
            let numbers: Vec<u64> =
                map.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            numbers == [0, 0, u64::from(u32::MAX)]
        };
        Self { effective, user, first_user_namespace: root.text("proc/self/uid_map").map(first) }
    }

    /// Whether it has the right with this number (capability.h).
    pub(crate) fn has(&self, capability: u32) -> Option<bool> {
        self.effective.known().map(|bits| bits >> capability & 1 == 1)
    }
}

fn line_of<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Rules, queues and verdicts.
pub(crate) const CAP_NET_ADMIN: u32 = 12;
/// To look into other users' processes.
pub(crate) const CAP_SYS_PTRACE: u32 = 19;
