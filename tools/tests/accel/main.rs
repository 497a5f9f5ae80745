//! Goal: a program under `fanq accel` does and sees exactly what it does and sees without it, with fewer system calls.
//!
//! Method: two conformance programs, in C (also fortified) and in Python, do all that programs do with a queue and
//! print what they see; their output with and without the library is compared, in network namespaces of the test's
//! own. Then programs as they are: a loop of libnetfilter_queue, Python's NetfilterQueue, and some of Debian's
//! (`debian`), where they can be had. In `seen`: what others see of such a program.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `ip`, `iptables`, cc, python3, and the library beside the program
//! (cargo build --package fanq-accel). What is missing is SKIPPED aloud, or a failure if CI is set.

mod crowd;
mod debian;
#[path = "../scrape/mod.rs"]
mod scrape;
mod seen;
#[path = "../space/mod.rs"]
mod space;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use space::{PATIENCE, Space, skip};

#[test]
fn a_c_program_sees_and_does_the_same() {
    same_with_and_without(&[conformance(&[])]);
}

#[test]
fn a_fortified_c_program_sees_and_does_the_same() {
    same_with_and_without(&[conformance(&["-D_FORTIFY_SOURCE=2"])]);
}

#[test]
fn it_does_so_in_any_size_of_batch() {
    let Some(plain) = transcript(&[], &[conformance(&[])]) else { return };
    for batch in ["1", "3", "256"] {
        let under = transcript(&["--batch", batch], &[conformance(&[])]).expect("it ran before");
        assert_same(&plain, &under, &format!("--batch {batch}"));
    }
}

#[test]
fn a_python_program_sees_and_does_the_same() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accel/conformance.py");
    for seed in ["1", "2", "3"] {
        same_with_and_without(&["python3", program.to_str().expect("text"), seed]);
    }
}

#[test]
fn a_loop_takes_two_system_calls_for_many_packets_and_the_account_adds_up() {
    let Some(account) = account_of_loop(&[]) else { return };
    let totals = &account["totals"];
    let count = |key: &str| totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {account}"));
    assert_eq!(
        (count("packets"), count("accepted"), count("dropped")),
        (150, 129, 21),
        "{account}"
    );
    assert!(count("recv_calls") <= 5 && count("send_calls") <= 5 + 42, "{account}");
    assert_eq!(account["queues"][0]["queue"], 0);
    assert_eq!(account["schema"], "fanq.run/1");
    let plain = account_of_loop(&["--batch", "1"]).expect("it ran before");
    assert_eq!(plain["totals"]["recv_calls"], 150, "one at a time: {plain}");
}

/// The account of the conformance program's first case.
fn account_of_loop(options: &[&str]) -> Option<Value> {
    let space = space()?;
    let options = [&["--stats", "1000", "--summary", "json"], options].concat();
    let words = [&accel(&options)[..], &[conformance(&[]), "loop"]].concat();
    let output = space.command(&words).output().expect("nsenter runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let last = stdout.lines().next_back().unwrap_or_default();
    Some(serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {stdout}")))
}

#[test]
fn what_the_program_cannot_set_is_set_for_it() {
    let Some(space) = space() else { return };
    let options = [
        ["--rcvbuf", "8MiB", "--queue-maxlen", "7", "--copy-range", "20"],
        ["--cpu", "0", "--nice", "-7", "--batch", "9"],
    ]
    .concat();
    // A niceness that somebody has given the tests would be left as it is.
    let script = format!(
        "renice -n 0 -p $$ >/dev/null; {} {} options & child=$!; wait $child; echo status $?",
        accel(&options).join(" "),
        conformance(&[])
    );
    let output = space.command(&["bash", "-c", &script]).output().expect("nsenter runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    for line in [
        "buffer 16777216",
        "copied 20 of 32",
        "waiting 7",
        "cpu 0",
        "status 0",
        "nice -7 of a child 0",
    ] {
        assert!(stdout.lines().any(|said| said.trim() == line), "no `{line}` in {stdout}");
    }
}

#[test]
fn programs_that_cannot_be_helped_are_told_why() {
    let Some(space) = Space::new() else { return };
    let program = built("static", &["-static"], "int main(void) { return 0; }");
    let Some(program) = program else { return skip("cc cannot link statically here") };
    for (command, part) in [
        (program.to_str().expect("text"), "statically linked"),
        ("no-such-program-here", "no program no-such-program-here in PATH"),
    ] {
        let words = [&accel(&[])[..], &[command]].concat();
        let output = space.command(&words).output().expect("nsenter runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(part), "no `{part}` in {stderr}");
    }
}

#[test]
fn without_statistics_it_becomes_the_program() {
    let Some(space) = Space::new() else { return };
    let words = [&accel(&[])[..], &["sh", "-c", "echo $$; exit 7"]].concat();
    let script = format!("echo $$; exec {}", quoted(&words));
    let output = space.command(&["bash", "-c", &script]).output().expect("nsenter runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let ids: Vec<_> = stdout.lines().collect();
    assert_eq!((output.status.code(), ids.len()), (Some(7), 2), "{stdout}");
    assert_eq!(ids[0], ids[1], "the same process");
    let words = [&accel(&["--stats", "9"])[..], &["sh", "-c", "kill -TERM $$"]].concat();
    let output = space.command(&words).output().expect("nsenter runs");
    assert_eq!(output.status.code(), Some(128 + 15), "with them it ends as the program ended");
}

#[test]
fn what_is_sent_to_the_parent_reaches_the_program() {
    let Some(space) = Space::new() else { return };
    let program = "trap 'echo got it; exit 6' INT; echo ready: >&2; while :; do sleep 0.05; done";
    let words = [&accel(&["--stats", "0.1"])[..], &["bash", "-c", program]].concat();
    let mut running = space::Fanq::new(space.command(&words).spawn().expect("nsenter runs"));
    running.await_ready();
    running.signal("INT");
    let ended = running.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(6), "got it\n"), "{}", ended.stderr);
}

#[test]
fn that_nobody_reads_its_tables_does_not_change_how_it_ends() {
    let Some(space) = Space::new() else { return };
    let words = [&accel(&["--stats", "9"])[..], &["sh", "-c", "read line; exit 7"]].concat();
    let mut command = space.command(&words);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("nsenter runs");
    drop(running.stderr.take());
    drop(running.stdin.take());
    assert_eq!(running.wait().expect("it ends").code(), Some(7));
}

#[test]
fn libnetfilter_queues_own_loop_is_accelerated() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/peers/libnetfilter_queue.c");
    let source = std::fs::read_to_string(source).expect("it is in the repository");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/peers");
    let include = format!("-I{}", folder.display());
    let libraries = ["-pthread", include.as_str(), "-lnetfilter_queue", "-lnfnetlink"];
    match built("libnetfilter_queue", &libraries, &source) {
        Some(program) => is_accelerated(program.to_str().expect("text"), |process| {
            // Its first thread sets the queue up, and another reads it.
            let niceness = niceness_of_threads(process);
            assert_eq!(niceness[0], 0, "{niceness:?}");
            assert_eq!(niceness.iter().filter(|nice| **nice == -5).count(), 1, "{niceness:?}");
        }),
        None => skip("libnetfilter-queue-dev is missing"),
    }
}

#[test]
fn pythons_netfilterqueue_is_accelerated() {
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_fanq"));
    let places = folder.ancestors().skip(2).map(|folder| folder.join("peers/netfilterqueue"));
    let chosen =
        std::env::var_os("FANQ_PEERS").map(|peers| PathBuf::from(peers).join("netfilterqueue"));
    match chosen.into_iter().chain(places.take(1)).find(|program| program.is_file()) {
        Some(program) => is_accelerated(program.to_str().expect("text"), |_| ()),
        // It takes the Python index; nothing of the tests' own does.
        None => eprintln!("SKIPPED: build it first: scripts/peers.sh build netfilterqueue"),
    }
}

/// A program as the bench has them takes many packets with each receive, and loses none. `look` at its process.
fn is_accelerated(program: &str, look: impl FnOnce(u32)) {
    let Some(space) = space() else { return };
    // A niceness that somebody has given the tests would be left as it is.
    let usual = ["sh", "-c", "renice -n 0 -p $$ >/dev/null; exec \"$@\"", "sh"];
    let words = accel(&["--stats", "1000", "--summary", "json"]);
    let words = [&usual[..], &words[..], &[program, "-l", "4000", "0-0"]].concat();
    let mut running = space::Fanq::new(space.command(&words).spawn().expect("nsenter runs"));
    running.await_ready();
    let put = [conformance(&[]), "through", "2000"];
    // Stopped meanwhile, it finds some 60 packets when it goes on: they lie there together, whatever else runs.
    let program = last_child_of(running.child.id()).to_string();
    let kill = |signal: &str| {
        let done = Command::new("kill").args([signal, &program]).status().expect("kill runs");
        assert!(done.success());
    };
    kill("-STOP");
    let putting = space.command(&put).spawn().expect("nsenter runs");
    let deadline = Instant::now() + PATIENCE;
    while waiting(&space) < 32 {
        assert!(Instant::now() < deadline, "few packets came: {} wait", waiting(&space));
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-CONT");
    let output = putting.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("came 2000"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    look(child_of(running.child.id()));
    running.signal("TERM");
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let account: Value = serde_json::from_str(ended.stdout.lines().next_back().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error} in {}", ended.stdout));
    let totals = &account["totals"];
    assert_eq!(
        (&totals["packets"], &totals["accepted"]),
        (&2000.into(), &2000.into()),
        "{account}"
    );
    // Of the others how many are there at once hangs on timing.
    assert!(totals["recv_calls"].as_u64().is_some_and(|calls| calls < 1980), "{account}");
}

/// Packets that wait in the queue (NFQUEUE's table, third column).
fn waiting(space: &Space) -> u32 {
    let table = ["cat", "/proc/net/netfilter/nfnetlink_queue"];
    let output = space.command(&table).output().expect("nsenter runs");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    table.split_whitespace().nth(2).map_or(0, |waiting| waiting.parse().expect("a number"))
}

fn child_of(process: u32) -> u32 {
    children_of(process).trim().parse().expect("it has one child")
}

/// Python's program has a process for each queue.
fn last_child_of(mut process: u32) -> u32 {
    while let Ok(child) = children_of(process).trim().parse() {
        process = child;
    }
    process
}

fn children_of(process: u32) -> String {
    let path = format!("/proc/{process}/task/{process}/children");
    std::fs::read_to_string(path).expect("it runs")
}

/// Of each thread of a process, the first one's first (proc_pid_stat(5)).
fn niceness_of_threads(process: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let id = |task: std::io::Result<std::fs::DirEntry>| {
        task.expect("an entry").file_name().to_str().expect("digits").parse::<u32>().expect("an id")
    };
    let mut ids: Vec<_> = tasks.map(id).collect();
    ids.sort_unstable_by_key(|id| (*id != process, *id));
    let niceness = |id: u32| {
        let path = format!("/proc/{process}/task/{id}/stat");
        let stat = std::fs::read_to_string(path).expect("the thread lives");
        let (_, behind_name) = stat.rsplit_once(") ").expect("it has a name");
        behind_name.split(' ').nth(16).expect("a niceness").parse().expect("a number")
    };
    ids.into_iter().map(niceness).collect()
}

/// Holds the program's output under the library to that without.
fn same_with_and_without(program: &[&str]) {
    let Some(plain) = transcript(&[], program) else { return };
    let under = transcript(&accel(&[]), program).expect("it ran before");
    assert_same(&plain, &under, &program.join(" "));
}

fn assert_same(plain: &str, under: &str, what: &str) {
    let differs = plain.lines().zip(under.lines()).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let line = |text: &str| text.lines().nth(at).unwrap_or_default().to_owned();
        let case = plain.lines().take(at + 1).filter(|line| !line.starts_with(' ')).last();
        panic!(
            "{what}: {case:?}, line {}: plain {:?}, accelerated {:?}",
            at + 1,
            line(plain),
            line(under)
        );
    }
    assert_eq!(plain.lines().count(), under.lines().count(), "{what}: one ends early");
}

/// What a program prints, behind these words; `--...` are options of `fanq accel`. None where it is skipped.
fn transcript(before: &[&str], program: &[&str]) -> Option<String> {
    let space = space()?;
    let before = match before {
        [first, ..] if first.starts_with("--") => accel(before),
        words => words.to_vec(),
    };
    let words = [&["timeout", "60"], &before[..], program].concat();
    let output = space.command(&words).output().expect("nsenter runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}: {stdout}{stderr}", output.status);
    assert!(stdout.ends_with("done\n"), "{words:?}: {stdout}{stderr}");
    Some(stdout)
}

/// A namespace in which what comes to port 9000 goes into queue 0, and to 9001 into queue 1.
fn space() -> Option<Space> {
    let space = Space::new()?;
    space.shell(
        "mount -t tmpfs tmpfs /run && ip link set lo up && for queue in 0 1; do \
         iptables -A INPUT -p udp --dport 900$queue -j NFQUEUE --queue-num $queue; done",
    );
    Some(space)
}

/// The words that start a program under the library.
fn accel<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let library = Path::new(env!("CARGO_BIN_EXE_fanq")).with_file_name("libfanq_accel.so");
    assert!(library.is_file(), "build the library: cargo build --package fanq-accel");
    [&[env!("CARGO_BIN_EXE_fanq"), "accel"], options, &["--"]].concat()
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// The conformance program, built once for each set of flags.
fn conformance(flags: &[&'static str]) -> &'static str {
    static PLAIN: OnceLock<PathBuf> = OnceLock::new();
    static FORTIFIED: OnceLock<PathBuf> = OnceLock::new();
    let (cell, name) = if flags.is_empty() {
        (&PLAIN, "conformance")
    } else {
        (&FORTIFIED, "conformance-fortified")
    };
    let path = cell.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accel");
        let source = std::fs::read_to_string(folder.join("conformance.c")).expect("it is there");
        let include = format!("-I{}", folder.display());
        let flags = [flags, &["-pthread", include.as_str()]].concat();
        built(name, &flags, &source).expect("cc builds it")
    });
    path.to_str().expect("the path is text")
}

/// A program from C; None if it cannot be built.
fn built(name: &str, flags: &[&str], source: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (code, program) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&code, source).expect("the folder is ours");
    let output = Command::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra"])
        .arg("-o")
        .args([&program, &code])
        .args(flags)
        .output()
        .expect("cc runs");
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success().then_some(program)
}
