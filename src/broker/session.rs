//! Sessions: who is logged in, where, and on which connection.

use hashbrown::HashTable;

use super::destination::DestinationTable;
use super::ids::{DestinationId, PeerId, SessionId, SubscriptionIndex};
use super::message::Origin;
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
    /// What it may do.
    pub profile: Profile,
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
    /// A session with a secret id of 128 bits.
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

    /// `session-id` on the wire.
    pub(crate) fn token(&self) -> &[u8; 32] {
        &self.token
    }
}

/// All sessions, found by index or by login id.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    table: Table<SessionId, Session>,
    by_login: HashTable<SessionId>,
    hasher: foldhash::fast::RandomState,
}

impl SessionTable {
    /// Takes a session in. `login_of` names the login id of each session.
    pub(crate) fn insert<'a>(
        &mut self,
        login: &[u8],
        session: Session,
        login_of: impl Fn(&Session) -> &'a [u8],
    ) -> SessionId {
        let id = self.table.insert(session);
        let (table, hasher) = (&self.table, &self.hasher);
        let hash = hash(hasher, login);
        self.by_login.insert_unique(hash, id, |id| self::hash(hasher, login_of(&table[*id])));
        id
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, id: SessionId, login: &[u8]) -> Option<Session> {
        let hash = hash(&self.hasher, login);
        if let Ok(entry) = self.by_login.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.table.remove(id)
    }

    /// The session with that login id.
    pub(crate) fn find<'a>(
        &self,
        login: &[u8],
        login_of: impl Fn(&Session) -> &'a [u8],
    ) -> Option<SessionId> {
        let hash = hash(&self.hasher, login);
        self.by_login.find(hash, |id| login_of(&self.table[*id]) == login).copied()
    }

    /// All sessions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.table.iter()
    }

    /// The number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<SessionId> for SessionTable {
    type Output = Session;

    fn index(&self, id: SessionId) -> &Session {
        &self.table[id]
    }
}

impl std::ops::IndexMut<SessionId> for SessionTable {
    fn index_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.table[id]
    }
}

fn hash(hasher: &foldhash::fast::RandomState, login: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, login)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::destination::DestinationTable;
    use crate::broker::encoding::Encoding;
    use crate::broker::peer::{Opening, Peers};
    use crate::limits::Limits;
    use crate::outbound::Framing;

    #[test]
    fn sessions_are_found_by_login_until_removed() {
        let mut destinations = DestinationTable::default();
        let mut peers = Peers::new();
        let mut sessions = SessionTable::default();
        let (encoding, framing) = (Encoding::Classic, Framing::LengthPrefix);
        let opening = Opening { slot: 0, number: 0, framing, encoding };
        let peer = peers.open(opening, Limits::default().outbound_before_login());
        let mut ids = Vec::new();
        for login in [&b"ana"[..], b"bob", b"cat"] {
            let destination = destinations.insert(login);
            let session = Session::new(destination, peer, Profile::Agent, 0xab);
            ids.push(sessions.insert(login, session, |s| &destinations[s.destination].name));
        }
        let find = |sessions: &SessionTable, login: &[u8]| {
            sessions.find(login, |s| &destinations[s.destination].name)
        };
        assert_eq!(find(&sessions, b"bob"), Some(ids[1]));
        assert_eq!(sessions[ids[0]].token(), b"000000000000000000000000000000ab");
        sessions.remove(ids[1], b"bob");
        assert_eq!(find(&sessions, b"bob"), None);
        assert_eq!(find(&sessions, b"cat"), Some(ids[2]));
        assert_eq!(sessions.len(), 2);
    }
}
