//! What a lab looks like: asked for by options, then settled for the CPUs of this machine.
//!
//! Invariant: a settled [`Shape`] says all that building takes, so two labs of equal shape are the same lab. It
//! builds nothing.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use fanq::CpuList;
use serde::{Deserialize, Serialize};

use crate::result::{Hook, Topology};

/// Options of everything that makes a lab.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShapeOptions {
    /// Where packets are taken
    #[arg(long, value_enum, default_value_t = Hook::Forward)]
    pub(crate) hook: Hook,
    /// Which CPUs make the load and which fill and serve the queues; split and threaded need root
    #[arg(long, value_enum, default_value_t = Topology::Shared)]
    pub(crate) topology: Topology,
    /// Pairs of devices [default: one for each CPU that makes load]
    #[arg(long, value_name = "COUNT")]
    pub(crate) pairs: Option<u16>,
    /// Whether GSO, TSO, GRO and checksums are left to the devices; off needs ethtool
    #[arg(long, value_enum, default_value_t = Offloads::On)]
    pub(crate) offloads: Offloads,
}

/// What the devices may put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Offloads {
    /// As the kernel makes veth devices.
    On,
    /// Nothing: packets have their final size and checksum when they reach the queue.
    Off,
}

/// A lab, settled for certain CPUs. Load CPU i sends over pair i, which queue CPU i handles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) hook: Hook,
    pub(crate) topology: Topology,
    pub(crate) pairs: u16,
    pub(crate) offloads: Offloads,
    pub(crate) load_cpus: Vec<u16>,
    pub(crate) queue_cpus: Vec<u16>,
}

impl Shape {
    /// Settles the options for the CPUs that this process may use.
    pub(crate) fn on_this_machine(options: &ShapeOptions) -> anyhow::Result<Self> {
        let allowed = fanq::allowed_cpus();
        Self::new(options, &allowed.context("the kernel does not say which CPUs may be used")?)
    }

    fn new(options: &ShapeOptions, allowed: &CpuList) -> anyhow::Result<Self> {
        let cpus: Vec<u16> = allowed.iter().map(|cpu| cpu.0).collect();
        let (load, queue) = match options.topology {
            Topology::Shared => (&cpus[..], &cpus[..]),
            Topology::Split | Topology::Threaded => {
                ensure!(
                    cpus.len() >= 2,
                    "--topology {} needs two CPUs, and this process may use only {allowed}; \
                     allow it more (taskset, cpuset), or take --topology shared",
                    options.topology
                );
                ensure!(
                    options.topology == Topology::Split || options.offloads == Offloads::On,
                    "--topology threaded needs --offloads on: without GRO a veth device has nothing that a thread \
                     could do"
                );
                cpus.split_at(cpus.len() / 2)
            }
        };
        let most = load.len().min(PAIRS_MAX);
        let pairs = options.pairs.map_or(most, usize::from);
        if pairs == 0 || pairs > most {
            bail!(
                "--pairs {pairs}: 1 to {most} are possible here, one for each of the CPUs {allowed} \
                 that can make load (at most {PAIRS_MAX})"
            );
        }
        Ok(Self {
            hook: options.hook,
            topology: options.topology,
            pairs: u16::try_from(pairs).context("too many pairs")?,
            offloads: options.offloads,
            load_cpus: load[..pairs].to_vec(),
            queue_cpus: queue[..pairs].to_vec(),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = if self.hook == Hook::Forward { "forward" } else { "input" };
        let offloads = if self.offloads == Offloads::On { "on" } else { "off" };
        let list = |cpus: &[u16]| cpus.iter().copied().map(fanq::CpuId).collect::<CpuList>();
        write!(
            f,
            "hook {hook}, topology {}, pairs {}, offloads {offloads}, load from CPUs {}, \
             queues on CPUs {}",
            self.topology,
            self.pairs,
            list(&self.load_cpus),
            list(&self.queue_cpus)
        )
    }
}

/// The name of a lab that stays, which is also the name of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabName(String);

impl LabName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, hyphens, underscores"))
        }
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Each pair has 2^17 addresses for its flows in 10.128.0.0/10; so many of them fit.
const PAIRS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(topology: Topology, pairs: Option<u16>) -> ShapeOptions {
        ShapeOptions { hook: Hook::Forward, topology, pairs, offloads: Offloads::On }
    }

    fn settle(topology: Topology, pairs: Option<u16>, cpus: &str) -> Result<Shape, String> {
        let allowed = cpus.parse().unwrap();
        Shape::new(&options(topology, pairs), &allowed).map_err(|error| error.to_string())
    }

    #[test]
    fn shared_has_a_pair_on_every_cpu() {
        let shape = settle(Topology::Shared, None, "1,3-4").unwrap();
        assert_eq!((shape.pairs, &shape.load_cpus[..]), (3, &[1, 3, 4][..]));
        assert_eq!(shape.load_cpus, shape.queue_cpus);
        let fewer = settle(Topology::Shared, Some(1), "1,3-4").unwrap();
        assert_eq!((fewer.pairs, fewer.queue_cpus), (1, vec![1]));
        assert_eq!(settle(Topology::Shared, None, "0-99").unwrap().pairs, 32);
    }

    #[test]
    fn split_hands_the_first_half_to_the_second() {
        let shape = settle(Topology::Split, None, "0-4").unwrap();
        assert_eq!((shape.load_cpus, shape.queue_cpus), (vec![0, 1], vec![2, 3]));
        assert!(settle(Topology::Split, None, "2").unwrap_err().contains("may use only 2"));
    }

    #[test]
    fn more_pairs_than_cpus_are_refused() {
        for (topology, pairs) in
            [(Topology::Shared, 5), (Topology::Split, 3), (Topology::Shared, 0)]
        {
            let error = settle(topology, Some(pairs), "0-3").unwrap_err();
            assert!(error.contains(&format!("--pairs {pairs}")), "{error}");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", ".", "..", "a/b", "a b", "a\0", &"x".repeat(33)] {
            assert!(bad.parse::<LabName>().is_err(), "{bad:?}");
        }
        assert_eq!("my-lab_2".parse::<LabName>().unwrap().as_str(), "my-lab_2");
    }
}
