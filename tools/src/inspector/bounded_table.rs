//! A table of fixed size for what is remembered about addresses and flows.
//!
//! Invariant: after it was made it allocates nothing, and a look-up reads one set of [`WAYS`] entries, whatever is in
//! the table. A set that is full gives up the entry that was used longest ago, and that is counted. Which set an entry
//! belongs to depends on a key made at random, so nobody can choose addresses that all fall into one.
//!
//! It deliberately keeps no order among all entries: "oldest" is the oldest of a set.

use std::hash::{BuildHasher, Hash, RandomState};

/// A table from `K` to `V`.
#[derive(Debug)]
pub(crate) struct BoundedTable<K, V> {
    entries: Box<[Entry<K, V>]>,
    sets: usize,
    hasher: RandomState,
    /// Counts up with each use; an entry of a lower number was used earlier.
    uses: u64,
    evicted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry<K, V> {
    /// [`FREE`] if there is nothing here.
    used: u64,
    key: K,
    value: V,
}

impl<K: Copy + Default + Eq + Hash, V: Copy + Default> BoundedTable<K, V> {
    /// A table for so many entries, rounded up to whole sets.
    pub(crate) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        let entry = Entry { used: FREE, key: K::default(), value: V::default() };
        Self {
            entries: vec![entry; sets * WAYS].into_boxed_slice(),
            sets,
            hasher: RandomState::new(),
            uses: FREE,
            evicted: 0,
        }
    }

    /// The value of a key that is there.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<&V> {
        let set = self.set_of(key);
        let entries = self.entries[set..set + WAYS].iter();
        let mut found = entries.filter(|entry| entry.used != FREE && entry.key == *key);
        found.next().map(|entry| &entry.value)
    }

    /// The value of a key; one that is new takes the place of the oldest.
    #[inline]
    pub(crate) fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let set = self.set_of(&key);
        self.uses += 1;
        let uses = self.uses;
        let entries = &mut self.entries[set..set + WAYS];
        let known = entries.iter().position(|entry| entry.used != FREE && entry.key == key);
        let index = known
            .unwrap_or_else(|| (0..WAYS).min_by_key(|index| entries[*index].used).unwrap_or(0));
        let entry = &mut entries[index];
        if known.is_none() {
            self.evicted += u64::from(entry.used != FREE);
            *entry = Entry { used: uses, key, value: new() };
        }
        entry.used = uses;
        &mut entry.value
    }

    /// Forgets a key.
    #[inline]
    pub(crate) fn remove(&mut self, key: &K) {
        let set = self.set_of(key);
        let entries = &mut self.entries[set..set + WAYS];
        if let Some(entry) =
            entries.iter_mut().find(|entry| entry.used != FREE && entry.key == *key)
        {
            entry.used = FREE;
        }
    }

    /// Counts evictions on from those of another table.
    pub(crate) fn count_on_from(&mut self, other: &Self) {
        self.evicted += other.evicted;
    }

    /// How many entries had to give way to others since the table was made.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What so many entries take, in bytes.
    pub(crate) fn bytes(entries: usize) -> usize {
        entries.div_ceil(WAYS).next_power_of_two() * WAYS * size_of::<Entry<K, V>>()
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits of a hash are as good as all"
    )]
    fn set_of(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) as usize & (self.sets - 1)) * WAYS
    }
}

/// Entries in a set: enough that few sets are full before the table nearly is.
const WAYS: usize = 8;

/// Lower than the number of any use.
const FREE: u64 = 0;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_is_put_in_is_found_until_it_is_removed() {
        let mut table = BoundedTable::<u32, u32>::new(1024);
        let mut model = HashMap::new();
        for key in 0..200_u32 {
            *table.entry(key, || key) += 1;
            model.insert(key, key + 1);
        }
        *table.entry(7, || unreachable!("it is there")) = 70;
        model.insert(7, 70);
        table.remove(&9);
        table.remove(&9_999);
        model.remove(&9);
        for key in 0..300 {
            assert_eq!(table.find(&key), model.get(&key), "{key}");
        }
        assert_eq!(table.evicted(), 0);
    }

    #[test]
    fn a_full_set_gives_up_its_oldest_and_counts() {
        let mut table = BoundedTable::<u32, ()>::new(WAYS);
        for key in 0..8 {
            table.entry(key, || ());
        }
        table.entry(0, || ());
        table.entry(8, || ());
        assert_eq!(table.evicted(), 1);
        assert!(table.find(&1).is_none(), "1 was used longest ago");
        assert!([0, 2, 3, 4, 5, 6, 7, 8].iter().all(|key| table.find(key).is_some()));
        table.remove(&5);
        table.entry(9, || ());
        assert_eq!(table.evicted(), 1, "a free place is taken first");
    }
}
