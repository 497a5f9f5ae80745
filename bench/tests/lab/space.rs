//! Where the tests of the lab take place: namespaces in which /run and the processes are the test's own.
//!
//! Invariant: all that a test starts ends with it, also when it fails, and a machine that lacks something is skipped
//! aloud.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_fanq-bench");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who runs the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Nobody,
}

/// Mount, network and process namespaces that live as long as this does.
pub(crate) struct Space {
    pub(crate) user: User,
    /// The words in front of a command that is to run in it.
    enter: Vec<String>,
    _holder: Killed,
}

impl Space {
    /// With the program under test at /mnt/fanq-bench, where everybody may read it.
    pub(crate) fn new(user: User) -> Option<Self> {
        if Path::new("/proc/self").metadata().unwrap().uid() != 0 {
            skip("needs root");
            return None;
        }
        let script = format!(
            "mount -t tmpfs none /run && mount -t tmpfs none /mnt && cp '{BENCH}' /mnt/ && \
             mkdir -m 1777 /mnt/tmp && ip link set lo up && echo ready && exec sleep 300"
        );
        let kinds = ["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"];
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "unshare"]).args(kinds).args(["sh", "-c", &script]);
        command.env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Killed(command.spawn().unwrap());
        let said = BufReader::new(holder.0.stdout.take().unwrap()).lines();
        if !said.map_while(Result::ok).any(|line| line == "ready") {
            skip(&format!("no namespace to test in: `{script}` ended"));
            return None;
        }
        let first = format!("--target={}", child_of(holder.0.id()));
        let enter = ["nsenter", &first, "--net", "--mount", "--pid", "--"].map(str::to_owned);
        let space = Self { user, enter: enter.into(), _holder: holder };
        if user == User::Nobody && space.shell("unshare --user --map-root-user true").code != 0 {
            skip("users may make no user namespaces here");
            return None;
        }
        Some(space)
    }

    /// A command in the space, killed with the test.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.enter[0]);
        command.args(&self.enter[1..]).arg("setpriv");
        if self.user == User::Nobody {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.args(["--pdeathsig=KILL", "env", "--chdir=/mnt"]).args(words);
        command.env("PATH", PATH).env("TMPDIR", "/mnt/tmp").env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Done {
        let words = [&["timeout", "-s", "KILL", "60"], words].concat();
        Done::from(self.command(&words).output().unwrap())
    }

    /// `fanq-bench lab` and these words.
    pub(crate) fn lab(&self, arguments: &str) -> Done {
        let arguments: Vec<_> = arguments.split(' ').collect();
        self.run(&[&["/mnt/fanq-bench", "lab"], &arguments[..]].concat())
    }

    /// As [`lab`](Self::lab), but goes on beside the test.
    pub(crate) fn start_lab(&self, arguments: &str) -> Killed {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let words = [&["/mnt/fanq-bench", "lab"], &arguments[..]].concat();
        let mut command = self.command(&words);
        Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    pub(crate) fn shell(&self, script: &str) -> Done {
        self.run(&["bash", "-c", script])
    }

    /// Whether the lab's commands have but a user namespace here.
    pub(crate) fn in_user_namespace(&self) -> bool {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let everybody = map.split_whitespace().eq(["0", "0", "4294967295"]);
        self.user == User::Nobody || !everybody
    }

    /// `lab status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let done = self.lab("status --json");
        assert_eq!(done.code, 0, "{}", done.err);
        serde_json::from_str(&done.out).unwrap()
    }

    /// The command lines of the processes here, but for those that are always there.
    pub(crate) fn processes(&self) -> Vec<String> {
        let listing =
            self.shell("cd /proc; for i in [0-9]*; do tr '\\0' ' ' <$i/cmdline; echo; done");
        let lines = listing.out.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| line.contains("fanq-bench") || line.contains("sleep 77")).collect()
    }

    /// No process, no namespace, no file.
    pub(crate) fn assert_nothing_left(&self) {
        wait_until("the end of all processes", || self.processes().is_empty());
        for (script, expected) in [
            // All processes are in the space's own network namespace, which nsenter's shell shows too.
            ("readlink /proc/[0-9]*/ns/net | sort -u | wc -l", "1\n"),
            ("ls -d /run/fanq* /run/netns /mnt/tmp/*; ls -A /mnt/tmp", ""),
            ("ip -br link | grep -vc '^lo '", "0\n"),
            ("grep -Ec 'netns|fanq-lab' /proc/self/mountinfo", "0\n"),
        ] {
            assert_eq!(self.shell(script).out, expected, "{script}");
        }
    }
}

/// A process that is killed at the end.
pub(crate) struct Killed(pub(crate) Child);

impl Killed {
    /// Reads its standard error until such a line.
    pub(crate) fn wait_for(&mut self, beginning: &str) {
        let mut stderr = BufReader::new(self.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without {beginning:?}");
        }
    }

    /// Waits for its end, and returns what it printed.
    pub(crate) fn finish(mut self) -> Done {
        let out = text_of(self.0.stdout.take());
        let err = text_of(self.0.stderr.take());
        Done { code: self.0.wait().unwrap().code().unwrap_or(-1), out, err }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text_of(pipe: Option<impl Read>) -> String {
    pipe.map(|pipe| std::io::read_to_string(pipe).unwrap()).unwrap_or_default()
}

/// Sends a signal.
pub(crate) fn signal(name: &str, pid: u32) {
    let script = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What cannot be tested here is said, and in CI it is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}

/// The only child of a process (the fourth field of /proc/PID/stat names the parent).
pub(crate) fn child_of(parent: u32) -> u32 {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = processes.filter_map(|name| name.to_str()?.parse().ok());
    pids.into_iter().find(is_child).unwrap()
}
