//! Looking for patterns in packets, and across the packets of a TCP flow.
//!
//! For each direction of a flow the table keeps its front: the number of the next byte and the state in which the walk
//! over the bytes before it ended.
//!
//! | segment | is looked at | the front after it |
//! |---|---|---|
//! | of the number expected | from the front | where the walk ended |
//! | behind a gap (lost, out of order, not seen) | by itself | where the walk ended |
//! | older (sent again) | by itself | as it was |
//! | older, with new bytes at its end | by itself; the new bytes from the front, too | where that walk ended |
//! | that fills a hole, or a part of it | by itself; from the hole on as if in order, too | as for older ones |
//! | with SYN, or older by more than a window | by itself, as the first of a new stream | where the walk ended |
//!
//! A hole is where a segment was not let on and a later one was, as it was on its way already: the front goes on behind
//! the later one, and the hole keeps the front that was. Gaps that others have made leave no hole.
//!
//! Invariant: each pattern that lies in one packet is found, whatever the flow's state; one that lies in packets which
//! come in order, each accepted, is found in the packet in which it ends. A segment that is not accepted moves nothing,
//! so what is sent again after a drop is found again, whatever has passed since. Nothing is allocated after the start.
//!
//! It deliberately does not put segments in order: a sender who wants to hide a pattern that is cut in two can (send
//! the second half first). Of several holes it keeps the first: without that the receiver gets nothing of what follows.
//! A flow in its first state, of which nothing was refused, takes no place in the table.

use super::bounded_table::BoundedTable;
use super::compiled::{CompiledPolicy, ScanState};
use super::packet::PacketFacts;

/// One worker's memory of streams, and what it found in the packet at hand.
#[derive(Debug)]
pub(crate) struct StreamScanner {
    flows: BoundedTable<FlowKey, FlowState>,
    hits: Hits,
    pending: Option<Pending>,
}

/// What the packet at hand makes of its flow.
#[derive(Debug)]
struct Pending {
    key: FlowKey,
    /// The number of its first byte.
    sequence: u32,
    /// The flow's state, if it is accepted.
    next: FlowState,
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
    front: Place,
    hole: Hole,
    /// Up to where bytes from the front on were not let on; the front, or a number before it, if none were.
    refused: u32,
    found: FoundBefore,
}

/// A byte of the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Its sequence number.
    sequence: u32,
    /// Where the walk over the bytes before it ended.
    scan: ScanState,
}

/// Bytes that were not let on, while later ones were.
#[derive(Debug, Clone, Copy, Default)]
struct Hole {
    begins: Place,
    /// Number of the first byte behind it; where it begins, if there is none.
    end: u32,
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
        let near = |flow: &FlowState| {
            let behind = flow.front.sequence.wrapping_sub(place.sequence);
            behind <= SENT_AGAIN_MAX || behind.wrapping_neg() <= SENT_AGAIN_MAX
        };
        let mut next = if let Some(flow) = known.filter(near) {
            self.hits.follow(policy, flow, place.sequence, facts.payload)
        } else {
            let scan = self.hits.walk(policy, start, facts.payload);
            let sequence = end_of(place.sequence, facts.payload);
            FlowState::beginning(Place { sequence, scan })
        };
        self.hits.find_rules(policy);
        next.found = self.hits.remembered(policy);
        self.pending = Some(Pending { key, sequence: place.sequence, next });
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
        let Some(Pending { key, sequence, next }) = self.pending.take() else { return };
        let start = policy.patterns.start();
        if !goes_on {
            // Of a SYN without payload nothing can be missing.
            if next.front.sequence != sequence {
                let first = || FlowState::beginning(Place { sequence, scan: start });
                self.flows.entry(key, first).refuse(next.front.sequence);
            }
        } else if next.is_first(start) {
            // The same as a flow that is not known.
            self.flows.remove(&key);
        } else {
            *self.flows.entry(key, || next) = next;
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

impl FlowState {
    /// One of which nothing was seen before.
    fn beginning(front: Place) -> Self {
        let hole = Hole { begins: front, end: front.sequence };
        Self { front, hole, refused: front.sequence, found: FoundBefore::default() }
    }

    /// Whether it is as if nothing had come yet.
    fn is_first(&self, start: ScanState) -> bool {
        let whole = !self.has_hole() && !is_ahead(self.refused, self.front.sequence);
        whole && self.front.scan == start && self.found.is_empty()
    }

    /// A segment that would have moved the front to this number is not let on.
    fn refuse(&mut self, end: u32) {
        if is_ahead(end, self.front.sequence) && !is_ahead(self.refused, end) {
            self.refused = end;
        }
    }

    /// Whether there is a hole of which something may still come.
    fn has_hole(&self) -> bool {
        let Hole { begins, end } = self.hole;
        is_ahead(end, begins.sequence) && is_ahead(self.front.sequence, begins.sequence)
    }

    /// Leaves a hole, if bytes from the front on were not let on: a segment of this number comes instead.
    fn pass_over_to(&mut self, sequence: u32) {
        if is_ahead(self.refused, self.front.sequence) && !self.has_hole() {
            self.hole = Hole { begins: self.front, end: sequence };
        }
    }
}

/// Whether a number lies ahead of another in a stream, and no further than segments are followed.
const fn is_ahead(sequence: u32, of: u32) -> bool {
    let ahead = sequence.wrapping_sub(of);
    ahead != 0 && ahead <= SENT_AGAIN_MAX
}

/// The number of the byte behind a segment.
fn end_of(sequence: u32, payload: &[u8]) -> u32 {
    sequence.wrapping_add(u32::try_from(payload.len()).unwrap_or(u32::MAX))
}

/// What of a segment lies at this number or behind it, if anything does.
fn rest(sequence: u32, payload: &[u8], from: u32) -> Option<&[u8]> {
    payload.get(from.wrapping_sub(sequence) as usize..).filter(|rest| !rest.is_empty())
}

impl Hits {
    /// Looks at a segment of a flow that is known. Returns the flow's state after it, but for what was found.
    #[inline]
    fn follow(
        &mut self,
        policy: &CompiledPolicy,
        flow: FlowState,
        sequence: u32,
        payload: &[u8],
    ) -> FlowState {
        self.before = flow.found;
        let (start, end) = (policy.patterns.start(), end_of(sequence, payload));
        let mut next = flow;
        if sequence == flow.front.sequence {
            let scan = self.walk(policy, flow.front.scan, payload);
            next.front = Place { sequence: end, scan };
            return next;
        }
        let by_itself = self.walk(policy, start, payload);
        if is_ahead(sequence, flow.front.sequence) {
            next.pass_over_to(sequence);
            next.front = Place { sequence: end, scan: by_itself };
            return next;
        }
        let new = rest(sequence, payload, flow.front.sequence);
        let missing = rest(sequence, payload, flow.hole.begins.sequence);
        if let Some(missing) = missing.filter(|_| flow.has_hole()) {
            let scan = self.walk(policy, flow.hole.begins.scan, missing);
            let filled = Place { sequence: end, scan };
            next.hole.begins = filled;
            if new.is_some() {
                next.front = filled;
            }
        } else if let Some(new) = new {
            next.front = Place { sequence: end, scan: self.walk(policy, flow.front.scan, new) };
        }
        next
    }

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
