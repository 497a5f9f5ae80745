//! Configuration messages: binding a queue with everything it needs, and changing a bound one.
//!
//! Invariant: BIND, PARAMS, MAXLEN, FLAGS and MASK go in one message, which the kernel applies as one
//! (`nfqnl_recv_config` refuses bad flags before it binds). In between nothing could be dropped for want of a
//! copy mode.

use super::attribute::{FLAG_ACK, MessageWriter, wire_constants};
use super::flags::{ConfigFlags, QueueFlag};

/// How much of each packet the kernel copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyRange {
    /// All that fits one message: 65,531 bytes.
    #[default]
    Full,
    /// The first so many bytes, 1 to 65,531. The packet's own length comes beside.
    Bytes(u16),
    /// No payload, only what the kernel knows about the packet.
    Meta,
}

impl CopyRange {
    /// The most that fits: 65,535 less the attribute's header (`NFQNL_MAX_COPY_RANGE` in
    /// net/netfilter/nfnetlink_queue.c).
    pub const BYTES_MAX: u16 = 65_531;

    /// How many bytes of payload can come.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Full => Self::BYTES_MAX,
            Self::Bytes(bytes) => bytes,
            Self::Meta => 0,
        }
    }
}

/// A request to configure one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRequest {
    queue: u16,
    sequence: u32,
    request_flags: u16,
    command: Option<u8>,
    copy: Option<CopyRange>,
    maxlen: Option<u32>,
    flags: Option<ConfigFlags>,
    flags_mask: ConfigFlags,
}

impl QueueRequest {
    /// The largest request, in bytes.
    pub const BYTES_MAX: usize = 64;

    const fn new(queue: u16) -> Self {
        Self {
            queue,
            sequence: 0,
            request_flags: FLAG_ACK,
            command: None,
            copy: None,
            maxlen: None,
            flags: None,
            flags_mask: ConfigFlags::ALL,
        }
    }

    /// Takes the queue and configures it whole. `maxlen` counts packets.
    #[must_use]
    pub const fn bind(queue: u16, copy: CopyRange, maxlen: u32, flags: ConfigFlags) -> Self {
        Self {
            command: Some(CMD_BIND),
            copy: Some(copy),
            maxlen: Some(maxlen),
            flags: Some(flags),
            ..Self::new(queue)
        }
    }

    /// Configures a queue that this socket has bound already, as [`bind`](Self::bind) does.
    #[must_use]
    pub const fn configure(queue: u16, copy: CopyRange, maxlen: u32, flags: ConfigFlags) -> Self {
        Self { command: None, ..Self::bind(queue, copy, maxlen, flags) }
    }

    /// Asks whether the kernel knows the flag, by setting it on a queue that this socket has not bound: a flag that
    /// it cannot do is refused with `EOPNOTSUPP`, before it looks for the queue; any other answer is about the
    /// queue. Changes nothing.
    #[must_use]
    pub const fn probe(queue: u16, flag: QueueFlag) -> Self {
        Self { flags: Some(ConfigFlags::NONE.with(flag)), ..Self::new(queue) }
    }

    /// Changes how many packets a bound queue holds. With 0 it takes no more: what arrives is dropped and
    /// counted by the kernel or, under `fail_open`, passes.
    #[must_use]
    pub const fn set_maxlen(queue: u16, maxlen: u32) -> Self {
        Self { maxlen: Some(maxlen), ..Self::new(queue) }
    }

    /// Changes how much of each packet is copied, for packets that are queued from now on.
    #[must_use]
    pub const fn set_copy_range(queue: u16, copy: CopyRange) -> Self {
        Self { copy: Some(copy), ..Self::new(queue) }
    }

    /// Gives the queue up. The kernel drops what is still queued.
    #[must_use]
    pub const fn unbind(queue: u16) -> Self {
        Self { command: Some(CMD_UNBIND), ..Self::new(queue) }
    }

    /// Turns flags of a bound queue on, and leaves the others as they are.
    #[must_use]
    pub const fn turn_on(queue: u16, flags: ConfigFlags) -> Self {
        Self { flags: Some(flags), flags_mask: flags, ..Self::new(queue) }
    }

    /// Does not ask for an acknowledgement: the kernel answers only if it refuses.
    #[must_use]
    pub const fn unacknowledged(self) -> Self {
        Self { request_flags: 0, ..self }
    }

    /// Numbers the request; the acknowledgement carries the number.
    #[must_use]
    pub const fn numbered(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    /// Writes the request, with the wish for an acknowledgement unless it is [`unacknowledged`](Self::unacknowledged),
    /// and returns its length.
    ///
    /// # Panics
    /// If the buffer is shorter than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        let mut message =
            MessageWriter::new(buffer, MSG_CONFIG, self.request_flags, self.sequence, self.queue);
        if let Some(command) = self.command {
            message = message.attribute(CFG_CMD, &[command, 0, 0, 0]);
        }
        if let Some(copy) = self.copy {
            message = message.attribute(CFG_PARAMS, &copy_params(copy));
        }
        if let Some(maxlen) = self.maxlen {
            message = message.attribute(CFG_QUEUE_MAXLEN, &maxlen.to_be_bytes());
        }
        if let Some(flags) = self.flags {
            message = message
                .attribute(CFG_FLAGS, &flags.to_kernel().to_be_bytes())
                .attribute(CFG_MASK, &self.flags_mask.to_kernel().to_be_bytes());
        }
        message.finish()
    }
}

/// `struct nfqnl_msg_config_params`: the range in network order, then the mode, packed.
fn copy_params(copy: CopyRange) -> [u8; 5] {
    let mode = if matches!(copy, CopyRange::Meta) { COPY_META } else { COPY_PACKET };
    let [high, low] = copy.bytes().to_be_bytes();
    [0, 0, high, low, mode]
}

wire_constants! {
    MSG_CONFIG: u8 = libc::NFQNL_MSG_CONFIG;
    CMD_BIND: u8 = libc::NFQNL_CFG_CMD_BIND;
    CMD_UNBIND: u8 = libc::NFQNL_CFG_CMD_UNBIND;
    COPY_META: u8 = libc::NFQNL_COPY_META;
    COPY_PACKET: u8 = libc::NFQNL_COPY_PACKET;
    CFG_CMD: u16 = libc::NFQA_CFG_CMD;
    CFG_PARAMS: u16 = libc::NFQA_CFG_PARAMS;
    CFG_QUEUE_MAXLEN: u16 = libc::NFQA_CFG_QUEUE_MAXLEN;
    CFG_FLAGS: u16 = libc::NFQA_CFG_FLAGS;
    CFG_MASK: u16 = libc::NFQA_CFG_MASK;
}
