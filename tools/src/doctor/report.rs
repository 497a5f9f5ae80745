//! All that doctor has to say, as one value: for people, for scripts, and as an exit status.
//!
//! Invariant: the JSON object's shape is that of docs/DOCTOR.md; whoever changes it changes [`SCHEMA`].

use serde::Serialize;

use super::finding::{Finding, Group, Status};
use super::posture::Case;

/// Name and version of the JSON object's shape.
const SCHEMA: &str = "fanq-doctor/1";

/// The whole account.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    /// The version of fanq that looked.
    pub(super) fanq: &'static str,
    /// The worst status of all checks, unseen ones apart.
    pub(super) status: Status,
    pub(super) counts: Counts,
    pub(super) checks: Vec<Check>,
    /// What becomes of packets when something fails; empty where no rule queues any.
    pub(super) posture: Vec<Case>,
}

/// A finding, and the group that it stands in.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) group: Group,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) ok: usize,
    pub(super) warn: usize,
    pub(super) fail: usize,
    pub(super) unseen: usize,
}

impl Report {
    pub(super) fn new(groups: Vec<(Group, Vec<Finding>)>, posture: Vec<Case>) -> Self {
        let check = |(group, findings): (Group, Vec<Finding>)| {
            findings.into_iter().map(move |finding| Check { group, finding })
        };
        let checks: Vec<_> = groups.into_iter().flat_map(check).collect();
        let mut counts = Counts::default();
        for check in &checks {
            *match check.finding.status {
                Status::Ok => &mut counts.ok,
                Status::Unseen => &mut counts.unseen,
                Status::Warn => &mut counts.warn,
                Status::Fail => &mut counts.fail,
            } += 1;
        }
        let status = match counts {
            Counts { fail: 1.., .. } => Status::Fail,
            Counts { warn: 1.., .. } => Status::Warn,
            _ => Status::Ok,
        };
        let fanq = env!("CARGO_PKG_VERSION");
        Self { schema: SCHEMA, fanq, status, counts, checks, posture }
    }

    /// The findings by their groups, in order.
    pub(super) fn groups(&self) -> Vec<(Group, Vec<&Finding>)> {
        let mut groups: Vec<(Group, Vec<&Finding>)> = Vec::new();
        for check in &self.checks {
            match groups.last_mut() {
                Some((group, findings)) if *group == check.group => findings.push(&check.finding),
                _ => groups.push((check.group, vec![&check.finding])),
            }
        }
        groups
    }

    /// 0 all is well, 1 there are warnings, 2 there are failures.
    pub(super) const fn exit_status(&self) -> u8 {
        match self.status {
            Status::Ok | Status::Unseen => 0,
            Status::Warn => 1,
            Status::Fail => 2,
        }
    }

    /// What it comes to.
    pub(super) fn last_line(&self) -> String {
        let Counts { ok, warn, fail, unseen } = self.counts;
        let first = |status| {
            let mut checks = self.checks.iter().filter(|check| check.finding.status == status);
            checks
                .next()
                .map_or_else(String::new, |check| format!("; begin with {}", check.finding.id))
        };
        let words = match self.status {
            Status::Fail => first(Status::Fail),
            Status::Warn => first(Status::Warn),
            _ if unseen > 0 => "; nothing wrong where it could be seen".to_owned(),
            _ => "; nothing wrong".to_owned(),
        };
        format!("doctor: {fail} FAIL, {warn} WARN, {unseen} UNSEEN, {ok} OK{words}")
    }
}
