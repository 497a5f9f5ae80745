//! The kernel: its release, and what it was built with.
//!
//! Invariant: a feature counts as missing only where a configuration or the list of its modules says so.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use super::fact::Fact;
use super::root::Root;

/// The running kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: Fact<String>,
    /// Lines of its configuration that are set: `CONFIG_X=y`.
    config: Fact<HashSet<String>>,
    /// Modules that are loaded now.
    loaded: Fact<HashSet<String>>,
    /// Modules that can be loaded, or are built in, by `modules.dep` and `modules.builtin`.
    installed: Fact<HashSet<String>>,
}

/// A part of the kernel that may be left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    /// Its name in the configuration.
    pub(crate) option: &'static str,
    /// The module that it makes; none if it is part of another.
    pub(crate) module: Option<&'static str>,
}

/// How a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    BuiltIn,
    Loaded,
    /// As a module, which the kernel loads by itself when it is asked for.
    Loadable,
    /// The kernel was built with it as a module, which is not installed.
    NotInstalled,
    Absent,
}

/// The number of a release, without what distributions put behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Kernel {
    pub(crate) fn read(root: &Root) -> Self {
        let release = root.text("proc/sys/kernel/osrelease");
        let (config, installed) = match &release {
            Fact::Known(release) => (config(root, release), installed(root, release)),
            Fact::Unseen(why) => (config(root, ""), Fact::Unseen(why.clone())),
        };
        let first_word = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let loaded = root.text("proc/modules").map(|text| text.lines().map(first_word).collect());
        Self { release, config, loaded, installed }
    }

    /// `6.18.44`, of `6.18.44-cloud-amd64`.
    pub(crate) fn version(&self) -> Option<Version> {
        let release = self.release.known()?;
        let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
        let mut parts = release.get(..end)?.split('.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Version(major, minor, parts.next().flatten().unwrap_or(0)))
    }

    /// Whether a feature is there, and how.
    pub(crate) fn presence(&self, feature: Feature) -> Fact<Presence> {
        let is_loaded = |module| self.loaded.known().is_some_and(|set| set.contains(module));
        if feature.module.is_some_and(is_loaded) {
            return Fact::Known(Presence::Loaded);
        }
        let installed = feature
            .module
            .and_then(|module| self.installed.known().map(|modules| modules.contains(module)));
        match (&self.config, installed) {
            (Fact::Known(lines), _) if lines.contains(&format!("{}=y", feature.option)) => {
                Fact::Known(Presence::BuiltIn)
            }
            (Fact::Known(lines), installed) if lines.contains(&format!("{}=m", feature.option)) => {
                let there = installed.unwrap_or(true);
                Fact::Known(if there { Presence::Loadable } else { Presence::NotInstalled })
            }
            (Fact::Known(_), _) => Fact::Known(Presence::Absent),
            (Fact::Unseen(_), Some(true)) => Fact::Known(Presence::Loadable),
            (Fact::Unseen(why), Some(false) | None) => Fact::Unseen(why.clone()),
        }
    }
}

/// From /proc/config.gz, or from where distributions keep it.
fn config(root: &Root, release: &str) -> Fact<HashSet<String>> {
    let compressed = root.bytes("proc/config.gz").and_then(|bytes| {
        let mut text = String::new();
        match flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text) {
            Ok(_) => Fact::Known(text),
            Err(error) => Fact::Unseen(format!("/proc/config.gz: {error}")),
        }
    });
    let text = compressed
        .or_else(|| root.text("proc/config"))
        .or_else(|| root.text(&format!("boot/config-{release}")))
        .or_else(|| root.text(&format!("lib/modules/{release}/config")));
    let set_lines = |text: String| {
        let set = text.lines().filter(|line| line.starts_with("CONFIG_"));
        set.map(str::to_owned).collect()
    };
    match text {
        Fact::Known(text) => Fact::Known(set_lines(text)),
        Fact::Unseen(_) => Fact::Unseen(format!(
            "the kernel's configuration is neither in /proc/config.gz nor in /boot/config-{release}"
        )),
    }
}

/// The names of `kernel/net/netfilter/nft_queue.ko.xz: ...`.
fn installed(root: &Root, release: &str) -> Fact<HashSet<String>> {
    let folder = format!("lib/modules/{release}");
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
        Some(name.replace('-', "_"))
    };
    let names = |text: String| text.lines().filter_map(name).collect::<HashSet<_>>();
    let loadable = root.text(&format!("{folder}/modules.dep")).map(names);
    let built_in = root.text(&format!("{folder}/modules.builtin")).map(names);
    loadable.map(|mut all| {
        all.extend(built_in.known().cloned().unwrap_or_default());
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT_QUEUE: Feature = Feature { option: "CONFIG_NFT_QUEUE", module: Some("nft_queue") };

    fn kernel(config: &str, loaded: &str, installed: Option<&str>) -> Kernel {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        Kernel {
            release: Fact::Known("6.1.0-28-cloud-amd64".to_owned()),
            config: Fact::Known(words(config)),
            loaded: Fact::Known(words(loaded)),
            installed: installed
                .map_or(Fact::Unseen(String::new()), |text| Fact::Known(words(text))),
        }
    }

    #[test]
    fn a_feature_is_built_in_loaded_loadable_or_not_there() {
        for (config, loaded, installed, expected) in [
            ("CONFIG_NFT_QUEUE=y", "", None, Presence::BuiltIn),
            ("CONFIG_NFT_QUEUE=m", "nft_queue", None, Presence::Loaded),
            ("CONFIG_NFT_QUEUE=m", "", None, Presence::Loadable),
            ("CONFIG_NFT_QUEUE=m", "", Some("nft_queue"), Presence::Loadable),
            ("CONFIG_NFT_QUEUE=m", "", Some("veth"), Presence::NotInstalled),
            ("CONFIG_VETH=m", "", None, Presence::Absent),
        ] {
            let kernel = kernel(config, loaded, installed);
            assert_eq!(kernel.presence(NFT_QUEUE), Fact::Known(expected), "{config} {installed:?}");
        }
    }

    #[test]
    fn without_a_configuration_the_modules_speak() {
        let mut kernel = kernel("", "", Some("nft_queue"));
        kernel.config = Fact::Unseen("no configuration".to_owned());
        assert_eq!(kernel.presence(NFT_QUEUE), Fact::Known(Presence::Loadable));
        kernel.installed = Fact::Known(HashSet::new());
        assert_eq!(kernel.presence(NFT_QUEUE).why_unseen(), Some("no configuration"));
    }

    #[test]
    fn versions_are_numbers() {
        let mut kernel = kernel("", "", None);
        for (release, expected) in [
            ("6.18.44-fc-v669", Some(Version(6, 18, 44))),
            ("6.1.0-28-cloud-amd64", Some(Version(6, 1, 0))),
            ("7.0-rc1", Some(Version(7, 0, 0))),
            ("generic", None),
        ] {
            kernel.release = Fact::Known(release.to_owned());
            assert_eq!(kernel.version(), expected, "{release}");
        }
    }
}
