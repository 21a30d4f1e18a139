//! Transactions of the standard dialect: frames that wait for their COMMIT.

use std::collections::HashMap;

use super::ids::{DeliveryId, SessionId};
use super::table::Key;
use crate::ranking::Ranking;
use crate::stomp::frame::{ALLOCATION_BYTES, OwnedLines};
use crate::stomp::{Command, Frame};

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The client's id for it.
    pub id: Box<[u8]>,
    /// Its frames, in the order of arrival.
    pub frames: Vec<HeldFrame>,
    /// Memory of `frames` and of itself.
    pub bytes: u64,
}

impl Transaction {
    /// A transaction without frames.
    pub(crate) fn new(id: &[u8]) -> Self {
        let bytes = (2 * size_of::<Self>() + id.len() + 2 * ALLOCATION_BYTES) as u64;
        Self { id: id.into(), frames: Vec::new(), bytes }
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, frame: HeldFrame) {
        self.bytes += frame.cost_bytes();
        self.frames.push(frame);
    }
}

/// What the transactions of all sessions occupy.
#[derive(Debug, Default)]
pub(crate) struct TransactionAccounts {
    /// Sessions with transactions, by the index of their place.
    sessions: HashMap<u32, (SessionId, u64)>,
    ranking: Ranking,
    bytes: u64,
    /// Memory of those that are being executed, whose sessions may be gone.
    committing_bytes: u64,
}

impl TransactionAccounts {
    /// Sets what the transactions of a session occupy.
    pub(crate) fn set(&mut self, session: SessionId, bytes: u64) {
        let index = session.place().index();
        let before = match bytes {
            0 => self.sessions.remove(&index),
            _ => self.sessions.insert(index, (session, bytes)),
        };
        self.bytes = self.bytes - before.map_or(0, |(_, bytes)| bytes) + bytes;
        self.ranking.set(index, bytes);
        if self.sessions.is_empty() {
            self.sessions = HashMap::new();
        }
    }

    /// What all of them occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.committing_bytes
    }

    /// What those occupy that are being executed.
    pub(crate) fn committing_bytes(&self) -> u64 {
        self.committing_bytes
    }

    /// Notes that a transaction, which is its session's no longer, is being executed.
    pub(crate) fn begin_commit(&mut self, bytes: u64) {
        self.committing_bytes += bytes;
    }

    /// Notes that a transaction has been executed.
    pub(crate) fn end_commit(&mut self, bytes: u64) {
        self.committing_bytes -= bytes;
    }

    /// The session whose transactions occupy most, unless it is the one that asks for more bytes, or would not
    /// occupy more than that one.
    pub(crate) fn payer_for(&self, session: SessionId, bytes: u64) -> Option<SessionId> {
        let own = self.sessions.get(&session.place().index()).map_or(0, |(_, own)| *own);
        let (payer, most) = self.sessions.get(&self.ranking.largest()?)?;
        (*payer != session && own + bytes < *most).then_some(*payer)
    }
}

/// A frame that waits for COMMIT, with unescaped header lines.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    command: Command,
    lines: OwnedLines,
    has_backslash: bool,
    body: Box<[u8]>,
    /// What COMMIT has found that is to be done.
    pub plan: Plan,
}

/// What a frame of a transaction does, once it was checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Plan {
    /// Nothing yet, or nothing any more.
    #[default]
    None,
    /// Sends a message with its expiry; `None` if it has expired.
    Send(Option<u64>),
    /// Settles a delivery, if it is still unsettled.
    Settle(Option<DeliveryId>),
}

impl Default for HeldFrame {
    /// A frame that does nothing.
    fn default() -> Self {
        Self::new(&Frame::default())
    }
}

impl HeldFrame {
    /// Copies a frame.
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        let lines = OwnedLines::copied(&frame.headers);
        let has_backslash = frame.has_backslash;
        Self {
            command: frame.command,
            lines,
            has_backslash,
            body: frame.body.into(),
            plan: Plan::None,
        }
    }

    /// The frame, borrowed.
    pub(crate) fn frame(&self) -> Frame<'_> {
        let headers = self.lines.headers();
        let has_backslash = self.has_backslash;
        Frame { command: self.command, headers, has_backslash, body: &self.body, shared: None }
    }

    /// Memory of the frame, bookkeeping included.
    pub(crate) fn cost_bytes(&self) -> u64 {
        // The list of frames may have twice the room that it needs.
        (2 * size_of::<Self>() + 2 * ALLOCATION_BYTES + self.lines.cost_bytes() + self.body.len())
            as u64
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::table::Place;

    #[test]
    fn the_session_with_most_pays_unless_it_asks() {
        let session = |number| SessionId::new(Place::new(number, NonZeroU32::MIN));
        let mut accounts = TransactionAccounts::default();
        for (number, bytes) in [(0, 100), (1, 200), (2, 300)] {
            accounts.set(session(number), bytes);
        }
        assert_eq!(accounts.bytes(), 600);
        assert_eq!(accounts.payer_for(session(9), 50), Some(session(2)));
        assert_eq!(accounts.payer_for(session(9), 300), None);
        assert_eq!(accounts.payer_for(session(1), 99), Some(session(2)));
        assert_eq!(accounts.payer_for(session(1), 100), None);
        assert_eq!(accounts.payer_for(session(2), 1), None);
        accounts.set(session(2), 0);
        assert_eq!(accounts.payer_for(session(9), 50), Some(session(1)));
        accounts.set(session(0), 0);
        accounts.set(session(1), 0);
        assert_eq!((accounts.bytes(), accounts.payer_for(session(9), 1)), (0, None));
    }
}
