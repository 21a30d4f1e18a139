//! Backlogs: frames that a receiver did not take in the turn that encoded them, kept until it does.
//!
//! Receivers that are equally slow share a chunk; its memory is counted once.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::lanes::{Encoded, FrameEnd, FrameRun, FrameSlice, Written};

/// Unsent frames, shared by the backlogs that hold them.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// Where frames end in `bytes`.
    ends: Vec<FrameEnd>,
    /// Arrival time of the first of the messages that are delivered here.
    arrived_ns: u64,
    /// Whether it begins with the rest of a frame whose beginning is in the chunk before.
    begins_inside: bool,
}

/// The account of all chunks, and the newest one, which the next receiver may share.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The newest chunk that was copied from a lane, under its first frame and the number of frames.
    last: Option<((Encoded, u32), Rc<Chunk>)>,
    /// Memory of chunks, each counted once, and of the backlogs that refer to them.
    bytes: u64,
}

/// Overhead of an allocator for each small allocation.
const ALLOCATION_BYTES: usize = 16;

/// Memory of a backlog with room for a few chunks.
const BACKLOG_BYTES: u64 = (size_of::<Backlog>() + 2 * ALLOCATION_BYTES) as u64;

/// Memory of a reference to a chunk: there may be twice the room that is needed.
const REFERENCE_BYTES: u64 = 2 * size_of::<Rc<Chunk>>() as u64;

/// References that a backlog keeps room for when it gets shorter.
const REFERENCES_KEPT: usize = 32;

/// One queue's chunks, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Rc<Chunk>>,
    /// Bytes of the first chunk that are written already.
    sent: usize,
}

impl Chunk {
    /// Copies frames. With `begins_inside`, the slice begins with the rest of a frame.
    pub(super) fn copied(slice: FrameSlice<'_>, arrived_ns: u64, begins_inside: bool) -> Self {
        let ends = slice.ends().map(|(at, is_delivery)| FrameEnd::new(at, is_delivery)).collect();
        Self { bytes: slice.bytes.into(), ends, arrived_ns, begins_inside }
    }

    /// Memory of the chunk, bookkeeping included.
    fn cost_bytes(&self) -> u64 {
        let ends = self.ends.capacity() * size_of::<FrameEnd>();
        let allocated = self.bytes.capacity() + ends + 3 * ALLOCATION_BYTES;
        (size_of::<Self>() + 2 * size_of::<usize>() + allocated) as u64
    }

    fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(&self.bytes, &self.ends)
    }

    /// Whether frames may follow here: whole ones, of about the same time, and not too many. The rest of a frame has a
    /// chunk of its own, as it may be all that is kept.
    fn takes(&self, bytes: usize, arrived_ns: u64) -> bool {
        !self.begins_inside
            && self.bytes.len() + bytes <= JOINED_BYTES_MAX
            && arrived_ns.abs_diff(self.arrived_ns) <= JOINED_NS_MAX
            && self.ends.last().is_some_and(|end| end.at() == self.bytes.len())
    }
}

/// Size up to which frames of several turns are put into one chunk: chunks of a few bytes each would cost a slow
/// receiver several times their size, and time to free.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// Time within which their messages must have arrived, so that latencies stay right.
const JOINED_NS_MAX: u64 = 10_000_000;

impl Chunks {
    /// Adds a chunk to the account.
    pub(super) fn keep(&mut self, chunk: Chunk) -> Rc<Chunk> {
        self.bytes += chunk.cost_bytes();
        Rc::new(chunk)
    }

    /// The newest chunk if it holds the same frames, otherwise a new one.
    pub(super) fn keep_shared(
        &mut self,
        frames: (Encoded, u32),
        copy: impl FnOnce() -> Chunk,
    ) -> Rc<Chunk> {
        if let Some((made, chunk)) = &self.last
            && *made == frames
        {
            return Rc::clone(chunk);
        }
        let chunk = self.keep(copy());
        if let Some((_, other)) = self.last.replace((frames, Rc::clone(&chunk))) {
            self.release(other);
        }
        chunk
    }

    /// Drops a reference to a chunk; the last one takes it out of the account.
    fn release(&mut self, chunk: Rc<Chunk>) {
        if Rc::strong_count(&chunk) == 1 {
            self.bytes -= chunk.cost_bytes();
        }
    }

    /// Drops the newest chunk, since the lanes that it was copied from are emptied.
    pub(super) fn end_turn(&mut self) {
        if let Some((_, chunk)) = self.last.take() {
            self.release(chunk);
        }
    }

    /// Memory of chunks, each counted once, and of the backlogs.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Panics if the account is wrong. `backlogs` are all that exist.
    pub(super) fn check_invariants(&self, backlogs: &[&Backlog]) {
        let kept = backlogs.iter().flat_map(|backlog| &backlog.chunks);
        let kept = kept.chain(self.last.iter().map(|(_, chunk)| chunk));
        let costs: HashMap<_, _> =
            kept.map(|chunk| (Rc::as_ptr(chunk), chunk.cost_bytes())).collect();
        let own = backlogs.iter().map(|backlog| match backlog.chunks.len() as u64 {
            0 => 0,
            references => BACKLOG_BYTES + references * REFERENCE_BYTES,
        });
        let all = costs.values().sum::<u64>() + own.sum::<u64>();
        assert_eq!(all, self.bytes, "memory of backlogs");
    }
}

impl Backlog {
    /// Appends a chunk. `sent` bytes of it are written already, if it is the first.
    pub(super) fn push(&mut self, chunk: Rc<Chunk>, sent: usize, chunks: &mut Chunks) {
        if self.chunks.is_empty() {
            self.sent = sent;
            chunks.bytes += BACKLOG_BYTES;
        }
        chunks.bytes += REFERENCE_BYTES;
        self.chunks.push_back(chunk);
    }

    /// Appends a copy of whole frames, to the last chunk if that is this backlog's alone and takes them.
    pub(super) fn append(&mut self, frames: FrameSlice<'_>, arrived_ns: u64, chunks: &mut Chunks) {
        if let Some(last) = self.chunks.back_mut().and_then(Rc::get_mut)
            && last.takes(frames.bytes.len(), arrived_ns)
        {
            chunks.bytes -= last.cost_bytes();
            let base = last.bytes.len();
            last.bytes.extend_from_slice(frames.bytes);
            last.ends
                .extend(frames.ends().map(|(at, delivers)| FrameEnd::new(base + at, delivers)));
            chunks.bytes += last.cost_bytes();
            return;
        }
        let chunk = chunks.keep(Chunk::copied(frames, arrived_ns, false));
        self.push(chunk, 0, chunks);
    }

    /// The number of chunks.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Removes the first chunk; the caller releases it.
    fn pop(&mut self, chunks: &mut Chunks) -> Option<Rc<Chunk>> {
        let first = self.chunks.pop_front()?;
        chunks.bytes -= REFERENCE_BYTES;
        if self.chunks.is_empty() {
            chunks.bytes -= BACKLOG_BYTES;
        } else if self.chunks.capacity() > 4 * self.chunks.len() + REFERENCES_KEPT {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
        Some(first)
    }

    /// About what its chunks would free, of which others share some: judged by the first few.
    pub(super) fn share_of(&self, bytes: u64) -> u64 {
        let looked_at = self.chunks.iter().take(4);
        let (count, parts) = looked_at.fold((0, 0), |(count, parts), chunk| {
            (count + 1, parts + 1024 / Rc::strong_count(chunk) as u64)
        });
        if count == 0 { bytes } else { bytes * parts / (1024 * count) }
    }

    /// Unsent bytes, chunk by chunk.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let skips = std::iter::once(self.sent).chain(std::iter::repeat(0));
        self.chunks.iter().zip(skips).map(|(chunk, skip)| &chunk.bytes[skip..])
    }

    /// Appends unsent bytes to `into`, in whole chunks, until it holds `bytes_max` bytes or more.
    pub(super) fn stage(&self, bytes_max: usize, into: &mut FrameRun) {
        let mut skip = self.sent;
        for chunk in &self.chunks {
            if into.bytes.len() >= bytes_max {
                return;
            }
            into.append(chunk.as_slice().without(skip));
            skip = 0;
        }
    }

    /// Removes the first `bytes`, which are written, and reports them to `note` chunk by chunk. Returns
    /// the number of frames that ended in them.
    pub(super) fn advance(
        &mut self,
        mut bytes: usize,
        chunks: &mut Chunks,
        mut note: impl FnMut(Written),
    ) -> u32 {
        let mut frames_out = 0;
        while bytes > 0
            && let Some(chunk) = self.chunks.front()
        {
            let step = bytes.min(chunk.bytes.len() - self.sent);
            let before = chunk.as_slice().count_within(self.sent);
            let after = chunk.as_slice().count_within(self.sent + step);
            let (frames, deliveries) = (after.0 - before.0, after.1 - before.1);
            note(Written { arrived_ns: chunk.arrived_ns, frames, deliveries });
            frames_out += frames;
            bytes -= step;
            self.sent += step;
            if self.sent == chunk.bytes.len() {
                self.sent = 0;
                self.pop(chunks).into_iter().for_each(|chunk| chunks.release(chunk));
            }
        }
        frames_out
    }

    /// Unsent bytes of a partly written frame that are in the first chunk; zero if no frame is partly
    /// written.
    pub(super) fn partial_bytes(&self) -> usize {
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

    /// Takes out the rest of a partly written frame, as a backlog of its own.
    pub(super) fn take_begun(&mut self, chunks: &mut Chunks) -> Option<Self> {
        let partial_bytes = self.partial_bytes();
        if partial_bytes == 0 {
            return None;
        }
        let first = self.pop(chunks)?;
        let slice = first.as_slice().without(self.sent).within(partial_bytes);
        let ends_here = slice.ends().next().is_some();
        let mut begun = Self::default();
        let copy = chunks.keep(Chunk::copied(slice, first.arrived_ns, true));
        begun.push(copy, 0, chunks);
        chunks.release(first);
        self.sent = 0;
        // A frame that continues in the next chunk is that whole chunk (`keep_parts`).
        if !ends_here && let Some(rest) = self.pop(chunks) {
            begun.push(rest, 0, chunks);
        }
        Some(begun)
    }

    /// Drops all chunks.
    pub(super) fn discard(mut self, chunks: &mut Chunks) {
        while let Some(chunk) = self.pop(chunks) {
            chunks.release(chunk);
        }
    }

    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Unsent bytes, and frames that are not wholly written.
    pub(super) fn count(&self) -> (usize, usize) {
        let mut sent = self.sent;
        self.chunks.iter().fold((0, 0), |(bytes, frames), chunk| {
            assert!(sent < chunk.bytes.len(), "a wholly written chunk is removed");
            let left = chunk.as_slice().without(std::mem::take(&mut sent));
            (bytes + left.bytes.len(), frames + left.ends().count())
        })
    }
}
