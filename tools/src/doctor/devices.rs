//! The devices: whether what they receive comes to as many CPUs as there are queues, and is not lost before.
//!
//! Invariant: judged only where something is queued, asked for, or a device was named. What a device does not have (a
//! veth's rings) is no fault of it.

use super::device_steering as steering;
use super::finding::{Finding, Topic};
use super::view::View;
use crate::machine::{Bounded, Device, Fact};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 4] = [PRESENT, RINGS, GRO, LRO];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let mut found = missing(view);
    let devices: Vec<_> = view.machine.devices().collect();
    if let Some(why) = view.machine.devices.why_unseen() {
        found.push(PRESENT.unseen("the devices are not known").seen(why));
    } else if devices.is_empty() {
        found.push(PRESENT.ok("no device on a bus is up; name others with --dev"));
    }
    if !view.in_use() && !view.devices_named {
        if !devices.is_empty() {
            let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
            found.push(PRESENT.ok(format!("{}: not judged, nothing is queued", names.join(", "))));
        }
        return found;
    }
    for device in &devices {
        found.push(present(device).of(&device.name));
        if device.hardware {
            let all = [rings(device), gro(device), lro(device)];
            found.extend(all.into_iter().map(|finding| finding.of(&device.name)));
            found.extend(steering::check(view, device));
        }
    }
    if devices.iter().any(|device| device.hardware) {
        found.push(steering::irqbalance(view));
    }
    found
}

const PRESENT: Topic = Topic { id: "device-present", why: "packets come in through it" };

fn missing(view: &View<'_>) -> Vec<Finding> {
    let not_there = |name: &String| {
        PRESENT
            .fail("there is no such device here")
            .of(name)
            .mend("ip link   # shows those there are")
    };
    view.machine.devices_missing.iter().map(not_there).collect()
}

fn present(device: &Device) -> Finding {
    let state = device.state.known().map_or("unknown", String::as_str);
    if state == "down" {
        let name = &device.name;
        return PRESENT.warn("it is down").mend(format!("ip link set {name} up"));
    }
    let kind = match (&device.driver, device.hardware) {
        (Some(driver), _) => format!("driver {driver}"),
        (None, true) => "driver unknown".to_owned(),
        (None, false) => "virtual: it has no queues, rings or interrupts to set".to_owned(),
    };
    let mtu = device.mtu.known().map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
    let node = device.node.map_or_else(String::new, |node| format!(", node {node}"));
    let queues =
        format!(", {} rx and {} tx queues", device.rx_queues.len(), device.tx_queues.len());
    PRESENT.ok(format!("{kind}{mtu}{queues}{node}"))
}

const RINGS: Topic = Topic {
    id: "device-rings",
    why: "a burst that does not fit the ring is lost before any rule sees it",
};

fn rings(device: &Device) -> Finding {
    let rings = match &device.rings {
        Fact::Known(Some(rings)) => rings,
        Fact::Known(None) => return RINGS.ok("it has no rings to set"),
        Fact::Unseen(why) => return RINGS.unseen("its rings are not known").seen(why),
    };
    let Bounded { now: Some(now), max } = rings.rx else {
        return RINGS.ok("it has no receive ring to set");
    };
    let wanted = RING_PACKETS.min(max.unwrap_or(now));
    if now >= wanted {
        return RINGS.ok(format!("{now} packets a receive ring"));
    }
    RINGS
        .warn(format!("{now} packets a receive ring, where it could have more"))
        .seen(format!("at most {}", max.unwrap_or(now)))
        .mend(format!("ethtool -G {} rx {wanted}", device.name))
}

/// A millisecond of small packets at a million a second.
const RING_PACKETS: u32 = 1024;

const GRO: Topic = Topic {
    id: "device-gro",
    why: "without it each packet of a bulk transfer is queued by itself",
};

fn gro(device: &Device) -> Finding {
    let features = match &device.features {
        Fact::Known(features) => features,
        Fact::Unseen(why) => return GRO.unseen("its features are not known").seen(why),
    };
    match features.get("generic-receive-offload") {
        Some(feature) if !feature.on => GRO
            .warn("packets are not joined (GRO is off)")
            .mend(format!("ethtool -K {} gro on   # and: fanq run --gso", device.name)),
        Some(_) => GRO.ok("packets are joined where they belong together"),
        None => GRO.ok("it has no GRO to set"),
    }
}

const LRO: Topic = Topic {
    id: "device-lro",
    why: "what LRO has joined cannot be parted as it was: forwarded packets break",
};

fn lro(device: &Device) -> Finding {
    let features = device.features.known();
    match features.and_then(|features| features.get("large-receive-offload")) {
        Some(feature) if feature.on => {
            LRO.warn("LRO is on").mend(format!("ethtool -K {} lro off", device.name))
        }
        Some(_) => LRO.ok("LRO is off"),
        None if features.is_none() => LRO.unseen("its features are not known"),
        None => LRO.ok("it has no LRO"),
    }
}
