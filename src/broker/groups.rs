//! Groups: the subscriptions by the same pattern, of all sessions.
//!
//! A group is known by its text. It is made with its first member and goes with its last one; between, joining
//! and leaving it cost the same however many destinations it selects.

use super::group_table::Matcher;
pub(crate) use super::group_table::{Group, GroupTable, State};
use super::hashing::NameHasher;
use super::ids::{GroupId, GroupKind, SubscriptionIndex};
use super::levels::Levels;
use super::members::{Copies, Members, Route};
use super::pattern::Pattern;
use super::table::Key;
use super::wildcards::Wildcards;

impl Matcher for Pattern {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl Matcher for Wildcard {
    fn bytes(&self) -> usize {
        self.levels.bytes()
    }
}

/// All groups. The slots of those by regular expressions number the bits by which clients note what selects them.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Groups of topics.
    pub wildcards: WildcardGroups,
    /// Groups of watchers of clients.
    pub clients: GroupTable<Pattern>,
    /// Groups of receivers of presence events.
    pub presence: GroupTable<Pattern>,
}

/// Groups of topics by wildcards. What a destination remembers of them is right until one comes or goes.
#[derive(Debug)]
pub(crate) struct WildcardGroups {
    groups: GroupTable<Wildcard>,
    /// Of groups whose levels are the same, the newest.
    trie: Wildcards<GroupId>,
    /// Counts groups that came and went, and how often those were looked up that select a topic.
    clock: u64,
    /// When the last one came or went.
    changed_at: u64,
}

/// A topic with wildcards.
#[derive(Debug)]
pub(crate) struct Wildcard {
    levels: Levels,
    /// The next group whose levels are the same, and whose separators are not.
    next: Option<GroupId>,
}

impl Groups {
    /// No groups. With the secret unknown, nobody can choose texts whose hashes collide.
    pub(crate) fn new(secret: u128) -> Self {
        let hasher = NameHasher::new(secret);
        Self {
            wildcards: WildcardGroups {
                groups: GroupTable::new(hasher.clone()),
                trie: Wildcards::new(secret),
                clock: 0,
                changed_at: 0,
            },
            clients: GroupTable::new(hasher.clone()),
            presence: GroupTable::new(hasher),
        }
    }

    /// The groups by regular expressions of a kind.
    pub(crate) fn by_pattern(&self, kind: GroupKind) -> Option<&GroupTable<Pattern>> {
        match kind {
            GroupKind::Topics => None,
            GroupKind::Clients => Some(&self.clients),
            GroupKind::Presence => Some(&self.presence),
        }
    }

    /// The group of a pattern.
    pub(crate) fn find(&self, kind: GroupKind, text: &[u8]) -> Option<GroupId> {
        match kind {
            GroupKind::Topics => self.wildcards.find(text),
            GroupKind::Clients => self.clients.find(text),
            GroupKind::Presence => self.presence.find(text),
        }
    }

    /// Adds a group without members for a regular expression that has none, of clients or of presence.
    pub(crate) fn add_pattern(
        &mut self,
        kind: GroupKind,
        text: &[u8],
        pattern: Pattern,
    ) -> GroupId {
        match kind {
            GroupKind::Presence => self.presence.insert(text, pattern, State::New),
            GroupKind::Clients | GroupKind::Topics => {
                self.clients.insert(text, pattern, State::New)
            }
        }
    }

    /// Sets how far it is known which clients a group selects.
    pub(crate) fn set_state(&mut self, kind: GroupKind, id: GroupId, state: State) {
        match kind {
            GroupKind::Topics => {}
            GroupKind::Clients => self.clients.set_state(id, state),
            GroupKind::Presence => self.presence.set_state(id, state),
        }
    }

    /// Memory of all patterns, without that of their members. That of regular expressions is as it was when it was
    /// [counted](Self::recount) last.
    pub(crate) fn bytes(&self) -> u64 {
        let wildcards = self.wildcards.groups.bytes + self.wildcards.trie.bytes();
        (wildcards + self.clients.bytes + self.presence.bytes) as u64
    }

    /// Counts the memory of some regular expressions anew, whose caches grow as they are used: of so many of each kind.
    pub(crate) fn recount(&mut self, slots: u32) {
        self.clients.recount(slots);
        self.presence.recount(slots);
    }

    /// The number of regular expressions.
    pub(crate) fn patterns_len(&self) -> usize {
        self.clients.len() + self.presence.len()
    }

    /// Adds a member to a group. Returns its position.
    pub(crate) fn join(
        &mut self,
        kind: GroupKind,
        id: GroupId,
        route: Route,
        copies: &mut Copies,
    ) -> u32 {
        match kind {
            GroupKind::Topics => self.wildcards.groups.join(id, route, copies),
            GroupKind::Clients => self.clients.join(id, route, copies),
            GroupKind::Presence => self.presence.join(id, route, copies),
        }
    }

    /// Removes a member from a group, and the group with its last one. Returns the subscription that has its
    /// position now.
    pub(crate) fn leave(
        &mut self,
        kind: GroupKind,
        id: GroupId,
        position: u32,
        subscription: SubscriptionIndex,
        copies: &mut Copies,
    ) -> Option<SubscriptionIndex> {
        match kind {
            GroupKind::Topics => self.wildcards.leave(id, position, subscription, copies),
            GroupKind::Clients => self.clients.leave(id, position, subscription, copies).0,
            GroupKind::Presence => self.presence.leave(id, position, subscription, copies).0,
        }
    }

    /// Levels of a topic with wildcards that go when one more member leaves the group.
    pub(crate) fn levels_that_end(&self, kind: GroupKind, id: GroupId) -> usize {
        let group = if kind == GroupKind::Topics { self.wildcards.get(id) } else { None };
        group.filter(|one| one.members.len() == 1).map_or(0, |one| one.matcher.levels.len())
    }

    /// The text and the members of a group.
    pub(crate) fn get(&self, kind: GroupKind, id: GroupId) -> Option<(&[u8], &Members)> {
        fn parts<M>(group: &Group<M>) -> (&[u8], &Members) {
            (&group.text, &group.members)
        }
        match kind {
            GroupKind::Topics => self.wildcards.get(id).map(parts),
            GroupKind::Clients => self.clients.get(id).map(parts),
            GroupKind::Presence => self.presence.get(id).map(parts),
        }
    }

    /// Has nobody join a group any more.
    pub(crate) fn close(&mut self, kind: GroupKind, id: GroupId) {
        match kind {
            GroupKind::Topics => self.wildcards.groups.close(id),
            GroupKind::Clients => self.clients.close(id),
            GroupKind::Presence => self.presence.close(id),
        }
    }

    /// The number of groups of a kind, and of those among them that are closed.
    pub(crate) fn len(&self, kind: GroupKind) -> (usize, usize) {
        match kind {
            GroupKind::Topics => (self.wildcards.groups.len(), self.wildcards.groups.closed),
            GroupKind::Clients => (self.clients.len(), self.clients.closed),
            GroupKind::Presence => (self.presence.len(), self.presence.closed),
        }
    }

    /// The number of slots of a kind.
    pub(crate) fn slots_len(&self, kind: GroupKind) -> u32 {
        match kind {
            GroupKind::Topics => self.wildcards.groups.slots_len(),
            GroupKind::Clients => self.clients.slots_len(),
            GroupKind::Presence => self.presence.slots_len(),
        }
    }

    /// The group in a slot, if it is not closed; the slots of the kinds are counted one kind after the other.
    pub(crate) fn open_at(
        &self,
        kinds: &[GroupKind],
        mut slot: u32,
    ) -> Option<(GroupKind, GroupId)> {
        fn open<M>((id, group): (GroupId, &Group<M>)) -> Option<GroupId> {
            (!group.is_closed).then_some(id)
        }
        for kind in kinds {
            if slot < self.slots_len(*kind) {
                let id = match kind {
                    GroupKind::Topics => self.wildcards.groups.at(slot).and_then(open),
                    GroupKind::Clients => self.clients.at(slot).and_then(open),
                    GroupKind::Presence => self.presence.at(slot).and_then(open),
                };
                return Some((*kind, id?));
            }
            slot -= self.slots_len(*kind);
        }
        None
    }

    /// All groups by kind and id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupKind, GroupId)> {
        let topics = self.wildcards.groups.iter().map(|(id, _)| (GroupKind::Topics, id));
        let clients = self.clients.iter().map(|(id, _)| (GroupKind::Clients, id));
        let presence = self.presence.iter().map(|(id, _)| (GroupKind::Presence, id));
        topics.chain(clients).chain(presence)
    }

    /// Panics if a text does not find its group, or a group has no members.
    pub(crate) fn check_invariants(&self) {
        self.wildcards.groups.check_invariants();
        self.clients.check_invariants();
        self.presence.check_invariants();
    }
}

impl WildcardGroups {
    /// The group of a topic with wildcards.
    pub(crate) fn find(&self, text: &[u8]) -> Option<GroupId> {
        self.groups.find(text)
    }

    /// Adds a group without members for a topic with wildcards that has none.
    pub(crate) fn insert(&mut self, levels: Levels) -> GroupId {
        self.note_change();
        let next = self.trie.find(&levels);
        let text: Box<[u8]> = levels.text().as_bytes().into();
        let id = self.groups.insert(&text, Wildcard { levels, next }, State::Known(0));
        if let Some(wildcard) = self.groups.get(id) {
            self.trie.insert(&wildcard.matcher.levels, id);
        }
        id
    }

    fn leave(
        &mut self,
        id: GroupId,
        position: u32,
        subscription: SubscriptionIndex,
        copies: &mut Copies,
    ) -> Option<SubscriptionIndex> {
        let (moved, gone) = self.groups.leave(id, position, subscription, copies);
        if let Some(gone) = gone {
            self.note_change();
            self.unlist(id, &gone.matcher);
        }
        moved
    }

    /// Takes a group that is gone out of the trie, or out of the list of those with the same levels.
    fn unlist(&mut self, id: GroupId, gone: &Wildcard) {
        let Some(first) = self.trie.find(&gone.levels) else { return };
        match gone.next {
            _ if first != id => {
                let mut before = first;
                while let Some(wildcard) = self.groups.matcher_mut(before) {
                    match wildcard.next {
                        Some(next) if next != id => before = next,
                        _ => return wildcard.next = gone.next,
                    }
                }
            }
            Some(next) => _ = self.trie.insert(&gone.levels, next),
            None => _ = self.trie.remove(&gone.levels),
        }
    }

    /// Appends the groups that select a topic. Returns the work that it took: the levels and nodes that were looked
    /// at.
    pub(crate) fn look_up(&self, topic: &[u8], found: &mut Vec<GroupId>) -> u32 {
        let visited = self.trie.lookup(topic, found);
        for index in 0..found.len() {
            let next = |id: GroupId| self.groups.get(id)?.matcher.next;
            found.extend(std::iter::successors(next(found[index]), |id| next(*id)));
        }
        visited
    }

    /// The groups that select a topic, found by asking each, in the order of their ids: for checks.
    pub(crate) fn matching_slowly(&self, topic: &[u8]) -> Vec<GroupId> {
        let groups = self.groups.iter();
        let mut all: Vec<_> = groups
            .filter(|(_, group)| group.matcher.levels.matches(topic))
            .map(|(id, _)| id)
            .collect();
        all.sort_unstable();
        all
    }

    /// When the last group came or went.
    #[inline]
    pub(crate) fn changed_at(&self) -> u64 {
        self.changed_at
    }

    /// The time of a look-up: later than anything before.
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn note_change(&mut self) {
        self.changed_at = self.tick();
    }

    /// A group that may be gone.
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group<Wildcard>> {
        self.groups.get(id)
    }

    /// The number of groups.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are no groups.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// The slot of a group by a regular expression, which numbers its bit.
pub(crate) fn slot_of(group: GroupId) -> u32 {
    group.place().index()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::ids::SessionId;
    use crate::broker::table::Place;
    use crate::limits::Limits;

    fn route(number: u32) -> Route {
        let place = Place::new(number, NonZeroU32::MIN);
        Route { session: SessionId::new(place), subscription: SubscriptionIndex::new(place) }
    }

    fn wildcard(groups: &mut Groups, text: &str, number: u32) -> GroupId {
        let id = groups.wildcards.insert(Levels::parse(text).unwrap());
        groups.join(GroupKind::Topics, id, route(number), &mut Copies::default());
        id
    }

    #[test]
    fn a_group_goes_with_its_last_member_and_a_new_one_has_another_id_and_number() {
        let (mut groups, limits) = (Groups::new(1), Limits::default());
        let pattern = || Pattern::compile(b"/agent/a.*", &limits).unwrap();
        let first = groups.add_pattern(GroupKind::Clients, b"/agent/a.*", pattern());
        let positions = [0, 1, 2]
            .map(|n| groups.join(GroupKind::Clients, first, route(n), &mut Copies::default()));
        assert_eq!(positions, [0, 1, 2]);
        assert_eq!(groups.find(GroupKind::Clients, b"/agent/a.*"), Some(first));
        assert_eq!(groups.find(GroupKind::Presence, b"/agent/a.*"), None, "another kind");
        let leave = |groups: &mut Groups, position, n| {
            groups.leave(
                GroupKind::Clients,
                first,
                position,
                route(n).subscription,
                &mut Copies::default(),
            )
        };
        assert_eq!(leave(&mut groups, 0, 0), Some(route(2).subscription));
        assert_eq!(leave(&mut groups, 0, 0), None, "it has left");
        assert_eq!(leave(&mut groups, 1, 1), None);
        groups.check_invariants();
        assert_eq!(groups.patterns_len(), 1);
        let before = groups.clients.get(first).map(Group::number);
        assert_eq!(leave(&mut groups, 0, 2), None);
        assert_eq!((groups.patterns_len(), groups.clients.get(first).is_none()), (0, true));
        let second = groups.add_pattern(GroupKind::Clients, b"/agent/a.*", pattern());
        groups.join(GroupKind::Clients, second, route(3), &mut Copies::default());
        assert_eq!(slot_of(second), slot_of(first), "the slot is used again");
        assert_ne!(second, first);
        assert!(groups.clients.get(second).map(Group::number) > before);
        groups.check_invariants();
    }

    #[test]
    fn nothing_is_delivered_by_a_pattern_before_it_is_known_whom_it_selects() {
        let mut groups = Groups::new(1);
        let pattern = Pattern::compile(b".*", &Limits::default()).unwrap();
        let id = groups.add_pattern(GroupKind::Presence, b".*", pattern);
        for (state, is_known) in
            [(State::New, false), (State::Matching, false), (State::Known(7), true)]
        {
            groups.set_state(GroupKind::Presence, id, state);
            assert_eq!(groups.presence.known_at(slot_of(id)).is_some(), is_known, "{state:?}");
            assert!(groups.presence.at(slot_of(id)).is_some());
        }
    }

    #[test]
    fn wildcards_with_the_same_levels_are_found_together_and_leave_in_any_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let mut groups = Groups::new(1);
            let texts = ["/topic/a.*", "/topic/a/*", "/topic/>"];
            let ids: Vec<_> =
                (0..).zip(texts).map(|(n, text)| wildcard(&mut groups, text, n)).collect();
            let mut left = ids.clone();
            for which in order {
                for topic in [&b"/topic/a/b"[..], b"/topic/a.b", b"/topic/c", b"/topic/a"] {
                    let mut found = Vec::new();
                    groups.wildcards.look_up(topic, &mut found);
                    found.retain(|id| {
                        let group = groups.wildcards.get(*id).unwrap();
                        group.matcher.levels.matches(topic)
                    });
                    found.sort_unstable();
                    assert_eq!(found, groups.wildcards.matching_slowly(topic), "{order:?}");
                }
                let before = groups.wildcards.changed_at();
                let (id, one) = (ids[which], route(which as u32).subscription);
                groups.leave(GroupKind::Topics, id, 0, one, &mut Copies::default());
                assert!(groups.wildcards.changed_at() > before);
                left.retain(|one| *one != id);
                assert_eq!(groups.wildcards.len(), left.len());
                groups.check_invariants();
            }
        }
    }
}
