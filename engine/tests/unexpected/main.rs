//! Goal: packets that no one expects pass through inspectors that rewrite all they can, and through the examples,
//! without a panic, and each gets its verdict. Method: `packets.py` sends some 3,400 of them into a pair of interfaces;
//! a rule at PREROUTING queues them, where the kernel has looked at nothing but the IP header. Counts before and in the
//! queue must agree; behind it may be fewer, as the kernel drops what is malformed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fanq::wire::{PacketEdit, WireError};
use fanq::{Engine, Inspector, KernelTable, Packet, RewriteError, Verdict};

const QUEUE: u16 = 70;
/// The kernel itself refuses some of those that are sent.
const QUEUED_MIN: u64 = 3000;

/// Edits whatever there is to edit, in a way of its own for each packet.
struct EditAll;

impl Inspector for EditAll {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let way = packet.id().0 % 5;
        let result = match way {
            0 => packet.edit().map(|mut edit| edit_fields(&mut edit).unwrap_or_default()),
            1 => packet.payload_mut().map(|bytes| {
                if let Some(last) = bytes.last_mut() {
                    *last = !*last;
                }
            }),
            2 => {
                let longer = [packet.payload(), b"and more"].concat();
                packet.replace(&longer)
            }
            3 => {
                let mut bytes = packet.payload().to_vec();
                let shorter = bytes.len().saturating_sub(3);
                bytes.truncate(shorter);
                // What has lengths that cannot be set goes out as it is: the kernel's stack is to refuse it.
                let _ = fanq::wire::set_lengths(&mut bytes);
                packet.replace(&bytes)
            }
            _ => Ok(()),
        };
        // A refusal is remembered, and answered below.
        let _ = result;
        Verdict::ACCEPT
    }

    fn rewrite_refused(&mut self, error: RewriteError, _verdict: Verdict) -> Verdict {
        assert!(!error.to_string().is_empty());
        Verdict::DROP
    }
}

fn edit_fields(edit: &mut PacketEdit<'_>) -> Result<(), WireError> {
    if let Some(mut ip) = edit.ipv4() {
        ip.set_destination([10, 99, 0, 77].into()).set_ttl(3);
    }
    if let Some(mut ip) = edit.ipv6() {
        ip.set_source("fd99::77".parse().unwrap()).set_flow_label(1)?;
    }
    if let Some(mut tcp) = edit.tcp() {
        tcp.set_source_port(7).set_window(9);
    }
    if let Some(mut udp) = edit.udp() {
        udp.set_destination_port(7);
    }
    edit.l4_payload_mut()?.fill(0x5a);
    Ok(())
}

#[test]
fn whatever_comes_is_rewritten_or_refused_and_gets_its_verdict() {
    let _lab = Lab::new();
    for gso in [false, true] {
        Lab::reset();
        let builder = Engine::builder().queues(QUEUE.to_string().parse().unwrap()).gso(gso);
        let engine = builder.queue_maxlen(16_384).start(|_| EditAll).unwrap();
        Lab::send();
        let stopped = engine.shutdown(Duration::from_secs(10));
        assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
        let totals = stopped.stats.totals();
        let (at_rule, behind) = (Lab::at_rule(), Lab::behind());
        assert!(at_rule > QUEUED_MIN, "{at_rule}");
        assert_eq!((totals.packets, totals.answered()), (at_rule, at_rule), "{totals:?}");
        assert_eq!(totals.dropped, totals.rewrites_refused, "{totals:?}");
        assert!(totals.rewrites_refused > 100 && totals.rewritten > 1000, "{totals:?}");
        // A payload that ends within the transport header the kernel drops without a word.
        assert!(
            behind <= totals.accepted && behind + 600 > totals.accepted,
            "{behind}, {totals:?}"
        );
        let faults = [totals.id_gaps, totals.flushed, totals.undecodable, totals.malformed];
        assert_eq!((faults, totals.verdict_errors), ([0; 4], 0), "{totals:?}");
    }
    for example in EXAMPLES {
        Lab::reset();
        let mut running = Running(start(example));
        Lab::send();
        let queued = KernelTable::open().unwrap().row(QUEUE).unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while KernelTable::open().unwrap().row(QUEUE).unwrap().unwrap().queue_total > 0 {
            assert!(Instant::now() < deadline, "{example}: packets are left over: {queued:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let row = KernelTable::open().unwrap().row(QUEUE).unwrap().unwrap();
        assert_eq!(u64::from(row.id_sequence), Lab::at_rule(), "{example}: {row:?}");
        assert_eq!((row.queue_dropped, row.user_dropped), (0, 0), "{example}: {row:?}");
        assert_eq!(running.0.try_wait().unwrap(), None, "{example} has ended");
    }
}

const EXAMPLES: [&str; 9] = [
    "accept_all",
    "drop_port",
    "rewrite_dns",
    "set_ttl",
    "defer_to_pool",
    "signature_ips",
    "bypass_after_handshake",
    "mode_accept",
    "mode_repeat",
];

/// An example of the engine's, as built beside this test, serving the queue.
fn start(name: &str) -> Child {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().with_file_name("examples").join(name);
    let missing = || format!("no {}: cargo build --package fanq --examples", program.display());
    assert!(program.exists(), "{}", missing());
    let mut command = Command::new(program);
    command.arg(QUEUE.to_string());
    if name == "drop_port" {
        command.arg("53");
    }
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_served =
        || KernelTable::open().unwrap().row(QUEUE).unwrap().is_some_and(|row| row.copy_mode != 0);
    while !is_served() {
        assert!(Instant::now() < deadline, "{name} does not serve the queue");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The pair of interfaces and the rules, gone with this.
struct Lab;

impl Lab {
    fn new() -> Self {
        let lab = Self;
        shell(
            "ip link add u0 mtu 65535 type veth peer name u1 mtu 65535 address 02:00:00:00:00:02
             for device in u0 u1; do ip link set $device addrgenmode none; ip link set $device up; done
             for program in iptables ip6tables; do
                 # What goes round has its mark, and does not come again.
                 $program -w -t mangle -A PREROUTING -i u1 -m mark ! --mark 0 -j ACCEPT
                 $program -w -t mangle -A PREROUTING -i u1 -j NFQUEUE --queue-num 70
             done
             nft 'add table inet behind; add chain inet behind p { type filter hook prerouting priority 10; }
                  add rule inet behind p iif u1 counter'",
        );
        lab
    }

    fn reset() {
        shell(
            "for program in iptables ip6tables; do $program -w -t mangle -Z PREROUTING; done
             nft 'flush table inet behind; add rule inet behind p iif u1 counter'",
        );
    }

    fn send() {
        let mut sender = Command::new("timeout");
        sender.args(["60", "python3", "-c", include_str!("packets.py"), "u0", "02:00:00:00:00:02"]);
        let output = sender.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn at_rule() -> u64 {
        let counted = shell(
            "for program in iptables ip6tables; do $program -w -t mangle -nvxL PREROUTING; done",
        );
        let queued = counted.lines().filter(|line| line.contains("NFQUEUE"));
        queued.map(|line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn behind() -> u64 {
        let listed = shell("nft list table inet behind");
        let (_, counted) = listed.split_once("packets ").unwrap();
        counted.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        shell(
            "nft delete table inet behind
             for program in iptables ip6tables; do $program -w -t mangle -F PREROUTING; done
             ip link del u0",
        );
    }
}

fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {message}");
    String::from_utf8(output.stdout).unwrap()
}
