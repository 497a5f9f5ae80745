//! The sink in the kernel: a socket filter that notes when each packet arrives and takes none.
//!
//! ```text
//! for each datagram, in the context that delivers it:
//!   stamp = bytes 8 to 36                             behind the UDP header
//!   no stamp, or a sender or number out of range      -> stray
//!   slot = log[sender * packets + sequence]
//!   slot was 0: slot = now                            atomically
//!   else                                              -> duplicate
//!   take 0 bytes
//! ```

use std::net::UdpSocket;
use std::os::fd::AsFd;

use anyhow::bail;

use super::ArrivalLog;
use crate::load::xdp::u64s;
use crate::stamp::{MAGIC, Stamp};
use crate::sys::{
    self, Assembler, Instruction, Program, ProgramKind, Register, SharedBytes, When, Width,
};

/// A socket with the filter.
#[derive(Debug)]
pub(crate) struct FilterSink {
    _socket: UdpSocket,
    log: SharedBytes,
    counters: SharedBytes,
    senders: usize,
    packets: usize,
}

impl FilterSink {
    pub(super) fn new(socket: UdpSocket, senders: usize, packets: usize) -> anyhow::Result<Self> {
        let slots = senders * packets;
        if slots == 0 || slots > SLOTS_MAX {
            bail!("{senders} senders with {packets} packets each: the sink logs 1 to {SLOTS_MAX}");
        }
        let log = SharedBytes::new(slots * 8)?;
        let counters = SharedBytes::new(COUNTER_BYTES)?;
        let text = assemble(log.fd(), counters.fd(), senders, packets);
        Program::load(ProgramKind::SocketFilter, &text)?.attach(socket.as_fd())?;
        Ok(Self { _socket: socket, log, counters, senders, packets })
    }

    pub(super) fn arrived_so_far(&self) -> anyhow::Result<usize> {
        Ok(u64s(&self.log.read()?).iter().filter(|time| **time > 0).count())
    }

    pub(super) fn close(self) -> anyhow::Result<ArrivalLog> {
        let counters = u64s(&self.counters.read()?);
        let times = u64s(&self.log.read()?);
        let times: Vec<_> = times.chunks_exact(self.packets).map(<[u64]>::to_vec).collect();
        assert_eq!(times.len(), self.senders, "the log has its size");
        Ok(ArrivalLog { times, duplicates: counters[0], strays: counters[1], socket_drops: 0 })
    }
}

/// `R6` context, `R7` slot, `R8` sequence, `R9` now; the stamp on the stack.
fn assemble(log: i32, counters: i32, senders: usize, packets: usize) -> Vec<Instruction> {
    use Register::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
    use Width::{Double, Half, Word};
    let number = |count: usize| i32::try_from(count).expect("no more than there may be slots");
    let field = |at: usize| STACK + i16::try_from(at).expect("stamps are short");
    let mut program = Assembler::default();
    let [stray, duplicate, count] = [program.label(), program.label(), program.label()];
    program.copy(R6, R1);
    program.set(R2, UDP_HEADER_BYTES);
    program.copy(R3, R10);
    program.add_value(R3, STACK.into());
    program.set(R4, number(Stamp::BYTES));
    program.call(sys::SKB_LOAD_BYTES);
    program.jump_if_value(R0, When::NotEqual, 0, stray);
    program.load(Word, R1, R10, field(0));
    program.jump_if_value(R1, When::NotEqual, i32::from_ne_bytes(MAGIC), stray);
    program.load(Half, R7, R10, field(Stamp::SENDER));
    program.network_order(R7, 16);
    program.jump_if_value(R7, When::GreaterOrEqual, number(senders), stray);
    program.load(Double, R8, R10, field(Stamp::SEQUENCE));
    program.network_order(R8, 64);
    program.jump_if_value(R8, When::GreaterOrEqual, number(packets), stray);
    program.multiply(R7, number(packets));
    program.add(R7, R8);
    program.shift_left(R7, 3);
    program.call(sys::KTIME_GET_NS);
    program.copy(R9, R0);
    program.load_map(R1, log);
    program.add(R1, R7);
    program.set(R0, 0);
    program.compare_and_store(R1, 0, R9);
    program.jump_if_value(R0, When::NotEqual, 0, duplicate);
    program.give_back(0);
    program.place(duplicate);
    program.load_map(R1, counters);
    program.jump(count);
    program.place(stray);
    program.load_map(R1, counters);
    program.add_value(R1, 8);
    program.place(count);
    program.set(R2, 1);
    program.add_atomically(R1, 0, R2);
    program.give_back(0);
    program.finish()
}

/// Where the stamp lies, from the frame pointer.
const STACK: i16 = -32;
const UDP_HEADER_BYTES: i32 = 8;
const COUNTER_BYTES: usize = 16;

/// What the verifier lets a program address in one value: 512 MiB.
const SLOTS_MAX: usize = 1 << 25;
