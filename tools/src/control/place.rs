//! Where a control socket is: an abstract name, which goes with its process and is seen in one network namespace
//! only, or a file.
//!
//! Invariant: a living program's socket is never taken away, but by the one to which it hands its queues over; a file
//! that nobody serves any more is replaced.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;

/// What `--control` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ControlPlace {
    #[default]
    Abstract,
    File(PathBuf),
    Nowhere,
}

impl FromStr for ControlPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "abstract" => Ok(Self::Abstract),
            "none" => Ok(Self::Nowhere),
            "" => Err("write abstract, the path of a socket file, or none".to_owned()),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// Where to reach a running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ControlAddress {
    /// By its process id.
    Process(u32),
    File(PathBuf),
}

impl std::fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl ControlAddress {
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Process(pid) => UnixStream::connect_addr(&abstract_address(*pid)?),
            Self::File(path) => UnixStream::connect(path),
        }
    }
}

/// A control socket that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlSocket {
    /// The program that serves it, as it knows itself: in another process namespace it has another id.
    pub(crate) pid: u32,
}

impl ControlSocket {
    pub(crate) fn address(self) -> ControlAddress {
        ControlAddress::Process(self.pid)
    }
}

/// The abstract control sockets of the calling thread's network namespace, by rising process id. Those that are files
/// are not found.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn sockets() -> io::Result<Vec<ControlSocket>> {
    Ok(listed(&std::fs::read_to_string("/proc/thread-self/net/unix")?))
}

/// From the kernel's list: `Num RefCount Protocol Flags Type St Inode Path` (unix(7), net/unix/af_unix.c:
/// unix_seq_show).
pub(super) fn listed(table: &str) -> Vec<ControlSocket> {
    let mut found: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let listens = u32::from_str_radix(fields.nth(3)?, 16).ok()? & ACCEPTS_CONNECTIONS != 0;
            let pid = fields.nth(3)?.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok()?;
            (listens && fields.next().is_none()).then_some(ControlSocket { pid })
        })
        .collect();
    found.sort_unstable_by_key(|socket| socket.pid);
    found.dedup();
    found
}

fn abstract_address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{PREFIX}{pid}"))
}

/// Takes the abstract name of this process.
pub(super) fn bind_abstract() -> io::Result<UnixListener> {
    UnixListener::bind_addr(&abstract_address(std::process::id())?)
}

/// A socket's file, removed when dropped if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Where it is to be, if that is elsewhere.
    place: Option<PathBuf>,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes the socket at this path, for its user alone.
    ///
    /// # Errors
    /// Another program serves there, or something else than a socket is there.
    pub(super) fn bind(path: &Path) -> anyhow::Result<(UnixListener, Self)> {
        let shown = path.display();
        if let Ok(there) = std::fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                anyhow::bail!("--control {shown}: something else than a socket is there");
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let what =
                        || format!("--control {shown}: removing what an earlier program left");
                    std::fs::remove_file(path).with_context(what)?;
                }
                Err(error) => anyhow::bail!("--control {shown}: a socket is there: {error}"),
                Ok(_) => anyhow::bail!(
                    "--control {shown}: another program serves there; stop it, or name another path"
                ),
            }
        }
        let what = || format!("--control {shown}: making the socket");
        Self::make(path).with_context(what)
    }

    /// Makes the socket beside this path, where another program may serve until [`take_place`](Self::take_place).
    ///
    /// # Errors
    /// Something else than a socket is there, or none can be made.
    pub(super) fn bind_beside(path: &Path) -> anyhow::Result<(UnixListener, Self)> {
        let shown = path.display();
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            anyhow::bail!("--control {shown}: something else than a socket is there");
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // Of an earlier process of this number.
        let _ = std::fs::remove_file(&beside);
        let (listener, mut file) = Self::make(&beside).with_context(|| {
            format!("--control {shown}: making the socket (a path of at most 90 bytes)")
        })?;
        file.place = Some(path.to_owned());
        Ok((listener, file))
    }

    /// Puts the socket in its place, over another program's.
    pub(super) fn take_place(&mut self) -> io::Result<()> {
        if let Some(place) = self.place.take() {
            std::fs::rename(&self.path, &place)?;
            self.path = place;
        }
        Ok(())
    }

    fn make(path: &Path) -> io::Result<(UnixListener, Self)> {
        let listener = UnixListener::bind(path)?;
        // Until this is done a stranger may connect; whoever connects is looked at.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let made = std::fs::symlink_metadata(path)?;
        let identity = (made.dev(), made.ino());
        Ok((listener, Self { path: path.to_owned(), place: None, identity }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.identity) {
            // If it cannot be removed, the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

const PREFIX: &str = "fanq-";

/// `__SO_ACCEPTCON` of include/uapi/linux/net.h.
const ACCEPTS_CONNECTIONS: u32 = 1 << 16;
