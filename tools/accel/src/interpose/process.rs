//! The process: its beginning, forks, and ends; and what `fanq accel` was asked to set on its queues.
//!
//! Invariant: nothing that was joined waits over a fork, an exec or an exit. Every lock is held over a fork, so none is
//! another thread's in the child. After it the parent goes on as before; the child has an empty ring and joins nothing
//! until the parent is gone, since both may read the same socket.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int};
use std::fs::{File, OpenOptions};
use std::mem::{self, ManuallyDrop};
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use fanq::nfq::{BindCommand, QueueRequest, Sent, decode_sent};
use fanq::{ConfigFlags, QueueFlag};

use super::kernel::{self, KernelSocket};
use super::{flush_all, flush_held, overdue, real, say_once};
use crate::served::{OWN_SEQUENCE, Port, Serving};
use crate::settings::Settings;
use crate::table::{self, Everything};
use crate::{counts, readers};

/// The process whose memory this is. A vfork's child has the memory, and is another.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Before the program's `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// After its `exit`.
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = flush_all_at_exit;

extern "C" fn begin() {
    real::resolve_all();
    PROCESS.store(kernel::process_and_parent().0, Ordering::Relaxed);
    // SAFETY: the three are functions of this library, which is never unloaded. Without memory for them there is
    // nothing that could be done.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
}

extern "C" fn flush_all_at_exit() {
    if is_this_process() {
        flush_all();
    }
}

/// Whether this is the process that the tables are of.
pub(super) fn is_this_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == kernel::process_and_parent().0
}

/// Whether the descriptor is one of ours, and this the process whose it is.
pub(super) fn owns(fd: c_int) -> bool {
    table::entry(fd).is_some() && is_this_process()
}

thread_local! {
    /// All locks, over a fork. No destructor: a thread may fork when its own were run.
    static HELD: RefCell<ManuallyDrop<Everything>> =
        const { RefCell::new(ManuallyDrop::new(Everything::NOTHING)) };
    /// Whether this thread has got its CPU and its niceness.
    static PLACED: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn before_fork() {
    let mut everything = Everything::lock();
    let process = PROCESS.load(Ordering::Relaxed).cast_unsigned();
    for socket in &mut everything.sockets {
        // Under the lock: what were joined from now on would be sent by both.
        flush_held(socket);
        if let Some(serving) = &mut socket.serving {
            serving.readers.share(process, || readers::word_of(kernel::shared_words()));
        }
    }
    HELD.with_borrow_mut(|held| **held = everything);
}

extern "C" fn after_fork() {
    drop(HELD.with_borrow_mut(|held| mem::take(&mut **held)));
}

extern "C" fn in_child() {
    // What its parent's thread was given, it has not got.
    PLACED.set(false);
    let (process, parent) = kernel::process_and_parent();
    PROCESS.store(process, Ordering::Relaxed);
    overdue::forked();
    let mut everything = HELD.with_borrow_mut(|held| mem::take(&mut **held));
    for socket in &mut everything.sockets {
        socket.threads.forked();
        if let Some(serving) = &mut socket.serving {
            serving.forked(process, parent);
        }
    }
}

/// Lets a child serve by itself once its parent is gone.
#[inline]
pub(super) fn take_over(serving: &mut Serving) {
    if let Some(parent) = serving.shared_with
        && kernel::process_and_parent().1 != parent
    {
        serving.take_over();
    }
}

/// Puts the calling thread, which has received packets, on the CPU of its queue, and gives it its niceness; once.
#[inline]
pub(super) fn place_reader(serving: &mut Serving) {
    serving.packets_came = false;
    if !PLACED.get() {
        PLACED.set(true);
        place(serving);
    }
}

#[cold]
fn place(serving: &Serving) {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    static NICE_REFUSED: AtomicBool = AtomicBool::new(false);
    let asked_for = Settings::of_this_process().nice;
    let nice = asked_for.unwrap_or(NICE);
    if nice != 0 && !fanq::take_priority(nice) && asked_for.is_some() {
        say_once(&NICE_REFUSED, "--nice: only with CAP_SYS_NICE; it stays what it was");
    }
    let Some(queue) = serving.queues().next() else { return };
    if let Some(cpu) = Settings::of_this_process().cpus.of(queue)
        && !fanq::pin_to(cpu)
    {
        say_once(
            &REFUSED,
            &format!("queue {queue}: its thread may not run on CPU {cpu}; see --cpu"),
        );
    }
}

/// What was asked for beyond what the program sets itself, once it has configured a queue.
pub(super) fn configure(fd: c_int, serving: &mut Serving, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (sent, behind) = decode_sent(rest);
        if let Sent::Config(config) = sent {
            let binds = config.command == Some(BindCommand::Bind);
            if binds {
                set_receive_buffer(fd);
            }
            if config.command != Some(BindCommand::Unbind) && serving.is_bound(config.queue) {
                request_settings(fd, serving, config.queue);
            }
        }
        rest = behind;
    }
}

fn request_settings(fd: c_int, serving: &mut Serving, queue: u16) {
    let settings = Settings::of_this_process();
    let flags: ConfigFlags =
        [settings.fail_open.then_some(QueueFlag::FailOpen), settings.gso.then_some(QueueFlag::Gso)]
            .into_iter()
            .flatten()
            .collect();
    let copy = settings.copy_range.filter(|_| serving.copies_packets(queue));
    let requests = [
        settings.queue_maxlen.map(|maxlen| QueueRequest::set_maxlen(queue, maxlen)),
        (!flags.is_empty()).then(|| QueueRequest::turn_on(queue, flags)),
        copy.map(|copy| QueueRequest::set_copy_range(queue, copy)),
    ];
    for request in requests.into_iter().flatten() {
        serving.expect_own_replies();
        let mut bytes = [0; QueueRequest::BYTES_MAX];
        let length = request.unacknowledged().numbered(OWN_SEQUENCE).encode(&mut bytes);
        // A refusal comes back as a message, which is kept from the program.
        let _ = KernelSocket(fd).send(&bytes[..length]);
    }
}

pub(super) fn set_receive_buffer(fd: c_int) {
    static BOUNDED: AtomicBool = AtomicBool::new(false);
    let Some(bytes) = Settings::of_this_process().rcvbuf else { return };
    let wanted = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // Read back doubled, as socket(7) says.
    let has = kernel::get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap_or(0) / 2;
    if has >= wanted || kernel::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted) {
        return;
    }
    kernel::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, wanted);
    say_once(
        &BOUNDED,
        "--rcvbuf: net.core.rmem_max bounds the buffer here; raise it by sysctl, or be root",
    );
}

/// Counts into the file of `fanq accel`, if there is one.
pub(super) fn begin_counting() {
    static ONCE: Once = Once::new();
    static FAILED: AtomicBool = AtomicBool::new(false);
    ONCE.call_once(|| {
        let Some(path) = &Settings::of_this_process().counts_file else { return };
        let mapped = OpenOptions::new().read(true).write(true).open(path).ok().and_then(|file| {
            file.write_all_at(counts::head().as_bytes(), 0).ok()?;
            map(&file)
        });
        if mapped.is_none() {
            say_once(&FAILED, &format!("nothing is counted: {path} cannot be written from here"));
        }
    });
}

fn map(file: &File) -> Option<()> {
    counts::count_into(kernel::map_numbers(file, counts::HEAD_BYTES, counts::NUMBER_BYTES)?);
    Some(())
}

/// _exit(2)
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn _exit(status: c_int) -> ! {
    flush_all_at_exit();
    loop {
        // SAFETY: the argument is the program's.
        unsafe { real::_exit(status) };
    }
}

/// _Exit(3)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn _Exit(status: c_int) -> ! {
    flush_all_at_exit();
    loop {
        // SAFETY: the argument is the program's.
        unsafe { real::_exit(status) };
    }
}

/// execve(2)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    flush_all_at_exit();
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::execve(path, arguments, environment) }
}

/// execv(3)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn execv(
    path: *const c_char,
    arguments: *const *const c_char,
) -> c_int {
    flush_all_at_exit();
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::execv(path, arguments) }
}

/// execvp(3)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn execvp(
    file: *const c_char,
    arguments: *const *const c_char,
) -> c_int {
    flush_all_at_exit();
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::execvp(file, arguments) }
}

/// execvpe(3)
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn execvpe(
    file: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    flush_all_at_exit();
    // SAFETY: the arguments are the program's, passed on unchanged.
    unsafe { real::execvpe(file, arguments, environment) }
}

/// That of the engine's workers: docs/ARCHITECTURE.md, "Scheduling". Not their short turns: with those, an accelerated
/// loop in C cost three quarters more (docs/ACCEL.md, "What it costs").
const NICE: i8 = -5;
