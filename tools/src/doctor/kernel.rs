//! The kernel: whether it can queue packets, and whether it is known to do it wrong.
//!
//! Invariant: a feature counts as missing only where the kernel's configuration says so; ranges of faulty releases are
//! those that were published (docs/NFQUEUE.md, section 11), and distributions may have mended theirs.

use super::finding::{Finding, Topic};
use super::view::View;
use crate::machine::{Fact, Feature, Kernel, Presence, Version};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 6] =
    [RELEASE, QUEUES, QUEUE_RULE, CONNTRACK, USE_AFTER_FREE, GRO_DROPS];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let kernel = &view.machine.kernel;
    vec![
        release(kernel),
        queues(view),
        queue_rule(kernel),
        conntrack(kernel),
        faulty(kernel, &USE_AFTER_FREE, &USE_AFTER_FREE_IN, Finding::into_fail),
        faulty(kernel, &GRO_DROPS, &GRO_DROPS_IN, |found| {
            found.mend("fanq run --gso ...   # takes such packets whole, which avoids it")
        }),
    ]
}

const RELEASE: Topic = Topic {
    id: "kernel-release",
    why: "queues by CPU came with kernel 3.10, short error messages with 4.3",
};

fn release(kernel: &Kernel) -> Finding {
    let release = match &kernel.release {
        Fact::Known(release) => release,
        Fact::Unseen(why) => return RELEASE.unseen("its release is not known").seen(why),
    };
    let upgrade = "# install a kernel of this decade; fanq is tested on 6.1 and 6.18";
    match kernel.version() {
        None => RELEASE.unseen(format!("release {release} has no number")),
        Some(version) if version < Version(3, 10, 0) => {
            RELEASE.fail(format!("{release} cannot spread packets by CPU")).mend(upgrade)
        }
        Some(version) if version < Version(4, 3, 0) => {
            RELEASE.warn(format!("{release} is older than what fanq needs")).mend(upgrade)
        }
        Some(_) => RELEASE.ok(format!("release {release}")),
    }
}

const QUEUES: Topic =
    Topic { id: "kernel-nfnetlink-queue", why: "without it no program can be given packets" };

fn queues(view: &View<'_>) -> Finding {
    let feature =
        Feature { option: "CONFIG_NETFILTER_NETLINK_QUEUE", module: Some("nfnetlink_queue") };
    if view.machine.queues.table.known().is_some() {
        return QUEUES.ok("packets can be queued to programs (nfnetlink_queue)");
    }
    match view.machine.kernel.presence(feature) {
        Fact::Known(Presence::Absent) => QUEUES
            .fail("this kernel cannot queue packets to programs")
            .seen(format!("{} is not set", feature.option))
            .mend("# boot a kernel with CONFIG_NETFILTER_NETLINK_QUEUE, such as a distribution's"),
        Fact::Known(Presence::NotInstalled) => not_installed(&QUEUES, view, feature),
        Fact::Known(_) => QUEUES.ok("nfnetlink_queue is loaded when the first queue is bound"),
        Fact::Unseen(why) => QUEUES
            .unseen("whether packets can be queued is not known")
            .seen(why)
            .mend("modprobe nfnetlink_queue   # says it"),
    }
}

fn not_installed(topic: &Topic, view: &View<'_>, feature: Feature) -> Finding {
    let release = view.machine.kernel.release.known().map_or("its release", String::as_str);
    topic
        .fail(format!("{} is a module that is not installed", feature.option))
        .seen(format!("/lib/modules/{release}/modules.dep does not name it"))
        .mend("# install the package with all modules of this kernel, or boot the kernel that they are for")
}

const QUEUE_RULE: Topic = Topic {
    id: "kernel-queue-rule",
    why: "a rule sends the packets: nft's `queue`, or iptables' NFQUEUE where that is missing",
};

fn queue_rule(kernel: &Kernel) -> Finding {
    let features = [
        ("nft's `queue`", Feature { option: "CONFIG_NFT_QUEUE", module: Some("nft_queue") }),
        (
            "iptables' NFQUEUE",
            Feature { option: "CONFIG_NETFILTER_XT_TARGET_NFQUEUE", module: Some("xt_NFQUEUE") },
        ),
    ];
    let presences = features.map(|(name, feature)| (name, kernel.presence(feature)));
    let is_there = |presence: &Fact<Presence>| {
        let known = presence.known();
        known.is_some_and(|known| !matches!(known, Presence::Absent | Presence::NotInstalled))
    };
    let there: Vec<_> = presences
        .iter()
        .filter(|(_, presence)| is_there(presence))
        .map(|(name, _)| *name)
        .collect();
    match (there.as_slice(), &presences) {
        ([nft, iptables], _) => QUEUE_RULE.ok(format!("{nft} and {iptables}")),
        ([one], _) => QUEUE_RULE.ok(format!("{one} only; `fanq rules` uses it")),
        (_, [(_, Fact::Known(nft)), (_, Fact::Known(iptables))]) => QUEUE_RULE
            .fail("no rule can send packets to a queue")
            .seen(format!(
                "nft's `queue`: {}, iptables' NFQUEUE: {}",
                words(*nft),
                words(*iptables)
            ))
            .mend("# boot a kernel with CONFIG_NFT_QUEUE, or install its modules"),
        (_, [(_, nft), (_, iptables)]) => QUEUE_RULE
            .unseen("whether rules can send packets to queues is not known")
            .seen_all(nft.why_unseen().or(iptables.why_unseen()).map(str::to_owned))
            .mend("fanq rules print   # says which the kernel takes"),
    }
}

const CONNTRACK: Topic = Topic {
    id: "kernel-conntrack-glue",
    why: "only with it a packet comes with its connection (`fanq run --conntrack`)",
};

/// Its absence is no fault: most inspectors do without.
fn conntrack(kernel: &Kernel) -> Finding {
    let feature = Feature { option: "CONFIG_NETFILTER_NETLINK_GLUE_CT", module: None };
    match kernel.presence(feature) {
        Fact::Known(Presence::Absent) => {
            CONNTRACK.ok("not built in: `--conntrack` is refused, all else works")
        }
        Fact::Known(_) => CONNTRACK.ok("packets can come with their connections"),
        Fact::Unseen(why) => CONNTRACK
            .unseen("whether packets can come with their connections is not known")
            .seen(why),
    }
}

const USE_AFTER_FREE: Topic = Topic {
    id: "kernel-cve-2026-43084",
    why: "verdicts of several queues at once may use freed memory: the machine may crash",
};

const USE_AFTER_FREE_IN: [(Version, Version); 3] = [
    (Version(6, 12, 75), Version(6, 12, 82)),
    (Version(6, 18, 14), Version(6, 18, 23)),
    (Version(6, 19, 4), Version(6, 19, 13)),
];

const GRO_DROPS: Topic = Topic {
    id: "kernel-cve-2026-45859",
    why: "UDP packets that the device joined are dropped while their flow is new",
};

const GRO_DROPS_IN: [(Version, Version); 3] = [
    (Version(6, 11, 0), Version(6, 12, 74)),
    (Version(6, 13, 0), Version(6, 18, 13)),
    (Version(6, 19, 0), Version(6, 19, 3)),
];

/// Ranges with their last faulty release.
fn faulty(
    kernel: &Kernel,
    topic: &Topic,
    ranges: &[(Version, Version)],
    more: impl FnOnce(Finding) -> Finding,
) -> Finding {
    let Some(version) = kernel.version() else {
        return topic.unseen("the kernel's release is not known");
    };
    let hit = ranges.iter().find(|(first, last)| (*first..=*last).contains(&version));
    let Some((first, last)) = hit else { return topic.ok("not in the releases that have it") };
    let found = topic
        .warn(format!("releases {first} to {last} have this fault"))
        .seen(format!("release {}", kernel.release.known().map_or("unknown", String::as_str)))
        .mend(format!(
            "# boot {} or newer; a distribution's kernel may have the fix already: look into its \
             changelog",
            sound_after(*last)
        ));
    more(found)
}

/// The first release behind this one that has neither fault: where one ended, another began.
fn sound_after(Version(major, minor, patch): Version) -> Version {
    let next = Version(major, minor, patch + 1);
    let ranges = USE_AFTER_FREE_IN.iter().chain(&GRO_DROPS_IN);
    let hit = ranges.into_iter().find(|(first, last)| (*first..=*last).contains(&next));
    hit.map_or(next, |(_, last)| sound_after(*last))
}

const fn words(presence: Presence) -> &'static str {
    match presence {
        Presence::BuiltIn => "built in",
        Presence::Loaded => "loaded",
        Presence::Loadable => "a module",
        Presence::NotInstalled => "a module that is not installed",
        Presence::Absent => "not built",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_leads_into_no_other_fault() {
        for (last, sound) in [
            (Version(6, 12, 74), "6.12.83"),
            (Version(6, 18, 13), "6.18.24"),
            (Version(6, 19, 3), "6.19.14"),
            (Version(6, 18, 23), "6.18.24"),
        ] {
            assert_eq!(sound_after(last).to_string(), sound);
        }
        for (_, last) in USE_AFTER_FREE_IN.iter().chain(&GRO_DROPS_IN) {
            let sound = sound_after(*last);
            let faulty = |(first, last): &(Version, Version)| (*first..=*last).contains(&sound);
            assert!(!USE_AFTER_FREE_IN.iter().chain(&GRO_DROPS_IN).any(faulty), "{sound}");
        }
    }
}
