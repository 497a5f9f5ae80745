//! Where the machine's files are: below `/`, or below a folder that holds a copy of them.
//!
//! Invariant: reads only, and never outside the root. Below a folder no program runs: what a program would print
//! stands in `commands/`, in a file called like the command line (`commands/ethtool -g eth0`). A folder may hold a
//! second sample of what moves (`later/proc/net/softnet_stat`), which [`Root::later`] reads first.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::fact::Fact;
use super::program;

/// The place below which everything is read.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Looked into in this order.
    folders: Vec<PathBuf>,
}

impl Root {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folders: vec![folder.to_owned()] }
    }

    /// Whether it is the running machine, and not a copy.
    pub(crate) fn is_running_machine(&self) -> bool {
        self.folders.iter().all(|folder| folder == Path::new("/"))
    }

    /// The same place, some time later. Of a copy, that is what its folder `later` holds, and else the same again.
    pub(crate) fn later(&self) -> Self {
        if self.is_running_machine() {
            return self.clone();
        }
        let first = self.folders.first().map(|folder| folder.join("later"));
        Self { folders: first.into_iter().chain(self.folders.clone()).collect() }
    }

    /// Where a file is; the last place to look, if it is nowhere. `below` has no slash in front.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        let mut paths = self.folders.iter().map(|folder| folder.join(below));
        let last = paths.next_back().unwrap_or_default();
        paths.find(|path| path.symlink_metadata().is_ok()).unwrap_or(last)
    }

    pub(crate) fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// A file's text, without white space at its ends.
    pub(crate) fn text(&self, below: &str) -> Fact<String> {
        self.bytes(below).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    pub(crate) fn bytes(&self, below: &str) -> Fact<Vec<u8>> {
        fact(below, std::fs::read(self.path(below)))
    }

    /// A file that holds one value.
    pub(crate) fn value<T: FromStr>(&self, below: &str) -> Fact<T> {
        self.text(below).and_then(|text| match text.parse() {
            Ok(value) => Fact::Known(value),
            Err(_) => Fact::Unseen(format!("/{below}: `{text}` is not understood")),
        })
    }

    /// The last part of where a link leads.
    pub(crate) fn link_name(&self, below: &str) -> Fact<String> {
        let name =
            |target: PathBuf| target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fact(below, std::fs::read_link(self.path(below))).map(name)
    }

    /// Where a link leads, as it is written there.
    pub(crate) fn link(&self, below: &str) -> Fact<String> {
        let target = std::fs::read_link(self.path(below));
        fact(below, target).map(|target| target.to_string_lossy().into_owned())
    }

    /// What a folder holds, sorted, numbers by their value.
    pub(crate) fn names(&self, below: &str) -> Fact<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let entries = std::fs::read_dir(self.path(below))?;
            let name =
                |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
            let mut names: Vec<_> = entries.filter_map(name).collect();
            names.sort_by_key(|name| natural(name));
            Ok(names)
        };
        fact(below, read())
    }

    /// What a program prints: it is run, or its file in `commands/` is read. A program that says that the kernel or
    /// the device does not support what is asked has answered; any other refusal is unseen.
    pub(crate) fn program(&self, words: &[&str]) -> Fact<String> {
        let line = words.join(" ");
        if self.is_running_machine() {
            return program::run(words);
        }
        self.text(&format!("commands/{line}"))
    }
}

fn fact<T>(below: &str, result: io::Result<T>) -> Fact<T> {
    match result {
        Ok(value) => Fact::Known(value),
        Err(error) => {
            let words = match error.kind() {
                io::ErrorKind::NotFound => "not there".to_owned(),
                io::ErrorKind::PermissionDenied => "only root may read it".to_owned(),
                _ => error.to_string(),
            };
            Fact::Unseen(format!("/{below}: {words}"))
        }
    }
}

/// `rx-10` behind `rx-9`.
fn natural(name: &str) -> (String, u64, String) {
    let start = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (before, rest) = name.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest.get(..end).unwrap_or_default().parse().unwrap_or(u64::MAX);
    (before.to_owned(), number, rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_and_what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "1\n"), ("b", "x"), ("commands/nft -j list ruleset", "{}\n")] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(folder.path());
        assert_eq!(root.value::<u32>("a"), Fact::Known(1));
        assert_eq!(root.value::<u32>("b"), Fact::Unseen("/b: `x` is not understood".to_owned()));
        assert_eq!(root.text("proc/c"), Fact::Unseen("/proc/c: not there".to_owned()));
        assert_eq!(root.program(&["nft", "-j", "list", "ruleset"]), Fact::Known("{}".to_owned()));
        let ran = root.program(&["true"]);
        assert_eq!(ran, Fact::Unseen("/commands/true: not there".to_owned()));
    }

    #[test]
    fn a_later_sample_goes_before_the_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("later")).unwrap();
        for (name, text) in [("a", "1"), ("b", "1"), ("later/a", "2")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let later = Root::new(folder.path()).later();
        assert_eq!((later.value("a"), later.value("b")), (Fact::Known(2), Fact::Known(1)));
    }

    #[test]
    fn names_are_sorted_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["rx-10", "rx-9", "tx-0", "rx-0"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let names = Root::new(folder.path()).names("").known().cloned().unwrap();
        assert_eq!(names, ["rx-0", "rx-9", "rx-10", "tx-0"]);
    }
}
