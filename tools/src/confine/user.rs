//! `--user`: the process goes on as somebody else, with the two capabilities that the start takes.
//!
//! Invariant: it is either that user wholly (real, effective, saved and of files; no other groups) or an error. It must
//! happen while there is one thread: the kernel changes one at a time (credentials(7)). Names are read from
//! /etc/passwd; other directories of users are not asked.

use anyhow::{Context, bail};
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet};

use super::capabilities;
use crate::usage;

/// Becomes the user of this name, or of this `UID[:GID]`.
pub(super) fn become_user(name: &str) -> anyhow::Result<()> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (uid, gid) = ids_of(name, &passwd)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid == rustix::process::getuid() && gid == rustix::process::getgid() {
        return Ok(());
    }
    let why = "only root, or a process with CAP_SETUID and CAP_SETGID, may";
    thread::set_thread_groups(&[]).context(why)?;
    thread::set_thread_res_gid(gid, gid, gid).context(why)?;
    // Else the change of user takes all capabilities away.
    thread::set_keep_capabilities(true)?;
    thread::set_thread_res_uid(uid, uid, uid).context(why)?;
    thread::set_keep_capabilities(false)?;
    // Those for the start go when it is done: the workers' niceness, and the kernel's table of queues, root's own.
    capabilities::keep(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_NICE | TABLE)?;
    Ok(())
}

/// Opens what is root's to read: `/proc/net/netfilter/nfnetlink_queue` has the mode 0440 (nfnetlink_queue.c).
pub(super) const TABLE: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// User and group of a name in the text of /etc/passwd (passwd(5)), or as given in numbers.
fn ids_of(name: &str, passwd: &str) -> anyhow::Result<(u32, u32)> {
    let lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut users = lines.filter_map(|fields| {
        Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    });
    if let Some((uid, gid)) = name.split_once(':')
        && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
    {
        return Ok((uid, gid));
    }
    let number: Option<u32> = name.parse().ok();
    match (users.find(|(known, uid, _)| *known == name || Some(*uid) == number), number) {
        (Some((_, uid, gid)), _) => Ok((uid, gid)),
        (None, Some(number)) => {
            bail!(usage(format!(
                "no user has the number {number}: write UID:GID to name the group as well"
            )))
        }
        (None, None) => bail!(usage(format!(
            "there is no user {name} in /etc/passwd: make one (useradd --system {name}) or write UID:GID"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nfanq:x:977:966::/:/bin/false\nbroken\nx:x:a:b\n";
        assert_eq!(ids_of("fanq", passwd).unwrap(), (977, 966));
        assert_eq!(ids_of("977", passwd).unwrap(), (977, 966));
        assert_eq!(ids_of("5:6", "").unwrap(), (5, 6));
        for (name, part) in
            [("fan", "useradd"), ("", "no user"), ("978", "UID:GID"), ("5:x", "no user")]
        {
            let error = ids_of(name, passwd).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}
