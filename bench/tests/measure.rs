//! Goal: a measuring command leaves a true account of every packet, and after a failure what it had measured.
//! Method: the program itself, as root, in labs of its own: short loads of known size, and targets that misbehave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_fanq-bench");

/// A run's end, and its result if it left one.
struct Ended {
    code: i32,
    stderr: String,
    out: PathBuf,
}

impl Ended {
    fn result(&self) -> Value {
        let text = std::fs::read_to_string(&self.out).unwrap_or_else(|_| panic!("{}", self.stderr));
        serde_json::from_str(&text).unwrap()
    }

    fn trials(&self) -> Vec<Value> {
        self.result()["trials"].as_array().unwrap().clone()
    }
}

/// Whether tests can run here; says aloud if not, and fails in CI.
fn can_measure() -> bool {
    let root = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let whole = root.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let can = whole && is_root;
    if !can {
        skip("loading BPF programs needs root of the machine");
    }
    can
}

fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}

/// Runs a command line of the bench; the result goes to a file of the test's own.
fn bench(name: &str, line: &str) -> Ended {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let _ = std::fs::remove_file(&out);
    let words: Vec<_> = line.split('|').flat_map(split_words).collect();
    let output = run(&words, &out);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr) + &text(&output.stdout);
    Ended { code: output.status.code().unwrap_or(-1), stderr, out }
}

/// Words at blanks, but what stands between bars is one word.
fn split_words(part: &str) -> Vec<String> {
    if part.starts_with(' ') || part.ends_with(' ') || !part.contains(' ') {
        part.split_ascii_whitespace().map(str::to_owned).collect()
    } else {
        vec![part.to_owned()]
    }
}

fn run(words: &[String], out: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "90", BENCH]).args(words).arg("--out").arg(out);
    command.stdin(Stdio::null()).output().unwrap()
}

/// How many targets have a trial that counts: where the host takes CPU time again and again, one may have none.
fn valid_targets(trials: &[Value], purpose: &str) -> usize {
    let valid =
        trials.iter().filter(|trial| trial["purpose"] == purpose && trial["void"].is_null());
    let names: std::collections::BTreeSet<_> =
        valid.map(|trial| trial["target"].as_str().unwrap()).collect();
    names.len()
}

fn count(trial: &Value, place: &str) -> u64 {
    trial["account"][place].as_u64().unwrap()
}

#[test]
fn every_packet_has_its_place() {
    if !can_measure() {
        return;
    }
    let ended = bench(
        "places",
        "cpu --rounds 1 --packets 20000 --target |fanq:--policy drop:10| --target fanq ",
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let trials = ended.trials();
    let target_of = |trial: &Value| trial["target"].as_str().unwrap().to_owned();
    let last = |name: &str| trials.iter().rev().find(|trial| target_of(trial) == name).unwrap();
    let (dropping, accepting) = (last("fanq:--policy drop:10"), last("fanq"));
    assert_eq!(count(dropping, "offered") % 20_000, 0);
    let dropped = count(dropping, "policy_drops");
    assert!(dropped * 20 > count(dropping, "offered"), "{dropping}");
    assert_eq!(count(accepting, "policy_drops"), 0);
    for trial in &trials {
        let places =
            ["delivered", "policy_drops", "queue_drops", "socket_drops", "flushed", "device_drops"];
        let sum: u64 = places.iter().map(|place| count(trial, place)).sum();
        assert_eq!(sum, count(trial, "offered"), "{trial}");
        assert_eq!(trial["account"]["unaccounted"], 0);
        assert!(trial["cpu"]["us"].as_f64().unwrap() > 0.0, "{trial}");
    }
    let found = ended.result()["findings"]["cpu"].as_array().unwrap().len();
    let whole = ended.result()["run"]["complete"].as_bool();
    assert_eq!((found, whole), (valid_targets(&trials, "cpu"), Some(true)));
}

/// What a target drops unseen under load is a loss with a place of its own, where targets run one by one and where they
/// run at once.
#[test]
fn what_a_target_sheds_has_its_place() {
    if !can_measure() {
        return;
    }
    let target = "fanq:--on-overload drop --overload-depth 200 --work-ns 20000";
    for (name, command) in [
        ("shed-cpu", "cpu --rounds 1 --packets 20000"),
        ("shed-apart", "cpu --rounds 1 --packets 20000 --apart"),
    ] {
        let ended = bench(name, &format!("{command} --target |{target}| "));
        assert_eq!(ended.code, 0, "{name}: {}", ended.stderr);
        let trials = ended.trials();
        let shed: u64 = trials.iter().map(|trial| count(trial, "shed")).sum();
        assert!(shed > 0, "{name}: {}", ended.stderr);
        for trial in &trials {
            assert_eq!(
                (count(trial, "policy_drops"), count_of(trial, "unaccounted")),
                (0, 0),
                "{trial}"
            );
        }
    }
}

#[test]
fn every_load_arrives_with_its_delays() {
    if !can_measure() {
        return;
    }
    for (name, load) in [
        ("xdp4", "--load xdp --frame imix --flows 1000 --flow-choice zipf --arrivals poisson"),
        ("xdp6", "--load xdp --family ipv6 --hook input --arrivals burst:16"),
        ("udp4", "--load udp --frame 3000 --flows 100000"),
        ("udp6", "--load udp --family ipv6 --frame 9000"),
    ] {
        let line = format!(
            "latency --rate 2000 --rounds 1 --seconds 0.3 --target none --target kernel {load} "
        );
        let ended = bench(name, &line);
        assert_eq!(ended.code, 0, "{load}: {}", ended.stderr);
        let trials = ended.trials();
        for target in ["none", "kernel"] {
            assert!(trials.iter().any(|trial| trial["target"] == target), "{load}: no {target}");
        }
        // A machine that is busy makes the generator late; the packets arrive all the same.
        for trial in trials {
            let delivered = count(&trial, "delivered");
            assert_eq!(delivered, count(&trial, "offered"), "{load}: {trial}");
            assert!(delivered >= 600, "{load}: {trial}");
            let buckets = trial["latency"].as_array().unwrap();
            let measured: u64 =
                buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
            assert_eq!(measured, delivered, "{load}");
            assert_eq!((count(&trial, "duplicates"), count(&trial, "reordered")), (0, 0), "{load}");
        }
    }
}

#[test]
fn tcp_goes_through_whole_and_in_short_connections() {
    if !can_measure() {
        return;
    }
    let ended = bench("tcp", "tcp --rounds 1 --seconds 0.3 --target fanq --target none ");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let findings = &ended.result()["findings"];
    for (question, figure) in [("tcp", "gbit_per_s"), ("connections", "per_second")] {
        let found = findings[question].as_array().unwrap();
        assert_eq!(found.len(), valid_targets(&ended.trials(), question), "{question}");
        assert!(found.iter().all(|finding| finding[figure]["median"].as_f64().unwrap() > 0.0));
    }
    let through_queues: Vec<_> =
        ended.trials().into_iter().filter(|trial| trial["target"] == "fanq").collect();
    assert!(through_queues.iter().all(|trial| trial["cpu"]["answered"].as_u64().unwrap() > 0));
}

#[test]
fn a_rate_beyond_the_generator_is_void_not_wrong() {
    if !can_measure() {
        return;
    }
    let ended = bench(
        "beyond",
        "latency --rate 20000000 --rounds 1 --seconds 0.05 --target none --hook input ",
    );
    let trials = ended.trials();
    assert!(!trials.is_empty(), "{}", ended.stderr);
    for trial in trials {
        let why = trial["void"].as_str().unwrap();
        assert!(why.starts_with("the generator"), "{why}");
    }
    assert_eq!(ended.result()["findings"]["latencies"].as_array().unwrap().len(), 0);
}

#[test]
fn targets_that_fail_are_named_and_what_was_measured_is_kept() {
    if !can_measure() {
        return;
    }
    let fanq = Path::new(BENCH).with_file_name("fanq");
    let fanq = fanq.display();
    let silent = written("silent.sh", b"exec sleep 60");
    // It serves its queues for a second, and then does nothing more, not even end when it is told to.
    let stop = format!("(sleep 1; kill -STOP $$) & exec {fanq} run --queues $1");
    let stopped = written("stopped.sh", stop.as_bytes());
    let load = "--rate 1000 --rounds 1 --seconds 2 --target kernel --target";
    for (name, target, said) in [
        ("dies", "exec:ls no-such-file-{queues}".to_owned(), "ended"),
        ("missing", "exec:no-such-program {queues}".to_owned(), "no-such-program"),
        ("silent", format!("exec:sh {} {{queues}}", silent.display()), "did not bind queues"),
        ("hangs", format!("exec:sh {} {{queues}}", stopped.display()), "and was killed"),
        ("early", format!("exec:timeout 1 {fanq} run --queues {{queues}}"), "during a trial"),
    ] {
        let ended = bench(name, &format!("latency {load} |{target}| --hook input "));
        assert_eq!(ended.code, 1, "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{name}: {}", ended.stderr);
    }
    for name in ["early", "hangs"] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(kept["run"]["complete"], false);
        let trials = kept["trials"].as_array().unwrap();
        assert!(!trials.is_empty(), "{name}");
        assert!(trials.iter().all(|trial| trial["target"] == "kernel"), "{name}");
    }
}

/// A load whose target drops packets and does not say how many.
#[test]
fn a_load_with_packets_that_have_no_place_fails() {
    if !can_measure() {
        return;
    }
    let fanq = Path::new(BENCH).with_file_name("fanq");
    let secretive =
        format!("exec:{} run --queues {{queues}} --policy drop:50 --summary text", fanq.display());
    let words = ["load", "--rate", "2000", "--packets", "500", "--target", "none", "--target"];
    let output = Command::new(BENCH).args(words).arg(&secretive).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("unaccounted for") && stderr.contains(&secretive), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "both are told");
}

/// Where targets run at once, each has the rules for its own bypass.
#[test]
fn a_target_that_bypasses_flows_does_so_among_others() {
    if !can_measure() {
        return;
    }
    let target = "fanq:--bypass-after 10 --bypass-mark 0x1";
    let line =
        format!("cpu --rounds 1 --packets 5000 --rate 20000 --target fanq --target |{target}| ");
    let ended = bench("bypass", &line);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for trial in ended.trials() {
        let (offered, answered) =
            (count(&trial, "offered"), trial["cpu"]["answered"].as_u64().unwrap());
        assert_eq!(answered * 2 < offered, trial["target"] == target, "{trial}");
        assert_eq!((count_of(&trial, "unaccounted"), count(&trial, "duplicates")), (0, 0));
    }
}

/// Whose reader is gone before the first byte ends by SIGPIPE, without a word.
#[test]
fn whoever_reads_may_stop() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(BENCH).arg("schema").stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(13));
}

/// They come in that CPU's queue, and the thread goes with the lab.
#[test]
fn a_thread_of_the_kernel_takes_packets_up_on_the_queues_cpu() {
    if !can_measure() {
        return;
    }
    let seen = std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    if !seen || std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!(
            "SKIPPED: needs two CPUs, and no process namespace, which hides the kernel's threads"
        );
        return;
    }
    let line = "latency --topology threaded --rate 2000 --rounds 1 --seconds 0.3 --target fanq ";
    let ended = bench("threaded", line);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for trial in ended.trials() {
        let queues = trial["queues"].as_array().unwrap().iter();
        let packets: Vec<_> = queues.map(|queue| queue["packets"].as_u64().unwrap()).collect();
        let (loads, queues) = packets.split_at(packets.len() / 2);
        assert!(loads.iter().all(|packets| *packets == 0), "{trial}");
        assert_eq!(queues.iter().sum::<u64>(), count(&trial, "offered"), "{trial}");
        assert_eq!(count(&trial, "delivered"), count(&trial, "offered"), "{trial}");
    }
    let wait = "while grep -qs ^napi/engine /proc/[0-9]*/comm; do sleep 0.05; done";
    let waited = Command::new("timeout").args(["20", "sh", "-c", wait]).status().unwrap();
    assert!(waited.success(), "a lab's thread is left");
}

#[test]
fn bad_input_ends_before_anything_is_built() {
    for (status, line, said) in [
        (2, "latency --target fnord ", "fnord"),
        (2, "latency --target |exec:my-ips 0-3| ", "{queues}"),
        (2, "latency --flows 0 ", "--flows"),
        (2, "latency --seconds 0 ", "0.01 to 3600"),
        (2, "ndr --first fast ", "--first"),
        (1, "latency --frame 20 ", "--frame 20"),
        (2, "latency --fragments 2 ", "a share from 0 to 1"),
        (1, "latency --load xdp --fragments 0.1 ", "take --load udp"),
        (2, "latency --load pcap ", "pcap:FILE"),
        (1, "load pcap no-such-file.pcap ", "no-such-file.pcap"),
        (1, "ndr --lab no-such-lab ", "no-such-lab"),
        (1, "sweep no-such-file.toml ", "no-such-file.toml"),
        (1, "compare no-such-a.json no-such-b.json ", "no-such-a.json"),
        (1, "compare ", "Usage"),
    ] {
        let words: Vec<_> = line.split('|').flat_map(split_words).collect();
        let output = Command::new(BENCH).args(&words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {stderr}");
        assert!(stderr.contains(said), "{line}: {stderr}");
    }
    let ended = bench("nowhere/result", "latency --target none --rounds 1 --seconds 0.1 ");
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("cannot be written"), "{}", ended.stderr);
}

#[test]
fn datagrams_in_fragments_have_their_place() {
    if !can_measure() {
        return;
    }
    for (name, more) in [
        ("cut4", "--fragments 0.5"),
        ("cut6", "--fragments 1 --family ipv6"),
        ("cut-input", "--fragments 1 --hook input"),
    ] {
        let targets = "--target none --target fanq --target |fanq:--policy drop:30|";
        let line = format!("load --load udp {more} --rate 5000 --packets 600 {targets} ");
        let words: Vec<_> = line.split('|').flat_map(split_words).collect();
        let output = Command::new(BENCH).args(&words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found.len(), 3, "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let packets = if name == "cut4" { 900 } else { 1200 };
        for trial in &found {
            let offered = count_of(trial, "offered");
            assert_eq!(offered % packets, 0, "{name}: {trial}");
            assert!(offered > 0 && count_of(trial, "unaccounted") == 0, "{name}: {trial}");
            if trial["target"].as_str().unwrap().contains("drop") {
                assert!(count_of(trial, "policy_drops") > 0, "{name}: {trial}");
                assert!(count_of(trial, "incomplete") > 0, "{name}: {trial}");
            } else {
                assert_eq!(count_of(trial, "delivered"), offered, "{name}: {trial}");
            }
        }
    }
}

/// A pcap of Ethernet frames, a millisecond apart.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([65_535_u32, 1].iter().flat_map(|number| number.to_le_bytes()));
    for (frame, at) in frames.iter().zip(0_u32..) {
        let length = u32::try_from(frame.len()).unwrap();
        file.extend([7, at * 1000, length, length].iter().flat_map(|number| number.to_le_bytes()));
        file.extend(frame);
    }
    file
}

/// UDP between addresses that the lab knows nothing of.
fn frame(number: u8, hops: u8, ipv6: bool) -> Vec<u8> {
    let ethernet = etherparse::PacketBuilder::ethernet2([9; 6], [8; 6]);
    let ip = if ipv6 {
        let mut to = [0xfc; 16];
        to[15] = number;
        ethernet.ipv6([0xfd; 16], to, hops)
    } else {
        ethernet.ipv4([192, 0, 2, number], [198, 51, 100, 7], hops)
    };
    let mut bytes = Vec::new();
    ip.udp(5, 53).write(&mut bytes, &[number; 40]).unwrap();
    bytes
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn every_packet_of_a_capture_has_its_place() {
    if !can_measure() {
        return;
    }
    // 120 of IPv4, 60 of IPv6, 20 that must not go further, one that is no IP.
    let mut frames: Vec<_> = (0..180).map(|number| frame(number, 64, number % 3 == 0)).collect();
    frames.extend((0..20).map(|number| frame(number, 1, false)));
    let mut arp = frame(1, 64, false);
    arp[12..14].copy_from_slice(&[8, 6]);
    frames.push(arp);
    let path = written("mine.pcap", &pcap(&frames));
    let targets = "--target none --target kernel --target fanq --target |fanq:--policy drop|";
    let line = format!("load pcap |{}| --speed 4 {targets}", path.display());
    let ended = bench("replayed", &line);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let lines = ended.stderr.lines().filter(|line| line.starts_with('{'));
    let found: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 4, "{}", ended.stderr);
    for trial in &found {
        let counts = ["offered", "unrouted", "unaccounted", "queue_drops", "device_drops"];
        assert_eq!(counts.map(|place| count_of(trial, place)), [200, 20, 0, 0, 0], "{trial}");
        let dropped = if trial["target"] == "fanq:--policy drop" { 180 } else { 0 };
        assert_eq!(count_of(trial, "policy_drops"), dropped, "{trial}");
        assert_eq!(count_of(trial, "delivered"), 180 - dropped, "{trial}");
        // From the first that was sent to the last. The first may have been late, but all at once take no millisecond.
        let seconds = trial["seconds"].as_f64().unwrap();
        assert!(seconds > 0.04, "199 ms of capture, four times as fast, took {seconds} s");
    }
}

fn count_of(trial: &Value, place: &str) -> i64 {
    trial["account"][place].as_i64().unwrap()
}

#[test]
fn a_capture_is_measured_like_other_loads() {
    if !can_measure() {
        return;
    }
    let frames: Vec<_> = (0..100).map(|number| frame(number, 64, false)).collect();
    let path = written("measured.pcap", &pcap(&frames));
    let line =
        format!("cpu --load |pcap:{}| --rounds 1 --packets 5000 --target fanq ", path.display());
    let ended = bench("measured", &line);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let result = ended.result();
    assert_eq!(result["load"]["capture"]["name"], "measured.pcap");
    assert_eq!(result["load"]["capture"]["packets"], 100);
    let trial = &ended.trials()[0];
    assert_eq!(count(trial, "offered") % 5000, 0, "{trial}");
    assert_eq!(trial["account"]["unaccounted"], 0, "{trial}");
    let line = format!("latency --load |pcap:{}| --rate 1000 --target fanq ", path.display());
    let refused = bench("no-delays", &line);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("carry no times"), "{}", refused.stderr);
}

#[test]
fn a_broken_capture_is_named_with_its_record() {
    if !can_measure() {
        return;
    }
    let good = pcap(&[frame(1, 64, false), frame(2, 64, false)]);
    for (name, bytes, said) in [
        ("no.pcap", b"hello, world".to_vec(), "no.pcap: it is neither pcap nor pcapng"),
        (
            "cut.pcap",
            good[..good.len() - 1].to_vec(),
            "cut.pcap: record 2: the file ends within it",
        ),
        ("empty.pcap", pcap(&[]), "empty.pcap: it holds no IP packet"),
    ] {
        let path = written(name, &bytes);
        let ended = bench(name, &format!("load pcap |{}| --target none ", path.display()));
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let hook = format!("load pcap |{}| --hook input ", written("good.pcap", &good).display());
    let refused = bench("input", &hook);
    assert!(refused.stderr.contains("take --hook forward"), "{}", refused.stderr);
}
