//! Where lines are written: a file, or a socket with a reader that may come and go.
//!
//! Invariant: what stands in the file, or reaches a reader, is whole lines (a connection that is given up may end in a
//! piece of one); of those that were to be written every one is
//! counted as written or as lost. A full disk or a reader who does not read costs lines, never the program: a write
//! waits for a tenth of a second at most, and after one that failed nothing is tried for a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::EveTarget;

/// The place, open.
#[derive(Debug)]
pub(super) struct Output {
    target: EveTarget,
    sink: Sink,
    /// Nothing is tried before.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
enum Sink {
    File {
        file: File,
        /// Whether what stands at its end is a piece of a line.
        is_cut: bool,
    },
    Socket(Option<UnixStream>),
}

/// What became of some lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) lines: u64,
    pub(super) lost: u64,
    /// Why lines were lost, where this was found out now.
    pub(super) failure: Option<String>,
}

impl Output {
    /// Opens the place. A socket need not have a reader yet.
    ///
    /// # Errors
    /// If the file cannot be opened for appending.
    pub(super) fn open(target: &EveTarget) -> io::Result<Self> {
        let sink = match target {
            EveTarget::File(path) => Sink::File { file: open_file(path)?, is_cut: false },
            EveTarget::Socket(_) => Sink::Socket(None),
        };
        Ok(Self { target: target.clone(), sink, rests_until: None })
    }

    /// Opens the file anew, under its name; the old one stays if that fails. A socket is connected anew.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.target)?;
        Ok(())
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let all = count_lines(lines);
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Written { lost: all, ..Written::default() };
        }
        self.rests_until = None;
        let result = match (&mut self.sink, &self.target) {
            (Sink::File { file, is_cut }, _) => write_to_file(file, is_cut, lines),
            (Sink::Socket(stream), EveTarget::Socket(path) | EveTarget::File(path)) => {
                write_to_socket(stream, path, lines)
            }
        };
        match result {
            Ok(()) => Written { lines: all, ..Written::default() },
            Err((error, bytes)) => {
                self.rests_until = Some(Instant::now() + REST);
                let whole = count_lines(&lines[..bytes]);
                Written { lines: whole, lost: all - whole, failure: Some(error.to_string()) }
            }
        }
    }
}

/// An error, and how many bytes went out before it.
type CutShort = (io::Error, usize);

fn open_file(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a pipe without a reader is an error rather than a wait (open(2)); files do not care.
    OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn write_to_file(file: &mut File, is_cut: &mut bool, lines: &[u8]) -> Result<(), CutShort> {
    if *is_cut {
        write_all(file, b"\n").map_err(|(error, _)| (error, 0))?;
        *is_cut = false;
    }
    write_all(file, lines).inspect_err(|(_, bytes)| {
        let piece = bytes - whole_lines(&lines[..*bytes]);
        *is_cut = piece > 0 && cut_off(file, piece).is_err();
    })
}

/// Takes the last bytes of a file away.
fn cut_off(file: &File, bytes: usize) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file.set_len(about.len().saturating_sub(bytes as u64))
}

fn write_to_socket(
    stream: &mut Option<UnixStream>,
    path: &Path,
    lines: &[u8],
) -> Result<(), CutShort> {
    let connected = match stream.take() {
        Some(connected) => connected,
        None => connect_to(path).map_err(|error| (error, 0))?,
    };
    let connected = stream.insert(connected);
    let result = write_all(connected, lines);
    if let Err((_, bytes)) = &result {
        // In the middle of a line, or without a reader: the next line begins on a connection of its own.
        let is_cut = whole_lines(&lines[..*bytes]) != *bytes;
        let is_full =
            result.as_ref().is_err_and(|(error, _)| error.kind() == io::ErrorKind::WouldBlock);
        if is_cut || !is_full {
            *stream = None;
        }
    }
    result
}

fn connect_to(path: &Path) -> io::Result<UnixStream> {
    // Without waiting: a listener whose backlog is full would hold the caller up (unix(7)).
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Writes all, waiting a little where there is no room.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), CutShort> {
    let mut written = 0;
    let mut gives_up: Option<Instant> = None;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= *gives_up.get_or_insert_with(|| Instant::now() + PATIENCE) {
                    return Err((error, written));
                }
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// The length of the whole lines at the beginning.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// How long a write waits for room.
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(2);

/// How long nothing is tried after a failure.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn lines_are_appended_and_a_file_that_was_moved_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("eve.json"), folder.path().join("eve.json.1"));
        std::fs::write(&path, "old\n").unwrap();
        let mut output = Output::open(&EveTarget::File(path.clone())).unwrap();
        assert_eq!(output.write(b"1\n2\n"), Written { lines: 2, ..Written::default() });
        std::fs::rename(&path, &moved).unwrap();
        output.write(b"3\n");
        output.reopen().unwrap();
        output.write(b"4\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "old\n1\n2\n3\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn a_place_that_cannot_be_opened_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Output::open(&EveTarget::File(folder.path().to_owned())).is_err());
        assert!(Output::open(&EveTarget::File("/dev/null/x".into())).is_err());
    }

    #[test]
    fn a_full_device_costs_lines_and_then_rests() {
        let mut output = Output::open(&EveTarget::File("/dev/full".into())).unwrap();
        let first = output.write(b"1\n2\n");
        assert_eq!((first.lines, first.lost, first.failure.is_some()), (0, 2, true));
        assert_eq!(output.write(b"3\n"), Written { lost: 1, ..Written::default() }, "it rests");
    }

    #[test]
    fn a_piece_of_a_line_is_taken_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"whole\npie").unwrap();
        cut_off(&file, 3).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6);
        assert_eq!((whole_lines(b"a\nb"), whole_lines(b"ab"), whole_lines(b"a\n")), (2, 0, 2));
    }

    #[test]
    fn a_reader_may_come_late_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let mut output = Output::open(&EveTarget::Socket(path.clone())).unwrap();
        assert_eq!(output.write(b"1\n").lost, 1);
        let listener = UnixListener::bind(&path).unwrap();
        output.rests_until = None;
        assert_eq!(output.write(b"2\n3\n").lines, 2);
        let (reader, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "2");
        drop(lines);
        assert_eq!(output.write(b"4\n").lost, 1, "nobody reads");
        output.rests_until = None;
        assert_eq!(output.write(b"5\n").lines, 1);
        let (reader, _) = listener.accept().unwrap();
        assert_eq!(BufReader::new(reader).lines().next().unwrap().unwrap(), "5");
    }

    #[test]
    fn a_reader_who_does_not_read_costs_lines_and_gets_whole_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut output = Output::open(&EveTarget::Socket(path)).unwrap();
        let lines = b"0123456789012345678901234567890123456789\n".repeat(1000);
        let (mut written, mut lost) = (0, 0);
        while lost == 0 {
            let result = output.write(&lines);
            (written, lost) = (written + result.lines, lost + result.lost);
        }
        drop(output);
        let (reader, _) = listener.accept().unwrap();
        let read = BufReader::new(reader).split(b'\n').map(Result::unwrap);
        let whole = read.filter(|line| line.len() == 40).count() as u64;
        assert_eq!(whole, written);
    }
}
