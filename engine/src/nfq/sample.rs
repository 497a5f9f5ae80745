//! Builds packet messages as the kernel would, for tests: any attributes, in any order, with any flaw.

/// A message under construction.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    bytes: Vec<u8>,
}

impl Sample {
    /// A packet message of `queue` without attributes.
    pub(crate) fn new(queue: u16) -> Self {
        let mut bytes = vec![0; 20];
        bytes[4..6].copy_from_slice(&0x0300_u16.to_ne_bytes());
        bytes[16] = 2;
        bytes[18..20].copy_from_slice(&queue.to_be_bytes());
        Self { bytes }
    }

    /// A whole message as the kernel sends it: header, input interface, payload.
    pub(crate) fn packet(queue: u16, id: u32, hook: u8, payload: &[u8]) -> Vec<u8> {
        Self::new(queue)
            .header(id, hook)
            .attribute(5, &2_u32.to_be_bytes())
            .attribute(10, payload)
            .finish()
    }

    /// Appends `NFQA_PACKET_HDR` for an IPv4 packet.
    pub(crate) fn header(self, id: u32, hook: u8) -> Self {
        let id = id.to_be_bytes();
        self.attribute(1, &[id[0], id[1], id[2], id[3], 0x08, 0x00, hook])
    }

    /// Appends an attribute; the one before it is padded now, so that the last one is not.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u16::try_from(4 + value.len()).unwrap();
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self
    }

    /// Writes the length and returns the bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap();
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }

    /// An `NLMSG_ERROR` for a verdict on `id` (`kind` 0x0301) or another request.
    pub(crate) fn error(errno: i32, kind: u16, sequence: u32) -> Vec<u8> {
        let mut bytes = vec![0; 36];
        bytes[0..4].copy_from_slice(&36_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-errno).to_ne_bytes());
        bytes[24..26].copy_from_slice(&kind.to_ne_bytes());
        bytes[28..32].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}
