//! Load made in the kernel: one `BPF_PROG_RUN` call with live frames puts `count` copies of a frame into the stack
//! as if a device had received them, on the calling thread's CPU.
//!
//! Invariant: one call a trial, since each costs about 25 ms to set up and tear down; the program passes every frame
//! and does nothing else. Needs CAP_BPF and CAP_NET_ADMIN in the first user namespace. The only unsafe code of the
//! bench.

#![allow(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;

use crate::stamp::Stamp;

/// Where frames go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The interface that seems to receive them.
    pub(crate) interface: u32,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
    /// Where they seem to come from.
    pub(crate) source: Ipv4Addr,
    /// The interface's address.
    pub(crate) destination: Ipv4Addr,
    /// UDP port.
    pub(crate) port: u16,
}

/// An XDP program that lets every frame pass, loaded.
#[derive(Debug)]
pub(crate) struct PassProgram(OwnedFd);

impl PassProgram {
    /// Loads `r0 = XDP_PASS; exit`.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let instructions =
            [Instruction { code: 0xb7, registers: 0, offset: 0, immediate: XDP_PASS }, EXIT];
        let mut attributes = LoadAttributes {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..LoadAttributes::default()
        };
        // SAFETY: the kernel reads the two instructions and the license string, which outlive the call.
        let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }
            .context("loading the XDP program (it needs root, and a kernel with BPF)")?;
        // SAFETY: BPF_PROG_LOAD returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Puts `count` frames of `payload_bytes` into the stack and returns when all have passed.
    pub(crate) fn run(
        &self,
        target: Target,
        payload_bytes: usize,
        count: u32,
    ) -> anyhow::Result<()> {
        let frame = udp_frame(target, payload_bytes);
        let frame_bytes = u32::try_from(frame.len()).context("the frame is too large")?;
        let context = XdpContext {
            data_end: frame_bytes,
            ingress_interface: target.interface,
            ..XdpContext::default()
        };
        let mut attributes = RunAttributes {
            program: self.0.as_raw_fd().unsigned_abs(),
            data_in_size: frame_bytes,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            context_in_size: u32::try_from(size_of::<XdpContext>()).context("context size")?,
            context_in: (&raw const context) as u64,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: FRAMES_PER_BATCH,
            ..RunAttributes::default()
        };
        // SAFETY: the kernel reads the frame and the context, which outlive the call, by the sizes given with them.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }.context("running the XDP program")?;
        Ok(())
    }
}

/// The bpf(2) system call. Returns what it returns, or the error.
///
/// # Safety
/// `attributes` must be the kernel's attribute structure for `command`, and every pointer in it must be good for
/// the access that the command makes.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the contents; the size is that of the structure.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(result).map_err(io::Error::other)
    }
}

/// Ethernet, IPv4 and UDP headers, and a payload that begins with a stamp.
fn udp_frame(target: Target, payload_bytes: usize) -> Vec<u8> {
    let udp_bytes = u16::try_from(8 + payload_bytes).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(42 + payload_bytes);
    frame.extend(target.mac);
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_bytes).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(target.source.octets());
    ip.extend(target.destination.octets());
    let checksum = header_checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    frame.extend(5000_u16.to_be_bytes());
    frame.extend(target.port.to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    let mut payload = vec![0; payload_bytes.max(Stamp::BYTES)];
    Stamp { flow: 0, sequence: 0, sent_ns: 0, cpu: 0 }.write(&mut payload);
    frame.extend(&payload[..payload_bytes]);
    frame
}

fn header_checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads here; the kernel takes what is missing for zeroes.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_PROG_TEST_RUN` reads.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    result: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    receive_queue: u32,
    egress_interface: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);
const _: () = assert!(size_of::<RunAttributes>() == 80);
const _: () = assert!(size_of::<XdpContext>() == 24);

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;
const XDP_PASS: i32 = 2;

/// What a driver's poll hands over at once.
const FRAMES_PER_BATCH: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_well_formed() {
        let target = Target {
            interface: 2,
            mac: [2, 0, 0, 0, 0, 1],
            source: Ipv4Addr::new(10, 0, 0, 2),
            destination: Ipv4Addr::new(10, 0, 0, 1),
            port: 9000,
        };
        let frame = udp_frame(target, 64);
        assert_eq!(frame.len(), 14 + 20 + 8 + 64);
        assert_eq!(header_checksum(&frame[14..34]), 0, "a header with its checksum sums to zero");
        assert_eq!(frame[38..40], [0, 72], "the UDP length counts its header");
        assert!(Stamp::read(&frame[42..]).is_some());
    }
}
