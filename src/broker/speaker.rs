//! What is said on a connection, and what becomes of the connection by it.

use super::fault::CloseReason;
use super::ids::PeerId;
use crate::dialect::Dialect;
use crate::stomp::Assembler;

/// A connection of which it is settled what it speaks.
#[derive(Debug)]
pub struct Speaker {
    /// Its state, and the queue of what it gets.
    pub peer: PeerId,
    pub(super) inlet: Inlet,
}

/// How what is said becomes frames.
#[derive(Debug)]
pub(super) enum Inlet {
    /// It comes as frames.
    Classic,
    /// It comes cut anywhere; frames that are torn wait here.
    Standard(Box<Assembler>),
}

/// What is said: a frame of the classic dialect, or bytes of the standard one.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether they came as a binary WebSocket message.
    pub is_binary: bool,
}

/// What became of [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Frames that were handled.
    pub frames: u32,
    /// What becomes of the connection.
    pub verdict: Verdict,
}

/// What becomes of a connection by what it said, or by what was found wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as before.
    Stays,
    /// It is logged in now.
    LoggedIn,
    /// It gets what is queued to it, and is closed; what it says from now on is not looked at.
    Closing(CloseReason),
}

impl Speaker {
    pub(super) fn new(peer: PeerId, dialect: Dialect) -> Self {
        let inlet = match dialect {
            Dialect::Classic => Inlet::Classic,
            Dialect::Standard => Inlet::Standard(Box::default()),
        };
        Self { peer, inlet }
    }

    /// Memory that is held for frames that have arrived only in part.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        match &self.inlet {
            Inlet::Classic => 0,
            Inlet::Standard(assembler) => assembler.held_bytes(),
        }
    }
}

impl Done {
    /// Nothing was looked at: the connection was closing already.
    #[cold]
    pub(super) fn ignored(reason: CloseReason) -> Self {
        Self { frames: 0, verdict: Verdict::Closing(reason) }
    }
}
