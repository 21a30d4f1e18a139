//! Sessions of clients that are logged in.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::bits::BitSet;
use super::destination::DestinationTable;
use super::held::Held;
use super::ids::{DestinationId, PeerId, SessionId, SubscriptionIndex};
use super::message::Origin;
use super::rights::Rights;
use super::subscription::{SubscriptionTable, Target};
use super::table::Table;
use super::transaction::Transaction;
use crate::profile::Profile;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its address, whose name ends with the login id.
    pub destination: DestinationId,
    /// Its current connection.
    pub peer: PeerId,
    /// Its profile.
    pub profile: Profile,
    /// What it may send and subscribe to on its current connection; nothing if `None`.
    pub rights: Option<Rc<Rights>>,
    /// Whether it gets messages to its address without a subscription to it.
    pub has_inbox: bool,
    /// The destination that it sent to last, so that the next lookup is one comparison.
    pub last_sent_to: Option<DestinationId>,
    /// The sender in its messages; known if `last_sent_to` is set.
    pub origin: Origin,
    /// The number of the last message that was delivered to it, or tried to be.
    pub last_message: Cell<u64>,
    /// Its subscriptions.
    pub subscriptions: Held,
    /// The number of different regular expressions in them.
    pub patterns: u32,
    /// The number of different topics with wildcards in them.
    pub wildcards: u32,
    /// The number of different destinations that it subscribes to by name, without its own address.
    pub destinations: u32,
    /// Memory of these destinations, whoever else subscribes to them.
    pub destination_bytes: u64,
    /// Slots of the groups that get events about it. A slot may be free since.
    pub events: BitSet,
    /// The number of its login: later ones have higher numbers.
    pub number: u64,
    /// Consumers of queues that wait for room in the queue of its connection. An entry may outlast its
    /// subscription.
    pub awaiting_room: VecDeque<SubscriptionIndex>,
    /// How often it has moved to another connection together with its subscriptions.
    pub moves: u32,
    /// Takeovers since `takeover_window_ms`.
    pub takeovers: u32,
    /// Begin of the window in which takeovers are counted.
    pub takeover_window_ms: u64,
    /// Open transactions of the standard dialect.
    pub transactions: Vec<Transaction>,
    token: [u8; 32],
}

impl Default for Session {
    /// The session of no client.
    fn default() -> Self {
        Self::new(DestinationId::default(), PeerId::default(), Profile::Agent, 0)
    }
}

impl Session {
    /// A session with a secret id of 128 bits, and no rights yet.
    pub(crate) fn new(
        destination: DestinationId,
        peer: PeerId,
        profile: Profile,
        secret: u128,
    ) -> Self {
        let mut token = [0; 32];
        for (index, digit) in token.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(secret >> (124 - 4 * index)) as usize & 15];
        }
        Self {
            destination,
            peer,
            profile,
            rights: None,
            has_inbox: false,
            last_sent_to: None,
            origin: Origin::default(),
            last_message: Cell::new(0),
            subscriptions: Held::default(),
            patterns: 0,
            wildcards: 0,
            destinations: 0,
            destination_bytes: 0,
            events: BitSet::default(),
            number: 0,
            awaiting_room: VecDeque::new(),
            moves: 0,
            takeovers: 0,
            takeover_window_ms: 0,
            transactions: Vec::new(),
            token,
        }
    }

    /// Lists a subscription of it.
    pub(crate) fn hold(
        &mut self,
        index: SubscriptionIndex,
        table: &mut SubscriptionTable,
        destinations: &DestinationTable,
    ) {
        let target = table[index].target;
        if self.subscriptions.to(&target, table).is_none() {
            self.destination_bytes += bytes_of(&target, destinations);
            if let Some(count) = self.count_of(&target) {
                *count += 1;
            }
        }
        self.subscriptions.insert(index, table);
    }

    /// Undoes [`Self::hold`], while the subscription has not ended.
    pub(crate) fn release(
        &mut self,
        index: SubscriptionIndex,
        table: &mut SubscriptionTable,
        destinations: &DestinationTable,
    ) {
        let target = table[index].target;
        self.subscriptions.remove(index, table);
        if self.subscriptions.to(&target, table).is_none() {
            self.destination_bytes -= bytes_of(&target, destinations);
            if let Some(count) = self.count_of(&target) {
                *count -= 1;
            }
        }
    }

    /// Takes all its subscriptions, which are to be ended or held again.
    pub(crate) fn release_all(&mut self) -> Vec<SubscriptionIndex> {
        (self.patterns, self.wildcards, self.destinations) = (0, 0, 0);
        self.destination_bytes = 0;
        self.awaiting_room = VecDeque::new();
        std::mem::take(&mut self.subscriptions).into_all()
    }

    /// The count of different targets in which one is.
    fn count_of(&mut self, target: &Target) -> Option<&mut u32> {
        match target {
            Target::Topics(_) => Some(&mut self.wildcards),
            Target::Clients(_) | Target::Presence(_) => Some(&mut self.patterns),
            Target::Client(_) | Target::Topic(_) | Target::Queue(_) => Some(&mut self.destinations),
            // The address is there as long as the client is.
            Target::Own(_) => None,
        }
    }

    /// The login id.
    pub(crate) fn login<'a>(&self, destinations: &'a DestinationTable) -> &'a [u8] {
        &destinations[self.destination].name[self.profile.destination_prefix().len()..]
    }

    /// Whether it may send there.
    pub(crate) fn may_send(&self, name: &[u8]) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.may_send(name))
    }

    /// Whether it may subscribe to a topic or a queue, or to all that a name with wildcards matches.
    pub(crate) fn may_subscribe(&self, name: &[u8]) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.may_subscribe(name))
    }

    /// `session-id` on the wire.
    pub(crate) fn token(&self) -> &[u8; 32] {
        &self.token
    }
}

/// Memory of a destination that a subscription to it keeps alive.
pub(super) fn bytes_of(target: &Target, destinations: &DestinationTable) -> u64 {
    match target {
        Target::Client(id) | Target::Topic(id) | Target::Queue(id) => {
            destinations.get(*id).map_or(0, |one| DestinationTable::cost_of(&one.name))
        }
        Target::Own(_) | Target::Topics(_) | Target::Clients(_) | Target::Presence(_) => 0,
    }
}

/// All sessions. A login id is found by its address: see [`DestinationTable::owner_of`].
pub(crate) type SessionTable = Table<SessionId, Session>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_the_secret_in_hexadecimal() {
        let secret = 0x0123_4567_89ab_cdef_0000_0000_0000_00ab;
        let session =
            Session::new(DestinationId::default(), PeerId::default(), Profile::Agent, secret);
        assert_eq!(session.token(), b"0123456789abcdef00000000000000ab");
    }
}
