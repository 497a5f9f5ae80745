//! What limits a process to some CPUs, or to a share of them: affinity, cpuset and quota.
//!
//! Invariant: of groups within groups the narrowest counts. Version 2 of control groups is looked at first, then
//! version 1 where it is mounted in the usual place.

use fanq::CpuList;

use super::cpus::{cpu_list, cpus_of_text};
use super::fact::Fact;
use super::root::Root;

/// What a process may use.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The CPUs that its first thread may run on: what its cpuset and whoever started it have left to it.
    pub(crate) affinity: Fact<CpuList>,
    /// Those of its cpuset.
    pub(crate) cpuset: Fact<CpuList>,
    /// How many CPUs' time it may use, 1.5 for one and a half; none is without limit.
    pub(crate) quota: Fact<Option<f64>>,
    /// The control group (of version 2, where it has both), as a path below /sys/fs/cgroup.
    pub(crate) group: Option<String>,
}

impl Limits {
    /// Of a process by its number, or of `self`.
    pub(crate) fn of(root: &Root, process: &str) -> Self {
        let status = root.text(&format!("proc/{process}/status"));
        let affinity = status.and_then(|text| match affinity_in(&text) {
            Some(cpus) => Fact::Known(cpus),
            None => Fact::Unseen(format!("/proc/{process}/status has no Cpus_allowed_list")),
        });
        let groups = root.text(&format!("proc/{process}/cgroup"));
        let path = |controller: &str| {
            let text = groups.known()?;
            text.lines().find_map(|line| path_of(line, controller)).map(str::to_owned)
        };
        let (unified, cpuset_v1, cpu_v1) = (path(""), path("cpuset"), path("cpu"));
        let cpuset_file = |path: &Option<String>, folder: &str, name: &str| match path {
            Some(path) => cpu_list(root, &format!("sys/fs/cgroup{folder}{path}/{name}")),
            None => Fact::Unseen(format!("process {process} is in no control group with cpusets")),
        };
        let cpuset = cpuset_file(&unified, "", "cpuset.cpus.effective")
            .or_else(|| cpuset_file(&cpuset_v1, "/cpuset", "cpuset.effective_cpus"))
            .or_else(|| cpuset_file(&cpuset_v1, "/cpuset", "cpuset.cpus"));
        let quota = match &groups {
            Fact::Unseen(why) => Fact::Unseen(why.clone()),
            Fact::Known(_) => Fact::Known(quota(root, unified.as_deref(), cpu_v1.as_deref())),
        };
        Self { affinity, cpuset, quota, group: unified.or(cpuset_v1) }
    }

    /// The CPUs that it may use, by all that is known.
    pub(crate) fn allowed(&self) -> Fact<CpuList> {
        match (self.affinity.known(), self.cpuset.known()) {
            (Some(affinity), Some(cpuset)) => {
                Fact::Known(affinity.iter().filter(|cpu| cpuset.contains(*cpu)).collect())
            }
            (None, Some(cpuset)) => Fact::Known(cpuset.clone()),
            _ => self.affinity.clone(),
        }
    }
}

/// The line `Cpus_allowed_list` of a status file.
pub(super) fn affinity_in(status: &str) -> Option<CpuList> {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.and_then(cpus_of_text)
}

/// The path of `0::/path` (no controller) or `3:cpu,cpuacct:/path`, without a slash at its end.
fn path_of<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    controllers.split(',').any(|name| name == controller).then(|| path.trim_end_matches('/'))
}

/// The smallest quota from the group up to the root.
fn quota(root: &Root, unified: Option<&str>, version_1: Option<&str>) -> Option<f64> {
    let of_folder = |path: &str| {
        let text = root.text(&format!("sys/fs/cgroup{path}/cpu.max"));
        let (quota, period) = text.known()?.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    };
    let of_folder_v1 = |path: &str| {
        let folder = format!("sys/fs/cgroup/cpu{path}");
        let quota: f64 = *root.value(&format!("{folder}/cpu.cfs_quota_us")).known()?;
        let period: f64 = *root.value(&format!("{folder}/cpu.cfs_period_us")).known()?;
        (quota > 0.0).then(|| quota / period)
    };
    let quotas = unified.into_iter().flat_map(folders_above).filter_map(of_folder);
    let quotas_v1 = version_1.into_iter().flat_map(folders_above).filter_map(of_folder_v1);
    quotas.chain(quotas_v1).reduce(f64::min)
}

/// `/a/b`, `/a` and the root, which is the empty path.
fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[(&str, &str)]) -> Limits {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Limits::of(&Root::new(folder.path()), "7")
    }

    #[test]
    fn the_narrowest_group_counts() {
        let limits = limits(&[
            ("proc/7/status", "Name:\tx\nCpus_allowed_list:\t0-3,8\n"),
            ("proc/7/cgroup", "0::/system.slice/fanq.service\n"),
            ("sys/fs/cgroup/system.slice/fanq.service/cpuset.cpus.effective", "0-1,8-9\n"),
            ("sys/fs/cgroup/system.slice/fanq.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(limits.allowed().known().unwrap().to_string(), "0-1,8");
        assert_eq!(limits.quota, Fact::Known(Some(1.5)));
        assert_eq!(limits.group.as_deref(), Some("/system.slice/fanq.service"));
    }

    #[test]
    fn version_1_is_read_where_version_2_has_nothing() {
        let limits = limits(&[
            ("proc/7/status", "Cpus_allowed_list:\t0-7\n"),
            ("proc/7/cgroup", "3:cpuset:/box\n2:cpu,cpuacct:/box\n0::/\n"),
            ("sys/fs/cgroup/cpuset/box/cpuset.cpus", "2-3\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(limits.allowed().known().unwrap().to_string(), "2-3");
        assert_eq!(limits.quota, Fact::Known(None));
    }

    #[test]
    fn what_cannot_be_read_is_unseen() {
        let limits = limits(&[]);
        assert_eq!(limits.allowed().why_unseen(), Some("/proc/7/status: not there"));
        assert!(limits.quota.why_unseen().is_some());
    }
}
