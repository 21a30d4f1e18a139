//! Lanes: buffers for the frames that one turn of the loop encodes. Frames of one encoding and framing
//! stand side by side, so that those which follow each other to one receiver are one run of bytes.
//! After the flush the lanes are emptied; their memory is kept for the next turn.
//!
//! ```text
//! lane   frame│frame│frame│frame│…       ends  ─┬─────┬─────┬─────┬─
//!        └────┬─────┘                           frame by frame
//!             run of one receiver
//! ```

use super::framing::Framing;
use crate::buffer::Piece;

/// A lane, by encoding and framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(u8);

impl LaneId {
    /// Lanes of one encoding: messages in each framing, tails with an end, and tails without one.
    const PER_ENCODING: usize = Framing::COUNT + 2;

    const COUNT: usize = Self::ENCODINGS * Self::PER_ENCODING + Framing::COUNT;

    /// Number of message encodings that there may be.
    pub const ENCODINGS: usize = 4;

    /// The lane of messages of one encoding and framing.
    #[inline]
    pub fn messages(encoding: usize, framing: Framing) -> Self {
        debug_assert!(encoding < Self::ENCODINGS);
        Self((encoding * Self::PER_ENCODING + framing as usize) as u8)
    }

    /// The lane of tails of one encoding, for all framings with the same end.
    #[inline]
    pub fn tails(encoding: usize, framing: Framing) -> Self {
        debug_assert!(encoding < Self::ENCODINGS);
        let place = Framing::COUNT + usize::from(framing.has_end());
        Self((encoding * Self::PER_ENCODING + place) as u8)
    }

    /// The lane of frames for one client alone that do not deliver a message.
    #[inline]
    pub fn private(framing: Framing) -> Self {
        Self((Self::ENCODINGS * Self::PER_ENCODING + framing as usize) as u8)
    }

    #[inline]
    pub(super) fn holds_deliveries(self) -> bool {
        usize::from(self.0) < Self::ENCODINGS * Self::PER_ENCODING
    }
}

/// A frame or a tail that was encoded in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub(super) lane: LaneId,
    /// Whether a tail is UTF-8; always false for a frame.
    pub(super) text: bool,
    /// Byte range in the lane; `from ≤ to`.
    pub(super) from: u32,
    pub(super) to: u32,
    /// Index of its end in the lane's `ends`.
    pub(super) index: u32,
}

impl Encoded {
    /// Size in bytes.
    pub(super) fn len(&self) -> u32 {
        self.to - self.from
    }
}

/// Where a frame ends, and whether it delivers a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEnd(u32);

impl FrameEnd {
    const DELIVERY: u32 = 1 << 31;

    #[inline]
    pub(super) fn new(at: usize, is_delivery: bool) -> Self {
        Self(at as u32 | if is_delivery { Self::DELIVERY } else { 0 })
    }

    /// Offset of the end, in bytes.
    #[inline]
    pub fn at(self) -> usize {
        (self.0 & !Self::DELIVERY) as usize
    }

    /// Whether it delivers a message.
    #[inline]
    pub fn is_delivery(self) -> bool {
        self.0 & Self::DELIVERY != 0
    }
}

/// Frames that the kernel has taken wholly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Arrival time of the messages that were delivered.
    pub arrived_ns: u64,
    /// Number of frames.
    pub frames: u32,
    /// Number of frames that deliver a message.
    pub deliveries: u32,
}

/// Frames side by side, and where each ends. `ends` ascend; the last one is `bytes.len()`, except while
/// a frame is being written.
#[derive(Debug, Default)]
pub struct FrameRun {
    /// The frames.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<FrameEnd>,
}

impl FrameRun {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends a copy of frames.
    pub(super) fn append(&mut self, slice: FrameSlice<'_>) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(slice.bytes);
        self.ends.extend(slice.ends().map(|(at, delivers)| FrameEnd::new(base + at, delivers)));
    }

    /// Borrows all frames.
    pub fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(&self.bytes, &self.ends)
    }
}

/// Whole frames, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FrameSlice<'a> {
    /// The frames.
    pub bytes: &'a [u8],
    /// Where each ends; `base` has to be subtracted.
    ends: &'a [FrameEnd],
    base: usize,
}

impl<'a> FrameSlice<'a> {
    pub(super) fn new(bytes: &'a [u8], ends: &'a [FrameEnd]) -> Self {
        Self { bytes, ends, base: 0 }
    }

    /// Bytes in which the ends of frames do not matter.
    pub fn unbroken(bytes: &'a [u8]) -> Self {
        Self::new(bytes, &[])
    }

    /// Where each frame ends in `bytes`, and whether it delivers a message.
    pub fn ends(self) -> impl Iterator<Item = (usize, bool)> + Clone + 'a {
        self.ends.iter().map(move |end| (end.at() - self.base, end.is_delivery()))
    }

    /// Number of frames that end within the first `bytes`, and of the deliveries among them.
    pub fn count_within(self, bytes: usize) -> (u32, u32) {
        let ended = self.ends().take_while(|(at, _)| *at <= bytes);
        ended.fold((0, 0), |(frames, deliveries), (_, is_delivery)| {
            (frames + 1, deliveries + u32::from(is_delivery))
        })
    }

    /// The first `bytes`, and the ends in them.
    pub fn within(self, bytes: usize) -> Self {
        let ended = self.ends.partition_point(|end| end.at() - self.base <= bytes);
        Self { bytes: &self.bytes[..bytes], ends: &self.ends[..ended], base: self.base }
    }

    /// What follows the first `bytes`, and the ends behind them.
    pub fn without(self, bytes: usize) -> Self {
        let gone = self.ends.partition_point(|end| end.at() - self.base <= bytes);
        Self { bytes: &self.bytes[bytes..], ends: &self.ends[gone..], base: self.base + bytes }
    }
}

/// A frame whose body is large and in a buffer of its own, so that it is not copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LargeFrame<'a> {
    /// What is before the body.
    pub head: &'a [u8],
    /// The body.
    pub body: &'a Piece,
    /// What is behind it, with the NUL that ends the frame.
    pub end: &'a [u8],
    /// Whether the body is UTF-8, if that is known.
    pub is_text: Option<bool>,
    /// Whether it delivers a message.
    pub is_delivery: bool,
}

impl<'a> LargeFrame<'a> {
    /// A message, which a NUL ends behind its body.
    pub(crate) fn message(head: &'a [u8], body: &'a Piece) -> Self {
        Self { head, body, end: &[0], is_text: None, is_delivery: true }
    }
}

/// The lanes of a turn.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: [FrameRun; LaneId::COUNT],
    /// A bit for each lane that is not empty.
    used: u32,
    /// Bytes in all lanes.
    bytes: usize,
    /// Whether a turn has left memory that is worth freeing.
    has_slack: bool,
}

impl Lanes {
    /// Encodes a frame with its framing, or a tail with the end of a frame.
    #[inline(always)] // once a message, with the encoder as a closure
    pub(super) fn encode(&mut self, lane: LaneId, write: impl FnOnce(&mut Vec<u8>)) -> Encoded {
        self.used |= 1 << lane.0;
        let run = &mut self.lanes[usize::from(lane.0)];
        let (from, index) = (run.bytes.len(), run.ends.len());
        write(&mut run.bytes);
        let to = run.bytes.len();
        check_position(to);
        run.ends.push(FrameEnd::new(to, lane.holds_deliveries()));
        self.bytes += to - from;
        Encoded { lane, text: false, from: from as u32, to: to as u32, index: index as u32 }
    }

    pub(super) fn bytes_of(&self, encoded: Encoded) -> &[u8] {
        &self.lanes[usize::from(encoded.lane.0)].bytes[encoded.from as usize..encoded.to as usize]
    }

    /// A run of frames that begins with `first`.
    pub(super) fn slice(&self, first: Encoded, frames: u32) -> FrameSlice<'_> {
        let lane = &self.lanes[usize::from(first.lane.0)];
        let ends = &lane.ends[first.index as usize..(first.index + frames) as usize];
        let (from, to) =
            (first.from as usize, ends.last().map_or(first.from as usize, |end| end.at()));
        FrameSlice { bytes: &lane.bytes[from..to], ends, base: from }
    }

    /// The frames of a run, one by one.
    pub(super) fn each(&self, first: Encoded, frames: u32) -> impl Iterator<Item = Encoded> {
        let lane = &self.lanes[usize::from(first.lane.0)];
        let ends = &lane.ends[first.index as usize..(first.index + frames) as usize];
        let mut next = first;
        ends.iter().map(move |end| {
            let one = Encoded { to: end.at() as u32, ..next };
            next = Encoded { from: one.to, index: one.index + 1, ..one };
            one
        })
    }

    /// Bytes in all lanes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties the lanes, each of which keeps no more memory than a usual turn needs.
    pub(super) fn clear(&mut self) {
        while self.used != 0 {
            let lane = &mut self.lanes[self.used.trailing_zeros() as usize];
            lane.clear();
            if lane.bytes.capacity() > LANE_KEPT_BYTES {
                lane.bytes.shrink_to(LANE_KEPT_BYTES);
                lane.ends.shrink_to(LANE_KEPT_ENDS);
            }
            self.used &= self.used - 1;
        }
        self.has_slack |= self.bytes > SLACK_BYTES_MAX;
        self.bytes = 0;
    }

    /// Whether a turn has left memory that is worth freeing.
    pub(super) fn has_slack(&self) -> bool {
        self.has_slack
    }

    /// Frees all memory, if the lanes are empty.
    pub(super) fn trim(&mut self) {
        if self.used == 0 {
            *self = Self::default();
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|_| FrameRun::default()),
            used: 0,
            bytes: 0,
            has_slack: false,
        }
    }
}

/// The largest position in a lane: the highest bit of a [`FrameEnd`] is not a part of it.
const POSITION_MAX: usize = FrameEnd::DELIVERY as usize - 1;

/// Panics if a position is too large: a step has encoded more than the limits on frames and on queues allow.
#[inline]
pub(super) fn check_position(at: usize) {
    if at > POSITION_MAX {
        too_much();
    }
}

#[cold]
#[inline(never)] // keeps the panic out of each frame
fn too_much() -> ! {
    panic!("more is encoded than lanes have positions for: who encodes asks whether they are full")
}

/// Bytes that a turn may encode without leaving memory that is worth freeing.
const SLACK_BYTES_MAX: usize = 16 * 1024;

/// Capacity that a lane keeps from turn to turn.
const LANE_KEPT_BYTES: usize = 1024 * 1024;
const LANE_KEPT_ENDS: usize = 64 * 1024;
