//! An index of things by name, which stays quick while it grows: hashes are kept, so that growing looks at no name,
//! and it is many small tables, of which one grows at a time.

use hashbrown::HashTable;

/// Ids by the hashes of names. It does not know the names.
#[derive(Debug)]
pub(super) struct NameIndex<I> {
    shards: Box<[HashTable<Entry<I>>]>,
    len: usize,
}

#[derive(Debug)]
struct Entry<I> {
    id: I,
    hash: u32,
}

impl<I: Copy + PartialEq> NameIndex<I> {
    /// Memory of an entry.
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry<I>>();

    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), len: 0 }
    }

    /// The id with that hash of which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(I) -> bool) -> Option<I> {
        let hash = hash as u32;
        let shard = &self.shards[shard_of(hash)];
        shard.find(widened(hash), |one| one.hash == hash && is_it(one.id)).map(|one| one.id)
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: I) {
        let hash = hash as u32;
        let shard = &mut self.shards[shard_of(hash)];
        shard.insert_unique(widened(hash), Entry { id, hash }, |one| widened(one.hash));
        self.len += 1;
    }

    /// Removes an id with its hash.
    pub(super) fn remove(&mut self, hash: u64, id: I) {
        let hash = hash as u32;
        let shard = &mut self.shards[shard_of(hash)];
        if let Ok(entry) = shard.find_entry(widened(hash), |one| one.id == id) {
            entry.remove();
            self.len -= 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Tables of an index: a million entries are 16,000 in each, which take a few ten microseconds to move.
const SHARDS: usize = 64;

/// The table of a hash: by bits that none of them uses for its buckets, unless it had half a million.
fn shard_of(hash: u32) -> usize {
    (hash >> 19) as usize % SHARDS
}

/// The hash for hashbrown, which takes the bucket from the lowest bits, and a check from the highest.
fn widened(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let hash_of = |id: u64| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        let mut index = NameIndex::new();
        (0..50_000_u64).for_each(|id| index.insert(hash_of(id), id));
        (0..50_000).filter(|id| id % 3 == 0).for_each(|id| index.remove(hash_of(id), id));
        index.remove(hash_of(3), 3);
        assert_eq!(index.len(), 50_000 - 16_667);
        for id in 0..50_000 {
            let found = index.find(hash_of(id), |one| one == id);
            assert_eq!(found, (id % 3 != 0).then_some(id));
        }
        let longest = index.shards.iter().map(HashTable::len).max().unwrap();
        assert!(longest < 2 * 50_000 / SHARDS, "{longest}");
    }
}
