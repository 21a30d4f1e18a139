//! What is encoded in one turn of the loop. Frames that are alike stand side by side in a lane, so
//! that frames which follow each other to one receiver are one run of bytes; when the turn is
//! flushed all lanes are empty again, their memory kept for the next.
//!
//! ```text
//! lane   frame│frame│frame│frame│…       ends  ─┬─────┬─────┬─────┬─
//!        └────┬─────┘                           frame by frame
//!             run of one receiver
//! ```

use super::framing::Framing;

/// Where frames of one kind stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(u8);

impl LaneId {
    /// Lanes of one encoding: its messages in each framing, and tails with and without an end.
    const PER_ENCODING: usize = Framing::COUNT + 2;

    const COUNT: usize = Self::ENCODINGS * Self::PER_ENCODING + Framing::COUNT;

    /// How many encodings of messages there may be.
    pub const ENCODINGS: usize = 4;

    /// The lane of messages in one encoding, each with its framing.
    #[inline]
    pub fn messages(encoding: usize, framing: Framing) -> Self {
        debug_assert!(encoding < Self::ENCODINGS);
        Self((encoding * Self::PER_ENCODING + framing as usize) as u8)
    }

    /// The lane of what messages in one encoding have in common behind heads of their own, for
    /// framings that put the same behind a frame.
    #[inline]
    pub fn tails(encoding: usize, framing: Framing) -> Self {
        debug_assert!(encoding < Self::ENCODINGS);
        let place = Framing::COUNT + usize::from(framing.has_end());
        Self((encoding * Self::PER_ENCODING + place) as u8)
    }

    /// The lane of frames that only one client gets and that are no deliveries.
    #[inline]
    pub fn private(framing: Framing) -> Self {
        Self((Self::ENCODINGS * Self::PER_ENCODING + framing as usize) as u8)
    }

    #[inline]
    pub(super) fn holds_deliveries(self) -> bool {
        usize::from(self.0) < Self::ENCODINGS * Self::PER_ENCODING
    }
}

/// A frame, or a tail, that was encoded in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub(super) lane: LaneId,
    /// Whether it is UTF-8, where that matters: of tails only.
    pub(super) text: bool,
    /// `from ≤ to`, both in the lane.
    pub(super) from: u32,
    pub(super) to: u32,
    /// The place of its end among the lane's.
    pub(super) index: u32,
}

impl Encoded {
    /// Bytes.
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

    /// Where, in bytes.
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

/// Frames that are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// When what made the deliveries among them arrived.
    pub arrived_ns: u64,
    /// How many frames.
    pub frames: u32,
    /// How many of them deliver a message.
    pub deliveries: u32,
}

/// Frames side by side, and where each ends; `ends` ascend, and the last is `bytes.len()` but while a
/// frame is written.
#[derive(Debug, Default)]
pub struct FrameRun {
    /// The frames.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<FrameEnd>,
}

impl FrameRun {
    /// Forgets what is in it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Copies frames behind the others.
    pub(super) fn append(&mut self, slice: FrameSlice<'_>) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(slice.bytes);
        self.ends.extend(slice.ends().map(|(at, delivers)| FrameEnd::new(base + at, delivers)));
    }

    /// All of it.
    pub fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(&self.bytes, &self.ends)
    }
}

/// Whole frames, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FrameSlice<'a> {
    /// The frames.
    pub bytes: &'a [u8],
    /// Where each ends, less `base`.
    ends: &'a [FrameEnd],
    base: usize,
}

impl<'a> FrameSlice<'a> {
    pub(super) fn new(bytes: &'a [u8], ends: &'a [FrameEnd]) -> Self {
        Self { bytes, ends, base: 0 }
    }

    /// Bytes in which no frame ends that matters.
    pub fn unbroken(bytes: &'a [u8]) -> Self {
        Self::new(bytes, &[])
    }

    /// Where each frame ends in `bytes`, and whether it delivers a message.
    pub fn ends(self) -> impl Iterator<Item = (usize, bool)> + Clone + 'a {
        self.ends.iter().map(move |end| (end.at() - self.base, end.is_delivery()))
    }

    /// How many frames end within the first `bytes`, and how many of them deliver a message.
    pub fn count_within(self, bytes: usize) -> (u32, u32) {
        let ended = self.ends().take_while(|(at, _)| *at <= bytes);
        ended.fold((0, 0), |(frames, deliveries), (_, is_delivery)| {
            (frames + 1, deliveries + u32::from(is_delivery))
        })
    }

    /// The first `bytes`, and the frames that end there.
    pub(super) fn within(self, bytes: usize) -> Self {
        let ended = self.ends.partition_point(|end| end.at() - self.base <= bytes);
        Self { bytes: &self.bytes[..bytes], ends: &self.ends[..ended], base: self.base }
    }

    /// Without the first `bytes`; frames that end there are gone.
    pub fn without(self, bytes: usize) -> Self {
        let gone = self.ends.partition_point(|end| end.at() - self.base <= bytes);
        Self { bytes: &self.bytes[bytes..], ends: &self.ends[gone..], base: self.base + bytes }
    }
}

/// Everything that is encoded in a turn.
#[derive(Debug)]
pub(super) struct Turn {
    lanes: [FrameRun; LaneId::COUNT],
    /// A bit for each lane that holds something.
    used: u32,
    /// Bytes in all lanes.
    bytes: usize,
    /// Whether a turn has left lanes that are worth returning.
    has_slack: bool,
}

impl Turn {
    /// Encodes a frame with its framing, or a tail with what goes behind a frame.
    #[inline(always)]
    pub(super) fn encode(&mut self, lane: LaneId, write: impl FnOnce(&mut Vec<u8>)) -> Encoded {
        self.used |= 1 << lane.0;
        let run = &mut self.lanes[usize::from(lane.0)];
        let (from, index) = (run.bytes.len(), run.ends.len());
        write(&mut run.bytes);
        let to = run.bytes.len();
        run.ends.push(FrameEnd::new(to, lane.holds_deliveries()));
        self.bytes += to - from;
        Encoded { lane, text: false, from: from as u32, to: to as u32, index: index as u32 }
    }

    pub(super) fn bytes_of(&self, encoded: Encoded) -> &[u8] {
        &self.lanes[usize::from(encoded.lane.0)].bytes[encoded.from as usize..encoded.to as usize]
    }

    /// Frames that stand side by side: the first of them, and where the last ends.
    pub(super) fn slice(&self, first: Encoded, frames: u32) -> FrameSlice<'_> {
        let lane = &self.lanes[usize::from(first.lane.0)];
        let ends = &lane.ends[first.index as usize..(first.index + frames) as usize];
        let (from, to) =
            (first.from as usize, ends.last().map_or(first.from as usize, |end| end.at()));
        FrameSlice { bytes: &lane.bytes[from..to], ends, base: from }
    }

    /// Frames that stand side by side, one by one.
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

    /// Bytes that were encoded and not flushed yet.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties the lanes, and keeps of each no more memory than a usual turn needs.
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

    /// Whether the lanes hold so much memory that it is worth returning.
    pub(super) fn has_slack(&self) -> bool {
        self.has_slack
    }

    /// Gives all memory back.
    pub(super) fn trim(&mut self) {
        if self.used == 0 {
            *self = Self::default();
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|_| FrameRun::default()),
            used: 0,
            bytes: 0,
            has_slack: false,
        }
    }
}

/// What a turn may encode without leaving anything to give back.
const SLACK_BYTES_MAX: usize = 16 * 1024;

/// What a lane keeps from turn to turn.
const LANE_KEPT_BYTES: usize = 1024 * 1024;
const LANE_KEPT_ENDS: usize = 64 * 1024;
