//! Goal: no letter is slept through, whatever the schedule. Method: loom runs every interleaving of the threads:
//! `cargo test -p fanq --features _loom --lib every_interleaving`.

use loom::sync::{Arc, Condvar, Mutex};

use super::*;

/// Stands for the socket: a receive blocks until there is something, and a wake-up is such a thing.
#[derive(Default)]
struct Socket {
    wake_ups: Mutex<u32>,
    readable: Condvar,
}

impl Socket {
    fn receive(&self) {
        let mut wake_ups = self.wake_ups.lock().expect("nobody panics");
        while *wake_ups == 0 {
            wake_ups = self.readable.wait(wake_ups).expect("nobody panics");
        }
        *wake_ups -= 1;
    }
}

impl Wake for Arc<Socket> {
    fn wake(&self) {
        *self.wake_ups.lock().expect("nobody panics") += 1;
        self.readable.notify_one();
    }
}

#[test]
fn a_worker_asleep_in_its_receive_gets_every_letter() {
    loom::model(|| {
        let socket = Arc::new(Socket::default());
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&socket), 2));
        let others: Vec<_> = (0..2)
            .map(|letter| {
                let mailbox = Arc::clone(&mailbox);
                loom::thread::spawn(move || assert!(mailbox.post(letter)))
            })
            .collect();
        let (mut seen, mut letters) = (0, Vec::new());
        while seen < 2 {
            mailbox.collect(&mut letters);
            seen += letters.drain(..).count();
            // A lost wake-up would block here for ever, which loom reports as a deadlock.
            if seen < 2 && mailbox.fall_asleep() {
                socket.receive();
                mailbox.wake_up();
            }
        }
        for other in others {
            other.join().expect("nobody panics");
        }
    });
}

#[test]
fn a_worker_that_waits_here_gets_every_letter() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new(Arc::new(Socket::default()), 2));
        let other = {
            let mailbox = Arc::clone(&mailbox);
            loom::thread::spawn(move || assert!(mailbox.post(1) && mailbox.post(2)))
        };
        let (mut seen, mut letters) = (0, Vec::new());
        while seen < 2 {
            mailbox.wait(Duration::MAX);
            mailbox.collect(&mut letters);
            seen += letters.drain(..).count();
        }
        other.join().expect("nobody panics");
    });
}

#[test]
fn at_the_end_every_letter_is_read_or_late() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new(Arc::new(Socket::default()), 2));
        let other = {
            let mailbox = Arc::clone(&mailbox);
            loom::thread::spawn(move || {
                mailbox.post(1);
                mailbox.post(2);
            })
        };
        let mut letters = Vec::new();
        mailbox.collect(&mut letters);
        mailbox.close();
        other.join().expect("nobody panics");
        assert_eq!(letters.len() as u64 + mailbox.late(), 2);
    });
}
