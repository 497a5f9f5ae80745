//! All patterns of all rules, in one automaton for those that are taken as they stand and one for those in which case
//! does not matter.
//!
//! Invariant: walking a stream piece by piece, each piece from the state in which the one before it ended, reports
//! every occurrence of every pattern, at the byte where it ends, wherever the pieces are cut. (That rules the
//! automatons' prefilters out: they look for whole patterns.)

use std::collections::{HashMap, HashSet};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::{Anchored, MatchKind, PatternID, StartKind, dfa, nfa};
use anyhow::Context;

use crate::inspector::rules_file::Pattern;

/// The patterns of a policy, numbered from 0, without repetition.
#[derive(Debug, Default)]
pub(crate) struct PatternSet {
    exact: Option<Scanner>,
    ignoring_case: Option<Scanner>,
    /// By number.
    pub(super) patterns: Vec<Pattern>,
}

/// Where the walk over a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScanState {
    exact: StateID,
    ignoring_case: StateID,
}

impl PatternSet {
    /// Numbers the patterns of all rules, given in the order of rules.
    ///
    /// # Errors
    /// If there are more than an automaton can hold.
    pub(super) fn new<'p>(all: impl Iterator<Item = &'p Pattern>) -> anyhow::Result<Self> {
        let mut known = HashSet::new();
        let patterns: Vec<_> = all.filter(|pattern| known.insert(*pattern)).cloned().collect();
        let exact = Scanner::new(&patterns, false)?;
        let ignoring_case = Scanner::new(&patterns, true)?;
        Ok(Self { exact, ignoring_case, patterns })
    }

    /// The number of a pattern of these.
    pub(super) fn numbers(&self) -> HashMap<&Pattern, u32> {
        (0..).zip(&self.patterns).map(|(number, pattern)| (pattern, number)).collect()
    }

    /// Where a stream begins.
    pub(crate) fn start(&self) -> ScanState {
        let start = |scanner: &Option<Scanner>| {
            scanner.as_ref().map_or_else(StateID::default, Scanner::start)
        };
        ScanState { exact: start(&self.exact), ignoring_case: start(&self.ignoring_case) }
    }

    /// Walks on over these bytes. `found` gets the number of each pattern at each place where it ends.
    #[inline]
    pub(crate) fn scan(
        &self,
        from: ScanState,
        bytes: &[u8],
        mut found: impl FnMut(u32),
    ) -> ScanState {
        let mut state = from;
        if let Some(scanner) = &self.exact {
            state.exact = scanner.scan(state.exact, bytes, &mut found);
        }
        if let Some(scanner) = &self.ignoring_case {
            state.ignoring_case = scanner.scan(state.ignoring_case, bytes, &mut found);
        }
        state
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.patterns.len()
    }

    /// Whether a walk begun in the other's states may go on in this one's.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }

    /// What the automatons are and take.
    pub(crate) fn scanners(&self) -> impl Iterator<Item = ScannerAccount> + '_ {
        let both = [(&self.exact, false), (&self.ignoring_case, true)];
        both.into_iter().filter_map(|(scanner, ignores_case)| {
            let scanner = scanner.as_ref()?;
            let (kind, bytes) = match &scanner.automaton {
                AutomatonKind::Dfa(dfa) => ("DFA", dfa.memory_usage()),
                AutomatonKind::Nfa(nfa) => ("contiguous NFA", nfa.memory_usage()),
            };
            Some(ScannerAccount { ignores_case, kind, patterns: scanner.numbers.len(), bytes })
        })
    }

    /// The bytes of those that are taken as they stand, and of the others.
    pub(crate) fn texts(&self, ignoring_case: bool) -> Vec<&[u8]> {
        let of_kind = self.patterns.iter().filter(|pattern| pattern.ignore_case == ignoring_case);
        of_kind.map(|pattern| pattern.bytes.as_slice()).collect()
    }
}

/// One automaton, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScannerAccount {
    pub(crate) ignores_case: bool,
    pub(crate) kind: &'static str,
    pub(crate) patterns: usize,
    pub(crate) bytes: usize,
}

/// One automaton, and the policy's numbers of its patterns.
#[derive(Debug)]
struct Scanner {
    automaton: AutomatonKind,
    numbers: Box<[u32]>,
}

#[derive(Debug)]
enum AutomatonKind {
    /// One table look-up a byte.
    Dfa(dfa::DFA),
    /// For many patterns: slower by a few times, smaller by tens.
    Nfa(nfa::contiguous::NFA),
}

impl Scanner {
    fn new(patterns: &[Pattern], ignoring_case: bool) -> anyhow::Result<Option<Self>> {
        let numbered = (0_u32..).zip(patterns);
        let of_kind = numbered.filter(|(_, pattern)| pattern.ignore_case == ignoring_case);
        let (numbers, texts): (Vec<_>, Vec<_>) =
            of_kind.map(|(number, pattern)| (number, pattern.bytes.as_slice())).unzip();
        if texts.is_empty() {
            return Ok(None);
        }
        let automaton = AutomatonKind::new(&texts, ignoring_case)
            .with_context(|| format!("building the automaton of {} patterns", texts.len()))?;
        Ok(Some(Self { automaton, numbers: numbers.into() }))
    }

    fn start(&self) -> StateID {
        let start = match &self.automaton {
            AutomatonKind::Dfa(dfa) => dfa.start_state(Anchored::No),
            AutomatonKind::Nfa(nfa) => nfa.start_state(Anchored::No),
        };
        start.expect("both are built for walks that are not anchored")
    }

    #[inline]
    fn scan(&self, from: StateID, bytes: &[u8], found: &mut impl FnMut(u32)) -> StateID {
        let numbers = &self.numbers;
        let found = |pattern: PatternID| found(numbers[pattern.as_usize()]);
        match &self.automaton {
            AutomatonKind::Dfa(dfa) => walk(dfa, from, bytes, found),
            AutomatonKind::Nfa(nfa) => walk(nfa, from, bytes, found),
        }
    }
}

impl AutomatonKind {
    fn new(texts: &[&[u8]], ignoring_case: bool) -> anyhow::Result<Self> {
        let nfa = nfa::noncontiguous::Builder::new()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(ignoring_case)
            .prefilter(false)
            .build(texts)?;
        if dfa_bytes_at_most(texts, ignoring_case) <= DFA_BYTES_MAX {
            let mut builder = dfa::Builder::new();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            builder.start_kind(StartKind::Unanchored);
            return Ok(Self::Dfa(builder.build_from_noncontiguous(&nfa)?));
        }
        let mut builder = nfa::contiguous::Builder::new();
        builder.match_kind(MatchKind::Standard).prefilter(false);
        Ok(Self::Nfa(builder.build_from_noncontiguous(&nfa)?))
    }
}

/// A bound on the size of the table: a state for each byte of each pattern, a column of 4 bytes for each different
/// byte and one for all others, rounded up to a power of two.
fn dfa_bytes_at_most(texts: &[&[u8]], ignoring_case: bool) -> usize {
    let mut used = [false; 256];
    for byte in texts.iter().copied().flatten() {
        used[usize::from(*byte)] = true;
        used[usize::from(byte.to_ascii_lowercase())] |= ignoring_case;
        used[usize::from(byte.to_ascii_uppercase())] |= ignoring_case;
    }
    let columns = (used.iter().filter(|used| **used).count() + 1).next_power_of_two();
    let states = texts.iter().map(|text| text.len()).sum::<usize>() + 2;
    states * columns * 4
}

/// The loop over all bytes.
#[inline]
fn walk<A: Automaton>(
    automaton: &A,
    from: StateID,
    bytes: &[u8],
    mut found: impl FnMut(PatternID),
) -> StateID {
    let mut state = from;
    for byte in bytes {
        state = automaton.next_state(Anchored::No, state, *byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            for index in 0..automaton.match_len(state) {
                found(automaton.match_pattern(state, index));
            }
        }
    }
    state
}

/// Beyond this the table is far larger than any cache, and the smaller automaton is taken.
const DFA_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn naive(patterns: &[Pattern], stream: &[u8]) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        for end in 1..=stream.len() {
            for (number, pattern) in (0..).zip(patterns) {
                let Some(tail) =
                    end.checked_sub(pattern.bytes.len()).map(|from| &stream[from..end])
                else {
                    continue;
                };
                let is_same = if pattern.ignore_case {
                    tail.eq_ignore_ascii_case(&pattern.bytes)
                } else {
                    tail == pattern.bytes
                };
                if is_same {
                    found.push((end, number));
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn every_pattern_is_found_wherever_the_stream_is_cut(
            patterns in vec((vec(prop::sample::select(b"aAbB\0\xff".to_vec()), 1..5), any::<bool>()), 1..12),
            stream in vec(prop::sample::select(b"aAbBc\0\xff".to_vec()), 0..80),
            cuts in vec(0_usize..80, 0..6),
        ) {
            let patterns: Vec<_> =
                patterns.into_iter().map(|(bytes, ignore_case)| Pattern { bytes, ignore_case }).collect();
            let set = PatternSet::new(patterns.iter()).unwrap();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut found = std::collections::BTreeSet::new();
            let mut state = set.start();
            for piece in cuts.windows(2) {
                // Byte by byte, so that the end of each pattern is known.
                for at in piece[0]..piece[1] {
                    state = set.scan(state, &stream[at..=at], |number| { found.insert((at + 1, number)); });
                }
            }
            let expected: std::collections::BTreeSet<_> = naive(&set.patterns, &stream).into_iter().collect();
            prop_assert_eq!(&found, &expected);

            let (mut numbers, mut state) = (Vec::new(), set.start());
            for piece in cuts.windows(2) {
                state = set.scan(state, &stream[piece[0]..piece[1]], |number| numbers.push(number));
            }
            let mut expected: Vec<_> = expected.into_iter().map(|(_, number)| number).collect();
            numbers.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(numbers, expected);
        }
    }

    #[test]
    fn the_bound_of_the_table_holds_and_chooses_the_automaton() {
        for (count, kind) in [(1_000_u32, "DFA"), (20_000, "contiguous NFA")] {
            let texts = (0..count)
                .map(|n| format!("{:032x}", u128::from(n.wrapping_mul(2_654_435_761)) << 90));
            let patterns: Vec<_> = texts
                .map(|text| Pattern { bytes: text.into_bytes(), ignore_case: count > 5_000 })
                .collect();
            let set = PatternSet::new(patterns.iter()).unwrap();
            let account = set.scanners().next().unwrap();
            let bound = dfa_bytes_at_most(&set.texts(account.ignores_case), account.ignores_case);
            assert_eq!(account.kind, kind, "{bound}");
            if kind == "DFA" {
                // Beside the table there are the lists of matches.
                assert!(
                    account.bytes <= bound + 100 * patterns.len(),
                    "{} of {bound}",
                    account.bytes
                );
            }
        }
    }
}
