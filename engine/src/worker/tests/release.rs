//! Goal: a queue that is left is left as it is, with every packet that was received answered and none received after.

use std::sync::{OnceLock, mpsc};
use std::time::Instant;

use super::deferral::{gate, patient};
use super::*;
use crate::deferral::{Deferred, WhenFull};

#[test]
fn what_was_received_is_answered_and_the_queue_stays_open() {
    let script = [Step::Packets(64), Step::Lost(3), Step::Packets(5)];
    let (result, kernel, shared) = run(script, false, |kernel| kernel.releases = true);
    result.unwrap();
    assert_eq!((kernel.waiting.len(), kernel.verdicts.len()), (0, 69));
    assert!(!kernel.gate_shut);
    assert_eq!(shared.counters.snapshot().id_gaps, 3);
}

#[test]
fn after_the_order_nothing_is_received() {
    let (result, kernel, shared) = run([Step::Packets(5)], false, |kernel| {
        kernel.shared.order_release(Duration::from_secs(60));
    });
    result.unwrap();
    assert_eq!((kernel.script.len(), kernel.gate_shut), (1, false));
    assert_eq!(shared.counters.snapshot().packets, 0);
}

#[test]
fn the_next_worker_misses_no_id_and_finds_no_gap_that_is_none() {
    let shared = Arc::new(WorkerShared::new(false));
    let mut kernel = SimulatedKernel::new(&shared, [Step::Packets(4)]);
    kernel.next_id = 41;
    let inspector = Thirds { batches: 0 };
    shared.heartbeat.continue_at(PacketId(40));
    let mut worker = Worker::new(QUEUE, kernel, inspector, Wait::Block, Arc::clone(&shared), None);
    worker.run().unwrap();
    assert_eq!(worker.into_parts().1, PacketId(45));
    let counts = shared.counters.snapshot();
    assert_eq!((counts.packets, counts.id_gaps), (4, 1));
}

/// Gives every packet to another thread.
struct HandOver(mpsc::Sender<Deferred>);

impl Inspector for HandOver {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.0.send(packet.defer().unwrap()).unwrap();
        Verdict::DROP
    }
}

#[test]
fn nobody_answers_in_its_place_while_it_waits_for_answers() {
    let (sender, receiver) = mpsc::channel::<Deferred>();
    let (gate, _) = gate(patient(256, WhenFull::Wait));
    let shared: Arc<OnceLock<Arc<WorkerShared>>> = Arc::default();
    let theirs = Arc::clone(&shared);
    let other = std::thread::spawn(move || {
        let deferred = receiver.recv().unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        let dismissed = || theirs.get().unwrap().has_ended();
        while !dismissed() && Instant::now() < patience {
            std::thread::yield_now();
        }
        assert!(dismissed(), "the watchdog looks at it still");
        deferred.answer(Verdict::ACCEPT);
    });
    let script = [Step::Packets(1)];
    let (result, kernel, _) =
        run_deferring(HandOver(sender), Some(gate), script, false, |kernel| {
            kernel.releases = true;
            shared.set(Arc::clone(&kernel.shared)).unwrap();
        });
    other.join().unwrap();
    result.unwrap();
    assert_eq!(kernel.verdicts.get(&1), Some(&1));
}

#[test]
fn that_there_are_no_orphans_is_no_error() {
    let unnumbered = Sample::error(libc::ENOENT, 0x0303, 0);
    let numbered = Sample::error(libc::ENOENT, 0x0303, 7);
    let (result, _, shared) = run([Step::Raw(unnumbered), Step::Raw(numbered)], false, |_| {});
    result.unwrap();
    assert_eq!(shared.counters.snapshot().verdict_errors, 1);
}
