//! Any bytes in place of what the other process of a handover says, to either side: messages or an error, the same
//! through the connection as from memory; what was read is said and read again as it was; what counters it brings can
//! be summed.
//!
//! The same bytes also make up messages, of either side, which are said and read. Of the program only the modules are
//! here that this takes.

#![no_main]

use std::hint::black_box;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use fanq::Counts;
use libfuzzer_sys::fuzz_target;

use account::Account;
use channel::{Channel, ChannelError};
use message::{Ask, Header, Left, LeftQueue, Message, Offer, Sockets};

#[path = "../../tools/src/handover/account.rs"]
mod account;
#[path = "../../tools/src/handover/channel.rs"]
#[expect(dead_code, reason = "what the program takes besides")]
mod channel;
#[path = "../../tools/src/handover/message.rs"]
mod message;

fuzz_target!(|bytes: &[u8]| {
    let read = read(bytes);
    assert_eq!(read, heard(bytes), "the connection and memory do not agree");
    for message in &read {
        said_is_heard(message);
        take(message);
    }
    if let Ok(said) = Said::arbitrary(&mut Unstructured::new(bytes)) {
        said_is_heard(&said.message());
    }
});

/// Messages from memory, up to what is none.
fn read(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let Ok(header) = Header::decode(*header) else { break };
        let Some((body, rest)) = rest.split_at_checked(header.length) else { break };
        let Ok(message) = Message::decode(header, body) else { break };
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// The same by a connection whose other end says these bytes and hangs up.
fn heard(bytes: &[u8]) -> Vec<Message> {
    let (mut theirs, ours) = UnixStream::pair().expect("two descriptors");
    assert!(bytes.len() <= INPUT_BYTES_MAX, "more than a socket holds");
    theirs.write_all(bytes).expect("it holds them");
    drop(theirs);
    let mut channel = Channel::new(ours, FOR_EVER);
    let mut messages = Vec::new();
    loop {
        match channel.receive() {
            Ok(message) => messages.push(message),
            Err(ChannelError::Refused(reason)) => messages.push(Message::Refused(reason)),
            Err(error) => {
                black_box(error.to_string());
                return messages;
            }
        }
    }
}

fn said_is_heard(message: &Message) {
    assert_eq!(read(&message.encode()), std::slice::from_ref(message));
}

/// As a process goes on with what it is told: a reason is shown, counters are summed.
fn take(message: &Message) {
    if let Message::Refused(reason) = message {
        assert!(!reason.chars().any(char::is_control), "not fit for a terminal: {reason:?}");
    }
    let Message::Left(left) = message else { return };
    let mut sum = Counts::default();
    for LeftQueue { account, .. } in &left.queues {
        let counts = Counts::from(account);
        assert_eq!(Counts::from(&Account::from(&counts)), counts);
        sum += &counts;
        sum += &counts;
    }
    black_box(sum);
}

/// A message that the program could say.
#[derive(Debug, Arbitrary)]
enum Said {
    Refused(String),
    Ask(String),
    Offer { program: String, queues: Vec<u16>, settings: String, release_ms_max: u64 },
    Sockets(Vec<u16>),
    Take,
    Left(Vec<(u16, Option<u32>, Counted)>),
    Serving,
}

#[derive(Debug, Arbitrary)]
struct Counted {
    packets: u64,
    bytes: u64,
    orphaned: u64,
    hooks: [u64; 6],
    errors: Vec<(i32, u64)>,
}

impl Said {
    fn message(self) -> Message {
        match self {
            // What a terminal could not bear is not read.
            Self::Refused(reason) => Message::Refused(
                reason.chars().take(1000).filter(|letter| !letter.is_control()).collect(),
            ),
            Self::Ask(program) => Message::Ask(Ask { program }),
            Self::Offer { program, queues, settings, release_ms_max } => {
                Message::Offer(Offer { program, queues, settings, release_ms_max })
            }
            Self::Sockets(queues) => Message::Sockets(Sockets { queues }),
            Self::Take => Message::Take,
            Self::Left(queues) => Message::Left(Left {
                queues: queues
                    .into_iter()
                    .map(|(queue, next_id, counted)| {
                        let account = Account::from(&counted.counts());
                        LeftQueue { queue, next_id, account }
                    })
                    .collect(),
            }),
            Self::Serving => Message::Serving,
        }
    }
}

impl Counted {
    fn counts(self) -> Counts {
        let Self { packets, bytes, orphaned, hooks, errors } = self;
        let verdict_errors_by_errno = errors;
        Counts { packets, bytes, orphaned, hooks, verdict_errors_by_errno, ..Counts::default() }
    }
}

/// Far below what a socket takes at once (net.core.wmem_default), and more than the fuzzer makes.
const INPUT_BYTES_MAX: usize = 65_536;

/// So that no slow machine changes what is heard.
const FOR_EVER: Duration = Duration::from_secs(3600);
