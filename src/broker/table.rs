//! A table whose slots are reused, while its ids are not: an id finds the value that it was issued for, or
//! nothing. So ids may be kept without bounds.
//!
//! It is a slab with the id beside each value, so that a lookup is one comparison: on the `slab` crate,
//! which compares a tag as well, a SEND costs 2 % more instructions. It does not know its values.

use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};

/// A slot of a table, with its generation: how often the slot has been used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(NonZeroU64);

impl Place {
    /// The place of an index and a generation, which begins with 1.
    pub(crate) const fn new(index: u32, generation: NonZeroU32) -> Self {
        let (place, generation) = (index as u64, generation.get() as u64);
        match NonZeroU64::new(generation << 32 | place) {
            Some(both) => Self(both),
            None => Self::NOWHERE,
        }
    }

    /// A place in no table.
    const NOWHERE: Self = Self(NonZeroU64::MAX);

    /// The index of the slot.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0.get() as u32
    }

    /// The generation of the slot.
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

/// The id of a value in a table: a type of its own for each type of value.
pub(crate) trait Key: Copy {
    /// The id for a place.
    fn new(place: Place) -> Self;

    /// The place of the id.
    fn place(self) -> Place;
}

/// Values by their ids.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, T> {
    entries: Vec<Entry<T>>,
    /// Indices of free slots, which are used before new ones.
    vacant: Vec<u32>,
    len: usize,
    key: PhantomData<fn() -> K>,
}

/// A slot.
#[derive(Clone, Debug)]
struct Entry<T> {
    /// The place of the value; in a free slot, index [`VACANT`] and the next generation.
    place: Place,
    value: T,
}

/// The index of no slot: tables are smaller.
const VACANT: u32 = u32::MAX;

impl<K: Key, T: Default> Table<K, T> {
    /// The id that [`Self::insert`] will issue next.
    pub(crate) fn next_key(&self) -> K {
        let index = self.vacant.last().copied().unwrap_or(self.entries.len() as u32);
        let entry = self.entries.get(index as usize);
        let generation = entry.map_or(NonZeroU32::MIN, |entry| entry.place.generation());
        K::new(Place::new(index, generation))
    }

    /// Inserts a value.
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

    /// Removes a value, if it is still there.
    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let value = std::mem::take(self.get_mut(key)?);
        let place = key.place();
        // A slot whose generations are used up is never used again.
        let next = place.generation().checked_add(1);
        self.entries[place.index() as usize].place =
            Place::new(VACANT, next.unwrap_or(NonZeroU32::MAX));
        self.vacant.extend(next.map(|_| place.index()));
        self.len -= 1;
        Some(value)
    }

    /// Gives a value another id, so that the id before finds nothing. It stays in its slot, unless the slot's
    /// generations are used up.
    pub(crate) fn renew(&mut self, key: K) -> Option<K> {
        self.get(key)?;
        let place = key.place();
        let Some(generation) = place.generation().checked_add(1) else {
            let value = self.remove(key)?;
            return Some(self.insert(value));
        };
        let next = Place::new(place.index(), generation);
        self.entries[place.index() as usize].place = next;
        Some(K::new(next))
    }

    /// The value with that id, if it is still there.
    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let place = key.place();
        let entry = self.entries.get(place.index() as usize)?;
        if entry.place == place { Some(&entry.value) } else { None }
    }

    /// As [`Self::get`], mutable.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let place = key.place();
        let entry = self.entries.get_mut(place.index() as usize)?;
        if entry.place == place { Some(&mut entry.value) } else { None }
    }

    /// Whether the id was ever issued.
    pub(crate) fn has_issued(&self, key: K) -> bool {
        let place = key.place();
        let entry = self.entries.get(place.index() as usize);
        let is_past = entry.is_some_and(|entry| place.generation() < entry.place.generation());
        is_past || self.get(key).is_some()
    }

    /// All values, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let occupied = self.entries.iter().filter(|entry| !entry.is_vacant());
        occupied.map(|entry| (K::new(entry.place), &entry.value))
    }

    /// The first value in a slot from `from` on, and the slot behind it; to go on later, whatever has changed.
    pub(crate) fn next_from(&self, from: usize) -> Option<(usize, K, &T)> {
        let rest = self.entries.get(from..)?.iter();
        let (skipped, entry) = rest.enumerate().find(|(_, entry)| !entry.is_vacant())?;
        Some((from + skipped + 1, K::new(entry.place), &entry.value))
    }

    /// The value in a slot, whatever its generation, with its id.
    pub(crate) fn at(&self, index: u32) -> Option<(K, &T)> {
        let entry = self.entries.get(index as usize).filter(|entry| !entry.is_vacant())?;
        Some((K::new(entry.place), &entry.value))
    }

    /// The number of slots, those that are free included.
    pub(crate) fn slots_len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
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

/// Lookup of ids whose values are known to exist.
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
#[inline(never)] // keeps the panic out of each lookup
fn gone() -> ! {
    panic!("an id is used after its value was removed")
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
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
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
    #[should_panic(expected = "after its value was removed")]
    fn to_use_the_id_of_a_removed_value_is_a_defect() {
        let mut table: Table<Id, u8> = Table::default();
        let gone = table.insert(1);
        table.remove(gone);
        table.insert(2);
        let _ = table[gone];
    }

    proptest! {
        #[test]
        fn an_id_finds_the_value_that_it_was_issued_for_or_nothing(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let mut table: Table<Id, usize> = Table::default();
            let mut issued: Vec<(Id, Option<usize>)> = Vec::new();
            for (number, (inserts, which)) in steps.into_iter().enumerate() {
                if inserts || issued.is_empty() {
                    let next = table.next_key();
                    prop_assert!(!table.has_issued(next));
                    let id = table.insert(number);
                    prop_assert_eq!(next, id);
                    prop_assert!(issued.iter().all(|(other, _)| *other != id), "issued twice");
                    issued.push((id, Some(number)));
                } else {
                    let (id, value) = which.get(&issued);
                    prop_assert_eq!(table.remove(*id), *value);
                    let at = issued.iter().position(|(other, _)| other == id).unwrap();
                    issued[at].1 = None;
                }
                for (id, value) in &issued {
                    prop_assert_eq!(table.get(*id), value.as_ref());
                    prop_assert!(table.has_issued(*id));
                }
                let mut held: Vec<_> = issued.iter().filter_map(|(id, value)| Some((*id, (*value)?))).collect();
                held.sort_by_key(|(id, _)| id.0.index());
                prop_assert_eq!(table.len(), held.len());
                prop_assert_eq!(table.iter().map(|(id, value)| (id, *value)).collect::<Vec<_>>(), held);
            }
        }
    }
}
