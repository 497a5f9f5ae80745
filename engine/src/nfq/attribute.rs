//! Netlink attributes: walking them, and reading and writing their fields.
//!
//! The one place where byte order is converted and where kernel constants enter the codec (`libc` has them as C
//! ints; here they get the widths that they have on the wire). Reads are bounds-checked; a write beyond its
//! buffer is our own bug and panics.

use super::DecodeError;

/// Size of `struct nlmsghdr`.
pub(super) const NLMSG_HEADER: usize = 16;
/// Size of `struct nlmsghdr` and `struct nfgenmsg`: where attributes begin.
pub(super) const NFMSG_HEADER: usize = NLMSG_HEADER + 4;
/// Size of `struct nlattr`.
pub(super) const ATTRIBUTE_HEADER: usize = 4;

/// The walk over a message's attributes, in the kernel's order, each as its type (without the nested and
/// byte-order flags) and its value.
///
/// Invariant: ends after the first error. The padding of the last attribute may be missing, as the kernel
/// leaves it out when the payload comes last.
#[derive(Debug, Clone)]
pub(super) struct Attributes<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// Walks `message` from `at`, the offset of the first attribute.
    pub(super) fn new(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.at = self.message.len();
        error
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.message.get(at..).filter(|rest| !rest.is_empty())?;
        let Some((header, _)) = rest.split_first_chunk::<ATTRIBUTE_HEADER>() else {
            let have = rest.len();
            return Some(Err(self.fail(DecodeError::Truncated {
                offset: at,
                need: ATTRIBUTE_HEADER,
                have,
            })));
        };
        let (length, kind) = attribute_header(*header);
        if length < ATTRIBUTE_HEADER {
            return Some(Err(self.fail(DecodeError::LengthTooSmall { offset: at, length })));
        }
        let Some(value) = rest.get(ATTRIBUTE_HEADER..length) else {
            let have = rest.len();
            return Some(Err(self.fail(DecodeError::Truncated { offset: at, need: length, have })));
        };
        self.at = at + align(length);
        Some(Ok((kind, value)))
    }
}

/// The value of the attribute `kind` in `bytes`, whose attributes begin at `at`; of two, the later one. None also
/// where the walk to it met an error.
pub(super) fn find(bytes: &[u8], at: usize, kind: u16) -> Option<&[u8]> {
    let attributes = Attributes::new(bytes, at).filter_map(Result::ok);
    attributes.filter(|(found, _)| *found == kind).last().map(|(_, value)| value)
}

/// Where messages and attributes may begin (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub(super) const ALIGNMENT: usize = 4;

/// Rounds up to the netlink alignment.
pub(super) const fn align(length: usize) -> usize {
    (length + ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// An attribute's length and type, from `struct nlattr`: read as one word, since the compiler would not join two
/// halves.
#[inline]
pub(super) fn attribute_header(header: [u8; ATTRIBUTE_HEADER]) -> (usize, u16) {
    let word = u32::from_ne_bytes(header);
    let (length, kind) = if cfg!(target_endian = "little") {
        (word & 0xffff, word >> 16)
    } else {
        (word >> 16, word & 0xffff)
    };
    #[expect(clippy::cast_possible_truncation, reason = "both are halves of a 32-bit word")]
    (length as usize, kind as u16 & TYPE_MASK)
}

/// A 16-bit field in network order.
#[inline]
pub(super) fn be16(kind: u16, value: &[u8]) -> Result<u16, DecodeError> {
    let short = DecodeError::ShortAttribute { kind, need: 2, have: value.len() };
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)).ok_or(short)
}

/// Writes an attribute at `at`, padded, and returns where it ends.
///
/// # Panics
/// If the buffer is too small, or the value is 64 KiB or longer.
#[inline]
pub(super) fn put(buffer: &mut [u8], at: usize, kind: u16, value: &[u8]) -> usize {
    let length = ATTRIBUTE_HEADER + value.len();
    let wire_length = u16::try_from(length).expect("attribute values are shorter than 64 KiB");
    let end = at + align(length);
    let space = &mut buffer[at..end];
    space[0..2].copy_from_slice(&wire_length.to_ne_bytes());
    space[2..4].copy_from_slice(&kind.to_ne_bytes());
    space[ATTRIBUTE_HEADER..length].copy_from_slice(value);
    space[length..].fill(0);
    end
}

/// A message under construction in a caller's buffer.
///
/// Invariant: `buffer[..at]` is the message so far, padded to 4 bytes. [`finish`](Self::finish) writes the
/// length, without which the kernel would not read it.
#[derive(Debug)]
#[must_use = "a message without its length is not a message: call finish"]
pub(super) struct MessageWriter<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl<'a> MessageWriter<'a> {
    /// Begins a request to nfnetlink_queue: `kind` is an `NFQNL_MSG_*`, `flags` are `NLM_F_*` beside
    /// `NLM_F_REQUEST`.
    ///
    /// # Panics
    /// If the buffer is too small for this or for a later attribute.
    #[inline]
    pub(super) fn new(
        buffer: &'a mut [u8],
        kind: u8,
        flags: u16,
        sequence: u32,
        queue: u16,
    ) -> Self {
        let header = &mut buffer[..NFMSG_HEADER];
        header.fill(0);
        header[4..6].copy_from_slice(&(SUBSYSTEM_QUEUE | u16::from(kind)).to_ne_bytes());
        header[6..8].copy_from_slice(&(FLAG_REQUEST | flags).to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        header[18..20].copy_from_slice(&queue.to_be_bytes());
        Self { buffer, at: NFMSG_HEADER }
    }

    /// Appends an attribute whose value is shorter than 64 KiB.
    #[inline]
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.at = put(self.buffer, self.at, kind, value);
        self
    }

    /// Writes the message's length and returns it.
    #[inline]
    pub(super) fn finish(self) -> usize {
        let length = u32::try_from(self.at).expect("requests are far shorter than 4 GiB");
        self.buffer[0..4].copy_from_slice(&length.to_ne_bytes());
        self.at
    }
}

/// Narrows one of libc's C ints to the width it has on the wire, at compile time.
macro_rules! wire_constants {
    ($($(#[$doc:meta])* $name:ident: $width:ty = $value:expr;)*) => {$(
        $(#[$doc])*
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked below")]
        pub(super) const $name: $width = $value as $width;
        const _: () = assert!($name as i64 == $value as i64);
    )*};
}
pub(super) use wire_constants;

wire_constants! {
    FLAG_REQUEST: u16 = libc::NLM_F_REQUEST;
    FLAG_ACK: u16 = libc::NLM_F_ACK;
    SUBSYSTEM_QUEUE: u16 = libc::NFNL_SUBSYS_QUEUE << 8;
    TYPE_MASK: u16 = 0x3fff; // NLA_TYPE_MASK
}
