//! What a connection sends to the broker, and the answer: how many frames that were, and what becomes of
//! the connection.

use super::fault::CloseReason;
use super::ids::PeerId;
use crate::dialect::Dialect;
use crate::stomp::Assembler;

/// A connection whose dialect is known.
#[derive(Debug)]
pub struct Speaker {
    /// Its state, and the queue of what it gets.
    pub peer: PeerId,
    pub(super) inlet: Inlet,
}

/// How data becomes frames.
#[derive(Debug)]
pub(super) enum Inlet {
    /// Data is exactly one frame.
    Classic,
    /// Frames are cut anywhere; torn ones wait here for the rest.
    Standard(Box<Assembler>),
}

/// Data from a client: a frame of the classic dialect, or bytes of the standard one.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether they came as a binary WebSocket message.
    pub is_binary: bool,
}

/// The outcome of handling [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Frames that were handled.
    pub frames: u32,
    /// What becomes of the connection.
    pub verdict: Verdict,
}

/// What becomes of a connection whose data was handled, or whose client was told of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as before.
    Stays,
    /// It is logged in now.
    LoggedIn,
    /// It closes once it has got what is queued; nothing more of its data is handled.
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
    /// Nothing was handled: the connection was closing already.
    #[cold]
    pub(super) fn ignored(reason: CloseReason) -> Self {
        Self { frames: 0, verdict: Verdict::Closing(reason) }
    }
}
