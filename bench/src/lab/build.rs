//! Builds a lab in the network and mount namespace that this process is in.
//!
//! Invariant: everything made here lies in namespaces that go with their last process: devices and addresses in
//! network namespaces, files in a tmpfs on /run of the private mount namespace. So there is nothing to take back
//! after a failure half way through.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::cpus;
use super::inside::Lab;
use super::plan::{self, Place};
use super::programs::{program, run, run_line};
use super::shape::{Offloads, Shape};

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
    cpus::hand_over(shape, &links)?;
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

/// Beginnings of ethtool's lines.
const OFFLOADS: [&str; 5] = [
    "rx-checksumming",
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
];
