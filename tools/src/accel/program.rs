//! The program to be started: found as a shell finds it, and looked at before it is started.
//!
//! Invariant: whoever cannot be helped is told why. A script is looked at by its interpreter. What is read is bounded,
//! and a file that is not understood is left to the kernel to refuse.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::is_one_of;

/// The file of a command: itself if it has a slash, else the first in `PATH`.
pub(super) fn find(name: &OsStr) -> anyhow::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    match places.find(|place| is_executable(place)) {
        Some(found) => Ok(found),
        None => bail!("there is no program {} in PATH", name.display()),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Why nothing can be loaded under the program, or would be of no use.
pub(super) fn cannot_be_helped(path: &Path) -> anyhow::Result<Option<String>> {
    cannot_be_helped_through(path, INTERPRETERS_MAX)
}

fn cannot_be_helped_through(path: &Path, depth: usize) -> anyhow::Result<Option<String>> {
    let file = File::open(path).with_context(|| format!("looking at {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
    let mut begin = vec![0; BEGIN_BYTES];
    let length = read_at(&file, &mut begin, 0)?;
    begin.truncate(length);
    if let Some(line) = begin.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let interpreter = OsStr::from_bytes(words.next().unwrap_or_default());
        let by_name =
            Path::new(interpreter).file_name().is_some_and(|name| is_one_of(name, &["env"]));
        // Behind the options and the variables that it sets.
        let is_program = |word: &&[u8]| !word.starts_with(b"-") && !word.contains(&b'=');
        let program = if by_name { words.find(is_program) } else { None };
        let found = match program.map(|program| find(OsStr::from_bytes(program))) {
            Some(Ok(found)) => found,
            // An argument of an option, perhaps: whether it can be started `env` must know.
            Some(Err(_)) => return Ok(None),
            None => PathBuf::from(interpreter),
        };
        return if depth == 0 { Ok(None) } else { cannot_be_helped_through(&found, depth - 1) };
    }
    if is_privileged(path, &metadata) {
        return Ok(Some(
            "gains rights when it is started (set-user-ID, or file capabilities), so the loader refuses to load a \
             library under it; start a copy without them (cp FILE COPY), as root"
                .to_owned(),
        ));
    }
    Ok(Elf::read(&file, &begin)?.and_then(|elf| elf.cannot_be_helped()))
}

/// Whether the loader would be in secure-execution mode (ld.so(8)).
fn is_privileged(path: &Path, metadata: &std::fs::Metadata) -> bool {
    let changes_user =
        metadata.mode() & 0o4000 != 0 && metadata.uid() != rustix::process::geteuid().as_raw();
    let changes_group =
        metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != rustix::process::getegid().as_raw();
    let mut value = [0; 64];
    let capabilities = rustix::fs::getxattr(path, "security.capability", &mut value).is_ok();
    changes_user || changes_group || (capabilities && !rustix::process::geteuid().is_root())
}

/// What of a program's file tells how it reaches the kernel.
#[derive(Debug, Default)]
struct Elf {
    has_loader: bool,
    is_go: bool,
    /// Whether it loads a C library for netfilter, which makes the calls.
    has_netfilter_library: bool,
}

impl Elf {
    /// Reads the program headers of a 64-bit file in this machine's byte order; `None` for anything else.
    fn read(file: &File, begin: &[u8]) -> anyhow::Result<Option<Self>> {
        if begin.len() < HEADER_BYTES || begin[..5] != *b"\x7fELF\x02" {
            return Ok(None);
        }
        let half = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let word = |bytes: &[u8], at: usize| {
            bytes[at..at + 8].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let (offset, size, count) = (word(begin, 32), half(begin, 54), half(begin, 56));
        let mut elf = Self::default();
        for index in 0..u64::from(count.min(PROGRAM_HEADERS_MAX)) {
            let mut header = [0; PROGRAM_HEADER_BYTES];
            if read_at(file, &mut header, offset.saturating_add(index * u64::from(size)))?
                < header.len()
            {
                break;
            }
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let (at, bytes) = (word(&header, 8), word(&header, 32).min(SEGMENT_BYTES_MAX));
            match kind {
                PT_INTERP => elf.has_loader = true,
                // Go's notes have the name "Go", after the two lengths and the type.
                PT_NOTE => elf.is_go |= contains(file, at, bytes, b"Go\0\0")?,
                // The names of libraries lie in the first segment, or near it.
                PT_LOAD if !elf.has_netfilter_library => {
                    elf.has_netfilter_library =
                        contains(file, at, bytes, b"libnetfilter_queue.so")?
                            || contains(file, at, bytes, b"libmnl.so")?;
                }
                _ => {}
            }
        }
        Ok(Some(elf))
    }

    fn cannot_be_helped(&self) -> Option<String> {
        if !self.has_loader {
            return Some(
                "is statically linked: nothing can be loaded under it; build it against shared libraries, or use a \
                 package that is"
                    .to_owned(),
            );
        }
        (self.is_go && !self.has_netfilter_library).then(|| {
            "is a Go program, which makes its system calls itself: a library under it sees none of them".to_owned()
        })
    }
}

fn contains(file: &File, at: u64, bytes: u64, what: &[u8]) -> anyhow::Result<bool> {
    let mut segment = vec![0; usize::try_from(bytes)?];
    let length = read_at(file, &mut segment, at)?;
    Ok(segment[..length].windows(what.len()).any(|window| window == what))
}

/// Reads as much as there is.
fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < room.len() {
        match file.read_at(&mut room[length..], offset.saturating_add(length as u64)) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

const BEGIN_BYTES: usize = 256;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PROGRAM_HEADERS_MAX: u16 = 64;
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
const INTERPRETERS_MAX: usize = 4;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these program headers' types, each naming a segment with these bytes.
    fn elf(segments: &[(u32, &[u8])]) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; HEADER_BYTES + segments.len() * PROGRAM_HEADER_BYTES];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_ne_bytes());
        for (index, (kind, content)) in segments.iter().enumerate() {
            let (header, at) = (HEADER_BYTES + index * PROGRAM_HEADER_BYTES, bytes.len() as u64);
            bytes[header..header + 4].copy_from_slice(&kind.to_ne_bytes());
            bytes[header + 8..header + 16].copy_from_slice(&at.to_ne_bytes());
            bytes[header + 32..header + 40].copy_from_slice(&(content.len() as u64).to_ne_bytes());
            bytes.extend_from_slice(content);
        }
        file(&bytes)
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn why(file: &tempfile::NamedTempFile) -> String {
        cannot_be_helped(file.path()).unwrap().unwrap_or_default()
    }

    #[test]
    fn static_and_go_programs_are_told_why() {
        let note: &[u8] = b"\x04\0\0\0\x08\0\0\0\x04\0\0\0Go\0\0buildid.";
        let interpreter: (u32, &[u8]) = (PT_INTERP, b"/lib64/ld-linux-x86-64.so.2\0");
        assert!(why(&elf(&[(PT_LOAD, b"code")])).contains("statically linked"));
        assert!(why(&elf(&[interpreter, (PT_NOTE, note)])).contains("Go program"));
        assert_eq!(why(&elf(&[interpreter, (PT_LOAD, b"code")])), "");
        let with_library =
            [interpreter, (PT_NOTE, note), (PT_LOAD, b"x libnetfilter_queue.so.1\0")];
        assert_eq!(why(&elf(&with_library)), "", "its C library makes the calls");
    }

    #[test]
    fn a_script_is_its_interpreter() {
        let interpreter = elf(&[(PT_LOAD, b"code")]);
        let script = file(format!("#!{} -x\n", interpreter.path().display()).as_bytes());
        assert!(why(&script).contains("statically linked"));
        for line in
            ["-S sh", "-S LANG=C sh -e", "-S -u no-such-program-here sh", "no-such-program-here"]
        {
            assert_eq!(why(&file(format!("#!/usr/bin/env {line}\n").as_bytes())), "", "{line}");
        }
        let program = interpreter.path().display();
        let script = file(format!("#!/usr/bin/env -S A=b {program} -x\n").as_bytes());
        assert!(why(&script).contains("statically linked"));
    }

    #[test]
    fn what_is_cut_short_is_left_to_the_kernel() {
        let whole =
            std::fs::read(elf(&[(PT_INTERP, b"/lib"), (PT_NOTE, b"Go\0\0")]).path()).unwrap();
        for end in 0..whole.len() {
            let _ = why(&file(&whole[..end]));
        }
    }

    #[test]
    fn a_command_is_found_in_the_path() {
        assert!(find(OsStr::new("sh")).unwrap().is_absolute());
        assert_eq!(find(OsStr::new("./sh")).unwrap(), Path::new("./sh"));
        let error = find(OsStr::new("no-such-program-here")).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
    }
}
