//! Destinations: the names that messages go to, who owns each, and who gets copies.
//!
//! A destination exists while its client is logged in or while somebody watches it by name. Who
//! gets what is sent to it is a flat list, made when a subscription or an owner changes, so that a
//! message costs no matching.

use hashbrown::HashTable;
use slab::Slab;

use super::session::SessionId;
use super::subscription::SubscriptionIndex;

/// A destination that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(u32);

/// A name, its owner and its watchers.
#[derive(Debug)]
pub struct Destination {
    /// The name as it stands in frames.
    pub name: Box<[u8]>,
    /// The client whose address it is, while it is logged in.
    pub owner: Option<SessionId>,
    /// Who watches; most destinations are watched by nobody.
    pub watch: Option<Box<Watch>>,
}

/// Who watches a destination.
#[derive(Debug, Default)]
pub struct Watch {
    /// Subscriptions by name and by pattern, awake or asleep.
    pub attached: Vec<SubscriptionIndex>,
    /// How many of them are by name: they keep the destination in being.
    pub direct: u32,
    /// The sessions that get a copy of each message now, each once.
    pub routes: Vec<SessionId>,
}

impl Destination {
    /// The sessions that get a copy of each message now.
    #[inline]
    pub fn routes(&self) -> &[SessionId] {
        self.watch.as_ref().map_or(&[], |watch| &watch.routes)
    }

    /// Subscriptions by name and by pattern, awake or asleep.
    pub fn attached(&self) -> &[SubscriptionIndex] {
        self.watch.as_ref().map_or(&[], |watch| &watch.attached)
    }

    /// Whether nothing keeps it in being.
    pub fn is_unused(&self) -> bool {
        self.owner.is_none() && self.watch.as_ref().is_none_or(|watch| watch.direct == 0)
    }
}

/// All destinations, found by index or by name.
#[derive(Debug, Default)]
pub struct DestinationTable {
    table: Slab<Destination>,
    by_name: HashTable<DestinationId>,
    hasher: foldhash::fast::RandomState,
}

impl DestinationTable {
    /// Makes a destination with a name that no other has.
    pub fn insert(&mut self, name: &[u8]) -> DestinationId {
        let destination = Destination { name: name.into(), owner: None, watch: None };
        let id = DestinationId(self.table.insert(destination) as u32);
        let (table, hasher) = (&self.table, &self.hasher);
        self.by_name
            .insert_unique(hash(hasher, name), id, |id| hash(hasher, &table[id.0 as usize].name));
        id
    }

    /// Forgets a destination.
    pub fn remove(&mut self, id: DestinationId) {
        let destination = self.table.remove(id.0 as usize);
        let hash = hash(&self.hasher, &destination.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// The destination with that name. `guess` is tried first, whether or not it is still valid.
    #[inline]
    pub fn find(&self, name: &[u8], guess: Option<DestinationId>) -> Option<DestinationId> {
        if let Some(guess) = guess
            && self.table.get(guess.0 as usize).is_some_and(|guessed| *guessed.name == *name)
        {
            return Some(guess);
        }
        let hash = hash(&self.hasher, name);
        self.by_name.find(hash, |id| *self.table[id.0 as usize].name == *name).copied()
    }

    /// All destinations.
    pub fn iter(&self) -> impl Iterator<Item = (DestinationId, &Destination)> {
        self.table.iter().map(|(index, one)| (DestinationId(index as u32), one))
    }

    /// All destinations, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DestinationId, &mut Destination)> {
        self.table.iter_mut().map(|(index, one)| (DestinationId(index as u32), one))
    }

    /// The number of destinations.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl std::ops::Index<DestinationId> for DestinationTable {
    type Output = Destination;

    fn index(&self, id: DestinationId) -> &Destination {
        &self.table[id.0 as usize]
    }
}

impl std::ops::IndexMut<DestinationId> for DestinationTable {
    fn index_mut(&mut self, id: DestinationId) -> &mut Destination {
        &mut self.table[id.0 as usize]
    }
}

fn hash(hasher: &foldhash::fast::RandomState, name: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_that_is_stale_or_another_name_misleads_nobody() {
        let mut table = DestinationTable::default();
        let ana = table.insert(b"/agent/ana");
        let bob = table.insert(b"/agent/bob");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), Some(ana));
        assert_eq!(table.find(b"/agent/ana", Some(bob)), Some(ana));
        table.remove(ana);
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        let cat = table.insert(b"/agent/cat");
        assert_eq!(cat, ana, "the slot is used again");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        assert_eq!(table.find(b"/agent/bob", None), Some(bob));
    }
}
