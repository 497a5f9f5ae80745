//! What it was measured on and with, and how to repeat it.
//!
//! Invariant: settings stand as the document has them, in words; nothing is guessed.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::number::{MISSING, count, percent, real, three};
use crate::result::{
    Arrivals, Document, Family, FlowChoice, FrameSize, Hook, LabSetting, LoadKind, LoadSetting,
    Machine, TargetSetting, Topology,
};

pub(crate) fn machine(machine: &Machine) -> Markup {
    html! {
        dl.facts {
            dt { "Kernel" } dd { (or_missing(&machine.kernel)) }
            dt { "CPU" } dd { (or_missing(&machine.cpu)) ", " (cpus(machine.cpus)) }
            dt { "Memory" } dd { (memory(machine)) }
            dt { "Frequency governor" }
            dd { (machine.governor.as_deref().map_or(MISSING, or_missing)) }
        }
        (pairs("Mitigations", &machine.mitigations))
        (pairs("Sysctls", &machine.sysctls))
    }
}

/// The machine in one line.
pub(crate) fn machine_line(machine: &Machine) -> String {
    [
        format!("Linux {}", or_missing(&machine.kernel)),
        format!("{}, {}", or_missing(&machine.cpu), cpus(machine.cpus)),
        memory(machine),
    ]
    .join(" · ")
}

fn memory(machine: &Machine) -> String {
    format!("{}\u{202f}GiB", three(real(machine.memory_mib) / 1024.0))
}

fn cpus(number: usize) -> String {
    if number == 1 { "1 CPU".to_owned() } else { format!("{number} CPUs") }
}

fn pairs(title: &str, pairs: &BTreeMap<String, String>) -> Markup {
    html! {
        @if !pairs.is_empty() {
            details {
                summary { (title) ", " (pairs.len()) }
                dl.facts.code { @for (name, value) in pairs { dt { (name) } dd { (value) } } }
            }
        }
    }
}

pub(crate) fn settings(lab: &LabSetting, load: &LoadSetting) -> Markup {
    html! {
        dl.facts {
            dt { "Packets are taken at" }
            dd { @match lab.hook {
                Hook::Forward => "the forward hook, between two other namespaces",
                Hook::Input => "the input hook",
            } }
            dt { "CPUs" }
            dd {
                @match lab.topology {
                    Topology::Shared => "shared: each CPU makes load, fills its queue and serves it",
                    Topology::Split => "split: some make the load, others fill and serve the queues",
                    Topology::Threaded => "threaded: as split, with a thread of the kernel that fills the queues",
                }
                "; load on " (list(&lab.load_cpus)) ", queues on " (list(&lab.queue_cpus))
            }
            dt { "Queues" } dd { (or_missing(&lab.queues)) }
            dt { "Pairs of interfaces" }
            dd { (lab.pairs) ", offloads " (if lab.offloads { "on" } else { "off" }) }
            dt { "Rights" }
            dd { (if lab.user_namespace { "none: a user namespace" } else { "root" }) }
            dt { "Load" }
            dd {
                @match load.kind {
                    LoadKind::Xdp => "frames made in the kernel by a paced BPF program",
                    LoadKind::Udp => "UDP datagrams, sendmmsg",
                    LoadKind::Pcap => "the packets of a capture",
                }
                @if load.fragments > 0.0 { ", " (percent(load.fragments)) " of them as two IP fragments" }
                @if let Some(capture) = &load.capture { ": " (capture.name) ", " (count(capture.packets)) " packets" }
            }
            @if load.capture.is_none() { (made_up(load)) }
        }
    }
}

/// What a load is like that was made for the purpose.
fn made_up(load: &LoadSetting) -> Markup {
    html! {
        dt { "Frames" }
        dd {
            @match load.frame {
                FrameSize::Bytes(bytes) => { (count(bytes)) " bytes" }
                FrameSize::Imix => "IMIX: 28 of 74, 16 of 570 and 4 of 1518 bytes",
            }
            @match load.family { Family::Ipv4 => ", IPv4", Family::Ipv6 => ", IPv6" }
        }
        dt { "Flows" }
        dd {
            (count(load.flows)) " from each sender, "
            @match load.flow_choice {
                FlowChoice::Uniform => "each as often as any other",
                FlowChoice::Zipf => "the n-th as often as 1/n says",
            }
        }
        dt { "Arrivals" }
        dd { @match load.arrivals {
            Arrivals::Constant => "at equal distances",
            Arrivals::Poisson => "at random (Poisson)",
            Arrivals::Burst(size) => { "in bursts of " (count(size)) }
        } }
    }
}

pub(crate) fn targets(targets: &[TargetSetting]) -> Markup {
    html! {
        @for target in targets {
            h3 { (target.name) }
            @if !target.command.is_empty() { pre { (target.command) } }
            @if target.rules.is_empty() { p.about { "No rules." } }
            @else { pre { (target.rules.join("\n")) } }
        }
    }
}

pub(crate) fn repeat(document: &Document) -> Markup {
    let run = &document.run;
    html! {
        p.about {
            "fanq-bench " (or_missing(&run.version))
            @if !run.commit.is_empty() { ", run in a checkout of commit " code { (run.commit) } }
            "."
        }
        pre { (or_missing(&run.command)) }
    }
}

fn list(cpus: &[u16]) -> String {
    if cpus.is_empty() {
        return MISSING.to_owned();
    }
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn or_missing(text: &str) -> &str {
    if text.trim().is_empty() { MISSING } else { text }
}
