//! One network card: how many queues it has, how many packets it holds, and which CPUs go on with them.
//!
//! Invariant: what new queues would bring along (their interrupts and masks) is planned only once they are there. A
//! device that is no hardware gets receive packet steering, if it was named, and nothing else.

use fanq::{CpuId, CpuList};

use super::{Draft, spread};
use crate::machine::{Bounded, Device, Fact, Machine, Spreading};
use crate::tune::setting::{Setting, Table, check_device};

/// Plans one device; says whether packets are handed from CPU to CPU when that is done.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    machine: &Machine,
    device: &Device,
    workers: &CpuList,
    online: &CpuList,
) -> bool {
    if check_device(&device.name).is_err() {
        draft.note(format!("{:?} is left alone: its name cannot be typed safely", device.name));
        return false;
    }
    let near = near_cpus(machine, device, workers);
    if !device.hardware {
        draft.note(format!(
            "{} is no hardware: it has no rings, channels or interrupts of its own, and on it each packet stays on \
             the CPU that sent it unless RPS hands it on",
            device.name
        ));
        return spread::steer(draft, device, &near);
    }
    rings(draft, device);
    let more_queues = channels(draft, device, &near);
    hints(draft, device);
    if more_queues {
        draft.note(format!(
            "{0}: its interrupts, RPS and XPS are planned once it has its new queues; after `fanq tune apply` type it \
             once more. What these are set to now goes with the change, and `fanq tune revert` does not bring it back; \
             RPS and XPS are shown by: grep . /sys/class/net/{0}/queues/*/?ps_cpus",
            device.name
        ));
        return false;
    }
    spread::interrupts(draft, device, &near);
    spread::senders(draft, device, online);
    spread::steer(draft, device, &near)
}

/// The workers' CPUs on the card's node; all of them where none is there, or nobody knows.
fn near_cpus(machine: &Machine, device: &Device, workers: &CpuList) -> CpuList {
    let on_node = |cpu: &CpuId| device.node.is_some() && machine.cpus.node_of(*cpu) == device.node;
    let near: CpuList = workers.iter().filter(on_node).collect();
    if near.is_empty() { workers.clone() } else { near }
}

fn rings(draft: &mut Draft<'_>, device: &Device) {
    let rings = match &device.rings {
        Fact::Known(Some(rings)) => rings,
        Fact::Known(None) => return,
        Fact::Unseen(why) => {
            return draft.note(format!("{}: its rings were not looked at: {why}", device.name));
        }
    };
    let Bounded { now: Some(now), max: Some(max) } = rings.rx else { return };
    if now < max {
        draft.propose(
            ethtool(device, Table::Rings, "rx"),
            &max.to_string(),
            || {
                format!(
                    "{} holds {now} packets for a CPU that is busy with a worker's turn, and can hold {max}; what \
                     does not fit is lost before any queue counts it",
                    device.name
                )
            },
            "memory, more of the cache, longer waits under overload; many cards drop what is in them at the change",
        );
    }
}

/// As many queues as there are workers near the card. Says whether that is a change.
fn channels(draft: &mut Draft<'_>, device: &Device, near: &CpuList) -> bool {
    let channels = match &device.channels {
        Fact::Known(Some(channels)) => channels,
        Fact::Known(None) => return false,
        Fact::Unseen(why) => {
            draft.note(format!("{}: its channels were not looked at: {why}", device.name));
            return false;
        }
    };
    let (key, bounded) = match (channels.combined, channels.rx) {
        (combined @ Bounded { max: Some(1..), .. }, _) => ("combined", combined),
        (_, rx) => ("rx", rx),
    };
    let Bounded { now: Some(now), max: Some(max) } = bounded else { return false };
    let wanted = u32::try_from(near.len()).unwrap_or(u32::MAX).min(max);
    if wanted == 0 || wanted == now {
        return false;
    }
    let reason = || {
        let (workers, name) = (near.len(), &device.name);
        if now < wanted {
            format!("{name} hands all packets to {now} CPUs, where {workers} near it have a worker")
        } else {
            format!(
                "{name} has {now} queues for {workers} CPUs with a worker near it: some CPU gets several"
            )
        }
    };
    draft.propose(
        ethtool(device, Table::Channels, key),
        &wanted.to_string(),
        reason,
        "the card starts anew: packets are lost for a moment, and its interrupts, RPS and XPS are as made, which no \
         revert undoes",
    )
}

fn ethtool(device: &Device, table: Table, key: &str) -> Setting {
    Setting::Ethtool { device: device.name.clone(), table, key: key.to_owned() }
}

/// What changes what packets look like, or begins threads to be bound, is a person's to decide.
fn hints(draft: &mut Draft<'_>, device: &Device) {
    let Device { name, .. } = device;
    if let Fact::Known(features) = &device.features {
        let is = |feature: &str, on: bool| {
            features.get(feature).is_some_and(|feature| feature.on == on && !feature.fixed)
        };
        if is("generic-receive-offload", false) {
            draft.note(format!(
                "{name}: GRO is off, so a queue gets each TCP segment by itself. With `fanq run --gso` a program that \
                 takes large packets gets them whole: ethtool -K {name} gro on"
            ));
        }
        if is("large-receive-offload", true) {
            draft.note(format!(
                "{name}: LRO is on, whose packets cannot be sent on as they came; GRO does the same and can be undone: \
                 ethtool -K {name} lro off"
            ));
        }
    }
    if device.threaded == Fact::Known(false) {
        draft.note(format!(
            "{name}: soft interrupts take its packets up, before any worker of that CPU runs: beyond what workers \
             bear, more load means fewer packets. Threads of the kernel can do it, behind workers at a niceness below \
             0: echo 1 >/sys/class/net/{name}/threaded, then each of `pgrep '^napi/{name}-'` to its interrupt's CPU by \
             taskset -pc (docs/TUNING.md, Threaded NAPI)"
        ));
    }
    let spreading = device.spreading.known().and_then(Option::as_ref);
    if device.rx_queues.len() > 1 && spreading.and_then(Spreading::is_symmetric) == Some(false) {
        // Repeats every 16 bits, for cards with a key of 40 bytes.
        let key = ["6d:5a"; 20].join(":");
        draft.note(format!(
            "{name}: the two directions of a connection come to different CPUs, so to different workers. If yours \
             need both: ethtool -X {name} xfrm symmetric-xor (newer cards and kernels), or a key that repeats: \
             ethtool -X {name} hkey {key}"
        ));
    }
}
