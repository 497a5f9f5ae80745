//! Goal: every number is where its name says, in both formats, and bad clients keep no scrape waiting. Method: a run
//! that is made up, rendered, and served on the loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, UNIX_EPOCH};

use fanq::{Counts, CpuId, KernelRow, QueueStats};

use super::render::{Format, render};
use super::*;
use crate::inspector::RuleAccount;

/// Queues from 3 on, of which the last has no row of the kernel's.
fn snapshot(queues: u16) -> Snapshot {
    let queue = |index: u16| {
        let mut counts = Counts {
            packets: 100,
            bytes: 6000,
            accepted: 90,
            dropped: 10,
            recv_calls: 6,
            batched: 100,
            busy_ns: 1_500_000,
            id_gaps: 7,
            uninspected: 2,
            shed: 5,
            faulted: 6,
            orphaned: 8,
            panics: 1,
            hangs: 3,
            verdict_errors: 3,
            verdict_errors_by_errno: vec![(1, 3)],
            ..Counts::default()
        };
        counts.batch_sizes[0] = 2;
        counts.batch_sizes[10] = 4;
        counts.batch_times[0] = 1;
        counts.batch_times[21] = 5;
        counts.hooks[1] = 100;
        let row = KernelRow {
            queue: 3 + index,
            port_id: 1,
            queue_total: 12,
            copy_mode: 2,
            copy_range: 128,
            queue_dropped: 4,
            user_dropped: 7,
            id_sequence: 107,
        };
        let kernel = (index + 1 < queues).then_some(row);
        QueueStats { queue: 3 + index, cpu: kernel.map(|_| CpuId(index)), counts, kernel }
    };
    let second = Duration::from_secs(1);
    Snapshot {
        stats: EngineStats { queues: (0..queues).map(queue).collect() },
        queue_maxlen: Some(16_384),
        policy: None,
        eve: None,
        started: Some(UNIX_EPOCH + 1000 * second),
        cpu: Some(CpuTime { user: second, system: second / 2 }),
        scrapes: 1,
        accelerated: None,
        uncounted: &[],
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|there| there == line), "no `{line}` in\n{text}");
}

#[test]
fn every_number_is_under_its_name() {
    let text = render(snapshot(2), Format::OpenMetrics);
    for line in [
        "# TYPE fanq_packets counter",
        "# HELP fanq_packets Packets received from the kernel.",
        "fanq_packets_total{queue=\"3\"} 100",
        "fanq_packets_total{queue=\"4\"} 100",
        "fanq_verdicts_total{queue=\"3\",verdict=\"accept\"} 90",
        "fanq_verdicts_total{queue=\"3\",verdict=\"stop\"} 0",
        "fanq_lost_packets_total{queue=\"3\",cause=\"queue_full\"} 4",
        "fanq_lost_packets_total{queue=\"3\",cause=\"socket_full\"} 5",
        "fanq_unseen_packets_total{queue=\"3\",cause=\"fail_open\"} 2",
        "fanq_unseen_packets_total{queue=\"3\",cause=\"shed\"} 5",
        "fanq_unseen_packets_total{queue=\"3\",cause=\"faulted\"} 6",
        "fanq_unseen_packets_total{queue=\"3\",cause=\"orphaned\"} 8",
        "fanq_inspector_panics_total{queue=\"3\"} 1",
        "fanq_inspector_hangs_total{queue=\"3\"} 3",
        "fanq_verdict_errors_total{queue=\"3\",errno=\"1\"} 3",
        "fanq_verdict_errors_total{queue=\"3\",errno=\"2\"} 0",
        "fanq_hook_packets_total{queue=\"3\",hook=\"input\"} 100",
        "fanq_queue_waiting_packets{queue=\"3\"} 12.0",
        "fanq_queue_limit_packets{queue=\"4\"} 16384.0",
        "fanq_queue_copy_range_bytes{queue=\"3\"} 128.0",
        "fanq_queued_packets_total{queue=\"3\"} 107",
        "fanq_worker_info{queue=\"3\",cpu=\"0\"} 1.0",
        "fanq_worker_info{queue=\"4\",cpu=\"any\"} 1.0",
        "fanq_batch_packets_bucket{le=\"1.0\",queue=\"3\"} 2",
        "fanq_batch_packets_bucket{le=\"1023.0\",queue=\"3\"} 2",
        "fanq_batch_packets_bucket{le=\"+Inf\",queue=\"3\"} 6",
        "fanq_batch_packets_count{queue=\"3\"} 6",
        "fanq_batch_packets_sum{queue=\"3\"} 100.0",
        "fanq_batch_seconds_bucket{le=\"0.000001\",queue=\"3\"} 1",
        "fanq_batch_seconds_bucket{le=\"1.048576\",queue=\"3\"} 1",
        "fanq_batch_seconds_bucket{le=\"+Inf\",queue=\"3\"} 6",
        "fanq_batch_seconds_sum{queue=\"3\"} 0.0015",
        "process_start_time_seconds 1000.0",
        "process_cpu_seconds_total 1.5",
        "# EOF",
    ] {
        has(&text, line);
    }
    for unknown in [
        "fanq_lost_packets_total{queue=\"4\",cause=\"queue_full\"}",
        "fanq_queue_waiting_packets{queue=\"4\"}",
        "fanq_rule_packets",
        "fanq_eve_lines",
    ] {
        assert!(!text.contains(unknown), "{unknown}");
    }
    assert_eq!(text.matches("fanq_batch_seconds_bucket{").count(), 2 * 22);
    assert_eq!(text.matches("fanq_batch_packets_bucket{").count(), 2 * 11);
}

#[test]
fn what_passed_unseen_and_is_not_yet_known_as_missing_is_no_loss() {
    let mut snapshot = snapshot(1);
    // Two numbers that a worker writes one after the other.
    snapshot.stats.queues[0].counts.uninspected = 9;
    let text = render(snapshot, Format::OpenMetrics);
    has(&text, "fanq_lost_packets_total{queue=\"3\",cause=\"socket_full\"} 0");
}

#[test]
fn the_older_format_has_the_same_samples_and_names_counters_as_their_samples() {
    let open = render(snapshot(2), Format::OpenMetrics);
    let older = render(snapshot(2), Format::Prometheus);
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&older));
    has(&older, "# TYPE fanq_packets_total counter");
    has(&older, "# HELP fanq_packets_total Packets received from the kernel.");
    has(&older, "# TYPE fanq_batch_seconds histogram");
    has(&older, "# TYPE fanq_build_info gauge");
    assert!(!older.contains("# EOF") && !older.contains("_total_total"));
}

#[test]
fn rules_and_the_log_have_numbers_where_there_are_any_and_names_are_escaped() {
    let rule = |name: &str| RuleAccount { name: name.to_owned(), packets: 5, bytes: 300 };
    let policy = PolicyAccount {
        file: "rules.toml".to_owned(),
        reloads: 2,
        reloads_refused: 1,
        flows_evicted: 0,
        limits_evicted: 9,
        rejects_returned: 0,
        bypasses_returned: 0,
        rules: vec![rule("web"), rule("say \"hi\" \\ to\nall")],
        rejected: 0,
        log_lost: 0,
    };
    let snapshot = Snapshot { policy: Some(policy), eve: Some((8, 1)), ..snapshot(1) };
    let text = render(snapshot, Format::Prometheus);
    for line in [
        "fanq_rule_packets_total{rule=\"web\"} 5",
        "fanq_rule_bytes_total{rule=\"say \\\"hi\\\" \\\\ to\\nall\"} 300",
        "fanq_policy_reloads_total{outcome=\"refused\"} 1",
        "fanq_policy_evictions_total{table=\"limit\"} 9",
        "fanq_eve_lines_total{outcome=\"lost\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn of_an_accelerated_program_only_what_is_counted_is_told() {
    let mut snapshot = Snapshot {
        queue_maxlen: None,
        cpu: None,
        accelerated: Some("my-ips".to_owned()),
        uncounted: &["fanq_batch_seconds", "fanq_late_answers"],
        ..snapshot(1)
    };
    snapshot.stats.queues[0].counts.verdict_errors_by_errno = vec![(0, 3)];
    let text = render(snapshot, Format::Prometheus);
    for line in [
        "fanq_accelerated_info{program=\"my-ips\"} 1.0",
        "fanq_packets_total{queue=\"3\"} 100",
        "fanq_verdict_errors_total{queue=\"3\",errno=\"0\"} 3",
    ] {
        has(&text, line);
    }
    for unknown in
        ["errno=\"2\"", "fanq_batch_seconds", "fanq_late_answers", "queue_limit", "process_cpu"]
    {
        assert!(!text.contains(unknown), "{unknown} in {text}");
    }
}

#[test]
fn the_newer_format_is_for_those_who_ask_for_it() {
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::wished_for(prometheus), Format::OpenMetrics);
    for accept in ["", "*/*", "text/plain", "text/html, */*;q=0.1"] {
        assert_eq!(Format::wished_for(accept), Format::Prometheus);
    }
}

struct MadeUp;

impl Scraped for MadeUp {
    fn snapshot(&self) -> Snapshot {
        snapshot(1024)
    }
}

struct Served {
    place: SocketAddr,
    _endpoint: Endpoint,
}

impl Served {
    fn new() -> Self {
        let open = OpenMetrics::open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let place = open.listener.local_addr().unwrap();
        Self { place, _endpoint: open.serve(MadeUp).unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.place).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // What is refused may be closed before all is written.
        let _ = stream.write_all(request);
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn scrape(&self) {
        let response = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("fanq_packets_total{queue=\"1026\"} 100\n"));
    }
}

#[test]
fn bad_clients_are_told_and_keep_no_scrape_waiting() {
    let served = Served::new();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405"),
        (b"nonsense\r\n\r\n", "400"),
        (&[b'x'; 10_000], "431"),
    ] {
        let response = served.ask(request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
    // Half a request, nothing at all, answers that nobody reads, and a crowd larger than there are places.
    let half = served.connect();
    (&half).write_all(b"GET /metrics HT").unwrap();
    let deaf: Vec<_> = (0..20).map(|_| served.connect()).collect();
    for stream in &deaf {
        let mut stream = stream;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    }
    let mut crowd = Vec::new();
    for round in 0..10 {
        crowd.extend((0..100).map(|_| served.connect()));
        served.scrape();
        assert_eq!(crowd.len(), 100 * (round + 1));
    }
}

#[test]
fn a_port_that_is_taken_is_refused_with_what_to_type() {
    let served = Served::new();
    let again = OpenMetrics::open(MetricsAddress(served.place), false).unwrap_err();
    let words = format!("{again:#}");
    assert!(words.contains("name another: --metrics 127.0.0.1:"), "{words}");
    assert!(words.contains("ss -ltnp"), "{words}");
}

#[test]
fn a_shared_port_is_taken_by_the_next_process_while_this_one_serves() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let first = OpenMetrics::open(any.parse().unwrap(), true).unwrap();
        let place = MetricsAddress(first.listener.local_addr().unwrap());
        assert!(OpenMetrics::open(place, false).is_err(), "by one who does not share");
        OpenMetrics::open(place, true).unwrap();
    }
}
