//! On which CPU the kernel takes up what comes over the lab's pairs: where it was sent, or where it is handed to.
//!
//! Two ways lead to another CPU. Receive packet steering hands packets to that CPU's soft interrupt, which goes before
//! every program there. Threaded NAPI has a device's packets taken up by a thread of the kernel, bound to that CPU,
//! which the scheduler weighs against the programs there (`net/core/dev.c: napi_threaded_poll`).
//!
//! Invariant: only devices of the lab are set, and only threads bound that the kernel made for them just now.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, bail, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::plan::{Link, Place};
use super::programs::run_line;
use super::shape::Shape;
use super::state::processes;
use crate::result::Topology;

/// Hands what arrives over each pair, from either side, to the pair's queue CPU, if the topology says so.
pub(super) fn hand_over(shape: &Shape, links: &[Link]) -> anyhow::Result<()> {
    if shape.topology == Topology::Shared {
        return Ok(());
    }
    // A sysfs shows the devices of the namespace in which it was mounted.
    fs::create_dir(SYSFS).with_context(|| format!("creating {SYSFS}"))?;
    run_line(&format!("mount -t sysfs sysfs {SYSFS}"))?;
    for link in links {
        let cpu = *shape.queue_cpus.get(usize::from(link.number)).context("a pair without CPU")?;
        let is_the_loads = link.other_place == Place::Client;
        if shape.topology == Topology::Threaded && is_the_loads {
            give_a_thread(&link.engine_device(), cpu)?;
        } else {
            steer(&link.engine_device(), cpu, shape.topology)?;
        }
    }
    run_line(&format!("umount {SYSFS}"))?;
    fs::remove_dir(SYSFS).with_context(|| format!("removing {SYSFS}"))
}

fn steer(device: &str, cpu: u16, topology: Topology) -> anyhow::Result<()> {
    let file = format!("{SYSFS}/class/net/{device}/queues/rx-0/rps_cpus");
    let mask = cpu_mask(cpu);
    if let Err(error) = fs::write(&file, &mask) {
        let why = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "only root of the machine may, no user namespace helps"
            }
            Some(libc::EINVAL) => "the CPU may be isolated from the kernel's own work",
            Some(libc::ENOENT) => "the kernel lacks CONFIG_RPS",
            _ => "see above",
        };
        bail!(
            "--topology {topology}: cannot steer packets of {device} to CPU {cpu} by rps_cpus: \
             {error} ({why}); take --topology shared"
        );
    }
    let set = fs::read_to_string(&file).with_context(|| file.clone())?;
    ensure!(same_mask(&set, &mask), "rps_cpus of {device} is {set} after writing {mask}");
    Ok(())
}

/// Has the device's packets taken up by a thread, and binds that.
fn give_a_thread(device: &str, cpu: u16) -> anyhow::Result<()> {
    // Without GRO a veth device has no NAPI (`drivers/net/veth.c: veth_open`).
    run_line(&format!("ethtool -K {device} gro on"))?;
    let file = format!("{SYSFS}/class/net/{device}/threaded");
    let before = threads_of(device);
    fs::write(&file, "1").map_err(|error| {
        let why = if error.kind() == ErrorKind::NotFound { " (Linux before 5.12)" } else { "" };
        anyhow::anyhow!(
            "--topology threaded: the kernel gives {device} no thread of its own: {error}{why}; \
             take --topology split"
        )
    })?;
    let mut new = threads_of(device);
    new.retain(|pid| !before.contains(pid));
    let thread = match Vec::from_iter(new)[..] {
        [thread] => Pid::from_raw(thread).context("a thread without id")?,
        [] => bail!(
            "--topology threaded: the kernel's threads are not to be seen here, so none can be bound to a CPU: \
             run fanq-bench as root and outside of containers and process namespaces, or take --topology split"
        ),
        _ => bail!("--topology threaded: another lab was made at the same time; try again"),
    };
    let mut only = CpuSet::new();
    only.set(usize::from(cpu));
    sched_setaffinity(Some(thread), &only).with_context(|| {
        format!("--topology threaded: binding the kernel's thread of {device} to CPU {cpu}")
    })
}

/// The kernel's threads that are named after the device, on the whole machine.
fn threads_of(device: &str) -> BTreeSet<i32> {
    let beginning = format!("napi/{device}-");
    let is_one = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.starts_with(&beginning) && words.is_empty()
    };
    processes().map(|pid| pid.as_raw_nonzero().get()).filter(is_one).collect()
}

/// One CPU, as groups of 32 bits in hexadecimal, the highest first (`lib/bitmap.c: bitmap_parse`).
fn cpu_mask(cpu: u16) -> String {
    let zeros = ",00000000".repeat(usize::from(cpu / 32));
    format!("{:x}{zeros}", 1_u32 << (cpu % 32))
}

/// The kernel writes leading zeros, for all CPUs that there could be.
fn same_mask(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.trim().replace(',', "").trim_start_matches('0').to_owned();
    digits(one) == digits(other)
}

const SYSFS: &str = "/run/fanq-lab-sysfs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_one_cpu_in_the_kernels_own_groups() {
        assert_eq!(cpu_mask(0), "1");
        assert_eq!(cpu_mask(31), "80000000");
        assert_eq!(cpu_mask(32), "1,00000000");
        assert_eq!(cpu_mask(70), "40,00000000,00000000");
        assert!(same_mask("00000000,00000001,00000000\n", &cpu_mask(32)));
        assert!(!same_mask("00000000,00000002\n", &cpu_mask(32)));
    }
}
