//! On what, with what and against what it was measured.
//!
//! Invariant: enough to run it again: the command, the commit, the rules, the machine. Names no folder, host or
//! user of the machine.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The command and when it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Run {
    /// As typed, programs by their own names only.
    pub(crate) command: String,
    pub(crate) version: String,
    /// The commit of the folder that it was run in, `-dirty` behind it where files differed; empty if that is no
    /// checkout. Whether the program was built from it the document cannot say.
    pub(crate) commit: String,
    /// UTC, RFC 3339.
    pub(crate) began: String,
    pub(crate) seconds: f64,
    /// `smoke`, `standard`, `full`, or empty.
    pub(crate) suite: String,
    /// Whether all that was asked was measured; false after an error or an interruption.
    pub(crate) complete: bool,
    /// How CPU time was measured; none where it was not, and in older results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<CpuMethod>,
}

/// How CPU time was measured. Figures of different methods do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CpuMethod {
    /// Whether each program was started for each trial, alone, instead of all of them at once.
    pub(crate) apart: bool,
    /// Of each sender in one trial.
    pub(crate) packets: u64,
}

/// What it ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Machine {
    /// Release and architecture.
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) governor: Option<String>,
    /// Share of CPU time that the host took from this machine while the run lasted.
    pub(crate) stolen_share: f64,
    pub(crate) mitigations: BTreeMap<String, String>,
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// Where packets are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hook {
    /// From client to server through the engine's namespace.
    Forward,
    /// From client to the engine's own namespace.
    Input,
}

/// Who shares a CPU with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topology {
    /// The load of CPU i fills queue i on CPU i, where its worker runs too.
    Shared,
    /// The load runs on one half of the CPUs; receive packet steering hands it to the others, whose queues fill.
    Split,
    /// As split, but handed over to a thread of the kernel, which shares the queue's CPU with the worker.
    Threaded,
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Split => "split",
            Self::Threaded => "threaded",
        })
    }
}

/// The lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LabSetting {
    pub(crate) hook: Hook,
    pub(crate) topology: Topology,
    pub(crate) pairs: u16,
    pub(crate) offloads: bool,
    /// Queue numbers, such as `0-1`.
    pub(crate) queues: String,
    /// CPUs that make load.
    pub(crate) load_cpus: Vec<u16>,
    /// CPUs that fill the queues.
    pub(crate) queue_cpus: Vec<u16>,
    /// Whether it ran without root, in a user namespace.
    pub(crate) user_namespace: bool,
}

/// What makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadKind {
    /// Frames made in the kernel by a paced BPF program.
    Xdp,
    /// `sendmmsg` of UDP datagrams.
    Udp,
    /// The packets of a capture, from packet sockets.
    Pcap,
}

/// Bytes of a frame, from the Ethernet header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FrameSize {
    Bytes(u16),
    /// 28 of 74, 16 of 570 and 4 of 1518.
    Imix,
}

/// How flows are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlowChoice {
    /// Each as often as any other.
    Uniform,
    /// The n-th as often as 1/n says.
    Zipf,
}

/// When packets are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arrivals {
    /// At equal distances.
    Constant,
    /// With exponentially distributed distances.
    Poisson,
    /// So many at once, and then none until the next burst.
    Burst(u32),
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoadSetting {
    pub(crate) kind: LoadKind,
    pub(crate) frame: FrameSize,
    /// For each sender.
    pub(crate) flows: u32,
    pub(crate) flow_choice: FlowChoice,
    pub(crate) arrivals: Arrivals,
    pub(crate) family: Family,
    /// The share of datagrams that go as two IP fragments each.
    #[serde(default)]
    pub(crate) fragments: f64,
    /// Of a load of kind `pcap`, to which the fields between do not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<CaptureSetting>,
}

/// A capture that was replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CaptureSetting {
    /// The file's own name.
    pub(crate) name: String,
    pub(crate) packets: u64,
    /// From the Ethernet headers on.
    pub(crate) bytes: u64,
    /// From the first packet to the last, as captured.
    pub(crate) seconds: f64,
    /// Records that were no IP.
    pub(crate) left_out: u64,
}

/// A program that serves the queues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TargetSetting {
    /// As given with `--target`.
    pub(crate) name: String,
    /// Its command, programs by their own names only; empty for `none` and `kernel`.
    pub(crate) command: String,
    /// The rules that led to it.
    pub(crate) rules: Vec<String>,
}
