//! Goal: what `wire` rewrote, the kernel takes and receivers' stacks find right: complete checksums and open ones,
//! large packets that stand for many segments and packets that were rewritten before. Method: on the loopback of the
//! namespace, 64 transfers at a time, every byte of payload is inverted at each of four hooks, so four times, beside
//! edits of header fields; the receivers compare every byte, and the kernel's count of checksum errors must stay at 0.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use fanq::wire::{PacketEdit, WireError};
use fanq::{Engine, Inspector, Packet, Verdict};

/// What came by, of all workers.
#[derive(Debug, Default)]
struct Seen {
    refused: AtomicU32,
    open: AtomicU32,
    /// Open, and rewritten without a thought of checksums.
    left_open: AtomicU32,
    segmented: AtomicU32,
    /// Called open, and with a complete checksum: rewritten before.
    rewritten_before: AtomicU32,
}

struct Inverting(Arc<Seen>);

impl Inspector for Inverting {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let info = packet.skb_info();
        self.0.open.fetch_add(info.checksum_not_ready().into(), Relaxed);
        self.0.segmented.fetch_add(info.is_gso().into(), Relaxed);
        let complete = info.is_gso() && !info.checksum_not_ready();
        self.0.rewritten_before.fetch_add(complete.into(), Relaxed);
        // What is open may be left so: then the engine fills it in.
        if packet.id().0.is_multiple_of(3) && info.checksum_not_ready() {
            invert_payload(packet.payload_mut().unwrap());
            self.0.left_open.fetch_add(1, Relaxed);
            return Verdict::ACCEPT;
        }
        if packet.id().0.is_multiple_of(2) {
            invert(&mut packet.edit().unwrap()).unwrap();
            return Verdict::ACCEPT;
        }
        let bytes = packet.payload_mut().unwrap();
        match PacketEdit::new(bytes, info.into()).and_then(|mut edit| invert(&mut edit)) {
            Ok(()) => Verdict::ACCEPT,
            Err(error) => {
                eprintln!("{error} in {:02x?}", &bytes[..bytes.len().min(80)]);
                self.0.refused.fetch_add(1, Relaxed);
                Verdict::DROP
            }
        }
    }
}

/// By hand, and nothing done about the checksum.
fn invert_payload(bytes: &mut [u8]) {
    let ip = if bytes[0] >> 4 == 4 { usize::from(bytes[0] & 15) * 4 } else { 40 };
    let is_tcp = bytes[if ip == 40 { 6 } else { 9 }] == 6;
    let transport = if is_tcp { usize::from(bytes[ip + 12] >> 4) * 4 } else { 8 };
    bytes[ip + transport..].iter_mut().for_each(|byte| *byte = !*byte);
}

fn invert(edit: &mut PacketEdit<'_>) -> Result<(), WireError> {
    if let Some(mut ip) = edit.ipv4() {
        let hops = ip.ttl() - 1;
        ip.set_ttl(hops).set_identification(0x4242);
    }
    if let Some(mut ip) = edit.ipv6() {
        ip.set_hop_limit(33).set_flow_label(0x12345)?;
    }
    // An edit that is updated, beside the payload, which is summed anew; without payload, the update alone.
    if let Some(mut tcp) = edit.tcp() {
        let window = tcp.window() ^ 1;
        tcp.set_window(window);
    }
    if !edit.l4_payload().is_empty() {
        edit.l4_payload_mut()?.iter_mut().for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

/// Connections at a time, and what each carries.
const TRANSFERS: usize = 64;
const BYTES: usize = 96 << 10;

#[test]
fn what_was_rewritten_and_restored_arrives_as_it_was_sent_and_no_checksum_is_wrong() {
    run("ip", "link set lo up");
    // Smaller than a large packet, so that there are large packets; they must fit into a queue's copy.
    let _mtu = OnDrop("ip", "link set lo mtu 65536");
    run("ip", "link set lo mtu 1500");
    let mut rules = Vec::new();
    for program in ["iptables", "ip6tables"] {
        for (hook, queue) in
            [("OUTPUT", 60), ("POSTROUTING", 61), ("PREROUTING", 62), ("INPUT", 63)]
        {
            for protocol in ["tcp", "udp"] {
                let rule = format!("{hook} -p {protocol} -j NFQUEUE --queue-num {queue}");
                run(program, &format!("-w -t mangle -A {rule}"));
                rules.push(OnDrop(program, format!("-w -t mangle -D {rule}").leak()));
            }
        }
    }
    for gso in [false, true] {
        let seen = Arc::new(Seen::default());
        let engine = Engine::builder().queues("60-63".parse().unwrap()).gso(gso).queue_maxlen(4096);
        let shared = Arc::clone(&seen);
        let engine = engine.start(move |_| Inverting(Arc::clone(&shared))).unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address = address.parse().unwrap();
            std::thread::scope(|scope| {
                for transfer in 0..TRANSFERS {
                    scope.spawn(move || {
                        let byte = |at: usize| ((at * at) >> 7).to_le_bytes()[0];
                        let sent: Vec<u8> = (transfer..transfer + BYTES).map(byte).collect();
                        let arrived = through_tcp(address, sent.clone());
                        assert!(arrived == sent, "{address}, gso {gso}, transfer {transfer}");
                    });
                }
            });
            assert_eq!(through_udp(address, b"datagram"), b"datagram", "{address}, gso {gso}");
        }
        let stopped = engine.shutdown(Duration::from_secs(10));
        assert!(stopped.failures.is_empty(), "{:?}", stopped.failures);
        assert_eq!(seen.refused.load(Relaxed), 0, "gso {gso}: {seen:?}");
        for count in [&seen.open, &seen.left_open, &seen.segmented, &seen.rewritten_before] {
            assert_eq!(count.load(Relaxed) > 0, gso, "gso {gso}: {seen:?}");
        }
    }
    drop(rules);
    assert_eq!(checksum_errors(), Vec::<String>::new());
}

fn through_tcp(address: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let listener = TcpListener::bind(address).unwrap();
    let limit = Duration::from_secs(30);
    let mut sender = TcpStream::connect_timeout(&listener.local_addr().unwrap(), limit).unwrap();
    sender.set_write_timeout(Some(limit)).unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(limit)).unwrap();
    let mut all = Vec::new();
    receiver.read_to_end(&mut all).unwrap();
    sending.join().unwrap();
    all
}

fn through_udp(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let receiver = UdpSocket::bind(address).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    UdpSocket::bind(address).unwrap().send_to(bytes, receiver.local_addr().unwrap()).unwrap();
    let mut datagram = [0; 64];
    let length = receiver.recv(&mut datagram).unwrap();
    datagram[..length].to_vec()
}

/// The kernel's counters of wrong checksums that are not 0, of this namespace.
fn checksum_errors() -> Vec<String> {
    let mut errors = Vec::new();
    let four = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let lines: Vec<_> = four.lines().collect();
    for pair in lines.chunks_exact(2) {
        let numbers = pair[0].split_whitespace().zip(pair[1].split_whitespace());
        errors.extend(numbers.filter(|(name, _)| name.ends_with("CsumErrors")));
    }
    let six = std::fs::read_to_string("/proc/net/snmp6").unwrap();
    let numbers = six.lines().filter_map(|line| line.split_once(char::is_whitespace));
    errors.extend(numbers.filter(|(name, _)| name.ends_with("CsumErrors")));
    assert!(errors.len() >= 4, "{errors:?}");
    errors.retain(|(_, count)| count.trim() != "0");
    errors.into_iter().map(|(name, count)| format!("{name} {count}")).collect()
}

/// Undoes, also after a failure.
struct OnDrop(&'static str, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        run(self.0, self.1);
    }
}

fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split_ascii_whitespace()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {message}");
}
