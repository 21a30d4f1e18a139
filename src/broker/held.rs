//! The subscriptions of a session, found by what they are to and by their ids.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::ids::{GroupId, SubscriptionIndex};
use super::subscription::{SubscriptionTable, Target};

/// The subscriptions of a session. A few are searched one by one; with more there is an index.
#[derive(Debug, Default)]
pub(crate) struct Held {
    list: Vec<SubscriptionIndex>,
    index: Option<Box<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    by_target: HashTable<Alike>,
    /// Those that have an id.
    by_id: HashTable<SubscriptionIndex>,
    /// The groups of presence events among the targets.
    presence: Vec<GroupId>,
}

/// The subscriptions to one target, in any order.
#[derive(Debug)]
enum Alike {
    One(SubscriptionIndex),
    /// At least two; each knows its position.
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    all: Vec<SubscriptionIndex>,
}

/// Subscriptions up to which there is no index.
const SEARCHED_MAX: usize = 8;

impl Held {
    /// All of them, in any order.
    pub(crate) fn all(&self) -> &[SubscriptionIndex] {
        &self.list
    }

    /// All of them, without their index.
    pub(crate) fn into_all(self) -> Vec<SubscriptionIndex> {
        self.list
    }

    /// Adds a subscription.
    pub(crate) fn insert(
        &mut self,
        subscription: SubscriptionIndex,
        table: &mut SubscriptionTable,
    ) {
        table[subscription].held_at = self.list.len() as u32;
        self.list.push(subscription);
        match &mut self.index {
            Some(index) => index.insert(subscription, table),
            None if self.list.len() > SEARCHED_MAX => self.build_index(table),
            None => {}
        }
    }

    /// Removes a subscription, which has not ended yet.
    pub(crate) fn remove(
        &mut self,
        subscription: SubscriptionIndex,
        table: &mut SubscriptionTable,
    ) {
        let position = table[subscription].held_at as usize;
        if self.list.get(position) != Some(&subscription) {
            return;
        }
        self.list.swap_remove(position);
        if let Some(moved) = self.list.get(position) {
            table[*moved].held_at = position as u32;
        }
        if self.list.is_empty() {
            *self = Self::default();
        } else if let Some(index) = &mut self.index {
            index.remove(subscription, table);
        }
    }

    /// A subscription by its id.
    pub(crate) fn by_id(&self, id: &[u8], table: &SubscriptionTable) -> Option<SubscriptionIndex> {
        let is_meant = |one: &&SubscriptionIndex| table[**one].id() == Some(id);
        match &self.index {
            Some(index) => index.by_id.find(table.hash_of_id(id), |one| is_meant(&one)),
            None => self.list.iter().find(is_meant),
        }
        .copied()
    }

    /// One of the subscriptions to a target.
    pub(crate) fn to(
        &self,
        target: &Target,
        table: &SubscriptionTable,
    ) -> Option<SubscriptionIndex> {
        match &self.index {
            Some(index) => index.to(target, table).first(),
            None => self.list.iter().find(|one| table[**one].target == *target),
        }
        .copied()
    }

    /// Appends the subscriptions to a target.
    pub(crate) fn all_to(
        &self,
        target: &Target,
        table: &SubscriptionTable,
        found: &mut Vec<SubscriptionIndex>,
    ) {
        match &self.index {
            Some(index) => found.extend(index.to(target, table)),
            None => found.extend(self.list.iter().filter(|one| table[**one].target == *target)),
        }
    }

    /// Appends the subscriptions to presence.
    pub(crate) fn all_to_presence(
        &self,
        table: &SubscriptionTable,
        found: &mut Vec<SubscriptionIndex>,
    ) {
        let is_meant =
            |one: &&SubscriptionIndex| matches!(table[**one].target, Target::Presence(_));
        match &self.index {
            Some(index) => {
                for group in &index.presence {
                    found.extend(index.to(&Target::Presence(*group), table));
                }
            }
            None => found.extend(self.list.iter().filter(is_meant)),
        }
    }

    fn build_index(&mut self, table: &mut SubscriptionTable) {
        let mut index = Box::<Index>::default();
        self.list.iter().for_each(|one| index.insert(*one, table));
        self.index = Some(index);
    }

    /// Panics if a subscription is not found, or is not where it should be.
    pub(crate) fn check_invariants(&self, table: &SubscriptionTable) {
        for (position, one) in self.list.iter().enumerate() {
            assert_eq!(table[*one].held_at as usize, position, "where a session lists it");
            let mut found = Vec::new();
            self.all_to(&table[*one].target, table, &mut found);
            assert!(found.contains(one), "a subscription is found by its target");
            if let Some(id) = table[*one].id() {
                assert_eq!(self.by_id(id, table), Some(*one), "a subscription is found by its id");
            }
        }
        if let Some(index) = &self.index {
            let alike = || index.by_target.iter().map(Alike::all);
            assert_eq!(alike().map(<[_]>::len).sum::<usize>(), self.list.len());
            let is_presence = |all: &&[_]| matches!(table[all[0]].target, Target::Presence(_));
            assert_eq!(alike().filter(is_presence).count(), index.presence.len());
            let named = self.list.iter().filter(|one| table[**one].id().is_some());
            assert_eq!(index.by_id.len(), named.count());
        }
    }
}

impl Alike {
    fn all(&self) -> &[SubscriptionIndex] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => &many.all,
        }
    }

    /// Adds a subscription. Returns its position.
    fn push(&mut self, subscription: SubscriptionIndex) -> u32 {
        match self {
            Self::One(first) => {
                *self = Self::Many(Box::new(Many { all: vec![*first, subscription] }));
                1
            }
            Self::Many(many) => {
                many.all.push(subscription);
                many.all.len() as u32 - 1
            }
        }
    }

    /// Removes the subscription at a position, which is not the only one. Returns the one that has its position
    /// now.
    fn remove(&mut self, position: u32) -> Option<SubscriptionIndex> {
        let Self::Many(many) = self else { return None };
        many.all.swap_remove(position as usize);
        if many.all.len() < many.all.capacity() / 4 {
            many.all.shrink_to(many.all.len() * 2);
        }
        let moved = many.all.get(position as usize).copied();
        if let [only] = many.all[..] {
            *self = Self::One(only);
        }
        moved
    }
}

impl Index {
    fn to(&self, target: &Target, table: &SubscriptionTable) -> &[SubscriptionIndex] {
        let is_meant = |alike: &Alike| table[alike.all()[0]].target == *target;
        let alike = self.by_target.find(table.hash_of_target(target), is_meant);
        alike.map_or(&[], Alike::all)
    }

    fn insert(&mut self, subscription: SubscriptionIndex, table: &mut SubscriptionTable) {
        let target = table[subscription].target;
        let hash_of_target = |one: &Alike| table.hash_of_target(&table[one.all()[0]].target);
        let is_same = |one: &Alike| table[one.all()[0]].target == target;
        let hash = table.hash_of_target(&target);
        let position = match self.by_target.entry(hash, is_same, hash_of_target) {
            Entry::Occupied(mut alike) => alike.get_mut().push(subscription),
            Entry::Vacant(place) => {
                place.insert(Alike::One(subscription));
                if let Target::Presence(group) = target {
                    self.presence.push(group);
                }
                0
            }
        };
        table[subscription].alike_at = position;
        let hash_of_id =
            |one: &SubscriptionIndex| table.hash_of_id(table[*one].id().unwrap_or_default());
        if table[subscription].id().is_some() {
            self.by_id.insert_unique(hash_of_id(&subscription), subscription, hash_of_id);
        }
    }

    fn remove(&mut self, subscription: SubscriptionIndex, table: &mut SubscriptionTable) {
        let one = &table[subscription];
        let (target, position) = (one.target, one.alike_at);
        let hash = one.id().map(|id| table.hash_of_id(id));
        if let Some(hash) = hash
            && let Ok(entry) = self.by_id.find_entry(hash, |other| *other == subscription)
        {
            entry.remove();
        }
        let is_same = |one: &Alike| table[one.all()[0]].target == target;
        let hash = table.hash_of_target(&target);
        let Ok(mut entry) = self.by_target.find_entry(hash, is_same) else { return };
        if entry.get().all().len() > 1 {
            if let Some(moved) = entry.get_mut().remove(position) {
                table[moved].alike_at = position;
            }
            return;
        }
        entry.remove();
        if let Target::Presence(group) = target {
            self.presence.retain(|one| *one != group);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::hashing::NameHasher;
    use crate::broker::ids::{DestinationId, SessionId};
    use crate::broker::store::List;
    use crate::broker::subscription::{AckMode, Standard, Subscription, Turn};
    use crate::broker::table::{Key, Place};
    use std::num::NonZeroU32;

    fn target(number: u8) -> Target {
        let place = Place::new(u32::from(number / 3), NonZeroU32::MIN);
        match number % 3 {
            0 => Target::Topic(DestinationId::new(place)),
            1 => Target::Clients(GroupId::new(place)),
            _ => Target::Presence(GroupId::new(place)),
        }
    }

    fn standard(id: u32) -> Box<Standard> {
        let id = Some(id.to_string().into_bytes().into());
        let (unacknowledged, turn, mode) = (List::default(), Turn::Listed, AckMode::Auto);
        Box::new(Standard { id, mode, prefetch: 1, unacknowledged, turn, made_at: 0, ready_at: 0 })
    }

    proptest! {
        /// There are few and many, so that both ways to find them are taken.
        #[test]
        fn subscriptions_are_found_by_target_and_id_until_they_end(
            steps in prop::collection::vec(
                (0..12_u8, any::<bool>(), prop::option::weighted(0.4, any::<prop::sample::Index>())),
                0..60,
            ),
        ) {
            let mut table = SubscriptionTable::new(NameHasher::new(1));
            let mut held = Held::default();
            let mut model: Vec<(SubscriptionIndex, Target, Option<u32>)> = Vec::new();
            for (number, (kind, has_id, ends)) in (0..).zip(steps) {
                match ends {
                    Some(which) if !model.is_empty() => {
                        let (gone, _, id) = model.swap_remove(which.index(model.len()));
                        held.remove(gone, &mut table);
                        held.remove(gone, &mut table);
                        table.remove(gone);
                        let id = id.map(|id| id.to_string());
                        prop_assert!(id.is_none_or(|id| held.by_id(id.as_bytes(), &table).is_none()));
                    }
                    _ => {
                        let id = has_id.then_some(number);
                        let one =
                            Subscription::new(SessionId::default(), target(kind), id.map(standard));
                        let index = table.insert(one);
                        held.insert(index, &mut table);
                        model.push((index, target(kind), id));
                    }
                }
                held.check_invariants(&table);
                prop_assert_eq!(held.all().len(), model.len());
                for kind in 0..12 {
                    let meant = |one: &&(SubscriptionIndex, Target, Option<u32>)| one.1 == target(kind);
                    let count = model.iter().filter(meant).count();
                    let mut found = Vec::new();
                    held.all_to(&target(kind), &table, &mut found);
                    prop_assert_eq!(found.len(), count);
                    prop_assert!(found.iter().all(|one| table[*one].target == target(kind)));
                    prop_assert_eq!(held.to(&target(kind), &table).is_some(), count > 0);
                }
                let mut found = Vec::new();
                held.all_to_presence(&table, &mut found);
                let events = model.iter().filter(|one| matches!(one.1, Target::Presence(_)));
                prop_assert_eq!(found.len(), events.count());
            }
        }
    }
}
