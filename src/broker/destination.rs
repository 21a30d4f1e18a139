//! Destinations: the names that messages go to, who owns each, and who gets copies.
//!
//! A client's address exists while the client is logged in or while somebody watches it by name; a
//! queue while it holds messages or has consumers; a topic from its first message or subscription
//! until it is swept away. Who gets what is sent is a flat list, made when a subscription or an
//! owner changes, so that a message costs no matching.

use hashbrown::HashTable;

use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::queue::Queue;
use super::table::Table;

/// A name, its owner and its watchers.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    /// The name as it stands in frames.
    pub name: Box<[u8]>,
    /// The client whose address it is, while it is logged in.
    pub owner: Option<SessionId>,
    /// Who watches or subscribes; most destinations are watched by nobody.
    pub watch: Option<Box<Watch>>,
    /// What is queued there, where it is a queue.
    pub queue: Option<Box<Queue>>,
}

/// Someone who gets what is sent to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Who.
    pub session: SessionId,
    /// By which of its subscriptions.
    pub subscription: SubscriptionIndex,
    /// Whether no other of its subscriptions stands before on the same list.
    pub is_first: bool,
}

/// Who watches a destination.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Subscriptions by name and by pattern, awake or asleep.
    pub attached: Vec<SubscriptionIndex>,
    /// How many of them are by name: they keep the destination in being.
    pub direct: u32,
    /// Who gets each message now, the owner's own subscriptions first. In the classic dialect a
    /// session gets one copy, in the standard one a copy for each subscription.
    pub routes: Vec<Route>,
}

impl Destination {
    /// Who gets each message now.
    #[inline]
    pub(crate) fn routes(&self) -> &[Route] {
        self.watch.as_ref().map_or(&[], |watch| &watch.routes)
    }

    /// Subscriptions by name and by pattern, awake or asleep.
    pub(crate) fn attached(&self) -> &[SubscriptionIndex] {
        self.watch.as_ref().map_or(&[], |watch| &watch.attached)
    }

    /// Whether nothing keeps it in being.
    pub(crate) fn is_unused(&self) -> bool {
        let watched = self.watch.as_ref().is_some_and(|watch| watch.direct > 0);
        let queued = self.queue.as_ref().is_some_and(|queue| !queue.is_unused());
        self.owner.is_none() && !watched && !queued
    }
}

/// All destinations, found by index or by name.
#[derive(Debug, Default)]
pub(crate) struct DestinationTable {
    table: Table<DestinationId, Destination>,
    by_name: HashTable<DestinationId>,
    hasher: foldhash::fast::RandomState,
}

impl DestinationTable {
    /// Makes a destination with a name that no other has.
    pub(crate) fn insert(&mut self, name: &[u8]) -> DestinationId {
        let destination = Destination { name: name.into(), owner: None, watch: None, queue: None };
        let id = self.table.insert(destination);
        let (table, hasher) = (&self.table, &self.hasher);
        self.by_name.insert_unique(hash(hasher, name), id, |id| hash(hasher, &table[*id].name));
        id
    }

    /// Forgets a destination.
    pub(crate) fn remove(&mut self, id: DestinationId) {
        let Some(destination) = self.table.remove(id) else { return };
        let hash = hash(&self.hasher, &destination.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// The destination with that name. `guess` is tried first, whether or not it is still valid.
    #[inline]
    pub(crate) fn find(&self, name: &[u8], guess: Option<DestinationId>) -> Option<DestinationId> {
        if let Some(guess) = guess
            && self.table.get(guess).is_some_and(|guessed| *guessed.name == *name)
        {
            return Some(guess);
        }
        let hash = hash(&self.hasher, name);
        self.by_name.find(hash, |id| *self.table[*id].name == *name).copied()
    }

    /// A destination that may be gone.
    pub(crate) fn get(&self, id: DestinationId) -> Option<&Destination> {
        self.table.get(id)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: DestinationId) -> Option<&mut Destination> {
        self.table.get_mut(id)
    }

    /// All destinations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DestinationId, &Destination)> {
        self.table.iter()
    }

    /// The number of destinations.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<DestinationId> for DestinationTable {
    type Output = Destination;

    fn index(&self, id: DestinationId) -> &Destination {
        &self.table[id]
    }
}

impl std::ops::IndexMut<DestinationId> for DestinationTable {
    fn index_mut(&mut self, id: DestinationId) -> &mut Destination {
        &mut self.table[id]
    }
}

fn hash(hasher: &foldhash::fast::RandomState, name: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::table::Key;

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
        assert_eq!(cat.place().index(), ana.place().index(), "the place is used again");
        assert_eq!(table.find(b"/agent/cat", Some(ana)), Some(cat));
        assert!(table.get(ana).is_none(), "its id is not");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        assert_eq!(table.find(b"/agent/bob", None), Some(bob));
    }
}
