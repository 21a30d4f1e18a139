//! Transactions of the standard dialect: frames that wait for their COMMIT.

use std::collections::BTreeMap;

use super::ids::{DeliveryId, SessionId};
use super::table::Key;
use crate::buffer::{ALLOCATION_BYTES, Body, Lent};
use crate::ranking::Ranking;
use crate::stomp::frame::OwnedLines;
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
    sessions: BTreeMap<u32, (SessionId, u64)>,
    ranking: Ranking,
    bytes: u64,
    /// Memory of those that are being executed, whose sessions may be gone.
    committing_bytes: u64,
    /// Memory of those that are being freed.
    freeing_bytes: u64,
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
    }

    /// What all of them occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.lasting_bytes() + self.freeing_bytes
    }

    /// What those occupy that are not on their way out.
    pub(crate) fn lasting_bytes(&self) -> u64 {
        self.bytes + self.committing_bytes
    }

    /// What those occupy that are open.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.bytes
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

    /// Notes that a transaction, which is its session's no longer, is being freed.
    pub(crate) fn begin_freeing(&mut self, bytes: u64) {
        self.freeing_bytes += bytes;
    }

    /// Notes that a transaction has been freed.
    pub(crate) fn end_freeing(&mut self, bytes: u64) {
        self.freeing_bytes -= bytes;
    }

    /// The session whose transactions occupy most, if it has to pay for one that asks for more bytes: if it holds more
    /// than an equal `part`, and at least twice what that one would hold. So there is room for these once it has paid.
    pub(crate) fn payer_for(&self, session: SessionId, bytes: u64, part: u64) -> Option<SessionId> {
        let own = self.sessions.get(&session.place().index()).map_or(0, |(_, own)| *own);
        let (payer, most) = self.sessions.get(&self.ranking.largest()?)?;
        (*most > part && *most >= 2 * (own + bytes)).then_some(*payer)
    }
}

/// A frame that waits for COMMIT, with unescaped header lines.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    command: Command,
    lines: OwnedLines,
    has_backslash: bool,
    has_return: bool,
    body: Body,
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
    /// Copies a frame. A large body stays where it is, if it can be shared.
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        let lines = OwnedLines::copied(&frame.headers);
        Self {
            command: frame.command,
            lines,
            has_backslash: frame.has_backslash,
            has_return: frame.has_return,
            body: Body::new_apart(Lent { bytes: frame.body, shared: frame.shared }),
            plan: Plan::None,
        }
    }

    /// The frame, borrowed.
    pub(crate) fn frame(&self) -> Frame<'_> {
        let headers = self.lines.headers();
        let (has_backslash, has_return) = (self.has_backslash, self.has_return);
        let Lent { bytes: body, shared } = self.body.lent();
        Frame { command: self.command, headers, has_backslash, has_return, body, shared }
    }

    /// Memory of the frame, bookkeeping included.
    pub(crate) fn cost_bytes(&self) -> u64 {
        // The list of frames may have twice the room that it needs.
        let (lines, body) = (self.lines.cost_bytes(), self.body.cost_bytes());
        (2 * size_of::<Self>() + ALLOCATION_BYTES + lines + body) as u64
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
        assert_eq!(accounts.payer_for(session(9), 50, 299), Some(session(2)));
        assert_eq!(accounts.payer_for(session(9), 50, 300), None, "its equal part");
        assert_eq!(accounts.payer_for(session(9), 150, 0), Some(session(2)));
        assert_eq!(accounts.payer_for(session(9), 151, 0), None);
        assert_eq!(accounts.payer_for(session(0), 50, 0), Some(session(2)));
        assert_eq!(accounts.payer_for(session(0), 51, 0), None);
        assert_eq!(accounts.payer_for(session(2), 1, 0), None);
        accounts.set(session(2), 0);
        accounts.begin_commit(100);
        accounts.begin_freeing(200);
        assert_eq!(
            (accounts.open_bytes(), accounts.lasting_bytes(), accounts.bytes()),
            (300, 400, 600)
        );
        assert_eq!(accounts.payer_for(session(9), 50, 0), Some(session(1)));
        accounts.set(session(0), 0);
        accounts.set(session(1), 0);
        accounts.end_commit(100);
        accounts.end_freeing(200);
        assert_eq!((accounts.bytes(), accounts.payer_for(session(9), 1, 0)), (0, None));
    }
}
