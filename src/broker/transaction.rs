//! Transactions of the standard dialect: frames that wait for their COMMIT.

use crate::stomp::frame::OwnedLines;
use crate::stomp::{Command, Frame};

/// A transaction that was begun.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// What the client calls it.
    pub id: Box<[u8]>,
    /// What waits, in the order of arrival.
    pub frames: Vec<HeldFrame>,
    /// Bytes of `frames`.
    pub bytes: u64,
}

/// A frame that waits, its header lines as the client meant them.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    command: Command,
    lines: OwnedLines,
    has_backslash: bool,
    body: Box<[u8]>,
}

impl HeldFrame {
    /// Keeps a frame.
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        let lines = OwnedLines::copied(&frame.headers);
        let has_backslash = frame.has_backslash;
        Self { command: frame.command, lines, has_backslash, body: frame.body.into() }
    }

    /// The frame, to be handled.
    pub(crate) fn frame(&self) -> Frame<'_> {
        let headers = self.lines.headers();
        let has_backslash = self.has_backslash;
        Frame { command: self.command, headers, has_backslash, body: &self.body }
    }

    /// Bytes that it holds.
    pub(crate) fn cost_bytes(&self) -> u64 {
        (size_of::<Self>() + self.lines.cost_bytes() + self.body.len()) as u64
    }
}
