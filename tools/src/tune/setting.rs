//! One thing of the machine that can be set: where it is, how it is named, and what a person types to set it.
//!
//! Invariant: a setting that was checked leads to a file below `/proc/sys`, `/proc/irq`, `/sys/class/net` or
//! `/sys/devices/system/cpu`, or to one `ethtool` command, and nowhere else, whatever a journal says. It reads and
//! writes nothing.

use serde::{Deserialize, Serialize};

use super::value::Form;

/// What can be set. The journal keeps it by these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Setting {
    /// A kernel parameter by its dotted name, such as net.core.rmem_max.
    Sysctl { name: String },
    /// The CPUs that serve an interrupt.
    Irq { number: u32 },
    /// The CPUs that go on with the packets of a receive queue (receive packet steering).
    Rps { device: String, queue: u32 },
    /// The CPUs that send by a transmit queue.
    Xps { device: String, queue: u32 },
    /// Who chooses a CPU's frequency.
    Governor { cpu: u16 },
    /// A number that `ethtool` knows.
    Ethtool { device: String, table: Table, key: String },
}

/// Which of `ethtool`'s tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Table {
    /// How many packets the card holds for the kernel (`-g`, `-G`).
    Rings,
    /// How many queues the card has (`-l`, `-L`).
    Channels,
}

impl Table {
    /// The option that shows it.
    pub(crate) fn show(self) -> &'static str {
        match self {
            Self::Rings => "-g",
            Self::Channels => "-l",
        }
    }

    /// The option that sets it.
    pub(crate) fn set(self) -> &'static str {
        match self {
            Self::Rings => "-G",
            Self::Channels => "-L",
        }
    }

    fn has(self, key: &str) -> bool {
        match self {
            Self::Rings => matches!(key, "rx" | "tx"),
            Self::Channels => matches!(key, "rx" | "tx" | "combined"),
        }
    }
}

impl Setting {
    /// A short name, the same in every run: what `--only` and `--skip` match.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Sysctl { name } => name.clone(),
            Self::Irq { number } => format!("irq.{number}"),
            Self::Rps { device, queue } => format!("rps.{device}.rx-{queue}"),
            Self::Xps { device, queue } => format!("xps.{device}.tx-{queue}"),
            Self::Governor { cpu } => format!("governor.cpu{cpu}"),
            Self::Ethtool { device, table: Table::Rings, key } => format!("ring.{device}.{key}"),
            Self::Ethtool { device, table: Table::Channels, key } => {
                format!("channels.{device}.{key}")
            }
        }
    }

    /// Its file, without the leading `/`; none for what only a program can set.
    pub(crate) fn file(&self) -> Option<String> {
        Some(match self {
            Self::Sysctl { name } => format!("proc/sys/{}", name.replace('.', "/")),
            Self::Irq { number } => format!("proc/irq/{number}/smp_affinity_list"),
            Self::Rps { device, queue } => {
                format!("sys/class/net/{device}/queues/rx-{queue}/rps_cpus")
            }
            Self::Xps { device, queue } => {
                format!("sys/class/net/{device}/queues/tx-{queue}/xps_cpus")
            }
            Self::Governor { cpu } => {
                format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
            }
            Self::Ethtool { .. } => return None,
        })
    }

    /// How its values are to be read.
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::Sysctl { .. } | Self::Governor { .. } | Self::Ethtool { .. } => Form::Words,
            Self::Irq { .. } => Form::CpuList,
            Self::Rps { .. } | Self::Xps { .. } => Form::CpuMask,
        }
    }

    /// Whether two values of it mean the same.
    pub(crate) fn same(&self, one: &str, other: &str) -> bool {
        self.form().same(one, other)
    }

    /// What a person types to give it this value.
    pub(crate) fn command(&self, value: &str) -> String {
        let value = value.trim();
        match self {
            Self::Sysctl { name } if value.contains(char::is_whitespace) => {
                format!("sysctl -w {name}='{value}'")
            }
            Self::Sysctl { name } => format!("sysctl -w {name}={value}"),
            Self::Ethtool { device, table, key } => {
                format!("ethtool {} {device} {key} {value}", table.set())
            }
            _ => format!("echo {value} > /{}", self.file().unwrap_or_default()),
        }
    }

    /// Refuses names that lead elsewhere.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Sysctl { name } => {
                let whole = name.split('.').all(|part| !part.is_empty() && is_word(part));
                let known = SYSCTLS.iter().any(|folder| name.starts_with(folder));
                whole_or(whole && known, "sysctl", name)
            }
            Self::Irq { .. } | Self::Governor { .. } => Ok(()),
            Self::Rps { device, .. } | Self::Xps { device, .. } => check_device(device),
            Self::Ethtool { device, table, key } => {
                check_device(device)?;
                whole_or(table.has(key), "ethtool setting", key)
            }
        }
    }
}

/// A device's name as the kernel allows it (`dev_valid_name` in net/core/dev.c), and no option of a program.
pub(crate) fn check_device(name: &str) -> Result<(), String> {
    let allowed =
        |byte: u8| byte.is_ascii_graphic() && !b"/:\\'\"`$;&|<>()*?[]{}!#~".contains(&byte);
    let short = (1..DEVICE_NAME_MAX).contains(&name.len());
    let whole = short && name.bytes().all(allowed) && !matches!(name, "." | "..");
    whole_or(whole && !name.starts_with('-'), "network device", name)
}

fn whole_or(right: bool, what: &str, name: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("`{name}` is no {what} that fanq sets")) }
}

fn is_word(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The kernel parameters that are ours to set.
const SYSCTLS: [&str; 2] = ["net.core.", "net.netfilter."];

/// With its end (`IFNAMSIZ`, linux/if.h).
const DEVICE_NAME_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(name: &str) -> Setting {
        Setting::Sysctl { name: name.to_owned() }
    }

    fn rps(device: &str) -> Setting {
        Setting::Rps { device: device.to_owned(), queue: 3 }
    }

    #[test]
    fn a_setting_says_where_it_is_and_what_to_type() {
        let ring = Setting::Ethtool {
            device: "eth0".to_owned(),
            table: Table::Rings,
            key: "rx".to_owned(),
        };
        for (setting, id, file, command) in [
            (
                sysctl("net.core.rmem_max"),
                "net.core.rmem_max",
                Some("proc/sys/net/core/rmem_max"),
                "sysctl -w net.core.rmem_max=7",
            ),
            (
                Setting::Irq { number: 38 },
                "irq.38",
                Some("proc/irq/38/smp_affinity_list"),
                "echo 7 > /proc/irq/38/smp_affinity_list",
            ),
            (
                rps("eth0"),
                "rps.eth0.rx-3",
                Some("sys/class/net/eth0/queues/rx-3/rps_cpus"),
                "echo 7 > /sys/class/net/eth0/queues/rx-3/rps_cpus",
            ),
            (
                Setting::Governor { cpu: 1 },
                "governor.cpu1",
                Some("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"),
                "echo 7 > /sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            ),
            (ring, "ring.eth0.rx", None, "ethtool -G eth0 rx 7"),
        ] {
            assert_eq!(setting.check(), Ok(()));
            assert_eq!(setting.id(), id);
            assert_eq!(setting.file().as_deref(), file);
            assert_eq!(setting.command("7\n"), command);
        }
    }

    /// A journal is a file, and what stands in it is done as root.
    #[test]
    fn what_leads_elsewhere_is_refused() {
        for name in
            ["kernel.core_pattern", "net.core", "net.core./x", "net.core..", "net.core.a/b", ""]
        {
            assert!(sysctl(name).check().is_err(), "{name:?} was taken");
        }
        for device in
            ["", ".", "..", "a/b", "-x", "eth0;reboot", "averyverylongname", "a b", "$(x)"]
        {
            assert!(rps(device).check().is_err(), "{device:?} was taken");
        }
        assert_eq!(rps("eth0.100").check(), Ok(()));
        let odd = Setting::Ethtool {
            device: "eth0".to_owned(),
            table: Table::Rings,
            key: "wol".to_owned(),
        };
        assert!(odd.check().is_err());
    }
}
