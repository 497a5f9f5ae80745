//! Goal: nobody is woken in vain, and nothing is lost unsaid at the end. Method: one thread's steps, and two real ones.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use super::*;

#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for &Bell {
    fn wake(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn only_a_sleeper_is_woken_and_only_once() {
    let bell = Bell::default();
    let mailbox = Mailbox::new(&bell, 4);
    mailbox.post(1);
    assert_eq!(bell.0.load(SeqCst), 0, "nobody sleeps");
    assert!(!mailbox.fall_asleep(), "a letter waits");
    let mut letters = Vec::new();
    mailbox.collect(&mut letters);
    assert_eq!(letters, [1]);
    assert!(mailbox.fall_asleep());
    mailbox.post_all([2, 3]);
    mailbox.post(4);
    assert_eq!(bell.0.load(SeqCst), 1);
}

#[test]
fn letters_after_the_end_are_counted() {
    let bell = Bell::default();
    let mailbox = Mailbox::new(&bell, 4);
    assert!(mailbox.post(1));
    mailbox.close();
    assert!(!mailbox.post_all([2, 3]));
    assert_eq!(mailbox.late(), 3);
}

#[test]
fn a_worker_that_waits_here_is_woken_by_a_letter() {
    static BELL: Bell = Bell(AtomicU32::new(0));
    let mailbox = Arc::new(Mailbox::new(&BELL, 4));
    let theirs = Arc::clone(&mailbox);
    let (woken, wakes) = mpsc::channel();
    // Left behind, should nobody wake it.
    std::thread::spawn(move || {
        theirs.wait(Duration::from_secs(3600));
        woken.send(()).expect("the test waits for it");
    });
    while mailbox.lock().asleep != Some(Asleep::Here) {
        std::thread::yield_now();
    }
    assert!(mailbox.post(7));
    wakes.recv_timeout(Duration::from_secs(20)).expect("it sleeps on");
    let mut letters = Vec::new();
    mailbox.collect(&mut letters);
    assert_eq!((letters, BELL.0.load(SeqCst)), (vec![7], 0));
}
