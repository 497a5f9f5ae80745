//! Goal: after start-up a worker allocates nothing, whatever it receives. Method: the real engine on a running
//! kernel; its inspector reads an allocator that counts, before the first counted packet and after the last, while
//! every other thread of the process only sends.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::alloc::System;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fanq::{Engine, Inspector, Packet, Verdict};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Every kind of call that touches the heap.
fn heap_calls() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.deallocations + stats.reallocations
}

/// Mixes verdicts, so that runs, single messages and marks all occur.
struct Counting {
    packets: usize,
    calls_before: usize,
    calls_within: Arc<AtomicUsize>,
    counted: Arc<AtomicUsize>,
}

impl Inspector for Counting {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.packets += 1;
        if self.packets == WARM_UP {
            self.calls_before = heap_calls();
        }
        if self.packets > WARM_UP {
            self.calls_within.store(heap_calls() - self.calls_before, SeqCst);
            self.counted.store(self.packets - WARM_UP, SeqCst);
        }
        match packet.id().0 % 16 {
            0 | 5 | 6 | 7 => Verdict::DROP,
            9 => Verdict::ACCEPT.with_mark(9),
            _ => Verdict::ACCEPT,
        }
    }
}

const WARM_UP: usize = 500;
const COUNTED: usize = 5000;

#[test]
fn a_worker_allocates_nothing_after_its_start() {
    let shell = |words: &str| {
        let (program, rest) = words.split_once(' ').unwrap();
        assert!(Command::new(program).args(rest.split(' ')).status().unwrap().success(), "{words}");
    };
    shell("ip link set lo up");
    shell("iptables -w -A INPUT -p udp --dport 9040 -j NFQUEUE --queue-num 40");
    let (calls, counted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (calls_within, counted_within) = (Arc::clone(&calls), Arc::clone(&counted));
    let engine = Engine::builder()
        .queues("40".parse().unwrap())
        .start(move |_| Counting {
            packets: 0,
            calls_before: 0,
            calls_within: Arc::clone(&calls_within),
            counted: Arc::clone(&counted_within),
        })
        .unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = "127.0.0.1:9040".parse::<std::net::SocketAddr>().unwrap();
    let payload = [0; 400];
    for _ in 0..WARM_UP + COUNTED {
        socket.send_to(&payload, target).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while counted.load(SeqCst) < COUNTED && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(counted.load(SeqCst), COUNTED);
    assert_eq!(calls.load(SeqCst), 0, "heap calls while {COUNTED} packets passed");
    drop(engine);
    shell("iptables -w -D INPUT -p udp --dport 9040 -j NFQUEUE --queue-num 40");
}
