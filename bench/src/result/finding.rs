//! What the trials say: one finding for each target and question.
//!
//! Invariant: a figure drawn from several trials carries its 95 % interval and how many trials stand behind it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The findings of a run, by question. What was not asked is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Findings {
    pub(crate) cpu: Vec<CpuFinding>,
    pub(crate) rates: Vec<RateFinding>,
    pub(crate) curves: Vec<CurveFinding>,
    pub(crate) latencies: Vec<LatencyFinding>,
    pub(crate) tcp: Vec<TcpFinding>,
    #[serde(default)]
    pub(crate) connections: Vec<ConnectionFinding>,
}

/// A median with its bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    /// Lower end of the 95 % interval.
    pub(crate) low: f64,
    /// Upper end of the 95 % interval.
    pub(crate) high: f64,
    /// Trials behind it.
    pub(crate) n: usize,
}

/// CPU time of the target's processes per packet that it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CpuFinding {
    pub(crate) target: String,
    pub(crate) us_per_packet: Estimate,
    /// Over the first target's, paired by round.
    pub(crate) ratio_to_first: Option<Estimate>,
    /// By the program's own account where it has one, of all its trials together, void ones too.
    pub(crate) system_calls_per_packet: Option<f64>,
    /// As above.
    pub(crate) packets_per_receive: Option<f64>,
    /// Of the trials that count, the median.
    pub(crate) lost_share: f64,
}

/// The highest rate that a target bears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RateFinding {
    pub(crate) target: String,
    /// The share of packets that may be lost: 0 or 0.005.
    pub(crate) loss_allowed: f64,
    /// The highest rate borne, in packets a second.
    pub(crate) pps: f64,
    /// The lowest rate not borne; none if even the highest was.
    pub(crate) upper_pps: Option<f64>,
    /// Delivered packets a second at `pps`, measured.
    pub(crate) delivered_pps: f64,
    pub(crate) limited_by: Limit,
    pub(crate) trials: usize,
}

/// What kept a rate from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// Packets were lost.
    Loss,
    /// The generator could not keep to its times.
    Generator,
    /// The search's own highest rate was borne.
    Search,
}

/// Loss against load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CurveFinding {
    pub(crate) target: String,
    /// What share 1 means, in packets a second.
    pub(crate) reference_pps: f64,
    pub(crate) points: Vec<CurvePoint>,
}

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CurvePoint {
    /// Of the reference rate.
    pub(crate) share: f64,
    /// As sent.
    pub(crate) offered_pps: f64,
    pub(crate) delivered_pps: f64,
    pub(crate) lost_share: f64,
    /// Whether the generator kept to its times.
    pub(crate) valid: bool,
}

/// One-way delay at one load, from the time at which a packet was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LatencyFinding {
    pub(crate) target: String,
    pub(crate) offered_pps: f64,
    /// How the load was chosen, such as "1000/s" or "50 % of the slowest loss-free rate".
    pub(crate) load: String,
    pub(crate) lost_share: f64,
    /// Packets measured, all valid trials together.
    pub(crate) count: u64,
    /// Only those with at least ten packets beyond them.
    pub(crate) percentiles: Vec<Percentile>,
    /// Median delay of each trial.
    pub(crate) median_us: Estimate,
}

/// A percentile of the merged histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Percentile {
    /// 50, 90, 99, 99.9, 99.99, or 100 for the greatest.
    pub(crate) percent: f64,
    pub(crate) us: f64,
}

/// Bulk transfer over one TCP connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TcpFinding {
    pub(crate) target: String,
    pub(crate) gso: bool,
    pub(crate) gbit_per_s: Estimate,
}

/// TCP connections one after the other, each with one short request and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConnectionFinding {
    pub(crate) target: String,
    pub(crate) per_second: Estimate,
}
