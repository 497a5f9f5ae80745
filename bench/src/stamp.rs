//! The stamp that every test packet begins with: who sent it, from which CPU, as which one, and when.
//!
//! ```text
//!  0      4      8             16             24     26       28
//!  +------+------+-------------+--------------+------+--------+---------+
//!  |magic | flow | sequence    | sent, ns     | cpu  | sender | zeroes  |   all in network order
//!  +------+------+-------------+--------------+------+--------+---------+
//! ```
//!
//! Invariant: what does not begin with the magic is nobody's stamp.

/// One packet's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// One of the sender's flows.
    pub(crate) flow: u32,
    /// Counts up from 0 over all of the sender's packets.
    pub(crate) sequence: u64,
    /// When it was to be sent, by `CLOCK_MONOTONIC`.
    pub(crate) sent_ns: u64,
    /// The CPU that its sender was pinned to.
    pub(crate) cpu: u16,
    /// One sender thread, counted from 0.
    pub(crate) sender: u16,
}

impl Stamp {
    /// The least payload that holds a stamp, in bytes.
    pub(crate) const BYTES: usize = 28;

    /// Where the fields begin, for those who write them elsewhere.
    pub(crate) const FLOW: usize = 4;
    pub(crate) const SEQUENCE: usize = 8;
    pub(crate) const SENT_NS: usize = 16;
    pub(crate) const SENDER: usize = 26;

    /// Writes the stamp to the front of `payload`, which must have room for it.
    pub(crate) fn write(&self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&MAGIC);
        payload[4..8].copy_from_slice(&self.flow.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent_ns.to_be_bytes());
        payload[24..26].copy_from_slice(&self.cpu.to_be_bytes());
        payload[26..28].copy_from_slice(&self.sender.to_be_bytes());
    }

    /// Reads the stamp at the front of `payload`, if there is one.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent_ns, rest) = rest.split_first_chunk()?;
        let (cpu, rest) = rest.split_first_chunk()?;
        let (sender, _) = rest.split_first_chunk()?;
        (*magic == MAGIC).then(|| Self {
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            sent_ns: u64::from_be_bytes(*sent_ns),
            cpu: u16::from_be_bytes(*cpu),
            sender: u16::from_be_bytes(*sender),
        })
    }
}

/// What a stamp begins with.
pub(crate) const MAGIC: [u8; 4] = *b"fanq";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_nothing_else_does() {
        let (sequence, sent_ns) = (u64::MAX - 1, 123_456_789_000);
        let stamp = Stamp { flow: 3, sequence, sent_ns, cpu: 511, sender: 7 };
        let mut payload = [0xa5; 64];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        for cut in 0..Stamp::BYTES {
            assert_eq!(Stamp::read(&payload[..cut]), None);
        }
        payload[0] ^= 1;
        assert_eq!(Stamp::read(&payload), None);
    }
}
