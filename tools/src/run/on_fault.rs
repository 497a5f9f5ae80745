//! The options for an inspector that fails, and for what is left at the end.
//!
//! Invariant: packets that nobody judged are dropped unless the operator says otherwise. A deadline that was asked for
//! is kept or stops the start; the usual one is a warning where it cannot be.

use std::time::Duration;

use clap::ValueEnum;
use fanq::{Fate, FaultConfig, InspectDeadline};
use serde::Deserialize;

use crate::usage;

/// What becomes of packets that nobody judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FateOption {
    Drop,
    Accept,
}

impl From<FateOption> for Fate {
    fn from(option: FateOption) -> Self {
        match option {
            FateOption::Drop => Self::Drop,
            FateOption::Accept => Self::Accept,
        }
    }
}

/// What the engine is to do about inspectors that fail.
pub(super) fn fault(
    on_fault: Option<FateOption>,
    panics_max: Option<u32>,
    deadline: Option<f64>,
) -> anyhow::Result<FaultConfig> {
    let usual = FaultConfig::default();
    Ok(FaultConfig {
        on_fault: on_fault.map_or(usual.on_fault, Fate::from),
        panics_max: panics_max.unwrap_or(usual.panics_max),
        deadline: match deadline {
            None => Some(InspectDeadline { limit: USUAL_DEADLINE, required: false }),
            Some(0.0) => None,
            Some(seconds) if (0.01..=3600.0).contains(&seconds) => {
                Some(InspectDeadline { limit: Duration::from_secs_f64(seconds), required: true })
            }
            Some(other) => {
                return Err(usage(format!(
                    "inspect-deadline {other} is out of range: 0.01 to 3600 seconds, or 0 for none"
                )));
            }
        },
    })
}

/// Longer than any batch takes that still makes sense in line, short enough for those who wait for the network.
const USUAL_DEADLINE: Duration = Duration::from_secs(1);
