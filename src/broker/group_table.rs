//! The table of groups of one kind, by their texts, with the count of their memory.

use super::hashing::NameHasher;
use super::ids::{GroupId, SubscriptionIndex};
use super::index::NameIndex;
use super::members::{Copies, Members, Route};
use super::pattern::Pattern;
use super::table::Table;

/// The subscriptions by one pattern.
#[derive(Debug)]
pub(crate) struct Group<M> {
    /// The pattern as clients wrote it.
    pub(super) text: Box<[u8]>,
    /// What tells which names it selects.
    pub(super) matcher: M,
    pub(super) members: Members,
    /// Counts the groups of its kind: newer ones have higher numbers.
    number: u64,
    pub(super) state: State,
    /// Whether nobody joins it any more, since all of its members are being ended. Its text finds it no longer.
    pub(super) is_closed: bool,
    /// Its memory, when that was counted last.
    bytes: usize,
}

/// What tells which names a group selects.
pub(crate) trait Matcher {
    /// Its memory, which may grow as it is used.
    fn bytes(&self) -> usize;
}

/// How far it is known what a group selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was looked at.
    New,
    /// A job looks at one client after the other.
    Matching,
    /// All was known when the login with this number was the last one.
    Known(u64),
}

impl<M> Group<M> {
    /// The pattern as clients wrote it.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its subscriptions.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// Newer groups of its kind have higher numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How far it is known what it selects.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether it is known of each client whether the group selects it. Before, nothing is delivered by it.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.state, State::Known(_))
    }
}

impl Group<Pattern> {
    /// The pattern.
    pub(crate) fn pattern(&self) -> &Pattern {
        &self.matcher
    }
}

/// All groups of one kind.
#[derive(Debug)]
pub(crate) struct GroupTable<M> {
    table: Table<GroupId, Option<Group<M>>>,
    by_text: NameIndex<GroupId>,
    hasher: NameHasher,
    /// The number of the newest group.
    newest: u64,
    /// The number of groups that are closed.
    pub(super) closed: usize,
    /// The memory of all of them, without that of their members, as it was counted of each.
    pub(super) bytes: usize,
    /// The slot at which counting it goes on.
    counted_to: u32,
}

impl<M: Matcher> GroupTable<M> {
    pub(super) fn new(hasher: NameHasher) -> Self {
        Self {
            table: Table::default(),
            by_text: NameIndex::new(),
            hasher,
            newest: 0,
            closed: 0,
            bytes: 0,
            counted_to: 0,
        }
    }

    /// Counts the memory of the groups in the next slots anew.
    pub(super) fn recount(&mut self, slots: u32) {
        let len = self.table.slots_len();
        for _ in 0..slots.min(len) {
            let slot = if self.counted_to < len { self.counted_to } else { 0 };
            self.counted_to = slot + 1;
            let Some((id, _)) = self.table.at(slot) else { continue };
            if let Some(Some(group)) = self.table.get_mut(id) {
                let bytes = group.count_bytes();
                self.bytes = self.bytes - std::mem::replace(&mut group.bytes, bytes) + bytes;
            }
        }
    }

    /// The group of a pattern.
    pub(crate) fn find(&self, text: &[u8]) -> Option<GroupId> {
        let is_same = |id| self.get(id).is_some_and(|group| *group.text == *text);
        self.by_text.find(self.hasher.hash(text), is_same)
    }

    /// Adds a group without members for a pattern that has none.
    pub(crate) fn insert(&mut self, text: &[u8], matcher: M, state: State) -> GroupId {
        self.newest += 1;
        let (members, number) = (Members::default(), self.newest);
        let is_closed = false;
        let text_of = text.into();
        let mut group =
            Group { text: text_of, matcher, members, number, state, is_closed, bytes: 0 };
        group.bytes = group.count_bytes();
        self.bytes += group.bytes;
        let id = self.table.insert(Some(group));
        self.by_text.insert(self.hasher.hash(text), id);
        id
    }

    /// The number of the newest group that there has been.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Sets how far it is known what a group selects.
    pub(crate) fn set_state(&mut self, id: GroupId, state: State) {
        if let Some(group) = self.table.get_mut(id).and_then(Option::as_mut) {
            group.state = state;
        }
    }

    /// Adds a member. Returns its position.
    pub(super) fn join(&mut self, id: GroupId, route: Route, copies: &mut Copies) -> u32 {
        let group = self.table.get_mut(id).and_then(Option::as_mut);
        group.map_or(0, |group| group.members.push(route, copies))
    }

    /// Removes a member. Returns the subscription that has its position now, and the group, if that was its last
    /// member.
    pub(super) fn leave(
        &mut self,
        id: GroupId,
        position: u32,
        subscription: SubscriptionIndex,
        copies: &mut Copies,
    ) -> (Option<SubscriptionIndex>, Option<Group<M>>) {
        let Some(Some(group)) = self.table.get_mut(id) else { return (None, None) };
        let moved = group.members.remove(position, subscription, copies);
        if !group.members.is_empty() {
            return (moved, None);
        }
        let gone = self.table.remove(id).flatten();
        if let Some(gone) = &gone {
            self.unlist(id, self.hasher.hash(&gone.text));
            self.closed -= usize::from(gone.is_closed);
            self.bytes -= gone.bytes;
        }
        (moved, gone)
    }

    /// Has nobody join a group any more.
    pub(super) fn close(&mut self, id: GroupId) {
        let Some(Some(group)) = self.table.get_mut(id) else { return };
        if !std::mem::replace(&mut group.is_closed, true) {
            self.closed += 1;
            let hash = self.hasher.hash(&group.text);
            self.unlist(id, hash);
        }
    }

    /// Has a text no longer find its group.
    fn unlist(&mut self, id: GroupId, hash: u64) {
        self.by_text.remove(hash, id);
    }

    /// A group that may be gone.
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group<M>> {
        self.table.get(id)?.as_ref()
    }

    pub(super) fn matcher_mut(&mut self, id: GroupId) -> Option<&mut M> {
        Some(&mut self.table.get_mut(id)?.as_mut()?.matcher)
    }

    /// The group in a slot.
    pub(crate) fn at(&self, slot: u32) -> Option<(GroupId, &Group<M>)> {
        let (id, group) = self.table.at(slot)?;
        Some((id, group.as_ref()?))
    }

    /// The group in a slot, if messages are delivered by it.
    pub(crate) fn known_at(&self, slot: u32) -> Option<&Group<M>> {
        self.table.at(slot)?.1.as_ref().filter(|group| group.is_known())
    }

    /// The number of slots, those that are free included.
    pub(crate) fn slots_len(&self) -> u32 {
        self.table.slots_len()
    }

    /// All groups.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group<M>)> {
        self.table.iter().filter_map(|(id, group)| Some((id, group.as_ref()?)))
    }

    /// The number of groups.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no groups.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Panics if a text does not find its group, or a group has no members.
    pub(super) fn check_invariants(&self) {
        let closed = self.iter().filter(|(_, group)| group.is_closed).count();
        assert_eq!(closed, self.closed, "groups that are closed");
        assert_eq!(self.by_text.len() + closed, self.table.len(), "texts and groups");
        let bytes: usize = self.iter().map(|(_, group)| group.bytes).sum();
        assert_eq!(bytes, self.bytes, "memory of groups");
        for (id, group) in self.iter() {
            let is_found = self.find(&group.text) == Some(id);
            assert_eq!(is_found, !group.is_closed, "a text finds its group");
            assert!(!group.members.is_empty(), "a group without members");
        }
    }
}

impl<M: Matcher> Group<M> {
    fn count_bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.matcher.bytes()
    }
}
