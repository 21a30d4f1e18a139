//! A table whose places are used again, under ids that are not: an id finds what it was given for,
//! or nothing.
//!
//! It does not know what it holds. Ids may be kept anywhere and for as long as one likes.

use std::marker::PhantomData;
use std::num::NonZeroU32;

/// A place of a table, and how often it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Where in the table.
    pub index: u32,
    /// Which use of the place it is, from one on.
    pub generation: NonZeroU32,
}

/// The id of something in a table: a type of its own for each kind of thing.
pub trait Key: Copy {
    /// The id of what is in a place.
    fn new(place: Place) -> Self;

    /// The place that it is the id of.
    fn place(self) -> Place;
}

/// Things by their ids, and by their places in between.
#[derive(Clone, Debug)]
pub struct Table<K, T> {
    entries: Vec<Entry<T>>,
    /// The place that is used next, before a new one is made; [`NONE`] where there is none.
    vacant: u32,
    len: usize,
    key: PhantomData<fn() -> K>,
}

/// A place. Its generation is that of what is in it, or of what will be.
#[derive(Clone, Debug)]
struct Entry<T> {
    generation: NonZeroU32,
    slot: Slot<T>,
}

#[derive(Clone, Debug)]
enum Slot<T> {
    Occupied(T),
    Vacant { next: u32 },
}

const NONE: u32 = u32::MAX;

impl<K: Key, T> Table<K, T> {
    /// The id that [`Self::insert`] will give next.
    pub fn next_key(&self) -> K {
        let index = if self.vacant == NONE { self.entries.len() as u32 } else { self.vacant };
        let entry = self.entries.get(index as usize);
        let generation = entry.map_or(NonZeroU32::MIN, |entry| entry.generation);
        K::new(Place { index, generation })
    }

    /// Takes something in.
    pub fn insert(&mut self, value: T) -> K {
        let key = self.next_key();
        match self.entries.get_mut(key.place().index as usize) {
            Some(entry) => {
                if let Slot::Vacant { next } = entry.slot {
                    self.vacant = next;
                }
                entry.slot = Slot::Occupied(value);
            }
            None => {
                let entry = Entry { generation: NonZeroU32::MIN, slot: Slot::Occupied(value) };
                self.entries.push(entry);
            }
        }
        self.len += 1;
        key
    }

    /// Takes something out, if it is still there.
    pub fn remove(&mut self, key: K) -> Option<T> {
        self.get(key)?;
        let place = key.place();
        let entry = &mut self.entries[place.index as usize];
        let next = match place.generation.checked_add(1) {
            Some(generation) => {
                entry.generation = generation;
                std::mem::replace(&mut self.vacant, place.index)
            }
            // Its ids are used up, so it is never used again.
            None => NONE,
        };
        self.len -= 1;
        match std::mem::replace(&mut entry.slot, Slot::Vacant { next }) {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// What has that id, if it is still there.
    #[inline]
    pub fn get(&self, key: K) -> Option<&T> {
        let place = key.place();
        match self.entries.get(place.index as usize)? {
            Entry { generation, slot: Slot::Occupied(value) }
                if *generation == place.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let place = key.place();
        match self.entries.get_mut(place.index as usize)? {
            Entry { generation, slot: Slot::Occupied(value) }
                if *generation == place.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// What is in a place now, whatever was there before.
    #[inline]
    pub fn at(&self, index: usize) -> Option<&T> {
        match &self.entries.get(index)?.slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn at_mut(&mut self, index: usize) -> Option<&mut T> {
        match &mut self.entries.get_mut(index)?.slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// Whether there ever was something with that id.
    pub fn has_issued(&self, key: K) -> bool {
        let place = key.place();
        let entry = self.entries.get(place.index as usize);
        let is_past = entry.is_some_and(|entry| place.generation < entry.generation);
        is_past || self.get(key).is_some()
    }

    /// Everything, in the order of the places.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let Slot::Occupied(value) = &entry.slot else { return None };
            Some((key(index, entry.generation), value))
        })
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| {
            let Slot::Occupied(value) = &mut entry.slot else { return None };
            Some((key(index, entry.generation), value))
        })
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn key<K: Key>(index: usize, generation: NonZeroU32) -> K {
    K::new(Place { index: index as u32, generation })
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), vacant: NONE, len: 0, key: PhantomData }
    }
}

/// For ids that are known to be those of something that is there.
impl<K: Key, T> std::ops::Index<K> for Table<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, key: K) -> &T {
        match self.get(key) {
            Some(value) => value,
            None => gone(key.place()),
        }
    }
}

impl<K: Key, T> std::ops::IndexMut<K> for Table<K, T> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        match self.get_mut(key) {
            Some(value) => value,
            None => gone(key.place()),
        }
    }
}

#[cold]
#[inline(never)]
fn gone(place: Place) -> ! {
    panic!("{place:?} is used although what was there is gone")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Id(Place);

    impl Key for Id {
        fn new(place: Place) -> Self {
            Self(place)
        }

        fn place(self) -> Place {
            self.0
        }
    }

    #[test]
    fn an_id_costs_no_more_than_a_pointer() {
        assert_eq!((size_of::<Id>(), size_of::<Option<Id>>()), (8, 8));
    }

    #[test]
    fn a_place_whose_ids_are_used_up_is_not_used_again() {
        let mut table: Table<Id, &str> = Table::default();
        let first = table.insert("a");
        table.entries[0].generation = NonZeroU32::MAX;
        let last = Id(Place { index: 0, generation: NonZeroU32::MAX });
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(last), Some("a"));
        let next = table.insert("b");
        assert_eq!((next.0.index, table.get(last), table.len()), (1, None, 1));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(next, &"b")]);
    }

    #[test]
    #[should_panic(expected = "is used although what was there is gone")]
    fn to_use_what_is_gone_is_a_defect() {
        let mut table: Table<Id, u8> = Table::default();
        let gone = table.insert(1);
        table.remove(gone);
        table.insert(2);
        let _ = table[gone];
    }

    proptest! {
        #[test]
        fn an_id_finds_what_it_was_given_for_or_nothing(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let mut table: Table<Id, usize> = Table::default();
            let mut given: Vec<(Id, Option<usize>)> = Vec::new();
            for (number, (inserts, which)) in steps.into_iter().enumerate() {
                if inserts || given.is_empty() {
                    let foretold = table.next_key();
                    prop_assert!(!table.has_issued(foretold));
                    let id = table.insert(number);
                    prop_assert_eq!(foretold, id);
                    prop_assert!(given.iter().all(|(other, _)| *other != id), "given twice");
                    given.push((id, Some(number)));
                } else {
                    let (id, value) = which.get(&given);
                    prop_assert_eq!(table.remove(*id), *value);
                    let at = given.iter().position(|(other, _)| other == id).unwrap();
                    given[at].1 = None;
                }
                for (id, value) in &given {
                    prop_assert_eq!(table.get(*id), value.as_ref());
                    prop_assert!(table.has_issued(*id));
                }
                let mut held: Vec<_> = given.iter().filter_map(|(id, value)| Some((*id, (*value)?))).collect();
                held.sort_by_key(|(id, _)| id.0.index);
                prop_assert_eq!(table.len(), held.len());
                prop_assert_eq!(table.iter().map(|(id, value)| (id, *value)).collect::<Vec<_>>(), held);
            }
        }
    }
}
