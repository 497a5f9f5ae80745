//! Which inspectors the policy asks for, and the engine prepared with them: each kind is an engine of its own, without
//! dynamic dispatch.
//!
//! Invariant: each thread that inspects has a slot of its own for its rules, by its number: the same one when its
//! inspector is made anew after a panic. Queues that were taken back are served by the rules that were in force: no
//! file is read for that.

use fanq::{PreparedEngine, WorkerInfo};

use super::options::RunOptions;
use super::start;
use crate::eve::EveLog;
use crate::inspector::{PolicyControl, RuleInspector, SharedPolicy};
use crate::policy::{PolicyChoice, PolicyInspector};

/// Prepares the engine with the inspectors that the policy needs. `control` is none at the first start; where there are
/// rules, it is theirs from then on.
pub(super) fn prepare(
    options: &RunOptions,
    log: Option<&EveLog>,
    control: &mut Option<SharedPolicy>,
) -> anyhow::Result<PreparedEngine> {
    let path = match &options.policy {
        PolicyChoice::Plain(policy) => {
            let (policy, work_ns) = (*policy, options.work_ns);
            let make = move |_worker, _lane| PolicyInspector::new(policy, work_ns);
            return Ok(start::prepare(options, make)?);
        }
        PolicyChoice::Rules(path) => path,
    };
    let lanes = options.inspect_threads.max(1);
    let control = if let Some(control) = control {
        control.lock().start_again(log);
        control
    } else {
        let workers = usize::from(options.engine.queues.count()) * lanes;
        control.insert(SharedPolicy::new(PolicyControl::start(path, workers, log)?))
    };
    Ok(start::prepare(options, rule_inspectors(control, lanes))?)
}

/// Makes the inspector of a worker's lane.
fn rule_inspectors(
    control: &SharedPolicy,
    lanes: usize,
) -> impl Fn(WorkerInfo, usize) -> RuleInspector + Send + Sync + 'static {
    let handover = control.lock().handover();
    move |worker, lane| {
        let index = usize::from(worker.index) * lanes + lane;
        RuleInspector::new(index, std::sync::Arc::clone(&handover))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_panic_each_lane_has_its_own_slot_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        std::fs::write(&path, "[[rule]]\nname = 'all'\naction = 'drop'\n").unwrap();
        let (queues, lanes) = (2, 4);
        let control = PolicyControl::start(&path, queues * lanes, None).unwrap();
        let make = rule_inspectors(&SharedPolicy::new(control), lanes);
        let workers = [0, 1].map(|index| WorkerInfo { queue: 8 + index, index, cpu: None });
        let places = workers.iter().flat_map(|worker| (0..lanes).map(|lane| (*worker, lane)));
        let places: Vec<_> = places.collect();
        let mut inspectors: Vec<_> =
            places.iter().map(|(worker, lane)| Some(make(*worker, *lane))).collect();
        for place in [6, 2, 6, 0, 7] {
            // The one that panicked is gone before the next one is made.
            inspectors[place] = None;
            let (worker, lane) = places[place];
            inspectors[place] = Some(make(worker, lane));
        }
    }
}
