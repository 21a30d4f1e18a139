//! Destinations: the names that messages are sent to, their owners, and who receives there.
//!
//! A client's address exists while the client is logged in or watched by name; a queue while it holds
//! messages or has consumers; a topic from its first message or subscription until idle topics are
//! removed. A destination lists its subscriptions by name, and remembers the groups that select it, so that
//! nothing is matched per message. Subscriptions by pattern are members of their groups only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bits::BitSet;
use super::hashing::NameHasher;
use super::ids::{DestinationId, GroupId, SessionId, SubscriptionIndex};
use super::index::NameIndex;
use super::members::{Copies, Members, Route};
use super::message::NEVER;
use super::queue::Queue;
use super::remembered::Remembered;
use super::space::Space;
use super::table::Table;
use crate::buffer::ALLOCATION_BYTES;
use crate::profile::Profile;

/// A name with its owner and its subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    /// The name as in frames.
    pub name: Box<[u8]>,
    /// The client whose address it is, while it is logged in.
    pub owner: Option<SessionId>,
    /// Who receives there besides the owner; most destinations have none.
    pub watch: Option<Box<Watch>>,
    /// Its messages and consumers, if it is a queue.
    pub queue: Option<Box<Queue>>,
    /// Since when it is an idle topic, in the order of [`DestinationTable`]; or zero.
    idle_since: u64,
}

/// Who receives at a destination.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Subscriptions by name, which keep the destination alive.
    direct: Members,
    /// Groups that selected the topic when they were looked up; those that are gone are skipped.
    wildcards: Box<[GroupId]>,
    /// When that was, on the clock of the groups, or [`NEVER_LOOKED_UP`]; no two destinations have the same time.
    looked_up_at: u64,
    /// What only addresses of clients have.
    client: Option<Box<ClientWatch>>,
}

/// Who receives at the address of a client that is logged in.
#[derive(Debug, Default)]
struct ClientWatch {
    /// The client's own subscriptions.
    own: Members,
    /// Slots of the groups that select it. A slot may be free since.
    groups: BitSet,
}

/// When groups were looked up of a topic of which they are not known. The clock begins later.
const NEVER_LOOKED_UP: u64 = 0;

/// How a subscription by name receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// As the owner of the address.
    Own,
    /// As a subscriber of the topic, or a watcher of the client.
    Name,
}

impl Default for Watch {
    /// Nobody.
    fn default() -> Self {
        let (direct, wildcards) = (Members::default(), Box::default());
        Self { direct, wildcards, looked_up_at: NEVER_LOOKED_UP, client: None }
    }
}

impl Watch {
    /// Whether there is nothing in it. That nothing selects a topic is not worth its memory, which would lie between the
    /// names of topics that come and go.
    fn is_useless(&self) -> bool {
        self.direct.is_empty() && self.client.is_none() && self.wildcards.is_empty()
    }
}

impl Destination {
    /// Subscriptions by name.
    #[inline]
    pub(crate) fn direct(&self) -> &Members {
        self.watch.as_ref().map_or(&Members::None, |watch| &watch.direct)
    }

    /// The owner's own subscriptions.
    #[inline]
    pub(crate) fn own(&self) -> &Members {
        let client = self.watch.as_ref().and_then(|watch| watch.client.as_ref());
        client.map_or(&Members::None, |client| &client.own)
    }

    /// Groups of topics that selected it when [`Self::knows_wildcards`] was last true; those that are gone are
    /// to be skipped.
    #[inline]
    pub(crate) fn wildcards(&self) -> &[GroupId] {
        self.watch.as_ref().map_or(&[], |watch| &watch.wildcards)
    }

    /// Whether its groups of topics were looked up since that time, which is when the last group came or went.
    #[inline]
    pub(crate) fn knows_wildcards(&self, since: u64) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.looked_up_at > since)
    }

    /// Slots of the groups of watchers that select it, while its client is logged in.
    pub(crate) fn groups(&self) -> impl Iterator<Item = u32> {
        let client = self.watch.as_ref().and_then(|watch| watch.client.as_ref());
        client.into_iter().flat_map(|client| client.groups.iter())
    }

    /// Whether the group of watchers in a slot selects it.
    pub(crate) fn has_group(&self, slot: u32) -> bool {
        let client = self.watch.as_ref().and_then(|watch| watch.client.as_ref());
        client.is_some_and(|client| client.groups.has(slot))
    }

    /// Whether nothing keeps it alive.
    pub(crate) fn is_unused(&self) -> bool {
        let queued = self.queue.as_ref().is_some_and(|queue| !queue.is_unused());
        self.owner.is_none() && self.direct().is_empty() && !queued
    }

    /// Whether it counts against the limits on destinations: the address of a client does only while others
    /// subscribe to it by name, for the client's connection pays for it, and a queue only while it has consumers, for
    /// its messages do.
    pub(crate) fn is_counted(&self) -> bool {
        match (&self.queue, Space::of(&self.name)) {
            (Some(queue), _) => queue.has_consumers(),
            (None, Space::Client) => !self.direct().is_empty(),
            (None, _) => true,
        }
    }

    /// Whether it is a topic that nobody subscribes to by name.
    fn is_idle_topic(&self) -> bool {
        Space::of(&self.name) == Space::Topic && self.is_unused()
    }

    fn client_mut(&mut self) -> &mut ClientWatch {
        self.watch.get_or_insert_default().client.get_or_insert_default()
    }

    /// Drops what no longer has anything in it.
    fn tidy(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        watch.client.take_if(|client| client.own.is_empty() && client.groups.is_empty());
        if watch.is_useless() {
            self.watch = None;
        }
    }
}

/// Destinations that count against the limits on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub len: u64,
    /// Their memory.
    pub bytes: u64,
}

impl Counted {
    /// Notes whether a destination is among them, which was or was not before.
    fn note(&mut self, name: &[u8], was: bool, is: bool) {
        let cost = DestinationTable::cost_of(name);
        match (was, is) {
            (false, true) => (self.len, self.bytes) = (self.len + 1, self.bytes + cost),
            (true, false) => (self.len, self.bytes) = (self.len - 1, self.bytes - cost),
            _ => {}
        }
    }
}

/// All destinations, by id and by name, and totals over them. Only its methods change a destination, which
/// keeps the totals right.
#[derive(Debug)]
pub(crate) struct DestinationTable {
    table: Table<DestinationId, Destination>,
    by_name: NameIndex<DestinationId>,
    hasher: NameHasher,
    /// Topics that nobody subscribes to by name, the one that has been idle longest first.
    idle_topics: BTreeMap<u64, DestinationId>,
    /// Counts how often a topic has become idle.
    idle_last: u64,
    /// Memory of all destinations.
    bytes: u64,
    /// Those that [`Destination::is_counted`].
    counted: Counted,
    /// Topics that remember groups which select them.
    remembered: Remembered,
    /// Queues with a message that expires, by [`Queue::expires_ms`].
    expiring: BTreeSet<(u64, DestinationId)>,
    /// Queues to be served again at the end of the turn; those that still exist have `is_backlogged`.
    backlogged: VecDeque<DestinationId>,
}

impl DestinationTable {
    /// An empty table.
    pub(crate) fn new(hasher: NameHasher) -> Self {
        Self {
            table: Table::default(),
            by_name: NameIndex::new(),
            hasher,
            idle_topics: BTreeMap::new(),
            idle_last: 0,
            bytes: 0,
            counted: Counted::default(),
            remembered: Remembered::default(),
            expiring: BTreeSet::new(),
            backlogged: VecDeque::new(),
        }
    }

    /// Creates a destination, whose name no other has.
    pub(crate) fn insert(&mut self, name: &[u8]) -> DestinationId {
        let space = Space::of(name);
        let queue = (space == Space::Queue).then(Box::default);
        let destination = Destination { name: name.into(), queue, ..Destination::default() };
        self.bytes += Self::cost_of(name);
        self.counted.note(name, false, destination.is_counted());
        let id = self.table.insert(destination);
        self.note_use(id);
        self.by_name.insert(self.hasher.hash(name), id);
        id
    }

    /// Removes a destination if nothing uses it. An idle topic stays, so that the next message to it
    /// finds its receivers without matching wildcards again; past `idle_topics_max` the oldest goes.
    pub(crate) fn release(&mut self, id: DestinationId, idle_topics_max: usize) {
        if self.table.get(id).is_none_or(|one| !one.is_unused()) {
            return;
        }
        if self.table[id].idle_since == 0 {
            self.remove(id);
        } else if self.idle_topics.len() > idle_topics_max {
            self.remove_idle_topic();
        }
    }

    /// Removes the topic that has been idle longest. Returns whether there was one.
    pub(crate) fn remove_idle_topic(&mut self) -> bool {
        let Some((_, id)) = self.idle_topics.pop_first() else { return false };
        self.remove(id);
        true
    }

    /// Removes a destination that nothing uses.
    fn remove(&mut self, id: DestinationId) {
        self.forget_wildcards(id);
        let Some(destination) = self.table.remove(id) else { return };
        self.bytes -= Self::cost_of(&destination.name);
        self.counted.note(&destination.name, destination.is_counted(), false);
        let hash = self.hasher.hash(&destination.name);
        self.by_name.remove(hash, id);
    }

    /// Adds a subscription by name. Returns its position.
    pub(crate) fn join(
        &mut self,
        id: DestinationId,
        via: Via,
        route: Route,
        copies: &mut Copies,
    ) -> u32 {
        let destination = &mut self.table[id];
        let was_counted = destination.is_counted();
        let members = match via {
            Via::Own => &mut destination.client_mut().own,
            Via::Name => &mut destination.watch.get_or_insert_default().direct,
        };
        let is_first = members.is_empty();
        let position = members.push(route, copies);
        if is_first {
            self.counted.note(&destination.name, was_counted, destination.is_counted());
            self.note_use(id);
        }
        position
    }

    /// Undoes [`Self::join`], if the destination is still there. Returns the subscription that has the position
    /// now.
    pub(crate) fn leave(
        &mut self,
        id: DestinationId,
        via: Via,
        position: u32,
        subscription: SubscriptionIndex,
        copies: &mut Copies,
    ) -> Option<SubscriptionIndex> {
        let destination = self.table.get_mut(id)?;
        let was_counted = destination.is_counted();
        let watch = destination.watch.as_mut()?;
        let members = match via {
            Via::Own => &mut watch.client.as_mut()?.own,
            Via::Name => &mut watch.direct,
        };
        let moved = members.remove(position, subscription, copies);
        if members.is_empty() {
            destination.tidy();
            self.counted.note(&destination.name, was_counted, destination.is_counted());
            self.note_use(id);
        }
        moved
    }

    /// Notes whether the group of watchers in a slot selects a client that is logged in.
    pub(crate) fn set_group(&mut self, id: DestinationId, slot: u32, is_in: bool) {
        let Some(destination) = self.table.get_mut(id) else { return };
        if is_in || destination.has_group(slot) {
            destination.client_mut().groups.set(slot, is_in);
            destination.tidy();
        }
    }

    /// Remembers the groups that select a topic, which were looked up at that time, after the last group had come or
    /// gone. What takes room for that is forgotten, that first which was looked up
    /// first; so is some of what is outdated. Returns how much of it was.
    pub(crate) fn remember_wildcards(
        &mut self,
        id: DestinationId,
        (since, looked_up_at): (u64, u64),
        groups: &[GroupId],
    ) -> u32 {
        self.forget_wildcards(id);
        let mut forgotten = 0;
        while let Some(first) = self.remembered.first_to_forget(groups, since, forgotten) {
            self.forget_wildcards(first);
            forgotten += 1;
        }
        let destination = &mut self.table[id];
        if destination.watch.is_some() || !groups.is_empty() {
            let watch = destination.watch.get_or_insert_default();
            (watch.looked_up_at, watch.wildcards) = (looked_up_at, groups.into());
            self.remembered.add(looked_up_at, id, groups);
        }
        forgotten
    }

    /// Forgets the groups that select a topic: they are looked up again for the next message to it.
    fn forget_wildcards(&mut self, id: DestinationId) {
        let Some(destination) = self.table.get_mut(id) else { return };
        let Some(watch) = &mut destination.watch else { return };
        let at = std::mem::replace(&mut watch.looked_up_at, NEVER_LOOKED_UP);
        let groups = std::mem::take(&mut watch.wildcards);
        self.remembered.remove(at, &groups);
        destination.tidy();
    }

    /// Updates whether a topic counts as idle.
    fn note_use(&mut self, id: DestinationId) {
        let destination = &mut self.table[id];
        match (destination.is_idle_topic(), destination.idle_since) {
            (true, 0) => {
                self.idle_last += 1;
                destination.idle_since = self.idle_last;
                self.idle_topics.insert(self.idle_last, id);
            }
            (false, since) if since != 0 => {
                destination.idle_since = 0;
                self.idle_topics.remove(&since);
            }
            _ => {}
        }
    }

    /// Sets the client whose address it is. Of a client that is gone, its own subscriptions and the groups that
    /// selected it are gone as well.
    pub(crate) fn set_owner(&mut self, id: DestinationId, owner: Option<SessionId>) {
        let destination = &mut self.table[id];
        destination.owner = owner;
        if owner.is_none()
            && let Some(watch) = &mut destination.watch
        {
            watch.client = None;
            destination.tidy();
        }
    }

    /// Changes the messages of a queue and updates the totals; `None` if there is no such queue. Its consumers stay the
    /// same.
    pub(crate) fn change_queue<T>(
        &mut self,
        id: DestinationId,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        let queue = self.table.get_mut(id)?.queue.as_mut()?;
        let expires_ms = queue.expires_ms();
        let result = change(queue);
        if queue.expires_ms() != expires_ms {
            self.expiring.remove(&(expires_ms, id));
            if queue.expires_ms() != NEVER {
                self.expiring.insert((queue.expires_ms(), id));
            }
        }
        Some(result)
    }

    /// Changes who consumes a queue, if it is still there.
    pub(crate) fn change_consumers(&mut self, id: DestinationId, change: impl FnOnce(&mut Queue)) {
        let Some(destination) = self.table.get_mut(id) else { return };
        let was_counted = destination.is_counted();
        if let Some(queue) = &mut destination.queue {
            change(queue);
        }
        self.counted.note(&destination.name, was_counted, destination.is_counted());
    }

    /// Lists a queue to be served again at the end of the turn.
    pub(crate) fn note_backlog(&mut self, id: DestinationId) {
        let queue = self.table.get_mut(id).and_then(|one| one.queue.as_mut());
        if let Some(queue) = queue
            && !std::mem::replace(&mut queue.is_backlogged, true)
        {
            self.backlogged.push_back(id);
        }
    }

    /// Takes the next of the queues that are to be served again.
    pub(crate) fn take_backlogged(&mut self) -> Option<DestinationId> {
        while let Some(id) = self.backlogged.pop_front() {
            let queue = self.table.get_mut(id).and_then(|one| one.queue.as_mut());
            if queue.is_some_and(|queue| std::mem::take(&mut queue.is_backlogged)) {
                return Some(id);
            }
        }
        self.backlogged = VecDeque::new();
        None
    }

    /// The number of queues that are to be served again, with those that are gone.
    pub(crate) fn backlogged_len(&self) -> usize {
        self.backlogged.len()
    }

    /// The destination with that name. `guess` is tried first, whether or not it is still valid.
    #[inline]
    pub(crate) fn find(&self, name: &[u8], guess: Option<DestinationId>) -> Option<DestinationId> {
        if let Some(guess) = guess
            && self.table.get(guess).is_some_and(|guessed| *guessed.name == *name)
        {
            return Some(guess);
        }
        let hash = self.hasher.hash(name);
        self.by_name.find(hash, |id| *self.table[id].name == *name)
    }

    /// The session with a login id, whatever its profile: it owns one of the addresses that the login id
    /// can have.
    pub(crate) fn owner_of(&self, login: &[u8]) -> Option<SessionId> {
        Profile::ALL.into_iter().find_map(|profile| {
            let address = self.find(&profile.address_of(login), None)?;
            self.table[address].owner
        })
    }

    /// A destination that may be gone.
    #[inline]
    pub(crate) fn get(&self, id: DestinationId) -> Option<&Destination> {
        self.table.get(id)
    }

    /// The queue with that id, if there is one.
    pub(crate) fn queue(&self, id: DestinationId) -> Option<&Queue> {
        self.table.get(id)?.queue.as_deref()
    }

    /// The hash of a name in this table.
    #[cfg(test)]
    pub(crate) fn hash_of(&self, name: &[u8]) -> u64 {
        self.hasher.hash(name)
    }

    /// All destinations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DestinationId, &Destination)> {
        self.table.iter()
    }

    /// The number of destinations.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The number of topics that nobody subscribes to by name.
    pub(crate) fn idle_topics_len(&self) -> usize {
        self.idle_topics.len()
    }

    /// Memory of a destination.
    pub(crate) fn cost_of(name: &[u8]) -> u64 {
        let own = match Space::of(name) {
            Space::Queue => size_of::<Queue>() + ALLOCATION_BYTES,
            Space::Topic | Space::Client | Space::Broker | Space::Unknown => 0,
        };
        // The tables may have twice the room that they need.
        let index = size_of::<DestinationId>() + NameIndex::<DestinationId>::ENTRY_BYTES;
        let table = 2 * (size_of::<Destination>() + index);
        (table + own + name.len() + 2 * ALLOCATION_BYTES) as u64
    }

    /// Memory of all destinations.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Destinations that count against the limits on them.
    pub(crate) fn counted(&self) -> Counted {
        self.counted
    }

    /// Memory of what topics remember of the groups that select them.
    pub(crate) fn remembered_bytes(&self) -> u64 {
        self.remembered.bytes()
    }

    /// When the next message of a queue may expire, and in which queue.
    pub(crate) fn first_expiring(&self) -> Option<(u64, DestinationId)> {
        self.expiring.first().copied()
    }

    /// Panics if a total differs from a recount, or an unused destination was not removed.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.by_name.len(), self.table.len(), "names and destinations");
        let (mut idle, mut expiring, mut backlogged) =
            (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        self.check_remembered();
        let bytes = self.table.iter().map(|(_, one)| Self::cost_of(&one.name));
        assert_eq!(bytes.sum::<u64>(), self.bytes, "memory of destinations");
        let mut counted = Counted::default();
        self.table.iter().for_each(|(_, one)| counted.note(&one.name, false, one.is_counted()));
        assert_eq!(counted, self.counted, "destinations that count against their limits");
        for (id, one) in self.table.iter() {
            assert_eq!(
                self.find(&one.name, None),
                Some(id),
                "a name that does not find its destination"
            );
            if one.is_idle_topic() {
                idle.insert(one.idle_since, id);
            } else {
                assert!(!one.is_unused(), "an unused destination");
            }
            let is_queue = Space::of(&one.name) == Space::Queue;
            assert_eq!(one.queue.is_some(), is_queue, "queues, and only they, have one");
            let Some(queue) = &one.queue else { continue };
            if queue.expires_ms() != NEVER {
                expiring.insert((queue.expires_ms(), id));
            }
            if queue.is_backlogged {
                backlogged.insert(id);
            }
        }
        assert_eq!(idle, self.idle_topics, "topics that nobody subscribes to by name");
        assert_eq!(expiring, self.expiring, "which queue expires first");
        let listed = self.backlogged.iter().copied().filter(|id| self.queue(*id).is_some());
        assert_eq!(backlogged, listed.collect(), "queues to be served again");
    }

    fn check_remembered(&self) {
        let mut remembered = Remembered::default();
        for (id, one) in self.table.iter() {
            let at = one.watch.as_ref().map_or(NEVER_LOOKED_UP, |watch| watch.looked_up_at);
            remembered.add(at, id, one.wildcards());
        }
        assert_eq!(remembered, self.remembered, "what topics remember of wildcards");
    }
}

impl std::ops::Index<DestinationId> for DestinationTable {
    type Output = Destination;

    #[inline]
    fn index(&self, id: DestinationId) -> &Destination {
        &self.table[id]
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::message::{Content, Message, Origin, Stored, UserLines};
    use crate::broker::store::Store;
    use crate::broker::table::{Key, Place};
    use crate::limits::{ADDRESS_BYTES, WILDCARDS_REMEMBERED_BYTES_MAX};

    #[test]
    fn a_guess_that_is_stale_or_another_name_misleads_nobody() {
        let mut table = DestinationTable::new(NameHasher::new(1));
        let ana = table.insert(b"/agent/ana");
        let bob = table.insert(b"/agent/bob");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), Some(ana));
        assert_eq!(table.find(b"/agent/ana", Some(bob)), Some(ana));
        table.release(ana, 0);
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        let cat = table.insert(b"/agent/cat");
        assert_eq!(cat.place().index(), ana.place().index(), "the place is used again");
        assert_eq!(table.find(b"/agent/cat", Some(ana)), Some(cat));
        assert!(table.get(ana).is_none(), "its id is not");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        assert_eq!(table.find(b"/agent/bob", None), Some(bob));
    }

    #[test]
    fn totals_follow_each_change() {
        let mut table = DestinationTable::new(NameHasher::new(1));
        let (topic, other) = (table.insert(b"/topic/a"), table.insert(b"/topic/b"));
        table.join(topic, Via::Name, route(0), &mut Copies::default());
        table.check_invariants();
        // It is idle, and no idle topics are allowed.
        table.release(other, 0);
        assert_eq!((table.find(b"/topic/b", None), table.len()), (None, 1));
        table.leave(topic, Via::Name, 0, route(0).subscription, &mut Copies::default());
        table.check_invariants();
        table.release(topic, 1);
        assert_eq!(table.find(b"/topic/a", None), Some(topic), "it may stay a while");

        let mut store = Store::new(1);
        let queue = table.insert(b"/queue/a");
        for expires_ms in [9, 5] {
            let slot = store.insert(stored(expires_ms), queue);
            table.change_queue(queue, |one| one.push_back(queue, slot, &mut store));
        }
        table.check_invariants();
        assert_eq!(table.first_expiring(), Some((5, queue)));
        table.release(queue, 0);
        table.note_backlog(queue);
        table.note_backlog(queue);
        table.check_invariants();
        table.change_queue(queue, |one| one.pop_expired(7, &mut store));
        assert_eq!(table.first_expiring(), Some((9, queue)));
        table.change_queue(queue, |one| one.pop_front(&mut store));
        assert_eq!(table.first_expiring(), None);
        assert_eq!((table.take_backlogged(), table.take_backlogged()), (Some(queue), None));
        table.note_backlog(queue);
        table.release(queue, 0);
        assert_eq!((table.get(queue).is_none(), table.take_backlogged()), (true, None));
        table.check_invariants();
    }

    #[test]
    fn addresses_count_while_others_subscribe_to_them_and_queues_while_they_have_consumers() {
        let mut table = DestinationTable::new(NameHasher::new(1));
        let names: [&[u8]; 3] = [b"/agent/ana", b"/queue/a", b"/topic/a"];
        let [client, queue, topic] = names.map(|name| table.insert(name));
        let cost = |names: &[&[u8]]| names.iter().map(|name| DestinationTable::cost_of(name)).sum();
        let is = |table: &DestinationTable, names: &[&[u8]]| {
            let expected = Counted { len: names.len() as u64, bytes: cost(names) };
            assert_eq!(table.counted(), expected);
        };
        is(&table, &names[2..]);
        table.set_owner(client, Some(route(7).session));
        table.join(client, Via::Own, route(0), &mut Copies::default());
        is(&table, &names[2..]);
        table.join(client, Via::Name, route(1), &mut Copies::default());
        table.join(client, Via::Name, route(2), &mut Copies::default());
        table.change_consumers(queue, |queue| queue.add_consumer(route(3).subscription));
        is(&table, &names);
        table.set_owner(client, None);
        is(&table, &names);
        table.leave(client, Via::Name, 0, route(1).subscription, &mut Copies::default());
        table.change_consumers(queue, |queue| queue.note_consumer_ended(|_| false));
        is(&table, &[names[0], names[2]]);
        table.leave(client, Via::Name, 0, route(2).subscription, &mut Copies::default());
        [client, queue, topic].into_iter().for_each(|id| table.release(id, 0));
        is(&table, &[]);
        table.check_invariants();
    }

    #[test]
    fn the_address_of_a_client_takes_no_more_than_is_reckoned_for_it() {
        for profile in Profile::ALL {
            let cost = DestinationTable::cost_of(&profile.address_of(b""));
            assert!(cost <= ADDRESS_BYTES, "{cost} for {profile:?}");
        }
    }

    #[test]
    fn a_login_id_is_found_under_any_profile_while_somebody_is_logged_in() {
        let mut table = DestinationTable::new(NameHasher::new(1));
        let session = SessionId::new(Place::new(7, NonZeroU32::MIN));
        for profile in Profile::ALL {
            let address = table.insert(&profile.address_of(b"ana"));
            assert_eq!(table.owner_of(b"ana"), None, "an address that is watched only");
            table.set_owner(address, Some(session));
            assert_eq!(table.owner_of(b"ana"), Some(session), "{profile:?}");
            assert_eq!((table.owner_of(b"an"), table.owner_of(b"anab")), (None, None));
            table.set_owner(address, None);
            table.release(address, 0);
        }
    }

    #[test]
    fn a_destination_is_small_and_has_a_watch_only_while_there_is_something_in_it() {
        // With the header of the allocator, 64 bytes.
        assert_eq!((size_of::<Destination>(), size_of::<Watch>()), (48, 56));
        let mut table = DestinationTable::new(NameHasher::new(1));
        let (client, topic) = (table.insert(b"/agent/ana"), table.insert(b"/topic/a"));
        let is_watched = |table: &DestinationTable, id| table[id].watch.is_some();
        table.set_owner(client, Some(route(7).session));
        assert_eq!(table.join(client, Via::Own, route(0), &mut Copies::default()), 0);
        assert_eq!(table.join(client, Via::Name, route(1), &mut Copies::default()), 0);
        table.set_group(client, 200, true);
        table.set_group(client, 3, true);
        table.set_group(client, 3, false);
        assert_eq!(table[client].own().from(0), [route(0)]);
        assert_eq!(table[client].groups().collect::<Vec<_>>(), [200]);
        assert_eq!(
            table.leave(client, Via::Name, 0, route(1).subscription, &mut Copies::default()),
            None
        );
        assert!(is_watched(&table, client));
        table.set_owner(client, None);
        assert!(!is_watched(&table, client), "what was the client's is gone");
        assert_eq!(
            table.leave(client, Via::Own, 0, route(0).subscription, &mut Copies::default()),
            None
        );

        let group = GroupId::new(Place::new(0, NonZeroU32::MIN));
        table.remember_wildcards(topic, (0, 2), &[]);
        assert!(!is_watched(&table, topic), "that nothing selects it takes no memory");
        table.remember_wildcards(topic, (3, 4), &[group]);
        assert_eq!(table[topic].wildcards(), [group]);
        assert_eq!([3, 4].map(|since| table[topic].knows_wildcards(since)), [true, false]);
        table.remember_wildcards(topic, (5, 6), &[]);
        assert!(!is_watched(&table, topic));
    }

    #[test]
    fn what_topics_remember_of_wildcards_is_bounded_and_the_oldest_is_forgotten_first() {
        let mut table = DestinationTable::new(NameHasher::new(1));
        let groups = vec![GroupId::new(Place::new(0, NonZeroU32::MIN)); 100_000];
        let names = (0..40).map(|number| format!("/topic/{number}"));
        let topics: Vec<_> = names.map(|name| table.insert(name.as_bytes())).collect();
        for (topic, at) in topics.iter().zip(1..) {
            table.remember_wildcards(*topic, (0, at), &groups);
            assert!(table.remembered_bytes() <= WILDCARDS_REMEMBERED_BYTES_MAX);
            table.check_invariants();
        }
        let is_known = |table: &DestinationTable, id: DestinationId| table[id].knows_wildcards(0);
        let known = topics.iter().map(|topic| is_known(&table, *topic));
        let expected = (0..40).map(|number| number >= 20);
        assert!(known.eq(expected), "of 800 kB each, 20 are within 16 MiB");
        // A single one that is larger than all that there is room for has to serve its message.
        let many = vec![groups[0]; 3_000_000];
        assert_eq!(table.remember_wildcards(topics[0], (0, 50), &many), 20);
        assert!(is_known(&table, topics[0]) && table[topics[0]].wildcards().len() == many.len());
        table.check_invariants();
        table.remember_wildcards(topics[1], (0, 51), &groups[..1]);
        assert!(table.remembered_bytes() < 100 && !is_known(&table, topics[0]));
        table.remember_wildcards(topics[2], (51, 52), &groups[..1]);
        assert!(!is_known(&table, topics[1]), "what is outdated goes");
        table.release(topics[2], 0);
        table.remove_idle_topic();
        table.check_invariants();
    }

    fn route(number: u32) -> Route {
        let place = Place::new(number, NonZeroU32::MIN);
        Route { session: SessionId::new(place), subscription: SubscriptionIndex::new(place) }
    }

    fn stored(expires_ms: u64) -> Stored {
        let origin = Origin::new(b"ana", b"/agent/ana");
        let content = Content {
            transaction: None,
            destination: b"/queue/a",
            content_type: None,
            has_escapes: false,
            user_lines: UserLines::Own(&[]),
            body: b"x",
            shared: None,
        };
        let message =
            Message { number: 1, is_redelivered: false, origin: &origin, content: &content };
        Stored::new(&message, expires_ms)
    }
}
