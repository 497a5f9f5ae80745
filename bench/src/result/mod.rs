//! What a run leaves behind: one JSON document with everything that was measured, and on what.
//!
//! Invariant: findings can be drawn again from the trials beside them, so a reader need not trust them; a trial that
//! is void stays in the document with its reason. Fields are only ever added under one [`SCHEMA`]; a change of
//! meaning takes a new number. `docs/bench-result.schema.json` is made from these types.

mod finding;
mod setting;
mod trial;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(crate) use finding::{
    ConnectionFinding, CpuFinding, CurveFinding, CurvePoint, Estimate, Findings, LatencyFinding,
    Limit, Percentile, RateFinding, TcpFinding,
};
pub(crate) use setting::{
    Arrivals, CaptureSetting, CpuMethod, Family, FlowChoice, FrameSize, Hook, LabSetting, LoadKind,
    LoadSetting, Machine, Run, TargetSetting, Topology,
};
pub(crate) use trial::{Account, Bucket, CpuUse, QueueShare, Trial};

/// The name and version of the format.
pub(crate) const SCHEMA: &str = "fanq.bench/1";

/// The whole result of one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Document {
    /// `fanq.bench/1`.
    pub(crate) schema: String,
    pub(crate) run: Run,
    pub(crate) machine: Machine,
    pub(crate) lab: LabSetting,
    pub(crate) load: LoadSetting,
    /// In the order given; the first is the one that others are compared with.
    pub(crate) targets: Vec<TargetSetting>,
    pub(crate) findings: Findings,
    pub(crate) trials: Vec<Trial>,
}

impl Document {
    /// Reads a document, and refuses one of another format by name.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not JSON; give a file that --out wrote"))?;
        match value["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) => bail!("{shown} has schema {other}; this version reads {SCHEMA}"),
            None => bail!("{shown} names no schema; give a file that --out wrote"),
        }
        serde_json::from_value(value).with_context(|| format!("{shown} does not keep to {SCHEMA}"))
    }

    /// Writes it whole or not at all: beside its place first, then there.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let beside = path.with_extension("json.part");
        let shown = path.display();
        let text = serde_json::to_string(self)? + "\n";
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, path))
            .with_context(|| format!("writing {shown}"))
    }
}
