//! System calls of this library's own, past the C library's wrappers: those are what it interposes on, and some of them
//! are cancellation points.
//!
//! Invariant: none of these waits, but `wait_on` and `rest`, which the flushing thread alone calls. Every pointer is
//! made from a reference for the call that it is for.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use libc::{c_int, c_long, iovec, mmsghdr, msghdr};

use crate::ring::{CONTROL_BYTES_MAX, NAME_BYTES_MAX, Ring, Slot};
use crate::served::Port;
use crate::settings::BATCH_MAX;

/// A socket of the program's, by descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelSocket(pub(super) c_int);

impl Port for KernelSocket {
    fn receive(&mut self, ring: &mut Ring, depth: usize) -> Result<usize, i32> {
        let mut headers = [const { MaybeUninit::<mmsghdr>::uninit() }; BATCH_MAX];
        let mut vectors = [const { MaybeUninit::<iovec>::uninit() }; BATCH_MAX];
        let mut count = 0;
        for ((memory, slot), (header, vector)) in
            ring.free_slots().zip(headers.iter_mut().zip(&mut vectors)).take(depth)
        {
            let vector =
                vector.write(iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() });
            header.write(header_of(vector, slot));
            count += 1;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let null = ptr::null_mut::<libc::timespec>();
        let pointer = headers.as_mut_ptr();
        // SAFETY: recvmmsg reads and writes `count` headers, which were written above; each leads to one vector and one
        // slot of the ring, which this function has borrowed mutably. No time-out is passed.
        let received = result(|| unsafe {
            libc::syscall(libc::SYS_recvmmsg, self.0, pointer, count, flags, null)
        })?;
        for ((_, slot), header) in ring.free_slots().zip(&headers).take(received.min(count)) {
            // SAFETY: the first `count` headers were written above.
            let header = unsafe { header.assume_init_ref() };
            slot.length = header.msg_len as usize;
            slot.flags = header.msg_hdr.msg_flags;
            slot.control_length = header.msg_hdr.msg_controllen.min(CONTROL_BYTES_MAX);
            slot.name_length = (header.msg_hdr.msg_namelen as usize).min(NAME_BYTES_MAX);
        }
        Ok(received)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), i32> {
        let (pointer, length) = (bytes.as_ptr(), bytes.len());
        let null = ptr::null::<libc::sockaddr>();
        // SAFETY: sendto reads `length` bytes at `pointer`, a slice that lives through the call, and no address.
        let sent = || unsafe {
            libc::syscall(libc::SYS_sendto, self.0, pointer, length, libc::MSG_NOSIGNAL, null, 0)
        };
        result(sent).map(drop)
    }

    fn drops(&mut self) -> Option<u32> {
        let mut numbers = [0_u32; MEMINFO_COUNT];
        let mut length = u32::try_from(size_of_val(&numbers)).ok()?;
        // SAFETY: getsockopt writes at most `length` bytes to `numbers`, which is as long, and to `length`.
        let got = result(|| unsafe {
            libc::syscall(
                libc::SYS_getsockopt,
                self.0,
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                &raw mut numbers,
                &raw mut length,
            )
        });
        (got.is_ok() && length as usize == size_of_val(&numbers)).then(|| numbers[MEMINFO_DROPS])
    }

    fn gave_up(&mut self, errno: i32) {
        static GAVE_UP: AtomicBool = AtomicBool::new(false);
        let error = std::io::Error::from_raw_os_error(errno);
        super::say_once(
            &GAVE_UP,
            &format!(
                "verdicts could not be sent: {error}; their packets stay in the queue until it is closed \
                 (verdict_errors of --stats counts such sends)"
            ),
        );
    }
}

fn header_of(vector: &mut iovec, slot: &mut Slot) -> mmsghdr {
    // SAFETY: mmsghdr is integers and pointers, for which all zeroes are valid values.
    let mut header = unsafe { std::mem::zeroed::<mmsghdr>() };
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_name = slot.name.as_mut_ptr().cast();
    header.msg_hdr.msg_namelen = u32::try_from(slot.name.len()).unwrap_or(0);
    header.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
    header.msg_hdr.msg_controllen = slot.control.len();
    header
}

/// Sends a message as the program has it.
///
/// # Safety
/// As for sendmsg(2): the header and all that it leads to can be read.
pub(super) unsafe fn sendmsg(fd: c_int, header: &msghdr, flags: c_int) -> Result<usize, i32> {
    let header: *const msghdr = header;
    // SAFETY: the caller's.
    result(|| unsafe { libc::syscall(libc::SYS_sendmsg, fd, header, flags) })
}

/// Sets a socket option of type int.
pub(super) fn set_int(fd: c_int, level: c_int, option: c_int, value: c_int) -> bool {
    let length = size_of_val(&value);
    // SAFETY: setsockopt reads `length` bytes at `value`, an int that lives through the call.
    let set = result(|| unsafe {
        libc::syscall(libc::SYS_setsockopt, fd, level, option, &raw const value, length)
    });
    set.is_ok()
}

/// A socket option of type int.
pub(super) fn get_int(fd: c_int, level: c_int, option: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length: u32 = 4;
    // SAFETY: getsockopt writes at most `length` bytes, an int's, to `value`, and to `length`.
    let got = result(|| unsafe {
        let (value, length) = (&raw mut value, &raw mut length);
        libc::syscall(libc::SYS_getsockopt, fd, level, option, value, length)
    });
    got.ok().map(|_| value)
}

/// This process, and the one that made it.
pub(super) fn process_and_parent() -> (i32, i32) {
    // SAFETY: getpid touches no memory.
    let process = unsafe { libc::getpid() };
    // SAFETY: getppid touches no memory.
    (process, unsafe { libc::getppid() })
}

/// Writes to standard error, as far as it goes.
pub(super) fn write_error(bytes: &[u8]) {
    let (pointer, length) = (bytes.as_ptr(), bytes.len());
    // SAFETY: write reads `length` bytes at `pointer`, a slice that lives through the call.
    unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, pointer, length) };
}

/// Runs `step` while the calling thread takes no signal; a thread that it begins never does.
pub(super) fn without_signals<T>(step: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset writes the whole set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: it reads the set just written, and writes the one before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let done = step();
    // SAFETY: `before` was written by the call above, which cannot fail with these arguments.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    done
}

/// Waits while the word has this value, until `wake`.
pub(super) fn wait_on(word: &AtomicU32, value: u32) {
    let null = ptr::null::<libc::timespec>();
    // SAFETY: futex reads the word, which is alive for the call, and no time-out.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            null,
        )
    };
}

/// Wakes whoever waits on the word.
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: futex takes the word's address alone; it is alive for the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        )
    };
}

/// Sleeps, or less if a signal comes.
pub(super) fn rest(time: Duration) {
    let time =
        libc::timespec { tv_sec: 0, tv_nsec: c_long::from(time.subsec_nanos().cast_signed()) };
    let null = ptr::null_mut::<libc::timespec>();
    // SAFETY: nanosleep reads one timespec, which lives through the call, and writes none.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, null) };
}

/// Maps the numbers of a file, `bytes` of them from `offset` on, for as long as the process lives.
pub(super) fn map_numbers(
    file: &File,
    offset: usize,
    bytes: usize,
) -> Option<&'static [AtomicU64]> {
    let (protection, offset) = (libc::PROT_READ | libc::PROT_WRITE, i64::try_from(offset).ok()?);
    let fd = file.as_raw_fd();
    // SAFETY: a new mapping where the kernel likes; nothing that exists is touched.
    let memory =
        unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, offset) };
    if memory == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping is `bytes` long, begins on a page, is never taken away, and is written by atomic stores
    // alone, for which any bytes are valid values.
    Some(unsafe { std::slice::from_raw_parts(memory.cast(), bytes / size_of::<AtomicU64>()) })
}

/// Numbers that this process and those that it forks from now on have together; none if there is no memory.
pub(super) fn shared_words() -> &'static [AtomicU32] {
    static WORDS: OnceLock<&'static [AtomicU32]> = OnceLock::new();
    WORDS.get_or_init(|| {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes; nothing that exists is touched.
        let memory = unsafe { libc::mmap(ptr::null_mut(), SHARED_BYTES, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return &[];
        }
        // SAFETY: the mapping is so long, begins on a page with zeroes, is never taken away, and is written by atomic
        // operations alone.
        unsafe { std::slice::from_raw_parts(memory.cast(), SHARED_BYTES / size_of::<AtomicU32>()) }
    })
}

/// Ends the thread here if it was cancelled: the calls that stand for cancellation points begin by this, with no lock
/// held and nothing to be undone.
pub(super) fn end_if_cancelled() {
    unsafe extern "C-unwind" {
        fn pthread_testcancel();
    }
    // SAFETY: it takes nothing; if it does not return, the frames above it have nothing to be dropped.
    unsafe { pthread_testcancel() };
}

/// Makes a system call, and gives what it returned: a count, or the errno. The program's own errno stays what it was.
fn result(call: impl FnOnce() -> c_long) -> Result<usize, i32> {
    let before = super::errno();
    usize::try_from(call()).map_err(|_| {
        let error = super::errno();
        super::fail(before);
        error
    })
}

/// A page.
const SHARED_BYTES: usize = 4096;

/// `SK_MEMINFO_VARS` and `SK_MEMINFO_DROPS` of linux/sock_diag.h.
const MEMINFO_COUNT: usize = 9;
const MEMINFO_DROPS: usize = 8;
