//! CPU numbers and lists of them, in the kernel's notation (`0-3,8`).
//!
//! Invariant: a list is sorted and names each CPU once.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The kernel's number of a CPU. Numbers may have holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuId(pub u16);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuList(Vec<CpuId>);

impl CpuList {
    /// The CPUs that are online, from `/sys/devices/system/cpu/online` under `root` (`/`, or a copy for tests).
    ///
    /// # Errors
    /// The file cannot be read or is not a CPU list.
    pub fn online(root: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(root.join("sys/devices/system/cpu/online"))?;
        text.trim().parse().map_err(std::io::Error::other)
    }

    /// In rising order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CpuId> + Clone + '_ {
        self.0.iter().copied()
    }

    /// Whether `cpu` is one of them.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<CpuId> for CpuList {
    fn from_iter<T: IntoIterator<Item = CpuId>>(cpus: T) -> Self {
        let mut cpus: Vec<_> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || CpuListError(text.to_owned());
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if last < first || last >= CPUS_MAX {
                return Err(bad());
            }
            cpus.extend((first..=last).map(CpuId));
        }
        Ok(cpus.into_iter().collect())
    }
}

/// Writes runs as ranges, as the kernel does.
impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a.0 + 1 == b.0);
        for (index, run) in runs.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (run.first(), run.last()) {
                (Some(first), Some(last)) if first != last => write!(f, "{comma}{first}-{last}")?,
                (Some(only), _) => write!(f, "{comma}{only}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A text that is no CPU list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no list of CPUs: write numbers below {CPUS_MAX} and rising ranges, such as `0-3,8`"
)]
pub struct CpuListError(String);

/// The most CPUs that a Linux kernel can be built for (`NR_CPUS` in arch/x86/Kconfig).
const CPUS_MAX: u16 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_write_the_kernels_notation() {
        for (text, written) in [("0", "0"), ("0-3", "0-3"), ("3,1,2,2", "1-3"), ("8,0-1", "0-1,8")]
        {
            assert_eq!(text.parse::<CpuList>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "3-1", "a", "0-", "-1", "0,,1", "0-99999", "0-8192"] {
            assert!(text.parse::<CpuList>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn this_machine_has_cpus_online() {
        assert!(!CpuList::online(Path::new("/")).unwrap().is_empty());
    }
}
