//! The queue of one connection. What is in it is in the [arena](super::OutboundArena).

use super::backlog::Backlog;
use super::{NONE, Written};

/// One connection's frames, oldest first: the backlog of earlier turns, then the runs of this turn.
#[derive(Debug)]
pub struct OutboundQueue {
    /// First and last run of this turn; both [`NONE`] if there is none.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Unsent bytes.
    pub(super) bytes: u32,
    /// Frames that are not wholly written.
    pub(super) frames: u32,
    /// Deliveries among the frames of this turn.
    pub(super) deliveries: u32,
    pub(super) backlog: Option<Box<Backlog>>,
}

impl OutboundQueue {
    /// Unsent bytes, framing included.
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Frames that are not wholly written.
    #[inline]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// About the memory that is free once its frames are dropped: others share some of it.
    pub fn own_bytes(&self) -> u64 {
        let bytes = u64::from(self.bytes);
        self.backlog.as_ref().map_or(bytes, |backlog| backlog.share_of(bytes))
    }

    /// Whether frames of earlier turns are unsent.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether it holds frames of this turn.
    #[inline]
    pub fn has_runs(&self) -> bool {
        self.first != NONE
    }

    /// Accounts for this turn's frames having moved to the backlog, except the `sent` bytes.
    pub(super) fn note_kept(&mut self, written: Written, sent: usize) {
        self.bytes -= sent as u32;
        self.frames -= written.frames;
        (self.first, self.last, self.deliveries) = (NONE, NONE, 0);
    }
}

impl Default for OutboundQueue {
    fn default() -> Self {
        Self { first: NONE, last: NONE, bytes: 0, frames: 0, deliveries: 0, backlog: None }
    }
}
