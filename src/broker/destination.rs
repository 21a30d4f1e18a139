//! Destinations: the names that messages go to, who owns each, and who gets copies.
//!
//! A client's address exists while the client is logged in or while somebody watches it by name; a
//! queue while it holds messages or has consumers; a topic from its first message or subscription
//! until it is swept away. Who gets what is sent is a flat list, made when a subscription or an
//! owner changes, so that a message costs no matching.

use hashbrown::HashTable;

use super::levels::Levels;
use super::queue::Queue;
use super::session::SessionId;
use super::subscription::SubscriptionIndex;
use super::table::{Key, Place, Table};
use crate::stomp::lookalike;

/// A destination that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(Place);

impl Key for DestinationId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// A name, its owner and its watchers.
#[derive(Debug, Default)]
pub struct Destination {
    /// The name as it stands in frames.
    pub name: Box<[u8]>,
    /// The client whose address it is, while it is logged in.
    pub owner: Option<SessionId>,
    /// Who watches or subscribes; most destinations are watched by nobody.
    pub watch: Option<Box<Watch>>,
    /// What is queued there, where it is a queue.
    pub queue: Option<Box<Queue>>,
}

/// What kind of destination a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The address of a client.
    Client,
    /// Every subscriber gets every message.
    Topic,
    /// One subscriber gets each message.
    Queue,
    /// The broker itself.
    Broker,
    /// None: no destination can have the name.
    Unknown,
}

impl Space {
    /// Told by how the name begins.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match Self::prefix_len(name) {
            Some((space, prefix)) if name.len() > prefix => space,
            None if name == b"STOMP-SERVER" => Self::Broker,
            _ => Self::Unknown,
        }
    }

    /// Whether a name can be that of a queue, and of no more than one.
    pub fn is_one_queue(name: &[u8]) -> bool {
        let is_plain = lookalike::check(name).is_ok() && !Levels::is_pattern(name);
        Self::of(name) == Self::Queue && is_plain
    }

    /// The space that a name begins with, and how long that beginning is.
    fn prefix_len(name: &[u8]) -> Option<(Self, usize)> {
        let found = Self::PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        found.map(|(prefix, space)| (*space, prefix.len()))
    }

    const PREFIXES: [(&[u8], Self); 6] = [
        (b"/agent/", Self::Client),
        (b"/topic/", Self::Topic),
        (b"/queue/", Self::Queue),
        (b"/service/", Self::Client),
        (b"/admin/", Self::Client),
        (b"/broker/", Self::Broker),
    ];

    /// Whether any destination can have a name that a pattern stands for.
    pub fn holds_some(pattern: &Levels) -> bool {
        Self::PREFIXES.iter().any(|(prefix, _)| pattern.reaches_below(&prefix[..prefix.len() - 1]))
    }

    /// What a name lacks that is in no space, for an ERROR.
    pub fn why_unknown(name: &[u8]) -> &'static str {
        match Self::prefix_len(name) {
            Some((Self::Broker, _)) => "the broker's own is /broker/presence, or STOMP-SERVER",
            Some(_) => "nothing follows the name of its space",
            None => "names begin with /agent/, /service/ or /admin/ (clients), /topic/ or /queue/",
        }
    }
}

/// Someone who gets what is sent to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who.
    pub session: SessionId,
    /// By which of its subscriptions.
    pub subscription: SubscriptionIndex,
    /// Whether no other of its subscriptions stands before on the same list.
    pub is_first: bool,
}

/// Who watches a destination.
#[derive(Debug, Default)]
pub struct Watch {
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
    pub fn routes(&self) -> &[Route] {
        self.watch.as_ref().map_or(&[], |watch| &watch.routes)
    }

    /// Subscriptions by name and by pattern, awake or asleep.
    pub fn attached(&self) -> &[SubscriptionIndex] {
        self.watch.as_ref().map_or(&[], |watch| &watch.attached)
    }

    /// Whether nothing keeps it in being.
    pub fn is_unused(&self) -> bool {
        let watched = self.watch.as_ref().is_some_and(|watch| watch.direct > 0);
        let queued = self.queue.as_ref().is_some_and(|queue| !queue.is_unused());
        self.owner.is_none() && !watched && !queued
    }
}

/// All destinations, found by index or by name.
#[derive(Debug, Default)]
pub struct DestinationTable {
    table: Table<DestinationId, Destination>,
    by_name: HashTable<DestinationId>,
    hasher: foldhash::fast::RandomState,
}

impl DestinationTable {
    /// Makes a destination with a name that no other has.
    pub fn insert(&mut self, name: &[u8]) -> DestinationId {
        let destination = Destination { name: name.into(), owner: None, watch: None, queue: None };
        let id = self.table.insert(destination);
        let (table, hasher) = (&self.table, &self.hasher);
        self.by_name.insert_unique(hash(hasher, name), id, |id| hash(hasher, &table[*id].name));
        id
    }

    /// Forgets a destination.
    pub fn remove(&mut self, id: DestinationId) {
        let Some(destination) = self.table.remove(id) else { return };
        let hash = hash(&self.hasher, &destination.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// The destination with that name. `guess` is tried first, whether or not it is still valid.
    #[inline]
    pub fn find(&self, name: &[u8], guess: Option<DestinationId>) -> Option<DestinationId> {
        if let Some(guess) = guess
            && self.table.get(guess).is_some_and(|guessed| *guessed.name == *name)
        {
            return Some(guess);
        }
        let hash = hash(&self.hasher, name);
        self.by_name.find(hash, |id| *self.table[*id].name == *name).copied()
    }

    /// A destination that may be gone.
    pub fn get(&self, id: DestinationId) -> Option<&Destination> {
        self.table.get(id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: DestinationId) -> Option<&mut Destination> {
        self.table.get_mut(id)
    }

    /// All destinations.
    pub fn iter(&self) -> impl Iterator<Item = (DestinationId, &Destination)> {
        self.table.iter()
    }

    /// All destinations, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DestinationId, &mut Destination)> {
        self.table.iter_mut()
    }

    /// The number of destinations.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
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

    #[test]
    fn a_name_is_in_the_space_that_it_begins_with_or_in_none() {
        let cases = [
            ("/agent/ana", Space::Client),
            ("/service/a/b", Space::Client),
            ("/admin/a", Space::Client),
            ("/topic/a", Space::Topic),
            ("/queue/a", Space::Queue),
            ("/broker/presence", Space::Broker),
            ("STOMP-SERVER", Space::Broker),
            ("/topics/news", Space::Unknown),
            ("/topic", Space::Unknown),
            ("/topic/", Space::Unknown),
            ("/agent/", Space::Unknown),
            ("/broker/", Space::Unknown),
            ("/AGENT/ana", Space::Unknown),
            (" /topic/a", Space::Unknown),
            ("topic/a", Space::Unknown),
            ("ana", Space::Unknown),
            ("/", Space::Unknown),
            ("", Space::Unknown),
        ];
        for (name, space) in cases {
            assert_eq!(Space::of(name.as_bytes()), space, "{name}");
        }
        for name in ["/topic/a", "/queue/", "/queue/a ", "/queue/>", "/queue/#", "/queue/a\u{feff}"]
        {
            assert!(!Space::is_one_queue(name.as_bytes()), "{name}");
        }
        assert!(Space::is_one_queue(b"/queue/dead letters"));
    }

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
        assert_eq!(cat.0.index(), ana.0.index(), "the place is used again");
        assert_eq!(table.find(b"/agent/cat", Some(ana)), Some(cat));
        assert!(table.get(ana).is_none(), "its id is not");
        assert_eq!(table.find(b"/agent/ana", Some(ana)), None);
        assert_eq!(table.find(b"/agent/bob", None), Some(bob));
    }
}
