//! The messages of a handover, as bytes.
//!
//! ```text
//!   0       4         6      8        12
//!   | fanq  | version | kind | length | body, JSON, `length` bytes
//! ```
//!
//! Numbers are big-endian. The header, and kind 0 (`refused`, whose body is plain text), are the same in every version,
//! so that processes of different versions can tell each other why they do not go together.
//!
//! Invariant: no bytes make decoding panic, and nothing is allocated beyond [`BODY_BYTES_MAX`]. Keys of a body that are
//! not known are passed over, so a version can gain some.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::account::Account;

/// This program's version of the handover.
pub(super) const VERSION: u16 = 1;

/// What one process says to the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// Why nothing comes of it.
    Refused(String),
    /// The next one wants the queues.
    Ask(Ask),
    /// What there is to be had.
    Offer(Offer),
    /// Some of the queues, each with a descriptor beside the message, in this order.
    Sockets(Sockets),
    /// From now on the queues are the next one's.
    Take,
    /// They are left.
    Left(Left),
    /// They are served by the next one.
    Serving,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    /// The program's version, for people.
    pub(super) program: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// The program's version, for people.
    pub(super) program: String,
    /// All queues.
    pub(super) queues: Vec<u16>,
    /// How they are set up, for people: the next one sets them up as it likes.
    pub(super) settings: String,
    /// How long after `take` the answer may take, in milliseconds.
    pub(super) release_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sockets {
    pub(super) queues: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) queues: Vec<LeftQueue>,
}

/// One queue, as it was left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeftQueue {
    pub(crate) queue: u16,
    /// The first packet that was not received. Null if packets may have been received and not answered.
    pub(crate) next_id: Option<u32>,
    pub(crate) account: Account,
}

/// What stands before every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    version: u16,
    kind: u16,
    /// Of the body.
    pub(super) length: usize,
}

/// Why bytes are no message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("what came is no handover message: it does not begin with `fanq`")]
    NotOurs,
    #[error(
        "the other process speaks version {theirs} of the handover, this one version {VERSION}; stop the old process (its queues are drained) and start the new one"
    )]
    Version { theirs: u16 },
    #[error("a handover message of {length} bytes came; at most {BODY_BYTES_MAX} are taken")]
    TooLong { length: usize },
    #[error("a handover message of the unknown kind {kind} came")]
    UnknownKind { kind: u16 },
    #[error("a handover message of kind {kind} has a body that cannot be read: {reason}")]
    Body { kind: u16, reason: String },
}

impl Header {
    pub(super) const BYTES: usize = 12;

    /// Reads a header and refuses what this version cannot take.
    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, MessageError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3] = bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(MessageError::NotOurs);
        }
        let (version, kind) = (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([k0, k1]));
        if version != VERSION && kind != KIND_REFUSED {
            return Err(MessageError::Version { theirs: version });
        }
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > BODY_BYTES_MAX {
            return Err(MessageError::TooLong { length });
        }
        Ok(Self { version, kind, length })
    }

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_be_bytes());
        let length = u32::try_from(self.length).expect("bodies are bounded");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

impl Message {
    /// Reads the body behind a header.
    pub(super) fn decode(header: Header, body: &[u8]) -> Result<Self, MessageError> {
        let kind = header.kind;
        Ok(match kind {
            KIND_REFUSED => Self::Refused(printable(body)),
            KIND_ASK => Self::Ask(parse(kind, body)?),
            KIND_OFFER => Self::Offer(parse(kind, body)?),
            KIND_SOCKETS => Self::Sockets(parse(kind, body)?),
            KIND_TAKE => Self::Take,
            KIND_LEFT => Self::Left(parse(kind, body)?),
            KIND_SERVING => Self::Serving,
            kind => return Err(MessageError::UnknownKind { kind }),
        })
    }

    /// Header and body.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Refused(reason) => (KIND_REFUSED, reason.clone().into_bytes()),
            Self::Ask(ask) => (KIND_ASK, json(ask)),
            Self::Offer(offer) => (KIND_OFFER, json(offer)),
            Self::Sockets(sockets) => (KIND_SOCKETS, json(sockets)),
            Self::Take => (KIND_TAKE, Vec::new()),
            Self::Left(left) => (KIND_LEFT, json(left)),
            Self::Serving => (KIND_SERVING, Vec::new()),
        };
        let header = Header { version: VERSION, kind, length: body.len() };
        let mut bytes = header.encode().to_vec();
        bytes.extend(body);
        bytes
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("numbers and texts always serialize")
}

fn parse<T: DeserializeOwned>(kind: u16, body: &[u8]) -> Result<T, MessageError> {
    serde_json::from_slice(body)
        .map_err(|error| MessageError::Body { kind, reason: error.to_string() })
}

/// A stranger's text, fit for a terminal.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().take(REASON_CHARS_MAX).filter(|letter| !letter.is_control()).collect()
}

const MAGIC: [u8; 4] = *b"fanq";

const KIND_REFUSED: u16 = 0;
const KIND_ASK: u16 = 1;
const KIND_OFFER: u16 = 2;
const KIND_SOCKETS: u16 = 3;
const KIND_TAKE: u16 = 4;
const KIND_LEFT: u16 = 5;
const KIND_SERVING: u16 = 6;

/// Ten times what the accounts of 1024 queues take.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;

const REASON_CHARS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use fanq::Counts;
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        let (header, body) = bytes.split_first_chunk().expect("longer than a header");
        let header = Header::decode(*header)?;
        Message::decode(header, &body[..header.length.min(body.len())])
    }

    fn samples() -> Vec<Message> {
        let counts = Counts { packets: 1 << 50, hooks: [7; 6], ..Counts::default() };
        let account = Account::from(&counts);
        vec![
            Message::Refused("not today".to_owned()),
            Message::Ask(Ask { program: "0.1.0".to_owned() }),
            Message::Offer(Offer {
                program: "0.1.0".to_owned(),
                queues: vec![0, 65_535],
                settings: "all".to_owned(),
                release_ms_max: 5000,
            }),
            Message::Sockets(Sockets { queues: vec![3] }),
            Message::Take,
            Message::Left(Left {
                queues: vec![
                    LeftQueue { queue: 3, next_id: Some(u32::MAX), account: account.clone() },
                    LeftQueue { queue: 4, next_id: None, account },
                ],
            }),
            Message::Serving,
        ]
    }

    #[test]
    fn what_was_said_is_what_is_heard() {
        for message in samples() {
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_cut_body_is_an_error_and_never_another_message() {
        for message in samples() {
            let bytes = message.encode();
            for cut in Header::BYTES..bytes.len() {
                match decode(&bytes[..cut]) {
                    Ok(Message::Refused(part)) => assert!("not today".starts_with(&part)),
                    result => assert!(result.is_err(), "{message:?} cut to {cut}"),
                }
            }
        }
    }

    #[test]
    fn other_versions_are_refused_by_number_but_their_refusal_is_read() {
        let mut bytes = Message::Take.encode();
        bytes[5] = 9;
        assert_eq!(decode(&bytes), Err(MessageError::Version { theirs: 9 }));
        let mut bytes = Message::Refused("no\n\x1b[2J".to_owned()).encode();
        bytes[5] = 9;
        assert_eq!(decode(&bytes), Ok(Message::Refused("no[2J".to_owned())));
    }

    #[test]
    fn strangers_and_giants_are_refused() {
        let mut bytes = Message::Take.encode();
        bytes[8..12].fill(0xff);
        assert!(matches!(decode(&bytes), Err(MessageError::TooLong { .. })));
        bytes[0] = b'F';
        assert_eq!(decode(&bytes), Err(MessageError::NotOurs));
        let mut bytes = Message::Take.encode();
        bytes[7] = 99;
        assert_eq!(decode(&bytes), Err(MessageError::UnknownKind { kind: 99 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 12..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_body_makes_it_panic(kind in 0_u16..9, body in prop::collection::vec(any::<u8>(), 0..100)) {
            let header = Header { version: VERSION, kind, length: body.len() };
            let _ = Message::decode(header, &body);
        }

        #[test]
        fn no_change_of_a_byte_makes_it_panic(which in 0_usize..7, at in any::<prop::sample::Index>(), to: u8) {
            let mut bytes = samples()[which].encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(&bytes);
        }
    }
}
