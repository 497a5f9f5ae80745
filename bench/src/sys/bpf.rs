//! The bpf(2) system call: arrays shared with the kernel, programs, and runs of them on live frames.
//!
//! Invariant: every pointer that goes into the call leads to memory that outlives it, with the size that is told.
//! Descriptors are owned and closed on drop, and with them the kernel's objects. Needs CAP_BPF and
//! CAP_NET_ADMIN in the first user namespace.

#![allow(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::Context;

use super::assembler::Instruction;

/// An array of one value, which programs address directly ([`Assembler::load_map`](super::Assembler::load_map)).
#[derive(Debug)]
pub(crate) struct SharedBytes {
    map: OwnedFd,
    size: u32,
}

impl SharedBytes {
    /// `size` zeroes, rounded up to 8.
    pub(crate) fn new(size: usize) -> anyhow::Result<Self> {
        let size = u32::try_from(size.next_multiple_of(8)).context("a BPF array over 4 GiB")?;
        let mut attributes = MapAttributes {
            kind: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size,
            entries_max: 1,
            ..MapAttributes::default()
        };
        // SAFETY: the attributes hold numbers only.
        let fd = unsafe { bpf(MAP_CREATE, &mut attributes) }.with_context(|| {
            format!("making a BPF array of {size} bytes (it needs root, and a kernel with BPF)")
        })?;
        // SAFETY: BPF_MAP_CREATE returned a new descriptor that nobody else owns.
        Ok(Self { map: unsafe { OwnedFd::from_raw_fd(fd) }, size })
    }

    /// For [`Assembler::load_map`](super::Assembler::load_map).
    pub(crate) fn fd(&self) -> RawFd {
        self.map.as_raw_fd()
    }

    /// Copies all of it out.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        let mut value = vec![0; self.size as usize];
        self.element(MAP_LOOKUP_ELEMENT, value.as_mut_ptr()).context("reading a BPF array")?;
        Ok(value)
    }

    /// Copies `bytes` in, and zeroes behind them.
    ///
    /// # Panics
    /// If they are more than there is room for.
    pub(crate) fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        assert!(bytes.len() <= self.size as usize, "more than the array has room for");
        let mut value = bytes.to_vec();
        value.resize(self.size as usize, 0);
        self.element(MAP_UPDATE_ELEMENT, value.as_mut_ptr()).context("writing a BPF array")
    }

    /// Looks the only element up into, or updates it from, `value`, which has the array's size.
    fn element(&self, command: libc::c_int, value: *mut u8) -> io::Result<()> {
        let key = 0_u32;
        let mut attributes = ElementAttributes {
            map: self.map.as_raw_fd().unsigned_abs(),
            padding: 0,
            key: (&raw const key) as u64,
            value: value as u64,
            flags: 0,
        };
        // SAFETY: key and value outlive the call; both callers give a value of the array's size, and exclusively.
        unsafe { bpf(command, &mut attributes) }.map(drop)
    }
}

/// What a program is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProgramKind {
    /// `BPF_PROG_TYPE_SOCKET_FILTER`: returns how many bytes of a packet the socket takes.
    SocketFilter = 1,
    /// `BPF_PROG_TYPE_XDP`: returns an `XDP_*` action.
    Xdp = 6,
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Loads it. The arrays that it names must be open; the kernel keeps them from then on.
    pub(crate) fn load(kind: ProgramKind, instructions: &[Instruction]) -> anyhow::Result<Self> {
        let mut log = vec![0_u8; LOG_BYTES];
        let mut attributes = LoadAttributes {
            program_type: kind as u32,
            instruction_count: u32::try_from(instructions.len()).context("a long program")?,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 1,
            log_size: u32::try_from(log.len()).context("a long log")?,
            log_buffer: log.as_mut_ptr() as u64,
            ..LoadAttributes::default()
        };
        // SAFETY: instructions, license and log outlive the call and have the sizes that are told.
        let fd = unsafe { bpf(PROG_LOAD, &mut attributes) }.with_context(|| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let said = String::from_utf8_lossy(&log[..end]);
            format!(
                "loading a BPF program (it needs root, and a kernel with BPF) {}",
                said.trim_end()
            )
        })?;
        // SAFETY: BPF_PROG_LOAD returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Runs it on `repeat` live frames, which begin as copies of `frame` and seem to come in by the interface. What
    /// it passes goes into the stack, on this thread's CPU and in its network namespace; what it redirects, to the
    /// other interface, 16 at a time at the most. A signal ends it early.
    /// One call costs about 25 ms beside its frames.
    pub(crate) fn run_live(&self, frame: &[u8], interface: u32, repeat: u32) -> io::Result<()> {
        let frame_bytes = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let context = XdpContext {
            data_end: frame_bytes,
            ingress_interface: interface,
            ..XdpContext::default()
        };
        let mut attributes = RunAttributes {
            program: self.0.as_raw_fd().unsigned_abs(),
            data_in_size: frame_bytes,
            data_in: frame.as_ptr() as u64,
            repeat,
            context_in_size: CONTEXT_BYTES,
            context_in: (&raw const context) as u64,
            flags: TEST_XDP_LIVE_FRAMES,
            batch_size: FRAMES_PER_BATCH,
            ..RunAttributes::default()
        };
        // SAFETY: frame and context outlive the call and have the sizes that are told.
        match unsafe { bpf(PROG_TEST_RUN, &mut attributes) } {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Filters a socket by it.
    pub(crate) fn attach(&self, socket: BorrowedFd<'_>) -> anyhow::Result<()> {
        let program = self.0.as_fd().as_raw_fd();
        let size = libc::socklen_t::try_from(size_of_val(&program)).context("option size")?;
        // SAFETY: the option's value is one int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_BPF,
                (&raw const program).cast(),
                size,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("attaching a BPF program to a socket");
        }
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

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads here; the kernel takes what is missing for zeroes.
#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries_max: u32,
    flags: u32,
}

/// The part that `BPF_MAP_*_ELEM` read.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part that `BPF_PROG_LOAD` reads.
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

/// The part that `BPF_PROG_TEST_RUN` reads.
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

const CONTEXT_BYTES: u32 = 24;

const _: () = assert!(size_of::<RunAttributes>() == 80);
const _: () = assert!(size_of::<XdpContext>() == CONTEXT_BYTES as usize);

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEMENT: libc::c_int = 1;
const MAP_UPDATE_ELEMENT: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const MAP_TYPE_ARRAY: u32 = 2;
const TEST_XDP_LIVE_FRAMES: u32 = 2;

/// What a driver's poll hands over at once.
const FRAMES_PER_BATCH: u32 = 64;

/// Room for what the verifier says of a program that it refuses.
const LOG_BYTES: usize = 64 << 10;

/// Helpers of the kernel (`enum bpf_func_id`).
pub(crate) const KTIME_GET_NS: i32 = 5;
/// `bpf_redirect`
pub(crate) const REDIRECT: i32 = 23;
/// `bpf_skb_load_bytes`
pub(crate) const SKB_LOAD_BYTES: i32 = 26;
/// `bpf_xdp_adjust_tail`
pub(crate) const XDP_ADJUST_TAIL: i32 = 65;
/// `enum xdp_action`
pub(crate) const XDP_DROP: i32 = 1;
/// `enum xdp_action`
pub(crate) const XDP_PASS: i32 = 2;
