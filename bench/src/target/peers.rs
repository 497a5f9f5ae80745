//! The peers: programs of `bench/peers` that serve queues in the way other software does, and how each is called.
//!
//! Invariant: a command names a program that is there; else the error says how to build it. Peers differ in what they
//! offer, and are given no option that they would refuse.
//!
//! Does not: build, start or stop them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fanq::{CpuId, QueueRange};

/// The target names that are peers.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PEERS.iter().map(|peer| peer.name)
}

/// The command that serves these queues by the peer of this name: the i-th queue on the i-th of `cpus`, or on CPU i
/// if `cpus` is empty, with at most `maxlen` packets waiting in each and `rcvbuf` bytes of buffer where it has a say.
pub(crate) fn command(
    name: &str,
    queues: QueueRange,
    cpus: &[CpuId],
    maxlen: u32,
    rcvbuf: usize,
) -> anyhow::Result<Vec<OsString>> {
    let peer = find(name)?;
    let chosen = env::var_os("FANQ_PEERS").filter(|folder| !folder.is_empty());
    let folders = match chosen {
        Some(folder) => vec![PathBuf::from(folder)],
        None => folders(&env::current_exe().context("finding this program's own folder")?),
    };
    let program = program_in(&folders, peer)?;
    let options = Options { queues, cpus, maxlen, rcvbuf };
    Ok(std::iter::once(program.into_os_string()).chain(options.of(peer)).collect())
}

/// A target name and what stands behind it.
#[derive(Debug)]
struct Peer {
    name: &'static str,
    /// The program's file, and its name for `scripts/peers.sh`.
    program: &'static str,
    mode: Option<&'static str>,
    takes_rcvbuf: bool,
}

const fn plain(name: &'static str, mode: &'static str) -> Peer {
    Peer { name, program: "plain", mode: Some(mode), takes_rcvbuf: true }
}

const fn library(name: &'static str, takes_rcvbuf: bool) -> Peer {
    Peer { name, program: name, mode: None, takes_rcvbuf }
}

const PEERS: [Peer; 6] = [
    plain("limit", "batch"),
    plain("multi", "multi"),
    plain("single", "single"),
    library("libnetfilter_queue", true),
    // The crate neither sets the buffer nor shows its socket.
    library("nfq", false),
    library("netfilterqueue", true),
];

fn find(name: &str) -> anyhow::Result<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name).with_context(|| {
        format!("there is no peer `{name}`: there are {}", names().collect::<Vec<_>>().join(", "))
    })
}

/// Where peers are looked for: `peers` beside the running program, or beside its folder, as in
/// `target/release/fanq-bench` and `target/peers`.
fn folders(program: &Path) -> Vec<PathBuf> {
    program.ancestors().skip(1).take(2).map(|folder| folder.join("peers")).collect()
}

fn program_in(folders: &[PathBuf], peer: &Peer) -> anyhow::Result<PathBuf> {
    let programs = folders.iter().map(|folder| folder.join(peer.program));
    match programs.clone().find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => bail!(
            "target {}: there is no {}; build it with: scripts/peers.sh build {}",
            peer.name,
            programs.map(|program| program.display().to_string()).collect::<Vec<_>>().join(" or "),
            peer.program,
        ),
    }
}

/// What every peer is told.
#[derive(Debug)]
struct Options<'a> {
    queues: QueueRange,
    cpus: &'a [CpuId],
    maxlen: u32,
    rcvbuf: usize,
}

impl Options<'_> {
    /// The words behind the program's name.
    fn of(&self, peer: &Peer) -> Vec<OsString> {
        let mut words = vec!["-l".to_owned(), self.maxlen.to_string()];
        if peer.takes_rcvbuf {
            words.extend(["-b".to_owned(), self.rcvbuf.to_string()]);
        }
        if !self.cpus.is_empty() {
            let cpus: Vec<_> = self.cpus.iter().map(CpuId::to_string).collect();
            words.extend(["-c".to_owned(), cpus.join(",")]);
        }
        words.extend(peer.mode.map(str::to_owned));
        words.push(format!("{}-{}", self.queues.first(), self.queues.last()));
        words.iter().map(OsStr::new).map(OsStr::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, cpus: &[CpuId]) -> String {
        let queues = "4-5".parse().unwrap();
        let options = Options { queues, cpus, maxlen: 1000, rcvbuf: 4096 };
        options.of(find(name).unwrap()).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn each_peer_gets_the_options_that_it_takes() {
        let cpus = [CpuId(1), CpuId(0)];
        assert_eq!(words("limit", &cpus), "-l 1000 -b 4096 -c 1,0 batch 4-5");
        assert_eq!(words("multi", &cpus), "-l 1000 -b 4096 -c 1,0 multi 4-5");
        assert_eq!(words("single", &[]), "-l 1000 -b 4096 single 4-5");
        assert_eq!(words("libnetfilter_queue", &cpus), "-l 1000 -b 4096 -c 1,0 4-5");
        assert_eq!(words("netfilterqueue", &[]), "-l 1000 -b 4096 4-5");
        assert_eq!(words("nfq", &cpus), "-l 1000 -c 1,0 4-5");
    }

    #[test]
    fn peers_are_looked_for_beside_the_program_and_beside_its_folder() {
        let found = folders(Path::new("/x/target/release/fanq-bench"));
        assert_eq!(found, [Path::new("/x/target/release/peers"), Path::new("/x/target/peers")]);
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_builds_it() {
        let folders = folders(Path::new("/nonexistent/target/debug/fanq-bench"));
        let error = program_in(&folders, find("limit").unwrap()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/target/peers/plain"), "{error}");
        assert!(error.ends_with("scripts/peers.sh build plain"), "{error}");
        let error = command("fnord", "0".parse().unwrap(), &[], 1, 1).unwrap_err().to_string();
        assert!(error.contains("`fnord`") && error.contains("netfilterqueue"), "{error}");
    }

    #[test]
    fn a_program_that_is_there_is_found() {
        let folder = env::temp_dir().join(format!("fanq-peers-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("plain"), "").unwrap();
        let found = program_in(&["/nonexistent".into(), folder.clone()], find("single").unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.unwrap(), folder.join("plain"));
    }
}
