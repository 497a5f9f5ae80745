//! The sink as a thread that receives: for where BPF is refused.
//!
//! Invariant: it ends when it is told to, after it has taken what was queued. It shares the machine's CPUs with what
//! is measured, and its own wake-ups are in the delays: results say which sink they come from.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use fanq::Timestamp;

use super::ArrivalLog;
use crate::stamp::Stamp;

/// The thread.
#[derive(Debug)]
pub(crate) struct SocketSink {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<ArrivalLog>>,
}

impl SocketSink {
    pub(super) fn new(socket: UdpSocket, senders: usize, packets: usize) -> anyhow::Result<Self> {
        socket.set_read_timeout(Some(LOOK_EVERY)).context("a timeout for the sink")?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let log = ArrivalLog { times: vec![vec![0; packets]; senders], ..ArrivalLog::default() };
        let receive = move || receive(&socket, log, &told);
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(receive)?;
        Ok(Self { stop, thread })
    }

    pub(super) fn close(self) -> anyhow::Result<ArrivalLog> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| bail!("the sink panicked"))
    }
}

fn receive(
    socket: &UdpSocket,
    mut log: ArrivalLog,
    stop: &AtomicBool,
) -> anyhow::Result<ArrivalLog> {
    let mut datagram = vec![0; 65_536];
    loop {
        match socket.recv(&mut datagram) {
            Ok(length) => log.note(&datagram[..length], Timestamp::now()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Nothing has come for a while, so nothing that came before the order is left.
                if stop.load(Ordering::Relaxed) {
                    log.socket_drops = drops_of(socket)?;
                    return Ok(log);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("receiving at the sink"),
        }
    }
}

impl ArrivalLog {
    fn note(&mut self, payload: &[u8], now: Timestamp) {
        let place = Stamp::read(payload).and_then(|stamp| {
            let sequence = usize::try_from(stamp.sequence).ok()?;
            self.times.get_mut(usize::from(stamp.sender))?.get_mut(sequence)
        });
        match place {
            Some(time) if *time == 0 => *time = now.0,
            Some(_) => self.duplicates += 1,
            None => self.strays += 1,
        }
    }
}

/// The last column of the socket's row in `/proc/net/udp6`, proc_net(5).
fn drops_of(socket: &UdpSocket) -> anyhow::Result<u64> {
    let port = socket.local_addr().context("the sink's address")?.port();
    let table = std::fs::read_to_string("/proc/thread-self/net/udp6").context("/proc/net/udp6")?;
    let ending = format!(":{port:04X}");
    let row = table.lines().find(|line| {
        line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&ending))
    });
    let drops = row.and_then(|row| row.split_ascii_whitespace().next_back()?.parse().ok());
    drops.context("the sink is not in /proc/net/udp6")
}

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_arrivals_are_logged_and_all_else_is_counted() {
        let mut log = ArrivalLog { times: vec![vec![0; 3]; 2], ..ArrivalLog::default() };
        let mut payload = [0; Stamp::BYTES];
        for (sender, sequence, at) in [(0, 2, 10), (1, 0, 20), (0, 2, 30), (2, 0, 40), (0, 3, 50)] {
            Stamp { flow: 9, sequence, sent_ns: 1, cpu: 5, sender }.write(&mut payload);
            log.note(&payload, Timestamp(at));
        }
        log.note(b"hello", Timestamp(60));
        assert_eq!(log.times, [[0, 0, 10], [20, 0, 0]]);
        assert_eq!((log.duplicates, log.strays), (1, 3));
    }
}
