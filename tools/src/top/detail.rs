//! What a fanq says of its own queues, or of those of a program that it accelerates, beyond what the kernel tells of
//! anybody's: asked through its control socket.
//!
//! Invariant: none of it is needed; a queue without it has fewer figures. A program that does not answer in
//! [`PATIENCE`] is left alone for [`RETRY`], so that it cannot hold up the view of the others; one that does is asked
//! again after [`EVERY`], since its answer is a kilobyte a queue to read.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::samples::Owner;
use crate::control::client::Client;
use crate::control::place::ControlAddress;
use crate::control::protocol::Request;

/// One queue, by its worker's counters. All count up from the program's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueDetail {
    /// When it was asked, on the sample's clock.
    pub(super) at: Duration,
    pub(super) pid: u32,
    /// Whether it is a queue of a program under `fanq accel`.
    pub(super) accelerated: bool,
    /// What the program does with packets, in words.
    pub(super) policy: Option<String>,
    /// The CPU that its worker is pinned to.
    pub(super) cpu: Option<u32>,
    pub(super) maxlen: Option<u32>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) accepted: u64,
    pub(super) dropped: u64,
    /// Repeated, stopped, sent to another queue.
    pub(super) other: u64,
    pub(super) recv_calls: u64,
    /// Receives by the time of their batch in the engine: up to 1, 2, 4 ... us, and longer.
    pub(super) batch_times: Vec<u64>,
}

impl QueueDetail {
    /// Whether these counters are those of `then`, later. Otherwise the program has begun anew.
    pub(super) fn continues(&self, then: &Self) -> bool {
        let counters = |detail: &Self| {
            let Self { packets, bytes, accepted, dropped, other, recv_calls, .. } = *detail;
            [packets, bytes, accepted, dropped, other, recv_calls]
        };
        let risen = |then: &[u64], now: &[u64]| {
            then.len() == now.len() && then.iter().zip(now).all(|(then, now)| then <= now)
        };
        self.pid == then.pid
            && risen(&counters(then), &counters(self))
            && risen(&then.batch_times, &self.batch_times)
    }
}

/// Asks the owners that can be asked.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// False where the owners are seen elsewhere than in one's own namespace: their sockets are not in reach.
    within_reach: bool,
    programs: Vec<Asked>,
}

/// A program that was asked, or that could not be.
#[derive(Debug)]
struct Asked {
    pid: u32,
    client: Option<Client>,
    not_before: Duration,
    queues: Vec<(u16, Arc<QueueDetail>)>,
}

impl Details {
    pub(super) fn new(within_reach: bool) -> Self {
        Self { within_reach, programs: Vec::new() }
    }

    /// Asks each of these, if it is time; with `whole`, also those that answered a moment ago.
    pub(super) fn update<'a>(
        &mut self,
        owners: impl Iterator<Item = &'a Arc<Owner>> + Clone,
        now: Duration,
        whole: bool,
    ) {
        self.programs.retain(|asked| owners.clone().any(|owner| owner.fanq == Some(asked.pid)));
        for pid in owners.filter_map(|owner| owner.fanq).filter(|_| self.within_reach) {
            if self.programs.iter().all(|asked| asked.pid != pid) {
                self.programs.push(Asked {
                    pid,
                    client: None,
                    not_before: Duration::ZERO,
                    queues: Vec::new(),
                });
            }
        }
        for asked in &mut self.programs {
            asked.ask(now, whole);
        }
    }

    pub(super) fn of(&self, pid: u32, queue: u16) -> Option<Arc<QueueDetail>> {
        let asked = self.programs.iter().find(|asked| asked.pid == pid)?;
        let found = asked.queues.binary_search_by_key(&queue, |(queue, _)| *queue).ok()?;
        Some(Arc::clone(&asked.queues[found].1))
    }
}

impl Asked {
    fn ask(&mut self, now: Duration, whole: bool) {
        let answers = self.client.is_some();
        if now < self.not_before && !(whole && answers) {
            return;
        }
        self.queues.clear();
        let client = match self.client.take() {
            Some(client) => Some(client),
            None => Client::connect(&ControlAddress::Process(self.pid)).ok(),
        };
        let answer = client.and_then(|mut client| {
            let answer = client.ask(&Request::Statistics, PATIENCE).ok()?;
            self.client = Some(client);
            Some(answer)
        });
        match answer {
            // In another process namespace the same number is another program's.
            Some(answer) if answer["pid"] == self.pid => {
                read(&answer, now, &mut self.queues);
                self.not_before = now + EVERY;
            }
            _ => self.not_before = now + RETRY,
        }
    }
}

/// Reads the answer to `statistics` (docs/CONTROL.md); what is missing in it is 0, or unknown.
fn read(answer: &Value, at: Duration, queues: &mut Vec<(u16, Arc<QueueDetail>)>) {
    let accelerated = answer["accelerated"].is_object();
    let policy = answer["settings"]["policy"].as_str().map(str::to_owned);
    let number32 = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let maxlen = number32(&answer["settings"]["queue-maxlen"]);
    for queue in answer["queues"].as_array().into_iter().flatten() {
        let count = |key: &str| queue[key].as_u64().unwrap_or(0);
        let Some(number) = queue["queue"].as_u64().and_then(|n| u16::try_from(n).ok()) else {
            continue;
        };
        let times = queue["batch_times"].as_array().into_iter().flatten();
        let detail = QueueDetail {
            at,
            pid: number32(&answer["pid"]).unwrap_or(0),
            accelerated,
            policy: policy.clone(),
            cpu: number32(&queue["cpu"]),
            maxlen,
            packets: count("packets"),
            bytes: count("bytes"),
            accepted: count("accepted"),
            dropped: count("dropped"),
            other: count("repeated") + count("stopped") + count("requeued"),
            recv_calls: count("recv_calls"),
            batch_times: times.map(|time| time.as_u64().unwrap_or(0)).collect(),
        };
        queues.push((number, Arc::new(detail)));
    }
    queues.sort_unstable_by_key(|(queue, _)| *queue);
}

/// How long an answer may take; a running one takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(100);

const RETRY: Duration = Duration::from_secs(10);

/// So that a view that is refreshed each second or less often has a new answer each time.
const EVERY: Duration = Duration::from_millis(950);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_it_lacks_is_unknown() {
        let answer = serde_json::json!({
            "pid": 7,
            "settings": { "policy": "drop:10", "queue-maxlen": 1024 },
            "queues": [
                { "queue": 3, "cpu": 1, "packets": 10, "bytes": 640, "accepted": 8, "dropped": 1, "repeated": 1,
                  "recv_calls": 2, "batch_times": [0, 2] },
                { "queue": 1, "cpu": null },
                { "queue": 70_000 },
                "x",
            ],
        });
        let mut queues = Vec::new();
        read(&answer, Duration::from_secs(3), &mut queues);
        let expected = QueueDetail {
            at: Duration::from_secs(3),
            pid: 7,
            accelerated: false,
            policy: Some("drop:10".to_owned()),
            cpu: Some(1),
            maxlen: Some(1024),
            packets: 10,
            bytes: 640,
            accepted: 8,
            dropped: 1,
            other: 1,
            recv_calls: 2,
            batch_times: vec![0, 2],
        };
        assert_eq!(queues.iter().map(|(queue, _)| *queue).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((queues[0].1.cpu, &*queues[1].1), (None, &expected));
        let accelerated = serde_json::json!({
            "pid": 7, "accelerated": { "pid": 8 }, "settings": {}, "queues": [{ "queue": 3, "packets": 10 }],
        });
        queues.clear();
        read(&accelerated, Duration::ZERO, &mut queues);
        let detail = &queues[0].1;
        assert_eq!((detail.accelerated, detail.packets, detail.maxlen), (true, 10, None));
        for hostile in [Value::Null, serde_json::json!([]), serde_json::json!({ "queues": 3 })] {
            queues.clear();
            read(&hostile, Duration::ZERO, &mut queues);
            assert!(queues.is_empty());
        }
    }

    #[test]
    fn counters_that_went_back_are_another_programs() {
        let then = QueueDetail { packets: 5, batch_times: vec![1, 1], ..QueueDetail::default() };
        let later = QueueDetail { packets: 6, batch_times: vec![1, 2], ..QueueDetail::default() };
        assert!(later.continues(&then) && then.continues(&then));
        assert!(!then.continues(&later));
    }
}
