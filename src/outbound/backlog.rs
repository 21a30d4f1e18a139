//! Backlogs: frames that a receiver did not take in the turn that encoded them, kept until it does.
//!
//! Receivers that are equally slow share a chunk; its memory is counted once. A large body is a chunk from the
//! beginning, which refers to the buffer that it arrived in; all who are sent it share that.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use super::lanes::{Encoded, FrameEnd, FrameRun, FrameSlice, Written};
use crate::buffer::{Piece, shared_bytes};
use crate::text;
use crate::work;

/// Unsent frames, shared by the backlogs that hold them.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// Where frames end in `bytes`.
    ends: Vec<FrameEnd>,
    /// Arrival time of the first of the messages that are delivered here.
    arrived_ns: u64,
    /// Whether it begins with the rest of a frame whose beginning is in the chunk before.
    begins_inside: bool,
}

/// The bytes of a chunk.
#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    /// A large body, and whether it is UTF-8, once that was asked.
    Body(Piece, OnceCell<bool>),
}

/// The account of all chunks, and the newest one, which the next receiver may share.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The newest chunk that was copied from a lane, under its first frame and the number of frames.
    last: Option<((Encoded, u32), Rc<Chunk>)>,
    /// The chunks of large bodies.
    bodies: HashMap<(usize, usize, usize), Weak<Chunk>>,
    /// Memory of chunks, each counted once, and of the backlogs that refer to them.
    bytes: u64,
    /// Backlogs that nobody needs any more, to be freed piece by piece.
    doomed: Vec<Backlog>,
}

/// Bytes of backlogs that are freed in one go: pages that were not touched for long take long to free.
const FREED_BYTES_MAX: usize = 512 * 1024;

/// Memory of an entry for the chunk of a large body.
const BODY_ENTRY_BYTES: usize = 2 * size_of::<((usize, usize, usize), Weak<Chunk>)>();

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
        Self { bytes: Bytes::Own(slice.bytes.into()), ends, arrived_ns, begins_inside }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Body(piece, _) => piece.bytes(),
        }
    }

    /// Whether the bytes are UTF-8. It is found out once for a large body. Adds the work of that to `units`.
    pub(super) fn is_text(&self, units: &mut u32) -> bool {
        let mut find = || {
            *units += work::of_bytes(self.len());
            text::is_text(self.bytes())
        };
        match &self.bytes {
            Bytes::Own(_) => find(),
            Bytes::Body(piece, known) => *known.get_or_init(|| piece.is_known_as_text() || find()),
        }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Memory of the chunk, bookkeeping included.
    fn cost_bytes(&self) -> u64 {
        let ends = self.ends.capacity() * size_of::<FrameEnd>();
        let bytes = match &self.bytes {
            Bytes::Own(bytes) => bytes.capacity(),
            Bytes::Body(piece, _) => shared_bytes(piece.buffer()) + BODY_ENTRY_BYTES,
        };
        let allocated = bytes + ends + 3 * ALLOCATION_BYTES;
        (size_of::<Self>() + 2 * size_of::<usize>() + allocated) as u64
    }

    fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(self.bytes(), &self.ends)
    }

    /// Whether frames may follow here: whole ones, of about the same time, and not too many. The rest of a frame has a
    /// chunk of its own, as it may be all that is kept.
    fn takes(&self, bytes: usize, arrived_ns: u64) -> bool {
        !self.begins_inside
            && self.len() + bytes <= JOINED_BYTES_MAX
            && arrived_ns.abs_diff(self.arrived_ns) <= JOINED_NS_MAX
            && self.ends.last().is_some_and(|end| end.at() == self.len())
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

    /// The chunk of a large body: the same for all who are sent it, as long as one of them has not got it.
    pub(super) fn keep_body(&mut self, piece: &Piece) -> Rc<Chunk> {
        let place = piece.identity();
        if let Some(chunk) = self.bodies.get(&place).and_then(Weak::upgrade) {
            return chunk;
        }
        let bytes = Bytes::Body(piece.clone(), OnceCell::new());
        // A delivery counts where its frame ends.
        let chunk =
            self.keep(Chunk { bytes, ends: Vec::new(), arrived_ns: 0, begins_inside: true });
        self.bodies.insert(place, Rc::downgrade(&chunk));
        chunk
    }

    /// Drops a reference to a chunk; the last one takes it out of the account.
    fn release(&mut self, chunk: Rc<Chunk>) {
        if Rc::strong_count(&chunk) == 1 {
            self.bytes -= chunk.cost_bytes();
            if let Bytes::Body(piece, _) = &chunk.bytes {
                self.bodies.remove(&piece.identity());
                self.bodies.shrink_to(2 * self.bodies.len());
            }
        }
    }

    /// Drops the newest chunk, since the lanes that it was copied from are emptied.
    pub(super) fn end_turn(&mut self) {
        if let Some((_, chunk)) = self.last.take() {
            self.release(chunk);
        }
    }

    /// Drops a backlog of so many bytes. Returns the number of pieces of memory that were freed at most: a large one is
    /// left to [`Self::free_doomed`].
    pub(super) fn discard(&mut self, mut backlog: Backlog, bytes: u32) -> usize {
        if bytes as usize >= FREED_BYTES_MAX {
            self.doomed.push(backlog);
            return 0;
        }
        let pieces = backlog.len();
        while let Some(chunk) = backlog.pop(self) {
            self.release(chunk);
        }
        pieces
    }

    /// Whether there is anything for [`Self::free_doomed`].
    #[inline]
    pub(super) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// Frees some of what is doomed. Returns the number of pieces of memory that were freed at most.
    pub(super) fn free_doomed(&mut self) -> usize {
        let (mut pieces, mut bytes) = (0, 0);
        while bytes < FREED_BYTES_MAX
            && let Some(backlog) = self.doomed.last_mut()
        {
            let mut backlog = std::mem::take(backlog);
            while bytes < FREED_BYTES_MAX
                && let Some(chunk) = backlog.pop(self)
            {
                (pieces, bytes) = (pieces + 1, bytes + chunk.len());
                self.release(chunk);
            }
            self.doomed.pop();
            if !backlog.is_empty() {
                self.doomed.push(backlog);
            }
        }
        if self.doomed.is_empty() {
            self.doomed = Vec::new();
        }
        pieces
    }

    /// Memory of chunks, each counted once, and of the backlogs.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Panics if the account is wrong. `backlogs` are all that exist, but for those that are doomed.
    pub(super) fn check_invariants(&self, backlogs: &[&Backlog]) {
        let backlogs: Vec<_> = backlogs.iter().copied().chain(&self.doomed).collect();
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
        let bodies =
            costs.keys().filter(|chunk| self.bodies.values().any(|one| one.as_ptr() == **chunk));
        assert_eq!(bodies.count(), self.bodies.len(), "chunks of large bodies");
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
            let base = last.len();
            if let Bytes::Own(bytes) = &mut last.bytes {
                bytes.extend_from_slice(frames.bytes);
            }
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
        self.chunks.iter().zip(skips).map(|(chunk, skip)| &chunk.bytes()[skip..])
    }

    /// Appends unsent bytes to `into`, in whole chunks but for large bodies, until it holds `bytes_max` bytes or more.
    pub(super) fn stage(&self, bytes_max: usize, into: &mut FrameRun) {
        let mut skip = self.sent;
        for chunk in &self.chunks {
            if into.bytes.len() >= bytes_max {
                return;
            }
            let left = chunk.as_slice().without(std::mem::take(&mut skip));
            if matches!(chunk.bytes, Bytes::Body(..)) && left.bytes.len() > bytes_max {
                // Nothing follows until it is wholly written.
                return into.append(left.within(bytes_max));
            }
            into.append(left);
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
            let step = bytes.min(chunk.len() - self.sent);
            let before = chunk.as_slice().count_within(self.sent);
            let after = chunk.as_slice().count_within(self.sent + step);
            let (frames, deliveries) = (after.0 - before.0, after.1 - before.1);
            note(Written { arrived_ns: chunk.arrived_ns, frames, deliveries });
            frames_out += frames;
            bytes -= step;
            self.sent += step;
            if self.sent == chunk.len() {
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
        ends.clone().find(|at| *at > self.sent).unwrap_or(first.len()) - self.sent
    }

    /// Takes out the rest of a partly written frame, as a backlog of its own.
    pub(super) fn take_begun(&mut self, chunks: &mut Chunks) -> Option<Self> {
        let partial_bytes = self.partial_bytes();
        if partial_bytes == 0 {
            return None;
        }
        let first = self.pop(chunks)?;
        let sent = std::mem::take(&mut self.sent);
        let slice = first.as_slice().without(sent).within(partial_bytes);
        let mut ends = slice.ends().next().is_some();
        let mut begun = Self::default();
        if matches!(first.bytes, Bytes::Body(..)) {
            begun.push(first, sent, chunks);
        } else {
            let copy = chunks.keep(Chunk::copied(slice, first.arrived_ns, true));
            begun.push(copy, 0, chunks);
            chunks.release(first);
        }
        // A frame that continues in the next chunks is the whole of them (`keep_parts`, `push_large`).
        while !ends && let Some(rest) = self.pop(chunks) {
            ends = !rest.ends.is_empty();
            begun.push(rest, 0, chunks);
        }
        Some(begun)
    }

    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Unsent bytes, and frames that are not wholly written.
    pub(super) fn count(&self) -> (usize, usize) {
        let mut sent = self.sent;
        self.chunks.iter().fold((0, 0), |(bytes, frames), chunk| {
            assert!(sent < chunk.len(), "a wholly written chunk is removed");
            let left = chunk.as_slice().without(std::mem::take(&mut sent));
            (bytes + left.bytes.len(), frames + left.ends().count())
        })
    }
}
