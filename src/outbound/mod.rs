//! Outgoing frames: the lanes in which a turn of the loop encodes them, and the queue of each
//! connection.
//!
//! A message is encoded once for all receivers that read the same bytes, together with its framing,
//! behind the frames before it. What a receiver gets in a turn is one run of bytes or a few, written
//! to the socket from the lane itself: a queue holds no bytes, and an idle one costs nothing.
//!
//! ```text
//! lanes    ░░░frame│frame│frame│frame░░░          one for each encoding, emptied every turn
//!             └──────┬──────────┘
//! runs             run ◄─ first, last of a queue   heads of their own: head + tail, head + tail
//!
//! backlog  chunk ─► chunk ─► chunk                 what a slow receiver did not take in its turn,
//!                                                  shared by equally slow ones
//! ```
//!
//! It does not know what the bytes mean, nor which transport carries them.

mod backlog;
mod framing;
mod lanes;
mod queue;

use std::rc::Rc;

use self::backlog::{Chunk, Chunks};
pub use self::framing::Framing;
use self::lanes::Lanes;
pub(crate) use self::lanes::{
    Encoded, FrameEnd, FrameRun, FrameSlice, LaneId, LargeFrame, Written,
};
pub(crate) use self::queue::OutboundQueue;
use crate::text;

/// The frames of all queues, and the account of their memory.
#[derive(Debug, Default)]
pub struct OutboundArena {
    lanes: Lanes,
    /// Heads of runs, side by side.
    heads: Vec<u8>,
    runs: Vec<Run>,
    /// Arrival time of the first message delivered in this turn; zero before there is one.
    arrived_ns: u64,
    /// Bytes in the lanes whose flush has begun.
    flushed_bytes: usize,
    /// Bytes of frames with heads of their own that were queued since then: each is copied, written or kept.
    parts_bytes: usize,
    /// The chunks of all backlogs.
    chunks: Chunks,
    /// Memory of what was taken from queues and is encrypted, but not yet written.
    sealed_bytes: u64,
}

/// Frames of this turn that follow each other in one lane and in one queue.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Encoded,
    /// Where the last frame ends in the lane.
    to: u32,
    frames: u32,
    /// Start and length, in `heads`, of the head before each frame; empty if they are whole frames.
    head: (u32, u32),
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Runs whose memory is kept from turn to turn.
const RUNS_KEPT: usize = 512;

/// Encoded bytes at which nothing more is begun before the lanes were emptied: see [`OutboundArena::is_full`].
pub(crate) const ENCODED_BYTES_MAX: usize = 8 << 20;

/// Average size from which the tails of a run get chunks of their own, which slow receivers share.
const SHARED_TAIL_BYTES_MIN: u32 = 2048;

impl OutboundArena {
    // -- encoding ---------------------------------------------------------------------------

    /// Encodes a frame. It has to be pushed in the same turn.
    #[inline(always)] // once a message, with the encoder as a closure
    pub fn encode(
        &mut self,
        lane: LaneId,
        framing: Framing,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Encoded {
        self.lanes.encode(lane, |out| framing.write(out, write))
    }

    /// Encodes a tail that frames with different heads share, for all framings with the same end.
    pub fn encode_tail(
        &mut self,
        lane: LaneId,
        framing: Framing,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Encoded {
        let mut tail = self.lanes.encode(lane, |out| {
            write(out);
            framing.write_end(out);
        });
        tail.text = text::is_text(self.lanes.bytes_of(tail));
        tail
    }

    /// Notes the arrival time of what is encoded from now on; only the first one of a turn counts.
    #[inline]
    pub fn note_arrival(&mut self, arrived_ns: u64) {
        if self.arrived_ns == 0 {
            self.arrived_ns = arrived_ns;
        }
    }

    // -- queueing ---------------------------------------------------------------------------

    /// Appends a frame to a queue.
    #[inline(always)] // once a receiver, in the loop over them
    pub fn push(&mut self, queue: &mut OutboundQueue, frame: Encoded) {
        queue.bytes += frame.len();
        queue.frames += 1;
        queue.deliveries += u32::from(frame.lane.holds_deliveries());
        let index = self.runs.len() as u32;
        match self.runs.get_mut(queue.last as usize) {
            Some(last) if last.to == frame.from && last.first.lane == frame.lane => {
                // Tails have lanes of their own, so the run consists of whole frames.
                last.to = frame.to;
                last.frames += 1;
                return;
            }
            Some(last) => last.next = index,
            None => queue.first = index,
        }
        let run = Run { first: frame, to: frame.to, frames: 1, head: (0, 0), next: NONE };
        self.runs.push(run);
        queue.last = index;
    }

    /// Appends a frame of a head for this receiver alone and a tail that others share.
    #[inline]
    pub fn push_parts(
        &mut self,
        queue: &mut OutboundQueue,
        framing: Framing,
        head: &[u8],
        mut tail: Encoded,
    ) {
        let length = head.len() + tail.len() as usize;
        self.parts_bytes += length;
        queue.bytes += (framing.header_len(length) + length) as u32;
        queue.frames += 1;
        queue.deliveries += 1;
        tail.text &= head.is_ascii() || text::is_text(head);
        if let Some(last) = self.runs.get_mut(queue.last as usize)
            && last.to == tail.from
            && last.first.lane == tail.lane
            && last.first.text == tail.text
            && last.head_in(&self.heads) == head
        {
            last.to = tail.to;
            last.frames += 1;
            return;
        }
        let at = self.heads.len() as u32;
        self.heads.extend_from_slice(head);
        lanes::check_position(self.heads.len());
        let head = (at, head.len() as u32);
        self.append(queue, Run { first: tail, to: tail.to, frames: 1, head, next: NONE });
    }

    /// Appends a frame with a large body that is in a buffer of its own. It goes to the backlog at once, behind what the
    /// queue has of this turn, so that no run holds a large body. Returns the work of finding out whether the body is
    /// text, if that was to be done.
    #[cold] // the body costs more
    pub(crate) fn push_large(
        &mut self,
        queue: &mut OutboundQueue,
        framing: Framing,
        frame: &LargeFrame<'_>,
    ) -> u32 {
        if queue.has_runs() {
            self.keep(queue, framing, 0);
        }
        let LargeFrame { head, end, is_delivery, .. } = *frame;
        let body = self.chunks.keep_body(frame.body);
        let length = head.len() + body.len() + end.len();
        let mut units = 0;
        let text = framing.may_be_text()
            && text::is_text(head)
            && text::is_text(end)
            && frame.is_text.unwrap_or_else(|| body.is_text(&mut units));
        let mut begun = FrameRun::default();
        framing.write_header(length, text, &mut begun.bytes);
        begun.bytes.extend_from_slice(head);
        let mut rest = FrameRun { bytes: end.to_vec(), ends: Vec::new() };
        framing.write_end(&mut rest.bytes);
        rest.ends.push(FrameEnd::new(rest.bytes.len(), is_delivery));
        queue.bytes += (begun.bytes.len() + body.len() + rest.bytes.len()) as u32;
        queue.frames += 1;
        let copy = |run: &FrameRun, inside| Chunk::copied(run.as_slice(), self.arrived_ns, inside);
        let (begun, rest) = (copy(&begun, false), copy(&rest, true));
        let backlog = queue.backlog.get_or_insert_default();
        for chunk in [self.chunks.keep(begun), body, self.chunks.keep(rest)] {
            backlog.push(chunk, 0, &mut self.chunks);
        }
        units
    }

    fn append(&mut self, queue: &mut OutboundQueue, run: Run) {
        let index = self.runs.len() as u32;
        match self.runs.get_mut(queue.last as usize) {
            None => queue.first = index,
            Some(last) => last.next = index,
        }
        self.runs.push(run);
        queue.last = index;
    }

    // -- writing ----------------------------------------------------------------------------

    /// The content of a queue, if that is one run of whole frames of this turn.
    #[inline]
    pub fn only_run(&self, queue: &OutboundQueue) -> Option<FrameSlice<'_>> {
        if queue.first != queue.last || queue.backlog.is_some() {
            return None;
        }
        let run = self.runs.get(queue.first as usize).filter(|run| run.head.1 == 0)?;
        Some(self.lanes.slice(run.first, run.frames))
    }

    /// Notes that a queue without a backlog is wholly written.
    #[inline]
    pub fn note_all_written(&self, queue: &mut OutboundQueue) -> Written {
        debug_assert!(queue.backlog.is_none(), "only frames of this turn");
        let (frames, deliveries) = (queue.frames, queue.deliveries);
        *queue = OutboundQueue::default();
        Written { arrived_ns: self.arrived_ns, frames, deliveries }
    }

    /// Appends all frames of this turn to `into`, unless there is a backlog, more than `bytes_max`
    /// bytes, or a large tail. Returns whether it did. The queue does not change.
    pub fn stage(
        &self,
        queue: &OutboundQueue,
        framing: Framing,
        bytes_max: usize,
        into: &mut FrameRun,
    ) -> bool {
        if queue.backlog.is_some() || queue.bytes as usize > bytes_max {
            return false;
        }
        if self.runs_of(queue).any(|run| run.has_large_tails()) {
            return false;
        }
        for run in self.runs_of(queue) {
            self.copy_run(run, framing, into);
        }
        true
    }

    /// Moves staged frames to the backlog, except the first `sent` bytes, which are written.
    pub fn keep_staged(
        &mut self,
        queue: &mut OutboundQueue,
        staged: &FrameRun,
        sent: usize,
    ) -> Written {
        let (written, start) = self.split_at_frame(staged.as_slice(), sent);
        let slice = staged.as_slice().without(start);
        let chunk = self.chunks.keep(Chunk::copied(slice, self.arrived_ns, false));
        queue.backlog.get_or_insert_default().push(chunk, sent - start, &mut self.chunks);
        queue.note_kept(written, sent);
        written
    }

    /// Moves all frames of this turn to the backlog, except the first `sent` bytes, which are written.
    /// Unless there is a single run of whole frames, `sent` is zero.
    pub fn keep(&mut self, queue: &mut OutboundQueue, framing: Framing, sent: usize) -> Written {
        let mut written = Written::default();
        let mut next = queue.first;
        while let Some(run) = self.runs.get(next as usize).copied() {
            next = run.next;
            if run.is_whole() {
                let slice = self.lanes.slice(run.first, run.frames);
                let start;
                (written, start) = self.split_at_frame(slice, sent);
                let chunk = match start {
                    0 => self.shared_chunk(run.first, run.frames, false),
                    _ => {
                        let rest = self.lanes.slice(run.first, run.frames).without(start);
                        self.chunks.keep(Chunk::copied(rest, self.arrived_ns, false))
                    }
                };
                let backlog = queue.backlog.get_or_insert_default();
                backlog.push(chunk, sent - start, &mut self.chunks);
            } else {
                debug_assert_eq!(sent, 0, "only whole frames are written from where they are");
                self.keep_parts(queue, framing, run);
            }
        }
        queue.note_kept(written, sent);
        written
    }

    /// Unsent bytes of a queue's backlog, piece by piece.
    pub fn backlog<'q>(&self, queue: &'q OutboundQueue) -> impl Iterator<Item = &'q [u8]> {
        queue.backlog.iter().flat_map(|backlog| backlog.pieces())
    }

    /// Appends the backlog to `into`, in whole pieces but for large bodies, until it holds `bytes_max` bytes or more.
    pub fn stage_backlog(&self, queue: &OutboundQueue, bytes_max: usize, into: &mut FrameRun) {
        if let Some(backlog) = &queue.backlog {
            backlog.stage(bytes_max, into);
        }
    }

    /// Removes the first `bytes` of the backlog, which are written, and reports them to `note` chunk by
    /// chunk.
    pub fn advance_backlog(
        &mut self,
        queue: &mut OutboundQueue,
        bytes: usize,
        note: impl FnMut(Written),
    ) {
        let Some(backlog) = &mut queue.backlog else { return };
        queue.bytes -= bytes as u32;
        queue.frames -= backlog.advance(bytes, &mut self.chunks, note);
        if backlog.is_empty() {
            queue.backlog = None;
        }
    }

    /// Unsent bytes of a partly written frame that are in the first piece of the backlog; zero if no
    /// frame is partly written.
    pub fn partial_bytes(&self, queue: &OutboundQueue) -> usize {
        queue.backlog.as_ref().map_or(0, |backlog| backlog.partial_bytes())
    }

    /// Removes all frames except one that is partly written. Returns the number of pieces of memory that were freed
    /// at most.
    pub fn discard_unsent(&mut self, queue: &mut OutboundQueue) -> usize {
        let mut kept = OutboundQueue::default();
        if let Some(begun) = queue.backlog.as_mut().and_then(|one| one.take_begun(&mut self.chunks))
        {
            kept.frames = 1;
            kept.bytes = begun.pieces().map(|piece| piece.len() as u32).sum();
            kept.backlog = Some(Box::new(begun));
        }
        let freed = self.discard(queue);
        *queue = kept;
        freed
    }

    /// Removes all frames. Returns the number of pieces of memory that were freed at most: what is large is freed by
    /// [`Self::free_doomed`].
    pub fn discard(&mut self, queue: &mut OutboundQueue) -> usize {
        let OutboundQueue { bytes, backlog, .. } = std::mem::take(queue);
        backlog.map_or(0, |one| self.chunks.discard(*one, bytes))
    }

    /// Frees some of what was removed. Returns the number of pieces of memory that were freed at most.
    pub fn free_doomed(&mut self) -> usize {
        self.chunks.free_doomed()
    }

    // -- turns and memory -------------------------------------------------------------------

    /// Empties the lanes. No queue may hold frames of this turn any more.
    pub fn end_turn(&mut self) {
        self.lanes.clear();
        self.heads.clear();
        self.runs.clear();
        self.arrived_ns = 0;
        (self.flushed_bytes, self.parts_bytes) = (0, 0);
        self.chunks.end_turn();
    }

    /// Whether there is anything for [`Self::free_doomed`].
    pub fn has_doomed(&self) -> bool {
        self.chunks.has_doomed()
    }

    /// Whether nothing has been encoded in this turn.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.lanes.bytes() == 0 && self.arrived_ns == 0
    }

    /// Bytes encoded since the queues were flushed last, those behind heads of their own for each receiver.
    #[inline]
    pub fn unflushed_bytes(&self) -> usize {
        self.lanes.bytes() - self.flushed_bytes + self.parts_bytes
    }

    /// Notes that queues are flushed from here on with what is encoded.
    pub fn note_flushing(&mut self) {
        (self.flushed_bytes, self.parts_bytes) = (self.lanes.bytes(), 0);
    }

    /// Bytes encoded in this turn.
    #[inline]
    pub fn turn_bytes(&self) -> usize {
        self.lanes.bytes()
    }

    /// Whether nothing more is to be begun before the lanes are emptied, which happens once the queues are flushed:
    /// whoever encodes asks after each step. So a lane has at most [`ENCODED_BYTES_MAX`] and what a step encodes, which
    /// is the largest frame in each format, or the answer to one request.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.lanes.bytes() + self.heads.len() >= ENCODED_BYTES_MAX
    }

    /// Notes that of a connection, memory of `before` bytes held what is encrypted and not yet written, and now `after`.
    #[inline]
    pub(crate) fn note_sealed(&mut self, before: u32, after: u32) {
        self.sealed_bytes = self.sealed_bytes - u64::from(before) + u64::from(after);
    }

    /// Memory of what is encrypted and not yet written.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Memory of queued frames, and of those that are encrypted and not yet written.
    #[inline]
    pub fn resident_bytes(&self) -> u64 {
        self.chunks.bytes() + self.lanes.bytes() as u64 + self.sealed_bytes
    }

    /// Memory of backlogs.
    #[inline]
    pub fn backlog_bytes(&self) -> u64 {
        self.chunks.bytes()
    }

    /// Whether a past burst has left memory that is worth freeing.
    pub fn has_slack(&self) -> bool {
        self.lanes.has_slack() || self.runs.capacity() > RUNS_KEPT
    }

    /// Frees the memory of a past burst, if this turn has no runs.
    pub fn trim(&mut self) {
        if self.runs.is_empty() {
            self.lanes.trim();
            self.heads = Vec::new();
            self.runs = Vec::new();
        }
    }

    /// Panics if the account of memory is wrong. `queues` are all that exist.
    pub fn check_invariants<'a>(&self, queues: impl Iterator<Item = &'a OutboundQueue>) {
        let mut backlogs = Vec::new();
        for queue in queues {
            let (mut bytes, mut frames) = (0, 0);
            if let Some(backlog) = queue.backlog.as_deref() {
                (bytes, frames) = backlog.count();
                backlogs.push(backlog);
            }
            for run in self.runs_of(queue) {
                frames += run.frames as usize;
                let length = self.lanes.slice(run.first, run.frames).bytes.len();
                bytes += length;
                assert_eq!(length, (run.to - run.first.from) as usize);
                if !run.is_whole() {
                    // The size of the header depends on the receiver's framing.
                    bytes = usize::MAX / 2;
                }
            }
            assert_eq!(frames, queue.frames as usize, "frames of a queue");
            assert!(bytes == queue.bytes as usize || bytes >= usize::MAX / 2, "bytes of a queue");
        }
        self.chunks.check_invariants(&backlogs);
    }

    // -- inside -----------------------------------------------------------------------------

    fn runs_of(&self, queue: &OutboundQueue) -> impl Iterator<Item = Run> {
        let mut next = queue.first;
        std::iter::from_fn(move || {
            let run = *self.runs.get(next as usize)?;
            next = run.next;
            Some(run)
        })
    }

    /// Appends a run to `into`, in the form in which its receiver reads it.
    fn copy_run(&self, run: Run, framing: Framing, into: &mut FrameRun) {
        if run.is_whole() {
            return into.append(self.lanes.slice(run.first, run.frames));
        }
        let head = run.head_in(&self.heads);
        for tail in self.lanes.each(run.first, run.frames) {
            let length = head.len() + tail.len() as usize;
            framing.write_header(length, run.first.text, &mut into.bytes);
            into.bytes.extend_from_slice(head);
            into.bytes.extend_from_slice(self.lanes.bytes_of(tail));
            into.ends.push(FrameEnd::new(into.bytes.len(), true));
        }
    }

    fn keep_parts(&mut self, queue: &mut OutboundQueue, framing: Framing, run: Run) {
        if !run.has_large_tails() {
            let mut copy = FrameRun::default();
            self.copy_run(run, framing, &mut copy);
            let backlog = queue.backlog.get_or_insert_default();
            return backlog.append(copy.as_slice(), self.arrived_ns, &mut self.chunks);
        }
        let tails: Vec<_> = self.lanes.each(run.first, run.frames).collect();
        for tail in tails {
            let head = run.head_in(&self.heads);
            let mut bytes = Vec::new();
            framing.write_header(head.len() + tail.len() as usize, run.first.text, &mut bytes);
            bytes.extend_from_slice(head);
            let begun = FrameRun { bytes, ends: Vec::new() };
            let begun = self.chunks.keep(Chunk::copied(begun.as_slice(), self.arrived_ns, false));
            let rest = self.shared_chunk(tail, 1, true);
            let backlog = queue.backlog.get_or_insert_default();
            backlog.push(begun, 0, &mut self.chunks);
            backlog.push(rest, 0, &mut self.chunks);
        }
    }

    /// What is written once the first `sent` bytes are, and where the first frame begins that is not
    /// wholly written.
    fn split_at_frame(&self, slice: FrameSlice<'_>, sent: usize) -> (Written, usize) {
        let (frames, deliveries) = slice.count_within(sent);
        let start = slice.ends().map(|(at, _)| at).take_while(|at| *at <= sent).last();
        (Written { arrived_ns: self.arrived_ns, frames, deliveries }, start.unwrap_or(0))
    }

    /// Frames of this turn as a chunk, shared with the receiver before if it kept the same frames.
    fn shared_chunk(&mut self, first: Encoded, frames: u32, begins_inside: bool) -> Rc<Chunk> {
        let Self { lanes, chunks, arrived_ns, .. } = self;
        let copy = || Chunk::copied(lanes.slice(first, frames), *arrived_ns, begins_inside);
        chunks.keep_shared((first, frames), copy)
    }
}

impl Run {
    fn is_whole(&self) -> bool {
        self.head.1 == 0
    }

    fn has_large_tails(&self) -> bool {
        !self.is_whole() && self.to - self.first.from >= SHARED_TAIL_BYTES_MIN * self.frames
    }

    fn head_in(self, heads: &[u8]) -> &[u8] {
        &heads[self.head.0 as usize..][..self.head.1 as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::buffer::Piece;

    const LANE: usize = 0;

    fn encode(arena: &mut OutboundArena, framing: Framing, text: &[u8]) -> Encoded {
        arena.encode(LaneId::messages(LANE, framing), framing, |out| out.extend_from_slice(text))
    }

    /// A frame as its receiver reads it.
    fn framed(framing: Framing, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framing.write(&mut out, |out| out.extend_from_slice(text));
        out
    }

    /// The content of a queue as its receiver reads it.
    fn bytes_of(arena: &OutboundArena, queue: &OutboundQueue, framing: Framing) -> Vec<u8> {
        let mut out = FrameRun {
            bytes: arena.backlog(queue).flatten().copied().collect(),
            ..FrameRun::default()
        };
        for run in arena.runs_of(queue) {
            arena.copy_run(run, framing, &mut out);
        }
        out.bytes
    }

    #[test]
    fn frames_that_follow_each_other_are_one_run() {
        let mut arena = OutboundArena::default();
        let mut queues = [OutboundQueue::default(), OutboundQueue::default()];
        for text in [&b"one"[..], b"two", b"three"] {
            let frame = encode(&mut arena, Framing::LengthPrefix, text);
            queues.iter_mut().for_each(|queue| arena.push(queue, frame));
        }
        for queue in &mut queues {
            let run = arena.only_run(queue).unwrap();
            assert_eq!(run.bytes.len(), 3 * 5 + 11);
            assert_eq!(run.ends().collect::<Vec<_>>(), [(8, true), (16, true), (26, true)]);
            let written = arena.note_all_written(queue);
            assert_eq!((written.frames, written.deliveries), (3, 3));
            assert!(queue.is_empty());
        }
        arena.end_turn();
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn frames_with_a_shared_tail_are_counted_as_deliveries() {
        let mut arena = OutboundArena::default();
        let mut queue = OutboundQueue::default();
        for head in [&b"one"[..], b"one", b"two"] {
            let lane = LaneId::tails(LANE, Framing::Line);
            let tail = arena.encode_tail(lane, Framing::Line, |out| out.extend_from_slice(b"tail"));
            arena.push_parts(&mut queue, Framing::Line, head, tail);
        }
        let written = arena.note_all_written(&mut queue);
        assert_eq!((written.frames, written.deliveries), (3, 3));
    }

    #[test]
    fn a_delivery_behind_an_answer_has_the_arrival_of_its_own_turn() {
        let mut arena = OutboundArena::default();
        let mut queue = OutboundQueue::default();
        for arrived_ns in [10, 70] {
            let answer = arena.encode(LaneId::private(Framing::Line), Framing::Line, |out| {
                out.extend_from_slice(b"answer");
            });
            arena.push(&mut queue, answer);
            arena.note_arrival(arrived_ns);
            let frame = encode(&mut arena, Framing::Line, b"delivery");
            arena.push(&mut queue, frame);
            let written = arena.note_all_written(&mut queue);
            assert_eq!(written, Written { arrived_ns, frames: 2, deliveries: 1 });
            arena.end_turn();
        }
    }

    #[test]
    fn the_backlog_that_slow_receivers_share_is_counted_once() {
        let mut arena = OutboundArena::default();
        let mut queues: [OutboundQueue; 3] = Default::default();
        let frame = encode(&mut arena, Framing::Line, &[7; 999]);
        for (sent, queue) in queues.iter_mut().enumerate() {
            arena.push(queue, frame);
            arena.keep(queue, Framing::Line, sent);
        }
        arena.end_turn();
        arena.check_invariants(queues.iter());
        // The chunk once, and a reference in each backlog.
        assert!(arena.resident_bytes() < 1500, "{}", arena.resident_bytes());
        for (sent, queue) in queues.iter_mut().enumerate() {
            assert_eq!(queue.bytes() as usize, 1000 - sent);
            let mut deliveries = 0;
            arena.advance_backlog(queue, 1000 - sent, |written| deliveries += written.deliveries);
            assert_eq!((deliveries, queue.frames(), queue.has_backlog()), (1, 0, false));
        }
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn large_tails_behind_heads_of_their_own_are_kept_once() {
        let mut arena = OutboundArena::default();
        let mut queues: [OutboundQueue; 9] = Default::default();
        let framing = Framing::LengthPrefix;
        let lane = LaneId::tails(LANE, framing);
        let tail = arena.encode_tail(lane, framing, |out| out.resize(10_000, b'x'));
        for (queue, head) in queues.iter_mut().zip(0u8..) {
            arena.push_parts(queue, Framing::LengthPrefix, &[head; 50], tail);
            assert!(!arena.stage(queue, Framing::LengthPrefix, 100_000, &mut FrameRun::default()));
            arena.keep(queue, Framing::LengthPrefix, 0);
        }
        arena.end_turn();
        arena.check_invariants(queues.iter());
        assert!(arena.resident_bytes() < 13_000, "{}", arena.resident_bytes());
        arena.advance_backlog(&mut queues[0], 55, |written| assert_eq!(written.frames, 0));
        assert_eq!(arena.partial_bytes(&queues[0]), 10_000, "the head is written, the tail is not");
        arena.discard_unsent(&mut queues[0]);
        assert_eq!((queues[0].frames(), queues[0].bytes()), (1, 10_000));
        arena.advance_backlog(&mut queues[0], 10_000, |written| assert_eq!(written.frames, 1));
        queues.iter_mut().for_each(|queue| {
            arena.discard(queue);
        });
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn discarding_keeps_the_partly_written_frame() {
        for sent in 0..=11 {
            let mut arena = OutboundArena::default();
            let mut queue = OutboundQueue::default();
            for text in [&b"on"[..], b"tw", b"thre"] {
                let frame = encode(&mut arena, Framing::Line, text);
                arena.push(&mut queue, frame);
            }
            arena.keep(&mut queue, Framing::Line, 0);
            arena.advance_backlog(&mut queue, sent, |_| ());
            let rest: usize = match sent {
                0..3 => [0, 2, 1][sent],
                3..6 => [0, 2, 1][sent - 3],
                _ => [0, 4, 3, 2, 1, 0][sent - 6],
            };
            assert_eq!(arena.partial_bytes(&queue), rest, "{sent} bytes written");
            arena.discard_unsent(&mut queue);
            let left = bytes_of(&arena, &queue, Framing::Line);
            assert_eq!(left, b"on\ntw\nthre\n"[sent..sent + rest], "{sent} bytes written");
            arena.end_turn();
            arena.check_invariants([&queue].into_iter());
        }
    }

    #[test]
    fn of_a_long_queue_that_is_removed_only_some_is_freed_at_once() {
        let mut arena = OutboundArena::default();
        let mut queue = OutboundQueue::default();
        for _ in 0..100 {
            let frame = encode(&mut arena, Framing::Line, &[b'x'; 20_000]);
            arena.push(&mut queue, frame);
            arena.keep(&mut queue, Framing::Line, 0);
            arena.end_turn();
        }
        let held = arena.backlog_bytes();
        assert_eq!(arena.discard(&mut queue), 0);
        assert_eq!((queue.bytes(), arena.backlog_bytes()), (0, held));
        let (mut steps, mut pieces) = (0, 0);
        while arena.has_doomed() {
            let before = arena.backlog_bytes();
            pieces += arena.free_doomed();
            assert!(before - arena.backlog_bytes() < 600_000);
            arena.check_invariants(std::iter::empty());
            steps += 1;
        }
        assert_eq!((pieces, arena.backlog_bytes()), (100, 0));
        assert!(steps >= 4, "{steps} steps");
    }

    /// An operation on one of several queues.
    #[derive(Clone, Debug)]
    enum Action {
        Push(usize),
        PushParts(usize, usize),
        Private(usize),
        /// A head, and a large body of this size, or the one before again.
        PushLarge(usize, Option<usize>),
        /// TLS encrypts a window of the backlog.
        Encrypt(usize),
        /// The kernel takes up to this many bytes.
        Flush(usize),
        DiscardUnsent,
        EndTurn,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (1..300usize).prop_map(Action::Push),
            2 => (1..4usize, 1..5000usize).prop_map(|(head, tail)| Action::PushParts(head, tail)),
            1 => (1..300usize).prop_map(Action::Private),
            2 => (1..4usize, prop::option::of(1..5000usize))
                .prop_map(|(head, body)| Action::PushLarge(head, body)),
            1 => (1..900usize).prop_map(Action::Encrypt),
            3 => (0..900usize).prop_map(Action::Flush),
            1 => Just(Action::DiscardUnsent),
            1 => Just(Action::EndTurn),
        ]
    }

    /// Writes as the engine does: as much as one write takes, and the rest goes to the backlog.
    fn flush(
        arena: &mut OutboundArena,
        queue: &mut OutboundQueue,
        framing: Framing,
        bytes: usize,
    ) -> (Vec<u8>, u32) {
        if queue.has_backlog() {
            let pieces: Vec<u8> = arena.backlog(queue).flatten().copied().collect();
            let written = pieces[..bytes.min(pieces.len())].to_vec();
            let mut frames = 0;
            arena.advance_backlog(queue, written.len(), |written| frames += written.frames);
            return (written, frames);
        }
        let (mut written, mut frames) = (Vec::new(), 0);
        if let Some(run) = arena.only_run(queue) {
            let count = bytes.min(run.bytes.len());
            written.extend_from_slice(&run.bytes[..count]);
            frames += match count == run.bytes.len() {
                true => arena.note_all_written(queue).frames,
                false => arena.keep(queue, framing, count).frames,
            };
            return (written, frames);
        }
        let mut staged = FrameRun::default();
        if arena.stage(queue, framing, 3000, &mut staged) {
            let count = bytes.min(staged.bytes.len());
            written.extend_from_slice(&staged.bytes[..count]);
            frames += match count == staged.bytes.len() {
                true => arena.note_all_written(queue).frames,
                false => arena.keep_staged(queue, &staged, count).frames,
            };
            return (written, frames);
        }
        arena.keep(queue, framing, 0);
        let pieces: Vec<u8> = arena.backlog(queue).flatten().copied().collect();
        let count = bytes.min(pieces.len());
        written.extend_from_slice(&pieces[..count]);
        arena.advance_backlog(queue, count, |written| frames += written.frames);
        (written, frames)
    }

    /// Takes a window of the backlog, as TLS does.
    fn encrypt(
        arena: &mut OutboundArena,
        queue: &mut OutboundQueue,
        bytes: usize,
    ) -> (Vec<u8>, u32) {
        let mut staged = FrameRun::default();
        arena.stage_backlog(queue, bytes, &mut staged);
        let mut frames = 0;
        arena.advance_backlog(queue, staged.bytes.len(), |written| frames += written.frames);
        assert_eq!(frames as usize, staged.ends.len());
        (staged.bytes, frames)
    }

    #[test]
    fn a_large_body_is_counted_once_however_many_are_sent_it() {
        let mut arena = OutboundArena::default();
        let mut queues: [OutboundQueue; 4] = Default::default();
        let framings =
            [Framing::Line, Framing::LengthPrefix, Framing::WebSocket, Framing::WebSocketBinary];
        let body = Piece::whole(vec![b'b'; 100_000]);
        for turn in 0..2 {
            for (queue, framing) in queues.iter_mut().zip(framings) {
                let before = encode(&mut arena, framing, b"before");
                arena.push(queue, before);
                arena.push_large(queue, framing, &LargeFrame::message(b"head", &body));
                assert!(arena.only_run(queue).is_none());
            }
            assert!(arena.resident_bytes() < 106_000, "{turn}: {}", arena.resident_bytes());
            arena.end_turn();
            arena.check_invariants(queues.iter());
        }
        drop(body);
        for (queue, framing) in queues.iter_mut().zip(framings) {
            let body = vec![b'b'; 100_000];
            let large = framed(framing, &[&b"head"[..], &body, &[0]].concat());
            let both = [framed(framing, b"before"), large.clone()].concat().repeat(2);
            assert_eq!(bytes_of(&arena, queue, framing), both);
            // Within the body, which is kept where it is; then at its end.
            let begun = both.len() / 2 - large.len();
            arena.advance_backlog(queue, begun + 50, |_| ());
            assert!(arena.partial_bytes(queue) > 99_000);
            arena.discard_unsent(queue);
            assert_eq!(bytes_of(&arena, queue, framing), large[50..]);
            arena.advance_backlog(queue, large.len() - 51, |_| ());
            arena.discard_unsent(queue);
            assert_eq!((queue.frames(), queue.bytes()), (1, 1));
            let mut deliveries = 0;
            arena.advance_backlog(queue, 1, |written| deliveries += written.deliveries);
            assert_eq!((deliveries, queue.has_backlog()), (1, false));
        }
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn nothing_is_left_behind_the_rest_of_a_large_frame_that_was_begun() {
        let (mut arena, mut queue) = (OutboundArena::default(), OutboundQueue::default());
        let framing = Framing::LengthPrefix;
        for size in [3_000, 10] {
            let lane = LaneId::tails(LANE, framing);
            let tail = arena.encode_tail(lane, framing, |out| out.resize(out.len() + size, b'x'));
            arena.push_parts(&mut queue, framing, b"head", tail);
            arena.keep(&mut queue, framing, 0);
            arena.end_turn();
        }
        arena.advance_backlog(&mut queue, 3, |_| {});
        arena.discard_unsent(&mut queue);
        let whole = framing.header_len(3_004) + 3_004;
        assert_eq!((queue.frames(), queue.bytes() as usize), (1, whole - 3));
        arena.check_invariants(std::iter::once(&queue));
    }

    proptest! {
        #[test]
        fn queues_equal_plain_deques(
            steps in prop::collection::vec((0..3usize, action()), 0..120),
        ) {
            let mut arena = OutboundArena::default();
            let mut queues: [OutboundQueue; 3] = Default::default();
            let framings = [Framing::Line, Framing::LengthPrefix, Framing::WebSocket];
            // For each frame, its unsent bytes and whether it is partly written.
            let mut models: [VecDeque<(Vec<u8>, bool)>; 3] = Default::default();
            let mut number = 0u8;
            let mut body = Piece::whole(vec![b'b'; 10]);
            for (index, action) in steps {
                let (queue, framing, model) =
                    (&mut queues[index], framings[index], &mut models[index]);
                number = number.wrapping_add(1);
                match action {
                    Action::Push(size) => {
                        let text = vec![number; size];
                        let frame = encode(&mut arena, framing, &text);
                        arena.push(queue, frame);
                        model.push_back((framed(framing, &text), false));
                    }
                    Action::Private(size) => {
                        let text = vec![number; size];
                        let lane = LaneId::private(framing);
                        let frame =
                            arena.encode(lane, framing, |out| out.extend_from_slice(&text));
                        arena.push(queue, frame);
                        model.push_back((framed(framing, &text), false));
                    }
                    Action::PushParts(head, size) => {
                        let (head, tail) = (vec![b'h'; head], vec![number; size]);
                        let lane = LaneId::tails(LANE, framing);
                        let encoded = arena
                            .encode_tail(lane, framing, |out| out.extend_from_slice(&tail));
                        arena.push_parts(queue, framing, &head, encoded);
                        model.push_back((framed(framing, &[head, tail].concat()), false));
                    }
                    Action::PushLarge(head, size) => {
                        let head = vec![b'h'; head];
                        if let Some(size) = size {
                            body = Piece::whole(vec![number; size]);
                        }
                        arena.push_large(queue, framing, &LargeFrame::message(&head, &body));
                        let text = [&head[..], body.bytes(), &[0]].concat();
                        model.push_back((framed(framing, &text), false));
                    }
                    Action::Flush(_) | Action::Encrypt(_) => {
                        let (written, frames) = match action {
                            Action::Flush(bytes) => flush(&mut arena, queue, framing, bytes),
                            Action::Encrypt(bytes) => encrypt(&mut arena, queue, bytes),
                            _ => unreachable!(),
                        };
                        let mut expected_frames = 0;
                        for byte in &written {
                            let (left, begun) = model.front_mut().unwrap();
                            prop_assert_eq!(left.remove(0), *byte);
                            *begun = true;
                            if left.is_empty() {
                                expected_frames += 1;
                                model.pop_front();
                            }
                        }
                        prop_assert_eq!(frames, expected_frames);
                    }
                    Action::DiscardUnsent => {
                        arena.discard_unsent(queue);
                        model.retain(|(_, begun)| *begun);
                    }
                    Action::EndTurn => {
                        for (queue, framing) in queues.iter_mut().zip(framings) {
                            arena.keep(queue, framing, 0);
                        }
                        arena.end_turn();
                    }
                }
                for ((queue, model), framing) in queues.iter().zip(&models).zip(framings) {
                    let expected: Vec<u8> =
                        model.iter().flat_map(|(left, _)| left).copied().collect();
                    prop_assert_eq!(bytes_of(&arena, queue, framing), &expected[..]);
                    prop_assert_eq!(queue.bytes() as usize, expected.len());
                    prop_assert_eq!(queue.frames() as usize, model.len());
                }
                arena.check_invariants(queues.iter());
            }
            queues.iter_mut().for_each(|queue| {
                arena.discard(queue);
            });
            arena.end_turn();
            prop_assert_eq!(arena.resident_bytes(), 0);
        }
    }
}
