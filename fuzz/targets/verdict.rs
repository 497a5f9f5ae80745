//! Any verdict: what is written is one whole netlink message, and read by other code it says what was asked for.

#![no_main]

use arbitrary::Arbitrary;
use fanq::nfq::{ConntrackEdit, PacketId, Verdict, VerdictMessage};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Asked {
    queue: u16,
    id: u32,
    code: Code,
    mark: Option<u32>,
    priority: Option<u32>,
    batch: bool,
    connection_mark: Option<(u32, u32)>,
    labels: Option<([u8; 16], [u8; 16])>,
    timeout: Option<u32>,
    status: Option<u32>,
    payload: Option<Vec<u8>>,
}

#[derive(Debug, Arbitrary)]
enum Code {
    Drop,
    Accept,
    Repeat,
    Stop,
    Queue { number: u16, bypass: bool },
}

impl Code {
    fn verdict(&self) -> Verdict {
        match *self {
            Self::Drop => Verdict::DROP,
            Self::Accept => Verdict::ACCEPT,
            Self::Repeat => Verdict::REPEAT,
            Self::Stop => Verdict::STOP,
            Self::Queue { number, bypass: false } => Verdict::queue(number),
            Self::Queue { number, bypass: true } => Verdict::queue(number).bypassing(),
        }
    }

    /// include/uapi/linux/netfilter.h
    fn word(&self) -> u32 {
        match *self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Repeat => 4,
            Self::Stop => 5,
            Self::Queue { number, bypass } => u32::from(number) << 16 | u32::from(bypass) << 15 | 3,
        }
    }
}

fuzz_target!(|asked: Asked| {
    let payload =
        asked.payload.as_deref().filter(|bytes| bytes.len() <= VerdictMessage::PAYLOAD_BYTES_MAX);
    let edit = ConntrackEdit {
        mark: asked.connection_mark,
        labels: asked.labels,
        timeout: asked.timeout,
        status: asked.status,
    };
    let mut verdict = asked.code.verdict();
    verdict = asked.mark.map_or(verdict, |mark| verdict.with_mark(mark));
    verdict = asked.priority.map_or(verdict, |priority| verdict.with_priority(priority));
    let batch = asked.batch;
    let message = VerdictMessage { queue: asked.queue, id: PacketId(asked.id), verdict, batch };
    // With the padding behind a payload.
    let room = 4 + VerdictMessage::EDITED_BYTES_MAX - VerdictMessage::PAYLOAD_BYTES_MAX;
    let mut buffer = vec![0xee; room + payload.map_or(0, <[u8]>::len)];
    let length = match batch {
        true => message.encode(&mut buffer),
        false => message.encode_edited(&edit, payload, &mut buffer),
    };
    assert!(buffer[length..].iter().all(|byte| *byte == 0xee), "written behind the message");

    let (header, attributes) = buffer[..length].split_at(20);
    assert_eq!(word(header, 0) as usize, length);
    assert_eq!(header[4..6], [if batch { 3 } else { 1 }, 3], "the message's type and subsystem");
    assert_eq!(header[18..20], asked.queue.to_be_bytes());

    let attributes = read(attributes);
    let find = |kind: u16| attributes.iter().find(|(own, _)| *own == kind).map(|(_, value)| *value);
    let (code, id) = (asked.code.word().to_be_bytes(), asked.id.to_be_bytes());
    assert_eq!(find(2), Some([code, id].concat().as_slice()));
    assert_eq!(find(3), asked.mark.map(u32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
    assert_eq!(find(21), asked.priority.map(u32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
    assert_eq!(find(10), payload.filter(|_| !batch));
    match find(11 | 0x8000) {
        Some(nested) => assert_connection(&read(nested), &edit),
        None => assert!(batch || edit.is_empty()),
    }
});

type Attributes<'a> = Vec<(u16, &'a [u8])>;

/// The attributes of a message, which fill it to its last byte.
fn read(mut bytes: &[u8]) -> Attributes<'_> {
    let mut attributes = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        assert!(length >= 4);
        attributes.push((kind, &bytes[4..length]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    attributes
}

/// What the kernel would make of each bit: `(old & ~mask) ^ value`, so no value may have bits outside its mask.
fn assert_connection(read: &Attributes<'_>, edit: &ConntrackEdit) {
    let find = |kind: u16| read.iter().find(|(own, _)| *own == kind).map(|(_, value)| *value);
    let owned = |value: Option<u32>| value.map(|value| value.to_be_bytes().to_vec());
    let found = |kind| find(kind).map(<[u8]>::to_vec);
    assert_eq!(found(7), owned(edit.timeout));
    assert_eq!(found(3), owned(edit.status));
    assert_eq!(found(8), owned(edit.mark.map(|(value, mask)| value & mask)));
    assert_eq!(found(21), owned(edit.mark.map(|(_, mask)| mask)));
    let masked = |(value, mask): ([u8; 16], [u8; 16])| -> Vec<u8> {
        value.iter().zip(mask).map(|(value, mask)| value & mask).collect()
    };
    assert_eq!(found(22), edit.labels.map(masked));
    assert_eq!(found(23), edit.labels.map(|(_, mask)| mask.to_vec()));
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
