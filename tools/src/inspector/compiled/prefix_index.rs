//! From an address to the rules whose prefixes cover it.
//!
//! The address space is cut where a prefix begins or ends. Each piece knows the longest prefix that covers it, and each
//! prefix the next shorter one, so a look-up is one search for the piece and a walk over the prefixes that cover it:
//!
//! ```text
//!    prefixes   10.0.0.0/8 ................................   10.1.0.0/16 in it
//!    pieces     | none | /8 from 10.0.0.0 | /16 from 10.1.0.0 | /8 from 10.2.0.0 | none from 11.0.0.0
//! ```
//!
//! Invariant: [`PrefixIndex::covering`] gives exactly the prefixes that cover the address. Size grows with the number
//! of prefixes, however they are nested.

use std::ops::Range;

/// Rules in a list of all lists, ascending.
pub(super) type ListPlace = Range<u32>;

/// An address as a number.
pub(super) trait AddressBits: Copy + Ord {
    const ZERO: Self;
    /// The last address of a prefix that begins here.
    fn last(self, length: u8) -> Self;
    /// The address behind this one; none behind the last of all.
    fn next(self) -> Option<Self>;
    /// The first 16 bits.
    fn top(self) -> u16;
    /// The first address with these first 16 bits.
    fn from_top(top: u16) -> Self;
}

macro_rules! address_bits {
    ($($integer:ty)*) => {$(
        impl AddressBits for $integer {
            const ZERO: Self = 0;

            fn last(self, length: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            #[inline]
            fn top(self) -> u16 {
                let bytes = self.to_be_bytes();
                u16::from_be_bytes([bytes[0], bytes[1]])
            }

            fn from_top(top: u16) -> Self {
                Self::from(top) << (Self::BITS - 16)
            }
        }
    )*};
}

address_bits!(u32 u128);

/// A prefix and its rules.
#[derive(Debug, Clone)]
pub(super) struct IndexedPrefix<A> {
    pub(super) address: A,
    pub(super) length: u8,
    pub(super) rules: ListPlace,
}

/// The prefixes of one address family.
#[derive(Debug)]
pub(super) struct PrefixIndex<A> {
    /// Where each piece begins, ascending from 0.
    starts: Box<[A]>,
    /// The longest prefix over each piece: a place in `prefixes`, or [`NO_PREFIX`].
    longest: Box<[u32]>,
    prefixes: Box<[Covering]>,
    /// For each value of an address's first 16 bits, the piece in which that range begins, and one more for the end.
    /// Empty where the search is short anyway.
    tops: Box<[u32]>,
}

#[derive(Debug)]
struct Covering {
    rules: ListPlace,
    /// The next shorter prefix that covers this one.
    shorter: u32,
}

impl<A: AddressBits> PrefixIndex<A> {
    /// Builds the index of distinct prefixes.
    pub(super) fn new(mut prefixes: Vec<IndexedPrefix<A>>) -> Self {
        prefixes.sort_unstable_by_key(|prefix| (prefix.address, prefix.length));
        let mut pieces = Pieces { starts: Vec::new(), longest: Vec::new() };
        if !prefixes.is_empty() {
            pieces.begin(A::ZERO, NO_PREFIX);
        }
        let mut coverings = Vec::with_capacity(prefixes.len());
        // Prefixes that are open: their last address, and their place.
        let mut open: Vec<(A, u32)> = Vec::new();
        for prefix in prefixes {
            close_before(Some(prefix.address), &mut open, &mut pieces);
            let place = place(coverings.len());
            let shorter = open.last().map_or(NO_PREFIX, |(_, place)| *place);
            coverings.push(Covering { rules: prefix.rules, shorter });
            pieces.begin(prefix.address, place);
            open.push((prefix.address.last(prefix.length), place));
        }
        close_before(None, &mut open, &mut pieces);
        let tops = if pieces.starts.len() > SEARCH_MAX { tops(&pieces.starts) } else { Vec::new() };
        Self {
            starts: pieces.starts.into(),
            longest: pieces.longest.into(),
            prefixes: coverings.into(),
            tops: tops.into(),
        }
    }

    /// The rules of every prefix that covers the address, from the longest prefix on.
    #[inline]
    pub(super) fn covering(&self, address: A) -> impl Iterator<Item = ListPlace> + '_ {
        let mut next = self.longest.get(self.piece(address)).copied().unwrap_or(NO_PREFIX);
        std::iter::from_fn(move || {
            let covering = self.prefixes.get(next as usize)?;
            next = covering.shorter;
            Some(covering.rules.clone())
        })
    }

    /// The piece that the address lies in; out of range if there are no pieces.
    #[inline]
    fn piece(&self, address: A) -> usize {
        let top = usize::from(address.top());
        let (from, to) = match self.tops.get(top..top + 2) {
            Some(tops) => (tops[0] as usize, tops[1] as usize + 1),
            None => (0, self.starts.len()),
        };
        let behind = self.starts[from..to].partition_point(|start| *start <= address);
        (from + behind).wrapping_sub(1)
    }

    /// The most prefixes that cover one address.
    pub(super) fn depth(&self) -> usize {
        let mut depths = Vec::with_capacity(self.prefixes.len());
        for prefix in &self.prefixes {
            // A shorter prefix stands before those that it covers.
            let below = depths.get(prefix.shorter as usize).copied().unwrap_or(0);
            depths.push(below + 1);
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.starts)
            + size_of_val(&*self.longest)
            + size_of_val(&*self.prefixes)
            + size_of_val(&*self.tops)
    }
}

struct Pieces<A> {
    starts: Vec<A>,
    longest: Vec<u32>,
}

impl<A: AddressBits> Pieces<A> {
    /// From here on this is the longest prefix.
    fn begin(&mut self, start: A, prefix: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.longest.pop();
        }
        self.starts.push(start);
        self.longest.push(prefix);
    }
}

/// Closes the open prefixes that end before `address`; all of them if there is none.
fn close_before<A: AddressBits>(
    address: Option<A>,
    open: &mut Vec<(A, u32)>,
    pieces: &mut Pieces<A>,
) {
    while let Some((last, _)) =
        open.pop_if(|(last, _)| address.is_none_or(|address| *last < address))
    {
        if let Some(behind) = last.next() {
            pieces.begin(behind, open.last().map_or(NO_PREFIX, |(_, place)| *place));
        }
    }
}

/// For each of the first 16 bits the piece in which their range begins; and the last piece.
fn tops<A: AddressBits>(starts: &[A]) -> Vec<u32> {
    let piece = |address| starts.partition_point(|start| *start <= address) - 1;
    let begins = (0..=u16::MAX).map(|top| place(piece(A::from_top(top))));
    begins.chain([place(starts.len() - 1)]).collect()
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("a rules file of 64 MiB has fewer prefixes")
}

/// No prefix covers this.
const NO_PREFIX: u32 = u32::MAX;

/// Up to so many pieces are searched without the table of first bits, which takes 256 KiB.
const SEARCH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn index_of<A: AddressBits>(prefixes: &[(A, u8)]) -> PrefixIndex<A> {
        let indexed = prefixes.iter().enumerate().map(|(index, (address, length))| {
            let number = u32::try_from(index).unwrap();
            IndexedPrefix { address: *address, length: *length, rules: number..number + 1 }
        });
        PrefixIndex::new(indexed.collect())
    }

    /// Prefixes close to each other, without repetition, and addresses at their edges.
    fn prefixes() -> impl Strategy<Value = Vec<(u32, u8)>> {
        let prefix =
            (any::<u32>(), 0_u8..=32, prop_oneof![Just(0_u32), Just(0xffff), Just(u32::MAX)]);
        let prefixes = vec(prefix, 0..200);
        prefixes.prop_map(|prefixes| {
            let masked = prefixes.into_iter().map(|(address, length, noise)| {
                let address = (address & noise) | (address & 0x8000_0003);
                (address & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0), length)
            });
            let mut all: Vec<_> = masked.collect();
            all.sort_unstable();
            all.dedup();
            all
        })
    }

    proptest! {
        #[test]
        fn exactly_the_prefixes_that_cover_an_address_are_found(prefixes in prefixes(), address: u32) {
            let narrow = index_of(&prefixes);
            let wide: Vec<_> =
                prefixes.iter().map(|(address, length)| (u128::from(*address) << 96, *length)).collect();
            let wide_index = index_of(&wide);
            let edges = prefixes.iter().flat_map(|(first, length)| {
                let last = first.last(*length);
                [*first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in edges.chain([address, 0, u32::MAX]) {
                let covers = |(first, length): &(u32, u8)| (*first..=first.last(*length)).contains(&address);
                let mut expected: Vec<_> = prefixes.iter().enumerate().filter(|(_, prefix)| covers(prefix))
                    .map(|(index, (_, length))| (*length, u32::try_from(index).unwrap())).collect();
                expected.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
                let expected: Vec<_> = expected.into_iter().map(|(_, index)| index).collect();
                let found: Vec<_> = narrow.covering(address).map(|list| list.start).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert!(found.len() <= narrow.depth());
                let found: Vec<_> = wide_index.covering(u128::from(address) << 96).map(|list| list.start).collect();
                prop_assert_eq!(&found, &expected);
            }
        }
    }

    #[test]
    fn many_prefixes_use_the_table_of_first_bits() {
        let prefixes: Vec<_> = (0..1000_u32).map(|n| (n << 20, 24)).collect();
        let index = index_of(&prefixes);
        assert_eq!(index.tops.len(), 65_537);
        for (number, (address, _)) in prefixes.iter().enumerate() {
            let found: Vec<_> =
                index.covering(address | 7).map(|list| list.start as usize).collect();
            assert_eq!(found, [number]);
            assert_eq!(index.covering(address | 0x100).count(), 0);
        }
    }
}
