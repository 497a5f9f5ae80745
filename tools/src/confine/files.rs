//! Files: which ones threads may still open, by Landlock (landlock(7)).
//!
//! Invariant: rules name folders, as a file that is replaced is another file: rules are read again, and logs opened
//! anew, under their old names. What is open stays open. It deliberately says nothing of UNIX sockets that lie in the
//! file system: Landlock does not keep anyone from connecting to them.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

use super::Role;

/// Folders, and files that are no regular ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// What is read again.
    pub(crate) read: Vec<PathBuf>,
    /// What is written to, and made anew.
    pub(crate) write: Vec<PathBuf>,
    /// Where sockets of ours are made and removed.
    pub(crate) sockets: Vec<PathBuf>,
}

impl Places {
    /// What a thread of this role needs of them.
    pub(super) fn of(&self, role: Role) -> Self {
        match role {
            // The kernel's tables: queues, interfaces. Other processes' own are out of reach under Landlock.
            Role::Main => Self {
                read: [&self.read[..], &[PROC.into()]].concat(),
                sockets: self.sockets.clone(),
                ..Self::default()
            },
            Role::Answers => Self { read: vec![PROC.into()], ..Self::default() },
            Role::Log => Self { write: self.write.clone(), ..Self::default() },
            Role::Worker | Role::Lane | Role::Watchdog | Role::Signals => Self::default(),
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |places: &[PathBuf], how: &str| {
            let mut names: Vec<_> =
                places.iter().map(|place| format!("{} ({how})", place.display())).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let all = [
            names(&self.read, "read"),
            names(&self.write, "write"),
            names(&self.sockets, "sockets"),
        ]
        .concat();
        write!(f, "{}", [all, vec![format!("{PROC} (read)")]].concat().join(", "))
    }
}

/// The folder in which a file is found again after it was replaced: where its name stands, and where it lies.
pub(crate) fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    };
    let (named, lies) = (folder(file), folder(&real));
    let real = |folder: &Path| std::fs::canonicalize(folder).ok();
    if real(&named) == real(&lies) { vec![lies] } else { vec![named, lies] }
}

/// The place of a log: its folder, or itself where it is a device or a pipe.
pub(crate) fn place_of_log(file: &Path) -> Vec<PathBuf> {
    let is_special = std::fs::metadata(file)
        .is_ok_and(|about| about.file_type().is_char_device() || about.file_type().is_fifo());
    if is_special { vec![file.to_owned()] } else { folders_of(file) }
}

/// Keeps the calling thread, and those it starts, from all other files, from TCP ports, and from other processes.
pub(super) fn confine(places: &Places) -> Result<(), String> {
    let write: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    let sockets: BitFlags<AccessFs> = AccessFs::MakeSock | AccessFs::RemoveFile;
    let restricted = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_NOW))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI_NOW)))
        .and_then(|rules| rules.scope(Scope::Signal))
        .and_then(landlock::Ruleset::create)
        .and_then(|rules| {
            rules
                .add_rules(path_beneath_rules(&places.read, AccessFs::ReadFile | AccessFs::ReadDir))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules(&places.write, write)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&places.sockets, sockets)))
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => Err(
            "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and `landlock` in the lsm= of its command line)"
                .to_owned(),
        ),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Linux 6.12; of what an older kernel lacks the rest still holds.
const ABI_NOW: ABI = ABI::V6;
const PROC: &str = "/proc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_where_it_is_named_and_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (real, link) = (root.join("real"), root.join("links"));
        std::fs::create_dir(&real).unwrap();
        std::fs::create_dir(&link).unwrap();
        std::fs::write(real.join("rules.toml"), "").unwrap();
        std::os::unix::fs::symlink(real.join("rules.toml"), link.join("rules.toml")).unwrap();
        assert_eq!(folders_of(&real.join("rules.toml")), std::slice::from_ref(&real));
        assert_eq!(folders_of(&link.join("rules.toml")), [link, real]);
        assert_eq!(folders_of(Path::new("none")), [PathBuf::from(".")]);
        assert_eq!(place_of_log(Path::new("/dev/full")), [PathBuf::from("/dev/full")]);
    }

    #[test]
    fn each_role_reaches_its_own_places() {
        let places = Places {
            read: vec!["/etc/fanq".into()],
            write: vec!["/var/log/fanq".into()],
            sockets: vec!["/run/fanq".into()],
        };
        assert_eq!(places.of(Role::Worker), Places::default());
        assert_eq!(places.of(Role::Log).write, places.write);
        assert_eq!(places.of(Role::Log).read.len(), 0);
        assert_eq!(places.of(Role::Main).write.len(), 0);
        assert_eq!(places.of(Role::Main).sockets, places.sockets);
        assert_eq!(places.of(Role::Answers).read, [PathBuf::from(PROC)]);
        let said = "/etc/fanq (read), /var/log/fanq (write), /run/fanq (sockets), /proc (read)";
        assert_eq!(places.to_string(), said);
    }
}
