//! Where the tests of `fanq rules` take place: a namespace, a program whose queues hold packets, and the words to
//! ask the kernel with.
//!
//! Invariant: what a test starts ends with it, and a machine that lacks something is skipped aloud.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

pub(crate) const FANQ: &str = env!("CARGO_BIN_EXE_fanq");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network and mount namespace that lives as long as this does.
pub(crate) struct Namespace {
    pub(crate) holder: Running,
    /// The words in front of a command that is to run in it.
    pub(crate) enter: Vec<String>,
    /// A copy of fanq that everybody may read, where the built one is in somebody's home.
    pub(crate) fanq: String,
    _copy: Option<tempfile::TempDir>,
}

impl Namespace {
    pub(crate) fn new() -> Option<Self> {
        Self::start(&[], "-nm", &["--net", "--mount"], (FANQ.to_owned(), None))
    }

    /// One made and used by a user without any privilege.
    pub(crate) fn unprivileged() -> Option<Self> {
        let copy = tempfile::tempdir().unwrap();
        std::fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let fanq = copy.path().join("fanq");
        std::fs::copy(FANQ, &fanq).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let kinds = ["--user", "--preserve-credentials", "--net", "--mount"];
        Self::start(&nobody, "-Urnm", &kinds, (fanq.to_str().unwrap().to_owned(), Some(copy)))
    }

    pub(crate) fn start(
        user: &[&str],
        unshare: &str,
        kinds: &[&str],
        (fanq, copy): (String, Option<tempfile::TempDir>),
    ) -> Option<Self> {
        if Path::new("/proc/self").metadata().unwrap().uid() != 0 {
            skip("needs root");
            return None;
        }
        let script = "mount -t tmpfs none /run && ip link set lo up && nft list ruleset && \
                      iptables-nft --version && echo ready && exec sleep 120";
        let mut command = Command::new("setpriv");
        command.args(user).args(["unshare", unshare, "sh", "-c", script]).env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Running(command.spawn().unwrap());
        let said = BufReader::new(holder.0.stdout.take().unwrap()).lines();
        if !said.map_while(Result::ok).any(|line| line == "ready") {
            let status = holder.0.wait().unwrap();
            skip(&format!("no namespace to test in: `{script}` ended with {status}"));
            return None;
        }
        let target = format!("--target={}", holder.0.id());
        let words = [&["setpriv"], user, &["nsenter", &target], kinds].concat();
        let enter = words.into_iter().map(str::to_owned).collect();
        Some(Self { holder, enter, fanq, _copy: copy })
    }

    /// A command in the namespace, without a bound on its time. It is killed with the test.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.enter[0]);
        command.args(&self.enter[1..]).args(["setpriv", "--pdeathsig=KILL"]).args(words);
        command.env("PATH", PATH);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        let words = [&["timeout", "-s", "KILL", "60"], words].concat();
        Done::from(self.command(&words).stdin(Stdio::null()).output().unwrap())
    }

    /// `fanq rules` and these arguments. A `<` in them stands for a blank that does not part them.
    pub(crate) fn fanq(&self, arguments: &str) -> Done {
        self.fanq_with_path(PATH, arguments)
    }

    pub(crate) fn fanq_with_path(&self, path: &str, arguments: &str) -> Done {
        let path = format!("PATH={path}");
        let arguments: Vec<_> = arguments.split(' ').map(|word| word.replace('<', " ")).collect();
        let mut words = vec!["env", &path, &self.fanq, "rules"];
        words.extend(arguments.iter().map(String::as_str));
        self.run(&words)
    }

    pub(crate) fn shell(&self, script: &str) -> Done {
        self.run(&["bash", "-c", script])
    }

    /// The rules of `ip` or `ip6`, without the lines that hold the time of day.
    pub(crate) fn saved(&self, version: &str) -> String {
        let done = self.shell(&format!("{version}tables-nft-save | grep -v '^#'"));
        done.out
    }

    /// A table as `install --backend nft` makes it, but without the queue statement, so that it can
    /// be made on every kernel.
    pub(crate) fn make_nft_table(&self) {
        let script = "nft -f - <<'END'
            add table inet fanq
            add chain inet fanq forward { type filter hook forward priority filter; policy accept; }
            add rule inet fanq forward udp dport 9000 counter comment \"fanq\"
END";
        assert_eq!(self.shell(script).code, 0);
    }

    pub(crate) fn assert_nothing_of_ours(&self) {
        let rules = self.shell("nft list ruleset; iptables-nft-save; ip6tables-nft-save").out;
        assert_eq!(lines_with(&rules, "fanq").len(), 0, "{rules}");
    }

    /// A file of the namespace's /proc/net.
    pub(crate) fn proc_net(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/net/{name}", self.holder.0.id())).unwrap()
    }

    /// How many packets wait in the queues of the namespace.
    pub(crate) fn waiting(&self) -> u64 {
        let table = self.proc_net("netfilter/nfnetlink_queue");
        let total = |line: &str| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
        table.lines().map(total).sum()
    }
}

/// A process that is killed at the end, which works on a stopped one too.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command came to.
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

/// A program that owns queues 0 and 1.
pub(crate) struct Reader {
    process: Running,
    said: Receiver<String>,
}

impl Reader {
    pub(crate) fn start(space: &Namespace) -> Self {
        Self::with(space, "")
    }

    /// With more options for `fanq run`.
    pub(crate) fn with(space: &Namespace, options: &str) -> Self {
        Self::on(space, "0-1", options)
    }

    /// On other queues.
    pub(crate) fn on(space: &Namespace, queues: &str, options: &str) -> Self {
        let mut words = vec![&space.fanq, "run", "--queues", queues, "--placement", "none"];
        words.extend(["--summary", "json"]);
        words.extend(options.split_ascii_whitespace());
        let mut command = space.command(&words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Running(command.spawn().unwrap());
        let stderr = BufReader::new(process.0.stderr.take().unwrap());
        let (say, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = say.send(line);
            }
        });
        let reader = Self { process, said };
        reader.wait_for("ready:");
        reader
    }

    /// Waits for a line on its standard error.
    pub(crate) fn wait_for(&self, beginning: &str) {
        let mut before = Vec::new();
        while let Ok(line) = self.said.recv_timeout(Duration::from_secs(20)) {
            if line.starts_with(beginning) {
                return;
            }
            before.push(line);
        }
        panic!("fanq run never said {beginning:?} but {before:?}");
    }

    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.process.0.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// Ends it well, and returns its account.
    pub(crate) fn finish(mut self) -> String {
        self.signal("TERM");
        let mut summary = String::new();
        self.process.0.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
        assert!(self.process.0.wait().unwrap().success(), "{summary}");
        summary
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn lines_with<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(part)).collect()
}

/// What cannot be tested here is said, and in CI it is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}
