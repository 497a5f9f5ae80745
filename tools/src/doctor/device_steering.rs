//! Which CPU a device's packets come to: queues, hash, interrupts, RPS, XPS, node.
//!
//! Invariant: a device with fewer queues than there are CPUs is judged by what it could have, and by whether the kernel
//! spreads for it (RPS).

use std::collections::BTreeMap;

use fanq::CpuList;

use super::finding::{Finding, Topic};
use super::view::{View, counted, named_cpus};
use crate::machine::{
    Channels, Device, DeviceInterrupt, Fact, IRQBALANCE, Spreading, mask_of_cpus,
};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 8] =
    [CHANNELS, SPREAD, TABLE, SYMMETRY, INTERRUPTS, RPS, XPS, NODE];
#[cfg(test)]
pub(super) const MACHINE_TOPICS: [Topic; 1] = [BALANCE];

pub(super) fn check(view: &View<'_>, device: &Device) -> Vec<Finding> {
    let found = [
        channels(view, device),
        spread(view, device),
        table(device),
        symmetry(view, device),
        interrupts(view, device),
        rps(view, device),
        xps(view, device),
        node(view, device),
    ];
    found.into_iter().map(|finding| finding.of(&device.name)).collect()
}

/// How many CPUs a device's packets should come to: one for each queue, but no more than there are.
fn wanted(view: &View<'_>) -> usize {
    let queues =
        view.fanout_ranges().into_iter().map(|(first, last)| usize::from(last - first) + 1);
    queues.max().unwrap_or(usize::MAX).min(view.online().len())
}

const CHANNELS: Topic = Topic {
    id: "device-channels",
    why: "each hardware queue brings its packets to one CPU: fewer queues, fewer busy CPUs",
};

fn channels(view: &View<'_>, device: &Device) -> Finding {
    let channels: Channels = match &device.channels {
        Fact::Known(Some(channels)) => *channels,
        Fact::Known(None) => return CHANNELS.ok("its hardware queues cannot be set"),
        Fact::Unseen(why) => return CHANNELS.unseen("its hardware queues are not known").seen(why),
    };
    let (Some(now), Some(max)) = (channels.receiving(), channels.receiving_max()) else {
        return CHANNELS.ok("it tells of no queues that receive");
    };
    let could = max.min(u32::try_from(wanted(view)).unwrap_or(u32::MAX));
    let has = |now: u32| counted(usize::try_from(now).unwrap_or(0), "hardware queue");
    if now >= could {
        return CHANNELS.ok(format!("{} of {max}", has(now)));
    }
    let kind = if matches!(channels.combined.max, Some(1..)) { "combined" } else { "rx" };
    CHANNELS
        .warn(format!("{}, where it could have {could}", has(now)))
        .seen(format!("at most {max}"))
        .mend(format!("ethtool -L {} {kind} {could}", device.name))
}

const SPREAD: Topic = Topic {
    id: "device-spread",
    why: "packets that come to few CPUs fill few queues: one core is busy, the others idle",
};

fn spread(view: &View<'_>, device: &Device) -> Finding {
    let Some(list) = device.handling_cpus() else {
        return SPREAD.unseen("which CPUs its packets come to is not known");
    };
    let wanted = wanted(view);
    if list.len() >= wanted {
        return SPREAD
            .ok(format!("its packets come to {}", named_cpus(list.iter().map(|cpu| cpu.0))));
    }
    let all: CpuList = view.online();
    let folder = format!("/sys/class/net/{}/queues", device.name);
    let finding = SPREAD.warn(format!(
        "its packets come to {} only, for {}",
        named_cpus(list.iter().map(|cpu| cpu.0)),
        counted(wanted, "queue")
    ));
    let single = device.rx_queues.len() < wanted;
    if single {
        let mask = mask_of_cpus(&all);
        return finding.mend_all(
            device
                .rx_queues
                .iter()
                .map(|queue| format!("echo {mask} > {folder}/rx-{}/rps_cpus", queue.number)),
        );
    }
    finding.mend("fanq tune plan   # gives each hardware queue's interrupt a CPU of its own")
}

const TABLE: Topic = Topic {
    id: "device-rss-table",
    why: "a hardware queue that the table leaves out gets nothing, and one named more often more",
};

fn table(device: &Device) -> Finding {
    let spreading: &Spreading = match &device.spreading {
        Fact::Known(Some(spreading)) => spreading,
        Fact::Known(None) => return TABLE.ok("it has no table to set"),
        Fact::Unseen(why) => return TABLE.unseen("its table is not known").seen(why),
    };
    let channels = device.channels.known().copied().flatten().and_then(Channels::receiving);
    let count =
        channels.map_or(device.rx_queues.len(), |count| usize::try_from(count).unwrap_or(0));
    if spreading.indirection.is_empty() || count == 0 {
        return TABLE.ok("it has no table to set");
    }
    let mut shares: BTreeMap<u32, usize> = BTreeMap::new();
    for queue in &spreading.indirection {
        *shares.entry(*queue).or_default() += 1;
    }
    let (least, most) =
        (shares.values().min().copied().unwrap_or(0), shares.values().max().copied().unwrap_or(0));
    // A table whose length is no multiple of the queues is uneven by one.
    if shares.len() >= count.min(spreading.indirection.len()) && most <= least + 1 {
        return TABLE
            .ok(format!("spreads evenly over {}", counted(shares.len(), "hardware queue")));
    }
    let lines = shares.iter().map(|(queue, entries)| format!("queue {queue}: {entries} entries"));
    TABLE
        .warn(format!("uneven over {}", counted(count, "hardware queue")))
        .seen_all(lines.take(8))
        .mend(format!("ethtool -X {} equal {count}", device.name))
}

const SYMMETRY: Topic = Topic {
    id: "device-rss-symmetry",
    why: "else both directions of a connection come to different queues, and to two inspectors",
};

fn symmetry(view: &View<'_>, device: &Device) -> Finding {
    let spreading = match &device.spreading {
        Fact::Known(Some(spreading)) => spreading,
        Fact::Known(None) => return SYMMETRY.ok("it tells of no hash"),
        Fact::Unseen(why) => return SYMMETRY.unseen("its hash is not known").seen(why),
    };
    let forwards = view.rules().any(|rule| {
        rule.fanout && rule.hooks.iter().any(|hook| hook != "output" && hook != "postrouting")
    });
    match spreading.is_symmetric() {
        Some(true) => SYMMETRY.ok("both directions of a connection come to the same queue"),
        None => SYMMETRY.ok("whether its hash is symmetric is not told"),
        Some(false) if !forwards || device.rx_queues.len() < 2 => {
            SYMMETRY.ok("its hash is not symmetric; no rule depends on it")
        }
        Some(false) => {
            let key = ["6d:5a"].repeat(spreading.key.len().div_ceil(2)).join(":");
            let key = key.get(..spreading.key.len() * 3 - 1).unwrap_or(&key).to_owned();
            SYMMETRY
                .warn("both directions of a connection may come to different queues")
                .seen("the hash key does not repeat every 16 bits")
                .mend(format!("ethtool -X {} hkey {key}", device.name))
        }
    }
}

const INTERRUPTS: Topic = Topic {
    id: "device-interrupts",
    why: "two hardware queues that interrupt the same CPU fill the same queue",
};

fn interrupts(view: &View<'_>, device: &Device) -> Finding {
    let all = match &device.interrupts {
        Fact::Known(all) => all,
        Fact::Unseen(why) => return INTERRUPTS.unseen("its interrupts are not known").seen(why),
    };
    let receiving: Vec<&DeviceInterrupt> = all.iter().filter(|one| one.receives()).collect();
    if receiving.is_empty() {
        return INTERRUPTS.ok("none of its interrupts is known as a receiving queue's");
    }
    let mut at: BTreeMap<u16, Vec<&DeviceInterrupt>> = BTreeMap::new();
    for interrupt in &receiving {
        let cpus = interrupt.cpus().map(|cpus| cpus.iter().collect::<Vec<_>>());
        if let Some([cpu]) = cpus.as_deref() {
            at.entry(cpu.0).or_default().push(interrupt);
        }
    }
    let online = view.online();
    let fair = receiving.len().div_ceil(online.len().max(1));
    let crowded: Vec<_> = at.iter().filter(|(_, here)| here.len() > fair).collect();
    if crowded.is_empty() {
        let (on, count) =
            (named_cpus(at.keys().copied()), counted(receiving.len(), "receiving queue"));
        return INTERRUPTS.ok(if at.is_empty() {
            format!("{count}, not bound to one CPU")
        } else {
            format!("{count}, on {on}")
        });
    }
    // The surplus goes to the CPUs that have none, the lowest first.
    let mut free = online.iter().filter(|cpu| !at.contains_key(&cpu.0));
    let surplus = crowded.iter().flat_map(|(_, here)| here.iter().skip(fair));
    let moves: Vec<_> = surplus
        .filter_map(|one| {
            Some(format!("echo {} > /proc/irq/{}/smp_affinity_list", free.next()?, one.number))
        })
        .collect();
    let lines = crowded.iter().map(|(cpu, here)| {
        let names: Vec<_> =
            here.iter().map(|one| format!("{} ({})", one.number, one.name)).collect();
        format!("CPU {cpu}: {}", names.join(", "))
    });
    INTERRUPTS
        .warn(format!(
            "{} of queues that receive share CPUs",
            counted(receiving.len(), "interrupt")
        ))
        .seen_all(lines)
        .mend_all(moves)
}

const RPS: Topic = Topic {
    id: "device-rps",
    why: "to hand packets to other CPUs costs an interrupt each, for what RSS did already",
};

fn rps(view: &View<'_>, device: &Device) -> Finding {
    let online = view.online();
    let handing: Vec<_> = (device.rx_queues.iter())
        .filter_map(|queue| Some((queue.number, queue.rps_cpus.known()?)))
        .filter(|(_, cpus)| !cpus.is_empty())
        .collect();
    if handing.is_empty() {
        return RPS.ok("packets stay on the CPU that they came to (no RPS)");
    }
    let folder = format!("/sys/class/net/{}/queues", device.name);
    let lines = handing.iter().map(|(queue, cpus)| format!("rx-{queue}: to CPUs {cpus}"));
    let off = |(queue, _): &(u32, &CpuList)| format!("echo 0 > {folder}/rx-{queue}/rps_cpus");
    let gone: Vec<u16> = (handing.iter())
        .flat_map(|(_, cpus)| cpus.iter())
        .filter(|cpu| !online.contains(*cpu))
        .map(|cpu| cpu.0)
        .collect();
    if !gone.is_empty() {
        let mask = mask_of_cpus(&online);
        let set =
            |(queue, _): &(u32, &CpuList)| format!("echo {mask} > {folder}/rx-{queue}/rps_cpus");
        return RPS
            .warn(format!("RPS names what is not online: {}", named_cpus(gone)))
            .seen_all(lines)
            .mend_all(handing.iter().map(set));
    }
    if device.rx_queues.len() >= wanted(view) && device.rx_queues.len() > 1 {
        return RPS
            .warn("RPS hands packets on, though there is a hardware queue for each CPU")
            .seen_all(lines)
            .mend_all(handing.iter().map(off));
    }
    RPS.ok("RPS spreads what few hardware queues receive").seen_all(lines)
}

const XPS: Topic = Topic {
    id: "device-xps",
    why: "a CPU without a sending queue of its own waits for others' locks when it sends",
};

fn xps(view: &View<'_>, device: &Device) -> Finding {
    let masks: Vec<_> =
        device.tx_queues.iter().filter_map(|queue| queue.xps_cpus.known()).collect();
    let set: CpuList = masks.iter().flat_map(|cpus| cpus.iter()).collect();
    if device.tx_queues.len() < 2 || set.is_empty() {
        return XPS.ok("no XPS is set, or there is one queue to send by");
    }
    let online = view.online();
    let without: Vec<u16> =
        online.iter().filter(|cpu| !set.contains(*cpu)).map(|cpu| cpu.0).collect();
    if without.is_empty() {
        return XPS.ok("each CPU has a queue to send by");
    }
    XPS.warn(format!("{}: no queue to send by", named_cpus(without.iter().copied())))
        .seen(format!("xps_cpus of all queues: {set}"))
        .mend("fanq tune plan   # gives each CPU one")
}

const NODE: Topic = Topic {
    id: "device-node",
    why: "packets that cross to another node's CPUs are read from that node's memory",
};

fn node(view: &View<'_>, device: &Device) -> Finding {
    let machine = &view.machine.cpus;
    let nodes = machine.nodes.known().map_or(0, Vec::len);
    let (Some(node), true) = (device.node, nodes > 1) else {
        return NODE.ok("one node, or it is not told which it hangs on");
    };
    let Some(handling) = device.handling_cpus() else {
        return NODE.unseen("which CPUs its packets come to is not known");
    };
    let far: Vec<u16> = (handling.iter())
        .filter(|cpu| machine.node_of(*cpu).is_some_and(|other| other != node))
        .map(|cpu| cpu.0)
        .collect();
    let near = machine.nodes.known().into_iter().flatten().find(|one| one.number == node);
    let near = near.map(|node| node.cpus.to_string()).unwrap_or_default();
    if far.is_empty() {
        return NODE.ok(format!("its packets come to CPUs of its own node {node}"));
    }
    // With more hardware queues in use than the node has CPUs, some have to.
    let room = machine.nodes.known().into_iter().flatten().find(|one| one.number == node);
    if room.is_some_and(|room| handling.len() > room.cpus.len()) {
        return NODE.ok(format!(
            "more of its queues are in use than node {node} has CPUs: {} on another",
            counted(far.len(), "CPU")
        ));
    }
    NODE.warn(format!(
        "it hangs on node {node}, its packets come to {} of another",
        named_cpus(far)
    ))
    .seen(format!("node {node} has CPUs {near}"))
    .mend("fanq tune plan   # puts interrupts on the device's own node")
}

const BALANCE: Topic = Topic {
    id: "irqbalance",
    why: "it moves interrupts as it likes, and with them the packets to other queues",
};

pub(super) fn irqbalance(view: &View<'_>) -> Finding {
    let processes = match &view.machine.queues.processes {
        Fact::Known(processes) => processes,
        Fact::Unseen(why) => return BALANCE.unseen("which daemons run is not known").seen(why),
    };
    match processes.named.get(IRQBALANCE) {
        None => BALANCE.ok("does not run"),
        Some(pid) => BALANCE
            .warn("irqbalance runs")
            .seen(format!("process {pid}"))
            .mend("systemctl disable --now irqbalance"),
    }
}
