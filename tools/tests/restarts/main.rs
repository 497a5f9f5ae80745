//! Goal: queues go from one `fanq run` to the next without losing or doubling a packet: by handover, and by a
//! descriptor store after SIGKILL; and whoever has no business with them gets nothing and changes nothing.
//!
//! Method: a namespace of its own each, numbered datagrams over its loopback through two queues without `bypass`, so
//! that every packet which no queue keeps is lost. Peers that behave badly are played here.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables` and `python3`. Without root each test prints SKIPPED, or
//! fails if CI is set.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod descriptors;
mod handover;
mod hostile;
mod kept;
#[path = "../space/mod.rs"]
mod space;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;
use space::Space;

/// A namespace whose datagrams to the port go through queues 8 and 9, and a folder for its sockets.
struct Site {
    space: Space,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Self> {
        let space = Space::new()?;
        space.shell(&format!(
            "mount -t tmpfs tmpfs /run; ip link set lo up
             iptables -A INPUT -p udp --dport {PORT} -j NFQUEUE --queue-balance 8:9 --queue-cpu-fanout"
        ));
        Some(Self { space, folder: tempfile::tempdir().expect("a folder can be made") })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("it is plain").to_owned()
    }

    /// What each `fanq run` here is told.
    fn request(&self, more: &str) -> String {
        let request = format!(
            "--queues 8-9 --placement none --summary json --handover {} {more}",
            self.path("door")
        );
        request.trim_end().to_owned()
    }

    /// Sends so many datagrams at once; none of them is one of `Traffic`.
    fn send(&self, count: u32) {
        self.space.shell(&format!(
            "for i in $(seq {count}); do echo > /dev/udp/127.0.0.1/{PORT} || true; done"
        ));
    }
}

/// Datagrams at a rate, until told to stop.
struct Traffic {
    ends: Child,
    said: BufReader<ChildStdout>,
}

impl Traffic {
    fn start(site: &Site, rate: &str) -> Self {
        let script = include_str!("traffic.py");
        let mut command = site.space.command(&["python3", "-c", script, PORT_TEXT, rate]);
        let mut ends = command.stdin(Stdio::piped()).spawn().expect("python3 runs");
        let mut said = BufReader::new(ends.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it speaks");
        assert_eq!(line, "ready\n");
        Self { ends, said }
    }

    /// Stops sending, and returns the account of what arrived.
    fn stop(mut self) -> Value {
        drop(self.ends.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it counts");
        self.ends.wait().expect("it ends");
        serde_json::from_str(&line).expect("it is JSON")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.ends.kill();
        let _ = self.ends.wait();
    }
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("no {key} in {object}"))
}

/// Writes a line to a program's standard input.
fn tell(child: &mut Child, line: &str) {
    let stdin = child.stdin.as_mut().expect("it is piped");
    writeln!(stdin, "{line}").expect("it listens");
}

const PORT: u16 = 9000;
const PORT_TEXT: &str = "9000";
