//! The nfnetlink_queue codec: what the kernel sends, decoded in place; what it accepts, encoded into a
//! caller's buffer.
//!
//! Invariant: pure bytes. Nothing here knows a file descriptor, allocates, blocks or panics on input; the
//! compiler holds "no unsafe" for the whole subtree. A message is one netlink datagram:
//!
//! ```text
//!  0       4     6     8     12      16       17       18         20
//!  +-------+-----+-----+-----+-------+--------+--------+----------+------------------------------+
//!  | len   |type |flags| seq | port  | family | version| queue    | attributes, each padded to 4 |
//!  +-------+-----+-----+-----+-------+--------+--------+----------+------------------------------+
//!  |<-------- nlmsghdr, host order ------->|<--- nfgenmsg, queue in network order ---->|
//! ```
//!
//! It deliberately does not look inside a packet's payload, keep state between messages, or decide anything.

#![forbid(unsafe_code)]

mod attribute;
mod config;
mod conntrack;
mod conntrack_edit;
mod conntrack_fields;
mod error;
mod fields;
mod flags;
mod made;
mod message;
mod packet;
mod sent;
mod verdict;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_conntrack;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use config::{CopyRange, QueueRequest};
pub use conntrack::Conntrack;
pub use conntrack_edit::ConntrackEdit;
pub use conntrack_fields::{
    ConntrackCount, ConntrackState, ConntrackStatus, ConntrackTuple, TcpState, TupleKey,
};
pub use error::{DecodeError, Undecodable};
pub use fields::{Hook, KernelTime, PacketId, SkbInfo, VlanTag};
pub use flags::{ConfigFlags, QueueFlag};
pub use made::{MADE_MESSAGE_OVERHEAD, made_message};
pub use message::{KernelReply, Message, Request, decode, packet_place, wake_request};
pub use packet::PacketMessage;
pub use sent::{BindCommand, Sent, SentConfig, SentVerdict, decode_sent, decode_sent_prefix};
pub use verdict::{Verdict, VerdictCode, VerdictMessage};
