//! Hash tables that stay quick while they grow and while they shrink: hashes are kept, so that to move an entry looks at
//! no name, and each is many small tables, of which few move at a time.

use hashbrown::HashTable;

/// Something in a table that knows its hash.
pub(super) trait Hashed {
    /// The lower half of the hash that it is found by.
    fn hash(&self) -> u32;
}

/// A hash table in parts. What to look for is told by its hash, of which the lower half counts, and by a function.
#[derive(Debug)]
pub(super) struct Shards<T> {
    shards: Box<[HashTable<T>]>,
    len: usize,
}

impl<T: Hashed> Shards<T> {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), len: 0 }
    }

    /// The entry with that hash of which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let hash = hash as u32;
        self.shards[shard_of(hash)].find(widened(hash), |one| one.hash() == hash && is_it(one))
    }

    /// As [`Self::find`]. Its hash must stay the same.
    pub(super) fn find_mut(
        &mut self,
        hash: u64,
        mut is_it: impl FnMut(&T) -> bool,
    ) -> Option<&mut T> {
        let hash = hash as u32;
        let shard = &mut self.shards[shard_of(hash)];
        shard.find_mut(widened(hash), |one| one.hash() == hash && is_it(one))
    }

    /// Adds an entry that is not there.
    pub(super) fn insert(&mut self, entry: T) {
        let hash = entry.hash();
        let shard = &mut self.shards[shard_of(hash)];
        shard.insert_unique(widened(hash), entry, |one| widened(one.hash()));
        self.len += 1;
    }

    /// Removes the entry that [`Self::find`] finds. Memory of a part most of which has gone is given back.
    pub(super) fn remove(&mut self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let hash = hash as u32;
        let shard = &mut self.shards[shard_of(hash)];
        let found = shard.find_entry(widened(hash), |one| one.hash() == hash && is_it(one)).ok()?;
        let (entry, _) = found.remove();
        self.len -= 1;
        let is_sparse = shard.capacity() > KEPT && shard.len() < shard.capacity() / 4;
        if is_sparse || shard.is_empty() {
            shard.shrink_to(2 * shard.len(), |one| widened(one.hash()));
        }
        Some(entry)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(HashTable::iter)
    }

    /// The memory of entries, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(HashTable::allocation_size).sum()
    }
}

/// An index of things by name: ids by the hashes of names. It does not know the names.
#[derive(Debug)]
pub(super) struct NameIndex<I> {
    entries: Shards<Entry<I>>,
}

#[derive(Debug)]
struct Entry<I> {
    id: I,
    hash: u32,
}

impl<I> Hashed for Entry<I> {
    #[inline]
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl<I: Copy + PartialEq> NameIndex<I> {
    /// Memory of an entry.
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry<I>>();

    pub(super) fn new() -> Self {
        Self { entries: Shards::new() }
    }

    /// The id with that hash of which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(I) -> bool) -> Option<I> {
        self.entries.find(hash, |one| is_it(one.id)).map(|one| one.id)
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: I) {
        self.entries.insert(Entry { id, hash: hash as u32 });
    }

    /// Removes an id with its hash.
    pub(super) fn remove(&mut self, hash: u64, id: I) {
        self.entries.remove(hash, |one| one.id == id);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The memory of entries, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes()
    }
}

/// Parts of a table: of a million entries the largest has 16,000, which take a few ten microseconds to move if they are
/// small.
const SHARDS: usize = 128;

/// Entries for which a part that is not empty keeps memory, at least, once it has had it.
const KEPT: usize = 32;

/// The part of a hash: the larger of two numbers, so that the parts are of different sizes. With sizes alike all of them
/// would move within a few entries, and in one turn of the loop.
fn shard_of(hash: u32) -> usize {
    let one = (hash >> 18) as usize % SHARDS;
    let other = (hash >> 25) as usize % SHARDS;
    one.max(other)
}

/// The hash for hashbrown, which takes the bucket from the lowest bits, and a check from the highest. The lowest stay
/// apart from those that [`shard_of`] looks at, unless a part had a quarter of a million entries.
fn widened(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn hash_of(id: u64) -> u64 {
        id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let mut index = NameIndex::new();
        (0..50_000_u64).for_each(|id| index.insert(hash_of(id), id));
        (0..50_000).filter(|id| id % 3 == 0).for_each(|id| index.remove(hash_of(id), id));
        index.remove(hash_of(3), 3);
        assert_eq!(index.len(), 50_000 - 16_667);
        for id in 0..50_000 {
            let found = index.find(hash_of(id), |one| one == id);
            assert_eq!(found, (id % 3 != 0).then_some(id));
        }
        let longest = index.entries.shards.iter().map(HashTable::len).max().unwrap();
        assert!(longest < 3 * 50_000 / SHARDS, "{longest}");
    }

    /// A hash, and how often any was asked for.
    struct Noted<'a>(u32, &'a Cell<usize>);

    impl Hashed for Noted<'_> {
        fn hash(&self) -> u32 {
            self.1.set(self.1.get() + 1);
            self.0
        }
    }

    #[test]
    fn few_entries_move_at_a_time_while_a_table_grows_and_while_it_shrinks() {
        // SipHash is as good as any, and its secret is the same each time.
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let hashes: Vec<_> = (0..250_000_u32).map(|id| hasher.hash_one(id) as u32).collect();
        let looks = Cell::new(0);
        let mut table = Shards::new();
        // Few for each of them, and for as many as come or go in a turn.
        for (calls, looks_max) in [(1, 2 * 250_000 / SHARDS + 100), (2_000, 2_000 * 12)] {
            for some in hashes.chunks(calls) {
                looks.set(0);
                some.iter().for_each(|hash| table.insert(Noted(*hash, &looks)));
                assert!(looks.get() < looks_max, "{} for {calls} that come", looks.get());
            }
            assert!(table.bytes() > 4_000_000, "{}", table.bytes());
            for some in hashes.chunks(calls) {
                looks.set(0);
                for hash in some {
                    assert!(table.remove((*hash).into(), |_| true).is_some());
                }
                assert!(looks.get() < looks_max, "{} for {calls} that go", looks.get());
            }
            assert_eq!((table.len(), table.bytes()), (0, 0));
        }
    }
}
