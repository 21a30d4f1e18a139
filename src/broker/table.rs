//! A table whose places are used again, under ids that are not: an id finds what it was given for,
//! or nothing.
//!
//! A slab with the id beside each thing, so that finding is one comparison: the same on the `slab`
//! crate, which compares a tag as well, costs a SEND 2 % more instructions. It does not know what it
//! holds. Ids may be kept anywhere and for as long as one likes.

use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};

/// A place of a table, and which use of the place it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(NonZeroU64);

impl Place {
    /// That use of a place; the first is 1.
    pub(crate) const fn new(index: u32, generation: NonZeroU32) -> Self {
        let (place, generation) = (index as u64, generation.get() as u64);
        match NonZeroU64::new(generation << 32 | place) {
            Some(both) => Self(both),
            None => Self::NOWHERE,
        }
    }

    /// In no table.
    const NOWHERE: Self = Self(NonZeroU64::MAX);

    /// Where in the table.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0.get() as u32
    }

    /// Which use of the place it is.
    pub(crate) fn generation(self) -> NonZeroU32 {
        NonZeroU32::new((self.0.get() >> 32) as u32).unwrap_or(NonZeroU32::MIN)
    }
}

impl Default for Place {
    /// A place in no table.
    fn default() -> Self {
        Self::NOWHERE
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.index(), self.generation())
    }
}

/// The id of something in a table: a type of its own for each kind of thing.
pub(crate) trait Key: Copy {
    /// The id of what is in a place.
    fn new(place: Place) -> Self;

    /// The place that it is the id of.
    fn place(self) -> Place;
}

/// Things by their ids, and by their places in between.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, T> {
    entries: Vec<Entry<T>>,
    /// Places that are used before new ones are made.
    vacant: Vec<u32>,
    len: usize,
    key: PhantomData<fn() -> K>,
}

/// A place and what is in it. To find something is one comparison: that of the id with the place.
#[derive(Clone, Debug)]
struct Entry<T> {
    /// Of what is in it; where that is nothing, of index [`VACANT`] and the generation to come.
    place: Place,
    value: T,
}

/// The index of no place: tables are not so large.
const VACANT: u32 = u32::MAX;

impl<K: Key, T: Default> Table<K, T> {
    /// The id that [`Self::insert`] will give next.
    pub(crate) fn next_key(&self) -> K {
        let index = self.vacant.last().copied().unwrap_or(self.entries.len() as u32);
        let entry = self.entries.get(index as usize);
        let generation = entry.map_or(NonZeroU32::MIN, |entry| entry.place.generation());
        K::new(Place::new(index, generation))
    }

    /// Takes something in.
    pub(crate) fn insert(&mut self, value: T) -> K {
        let key = self.next_key();
        let entry = Entry { place: key.place(), value };
        match self.vacant.pop() {
            Some(index) => self.entries[index as usize] = entry,
            None => self.entries.push(entry),
        }
        self.len += 1;
        key
    }

    /// Takes something out, if it is still there.
    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let value = std::mem::take(self.get_mut(key)?);
        let place = key.place();
        // A place whose ids are used up is never used again.
        let next = place.generation().checked_add(1);
        self.entries[place.index() as usize].place =
            Place::new(VACANT, next.unwrap_or(NonZeroU32::MAX));
        self.vacant.extend(next.map(|_| place.index()));
        self.len -= 1;
        Some(value)
    }

    /// What has that id, if it is still there.
    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let place = key.place();
        let entry = self.entries.get(place.index() as usize)?;
        if entry.place == place { Some(&entry.value) } else { None }
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let place = key.place();
        let entry = self.entries.get_mut(place.index() as usize)?;
        if entry.place == place { Some(&mut entry.value) } else { None }
    }

    /// Whether there ever was something with that id.
    pub(crate) fn has_issued(&self, key: K) -> bool {
        let place = key.place();
        let entry = self.entries.get(place.index() as usize);
        let is_past = entry.is_some_and(|entry| place.generation() < entry.place.generation());
        is_past || self.get(key).is_some()
    }

    /// Everything, in the order of the places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let occupied = self.entries.iter().filter(|entry| !entry.is_vacant());
        occupied.map(|entry| (K::new(entry.place), &entry.value))
    }

    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Entry<T> {
    #[inline]
    fn is_vacant(&self) -> bool {
        self.place.index() == VACANT
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), vacant: Vec::new(), len: 0, key: PhantomData }
    }
}

/// For ids that are known to be those of something that is there.
impl<K: Key, T: Default> std::ops::Index<K> for Table<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, key: K) -> &T {
        match self.get(key) {
            Some(value) => value,
            None => gone(),
        }
    }
}

impl<K: Key, T: Default> std::ops::IndexMut<K> for Table<K, T> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        match self.get_mut(key) {
            Some(value) => value,
            None => gone(),
        }
    }
}

#[cold]
#[inline(never)]
fn gone() -> ! {
    panic!("an id is used although what it was given for is gone")
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
        let last = Id(Place::new(0, NonZeroU32::MAX));
        table.entries[0].place = last.0;
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(last), Some("a"));
        let next = table.insert("b");
        assert_eq!((next.0.index(), table.get(last), table.len()), (1, None, 1));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(next, &"b")]);
    }

    #[test]
    #[should_panic(expected = "although what it was given for is gone")]
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
                held.sort_by_key(|(id, _)| id.0.index());
                prop_assert_eq!(table.len(), held.len());
                prop_assert_eq!(table.iter().map(|(id, value)| (id, *value)).collect::<Vec<_>>(), held);
            }
        }
    }
}
