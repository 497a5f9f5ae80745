//! Goal: whatever keeps a worker from receiving while it stops, all that is queued is answered and counted. Method: the
//! simulated kernel has more packets than may be deferred at a time, or says that the socket has overrun.

use std::cell::OnceCell;
use std::rc::Rc;

use super::deferral::{gate, patient};
use super::*;
use crate::deferral::{DeferralConfig, Deferred, WhenFull};

/// Defers every packet and keeps the handles. The first that it sees orders the stop.
struct StopsAtOnce {
    kept: Rc<RefCell<Vec<Deferred>>>,
    shared: Rc<OnceCell<Arc<WorkerShared>>>,
    limit: Duration,
}

impl Inspector for StopsAtOnce {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.kept.borrow_mut().push(packet.defer().unwrap());
        if packet.id().0 == 1 {
            self.shared.get().unwrap().order_stop(self.limit);
        }
        Verdict::ACCEPT
    }
}

/// Serves a queue for which no more than one batch may be deferred, of which others have the handles.
fn stop_while_full(
    deadline: Duration,
    limit: Duration,
    script: impl IntoIterator<Item = Step>,
    answers: impl Fn(&mut Vec<Deferred>) + 'static,
) -> (SimulatedKernel, crate::Counts) {
    let (kept, shared) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<OnceCell<_>>::default());
    let inspector = StopsAtOnce { kept: Rc::clone(&kept), shared: Rc::clone(&shared), limit };
    let (mut gate, _) = gate(DeferralConfig { deadline, ..patient(64, WhenFull::Wait) });
    while_waiting(&mut gate, move || answers(&mut kept.borrow_mut()));
    let (result, kernel, worker) = run_deferring(inspector, Some(gate), script, false, |kernel| {
        shared.set(Arc::clone(&kernel.shared)).unwrap();
    });
    result.unwrap();
    let counts = worker.snapshot();
    assert!(kernel.waiting.is_empty(), "{} wait: {counts:?}", kernel.waiting.len());
    (kernel, counts)
}

#[test]
fn what_could_not_be_received_before_the_time_was_over_is_flushed() {
    // With the packets still held, and with their fallback given.
    for deadline in [Duration::from_secs(600), Duration::ZERO] {
        let limit = Duration::from_millis(20);
        let (_, counts) = stop_while_full(deadline, limit, [Step::Packets(164)], |_| {
            std::thread::sleep(Duration::from_millis(1));
        });
        assert_eq!((counts.packets, counts.flushed, counts.id_gaps), (64, 100, 0), "{deadline:?}");
        assert_eq!((counts.accepted, counts.overdue), (64, 64));
    }
}

#[test]
fn the_gate_stays_open_until_nothing_waits_also_while_answers_are_awaited() {
    for deadline in [Duration::from_secs(600), Duration::ZERO] {
        let limit = Duration::from_secs(60);
        let script = [Step::Packets(100), Step::Packets(10)];
        let (kernel, counts) = stop_while_full(deadline, limit, script, |kept| {
            kept.drain(..).for_each(|deferred| assert!(deferred.answer(Verdict::STOP)));
        });
        assert_eq!((kernel.came_too_late, counts.packets, counts.flushed), (0, 110, 0));
    }
}

#[test]
fn an_overrun_is_not_taken_for_an_empty_queue() {
    for limit in [Duration::from_secs(60), Duration::ZERO] {
        let script = (0..8).map(|_| Step::Fail(libc::ENOBUFS));
        let (result, kernel, shared) = run(script, false, |kernel| {
            for _ in 0..5 {
                let message = kernel.queue_packet();
                kernel.delivered.push_back(message);
            }
            kernel.shared.order_stop(limit);
        });
        result.unwrap();
        let counts = shared.counters.snapshot();
        assert!(kernel.waiting.is_empty());
        assert_eq!((counts.packets + counts.flushed, counts.overruns), (5, 8));
    }
}
