//! Rates: whether a packet goes beyond what a rule allows to an address, a flow, or in all.
//!
//! A token bucket, kept as one number: the time at which the bucket would be full again (the "generic cell rate
//! algorithm", ITU-T I.371). A packet below the limit moves that time by its own share; one beyond it moves nothing.
//!
//! Invariant: of packets that come together as many are below the limit as the burst says, and over any longer time
//! `count` in each `seconds` besides. What is counted is forgotten when the table is full, oldest first; then a rule
//! matches later than it should, never earlier.

use fanq::Timestamp;

use super::bounded_table::BoundedTable;
use super::compiled::CompiledLimit;
use super::packet::PacketFacts;
use super::rules_file::LimitScope;

/// One worker's counts for all rules with a limit.
#[derive(Debug)]
pub(crate) struct Rates {
    full_at_ns: BoundedTable<RateKey, u64>,
}

/// What is counted: a rule, and whom for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct RateKey {
    rule: u32,
    protocol: u8,
    ports: (u16, u16),
    one: u128,
    other: u128,
}

impl Rates {
    /// A table for so many addresses and flows.
    pub(crate) fn new(entries: usize) -> Self {
        Self { full_at_ns: BoundedTable::new(entries) }
    }

    /// Whether this packet is beyond the rule's limit; if it is not, it is counted. What is no IP packet is counted
    /// under one address of its own.
    #[inline]
    pub(crate) fn is_beyond(
        &mut self,
        rule: u32,
        limit: CompiledLimit,
        facts: &PacketFacts<'_>,
        now: Timestamp,
    ) -> bool {
        let key = RateKey::new(rule, limit.per, facts);
        let full_at = self.full_at_ns.entry(key, || 0);
        if *full_at > now.0.saturating_add(limit.ahead_ns) {
            return true;
        }
        *full_at = (*full_at).max(now.0).saturating_add(limit.packet_ns);
        false
    }

    /// Counts on from the rates of the rules before.
    pub(crate) fn count_on_from(&mut self, earlier: &Self) {
        self.full_at_ns.count_on_from(&earlier.full_at_ns);
    }

    /// Addresses and flows whose count had to give way to that of others.
    pub(crate) const fn evicted(&self) -> u64 {
        self.full_at_ns.evicted()
    }

    /// What a table for so many takes, in bytes.
    pub(crate) fn table_bytes(entries: usize) -> usize {
        BoundedTable::<RateKey, u64>::bytes(entries)
    }
}

impl RateKey {
    #[inline]
    fn new(rule: u32, per: LimitScope, facts: &PacketFacts<'_>) -> Self {
        let (source, destination) = facts.addresses.map_or((0, 0), super::packet::Addresses::wide);
        let of_rule = Self { rule, ..Self::default() };
        match per {
            LimitScope::Rule => of_rule,
            LimitScope::Source => Self { one: source, ..of_rule },
            LimitScope::Destination => Self { one: destination, ..of_rule },
            LimitScope::Flow => {
                let (source_port, destination_port) = facts.ports.unwrap_or_default();
                let (one, other) = ((source, source_port), (destination, destination_port));
                // Both directions are one flow.
                let (one, other) = if one <= other { (one, other) } else { (other, one) };
                let ports = (one.1, other.1);
                Self { protocol: facts.protocol, ports, one: one.0, other: other.0, ..of_rule }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspector::packet::Addresses;

    fn facts(source: u32, destination: u32) -> PacketFacts<'static> {
        PacketFacts {
            addresses: Some(Addresses::V4 { source, destination }),
            protocol: 17,
            ports: Some((u16::try_from(source).unwrap(), u16::try_from(destination).unwrap())),
            tcp: None,
            payload: &[],
        }
    }

    /// 10 packets a second, 3 at once.
    fn limit(per: LimitScope) -> CompiledLimit {
        CompiledLimit { per, packet_ns: 100_000_000, ahead_ns: 200_000_000 }
    }

    #[test]
    fn a_burst_is_below_the_limit_and_then_the_rate() {
        let mut rates = Rates::new(64);
        let mut beyond = |ms: u64| {
            let now = Timestamp(1_000_000_000_000 + ms * 1_000_000);
            rates.is_beyond(0, limit(LimitScope::Rule), &facts(1, 2), now)
        };
        assert_eq!([0, 0, 0, 0, 0].map(&mut beyond), [false, false, false, true, true]);
        assert_eq!([99, 100, 100, 200, 201].map(&mut beyond), [true, false, true, false, true]);
        // A long rest fills the bucket, and no more than that.
        assert_eq!([60_000; 5].map(&mut beyond), [false, false, false, true, true]);
    }

    #[test]
    fn each_scope_counts_what_it_says() {
        for (per, other_source, other_destination, back) in [
            (LimitScope::Rule, true, true, true),
            (LimitScope::Source, false, true, false),
            (LimitScope::Destination, true, false, false),
            (LimitScope::Flow, false, false, true),
        ] {
            let mut rates = Rates::new(64);
            let mut beyond = |source, destination| {
                rates.is_beyond(5, limit(per), &facts(source, destination), Timestamp(1))
            };
            assert_eq!([(); 4].map(|()| beyond(1, 2)), [false, false, false, true], "{per:?}");
            assert_eq!(beyond(3, 2), other_source, "{per:?}");
            assert_eq!(beyond(1, 4), other_destination, "{per:?}");
            assert_eq!(beyond(2, 1), back, "{per:?}");
        }
    }

    #[test]
    fn rules_count_apart_and_a_full_table_forgets_the_oldest() {
        let mut rates = Rates::new(8);
        let mut beyond =
            |rule| rates.is_beyond(rule, limit(LimitScope::Rule), &facts(1, 2), Timestamp(1));
        assert_eq!([1, 1, 1, 1, 2].map(&mut beyond), [false, false, false, true, false]);
        for rule in 2..10 {
            beyond(rule);
        }
        assert!(!beyond(1), "it was forgotten");
        assert_eq!(rates.evicted(), 2);
    }
}
