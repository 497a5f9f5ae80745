//! Goal: a thread that was confined cannot open another file, start a program, get a capability back or look into
//! another process, and can do what its role needs. Method: this same program is started again with a role in the
//! environment, as what is given up would be missed by the other tests; inside, what must fail is tried.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use super::*;

const ROLE: &str = "FANQ_TEST_CONFINED";

/// Runs the test of this name in a process of its own, in which it is told so.
fn in_a_process_of_its_own(name: &str) -> bool {
    if std::env::var_os(ROLE).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().unwrap();
    for inner in ["rules", "log", "run"] {
        fs::create_dir(folder.path().join(inner)).unwrap();
    }
    fs::write(folder.path().join("rules/rules.toml"), "old").unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("confine::tests::{name}"), "--nocapture"]);
    let output = command.env(ROLE, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{name}: {said}");
    false
}

/// What nobody can do any more.
fn assert_confined() {
    let open = File::open("/etc/passwd").map(drop).unwrap_err();
    assert_eq!(open.kind(), std::io::ErrorKind::PermissionDenied, "another file: {open}");
    Command::new("/bin/true").spawn().map(drop).unwrap_err();
    let all = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::SYS_ADMIN,
        permitted: rustix::thread::CapabilitySet::SYS_ADMIN,
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, all).unwrap_err();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
    assert!(!tcp, "a TCP port can be taken, and UDP {udp}");
    assert!(fs::read_dir("/").is_err() && fs::write("/tmp/fanq-confined", "x").is_err());
}

/// The kernel's word on the calling thread.
fn status_of_this_thread() -> String {
    fs::read_to_string("/proc/thread-self/status").unwrap()
}

#[test]
fn main_reads_its_rules_and_the_log_is_written_and_nothing_else() {
    if !in_a_process_of_its_own("main_reads_its_rules_and_the_log_is_written_and_nothing_else") {
        return;
    }
    let folder = PathBuf::from(std::env::var_os(ROLE).unwrap());
    let (rules, log) = (folder.join("rules/rules.toml"), folder.join("log/eve.json"));
    begin(&Wanted::default()).unwrap();
    allow(folders_of(&rules), place_of_log(&log));
    let socket = folder.join("run/control");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    allow_sockets([socket.clone()]);
    let (path, secret) = (log.clone(), folder.join("secret"));
    std::thread::spawn(move || {
        thread(Role::Log);
        let file = |path: &PathBuf| File::options().append(true).create(true).open(path);
        file(&path).unwrap().write_all(b"line\n").unwrap();
        // As when the log is rotated.
        file(&path.with_extension("2")).unwrap().write_all(b"line\n").unwrap();
        assert!(fs::read(&secret).is_err() && fs::read("/proc/self/status").is_err());
        assert_confined();
    })
    .join()
    .unwrap();
    let (said, open) = complete().unwrap();
    assert!(
        said.starts_with("limited: capabilities, new privileges, files, system calls;"),
        "{said}"
    );
    // The test's own harness has a thread too, which is found.
    assert!(open.unwrap_or_default().contains("has "), "{said}");
    // A file that was replaced is found again.
    fs::write(folder.join("rules/new"), "new").unwrap_err();
    assert_eq!(fs::read_to_string(&rules).unwrap(), "old");
    assert!(fs::read(&log).is_err(), "main does not read the log");
    let status = status_of_this_thread();
    for line in
        ["CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(status.contains(line) || line.starts_with("CapBnd"), "{line}: {status}");
    }
    let parent = format!("/proc/{}/environ", std::os::unix::process::parent_id());
    assert!(fs::read(&parent).is_err(), "{parent} can be read");
    assert_confined();
    // A socket that is bound is served, and its file removed.
    let asks = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    listener.accept().unwrap().0.write_all(b"x").unwrap();
    drop(asks);
    fs::remove_file(&socket).unwrap();
    // It may still start threads, which are confined as it is.
    std::thread::spawn(assert_confined).join().unwrap();
}

#[test]
fn a_worker_may_do_next_to_nothing() {
    if !in_a_process_of_its_own("a_worker_may_do_next_to_nothing") {
        return;
    }
    begin(&Wanted::default()).unwrap();
    std::thread::spawn(|| {
        thread(Role::Worker);
        // Twice, as when an inspector is made anew.
        thread(Role::Worker);
        assert_confined();
        assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err(), "a socket can be made");
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "a thread can be started");
        assert!(fs::read("/proc/self/status").is_err());
        // Memory and output are as ever.
        let bytes = vec![7_u8; 64 << 20];
        eprintln!("{}", bytes.len());
    })
    .join()
    .unwrap();
    // Whoever has no limits yet is not touched.
    assert!(fs::read("/etc/passwd").is_ok());
}

#[test]
fn off_gives_up_nothing() {
    if !in_a_process_of_its_own("off_gives_up_nothing") {
        return;
    }
    begin(&Wanted { confine: Confine::Off, ..Wanted::default() }).unwrap();
    thread(Role::Worker);
    let (said, open) = complete().unwrap();
    assert_eq!((said.as_str(), open), ("limited: nothing (--confine off)", None));
    assert!(fs::read("/etc/passwd").is_ok());
}

#[test]
fn full_is_refused_while_a_thread_is_not_confined() {
    if !in_a_process_of_its_own("full_is_refused_while_a_thread_is_not_confined") {
        return;
    }
    begin(&Wanted { confine: Confine::Full, ..Wanted::default() }).unwrap();
    let (_keeps, waits) = std::sync::mpsc::channel::<()>();
    std::thread::Builder::new().name("forgotten".into()).spawn(move || waits.recv()).unwrap();
    let error = complete().unwrap_err().to_string();
    assert!(
        error.contains("the thread forgotten has ") && error.contains("--confine full"),
        "{error}"
    );
}
