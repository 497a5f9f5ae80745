//! Which worker runs on which CPU, from the kernel's fanout map.
//!
//! With fanout, CPU `c` fills queue `first + c % count` (`net/netfilter/nft_queue.c: nft_queue_eval`,
//! `net/netfilter/xt_NFQUEUE.c: nfqueue_tg_v3`), by the kernel's CPU number: numbers with holes, or a count that
//! is not the number of CPUs, leave queues that nobody fills, or that several CPUs share.
//!
//! Invariant: a plan names a CPU only if this process may use it. It pins nothing itself.

use std::fmt;

use crate::cpus::{CpuId, CpuList};
use crate::queue_range::QueueRange;

/// Where workers run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// Each on the CPU that fills its queue: the packet is still in that CPU's cache.
    #[default]
    SameCpu,
    /// On these CPUs, in turn.
    Spare(CpuList),
    /// Wherever the scheduler puts them.
    None,
}

/// One worker's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The queue that it serves.
    pub queue: u16,
    /// The CPU to pin it to, if any.
    pub cpu: Option<CpuId>,
    /// The online CPUs that fill the queue, if the rule spreads by CPU.
    pub filled_by: CpuList,
}

/// Every worker's place, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each queue, in the order of the range.
    pub assignments: Vec<Assignment>,
    /// What the operator should know.
    pub warnings: Vec<PlacementWarning>,
}

impl Plan {
    /// Places the workers of `range` on a machine with the CPUs `online`, of which this process may use
    /// `allowed`.
    ///
    /// # Errors
    /// A CPU that the placement needs is not allowed.
    pub fn new(
        range: QueueRange,
        placement: &Placement,
        online: &CpuList,
        allowed: &CpuList,
    ) -> Result<Self, PlacementError> {
        let mut assignments = Vec::with_capacity(usize::from(range.count()));
        let mut warnings = Vec::new();
        for (index, queue) in (0..range.count()).zip(range.iter()) {
            let filled_by: CpuList =
                online.iter().filter(|cpu| cpu.0 % range.count() == index).collect();
            match filled_by.len() {
                0 => warnings.push(PlacementWarning::NeverFilled { queue }),
                1 => {}
                _ => {
                    warnings.push(PlacementWarning::SharedQueue { queue, cpus: filled_by.clone() });
                }
            }
            let cpu = match placement {
                Placement::SameCpu => filling_cpu(queue, &filled_by, allowed)?,
                Placement::Spare(cpus) => Some(spare_cpu(usize::from(index), cpus, allowed)?),
                Placement::None => None,
            };
            assignments.push(Assignment { queue, cpu, filled_by });
        }
        if let Placement::Spare(cpus) = placement
            && cpus.len() < assignments.len()
        {
            let (cpus, workers) = (cpus.clone(), assignments.len());
            warnings.push(PlacementWarning::FewSpareCpus { cpus, workers });
        }
        Ok(Self { assignments, warnings })
    }
}

/// The CPU that fills the queue; of several, the first that is allowed. A queue that nobody fills needs none.
fn filling_cpu(
    queue: u16,
    filled_by: &CpuList,
    allowed: &CpuList,
) -> Result<Option<CpuId>, PlacementError> {
    let usable = filled_by.iter().find(|cpu| allowed.contains(*cpu));
    if usable.is_none() && !filled_by.is_empty() {
        let (filled_by, allowed) = (filled_by.clone(), allowed.clone());
        return Err(PlacementError::FillingCpuNotAllowed { queue, filled_by, allowed });
    }
    Ok(usable)
}

fn spare_cpu(index: usize, cpus: &CpuList, allowed: &CpuList) -> Result<CpuId, PlacementError> {
    let cpu = cpus.iter().cycle().nth(index).ok_or(PlacementError::NoSpareCpus)?;
    if allowed.contains(cpu) {
        Ok(cpu)
    } else {
        Err(PlacementError::SpareCpuNotAllowed { cpu, allowed: allowed.clone() })
    }
}

/// Something odd about a plan that works all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementWarning {
    /// No online CPU has this queue's remainder: with fanout it stays empty.
    NeverFilled {
        /// The queue.
        queue: u16,
    },
    /// More than one CPU fills this queue, so its worker and its lock are shared.
    SharedQueue {
        /// The queue.
        queue: u16,
        /// Those that fill it.
        cpus: CpuList,
    },
    /// Fewer spare CPUs than workers.
    FewSpareCpus {
        /// The spare CPUs.
        cpus: CpuList,
        /// How many workers share them.
        workers: usize,
    },
}

impl fmt::Display for PlacementWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverFilled { queue } => write!(
                f,
                "queue {queue} has no CPU of its own: with fanout no online CPU fills it; use as many queues as CPUs, or no fanout"
            ),
            Self::SharedQueue { queue, cpus } => write!(
                f,
                "queue {queue} is filled by CPUs {cpus}, which share one worker; use as many queues as CPUs"
            ),
            Self::FewSpareCpus { cpus, workers } => {
                write!(f, "{workers} workers share the spare CPUs {cpus}; name one for each")
            }
        }
    }
}

/// Why workers cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The CPU that fills a queue is outside this process's cpuset.
    #[error(
        "queue {queue} is filled by CPU {filled_by}, where this process may not run (allowed: {allowed}); widen its cpuset, or use placement `spare:{allowed}` or `none`"
    )]
    FillingCpuNotAllowed {
        /// The queue.
        queue: u16,
        /// Those that fill it.
        filled_by: CpuList,
        /// The process's affinity mask.
        allowed: CpuList,
    },
    /// A spare CPU is outside this process's cpuset, or not online.
    #[error(
        "spare CPU {cpu} cannot be used: this process may run on {allowed}; name CPUs of those"
    )]
    SpareCpuNotAllowed {
        /// The CPU named.
        cpu: CpuId,
        /// The process's affinity mask.
        allowed: CpuList,
    },
    /// An empty list of spare CPUs.
    #[error("no spare CPU is named: write `spare:` and a list, such as `spare:2-3`")]
    NoSpareCpus,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(
        queues: &str,
        placement: &Placement,
        online: &str,
        allowed: &str,
    ) -> Result<Plan, PlacementError> {
        let list = |text: &str| text.parse::<CpuList>().unwrap();
        Plan::new(queues.parse().unwrap(), placement, &list(online), &list(allowed))
    }

    fn cpus(plan: &Plan) -> Vec<Option<u16>> {
        plan.assignments.iter().map(|a| a.cpu.map(|cpu| cpu.0)).collect()
    }

    #[test]
    fn as_many_queues_as_cpus_gives_each_its_own() {
        let plan = plan("100-103", &Placement::SameCpu, "0-3", "0-3").unwrap();
        assert_eq!(cpus(&plan), [Some(0), Some(1), Some(2), Some(3)]);
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn the_first_queue_number_does_not_matter_to_the_map() {
        // Queue 101 of 101-102 is index 0: CPU 0 fills it, though 101 % 2 is 1.
        let plan = plan("101-102", &Placement::SameCpu, "0-1", "0-1").unwrap();
        assert_eq!(cpus(&plan), [Some(0), Some(1)]);
    }

    #[test]
    fn sparse_cpu_ids_leave_queues_that_nobody_fills() {
        let plan = plan("0-3", &Placement::SameCpu, "0,2,4,6", "0-7").unwrap();
        assert_eq!(cpus(&plan), [Some(0), None, Some(2), None]);
        assert!(plan.warnings.contains(&PlacementWarning::NeverFilled { queue: 1 }));
        let shared = PlacementWarning::SharedQueue { queue: 2, cpus: "2,6".parse().unwrap() };
        assert!(plan.warnings.contains(&shared));
    }

    #[test]
    fn fewer_queues_than_cpus_share_and_say_so() {
        let plan = plan("0-1", &Placement::SameCpu, "0-3", "0-3").unwrap();
        assert_eq!(cpus(&plan), [Some(0), Some(1)]);
        assert_eq!(plan.warnings.len(), 2);
        assert!(plan.warnings[0].to_string().contains("CPUs 0,2"));
    }

    #[test]
    fn a_cpuset_without_the_filling_cpu_is_an_error_that_names_the_remedy() {
        let error = plan("0-1", &Placement::SameCpu, "0-1", "0").unwrap_err();
        assert!(error.to_string().contains("queue 1 is filled by CPU 1"), "{error}");
        assert!(error.to_string().contains("spare:0"), "{error}");
    }

    #[test]
    fn spare_cpus_are_used_in_turn_and_must_be_allowed() {
        let spare = |text: &str| Placement::Spare(text.parse().unwrap());
        let shared = plan("0-3", &spare("2-3"), "0-3", "0-3").unwrap();
        assert_eq!(cpus(&shared), [Some(2), Some(3), Some(2), Some(3)]);
        assert!(matches!(shared.warnings[..], [PlacementWarning::FewSpareCpus { .. }]));
        assert!(plan("0-1", &spare("5"), "0-3", "0-3").is_err());
        let none = Placement::Spare(CpuList::default());
        assert_eq!(plan("0", &none, "0", "0"), Err(PlacementError::NoSpareCpus));
    }

    #[test]
    fn without_placement_nothing_is_pinned() {
        let plan = plan("0-1", &Placement::None, "0-1", "0").unwrap();
        assert_eq!(cpus(&plan), [None, None]);
    }
}
