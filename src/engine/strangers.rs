//! Connections that are not logged in, by where they come from and by age: which of them gives up its place to a
//! newcomer when all places are in use.
//!
//! It knows slots and sources, and no connections. All it does takes the same time however many there are, but for
//! the search of a source.

use std::collections::BTreeMap;

use slab::Slab;

use crate::broker::Source;
use crate::ranking::Ranking;

/// The connections that are not logged in, those that are closing included.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    sources: Slab<Group>,
    by_source: BTreeMap<Source, u32>,
    /// Sources by the number of their connections.
    ranking: Ranking,
    /// By slot.
    places: Vec<Place>,
    /// All of them, the oldest first.
    all: List,
}

/// The connections from one source.
#[derive(Debug)]
struct Group {
    source: Source,
    /// The oldest first.
    list: List,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Its source; [`NONE`] if it does not stand anywhere.
    group: u32,
    /// Its neighbours among those of its source, and among all.
    links: [Links; 2],
}

#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

const NONE: u32 = u32::MAX;

/// The list of a source.
const OF_SOURCE: usize = 0;

/// The list of all.
const OF_ALL: usize = 1;

/// Places for which memory is kept while nobody stands there.
const PLACES_KEPT: usize = 256;

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self { group: NONE, links: [Links { before: NONE, after: NONE }; 2] }
    }
}

impl Strangers {
    /// Adds a connection, as the youngest. One that is there already stays where it is.
    pub(super) fn add(&mut self, slot: u32, source: Source) {
        if self.has(slot) {
            return;
        }
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, Place::default());
        }
        let sources = &mut self.sources;
        let group = *self
            .by_source
            .entry(source)
            .or_insert_with(|| sources.insert(Group { source, list: List::default() }) as u32);
        self.places[slot as usize].group = group;
        let list = &mut self.sources[group as usize].list;
        push(&mut self.places, list, OF_SOURCE, slot);
        self.ranking.set(group, list.len.into());
        push(&mut self.places, &mut self.all, OF_ALL, slot);
    }

    /// Removes a connection, if it is there.
    pub(super) fn remove(&mut self, slot: u32) {
        if !self.has(slot) {
            return;
        }
        let group = std::mem::replace(&mut self.places[slot as usize].group, NONE);
        let Group { source, list } = &mut self.sources[group as usize];
        unlink(&mut self.places, list, OF_SOURCE, slot);
        unlink(&mut self.places, &mut self.all, OF_ALL, slot);
        self.ranking.set(group, list.len.into());
        if list.len == 0 {
            self.by_source.remove(source);
            self.sources.remove(group as usize);
        }
        if self.all.len == 0 && self.places.len() > PLACES_KEPT {
            *self = Self::default();
        }
    }

    /// The connection that gives up its place to a newcomer from a source: the oldest one of the source that has most,
    /// to within an eighth, if it has more than that of the newcomer would have; if not, the oldest one of the
    /// newcomer's, and if that has none, the oldest of all.
    pub(super) fn payer_for(&self, newcomer: Source) -> Option<u32> {
        let own = self.by_source.get(&newcomer).map(|group| &self.sources[*group as usize].list);
        let largest = &self.sources[self.ranking.largest()? as usize].list;
        Some(match own {
            Some(own) if largest.len <= own.len + 1 => own.first,
            None if largest.len <= 1 => self.all.first,
            _ => largest.first,
        })
    }

    /// Whether a connection is there.
    pub(super) fn has(&self, slot: u32) -> bool {
        self.places.get(slot as usize).is_some_and(|place| place.group != NONE)
    }

    /// The number of connections.
    pub(super) fn len(&self) -> usize {
        self.all.len as usize
    }
}

fn push(places: &mut [Place], list: &mut List, which: usize, slot: u32) {
    places[slot as usize].links[which] = Links { before: list.last, after: NONE };
    match places.get_mut(list.last as usize) {
        Some(last) => last.links[which].after = slot,
        None => list.first = slot,
    }
    list.last = slot;
    list.len += 1;
}

fn unlink(places: &mut [Place], list: &mut List, which: usize, slot: u32) {
    let Links { before, after } = places[slot as usize].links[which];
    match places.get_mut(before as usize) {
        Some(one) => one.links[which].after = after,
        None => list.first = after,
    }
    match places.get_mut(after as usize) {
        Some(one) => one.links[which].before = before,
        None => list.last = before,
    }
    list.len -= 1;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(number: u64) -> Source {
        Source::new(number)
    }

    #[test]
    fn the_oldest_of_the_source_with_most_pays_and_between_equals_age_decides() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.payer_for(source(1)), None);
        for (slot, from) in [(7, 1), (3, 2), (5, 2), (4, 2), (9, 3)] {
            strangers.add(slot, source(from));
        }
        assert_eq!(strangers.payer_for(source(1)), Some(3), "two would be less than three");
        assert_eq!(strangers.payer_for(source(4)), Some(3));
        assert_eq!(strangers.payer_for(source(2)), Some(3), "its own pays");
        strangers.remove(3);
        strangers.add(5, source(2));
        assert_eq!(strangers.payer_for(source(4)), Some(5), "one that is there is no younger");
        assert_eq!(strangers.payer_for(source(1)), Some(7), "two are not more than two");
        strangers.remove(5);
        strangers.remove(5);
        assert_eq!(strangers.payer_for(source(4)), Some(7), "the oldest of all");
        assert_eq!(strangers.payer_for(source(3)), Some(9));
    }

    proptest! {
        #[test]
        fn whoever_pays_is_the_oldest_of_a_source_with_about_most(
            steps in prop::collection::vec((any::<bool>(), 0..40u32, 0..4u64), 1..300),
        ) {
            let mut strangers = Strangers::default();
            let mut model: Vec<(u32, u64)> = Vec::new();
            for (adds, slot, from) in steps {
                match adds {
                    true => {
                        strangers.add(slot, source(from));
                        if !model.iter().any(|one| one.0 == slot) {
                            model.push((slot, from));
                        }
                    }
                    false => {
                        strangers.remove(slot);
                        model.retain(|one| one.0 != slot);
                    }
                }
                prop_assert_eq!(strangers.len(), model.len());
                let count = |from: u64| model.iter().filter(|one| one.1 == from).count();
                let Some(payer) = strangers.payer_for(source(from)) else {
                    prop_assert!(model.is_empty());
                    continue;
                };
                let found = model.iter().find(|one| one.0 == payer).unwrap().1;
                let oldest = model.iter().find(|one| one.1 == found).unwrap().0;
                prop_assert_eq!(oldest, payer);
                let most = (0..4).map(count).max().unwrap();
                let is_fair = count(found) >= most - most / 8 || found == from;
                prop_assert!(is_fair, "{} of {most}", count(found));
                prop_assert!(found == from || count(found) >= count(from));
            }
        }
    }
}
