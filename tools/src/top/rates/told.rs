//! What a fanq's own counters did between two of its answers.
//!
//! Invariant: answers come less often than samples; between them the last figures stand. Counters that went back are
//! those of a program that began anew, and count from 0.

use std::sync::Arc;

use super::super::detail::QueueDetail;
use super::board::Verdicts;
use super::float;
use super::histogram::percentile_us;

/// Figures of one queue that only its program knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    last: Option<Arc<QueueDetail>>,
    /// Bytes a second.
    pub(super) bytes: Option<f64>,
    /// Packets a receive.
    pub(super) batch: Option<f64>,
    pub(super) verdicts: Option<Verdicts>,
    pub(super) batch_time_us_p99: Option<u64>,
}

impl Told {
    /// Takes an answer, which may be the last one again.
    pub(super) fn take(&mut self, detail: Option<&Arc<QueueDetail>>) {
        let Some(now) = detail else {
            *self = Self::default();
            return;
        };
        let Some(then) = self.last.take() else {
            *self = Self { last: Some(Arc::clone(now)), ..Self::default() };
            return;
        };
        let seconds = now.at.saturating_sub(then.at).as_secs_f64();
        if seconds > 0.0 {
            let zero = QueueDetail::default();
            *self = Self::between(if now.continues(&then) { &then } else { &zero }, now, seconds);
        }
        self.last = Some(Arc::clone(now));
    }

    fn between(then: &QueueDetail, now: &QueueDetail, seconds: f64) -> Self {
        let receives = now.recv_calls - then.recv_calls;
        let packets = now.packets - then.packets;
        let counts =
            [now.accepted - then.accepted, now.dropped - then.dropped, now.other - then.other];
        let all: f64 = counts.into_iter().map(float).sum();
        let [accepted, dropped, other] = counts.map(|count| float(count) / all);
        let before = |class: usize| then.batch_times.get(class).copied().unwrap_or(0);
        let classes = now.batch_times.iter().enumerate();
        Self {
            last: None,
            bytes: Some(float(now.bytes - then.bytes) / seconds),
            batch: (receives > 0).then(|| float(packets) / float(receives)),
            verdicts: (all > 0.0).then_some(Verdicts { accepted, dropped, other }),
            batch_time_us_p99: percentile_us(classes.map(|(n, count)| count - before(n)), 0.99),
        }
    }
}
