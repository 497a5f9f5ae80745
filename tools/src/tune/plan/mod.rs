//! What to change on this machine, from its facts: only what differs from now, each with its reason and its cost.
//!
//! Invariant: it changes nothing. What could not be seen, cannot be set from here, or is better done by a person,
//! becomes a note; nothing is guessed.

mod device;
mod kernel;
mod spread;

use fanq::{CpuId, CpuList, QueueRange};

use super::change::Change;
use super::knobs::{KnobError, Knobs};
use super::setting::Setting;
use crate::machine::{Fact, Machine};

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) queues: QueueRange,
    /// Bytes of each queue's socket buffer.
    pub(crate) rcvbuf: u32,
    /// Packets that wait in one queue.
    pub(crate) maxlen: u32,
}

/// Changes and notes, in the order in which they are to be made and read.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Makes the plan of a machine that was read.
    pub(crate) fn of(machine: &Machine, knobs: &dyn Knobs, target: Target) -> Self {
        let mut draft = Draft { knobs, plan: Self::default() };
        let Fact::Known(online) = &machine.cpus.online else {
            let why = machine.cpus.online.why_unseen().unwrap_or_default();
            draft.note(format!(
                "which CPUs are online is not known ({why}); only sysctls are planned"
            ));
            kernel::plan(&mut draft, machine, target, false);
            return draft.plan;
        };
        let cpus = worker_cpus(target.queues, online);
        let mut steered = false;
        match &machine.devices {
            Fact::Known(devices) => {
                for device in devices {
                    steered |= device::plan(&mut draft, machine, device, &cpus, online);
                }
            }
            Fact::Unseen(why) => draft.note(format!("network devices were not looked at: {why}")),
        }
        spread::note_irqbalance(&mut draft, machine);
        kernel::plan(&mut draft, machine, target, steered);
        for cpu in cpus.iter() {
            draft.propose(
                Setting::Governor { cpu: cpu.0 },
                "performance",
                || {
                    "a packet that comes after a pause is not worked on at the lowest frequency until the \
                     governor has noticed"
                        .to_owned()
                },
                "more power and heat while little is to do",
            );
        }
        draft.plan
    }
}

/// The CPUs on which the workers of these queues run: for each queue the first online CPU that fills it.
fn worker_cpus(queues: QueueRange, online: &CpuList) -> CpuList {
    let filled_by = |index: u16| {
        let fills = |cpu: &CpuId| cpu.0 % queues.count() == index;
        online.iter().find(fills)
    };
    (0..queues.count()).filter_map(filled_by).collect()
}

/// A plan being made.
struct Draft<'a> {
    knobs: &'a dyn Knobs,
    plan: Plan,
}

impl Draft<'_> {
    /// Adds a change, unless the machine has no such setting or has that value now. Says whether it is to be changed.
    fn propose(
        &mut self,
        setting: Setting,
        new: &str,
        reason: impl FnOnce() -> String,
        cost: &'static str,
    ) -> bool {
        if setting.check().is_err() {
            return false;
        }
        let old = match self.knobs.read(&setting) {
            Ok(old) => old,
            Err(KnobError::Gone { .. }) => return false,
            Err(error) => {
                self.note(format!("{} is left as it is: {error}", setting.id()));
                return false;
            }
        };
        if setting.same(&old, new) {
            return false;
        }
        if !self.knobs.is_settable(&setting) {
            self.note(format!(
                "{} is {}, and only the machine's first network namespace can set it; there: {}",
                setting.id(),
                old.trim(),
                setting.command(new)
            ));
            return false;
        }
        let reason = reason();
        self.plan.changes.push(Change { setting, old, new: new.to_owned(), reason, cost });
        true
    }

    fn note(&mut self, note: String) {
        if !self.plan.notes.contains(&note) {
            self.plan.notes.push(note);
        }
    }

    /// A kernel parameter that is to be at least so much.
    fn at_least(
        &mut self,
        name: &str,
        least: u64,
        reason: impl FnOnce(u64) -> String,
        cost: &'static str,
    ) {
        let setting = Setting::Sysctl { name: name.to_owned() };
        let now = self.knobs.read(&setting).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(now) = now.filter(|now| *now < least) {
            self.propose(setting, &least.to_string(), || reason(now), cost);
        }
    }
}

#[cfg(test)]
mod tests;
