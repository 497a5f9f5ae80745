//! Goal: nothing is taken from others who read the same socket, threads or processes, and nothing of theirs is covered;
//! what goes wrong is told. Method: the model of the kernel's queue beside, with others put in between by hand.

use super::*;

/// It may be setting up what a child will serve.
#[test]
fn nothing_is_taken_beyond_what_was_asked_for_before_the_first_verdict() {
    let mut program = Program::new(64);
    (0..10).for_each(|_| program.kernel.arrive(0, false));
    program.receive();
    program.receive();
    assert_eq!((program.kernel.receives, program.kernel.buffer.len()), (0, 8));
    program.answer(0, Verdict::ACCEPT, true);
    program.receive();
    assert_eq!((program.kernel.receives, program.kernel.buffer.len()), (1, 0));
}

#[test]
fn nothing_is_taken_from_under_others() {
    let nobody = Threads::NONE;
    for threads in [
        Threads { receiving: 1, ..nobody },
        Threads { waiting: 1, ..nobody },
        Threads { one_shot: true, ..nobody },
    ] {
        let mut program = Program::serving(64);
        program.threads = threads;
        (0..10).for_each(|_| program.kernel.arrive(0, false));
        assert_eq!(program.next(), Next::Ask, "{threads:?}");
        assert_eq!(program.kernel.buffer.len(), 10);
    }
}

/// The socket has drops that nothing explains, and a packet is missing which somebody has.
#[test]
fn a_packet_that_another_thread_is_about_to_note_is_not_covered() {
    let mut program = Program::serving(64);
    (0..2).for_each(|_| program.kernel.arrive(0, false));
    program.kernel.drops = 5;
    let taken = program.kernel.buffer.pop_front().unwrap();
    program.threads.receiving = 1;
    program.receive();
    (0..5).for_each(|_| program.kernel.arrive(0, false));
    // The other is back: from now on more are taken.
    assert!(program.serving.received_by_program(&taken, program.threads, &mut program.kernel));
    program.threads.receiving = 0;
    while program.receive().is_some() {
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert!(program.kernel.waiting[0].contains(&1), "it is the other thread's to answer");
    assert!(!program.serving.queues[0].is_blind(), "and was not taken for lost");
}

#[test]
fn a_packet_that_another_process_has_is_not_covered() {
    let mut program = Program::serving(64);
    let word = Box::leak(Box::new(std::sync::atomic::AtomicU32::new(0)));
    program.serving.readers.share(1, || Some(word));
    (0..9).for_each(|_| program.kernel.arrive(0, false));
    program.kernel.drops = 5;
    let mut child = program.serving.readers;
    child.forked(2);
    child.enter();
    let taken = program.kernel.buffer.pop_front().unwrap();
    while program.receive().is_some() {
        assert_eq!(program.kernel.receives, 0, "nothing is taken from under the other");
        program.answer(0, Verdict::ACCEPT, true);
    }
    assert!(program.kernel.waiting[0].contains(&1), "it is the child's to answer");
    drop(taken);
}

#[test]
fn verdicts_that_cannot_be_sent_are_told_of() {
    let mut program = Program::serving(64);
    program.kernel.arrive(0, false);
    program.receive();
    let mut bytes = [0; VerdictMessage::BYTES_MAX];
    let message =
        VerdictMessage { queue: 0, id: PacketId(1), verdict: Verdict::ACCEPT, batch: false };
    let length = message.encode(&mut bytes);
    program.kernel.refusals = u32::MAX;
    let sent = program.serving.send(&bytes[..length], true, &mut program.kernel, || Ok(length));
    assert_eq!(sent, SentAs::Itself(Err(libc::ENOBUFS)), "of a lone one the program is told");
    program.kernel.refusals = 0;
    program.answer(0, Verdict::ACCEPT, true);
    assert_eq!(program.kernel.applied.len(), 1, "it may send it again");

    (0..3).for_each(|_| program.kernel.arrive(0, false));
    program.receive();
    program.receive();
    program.kernel.refusals = u32::MAX;
    program.answer(0, Verdict::ACCEPT, true);
    program.answer(0, Verdict::ACCEPT, true);
    program.serving.flush(&mut program.kernel);
    assert_eq!(program.kernel.given_up, [libc::ENOBUFS], "of joined ones, whoever looks on");
}

#[test]
fn an_errno_that_came_behind_datagrams_is_told_once() {
    let mut program = Program::serving(64);
    program.serving.owe(Some(libc::ENOBUFS));
    program.kernel.arrive(0, false);
    assert_eq!(program.next(), Next::Fail(libc::ENOBUFS));
    assert_eq!(program.next(), Next::Take);
}
