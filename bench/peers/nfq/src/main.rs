//! `nfq`: accepts every packet of some NFQUEUE queues by means of the crate of that name, the way that its example
//! does: receive one, set its verdict, send it. A thread and a socket of the crate for each queue.
//!
//! Invariant: a failure is one line on standard error and exit status 1; a packet counts once its verdict is sent.
//!
//! Does not: set the receive buffer, as the crate neither offers it nor shows its socket (it is
//! net.core.rmem_default), nor bind a queue in one message (the crate sends its settings after it).

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nfq::{Queue, Verdict};
use rustix::thread::CpuSet;
use rustix::time::ClockId;
use signal_hook::consts::{SIGINT, SIGTERM};

const USAGE: &str = "usage: nfq [OPTIONS] FIRST-LAST
  FIRST-LAST     queues, each served by a thread of its own
  -c CPU,CPU...  the CPUs of the queues, in order [default: CPU i for the i-th]
  -l PACKETS     the most that wait in one queue [default: 65535]
On SIGTERM or SIGINT it prints packets, recv_calls, send_calls and cpu_us as JSON.
";

struct Options {
    first: u16,
    last: u16,
    maxlen: u32,
    cpus: Vec<usize>,
}

/// One queue's packets, on cache lines that no other thread writes to.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match read_options(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Serves until a signal, then prints the account; CPU time counts from `ready:` on.
fn run(options: &Options) -> Result<(), String> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|error| format!("signals: {error}"))?;
    let queues: Vec<_> = (options.first..=options.last)
        .map(|number| open(number, options))
        .collect::<Result<_, _>>()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: &[Count] = queues.iter().map(|_| Count::default()).collect::<Vec<_>>().leak();
    let cpu_at_start = cpu_time();
    for (index, (queue, count)) in queues.into_iter().zip(counts).enumerate() {
        let cpu = match options.cpus.as_slice() {
            [] => index % cpus,
            given => given[index % given.len()],
        };
        let number = options.first + u16::try_from(index).unwrap_or(u16::MAX);
        start(queue, number, cpu, count)?;
    }
    eprintln!("ready: nfq: queues {}-{}", options.first, options.last);
    signals.forever().next();
    let packets: u64 = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum();
    let cpu_us = (cpu_time() - cpu_at_start).as_micros();
    // The crate makes one receive call and one send call for each packet.
    println!(
        r#"{{"packets":{packets},"recv_calls":{packets},"send_calls":{packets},"cpu_us":{cpu_us}}}"#
    );
    Ok(())
}

fn open(number: u16, options: &Options) -> Result<Queue, String> {
    let mut queue = Queue::open().map_err(|error| format!("no netlink socket: {error}"))?;
    queue.bind(number).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("queue {number}: another program has it, or CAP_NET_ADMIN is missing ({error})")
        }
        _ => format!("queue {number}: cannot bind it: {error}"),
    })?;
    queue
        .set_queue_max_len(number, options.maxlen)
        .map_err(|error| format!("queue {number}: its length: {error}"))?;
    Ok(queue)
}

/// Returns once the thread runs on its CPU.
fn start(queue: Queue, number: u16, cpu: usize, count: &'static Count) -> Result<(), String> {
    let (pinned, pinning) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut only = CpuSet::new();
        only.set(cpu);
        let result = rustix::thread::sched_setaffinity(None, &only);
        let may_serve = result.is_ok();
        // The receiver waits for just this.
        let _ = pinned.send(result);
        if may_serve {
            let error = serve(queue, count);
            fail(&format!("queue {number}: {error}"));
            std::process::exit(1);
        }
    });
    let result = pinning.recv().map_err(|_| format!("queue {number}: its thread ended"))?;
    result.map_err(|error| {
        format!("queue {number}: no thread on CPU {cpu} (offline, or not allowed?): {error}; give other CPUs with -c")
    })
}

/// Accepts packet after packet until something fails.
fn serve(mut queue: Queue, count: &Count) -> std::io::Error {
    loop {
        let mut packet = match queue.recv() {
            Ok(packet) => packet,
            // A signal; or the kernel's answer to a verdict whose packet is gone.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => {
                continue;
            }
            Err(error) => return error,
        };
        packet.set_verdict(Verdict::Accept);
        if let Err(error) = queue.verdict(packet) {
            return error;
        }
        count.0.store(count.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// CPU time of this process so far, all threads, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn read_options(arguments: &[String]) -> Result<Options, String> {
    let (mut cpus, mut maxlen, mut queues) = (Vec::new(), 65_535, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "-c" => cpus = value()?.split(',').map(read_cpu).collect::<Result<_, _>>()?,
            "-l" => maxlen = read_number(value()?)?,
            _ if word.starts_with('-') || queues.is_some() => {
                return Err(format!("`{word}`?\n{USAGE}"));
            }
            _ => queues = Some(word),
        }
    }
    let queues = queues.ok_or_else(|| format!("no queues\n{USAGE}"))?;
    let (first, last) = queues.split_once(['-', ':']).unwrap_or((queues, queues));
    let (first, last): (u16, u16) = (read_number(first)?, read_number(last)?);
    if last < first || last - first >= 1024 {
        return Err(format!(
            "the queues `{queues}`: write FIRST-LAST, at most 1024 of them, such as 0-3"
        ));
    }
    Ok(Options { first, last, maxlen, cpus })
}

fn read_cpu(text: &str) -> Result<usize, String> {
    let cpu = read_number(text)?;
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("there is no CPU {cpu}"));
    }
    Ok(cpu)
}

fn read_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number, or is too great"))
}

fn fail(error: &str) -> ExitCode {
    eprintln!("nfq: {error}");
    ExitCode::FAILURE
}
