//! Destinations: the names that messages are sent to, their owners, and their routes.
//!
//! A client's address exists while the client is logged in or watched by name; a queue while it holds
//! messages or has consumers; a topic from its first message or subscription until idle topics are
//! removed. Routes are a flat list, rebuilt when a subscription or an owner changes, so that nothing is
//! matched per message.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashTable;

use super::hashing::NameHasher;
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::message::NEVER;
use super::queue::Queue;
use super::space::Space;
use super::table::Table;
use crate::profile::Profile;
use crate::stomp::frame::ALLOCATION_BYTES;

/// A name with its owner and its subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    /// The name as in frames.
    pub name: Box<[u8]>,
    /// The client whose address it is, while it is logged in.
    pub owner: Option<SessionId>,
    /// Its subscriptions; most destinations have none.
    pub watch: Option<Box<Watch>>,
    /// Its messages and consumers, if it is a queue.
    pub queue: Option<Box<Queue>>,
}

/// A receiver of messages to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The receiving session.
    pub session: SessionId,
    /// The subscription by which it receives.
    pub subscription: SubscriptionIndex,
    /// Whether it is the session's first route on the list.
    pub is_first: bool,
}

/// The subscriptions of a destination.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Subscriptions by name and by pattern, also those that give no route now.
    pub attached: Vec<SubscriptionIndex>,
    /// The number of those by name, which keep the destination alive.
    pub direct: u32,
    /// The receivers of each message now, the owner's own subscriptions first. In the classic dialect a
    /// session gets one copy, in the standard one a copy for each subscription.
    pub routes: Vec<Route>,
}

impl Destination {
    /// The receivers of each message now.
    #[inline]
    pub(crate) fn routes(&self) -> &[Route] {
        self.watch.as_ref().map_or(&[], |watch| &watch.routes)
    }

    /// Subscriptions by name and by pattern, also those that give no route now.
    pub(crate) fn attached(&self) -> &[SubscriptionIndex] {
        self.watch.as_ref().map_or(&[], |watch| &watch.attached)
    }

    /// Whether nothing keeps it alive.
    pub(crate) fn is_unused(&self) -> bool {
        let watched = self.watch.as_ref().is_some_and(|watch| watch.direct > 0);
        let queued = self.queue.as_ref().is_some_and(|queue| !queue.is_unused());
        self.owner.is_none() && !watched && !queued
    }

    /// Whether it is a topic that nobody subscribes to by name.
    fn is_idle_topic(&self) -> bool {
        Space::of(&self.name) == Space::Topic && self.is_unused()
    }
}

/// All destinations, by id and by name, and totals over them. Only its methods change a destination, which
/// keeps the totals right.
#[derive(Debug)]
pub(crate) struct DestinationTable {
    table: Table<DestinationId, Destination>,
    by_name: HashTable<DestinationId>,
    hasher: NameHasher,
    /// Topics that nobody subscribes to by name.
    idle_topics: BTreeSet<DestinationId>,
    /// Memory of topics and queues.
    bytes: u64,
    /// Queues with a message that expires, by [`Queue::expires_ms`].
    expiring: BTreeSet<(u64, DestinationId)>,
    /// Queues to be served again at the end of the turn; those that still exist have `is_backlogged`.
    backlogged: VecDeque<DestinationId>,
}

impl DestinationTable {
    /// An empty table. With the secret unknown, nobody can choose names whose hashes collide.
    pub(crate) fn new(secret: u128) -> Self {
        Self {
            table: Table::default(),
            by_name: HashTable::new(),
            hasher: NameHasher::new(secret),
            idle_topics: BTreeSet::new(),
            bytes: 0,
            expiring: BTreeSet::new(),
            backlogged: VecDeque::new(),
        }
    }

    /// Creates a destination, whose name no other has.
    pub(crate) fn insert(&mut self, name: &[u8]) -> DestinationId {
        let space = Space::of(name);
        let queue = (space == Space::Queue).then(Box::default);
        let destination = Destination { name: name.into(), owner: None, watch: None, queue };
        self.bytes += Self::cost_of(name);
        let id = self.table.insert(destination);
        if space == Space::Topic {
            self.idle_topics.insert(id);
        }
        let (table, hasher) = (&self.table, &self.hasher);
        self.by_name.insert_unique(hasher.hash(name), id, |id| hasher.hash(&table[*id].name));
        id
    }

    /// Removes a destination if nothing uses it. An idle topic stays, so that the next message to it
    /// finds its routes without matching patterns again; past `idle_topics_max` all of them are removed.
    pub(crate) fn release(&mut self, id: DestinationId, idle_topics_max: usize) {
        if self.table.get(id).is_none_or(|one| !one.is_unused()) {
            return;
        }
        if !self.idle_topics.contains(&id) {
            self.remove(id);
        } else if self.idle_topics.len() > idle_topics_max {
            self.sweep_idle_topics();
        }
    }

    /// Removes all topics that nobody subscribes to by name.
    pub(crate) fn sweep_idle_topics(&mut self) {
        for id in std::mem::take(&mut self.idle_topics) {
            self.remove(id);
        }
    }

    /// Removes a destination that nothing uses.
    fn remove(&mut self, id: DestinationId) {
        let Some(destination) = self.table.remove(id) else { return };
        self.bytes -= Self::cost_of(&destination.name);
        let hash = self.hasher.hash(&destination.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// Attaches a subscription to a destination, by its name or by a pattern.
    pub(crate) fn attach(
        &mut self,
        id: DestinationId,
        subscription: SubscriptionIndex,
        is_direct: bool,
    ) {
        let watch = self.table[id].watch.get_or_insert_default();
        watch.attached.push(subscription);
        watch.direct += u32::from(is_direct);
        self.note_use(id);
    }

    /// Undoes [`Self::attach`], if the destination still exists.
    pub(crate) fn detach(
        &mut self,
        id: DestinationId,
        subscription: SubscriptionIndex,
        is_direct: bool,
    ) {
        let Some(destination) = self.table.get_mut(id) else { return };
        if let Some(watch) = &mut destination.watch {
            watch.attached.retain(|other| *other != subscription);
            watch.direct -= u32::from(is_direct);
        }
        self.note_use(id);
    }

    /// Updates whether a topic counts as idle.
    fn note_use(&mut self, id: DestinationId) {
        if self.table[id].is_idle_topic() {
            self.idle_topics.insert(id);
        } else {
            self.idle_topics.remove(&id);
        }
    }

    /// Replaces the routes of a destination, or drops them if no subscription is attached.
    pub(crate) fn set_routes(&mut self, id: DestinationId, routes: Vec<Route>) {
        let destination = &mut self.table[id];
        match &mut destination.watch {
            Some(watch) if !watch.attached.is_empty() => watch.routes = routes,
            _ => destination.watch = None,
        }
    }

    /// Sets the client whose address it is.
    pub(crate) fn set_owner(&mut self, id: DestinationId, owner: Option<SessionId>) {
        self.table[id].owner = owner;
    }

    /// Changes a queue and updates the totals; `None` if there is no such queue.
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
        self.by_name.find(hash, |id| *self.table[*id].name == *name).copied()
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

    /// Memory of a topic or a queue. Addresses are bounded by the number of clients, and cost nothing here.
    pub(crate) fn cost_of(name: &[u8]) -> u64 {
        let own = match Space::of(name) {
            Space::Topic => 0,
            Space::Queue => size_of::<Queue>() + ALLOCATION_BYTES,
            Space::Client | Space::Broker | Space::Unknown => return 0,
        };
        // The tables may have twice the room that they need.
        let table = 2 * (size_of::<Destination>() + 2 * size_of::<DestinationId>());
        (table + own + name.len() + 2 * ALLOCATION_BYTES) as u64
    }

    /// Memory of topics and queues.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next message of a queue may expire, and in which queue.
    pub(crate) fn first_expiring(&self) -> Option<(u64, DestinationId)> {
        self.expiring.first().copied()
    }

    /// Panics if a total differs from a recount, or an unused destination was not removed.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.by_name.len(), self.table.len(), "names and destinations");
        let (mut idle, mut expiring, mut backlogged) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let bytes = self.table.iter().map(|(_, one)| Self::cost_of(&one.name));
        assert_eq!(bytes.sum::<u64>(), self.bytes, "memory of topics and queues");
        for (id, one) in self.table.iter() {
            assert_eq!(
                self.find(&one.name, None),
                Some(id),
                "a name that does not find its destination"
            );
            if one.is_idle_topic() {
                idle.insert(id);
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

    #[test]
    fn a_guess_that_is_stale_or_another_name_misleads_nobody() {
        let mut table = DestinationTable::new(1);
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
        let mut table = DestinationTable::new(1);
        let (by_name, by_pattern) = (subscription(0), subscription(1));
        let (topic, other) = (table.insert(b"/topic/a"), table.insert(b"/topic/b"));
        table.attach(topic, by_pattern, false);
        table.attach(topic, by_name, true);
        table.check_invariants();
        // It is idle, and no idle topics are allowed.
        table.release(other, 0);
        assert_eq!((table.find(b"/topic/b", None), table.len()), (None, 1));
        table.detach(topic, by_name, true);
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
    fn a_login_id_is_found_under_any_profile_while_somebody_is_logged_in() {
        let mut table = DestinationTable::new(1);
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

    fn subscription(number: u32) -> SubscriptionIndex {
        SubscriptionIndex::new(Place::new(number, NonZeroU32::MIN))
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
        };
        let message =
            Message { number: 1, is_redelivered: false, origin: &origin, content: &content };
        Stored::new(&message, expires_ms)
    }
}
