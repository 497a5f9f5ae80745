//! Goal: each line of the module's table, and that a pattern is found however a stream in order is cut.

use etherparse::PacketBuilder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::inspector::compiled::Surroundings;
use crate::inspector::compiled::tests::{policy_of, rule_with};
use crate::inspector::rules_file::{Conditions, Pattern};

/// One rule for each list of patterns.
fn policy(rules: &[&[&str]]) -> CompiledPolicy {
    let pattern = |text: &&str| Pattern { bytes: text.as_bytes().to_vec(), ignore_case: false };
    let rule = |patterns: &&[&str]| {
        let patterns = patterns.iter().map(pattern).collect();
        rule_with(Conditions { patterns, ..Conditions::default() })
    };
    policy_of(rules.iter().map(rule).collect())
}

/// No rule at all.
const NONE: [u32; 0] = [];

struct Flow<'p> {
    policy: &'p CompiledPolicy,
    scanner: StreamScanner,
}

impl<'p> Flow<'p> {
    fn new(policy: &'p CompiledPolicy) -> Self {
        Self { policy, scanner: StreamScanner::new(policy) }
    }

    /// The rules that a segment matches.
    fn segment(&mut self, sequence: u32, payload: &str, goes_on: bool) -> Vec<u32> {
        self.segment_from(5, sequence, payload, goes_on)
    }

    fn segment_from(&mut self, port: u16, sequence: u32, payload: &str, goes_on: bool) -> Vec<u32> {
        let mut builder = PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp(port, 80, sequence, 1);
        if payload.starts_with("SYN") {
            builder = builder.syn();
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload.trim_start_matches("SYN").as_bytes()).unwrap();
        let facts = PacketFacts::read(&bytes);
        let around = Surroundings { hook: 0, in_interface: 0, out_interface: 0 };
        if !self.policy.patterns_matter(&facts, around) {
            return Vec::new();
        }
        self.scanner.scan(self.policy, &facts);
        let mut rules = self.scanner.rules().to_vec();
        rules.dedup();
        rules.retain(|rule| self.scanner.has_all(&self.policy.rule(*rule).patterns));
        self.scanner.commit(self.policy, goes_on);
        rules
    }
}

#[test]
fn a_pattern_cut_in_two_is_found_where_it_ends_and_only_there() {
    let policy = policy(&[&["attack"]]);
    let mut flow = Flow::new(&policy);
    assert_eq!(flow.segment(100, "an att", true), NONE);
    assert_eq!(flow.segment_from(6, 106, "ack", true), NONE, "another flow");
    assert_eq!(flow.segment(106, "ack, and", true), [0]);
    assert_eq!(flow.segment(114, " more", true), NONE);
    // Numbers wrap.
    assert_eq!(flow.segment(u32::MAX - 1, "att", true), NONE);
    assert_eq!(flow.segment(1, "ack", true), [0]);
}

#[test]
fn what_was_dropped_and_is_sent_again_is_found_again() {
    let policy = policy(&[&["attack"]]);
    let mut flow = Flow::new(&policy);
    assert_eq!(flow.segment(100, "att", true), NONE);
    for _ in 0..3 {
        assert_eq!(flow.segment(103, "ack", false), [0]);
    }
    assert_eq!(flow.segment(103, "achoo", true), NONE);
    assert_eq!(flow.segment(108, "ack", true), NONE);
}

#[test]
fn what_was_dropped_is_found_again_also_when_later_ones_have_passed() {
    let policy = policy(&[&["attack"], &["xy", "attack"]]);
    let mut flow = Flow::new(&policy);
    assert_eq!(flow.segment(100, "att", true), NONE);
    assert_eq!(flow.segment(103, "ack", false), [0]);
    assert_eq!(flow.segment(106, "xyzat", true), NONE, "on its way already");
    assert_eq!(flow.segment(111, "tack", true), [0, 1], "what comes later is in order, too");
    for _ in 0..3 {
        assert_eq!(flow.segment(103, "ack", false), [0, 1]);
    }
    assert_eq!(flow.segment(103, "ackxyzattack and", false), [0, 1], "in larger pieces");
    // In smaller pieces, of which the first looks harmless.
    assert_eq!(flow.segment(103, "ac", true), NONE);
    assert_eq!(flow.segment(105, "k", false), [0, 1]);
    assert_eq!(flow.segment(115, "more", true), NONE);
    assert_eq!(flow.segment(105, "k", false), [0, 1]);
    // Filled with something else, the hole is no more.
    assert_eq!(flow.segment(105, "t", true), NONE);
    assert_eq!(flow.segment(105, "k", true), NONE);
    assert_eq!(flow.segment(119, "att", true), NONE);
    assert_eq!(flow.segment(122, "ack", false), [0, 1]);
    assert_eq!(flow.segment(125, "more", true), NONE);
    assert_eq!(flow.segment(122, "ack", false), [0, 1], "the next one is as good");
}

#[test]
fn a_probe_into_what_was_dropped_does_not_hide_the_rest() {
    let policy = policy(&[&["attack"]]);
    let mut flow = Flow::new(&policy);
    flow.segment(100, "att", true);
    assert_eq!(flow.segment(103, "ack", false), [0]);
    assert_eq!(flow.segment(103, "a", true), NONE);
    assert_eq!(flow.segment(106, "more", true), NONE);
    assert_eq!(flow.segment(104, "ck", true), [0]);
}

#[test]
fn what_was_dropped_first_of_all_is_found_again_in_smaller_pieces() {
    let policy = policy(&[&["attack"]]);
    for later in [true, false] {
        let mut flow = Flow::new(&policy);
        assert_eq!(flow.segment(100, "an attack", false), [0]);
        assert_eq!(flow.segment(109, "more at", later), NONE);
        assert_eq!(flow.segment(100, "an att", true), NONE);
        assert_eq!(flow.segment(106, "ack", true), [0]);
    }
}

#[test]
fn a_syn_without_payload_begins_a_stream() {
    let policy = policy(&[&["attack"], &["GET", "evil"]]);
    let mut flow = Flow::new(&policy);
    flow.segment(100, "GET att", true);
    assert_eq!(flow.segment(106, "SYN", true), NONE);
    assert_eq!(flow.segment(107, "ack evil", true), NONE);
}

#[test]
fn old_bytes_are_looked_at_by_themselves_and_change_nothing() {
    let policy = policy(&[&["attack"], &["other"]]);
    let mut flow = Flow::new(&policy);
    flow.segment(100, "an att", true);
    assert_eq!(flow.segment(100, "an att", true), NONE, "sent again");
    assert_eq!(flow.segment(101, "other", true), [1], "sent again, and changed");
    assert_eq!(flow.segment(106, "ack", true), [0]);
    // Old and new together.
    flow.segment(109, "att", true);
    assert_eq!(flow.segment(109, "attack", true), [0]);
    flow.segment(115, "att", true);
    assert_eq!(flow.segment(116, "ttac", true), NONE);
    assert_eq!(flow.segment(120, "k", true), [0]);
}

#[test]
fn a_gap_and_a_new_stream_begin_anew() {
    let policy = policy(&[&["attack"]]);
    let mut flow = Flow::new(&policy);
    flow.segment(100, "att", true);
    assert_eq!(flow.segment(104, "ack", true), NONE, "a byte is missing");
    assert_eq!(flow.segment(107, "att", true), NONE);
    assert_eq!(flow.segment(110, "ack", true), [0], "in order from there on");
    flow.segment(200, "att", true);
    assert_eq!(flow.segment(202, "SYNack", true), NONE, "a new stream at the number expected");
    flow.segment(300, "att", true);
    flow.segment(2_000_000_000, "att", true);
    assert_eq!(flow.segment(2_000_000_003, "ack", true), [0], "numbers far away are a new stream");
}

#[test]
fn all_patterns_of_a_rule_count_also_from_earlier_packets() {
    let policy = policy(&[&["GET", "evil"], &["evil"]]);
    let mut flow = Flow::new(&policy);
    assert_eq!(flow.segment(1, "evil", true), [1]);
    assert_eq!(flow.segment(5, "GE", true), NONE);
    assert_eq!(flow.segment(7, "T", true), [0], "the first was found before");
    assert_eq!(flow.segment_from(7, 1, "evil GET", true), [0, 1]);
    assert_eq!(flow.segment(1, "SYN GET", true), NONE, "a new stream has found nothing yet");
}

#[test]
fn flows_that_do_not_matter_take_no_place() {
    let policy = policy(&[&["attack"]]);
    let mut flow = Flow::new(&policy);
    for port in 0..10_000 {
        flow.segment_from(port, 1, "nothing", true);
    }
    assert_eq!(flow.scanner.evicted(), 0);
    let mut small = Flow::new(&policy);
    small.scanner.flows = BoundedTable::new(8);
    for port in 0..20 {
        small.segment_from(port, 1, "att", true);
    }
    assert_eq!(small.scanner.evicted(), 12);
    assert_eq!(small.segment_from(19, 4, "ack", true), [0]);
    assert_eq!(small.segment_from(0, 4, "ack", true), NONE, "forgotten");
}

proptest! {
    #[test]
    fn what_is_refused_is_refused_again_whatever_was_in_flight(
        stream in "[atck]{1,60}",
        cuts in vec(1_usize..60, 0..12),
        again in 1_usize..60,
        first: u32,
    ) {
        let texts = ["attack", "tack", "ca", "kk"];
        let rules: Vec<_> = texts.iter().map(std::slice::from_ref).collect();
        let policy = policy(&rules);
        let mut flow = Flow::new(&policy);
        let sequence = |at: usize| first.wrapping_add(u32::try_from(at).unwrap());
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut refused = None;
        for piece in cuts.windows(2) {
            let payload = &stream[piece[0]..piece[1]];
            let goes_on = flow.segment(sequence(piece[0]), payload, false).is_empty();
            if goes_on {
                flow.segment(sequence(piece[0]), payload, true);
            } else {
                refused = refused.or(Some(piece[0]));
            }
        }
        // From the first that is missing on, in pieces of another size.
        let mut from = refused.unwrap_or(stream.len());
        while from < stream.len() {
            let to = (from + again).min(stream.len());
            let found = flow.segment(sequence(from), &stream[from..to], false);
            for (number, text) in (0_u32..).zip(texts) {
                if (from + 1..=to).any(|end| stream[..end].ends_with(text)) {
                    prop_assert!(found.contains(&number), "{} in {}..{}", text, from, to);
                }
            }
            if !found.is_empty() {
                break;
            }
            flow.segment(sequence(from), &stream[from..to], true);
            from = to;
        }
    }

    #[test]
    fn a_stream_in_order_is_found_whole_wherever_it_is_cut(
        stream in "[atck]{0,60}",
        cuts in vec(0_usize..60, 0..8),
        first: u32,
    ) {
        let texts = ["attack", "tack", "ca", "kk"];
        let rules: Vec<_> = texts.iter().map(std::slice::from_ref).collect();
        let policy = policy(&rules);
        let mut flow = Flow::new(&policy);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        for piece in cuts.windows(2) {
            let sequence = first.wrapping_add(u32::try_from(piece[0]).unwrap());
            let found = flow.segment(sequence, &stream[piece[0]..piece[1]], true);
            for (number, text) in (0_u32..).zip(texts) {
                let ends_here = (piece[0] + 1..=piece[1]).any(|end| stream[..end].ends_with(text));
                prop_assert_eq!(found.contains(&number), ends_here, "{} at {:?}", text, piece);
            }
        }
    }
}
