//! Transactions of the standard dialect: frames that wait for their COMMIT.

use crate::stomp::frame::OwnedLines;
use crate::stomp::{Command, Frame};

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The client's id for it.
    pub id: Box<[u8]>,
    /// Its frames, in the order of arrival.
    pub frames: Vec<HeldFrame>,
    /// Memory of `frames`.
    pub bytes: u64,
}

/// A frame that waits for COMMIT, with unescaped header lines.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    command: Command,
    lines: OwnedLines,
    has_backslash: bool,
    body: Box<[u8]>,
}

impl HeldFrame {
    /// Copies a frame.
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        let lines = OwnedLines::copied(&frame.headers);
        let has_backslash = frame.has_backslash;
        Self { command: frame.command, lines, has_backslash, body: frame.body.into() }
    }

    /// The frame, borrowed.
    pub(crate) fn frame(&self) -> Frame<'_> {
        let headers = self.lines.headers();
        let has_backslash = self.has_backslash;
        Frame { command: self.command, headers, has_backslash, body: &self.body }
    }

    /// Memory of the frame, bookkeeping included.
    pub(crate) fn cost_bytes(&self) -> u64 {
        (size_of::<Self>() + self.lines.cost_bytes() + self.body.len()) as u64
    }
}
