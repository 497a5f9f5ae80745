//! Goal: whoever looks at an accelerated program from outside sees what it does: `fanq top`, `fanq control` and a
//! scraper. Method: packets through a program that serves a queue under `fanq accel`; the three are held to their
//! number, verdict by verdict, and promtool judges the scrape.

use std::sync::OnceLock;

use serde_json::Value;

use super::scrape::{count, judge, scrape};
use super::space::{Ended, Fanq, Space};
use super::{accel, built, conformance, quoted, space};

const PACKETS: u64 = 4000;
/// By serve.c.
const STOPPED: u64 = PACKETS / 4;

#[test]
fn top_control_and_a_scrape_tell_what_an_accelerated_program_does() {
    let Some(space) = space() else { return };
    let options = ["--metrics", "9477", "--queue-maxlen", "500"];
    let words = [&accel(&options)[..], &[serve()]].concat();
    let mut accelerated = start(&space, &words);
    accelerated.await_line("metrics: http://127.0.0.1:9477/metrics");
    accelerated.await_ready();

    let program = look_at_it_idle(&space, accelerated.child.id());
    let mut top = start(&space, &["sh", "-c", &format!("exec {} >&2", fanq("top --json -i 0.2"))]);
    // It has looked twice, so it sees all that comes.
    top.await_line("fanq.top/1");
    let put = space.command(&[conformance(&[]), "through", &PACKETS.to_string()]).output();
    let said = put.expect("nsenter runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(&format!("came {PACKETS}")), "{said}");
    // In time, the rates of what came, as only the program knows them.
    loop {
        let line = top.await_line("fanq.top/1");
        let object: Value = serde_json::from_str(&line).expect("an object");
        let queue = &object["queues"][0];
        let number = |key: &str| queue[key].as_f64().unwrap_or(0.0);
        let verdict = |key: &str| queue["verdicts"][key].as_f64().unwrap_or(0.0);
        if verdict("accepted") > verdict("other") && verdict("other") > 0.0 {
            assert!(number("batch") >= 1.0 && number("bytes") > 0.0, "{line}");
            break;
        }
    }
    drop(top);

    let told = control(&space, "statistics").json();
    assert_eq!(told["accelerated"]["pid"], program, "{told}");
    for counts in [&told["totals"], &told["queues"][0]] {
        for (key, value) in [
            ("packets", PACKETS),
            ("batched", PACKETS),
            ("bytes", PACKETS * 32),
            ("accepted", PACKETS - STOPPED),
            ("stopped", STOPPED),
            ("dropped", 0),
            ("id_gaps", 0),
            ("verdict_errors", 0),
        ] {
            assert_eq!(counts[key], value, "{key} in {told}");
        }
        assert!(counts["batch_times"].is_null(), "nobody counts them: {told}");
        assert_eq!(counts["kernel"]["queue_dropped"], 0);
    }
    is_scraped(&space, &told["totals"]);

    accelerated.signal("TERM");
    let ended = accelerated.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(128 + 15), ""), "{}", ended.stderr);
    control(&space, "statistics").assert_refused(1, &["no fanq run serves"], "after the end");
}

/// What is seen before the first packet. Returns the program's process id.
fn look_at_it_idle(space: &Space, fanq_id: u32) -> Value {
    let output = space.command(&["sh", "-c", &fanq("top --once --json -i 0.2")]).output();
    let output = output.expect("nsenter runs");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let queue = &shown["queues"][0];
    assert_eq!((&queue["accelerated"], &queue["owner"]["name"]), (&true.into(), &"serve".into()));
    assert_eq!((&queue["maxlen"], &queue["bytes"]), (&500.into(), &0.0.into()), "{shown}");
    assert_eq!(shown["programs"][0]["accelerated"], true);
    let program = shown["programs"][0]["pid"].clone();
    assert_ne!(program, fanq_id);

    let output = space.command(&["sh", "-c", &fanq("top --once -i 0.2")]).output();
    let table = output.expect("nsenter runs").stdout;
    let table = String::from_utf8_lossy(&table);
    let owner = format!("{program}+serve");
    assert!(table.contains(&owner) && table.contains("[accelerated] "), "{table}");

    let told = control(space, "statistics").json();
    assert_eq!((&told["pid"], &told["accelerated"]["program"]), (&fanq_id.into(), &"serve".into()));
    assert_eq!(control(space, "get").json()["queue-maxlen"], 500);
    for (words, part) in [
        ("set copy-range 128", "start it again, with fanq accel --copy-range 128"),
        ("set log-level quiet", "no setting of fanq accel"),
        ("reload", "nothing to read again"),
    ] {
        control(space, words).assert_refused(1, &[part], words);
    }
    program
}

fn is_scraped(space: &Space, totals: &Value) {
    let (_, text) = scrape(space, "*/*");
    for (name, value) in [
        ("fanq_packets_total{queue=\"0\"}", PACKETS),
        ("fanq_bytes_total{queue=\"0\"}", PACKETS * 32),
        ("fanq_verdicts_total{queue=\"0\",verdict=\"accept\"}", PACKETS - STOPPED),
        ("fanq_verdicts_total{queue=\"0\",verdict=\"stop\"}", STOPPED),
        ("fanq_hook_packets_total{queue=\"0\",hook=\"input\"}", PACKETS),
        ("fanq_batch_packets_sum{queue=\"0\"}", PACKETS),
        ("fanq_queued_packets_total{queue=\"0\"}", PACKETS),
        ("fanq_queue_waiting_packets{queue=\"0\"}", 0),
        ("fanq_queue_limit_packets{queue=\"0\"}", 500),
        ("fanq_lost_packets_total{queue=\"0\",cause=\"queue_full\"}", 0),
        ("fanq_lost_packets_total{queue=\"0\",cause=\"socket_full\"}", 0),
        ("fanq_accelerated_info{program=\"serve\"}", 1),
        ("fanq_scrapes_total", 1),
    ] {
        assert_eq!(count(&text, name), value, "{name}");
    }
    for (name, key) in [
        ("fanq_receive_calls_total{queue=\"0\"}", "recv_calls"),
        ("fanq_send_calls_total{queue=\"0\"}", "send_calls"),
    ] {
        assert_eq!(Some(count(&text, name)), totals[key].as_u64(), "{name}");
    }
    for unknown in ["fanq_batch_seconds", "fanq_worker_info", "fanq_deferred"] {
        assert!(!text.contains(unknown), "{unknown} in {text}");
    }
    judge(&["check", "metrics"], &text);
}

#[test]
fn a_taken_port_is_refused_before_the_program_is_started() {
    let Some(space) = space() else { return };
    let words = [&accel(&["--metrics", "9477"])[..], &[serve()]].concat();
    let mut first = start(&space, &words);
    first.await_ready();
    let words = [&accel(&["--metrics", "9477"])[..], &["sh", "-c", "echo started"]].concat();
    let parts = ["--metrics 127.0.0.1:9477 cannot be had", "in use"];
    start(&space, &words).end().assert_refused(1, &parts, "taken");
}

#[test]
fn it_stays_to_be_asked_only_where_that_is_wished_for() {
    let Some(space) = Space::new() else { return };
    for (options, stays) in
        [(&["--control", "none"][..], false), (&["--control", "abstract"], true), (&[], false)]
    {
        let words = [&accel(options)[..], &["sh", "-c", "echo $$"]].concat();
        let script = format!("echo $$; exec {}", quoted(&words));
        let output = space.command(&["bash", "-c", &script]).output().expect("nsenter runs");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let ids: Vec<_> = stdout.lines().collect();
        assert_eq!((output.status.code(), ids.len()), (Some(0), 2), "{stdout}");
        assert_eq!(ids[0] != ids[1], stays, "{options:?}: {stdout}");
    }
}

fn start(space: &Space, words: &[&str]) -> Fanq {
    Fanq::new(space.command(words).spawn().expect("nsenter runs"))
}

/// Runs `fanq control` in the namespace.
fn control(space: &Space, request: &str) -> Ended {
    start(space, &["sh", "-c", &format!("exec timeout 20 {}", fanq(&format!("control {request}")))])
        .end()
}

/// A command line for a shell.
fn fanq(words: &str) -> String {
    format!("'{}' {words}", env!("CARGO_BIN_EXE_fanq"))
}

/// The program, built once.
fn serve() -> &'static str {
    static SERVE: OnceLock<std::path::PathBuf> = OnceLock::new();
    let path = SERVE.get_or_init(|| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accel");
        let source = std::fs::read_to_string(folder.join("serve.c")).expect("it is there");
        let include = format!("-I{}", folder.display());
        built("serve", &["-pthread", "-Wno-unused-function", &include], &source)
            .expect("cc builds it")
    });
    path.to_str().expect("the path is text")
}
