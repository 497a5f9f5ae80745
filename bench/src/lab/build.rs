//! Builds a lab in the network and mount namespace that this process is in.
//!
//! Invariant: everything made here lies in namespaces that go with their last process: devices and addresses in
//! network namespaces, files in a tmpfs on /run of the private mount namespace. So there is nothing to take back
//! after a failure half way through.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::inside::Lab;
use super::plan::{self, Link, Place};
use super::programs::{program, run, run_line};
use super::shape::{Offloads, Shape};
use crate::result::Topology;

/// Where the lab's own mount namespace keeps what the lab is.
const SHAPE_FILE: &str = "/run/fanq-lab.json";

/// Builds the lab, and leaves its description for those who enter later.
pub(crate) fn build(shape: &Shape) -> anyhow::Result<Lab> {
    run_line("mount -t tmpfs -o mode=755 tmpfs /run")?;
    for place in Place::all(shape.hook).iter().filter(|place| **place != Place::Engine) {
        run_line(&format!("ip netns add {}", place.name()))?;
    }
    let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    for &place in Place::all(shape.hook) {
        let settings = plan::sysctls(place, shape.hook, ipv6);
        place.visit(|| {
            set(place, &settings)?;
            run_line("ip link set lo up")
        })??;
    }
    for (place, lines) in plan::batches(shape, ipv6) {
        configure(place, &lines)?;
    }
    for &place in Place::all(shape.hook) {
        place.visit(|| set(place, &plan::late_sysctls(place, shape.hook, ipv6)))??;
    }
    let links = plan::links(shape);
    if shape.offloads == Offloads::Off {
        for link in &links {
            offloads_off(Place::Engine, &link.engine_device())?;
            offloads_off(link.other_place, &link.other_device())?;
        }
    }
    if shape.topology == Topology::Split {
        steer(shape, &links)?;
    }
    let text = serde_json::to_string(shape)?;
    fs::write(SHAPE_FILE, text).with_context(|| format!("writing {SHAPE_FILE}"))?;
    Lab::assemble(shape.clone())
}

/// The lab that was built where this process is now.
pub(crate) fn find() -> anyhow::Result<Lab> {
    let text = fs::read_to_string(SHAPE_FILE)
        .with_context(|| format!("no lab is here: reading {SHAPE_FILE}"))?;
    Lab::assemble(serde_json::from_str(&text).with_context(|| SHAPE_FILE.to_owned())?)
}

fn set(place: Place, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value)
            .with_context(|| format!("setting {path} in the {}'s namespace", place.name()))?;
    }
    Ok(())
}

fn configure(place: Place, lines: &[String]) -> anyhow::Result<()> {
    let mut command = program("ip");
    if place != Place::Engine {
        command.args(["-n", place.name()]);
    }
    command.args(["-batch", "-"]);
    let input = lines.join("\n") + "\n";
    let Err(error) = run(command, &input) else { return Ok(()) };
    // ip names the line only by its number: `Command failed -:7`.
    let text = error.to_string();
    let number = text.rsplit_once("-:").and_then(|(_, number)| number.trim().parse::<usize>().ok());
    let line = number.and_then(|number| lines.get(number.checked_sub(1)?));
    let what = line.map_or("configuring devices", String::as_str);
    Err(error.context(format!("in the {}'s namespace: ip {what}", place.name())))
}

/// Turns off what would let packets pass that no wire ever carried, and checks that it is off.
fn offloads_off(place: Place, device: &str) -> anyhow::Result<()> {
    let words = ["gro", "gso", "tso", "tx", "rx", "sg"].map(|feature| format!("{feature} off"));
    let shown = place.visit(|| {
        run_line(&format!("ethtool -K {device} {}", words.join(" ")))?;
        run_line(&format!("ethtool -k {device}"))
    })??;
    for feature in OFFLOADS {
        let line = shown.lines().find_map(|line| line.strip_prefix(feature)?.strip_prefix(": "));
        ensure!(
            line.is_some_and(|state| state.starts_with("off")),
            "{feature} of {device} cannot be turned off ({}); take --offloads on",
            line.unwrap_or("ethtool does not show it")
        );
    }
    Ok(())
}

/// Hands what arrives over a pair, from either side, to the pair's queue CPU.
fn steer(shape: &Shape, links: &[Link]) -> anyhow::Result<()> {
    // A sysfs shows the devices of the namespace in which it was mounted.
    fs::create_dir(SYSFS).with_context(|| format!("creating {SYSFS}"))?;
    run_line(&format!("mount -t sysfs sysfs {SYSFS}"))?;
    for link in links {
        let cpu = shape.queue_cpus.get(usize::from(link.number)).context("a pair without CPU")?;
        let device = link.engine_device();
        let file = format!("{SYSFS}/class/net/{device}/queues/rx-0/rps_cpus");
        let mask = cpu_mask(*cpu);
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
                "--topology split: cannot steer packets of {device} to CPU {cpu} by rps_cpus: \
                 {error} ({why}); take --topology shared"
            );
        }
        let set = fs::read_to_string(&file).with_context(|| file.clone())?;
        ensure!(same_mask(&set, &mask), "rps_cpus of {device} is {set} after writing {mask}");
    }
    run_line(&format!("umount {SYSFS}"))?;
    fs::remove_dir(SYSFS).with_context(|| format!("removing {SYSFS}"))
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

/// Beginnings of ethtool's lines.
const OFFLOADS: [&str; 5] = [
    "rx-checksumming",
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
];

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
