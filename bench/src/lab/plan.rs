//! The lab's devices, addresses and routes, as `ip` is told them.
//!
//! ```text
//!   client           engine                    server (hook forward only)
//!   client{i} ------ engine{i}   out{i} ------ server{i}
//!   10.77.i.2        10.77.i.1   10.78.i.1     10.78.i.2
//!   fd77:i::2        fd77:i::1   fd78:i::1     fd78:i::2
//! ```
//!
//! Where the load of pair i goes (the server; with the input hook, the engine), a whole range of addresses is at home,
//! one for each flow: the 2^17 from 10.128.0.0 + i * 2^17 on, and fd96:i::/32. A socket there that is bound to no
//! address gets all of them. Every device takes 9000 bytes (MTU), so frames up to jumbo size pass whole.
//!
//! Invariant: the kernel sends nothing of its own accord into the engine: neighbours are permanent and asked by
//! nobody, addresses are used without being probed, and no device has a link-local address. Two labs of equal shape
//! have equal addresses. It runs nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;

use super::shape::Shape;
use crate::result::Hook;

/// A network namespace of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Where load comes from.
    Client,
    /// Where the queues are.
    Engine,
    /// Where load goes to, with the forward hook.
    Server,
}

impl Place {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Engine => "engine",
            Self::Server => "server",
        }
    }

    /// The places of a lab with this hook.
    pub(crate) fn all(hook: Hook) -> &'static [Self] {
        match hook {
            Hook::Forward => &[Self::Engine, Self::Client, Self::Server],
            Hook::Input => &[Self::Engine, Self::Client],
        }
    }
}

/// One way through the lab: from a client device through the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) number: u16,
    /// The device on which the load arrives in the engine's namespace.
    pub(crate) engine_device: String,
    /// Its interface index in the engine's namespace; 0 in a plan.
    pub(crate) engine_index: u32,
    /// Its address: the destination of frames made in the kernel.
    pub(crate) engine_mac: [u8; 6],
    pub(crate) client_mac: [u8; 6],
    pub(crate) client_v4: Ipv4Addr,
    pub(crate) client_v6: Ipv6Addr,
    /// Where load goes to: the server's address, with the input hook the engine's.
    pub(crate) destination_v4: Ipv4Addr,
    pub(crate) destination_v6: Ipv6Addr,
    /// The first of [`FLOWS`] addresses in a row that the destination owns as well.
    pub(crate) flows_v4: Ipv4Addr,
    /// The first of as many and more.
    pub(crate) flows_v6: Ipv6Addr,
}

/// Consecutive addresses that each pair's flows may go to.
pub(crate) const FLOWS: u32 = 1 << FLOW_BITS;
const FLOW_BITS: u32 = 17;
const FLOW_BASE: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

impl Pair {
    pub(crate) fn plan(number: u16, hook: Hook) -> Self {
        let [_, low] = number.to_be_bytes();
        let v4 = |net, host| Ipv4Addr::new(10, net, low, host);
        let v6 = |net, host| Ipv6Addr::new(net, number, 0, 0, 0, 0, 0, host);
        let (destination_v4, destination_v6) = match hook {
            Hook::Forward => (v4(78, 2), v6(0xfd78, 2)),
            Hook::Input => (v4(77, 1), v6(0xfd77, 1)),
        };
        let first = FLOW_BASE.to_bits() + u32::from(number) * FLOWS;
        Self {
            number,
            engine_device: format!("engine{number}"),
            engine_index: 0,
            engine_mac: mac(1, low),
            client_mac: mac(2, low),
            client_v4: v4(77, 2),
            client_v6: v6(0xfd77, 2),
            destination_v4,
            destination_v6,
            flows_v4: Ipv4Addr::from_bits(first),
            flows_v6: v6(0xfd96, 0),
        }
    }
}

/// A veth pair between the engine and another place.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u16,
    pub(crate) engine_end: &'static str,
    pub(crate) other_end: &'static str,
    pub(crate) other_place: Place,
    net: u16,
}

impl Link {
    /// The device's name in the engine's namespace.
    pub(crate) fn engine_device(&self) -> String {
        format!("{}{}", self.engine_end, self.number)
    }

    /// The device's name in the other namespace.
    pub(crate) fn other_device(&self) -> String {
        format!("{}{}", self.other_end, self.number)
    }

    /// What tells the four kinds of devices apart.
    fn kinds(&self) -> [u8; 2] {
        if self.other_place == Place::Client { [1, 2] } else { [3, 4] }
    }

    fn macs(&self) -> [String; 2] {
        let [_, low] = self.number.to_be_bytes();
        self.kinds().map(|kind| mac(kind, low).map(|byte| format!("{byte:02x}")).join(":"))
    }

    fn v4(&self, host: u8) -> String {
        format!("10.{}.{}.{host}", self.net, self.number)
    }

    fn v6(&self, host: u8) -> String {
        format!("fd{}:{:x}::{host}", self.net, self.number)
    }
}

/// All veth pairs of the lab.
pub(crate) fn links(shape: &Shape) -> Vec<Link> {
    let to = |number, engine_end, other_place: Place, net| {
        let other_end = other_place.name();
        Link { number, engine_end, other_end, other_place, net }
    };
    let numbers = 0..shape.pairs;
    let client = numbers.clone().map(|number| to(number, "engine", Place::Client, 77));
    let server = numbers.map(|number| to(number, "out", Place::Server, 78));
    client.chain(server.filter(|_| shape.hook == Hook::Forward)).collect()
}

/// What `ip -batch` is told in each place, in this order.
pub(crate) fn batches(shape: &Shape, ipv6: bool) -> Vec<(Place, Vec<String>)> {
    let wires = links(shape);
    let mut batches = vec![(Place::Engine, wires.iter().map(create).collect())];
    for &place in Place::all(shape.hook) {
        let mut lines = Vec::new();
        for link in &wires {
            if place == Place::Engine {
                lines.extend(end(&link.engine_device(), link, [1, 2]));
            } else if link.other_place == place {
                lines.extend(end(&link.other_device(), link, [2, 1]));
            }
        }
        for number in 0..shape.pairs {
            lines.extend(routes(place, &Pair::plan(number, shape.hook), shape.hook));
        }
        lines.retain(|line| ipv6 || !line.contains("::"));
        batches.push((place, lines));
    }
    batches
}

/// The ends have different interface indexes: where they are equal, the kernel may need a second to see that the link
/// is up (`net/core/link_watch.c: linkwatch_urgent_event`).
fn create(link: &Link) -> String {
    let [engine_mac, other_mac] = link.macs();
    let [engine_kind, other_kind] = link.kinds().map(|kind| u32::from(kind) * 1000);
    let number = u32::from(link.number);
    format!(
        "link add {} index {} mtu {MTU} address {engine_mac} type veth \
         peer name {} index {} mtu {MTU} address {other_mac} netns {}",
        link.engine_device(),
        engine_kind + number,
        link.other_device(),
        other_kind + number,
        link.other_place.name()
    )
}

/// One end of a link: its addresses and, by hand, its neighbour. Without ARP it asks nobody, and without multicast it
/// joins no group, which it would report.
fn end(device: &str, link: &Link, [own, neighbour]: [u8; 2]) -> Vec<String> {
    let [engine_mac, other_mac] = link.macs();
    let mac = if own == 1 { other_mac } else { engine_mac };
    vec![
        format!("link set {device} arp off multicast off"),
        format!("addr add {}/24 dev {device}", link.v4(own)),
        format!("addr add {}/64 dev {device} nodad", link.v6(own)),
        format!("link set {device} up"),
        format!("neigh add {} lladdr {mac} dev {device} nud permanent", link.v4(neighbour)),
        format!("neigh add {} lladdr {mac} dev {device} nud permanent", link.v6(neighbour)),
    ]
}

fn routes(place: Place, pair: &Pair, hook: Hook) -> Vec<String> {
    let i = pair.number;
    let flows_v4 = format!("{}/{}", pair.flows_v4, 32 - FLOW_BITS);
    // As a network, not by `Ipv6Addr`, which writes fd96:0::/32 in the same way.
    let flows_v6 = format!("fd96:{i:x}::/32");
    let owned = || {
        vec![
            format!("route add local {flows_v4} dev lo"),
            format!("route add local {flows_v6} dev lo"),
        ]
    };
    match (place, hook) {
        (Place::Client, _) => {
            let mut lines = vec![
                format!("route add {flows_v4} via 10.77.{i}.1 dev client{i}"),
                format!("route add {flows_v6} via fd77:{i:x}::1 dev client{i}"),
            ];
            if hook == Hook::Forward {
                lines.push(format!("route add 10.78.{i}.0/24 via 10.77.{i}.1 dev client{i}"));
                lines.push(format!("route add fd78:{i:x}::/64 via fd77:{i:x}::1 dev client{i}"));
            }
            lines
        }
        (Place::Engine, Hook::Input) => owned(),
        (Place::Engine, Hook::Forward) => vec![
            format!("route add {flows_v4} via 10.78.{i}.2 dev out{i}"),
            format!("route add {flows_v6} via fd78:{i:x}::2 dev out{i}"),
        ],
        (Place::Server, _) => {
            let mut lines = owned();
            lines.push(format!("route add 10.77.{i}.0/24 via 10.78.{i}.1 dev server{i}"));
            lines.push(format!("route add fd77:{i:x}::/64 via fd78:{i:x}::1 dev server{i}"));
            lines
        }
    }
}

/// Settings below /proc/sys/net that the devices made afterwards inherit.
pub(crate) fn sysctls(place: Place, hook: Hook, ipv6: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Any source address is welcome.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Closed connections are not remembered. Else each takes a port for a minute; once some 28,000 are gone,
        // `connect` searches them all for one that may be used again, and 15,000 connections a second become 300.
        ("ipv4/tcp_max_tw_buckets", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // 1: no link-local address (Documentation/networking/ip-sysctl.rst).
        ("ipv6/conf/default/addr_gen_mode", "1"),
    ];
    if (place, hook) == (Place::Engine, Hook::Forward) {
        settings.push(("ipv4/ip_forward", "1"));
    }
    settings.retain(|(path, _)| ipv6 || !path.starts_with("ipv6"));
    settings
}

/// Settings of the same kind for when the devices are there: what forwards IPv6 joins a group by each device that has
/// multicast, as every device has when it is made (`net/ipv6/addrconf.c: ipv6_add_dev`).
pub(crate) fn late_sysctls(
    place: Place,
    hook: Hook,
    ipv6: bool,
) -> Vec<(&'static str, &'static str)> {
    let forwards = ipv6 && (place, hook) == (Place::Engine, Hook::Forward);
    if forwards { vec![("ipv6/conf/all/forwarding", "1")] } else { Vec::new() }
}

/// Locally administered: the second-lowest bit of the first byte is set (IEEE 802).
const fn mac(kind: u8, number: u8) -> [u8; 6] {
    [0x02, 0, 0, kind, 0, number]
}

/// Takes a jumbo frame.
const MTU: u16 = 9000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shape::Offloads;
    use crate::result::Topology;

    fn shape(hook: Hook, pairs: u16) -> Shape {
        let cpus: Vec<u16> = (0..pairs).collect();
        let (topology, offloads) = (Topology::Shared, Offloads::On);
        Shape { hook, topology, pairs, offloads, load_cpus: cpus.clone(), queue_cpus: cpus }
    }

    #[test]
    fn flows_of_pairs_do_not_meet_and_stay_in_their_range() {
        let first = |number| Pair::plan(number, Hook::Forward).flows_v4;
        assert_eq!(first(0), Ipv4Addr::new(10, 128, 0, 0));
        assert_eq!(first(1), Ipv4Addr::new(10, 130, 0, 0));
        let end = first(31).to_bits() + FLOWS;
        assert_eq!(Ipv4Addr::from_bits(end), Ipv4Addr::new(10, 192, 0, 0));
        let v6 = Pair::plan(12, Hook::Forward).flows_v6;
        assert_eq!(v6.to_string(), "fd96:c::");
    }

    #[test]
    fn the_destination_is_where_the_hook_takes_the_packet_to() {
        let pair = Pair::plan(10, Hook::Forward);
        assert_eq!(pair.destination_v4.to_string(), "10.78.10.2");
        assert_eq!(pair.destination_v6.to_string(), "fd78:a::2");
        let pair = Pair::plan(10, Hook::Input);
        assert_eq!(pair.destination_v4.to_string(), "10.77.10.1");
        assert_eq!(pair.client_v6.to_string(), "fd77:a::2");
    }

    #[test]
    fn each_end_knows_the_other_ends_hardware_address() {
        let batches = batches(&shape(Hook::Forward, 2), true);
        let text = |wanted| {
            let lines = batches.iter().filter(|(place, _)| *place == wanted);
            lines.flat_map(|(_, lines)| lines.clone()).collect::<Vec<_>>().join("\n")
        };
        let engine = text(Place::Engine);
        assert!(
            engine
                .contains("link add out1 index 3001 mtu 9000 address 02:00:00:03:00:01 type veth")
        );
        assert!(engine.contains("neigh add 10.77.1.2 lladdr 02:00:00:02:00:01 dev engine1"));
        assert!(engine.contains("neigh add fd78:1::2 lladdr 02:00:00:04:00:01 dev out1"));
        let client = text(Place::Client);
        assert!(client.contains("neigh add 10.77.0.1 lladdr 02:00:00:01:00:00 dev client0"));
        assert!(!client.contains("server"), "{client}");
    }

    #[test]
    fn closed_connections_keep_no_port() {
        for (place, hook) in [(Place::Client, Hook::Forward), (Place::Server, Hook::Forward)] {
            let settings = sysctls(place, hook, true);
            assert!(settings.contains(&("ipv4/tcp_max_tw_buckets", "0")), "{place:?}");
        }
    }

    #[test]
    fn the_input_hook_has_no_server_and_a_kernel_without_ipv6_hears_nothing_of_it() {
        let batches = batches(&shape(Hook::Input, 1), false);
        let places: Vec<_> = batches.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [Place::Engine, Place::Engine, Place::Client]);
        for (_, lines) in &batches {
            assert!(!lines.is_empty());
            for line in lines {
                assert!(!line.contains("fd") && !line.contains("server"), "{line}");
            }
        }
        for place in [Place::Engine, Place::Client] {
            assert!(sysctls(place, Hook::Input, false).iter().all(|(p, _)| p.starts_with("ipv4")));
        }
    }
}
