//! Goal: what a scrape says is what the account says; bad clients disturb neither packets nor scrapes; and what is
//! committed for Prometheus and Grafana is understood by them and asks for metrics that exist. Method: datagrams
//! through a queue on the loopback of a namespace of its own, scraped there; `promtool` as the judge.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables`, `python3` and, for what it judges, `promtool` (of Debian's
//! package prometheus). What cannot be tested prints SKIPPED, or fails if CI is set.

mod scrape;
mod space;

use std::collections::BTreeSet;

use scrape::{count, judge, monitoring, python, sample, scrape};
use serde_json::Value;
use space::Space;

const PACKETS: u64 = 500;

/// Sends so many datagrams and waits until all have arrived.
const TRAFFIC: &str = "
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 25) # SO_RCVBUFFORCE
receiver.bind(('127.0.0.1', 9000))
receiver.settimeout(10)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(500): sender.sendto(b'x' * 200, ('127.0.0.1', 9000))
for _ in range(500): receiver.recv(1000)
";

fn seconds(text: &str, name: &str) -> f64 {
    sample(text, name).parse().expect("a number")
}

#[test]
fn a_scrape_says_what_the_account_says() {
    let Some(space) = Space::queued() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (rules, log) = (folder.path().join("rules.toml"), folder.path().join("eve.json"));
    std::fs::write(&rules, "[[rule]]\nname = 'all'\naction = 'accept'\nlog = true\n")
        .expect("written");
    let request = format!(
        "--queues 8-9 --placement none --summary json --metrics 9477 --policy {} --eve {}",
        rules.display(),
        log.display()
    );
    let mut fanq = space.start(&[], &request);
    fanq.await_line("metrics: http://127.0.0.1:9477/metrics");
    fanq.await_ready();
    python(&space, TRAFFIC);
    let (kind, open) =
        scrape(&space, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(open.ends_with("# EOF\n"));
    let (kind, text) = scrape(&space, "*/*");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");

    let account = fanq.stop("TERM").json();
    let queue = &account["queues"][1];
    for (name, key) in [
        ("fanq_packets_total{queue=\"9\"}", "packets"),
        ("fanq_bytes_total{queue=\"9\"}", "bytes"),
        ("fanq_verdicts_total{queue=\"9\",verdict=\"accept\"}", "accepted"),
        ("fanq_receive_calls_total{queue=\"9\"}", "recv_calls"),
        ("fanq_send_calls_total{queue=\"9\"}", "send_calls"),
        ("fanq_batch_packets_count{queue=\"9\"}", "recv_calls"),
        ("fanq_batch_packets_sum{queue=\"9\"}", "packets"),
        ("fanq_batch_seconds_count{queue=\"9\"}", "recv_calls"),
        ("fanq_lost_packets_total{queue=\"9\",cause=\"socket_full\"}", "id_gaps"),
        ("fanq_queued_packets_total{queue=\"9\"}", "packets"),
        ("fanq_unseen_packets_total{queue=\"9\",cause=\"faulted\"}", "faulted"),
        ("fanq_unseen_packets_total{queue=\"9\",cause=\"orphaned\"}", "orphaned"),
        ("fanq_inspector_panics_total{queue=\"9\"}", "panics"),
        ("fanq_inspector_hangs_total{queue=\"9\"}", "hangs"),
    ] {
        assert_eq!(Some(count(&text, name)), queue[key].as_u64(), "{name}");
        assert_eq!(count(&text, name), count(&open, name), "{name}");
    }
    assert_eq!(count(&text, "fanq_packets_total{queue=\"9\"}"), PACKETS);
    assert_eq!(count(&text, "fanq_rule_packets_total{rule=\"all\"}"), PACKETS);
    let busy = queue["busy_ns"].as_f64().expect("a number") / 1e9;
    assert!((seconds(&text, "fanq_batch_seconds_sum{queue=\"9\"}") - busy).abs() < 1e-9);
    for (name, value) in [
        ("fanq_packets_total{queue=\"8\"}", 0),
        ("fanq_lost_packets_total{queue=\"9\",cause=\"queue_full\"}", 0),
        ("fanq_queue_waiting_packets{queue=\"9\"}", 0),
        ("fanq_queue_limit_packets{queue=\"9\"}", 16_384),
        ("fanq_queue_copy_range_bytes{queue=\"9\"}", 65_531),
        ("fanq_scrapes_total", 2),
    ] {
        assert_eq!(count(&text, name), value, "{name}");
    }
    let age = "import time; print(time.time())";
    let now: f64 = python(&space, age).trim().parse().expect("a time");
    let started = seconds(&text, "process_start_time_seconds");
    assert!((now - 600.0..now + 1.0).contains(&started), "{started} is not shortly before {now}");

    names_exist(&text);
    judge(&["check", "metrics"], &text);
}

/// What is committed asks for nothing that is not in a scrape.
fn names_exist(text: &str) {
    let there: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let mut asked = BTreeSet::new();
    for (file, least) in [("grafana-dashboard.json", 20), ("alerts.yml", 8), ("alerts_test.yml", 8)]
    {
        let named = metrics_named(&committed(file));
        assert!(named.len() >= least, "{file}: {named:?}");
        asked.extend(named);
    }
    for name in asked {
        assert!(there.contains(name.as_str()), "{name} is in no scrape:\n{text}");
    }
}

/// All words that begin as our metrics do.
fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    let ours = |word: &&str| word.starts_with("fanq_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

fn committed(file: &str) -> String {
    std::fs::read_to_string(monitoring(file)).expect("it is committed")
}

#[test]
fn the_alerts_are_sound_and_fire_when_they_should() {
    judge(&["check", "rules", "alerts.yml"], "");
    judge(&["test", "rules", "alerts_test.yml"], "");
    // Each alert fires in a case.
    let (alerts, cases) = (committed("alerts.yml"), committed("alerts_test.yml"));
    let names: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 8);
    for name in names {
        let fires = format!("alertname: {name}\n        exp_alerts:\n          - exp_labels");
        assert!(cases.contains(&fires), "no case in which {name} fires");
    }
}

#[test]
fn the_dashboard_is_one_and_its_expressions_are_understood() {
    let text = committed("grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(dashboard["uid"], "fanq");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut rules = vec!["groups:\n- name: dashboard\n  rules:\n".to_owned()];
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels of one id: {panel}");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{panel}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$__rate_interval", "5m");
            let quoted = serde_json::to_string(&expression).expect("a string");
            // A string of JSON is one of YAML.
            let record =
                format!("panel:{}:{}", panel["id"], target["refId"].as_str().expect("a name"));
            rules.push(format!("  - record: {record}\n    expr: {quoted}\n"));
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yml");
    let rules = rules.concat();
    std::fs::write(&file, &rules).expect("written");
    judge(&["check", "rules", &file.display().to_string()], &rules);
}

#[test]
fn bad_clients_disturb_neither_packets_nor_scrapes() {
    let Some(space) = Space::queued() else { return };
    let request = "--queues 9 --placement none --summary json --metrics [::1]:9477";
    let mut fanq = space.start(&[], request);
    fanq.await_ready();
    let script = format!(
        "
import socket, urllib.request
half = socket.create_connection(('::1', 9477)); half.send(b'GET /metr')
deaf = [socket.create_connection(('::1', 9477)) for _ in range(20)]
for one in deaf: one.send(b'GET /metrics HTTP/1.1\\r\\n\\r\\n')
kept = []
for number in range(2000):
    kept = (kept + [socket.create_connection(('::1', 9477))])[-300:]
    if number % 400 == 0:
        with urllib.request.urlopen('http://[::1]:9477/metrics', timeout=10) as response:
            assert b'fanq_packets_total' in response.read()
        {}
print('done')",
        TRAFFIC
            .trim()
            .replace('\n', "\n        ")
            .replace("receiver =", "receiver = sender = None; receiver =")
    );
    assert_eq!(python(&space, &script), "done\n");
    let account = fanq.stop("TERM").json();
    assert_eq!(account["totals"]["packets"], 5 * PACKETS);
    assert_eq!(account["totals"]["id_gaps"], 0);
}

#[test]
fn a_port_that_is_taken_refuses_the_start_before_any_queue_is_bound() {
    let Some(space) = Space::queued() else { return };
    let mut first = space.start(&[], "--queues 9 --placement none --metrics 9477");
    first.await_ready();
    let second = space.run(&[], "--queues 10 --placement none --metrics 127.0.0.1");
    let parts = ["--metrics 127.0.0.1:9477 cannot be had", "--metrics 127.0.0.1:9478", "in use"];
    second.assert_refused(1, &parts, "taken");
    space.run(&[], "--queues 10 --metrics nowhere").assert_refused(
        2,
        &["127.0.0.1:9477"],
        "no address",
    );
    assert_eq!(space.bound(), [9]);
    first.stop("TERM");
}
