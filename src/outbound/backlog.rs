//! What receivers did not take in the turn in which it was encoded, kept until they do.

use std::collections::VecDeque;
use std::rc::Rc;

use super::turn::{FrameEnd, FrameSlice};

/// Octets that are kept, by one queue or by several.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Box<[u8]>,
    /// Where frames end in it.
    pub(super) ends: Box<[FrameEnd]>,
    /// When what made the deliveries in it arrived.
    pub(super) arrived_ns: u64,
    /// Whether its first octets go on with a frame that the chunk before began.
    pub(super) begins_inside: bool,
}

impl Chunk {
    /// Copies frames that are whole, but for what is out of the first.
    pub(super) fn copied(slice: FrameSlice<'_>, arrived_ns: u64, begins_inside: bool) -> Self {
        let ends = slice.ends().map(|(at, is_delivery)| FrameEnd::new(at, is_delivery)).collect();
        Self { bytes: slice.bytes.into(), ends, arrived_ns, begins_inside }
    }

    /// Memory that it takes.
    pub(super) fn cost_bytes(&self) -> u64 {
        (size_of::<Self>() + self.bytes.len() + size_of_val(&*self.ends)) as u64
    }

    pub(super) fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(&self.bytes, &self.ends)
    }
}

/// One queue's chunks, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) chunks: VecDeque<Rc<Chunk>>,
    /// Octets of the first chunk that are out already.
    pub(super) sent: usize,
}

impl Backlog {
    /// How many octets are missing of a frame that is half out; zero, if none is. Where the frame
    /// goes on in the next chunk, those that are missing in the first.
    pub(super) fn half_out(&self) -> usize {
        let Some(first) = self.chunks.front() else { return 0 };
        let ends = first.as_slice().ends().map(|(at, _)| at);
        let before = ends.clone().take_while(|at| *at <= self.sent).last();
        let is_inside = match before {
            Some(at) => at < self.sent,
            None => self.sent > 0 || first.begins_inside,
        };
        if !is_inside {
            return 0;
        }
        ends.clone().find(|at| *at > self.sent).unwrap_or(first.bytes.len()) - self.sent
    }
}
