//! Sessions: who is logged in, where, and on which connection.

use std::rc::Rc;

use super::destination::DestinationTable;
use super::ids::{DestinationId, PeerId, SessionId, SubscriptionIndex};
use super::message::Origin;
use super::rights::Rights;
use super::table::Table;
use super::transaction::Transaction;
use crate::profile::Profile;

/// What the broker knows of a client.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its address. The login id is the end of the address's name.
    pub destination: DestinationId,
    /// The connection that it is logged in on now.
    pub peer: PeerId,
    /// What it is.
    pub profile: Profile,
    /// What it may send and subscribe to, while it is on this connection; nothing, where this is none.
    pub rights: Option<Rc<Rights>>,
    /// Whether it gets what is sent to its address without a subscription to that.
    pub has_inbox: bool,
    /// Where it sent to last, so that the next lookup is a comparison.
    pub last_sent_to: Option<DestinationId>,
    /// What its messages say of it; known where `last_sent_to` is.
    pub origin: Origin,
    /// What it subscribed to.
    pub subscriptions: Vec<SubscriptionIndex>,
    /// Takeovers since `takeover_window_ms`.
    pub takeovers: u32,
    /// When the window began over which takeovers are counted.
    pub takeover_window_ms: u64,
    /// Transactions of the standard dialect that were begun.
    pub transactions: Vec<Transaction>,
    token: [u8; 32],
}

impl Default for Session {
    /// Nobody's.
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
            subscriptions: Vec::new(),
            takeovers: 0,
            takeover_window_ms: 0,
            transactions: Vec::new(),
            token,
        }
    }

    /// The login id: the end of its address's name.
    pub(crate) fn login<'a>(&self, destinations: &'a DestinationTable) -> &'a [u8] {
        &destinations[self.destination].name[self.profile.destination_prefix().len()..]
    }

    /// Whether it may send there.
    pub(crate) fn may_send(&self, name: &[u8]) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.may_send(name))
    }

    /// Whether it may subscribe to a topic or a queue, or to what a name with wildcards stands for.
    pub(crate) fn may_subscribe(&self, name: &[u8]) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.may_subscribe(name))
    }

    /// `session-id` on the wire.
    pub(crate) fn token(&self) -> &[u8; 32] {
        &self.token
    }
}

/// All sessions. That of a login id is found by its address: see [`DestinationTable::owner_of`].
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
