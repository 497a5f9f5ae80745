//! The bench's only unsafe code: BPF, and a few system calls of senders and sink.
//!
//! Invariant: what leaves this module is safe to use with any values; each block says why it is sound.

mod assembler;
mod bpf;
mod packet;
mod socket;

pub(crate) use assembler::Instruction;
pub(crate) use assembler::{Assembler, Register, When, Width};
pub(crate) use bpf::{
    KTIME_GET_NS, Program, ProgramKind, REDIRECT, SKB_LOAD_BYTES, SharedBytes, XDP_ADJUST_TAIL,
    XDP_DROP, XDP_PASS,
};
pub(crate) use packet::FrameSocket;
pub(crate) use socket::{INTERRUPTION, SendBatch, accept_no_checksum, interrupt};
