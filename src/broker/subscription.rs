//! Subscriptions.

use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
pub(crate) use super::pattern::Pattern;
use super::space::Space;
use super::store::List;
use super::table::Table;

/// A subscription of a session.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The subscriber.
    pub session: SessionId,
    /// What it subscribes to.
    pub target: Target,
    /// Further properties in the standard dialect.
    pub standard: Option<Box<Standard>>,
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
    /// Whether it was made on an earlier connection of the session, so that a SUBSCRIBE to the same
    /// replaces it.
    pub is_inherited: bool,
}

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
#[derive(Debug)]
pub(crate) enum Target {
    /// Copies of messages to one client.
    Client(DestinationId),
    /// Copies of messages to each client whose address matches.
    Clients(Pattern),
    /// Events about each client whose address matches.
    Presence(Pattern),
    /// Messages to the subscriber's own address.
    Own(DestinationId),
    /// Messages to a topic.
    Topic(DestinationId),
    /// Messages to each topic that matches.
    Topics(Levels),
    /// Messages of a queue, in turn with its other consumers.
    Queue(DestinationId),
}

impl Default for Subscription {
    /// The subscription of no session.
    fn default() -> Self {
        let target = Target::Own(DestinationId::default());
        Self { session: SessionId::default(), target, standard: None }
    }
}

impl Target {
    /// The destination, if the subscription is to a single one.
    pub(crate) fn destination(&self) -> Option<DestinationId> {
        match self {
            Self::Client(id) | Self::Own(id) | Self::Topic(id) | Self::Queue(id) => Some(*id),
            Self::Clients(_) | Self::Presence(_) | Self::Topics(_) => None,
        }
    }

    /// Whether the subscription keeps its destination alive.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self, Self::Client(_) | Self::Topic(_))
    }

    /// Whether the subscription is by a pattern that matches a name.
    pub(crate) fn selects(&self, name: &[u8]) -> bool {
        match self {
            Self::Clients(pattern) => Space::of(name) == Space::Client && pattern.matches(name),
            Self::Topics(levels) => Space::of(name) == Space::Topic && levels.matches(name),
            Self::Client(_)
            | Self::Own(_)
            | Self::Topic(_)
            | Self::Queue(_)
            | Self::Presence(_) => false,
        }
    }
}

/// All subscriptions, and lists of those by pattern and to presence.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionTable {
    table: Table<SubscriptionIndex, Subscription>,
    patterns: Vec<SubscriptionIndex>,
    /// The number of `patterns` on topics.
    wildcards_len: usize,
    presence: Vec<SubscriptionIndex>,
}

impl SubscriptionTable {
    /// Adds a subscription.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> SubscriptionIndex {
        let index = self.table.next_key();
        match subscription.target {
            Target::Clients(_) | Target::Topics(_) => self.patterns.push(index),
            Target::Presence(_) => self.presence.push(index),
            _ => {}
        }
        self.wildcards_len += usize::from(matches!(subscription.target, Target::Topics(_)));
        self.table.insert(subscription);
        index
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        let subscription = self.table.remove(index)?;
        match subscription.target {
            Target::Clients(_) | Target::Topics(_) => self.patterns.retain(|other| *other != index),
            Target::Presence(_) => self.presence.retain(|other| *other != index),
            _ => {}
        }
        self.wildcards_len -= usize::from(matches!(subscription.target, Target::Topics(_)));
        Some(subscription)
    }

    /// The subscriptions whose pattern matches `name`.
    pub(crate) fn matching(&self, name: &[u8]) -> Vec<SubscriptionIndex> {
        let selects = |index: &&SubscriptionIndex| self[**index].target.selects(name);
        self.patterns.iter().filter(selects).copied().collect()
    }

    /// The subscriptions to presence.
    pub(crate) fn presence(&self) -> &[SubscriptionIndex] {
        &self.presence
    }

    /// The number of regular expressions.
    pub(crate) fn patterns_len(&self) -> usize {
        self.patterns.len() - self.wildcards_len + self.presence.len()
    }

    /// The number of topics with wildcards.
    pub(crate) fn wildcards_len(&self) -> usize {
        self.wildcards_len
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
