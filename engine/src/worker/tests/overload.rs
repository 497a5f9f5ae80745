//! Goal: under load exactly what was queued is shed, and packets are copied whole again afterwards. Method: the
//! simulated kernel lets its queue grow to a depth in one step.

use super::deferral::{gate, patient};
use super::*;
use crate::deferral::WhenFull;
use crate::nfq::CopyRange;
use crate::overload::Shed;

/// Notes which packets it saw, and how many since the last batch's end.
#[derive(Default)]
struct Seen {
    ids: Vec<u32>,
    of_open_batch: u32,
}

impl Inspector for &mut Seen {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        self.ids.push(packet.id().0);
        self.of_open_batch += 1;
        Verdict::ACCEPT
    }

    fn batch_end(&mut self, _now: Timestamp) {
        self.of_open_batch = 0;
    }
}

/// 2,000 packets come at once, then 10.
fn flooding() -> impl Iterator<Item = Step> {
    // A receive plays a step: the ten come only after all that was queued was received or discarded.
    let idle = (0..40).map(|_| Step::Packets(0));
    [Step::Packets(2000)].into_iter().chain(idle).chain([Step::Packets(10)])
}

/// Lets them come.
fn flood(overload: OverloadConfig) -> (Seen, SimulatedKernel, crate::Counts) {
    let mut seen = Seen::default();
    let (result, kernel, shared) =
        run_configured(&mut seen, None, Some(overload), flooding(), false, |_| {});
    result.unwrap();
    assert!(kernel.waiting.is_empty());
    let counts = shared.counters.snapshot();
    assert_eq!(counts.packets + counts.shed, 2010);
    assert_eq!((counts.id_gaps, counts.verdict_errors), (0, 0));
    (seen, kernel, counts)
}

#[test]
fn what_is_queued_is_shed_and_what_comes_later_is_seen() {
    for (shed, code) in [(Shed::Drop, 0), (Shed::Accept, 1)] {
        let (seen, kernel, counts) = flood(OverloadConfig { depth: 1000, shed, copy_range: None });
        assert_eq!(counts.shed, 2000 - 8 * 64, "after eight full batches");
        assert_eq!(seen.ids, (1..=512).chain(2001..=2010).collect::<Vec<_>>());
        let shed = kernel.verdicts.iter().filter(|(id, _)| (513..=2000).contains(*id));
        assert!(shed.clone().count() == 1488 && shed.into_iter().all(|(_, c)| *c == code));
        assert!(kernel.copy_ranges.is_empty());
    }
}

#[test]
fn below_its_depth_nothing_is_shed() {
    let overload = OverloadConfig { depth: 1489, shed: Shed::Drop, copy_range: None };
    let (seen, _, counts) = flood(overload);
    assert_eq!((seen.ids.len(), counts.shed), (2010, 0));
}

#[test]
fn under_load_less_is_copied_and_after_it_all_again() {
    let copy_range = Some(CopyRange::Bytes(128));
    let overload = OverloadConfig { depth: 2000, shed: Shed::Not, copy_range };
    let (_, kernel, counts) = flood(overload);
    assert_eq!(counts.shed, 0);
    assert_eq!(kernel.copy_ranges, [128, 65_531]);
}

#[test]
fn under_load_less_is_copied_also_where_packets_may_be_deferred() {
    let mut seen = Seen::default();
    let (gate, _) = gate(patient(64, WhenFull::Wait));
    let copy_range = Some(CopyRange::Bytes(128));
    let overload = OverloadConfig { depth: 2000, shed: Shed::Not, copy_range };
    let (result, kernel, _) =
        run_configured(&mut seen, Some(gate), Some(overload), flooding(), false, |_| {});
    result.unwrap();
    assert_eq!((seen.ids.len(), kernel.copy_ranges), (2010, vec![128, 65_531]));
}

#[test]
fn packets_that_come_while_others_are_shed_are_of_a_batch_with_an_end() {
    let mut seen = Seen::default();
    let overload = OverloadConfig { depth: 1000, shed: Shed::Drop, copy_range: None };
    // The ten come while what was shed is thrown away, and nothing comes after.
    let idle = (0..10).map(|_| Step::Packets(0));
    let script = [Step::Packets(2000)].into_iter().chain(idle).chain([Step::Packets(10)]);
    let (result, ..) = run_configured(&mut seen, None, Some(overload), script, false, |_| {});
    result.unwrap();
    assert_eq!((seen.ids.len(), seen.of_open_batch), (522, 0));
}

/// Gives the order when it sees this packet.
struct Orderer(Arc<std::sync::OnceLock<Arc<WorkerShared>>>, u32);

impl Inspector for Orderer {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if packet.id().0 == self.1 {
            self.0.get().unwrap().order_copy_range(CopyRange::Bytes(300));
        }
        Verdict::ACCEPT
    }
}

#[test]
fn an_order_changes_the_copy_range_at_once_without_load_and_after_it_under_load() {
    let order = |kernel: &mut SimulatedKernel| kernel.shared.order_copy_range(CopyRange::Meta);
    let overload =
        OverloadConfig { depth: 2000, shed: Shed::Not, copy_range: Some(CopyRange::Bytes(128)) };
    for overload in [None, Some(overload)] {
        let script = [Step::Packets(1)];
        let thirds = Thirds { batches: 0 };
        let (result, kernel, _) = run_configured(thirds, None, overload, script, false, order);
        result.unwrap();
        assert_eq!(kernel.copy_ranges, [0], "{overload:?}");
    }

    for (id, ranges) in [(700, &[128, 300][..]), (2005, &[128, 65_531, 300])] {
        let shared: Arc<std::sync::OnceLock<_>> = Arc::default();
        let orderer = Orderer(Arc::clone(&shared), id);
        let idle = (0..40).map(|_| Step::Packets(0));
        let steps = [Step::Packets(2000)].into_iter().chain(idle).chain([Step::Packets(10)]);
        let script = steps.chain([Step::Packets(0)]);
        let change = |kernel: &mut SimulatedKernel| shared.set(Arc::clone(&kernel.shared)).unwrap();
        let (result, kernel, _) =
            run_configured(orderer, None, Some(overload), script, false, change);
        result.unwrap();
        assert_eq!(kernel.copy_ranges, ranges, "ordered with packet {id}");
    }
}
