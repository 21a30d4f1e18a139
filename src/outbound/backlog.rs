//! What receivers did not take in the turn in which it was encoded, kept until they do.
//!
//! Receivers that are equally slow share a chunk, and the memory that it takes is counted once.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::turn::{Encoded, FrameEnd, FrameRun, FrameSlice, Out};

/// Bytes that are kept, by one queue or by several.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    /// Where frames end in it.
    ends: Box<[FrameEnd]>,
    /// When what made the deliveries in it arrived.
    arrived_ns: u64,
    /// Whether its first bytes go on with a frame that the chunk before began.
    begins_inside: bool,
}

/// What the chunks of all backlogs take, and the one that the next receiver may share.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The chunk that was made last of frames in a lane: the first of them, and how many.
    last: Option<((Encoded, u32), Rc<Chunk>)>,
    /// Memory of chunks, each counted once.
    bytes: u64,
}

/// One queue's chunks, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Rc<Chunk>>,
    /// Bytes of the first chunk that are out already.
    sent: usize,
}

impl Chunk {
    /// Copies frames that are whole, but for what is out of the first.
    pub(super) fn copied(slice: FrameSlice<'_>, arrived_ns: u64, begins_inside: bool) -> Self {
        let ends = slice.ends().map(|(at, is_delivery)| FrameEnd::new(at, is_delivery)).collect();
        Self { bytes: slice.bytes.into(), ends, arrived_ns, begins_inside }
    }

    /// Memory that it takes.
    fn cost_bytes(&self) -> u64 {
        (size_of::<Self>() + self.bytes.len() + size_of_val(&*self.ends)) as u64
    }

    fn as_slice(&self) -> FrameSlice<'_> {
        FrameSlice::new(&self.bytes, &self.ends)
    }
}

impl Chunks {
    /// Takes a chunk into the account.
    pub(super) fn keep(&mut self, chunk: Chunk) -> Rc<Chunk> {
        self.bytes += chunk.cost_bytes();
        Rc::new(chunk)
    }

    /// The chunk that was made last, where it was of the same frames; otherwise a new one.
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

    /// Lets go of a chunk; the last to do so takes it out of the account.
    fn release(&mut self, chunk: Rc<Chunk>) {
        if Rc::strong_count(&chunk) == 1 {
            self.bytes -= chunk.cost_bytes();
        }
    }

    /// Forgets what the lanes of the turn were copied to.
    pub(super) fn end_turn(&mut self) {
        if let Some((_, chunk)) = self.last.take() {
            self.release(chunk);
        }
    }

    /// Memory of chunks, each counted once.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Panics where the account does not hold. `backlogs` are all that there are.
    pub(super) fn check_invariants(&self, backlogs: &[&Backlog]) {
        let kept = backlogs.iter().flat_map(|backlog| &backlog.chunks);
        let kept = kept.chain(self.last.iter().map(|(_, chunk)| chunk));
        let costs: HashMap<_, _> =
            kept.map(|chunk| (Rc::as_ptr(chunk), chunk.cost_bytes())).collect();
        assert_eq!(costs.values().sum::<u64>(), self.bytes, "memory of backlogs");
    }
}

impl Backlog {
    /// Puts a chunk behind the others. `sent` bytes of it are out, if it is the first.
    pub(super) fn push(&mut self, chunk: Rc<Chunk>, sent: usize) {
        if self.chunks.is_empty() {
            self.sent = sent;
        }
        self.chunks.push_back(chunk);
    }

    /// What is not out yet, chunk by chunk.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let skips = std::iter::once(self.sent).chain(std::iter::repeat(0));
        self.chunks.iter().zip(skips).map(|(chunk, skip)| &chunk.bytes[skip..])
    }

    /// Copies what is not out yet behind what is in `into`: all of it, or at least `bytes_max` bytes.
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

    /// Notes that so many bytes more are out, and tells chunk by chunk what that was. Returns how many
    /// frames.
    pub(super) fn advance(
        &mut self,
        mut bytes: usize,
        chunks: &mut Chunks,
        mut note: impl FnMut(Out),
    ) -> u32 {
        let mut frames_out = 0;
        while bytes > 0
            && let Some(chunk) = self.chunks.front()
        {
            let step = bytes.min(chunk.bytes.len() - self.sent);
            let before = chunk.as_slice().count_within(self.sent);
            let after = chunk.as_slice().count_within(self.sent + step);
            let (frames, deliveries) = (after.0 - before.0, after.1 - before.1);
            note(Out { arrived_ns: chunk.arrived_ns, frames, deliveries });
            frames_out += frames;
            bytes -= step;
            self.sent += step;
            if self.sent == chunk.bytes.len() {
                self.sent = 0;
                self.chunks.pop_front().into_iter().for_each(|chunk| chunks.release(chunk));
            }
        }
        frames_out
    }

    /// Unsent bytes of a partly written frame; zero, if there is none. Where the frame goes on in the
    /// next chunk, those in the first.
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

    /// Takes out what is left of a partly written frame, as a backlog of its own.
    pub(super) fn take_begun(&mut self, chunks: &mut Chunks) -> Option<Self> {
        let half_out = self.half_out();
        if half_out == 0 {
            return None;
        }
        let first = self.chunks.pop_front()?;
        let slice = first.as_slice().without(self.sent).within(half_out);
        let ends_here = slice.ends().next().is_some();
        let mut begun = Self::default();
        begun.push(chunks.keep(Chunk::copied(slice, first.arrived_ns, true)), 0);
        chunks.release(first);
        self.sent = 0;
        // Where it goes on in the next chunk, it is all of that.
        if !ends_here && let Some(rest) = self.chunks.pop_front() {
            begun.push(rest, 0);
        }
        Some(begun)
    }

    /// Lets go of all chunks.
    pub(super) fn discard(self, chunks: &mut Chunks) {
        self.chunks.into_iter().for_each(|chunk| chunks.release(chunk));
    }

    /// Whether everything is out.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes that are not out yet, and frames that are not wholly out.
    pub(super) fn count(&self) -> (usize, usize) {
        let mut sent = self.sent;
        self.chunks.iter().fold((0, 0), |(bytes, frames), chunk| {
            assert!(sent < chunk.bytes.len(), "a chunk that is out");
            let left = chunk.as_slice().without(std::mem::take(&mut sent));
            (bytes + left.bytes.len(), frames + left.ends().count())
        })
    }
}
