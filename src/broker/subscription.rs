//! Subscriptions.

use super::hashing::NameHasher;
use super::ids::{DestinationId, GroupId, GroupKind, SessionId, SubscriptionIndex};
use super::store::List;
use super::table::{Key, Place, Table};
use crate::buffer::{ALLOCATION_BYTES, allocated_bytes};

/// A subscription of a session.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The subscriber.
    pub session: SessionId,
    /// What it subscribes to.
    pub target: Target,
    /// Further properties in the standard dialect.
    pub standard: Option<Box<Standard>>,
    /// Its position among the members of the destination or group that it is to.
    pub position: u32,
    /// Its position among the subscriptions of its session.
    pub held_at: u32,
    /// Its position among those of its session to the same target, if the session has an index.
    pub alike_at: u32,
    /// The number of the subscription among those to presence; zero for others.
    pub presence_number: u64,
}

/// The properties of a subscription that only the standard dialect has.
#[derive(Debug)]
pub(crate) struct Standard {
    /// Its id, as the client wrote it; optional in version 1.0.
    pub id: Option<Box<[u8]>>,
    /// How its messages are acknowledged.
    pub mode: AckMode,
    /// The largest number of unacknowledged messages of a queue.
    pub prefetch: u32,
    /// Messages of a queue that are not acknowledged yet, in the order of delivery.
    pub unacknowledged: List,
    /// Whether it is in turn to get a message of its queue.
    pub turn: Turn,
    /// How often its session had moved to another connection when it was made. If it has moved since, a SUBSCRIBE to
    /// the same replaces it.
    pub made_at: u32,
    /// The same for the time at which it held nothing that an earlier connection has got: until that is the last
    /// time, it gets no messages of its queue. [`NEVER_READY`] while it ends.
    pub ready_at: u32,
}

/// The state of a consumer that gets no further messages, since it ends.
pub(crate) const NEVER_READY: u32 = u32::MAX;

/// Whether a consumer is in turn to get a message of its queue, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its queue lists it.
    Listed,
    /// It has to acknowledge something first.
    AwaitsCredit,
    /// Its session lists it, until the queue of its connection has room.
    AwaitsRoom,
}

/// STOMP 1.2, "SUBSCRIBE ack Header".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckMode {
    /// A message is consumed when it is delivered.
    Auto,
    /// An ACK acknowledges all messages up to the one that it names.
    Client,
    /// An ACK acknowledges the message that it names.
    ClientIndividual,
}

/// What a subscription is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Copies of messages to one client.
    Client(DestinationId),
    /// Copies of messages to each client whose address matches.
    Clients(GroupId),
    /// Events about each client whose address matches.
    Presence(GroupId),
    /// Messages to the subscriber's own address.
    Own(DestinationId),
    /// Messages to a topic.
    Topic(DestinationId),
    /// Messages to each topic that matches.
    Topics(GroupId),
    /// Messages of a queue, in turn with its other consumers.
    Queue(DestinationId),
}

impl Default for Subscription {
    /// The subscription of no session.
    fn default() -> Self {
        Self::new(SessionId::default(), Target::Own(DestinationId::default()), None)
    }
}

impl Subscription {
    /// A subscription that is on no list yet.
    pub(crate) fn new(session: SessionId, target: Target, standard: Option<Box<Standard>>) -> Self {
        Self { session, target, standard, position: 0, held_at: 0, alike_at: 0, presence_number: 0 }
    }

    /// Whether it holds no message that has to be acknowledged.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.standard.as_ref().is_none_or(|standard| standard.unacknowledged.first().is_none())
    }

    /// Its memory, with its places in the lists of its session and of its target. Growing lists have between a half and
    /// all of their room in use, so that this is what most have; hardly any has more, or less than four fifths.
    fn bytes(&self) -> usize {
        let of_standard = |standard: &Standard| {
            let id = standard.id.as_deref().unwrap_or_default();
            size_of::<Standard>() + ALLOCATION_BYTES + ID_INDEX_BYTES + allocated_bytes(id)
        };
        PLACE_BYTES + LISTS_BYTES + self.standard.as_deref().map_or(0, of_standard)
    }

    /// Its id, as the client wrote it, if it has one.
    pub(crate) fn id(&self) -> Option<&[u8]> {
        self.standard.as_ref()?.id.as_deref()
    }
}

impl Target {
    /// All that a group selects.
    pub(crate) fn of_group(kind: GroupKind, id: GroupId) -> Self {
        match kind {
            GroupKind::Topics => Self::Topics(id),
            GroupKind::Clients => Self::Clients(id),
            GroupKind::Presence => Self::Presence(id),
        }
    }

    /// The group, if the subscription is by a pattern.
    pub(crate) fn group(&self) -> Option<(GroupKind, GroupId)> {
        match self {
            Self::Topics(id) => Some((GroupKind::Topics, *id)),
            Self::Clients(id) => Some((GroupKind::Clients, *id)),
            Self::Presence(id) => Some((GroupKind::Presence, *id)),
            Self::Client(_) | Self::Own(_) | Self::Topic(_) | Self::Queue(_) => None,
        }
    }

    /// A letter for the kind, and the place of the destination or group.
    fn kind_and_place(&self) -> (u8, Place) {
        match self {
            Self::Client(id) => (b'c', id.place()),
            Self::Own(id) => (b'o', id.place()),
            Self::Topic(id) => (b't', id.place()),
            Self::Queue(id) => (b'q', id.place()),
            Self::Clients(id) => (b'C', id.place()),
            Self::Topics(id) => (b'T', id.place()),
            Self::Presence(id) => (b'P', id.place()),
        }
    }
}

/// Memory of a place in the table of all subscriptions.
const PLACE_BYTES: usize = size_of::<Subscription>() + size_of::<Place>();

/// Memory of places in the lists of a session and of a target, and in the index by target.
const LISTS_BYTES: usize = 96;

/// Memory of a place in the index of a session by id.
const ID_INDEX_BYTES: usize = 24;

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct SubscriptionTable {
    table: Table<SubscriptionIndex, Subscription>,
    /// Memory of all.
    bytes: usize,
    hasher: NameHasher,
}

impl SubscriptionTable {
    /// An empty table.
    pub(crate) fn new(hasher: NameHasher) -> Self {
        Self { table: Table::default(), bytes: 0, hasher }
    }

    /// Adds a subscription.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> SubscriptionIndex {
        self.bytes += subscription.bytes();
        self.table.insert(subscription)
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        let removed = self.table.remove(index)?;
        self.bytes -= removed.bytes();
        Some(removed)
    }

    /// Takes from a subscription what only the standard dialect has.
    pub(crate) fn make_classic(&mut self, index: SubscriptionIndex) {
        let Some(one) = self.table.get_mut(index) else { return };
        let before = one.bytes();
        one.standard = None;
        self.bytes -= before - one.bytes();
    }

    /// Memory of all subscriptions, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Panics if their memory differs from a recount.
    pub(crate) fn check_invariants(&self) {
        let all: usize = self.table.iter().map(|(_, one)| one.bytes()).sum();
        assert_eq!(all, self.bytes, "memory of subscriptions");
    }

    /// The hash of a subscription's id.
    pub(crate) fn hash_of_id(&self, id: &[u8]) -> u64 {
        self.hasher.hash(id)
    }

    /// The hash of a target.
    pub(crate) fn hash_of_target(&self, target: &Target) -> u64 {
        let (kind, place) = target.kind_and_place();
        let mut bytes = [kind; 9];
        bytes[1..5].copy_from_slice(&place.index().to_le_bytes());
        bytes[5..].copy_from_slice(&place.generation().get().to_le_bytes());
        self.hasher.hash(&bytes)
    }

    /// A subscription that may have ended.
    pub(crate) fn get(&self, index: SubscriptionIndex) -> Option<&Subscription> {
        self.table.get(index)
    }

    /// As [`Self::get`], mutable.
    pub(crate) fn get_mut(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        self.table.get_mut(index)
    }

    /// Whether a subscription exists or has existed.
    pub(crate) fn has_issued(&self, index: SubscriptionIndex) -> bool {
        self.table.has_issued(index)
    }

    /// All subscriptions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SubscriptionIndex, &Subscription)> {
        self.table.iter()
    }

    /// The number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<SubscriptionIndex> for SubscriptionTable {
    type Output = Subscription;

    fn index(&self, index: SubscriptionIndex) -> &Subscription {
        &self.table[index]
    }
}

impl std::ops::IndexMut<SubscriptionIndex> for SubscriptionTable {
    fn index_mut(&mut self, index: SubscriptionIndex) -> &mut Subscription {
        &mut self.table[index]
    }
}
