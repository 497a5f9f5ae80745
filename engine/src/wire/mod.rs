//! What a verdict may rewrite: the fields of a packet's headers, its payload, and the checksums over both.
//!
//! Invariant: pure bytes. Nothing here knows a file descriptor, allocates, blocks or panics on input; the compiler
//! holds "no unsafe" for the whole subtree. What is refused is refused before a byte is written, and what was edited is
//! left with every checksum as the kernel needs it: it takes a rewritten packet as it stands (`CHECKSUM_NONE`, set by
//! `nfqnl_mangle()` in net/netfilter/nfnetlink_queue.c) and fills nothing in, not even in a packet that is still to be
//! segmented.
//!
//! ```
//! use fanq::wire::{L4Checksum, PacketEdit};
//!
//! # let mut packet = [
//! #     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xce, 10, 0, 0, 1, 10, 0, 0, 2,
//! #     0x30, 0x39, 0, 53, 0, 8, 0xbb, 0x6d];
//! let mut edit = PacketEdit::new(&mut packet, L4Checksum::Complete)?;
//! if let Some(mut ip) = edit.ipv4() {
//!     ip.set_destination([10, 0, 0, 9].into()).set_ttl(63);
//! }
//! if let Some(mut udp) = edit.udp() {
//!     udp.set_destination_port(5353);
//! }
//! edit.finish(); // Or let it go out of scope.
//! assert_eq!((packet[8], packet[19], &packet[22..24]), (63, 9, &[0x14, 0xe9][..]));
//! # Ok::<(), fanq::wire::WireError>(())
//! ```
//!
//! Headers are parsed by etherparse; edits and sums are ours. It deliberately does not insert or remove headers, look
//! into tunnels, or renew what only the sender can (an authentication header's value, SCTP's CRC).
//! docs/REWRITING.md is the user's guide.

#![forbid(unsafe_code)]

mod checksum;
mod edit;
mod error;
mod extensions;
mod fields;
mod layout;
mod network;
mod replaced;
mod transport;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use checksum::{Sum, updated};
pub(crate) use edit::Editable;
pub use edit::{L4Checksum, PacketEdit, check, complete_open};
pub use error::{Field, WireError};
pub use extensions::EXTENSION_HEADERS_MAX;
pub use layout::{Fragment, Transport};
pub use network::{Ipv4Edit, Ipv6Edit};
pub use replaced::{recompute_checksums, set_lengths};
pub use transport::{IcmpEdit, TcpEdit, UdpEdit};

/// The page's examples must compile, and hold.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/REWRITING.md")]
struct RewritingPage;
