//! Any text in place of a rules file, and of those that it includes: it is refused in words, or it compiles and decides
//! packets as its words say, each rule for itself.
//!
//! An input is texts with a byte 0xff between them, which no text has: the first file, then those that it may include
//! by the names of [`NAMES`]; and behind a byte 0xfe a packet, tried after those made here. Nothing is read from the
//! disk. Of the program only the modules are here that this takes.

#![no_main]

use std::fmt::Display;
use std::hint::black_box;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use etherparse::PacketBuilder;
use fanq::nfq::Hook;
use libfuzzer_sys::fuzz_target;

use inspector::compiled::{CompiledPolicy, Surroundings, hook_bit};
use inspector::in_words::holds_in_words;
use inspector::matcher::{BatchClock, Matcher};
use inspector::packet::PacketFacts;
use inspector::rules_file::files::Files;
use inspector::rules_file::{Action, RulesFile};

#[path = "../../tools/src/inspector"]
#[expect(dead_code, unused_imports, reason = "what the program takes besides")]
mod inspector {
    mod bounded_table;
    pub(crate) mod compiled;
    mod handover;
    pub(crate) mod in_words;
    mod interfaces;
    pub(crate) mod matcher;
    pub(crate) mod packet;
    mod rate;
    pub(crate) mod rules_file;
    mod stream;
}
#[path = "../../tools/src/mark.rs"]
#[expect(dead_code, reason = "what the program takes besides")]
mod mark;

/// In place of the program's log: there is none.
mod eve {
    #[derive(Debug)]
    pub(crate) enum EveSender {}
}

/// As the program marks an error as the user's.
fn usage(message: impl Display) -> anyhow::Error {
    anyhow::Error::msg(message.to_string())
}

fuzz_target!(|input: &[u8]| {
    let (texts, packet) = match input.iter().position(|byte| *byte == 0xfe) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    let texts = Texts(texts.split(|byte| *byte == 0xff).collect());
    match RulesFile::read(Path::new(NAMES[0]), &texts) {
        Ok(mut file) => {
            // As small as can be, so that much is tried in little time.
            file.settings.flow_table = 64;
            file.settings.limit_table = 64;
            match CompiledPolicy::new(&file) {
                Ok(policy) => decide(&policy, packet),
                Err(error) => {
                    let words = error.to_string();
                    assert!(words.contains("interfaces: at most"), "it was complete, but: {words}");
                }
            }
        }
        Err(error) => assert_in_words(&error.to_string()),
    }
});

/// An error begins with the file that it is about.
fn assert_in_words(error: &str) {
    let path = error.split(':').next().unwrap_or_default();
    let known = NAMES.iter().any(|name| plain(Path::new(path)) == Path::new(name));
    assert!(known && error.contains(": "), "no place: {error}");
}

/// A path as it would be without `.` in it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Each packet by a matcher that knows nothing yet, which must decide as the words do; then all by one, which may find
/// limits passed and patterns that packets cut.
fn decide(policy: &CompiledPolicy, packet: &[u8]) {
    let mut one = Matcher::new(policy);
    for bytes in MADE.iter().map(Vec::as_slice).chain([packet]) {
        let facts = PacketFacts::read(bytes);
        for (hook, interfaces) in [(Hook::Input, ["eth0", ""]), (Hook::Forward, ["lo", "eth0"])] {
            let around = around(policy, hook, interfaces);
            let (mut fresh, mut matched) = (Matcher::new(policy), Vec::new());
            let clock = &mut BatchClock::default();
            let action = fresh.decide(policy, &facts, around, clock, |rule, _| matched.push(rule));
            assert_eq!((action, matched), in_words(policy, &facts, hook, interfaces), "{facts:?}");
            black_box(one.decide(policy, &facts, around, clock, |_, _| {}));
        }
    }
}

/// The same, a word at a time. The first packet is below every limit.
fn in_words(
    policy: &CompiledPolicy,
    facts: &PacketFacts<'_>,
    hook: Hook,
    interfaces: [&str; 2],
) -> (Option<Action>, Vec<u32>) {
    let mut matched = Vec::new();
    for (number, rule) in (0..).zip(policy.words.iter()) {
        if rule.limit.is_none() && holds_in_words(rule, facts, hook, interfaces) {
            matched.push(number);
            if rule.action != Action::Log {
                return (Some(rule.action), matched);
            }
        }
    }
    (None, matched)
}

fn around(policy: &CompiledPolicy, hook: Hook, interfaces: [&str; 2]) -> Surroundings {
    let bit = |name: &str| {
        policy.interfaces.iter().position(|known| known == name).map_or(0, |slot| 1 << slot)
    };
    Surroundings {
        hook: hook_bit(hook),
        in_interface: bit(interfaces[0]),
        out_interface: bit(interfaces[1]),
    }
}

/// Texts in place of files, in the order of [`NAMES`].
struct Texts<'t>(Vec<&'t [u8]>);

impl Texts<'_> {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().take(self.0.len())
    }
}

impl Files for Texts<'_> {
    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        let real = plain(path);
        let known = self.names().any(|name| real == Path::new(name));
        known.then_some(real).ok_or_else(|| "there is none".to_owned())
    }

    fn text(&self, real: &Path) -> Result<String, String> {
        let number = self.names().position(|name| real == Path::new(name));
        let text = number.map(|number| self.0[number]).ok_or("there is none")?;
        String::from_utf8(text.to_vec()).map_err(|error| error.to_string())
    }

    fn matching(&self, written: &str, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let pattern =
            glob::Pattern::new(pattern).map_err(|error| format!("`{written}`: {error}"))?;
        Ok(self.names().filter(|name| pattern.matches(name)).map(PathBuf::from).collect())
    }
}

/// More than may include each other in a row.
const NAMES: [&str; 10] = ["main.toml", "a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// A datagram and a segment.
static MADE: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let text = b"GET /admin abc ABC";
    let (mut datagram, mut segment) = (Vec::new(), Vec::new());
    let v4 = PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64);
    v4.udp(1000, 53).write(&mut datagram, text).expect("it is short");
    let (mut one, mut other) = ([0; 16], [0; 16]);
    (one[15], other[15]) = (1, 2);
    let v6 = PacketBuilder::ipv6(one, other, 64);
    v6.tcp(1000, 80, 1, 1000).write(&mut segment, text).expect("it is short");
    [datagram, segment]
});
