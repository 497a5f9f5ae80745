//! Reads and writes settings: files below the root, numbers through `ethtool`.
//!
//! Invariant: what a read returned, a write of it brings back. A write replaces a value whole, by one system call, and
//! makes no file that was not there. Below a root other than `/` no program runs: what `ethtool` would say stands in
//! `commands/ethtool -g eth0`, and setting a number changes it there.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ethtool;
use super::setting::Setting;
use super::step::step;

/// What can read and write settings; the seam where tests put a machine that refuses.
pub(crate) trait Knobs {
    /// The value, byte for byte as it is shown.
    fn read(&self, setting: &Setting) -> Result<String, KnobError>;

    /// Sets it.
    fn write(&mut self, setting: &Setting, value: &str) -> Result<(), KnobError>;

    /// Whether it is there to be written. A network namespace shows some parameters of the machine that only the
    /// first one can set.
    fn is_settable(&self, setting: &Setting) -> bool;

    /// Whose setting it is: the device behind a number or a name, which after a restart may be another's. Empty if
    /// nothing tells.
    fn owner(&self, setting: &Setting) -> String;

    /// The run of the kernel, which ends with a restart. Empty if nothing tells.
    fn boot(&self) -> String;
}

/// Why a setting could not be read or set.
#[derive(Debug)]
pub(crate) enum KnobError {
    /// The device, the queue or the parameter does not exist.
    Gone { place: String },
    /// The kernel or `ethtool` said no.
    Refused { place: String, words: String },
}

impl fmt::Display for KnobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone { place } => write!(f, "{place} is not there"),
            Self::Refused { place, words } => write!(f, "{place}: {words}"),
        }
    }
}

impl std::error::Error for KnobError {}

/// The machine, or a copy of its files.
#[derive(Debug)]
pub(crate) struct RootKnobs {
    root: PathBuf,
}

impl RootKnobs {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn is_running_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    fn ethtool_text(&self, words: &[&str]) -> Result<String, KnobError> {
        let line = format!("ethtool {}", words.join(" "));
        if !self.is_running_machine() {
            return read_text(&self.root.join("commands").join(&line), &line);
        }
        run(&line, words)
    }
}

impl Knobs for RootKnobs {
    fn read(&self, setting: &Setting) -> Result<String, KnobError> {
        let (Setting::Ethtool { device, table, key }, None) = (setting, setting.file()) else {
            let file = setting.file().unwrap_or_default();
            return read_text(&self.root.join(&file), &format!("/{file}"));
        };
        let text = self.ethtool_text(&[table.show(), device])?;
        let missing = || KnobError::Gone { place: format!("{} of {device}", setting.id()) };
        Ok(ethtool::current(&text, key).ok_or_else(missing)?.to_owned())
    }

    fn write(&mut self, setting: &Setting, value: &str) -> Result<(), KnobError> {
        step();
        let (Setting::Ethtool { device, table, key }, None) = (setting, setting.file()) else {
            let file = setting.file().unwrap_or_default();
            write_text(&self.root.join(&file), &format!("/{file}"), value)?;
            step();
            return Ok(());
        };
        if self.is_running_machine() {
            run(&setting.command(value), &[table.set(), device, key, value.trim()])?;
        } else {
            let line = format!("ethtool {} {device}", table.show());
            let path = self.root.join("commands").join(&line);
            let text = read_text(&path, &line)?;
            let missing = || KnobError::Gone { place: setting.id() };
            let text = ethtool::with_current(&text, key, value.trim()).ok_or_else(missing)?;
            write_text(&path, &line, &text)?;
        }
        step();
        Ok(())
    }

    fn is_settable(&self, setting: &Setting) -> bool {
        let Some(file) = setting.file() else { return true };
        let mode = std::fs::metadata(self.root.join(file)).map(|found| found.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o200 != 0)
    }

    fn owner(&self, setting: &Setting) -> String {
        match setting {
            Setting::Sysctl { .. } | Setting::Governor { .. } => String::new(),
            Setting::Irq { number } => {
                let folder = self.root.join(format!("proc/irq/{number}"));
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                // The kernel makes a folder for each handler of the interrupt, called like it.
                let folders = entries.filter(|entry| entry.path().is_dir());
                let mut names: Vec<_> =
                    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
                names.sort_unstable();
                names.join(" ")
            }
            Setting::Rps { device, .. }
            | Setting::Xps { device, .. }
            | Setting::Ethtool { device, .. } => {
                let link = self.root.join(format!("sys/class/net/{device}/device"));
                let target = std::fs::read_link(link).unwrap_or_default();
                target.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    fn boot(&self) -> String {
        let file = self.root.join("proc/sys/kernel/random/boot_id");
        std::fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default()
    }
}

fn read_text(path: &Path, place: &str) -> Result<String, KnobError> {
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        .open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| failed(place, &error))?;
    let no_text =
        |_| KnobError::Refused { place: place.to_owned(), words: "holds no text".to_owned() };
    String::from_utf8(bytes).map_err(no_text)
}

/// One write: the kernel takes each as a whole value.
fn write_text(path: &Path, place: &str, value: &str) -> Result<(), KnobError> {
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map_err(|error| failed(place, &error))?;
    let written = file.write(value.as_bytes()).map_err(|error| failed(place, &error))?;
    if written == value.len() {
        return Ok(());
    }
    let words = format!("took {written} of {} bytes", value.len());
    Err(KnobError::Refused { place: place.to_owned(), words })
}

fn failed(place: &str, error: &io::Error) -> KnobError {
    let place = place.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => KnobError::Gone { place },
        io::ErrorKind::PermissionDenied => {
            KnobError::Refused { place, words: "not permitted; run as root".to_owned() }
        }
        _ => KnobError::Refused { place, words: error.to_string() },
    }
}

/// Runs `ethtool`; `line` is what a person would type.
fn run(line: &str, words: &[&str]) -> Result<String, KnobError> {
    let refused = |words: String| KnobError::Refused { place: format!("`{line}`"), words };
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("ethtool")
        .args(words)
        // What it says is read here, so it must not be translated.
        .env("LC_ALL", "C")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                refused("ethtool is not installed: apt-get install ethtool".to_owned())
            }
            _ => refused(error.to_string()),
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let words = text(&output.stderr);
    if words.contains("No such device") {
        return Err(KnobError::Gone { place: format!("the device of `{line}`") });
    }
    Err(refused(if words.is_empty() { output.status.to_string() } else { words }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::setting::Table;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn rmem_max() -> Setting {
        Setting::Sysctl { name: "net.core.rmem_max".to_owned() }
    }

    #[test]
    fn a_file_is_read_and_written_whole_and_none_is_made() {
        let tree = tree(&[("proc/sys/net/core/rmem_max", "212992\n")]);
        let mut knobs = RootKnobs::new(tree.path());
        assert_eq!(knobs.read(&rmem_max()).unwrap(), "212992\n");
        knobs.write(&rmem_max(), "7\n").unwrap();
        assert_eq!(knobs.read(&rmem_max()).unwrap(), "7\n");
        let governor = Setting::Governor { cpu: 0 };
        assert!(matches!(knobs.write(&governor, "x"), Err(KnobError::Gone { .. })));
        assert!(!tree.path().join("sys").exists());
    }

    #[test]
    fn what_is_no_file_or_no_text_is_refused() {
        let tree = tree(&[("proc/sys/net/core/rmem_max/x", "")]);
        let mut knobs = RootKnobs::new(tree.path());
        assert!(matches!(knobs.read(&rmem_max()), Err(KnobError::Refused { .. })));
        assert!(matches!(knobs.write(&rmem_max(), "1"), Err(KnobError::Refused { .. })));
        std::fs::create_dir_all(tree.path().join("proc/irq/1")).unwrap();
        std::fs::write(tree.path().join("proc/irq/1/smp_affinity_list"), [0xff]).unwrap();
        let error = knobs.read(&Setting::Irq { number: 1 }).unwrap_err().to_string();
        assert_eq!(error, "/proc/irq/1/smp_affinity_list: holds no text");
    }

    #[test]
    fn a_number_of_ethtools_is_changed_in_its_text_and_nothing_else_of_it() {
        let before = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\n\
                      Current hardware settings:\nRX:\t\t512\nTX:\t\t512\n";
        let tree = tree(&[("commands/ethtool -g eth0", before)]);
        let mut knobs = RootKnobs::new(tree.path());
        let (device, table) = ("eth0".to_owned(), Table::Rings);
        let ring = Setting::Ethtool { device, table, key: "rx".to_owned() };
        assert_eq!(knobs.read(&ring).unwrap(), "512");
        knobs.write(&ring, "4096").unwrap();
        assert_eq!(knobs.read(&ring).unwrap(), "4096");
        knobs.write(&ring, "512").unwrap();
        let after = std::fs::read_to_string(tree.path().join("commands/ethtool -g eth0")).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn an_owner_is_the_device_behind_a_number_or_a_name() {
        let tree = tree(&[
            ("proc/irq/38/virtio2-input.0/x", ""),
            ("proc/irq/38/smp_affinity_list", "0-1\n"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ]);
        std::os::unix::fs::symlink(
            "../../0000:00:03.0",
            tree.path().join("sys/class/net/eth0/device"),
        )
        .unwrap();
        let knobs = RootKnobs::new(tree.path());
        assert_eq!(knobs.owner(&Setting::Irq { number: 38 }), "virtio2-input.0");
        let rps = Setting::Rps { device: "eth0".to_owned(), queue: 0 };
        assert_eq!(knobs.owner(&rps), "0000:00:03.0");
        assert_eq!((knobs.owner(&rmem_max()), knobs.boot()), (String::new(), String::new()));
    }
}
