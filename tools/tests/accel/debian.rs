//! Programs as Debian has them, unattended: what they print and what they let through is the same with the library and
//! without. `requests.py` sends packets through them in bursts and prints what arrives.
//!
//! What else Debian has, and why it is not here, says docs/ACCEL.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::space::{Fanq, Space, skip};
use super::{accel, assert_same};

#[test]
fn dhcpoptinj_sees_and_does_the_same() {
    if !is_there("dhcpoptinj", &["-v"]) {
        return skip("dhcpoptinj is missing: apt-get install dhcpoptinj");
    }
    let option = "52 01 04 46 6a 61 73";
    let program = Program {
        // In the foreground, saying all that it does.
        words: ["dhcpoptinj", "--conf-file=/dev/null", "-d", "-f", "-q", "0", "-o", option],
        is_ready: Ready::Says("Waiting for packets"),
        requests: "dhcp",
    };
    let Some(plain) = program.transcript(&[]) else { return };
    for what in ["Sending mangled", "option already exists", "non-DHCP", "52060104466a6173"] {
        assert!(plain.contains(what), "no `{what}` in {plain}");
    }
    program.assert_same_accelerated(&plain);
}

#[test]
fn rubys_nfqueue_sees_and_does_the_same() {
    if !is_there("ruby", &["-e", "require 'nfqueue'"]) {
        return skip("ruby-nfqueue is missing: apt-get install ruby-nfqueue");
    }
    let script = here("queue.rb");
    let words = ["ruby", script.to_str().expect("text")];
    let program = Program { words, is_ready: Ready::Says("ready: ruby"), requests: "numbers" };
    if let Some(plain) = program.transcript(&[]) {
        program.assert_same_accelerated(&plain);
    }
}

/// It answers from other threads than the one that reads, in any order, and a rule of its own takes every new
/// connection: so only what arrives can be compared.
#[test]
fn opensnitch_lets_the_same_pass() {
    let target =
        Path::new(env!("CARGO_BIN_EXE_fanq")).ancestors().nth(2).expect("it is in target/");
    let folder = target.join("opensnitch");
    let daemon = folder.join("usr/bin/opensnitchd");
    if !daemon.is_file() {
        return skip(&format!("opensnitch is not unpacked in {}", folder.display()));
    }
    let rules = tempfile::tempdir().expect("a folder");
    std::fs::write(rules.path().join("deny.json"), DENY_9001).expect("the folder is ours");
    // Its configuration has a fixed place.
    let script = format!(
        "mount -t overlay -o lowerdir={}/etc:/etc overlay /etc && exec \"$@\" {} -rules-path {} \
         -process-monitor-method proc -queue-num 0",
        folder.display(),
        daemon.display(),
        rules.path().display()
    );
    let words = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let program = Program { words, is_ready: Ready::HasRule, requests: "connections" };
    let Some(plain) = program.transcript(&["env"]) else { return };
    assert!(plain.contains("none that was denied came"), "{plain}");
    program.assert_same_accelerated(&plain);
}

/// A program that serves queue 0.
struct Program<'a, const WORDS: usize> {
    words: [&'a str; WORDS],
    is_ready: Ready,
    /// What of requests.py goes through it.
    requests: &'static str,
}

/// When requests may come, and what of the program's own words is part of the transcript.
#[derive(PartialEq)]
enum Ready {
    /// Once it has said so; all that it says.
    Says(&'static str),
    /// Once it has made its rule; nothing, as there are times in it.
    HasRule,
}

impl<const WORDS: usize> Program<'_, WORDS> {
    fn assert_same_accelerated(&self, plain: &str) {
        let under = self.transcript(&accel(&[])).expect("it ran before");
        assert_same(plain, &under, self.words[0]);
    }

    /// What arrives of the requests, and what the program says. These words come before its own, or behind if it is
    /// started by others. None where it is skipped.
    fn transcript(&self, accel: &[&str]) -> Option<String> {
        let space = Space::new()?;
        space.shell("mount -t tmpfs tmpfs /run && ip link set lo up");
        if self.is_ready != Ready::HasRule {
            space.shell(
                "for port in 67 9000; do \
                 iptables -A INPUT -p udp --dport $port -j NFQUEUE --queue-num 0; done",
            );
        }
        // All in one stream, as it is said.
        let stream = ["sh", "-c", "exec stdbuf -oL \"$@\" >&2", "sh"];
        let words = match self.is_ready {
            Ready::Says(_) => [&stream, accel, &self.words].concat(),
            Ready::HasRule => [&stream, &self.words[..], accel].concat(),
        };
        let mut running = Fanq::new(space.command(&words).spawn().expect("nsenter runs"));
        match self.is_ready {
            Ready::Says(what) => {
                running.await_line(what);
            }
            Ready::HasRule => {
                space.shell("until iptables-save | grep -q NFQUEUE; do sleep 0.02; done");
            }
        }
        let script = here("requests.py");
        let send = ["timeout", "60", "python3", script.to_str().expect("text"), self.requests];
        let output = space.command(&send).output().expect("nsenter runs");
        let arrived = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let ended = match self.is_ready {
            Ready::Says(_) => running.stop("TERM"),
            // How opensnitch ends is its own affair: with its queue in use it takes seconds, and may crash.
            Ready::HasRule => {
                running.signal("KILL");
                running.wait()
            }
        };
        assert!(output.status.success(), "{arrived}{stderr}{}", ended.stderr);
        assert!(arrived.ends_with("done\n"), "{arrived}");
        let said = if self.is_ready == Ready::HasRule { "" } else { &ended.stderr };
        Some(arrived + said)
    }
}

/// Whether a program of Debian's is installed.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    output.is_ok_and(|output| output.status.success())
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accel").join(file)
}

const DENY_9001: &str = r#"{
    "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "name": "deny", "enabled": true,
    "precedence": false, "action": "deny", "duration": "always",
    "operator": {"type": "simple", "operand": "dest.port", "sensitive": false, "data": "9001", "list": []}
}"#;
