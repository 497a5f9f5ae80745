//! The bench's result document, as far as a choice is drawn from it.
//!
//! Invariant: a document of another format is refused; fields that are not needed are kept as they are, for the
//! evidence.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use super::bench::Ended;

/// A result.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// As the bench wrote it.
    pub(super) whole: Value,
    pub(super) trials: Vec<Trial>,
    pub(super) cpu: Vec<CpuFinding>,
    pub(super) ended: Ended,
}

/// One trial.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Trial {
    pub(super) target: String,
    pub(super) round: usize,
    /// From the first packet to the last.
    pub(super) seconds: f64,
    /// Why it does not count.
    pub(super) void: Option<String>,
    account: Account,
    cpu: Option<CpuUse>,
}

#[derive(Debug, Clone, Deserialize)]
struct Account {
    offered: u64,
    delivered: u64,
    policy_drops: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct CpuUse {
    us: f64,
    answered: u64,
}

/// What the trials of a target say together.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CpuFinding {
    pub(super) target: String,
    pub(super) us_per_packet: Estimate,
    /// Over the first target's.
    pub(super) ratio_to_first: Option<Estimate>,
    pub(super) lost_share: f64,
}

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Trial {
    /// CPU time per packet in microseconds, if the trial counts.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(super) fn cost(&self) -> Option<f64> {
        let cpu = self.cpu.as_ref().filter(|cpu| self.void.is_none() && cpu.answered > 0)?;
        Some(cpu.us / cpu.answered as f64)
    }

    /// Packets neither delivered nor dropped by the verdict.
    pub(super) fn lost(&self) -> u64 {
        let Account { offered, delivered, policy_drops } = self.account;
        offered.saturating_sub(delivered + policy_drops)
    }
}

impl Document {
    pub(super) fn parse(text: &str, ended: Ended) -> anyhow::Result<Self> {
        let whole: Value = serde_json::from_str(text).context("it is no JSON")?;
        match whole["schema"].as_str() {
            Some(SCHEMA) => {}
            other => bail!(
                "its schema is {other:?}, this fanq reads {SCHEMA:?}: build both from one source"
            ),
        }
        let part = |value: &Value| value.clone();
        let trials = serde_json::from_value(part(&whole["trials"])).context("its trials")?;
        let cpu =
            serde_json::from_value(part(&whole["findings"]["cpu"])).context("its findings")?;
        Ok(Self { whole, trials, cpu, ended })
    }

    /// A value of the document as a word, `?` where it has none.
    pub(super) fn word(&self, pointer: &str) -> String {
        match self.whole.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "?".to_owned(),
        }
    }
}

/// As in bench/src/result/mod.rs.
const SCHEMA: &str = "fanq.bench/1";
