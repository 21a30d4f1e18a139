//! The interface to the engine: data of a connection goes in, and the number of frames and a verdict on the
//! connection come out.

use super::fault::CloseReason;
use super::ids::PeerId;
use crate::buffer::{Body, Lent};
use crate::dialect::Dialect;
use crate::stomp::Assembler;

/// A connection whose dialect is known.
#[derive(Debug)]
pub struct Speaker {
    /// The id of its state and its outbound queue.
    pub peer: PeerId,
    pub(super) inlet: Inlet,
}

/// How data is divided into frames.
#[derive(Debug)]
pub(super) enum Inlet {
    /// Data is one frame.
    Classic,
    /// As `Classic`, behind a wide message that has not begun: frames that can join it are handled. The first other
    /// one is held until it has ended; it is empty before there is one.
    Gathering(Body),
    /// Data is a part of a stream of frames; the assembler holds a torn frame.
    Standard(Box<Assembler>),
}

/// Data from a client: a frame of the classic dialect, or bytes of the standard one.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// The bytes.
    pub lent: Lent<'a>,
    /// Whether they arrived in a binary WebSocket message.
    pub is_binary: bool,
}

impl<'a> Data<'a> {
    /// Bytes of which whoever keeps them makes a copy.
    #[inline]
    pub fn unshared(bytes: &'a [u8]) -> Self {
        Self { lent: Lent::unshared(bytes), is_binary: false }
    }
}

/// The outcome of handling [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Frames that were handled.
    pub frames: u32,
    /// What becomes of the connection.
    pub verdict: Verdict,
    /// Whether the client is not to be handled any further in this turn: its share of the turn is used up
    /// while the inlet holds frames, or a job of its own runs. Then [`Broker::resume`](super::Broker::resume)
    /// goes on, before anything else of the connection is handled.
    pub pauses: bool,
}

/// What becomes of a connection after its data was handled or its client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays open.
    Stays,
    /// It has logged in.
    LoggedIn,
    /// It closes once its queue is written; its further data is dropped.
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

    /// Drops what is held for a torn frame, since the connection closes.
    pub fn drop_held(&mut self) {
        match &mut self.inlet {
            Inlet::Classic => {}
            Inlet::Gathering(_) => self.inlet = Inlet::Classic,
            Inlet::Standard(assembler) => **assembler = Assembler::default(),
        }
    }

    /// Memory for frames that have arrived only in part or are not handled yet.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        match &self.inlet {
            Inlet::Classic => 0,
            Inlet::Gathering(frame) => frame.cost_bytes(),
            Inlet::Standard(assembler) => assembler.held_bytes(),
        }
    }

    /// Bytes that have arrived of a frame that is not whole.
    pub fn unfinished_bytes(&self) -> usize {
        match &self.inlet {
            Inlet::Classic | Inlet::Gathering(_) => 0,
            Inlet::Standard(assembler) => assembler.unfinished_bytes(),
        }
    }
}

impl Done {
    /// The outcome of a frame after which the connection stays open.
    #[inline]
    pub(super) fn stays(pauses: bool) -> Self {
        Self { frames: 1, verdict: Verdict::Stays, pauses }
    }

    /// The outcome where nothing was left to handle.
    pub(super) fn nothing() -> Self {
        Self { frames: 0, verdict: Verdict::Stays, pauses: false }
    }

    /// The outcome for a connection that was closing already.
    #[cold] // few connections send while they close
    pub(super) fn ignored(reason: CloseReason) -> Self {
        Self { frames: 0, verdict: Verdict::Closing(reason), pauses: false }
    }
}
