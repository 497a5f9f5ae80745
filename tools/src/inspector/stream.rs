//! Looking for patterns in packets, and across the packets of a TCP flow.
//!
//! For each direction of a flow the table keeps the number of the next byte and the state in which the walk over the
//! bytes before it ended:
//!
//! | segment | is looked at | the flow's state after it |
//! |---|---|---|
//! | of the number expected | from the flow's state | where the walk ended |
//! | behind a gap (lost, out of order, not seen) | by itself | where the walk ended |
//! | older (sent again) | by itself | as it was |
//! | older, with new bytes at its end | by itself; the new bytes from the flow's state, too | where that walk ended |
//! | with SYN, or older by more than a window | by itself, as the first of a new stream | where the walk ended |
//!
//! Invariant: each pattern that lies in one packet is found, whatever the flow's state; one that lies in packets which
//! come in order, each accepted, is found in the packet in which it ends. A segment that is not accepted changes
//! nothing, so what is sent again after a drop is found again. Nothing is allocated after the start.
//!
//! It deliberately does not put segments in order: a sender who wants to hide a pattern that is cut in two can (send
//! the second half first). A flow in its first state takes no place in the table.

use super::bounded_table::BoundedTable;
use super::compiled::{CompiledPolicy, ScanState};
use super::packet::PacketFacts;

/// One worker's memory of streams, and what it found in the packet at hand.
#[derive(Debug)]
pub(crate) struct StreamScanner {
    flows: BoundedTable<FlowKey, FlowState>,
    hits: Hits,
    /// What the packet at hand makes of its flow's state, if it is accepted.
    pending: Option<(FlowKey, FlowState)>,
}

/// One direction of a TCP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct FlowKey {
    source: u128,
    destination: u128,
    ports: (u16, u16),
}

#[derive(Debug, Clone, Copy, Default)]
struct FlowState {
    /// Sequence number of the next byte.
    expected: u32,
    scan: ScanState,
    found: FoundBefore,
}

/// Patterns of rules with several that were found in earlier packets of the flow: the last few.
#[derive(Debug, Clone, Copy, Default)]
struct FoundBefore {
    /// Numbers of patterns, one up; 0 is none.
    patterns: [u32; FOUND_MAX],
    next: u8,
}

/// What was found in one packet.
#[derive(Debug)]
struct Hits {
    /// The packet in which each pattern was found last.
    seen: Box<[u32]>,
    packet: u32,
    /// The patterns found, each once.
    patterns: Vec<u32>,
    /// The rules that have one of them, ascending, some twice.
    rules: Vec<u32>,
    before: FoundBefore,
}

impl StreamScanner {
    /// Makes room for a policy's patterns. The table is as small as can be if there are none.
    pub(crate) fn new(policy: &CompiledPolicy) -> Self {
        let flows = if policy.patterns.is_empty() { 0 } else { policy.settings.flow_table };
        Self {
            flows: BoundedTable::new(flows),
            hits: Hits {
                seen: vec![0; policy.patterns.count()].into(),
                packet: 0,
                patterns: Vec::with_capacity(policy.patterns.count()),
                rules: Vec::with_capacity(policy.pattern_rules_max()),
                before: FoundBefore::default(),
            },
            pending: None,
        }
    }

    /// Takes over from the scanner before: the flows, if its patterns are the same, and the count.
    pub(crate) fn inherit(&mut self, earlier: &mut Self, with_flows: bool) {
        if with_flows {
            std::mem::swap(&mut self.flows, &mut earlier.flows);
        } else {
            self.flows.count_on_from(&earlier.flows);
        }
    }

    /// Looks for patterns. The rules that have one of those found are [`rules`](Self::rules) after it.
    pub(crate) fn scan(&mut self, policy: &CompiledPolicy, facts: &PacketFacts<'_>) {
        self.hits.begin();
        self.pending = None;
        let start = policy.patterns.start();
        let (Some(place), Some(addresses)) = (facts.tcp, facts.addresses) else {
            self.hits.walk(policy, start, facts.payload);
            self.hits.find_rules(policy);
            return;
        };
        let (source, destination) = addresses.wide();
        let key = FlowKey { source, destination, ports: facts.ports.unwrap_or_default() };
        let known = if place.begins { None } else { self.flows.find(&key).copied() };
        let length = u32::try_from(facts.payload.len()).unwrap_or(u32::MAX);
        let end = place.sequence.wrapping_add(length);
        let next = match known.map(|flow| (flow, flow.expected.wrapping_sub(place.sequence))) {
            Some((flow, 0)) => {
                self.hits.before = flow.found;
                Some((self.hits.walk(policy, flow.scan, facts.payload), end))
            }
            Some((flow, behind)) if behind <= SENT_AGAIN_MAX => {
                self.hits.before = flow.found;
                self.hits.walk(policy, start, facts.payload);
                let new = facts.payload.get(behind as usize..).filter(|new| !new.is_empty());
                new.map(|new| (self.hits.walk(policy, flow.scan, new), end))
            }
            other => {
                let in_stream = |behind: u32| behind.wrapping_neg() <= SENT_AGAIN_MAX;
                if let Some((flow, _)) = other.filter(|(_, behind)| in_stream(*behind)) {
                    self.hits.before = flow.found;
                }
                Some((self.hits.walk(policy, start, facts.payload), end))
            }
        };
        self.hits.find_rules(policy);
        let found = self.hits.remembered(policy);
        let unchanged = || known.map(|flow| (flow.scan, flow.expected));
        if let Some((scan, expected)) = next.or_else(unchanged) {
            self.pending = Some((key, FlowState { expected, scan, found }));
        }
    }

    /// The rules that have one of the patterns found, ascending, some twice.
    #[inline]
    pub(crate) fn rules(&self) -> &[u32] {
        &self.hits.rules
    }

    /// Whether these patterns were all found: each in this packet or, of a TCP flow, in one of the packets before.
    #[inline]
    pub(crate) fn has_all(&self, patterns: &[u32]) -> bool {
        patterns.iter().all(|pattern| self.hits.has(*pattern))
    }

    /// Carries out what the packet looked at last makes of its flow. `goes_on` is whether it is accepted.
    #[inline]
    pub(crate) fn commit(&mut self, policy: &CompiledPolicy, goes_on: bool) {
        let Some((key, state)) = self.pending.take().filter(|_| goes_on) else { return };
        if state.scan == policy.patterns.start() && state.found.is_empty() {
            // The same as a flow that is not known.
            self.flows.remove(&key);
        } else {
            *self.flows.entry(key, || state) = state;
        }
    }

    /// Flows whose state had to give way to that of others.
    pub(crate) const fn evicted(&self) -> u64 {
        self.flows.evicted()
    }

    /// What a table for so many flows takes, in bytes.
    pub(crate) fn table_bytes(flows: usize) -> usize {
        BoundedTable::<FlowKey, FlowState>::bytes(flows)
    }
}

impl Hits {
    fn begin(&mut self) {
        self.packet = self.packet.wrapping_add(1);
        if self.packet == 0 {
            self.seen.fill(0);
            self.packet = 1;
        }
        self.patterns.clear();
        self.rules.clear();
        self.before = FoundBefore::default();
    }

    #[inline]
    fn walk(&mut self, policy: &CompiledPolicy, from: ScanState, bytes: &[u8]) -> ScanState {
        policy.patterns.scan(from, bytes, |pattern| {
            let seen = &mut self.seen[pattern as usize];
            if *seen != self.packet {
                *seen = self.packet;
                self.patterns.push(pattern);
            }
        })
    }

    fn find_rules(&mut self, policy: &CompiledPolicy) {
        for pattern in &self.patterns {
            self.rules.extend(policy.rules_with(*pattern));
        }
        self.rules.sort_unstable();
    }

    #[inline]
    fn has(&self, pattern: u32) -> bool {
        self.seen[pattern as usize] == self.packet || self.before.has(pattern)
    }

    /// What was found before, and what was found now and may be asked for later.
    fn remembered(&self, policy: &CompiledPolicy) -> FoundBefore {
        let mut found = self.before;
        for pattern in &self.patterns {
            let of_several = |rule: &u32| policy.rule(*rule).patterns.len() > 1;
            if policy.rules_with(*pattern).iter().any(of_several) {
                found.add(*pattern);
            }
        }
        found
    }
}

impl FoundBefore {
    fn has(&self, pattern: u32) -> bool {
        self.patterns.contains(&(pattern + 1))
    }

    fn add(&mut self, pattern: u32) {
        if !self.has(pattern) {
            self.patterns[usize::from(self.next)] = pattern + 1;
            self.next = (self.next + 1) % FOUND_COUNT;
        }
    }

    fn is_empty(&self) -> bool {
        self.patterns == [0; FOUND_MAX]
    }
}

/// How far back a segment may begin and still be one sent again: receive windows are smaller as a rule (`tcp_rmem`).
const SENT_AGAIN_MAX: u32 = 16 << 20;

/// How many patterns are remembered from packet to packet.
const FOUND_MAX: usize = 8;
const FOUND_COUNT: u8 = 8;

#[cfg(test)]
mod tests;
