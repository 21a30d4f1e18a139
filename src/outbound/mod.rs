//! Frames on their way out: what was encoded in this turn of the loop, and each connection's queue
//! of it.
//!
//! A message is encoded once for all receivers that read the same bytes, together with its framing,
//! side by side with the frames before it. What a receiver gets in a turn is one run of bytes, or a
//! few, that are written from where they are: a queue holds no bytes and an idle one costs nothing.
//!
//! ```text
//! lanes    ░░░frame│frame│frame│frame░░░          one for each encoding, emptied every turn
//!             └──────┬──────────┘
//! runs             run ◄─ first, last of a queue   those that are not alike: head + tail, head + tail
//!
//! backlog  chunk ─► chunk ─► chunk                 what a slow receiver did not take in its turn,
//!                                                  shared with others as slow as it
//! ```
//!
//! It does not know what the bytes mean, nor what carries them.

mod backlog;
mod framing;
mod turn;

use std::rc::Rc;

use self::backlog::{Backlog, Chunk, Chunks};
pub use self::framing::Framing;
use self::turn::Turn;
pub(crate) use self::turn::{Encoded, FrameEnd, FrameRun, FrameSlice, LaneId, Out};

/// What all queues hold, and the account of the memory that it takes.
#[derive(Debug, Default)]
pub struct OutboundArena {
    turn: Turn,
    /// Heads of runs that have one.
    heads: Vec<u8>,
    runs: Vec<Run>,
    /// When what made the first delivery of this turn arrived; zero, before there is one.
    arrived_ns: u64,
    /// What the backlogs of all queues consist of.
    chunks: Chunks,
}

/// One connection's frames, first in, first out: those of turns before, then those of this turn.
#[derive(Debug)]
pub struct OutboundQueue {
    /// Runs of this turn; [`NONE`] together.
    first: u32,
    last: u32,
    /// Bytes that are not out yet.
    bytes: u32,
    /// Frames that are not wholly out yet.
    frames: u32,
    /// Deliveries among the frames of this turn.
    deliveries: u32,
    backlog: Option<Box<Backlog>>,
}

/// Frames of this turn that follow each other in one lane and in one queue.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Encoded,
    /// Where the last of them ends in the lane.
    to: u32,
    frames: u32,
    /// What goes before each of them, in `heads`; empty where they are whole frames.
    head: (u32, u32),
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Runs that have room without leaving anything to give back.
const RUNS_KEPT: usize = 512;

/// What a turn encodes of messages that can wait.
const ENCODED_BYTES_MAX: usize = 1 << 30;

/// Tails from this size on, on average, are kept apart from their heads, so that slow receivers share
/// them.
const SHARED_TAIL_BYTES_MIN: u32 = 2048;

impl OutboundArena {
    // -- encoding ---------------------------------------------------------------------------

    /// Encodes a frame. It has to be pushed in the same turn.
    #[inline(always)]
    pub fn encode(
        &mut self,
        lane: LaneId,
        framing: Framing,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Encoded {
        self.turn.encode(lane, |out| framing.write(out, write))
    }

    /// Encodes what frames have in common behind heads of their own, for framings that put the same
    /// behind a frame.
    pub fn encode_tail(
        &mut self,
        lane: LaneId,
        framing: Framing,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Encoded {
        let mut tail = self.turn.encode(lane, |out| {
            write(out);
            framing.write_end(out);
        });
        tail.text = std::str::from_utf8(self.turn.bytes_of(tail)).is_ok();
        tail
    }

    /// Notes when what is encoded from now on arrived; the first time of a turn counts.
    #[inline]
    pub fn note_arrival(&mut self, arrived_ns: u64) {
        if self.arrived_ns == 0 {
            self.arrived_ns = arrived_ns;
        }
    }

    // -- queueing ---------------------------------------------------------------------------

    /// Appends a frame.
    #[inline(always)]
    pub fn push(&mut self, queue: &mut OutboundQueue, frame: Encoded) {
        queue.bytes += frame.len();
        queue.frames += 1;
        queue.deliveries += u32::from(frame.lane.holds_deliveries());
        if let Some(last) = self.runs.get_mut(queue.last as usize)
            && last.to == frame.from
            && last.first.lane == frame.lane
        {
            // Tails have lanes of their own: the run is one of whole frames, too.
            last.to = frame.to;
            last.frames += 1;
            return;
        }
        self.append(queue, Run { first: frame, to: frame.to, frames: 1, head: (0, 0), next: NONE });
    }

    /// Appends a frame of a head that only this receiver gets and a tail that others get as well.
    #[inline]
    pub fn push_parts(
        &mut self,
        queue: &mut OutboundQueue,
        framing: Framing,
        head: &[u8],
        mut tail: Encoded,
    ) {
        let length = head.len() + tail.len() as usize;
        queue.bytes += (framing.header_len(length) + length) as u32;
        queue.frames += 1;
        queue.deliveries += 1;
        tail.text &= head.is_ascii() || std::str::from_utf8(head).is_ok();
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
        let head = (at, head.len() as u32);
        self.append(queue, Run { first: tail, to: tail.to, frames: 1, head, next: NONE });
    }

    #[inline(always)]
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

    /// All that a queue holds, where that is one run of whole frames of this turn.
    #[inline]
    pub fn only_run(&self, queue: &OutboundQueue) -> Option<FrameSlice<'_>> {
        if queue.first != queue.last || queue.backlog.is_some() {
            return None;
        }
        let run = self.runs.get(queue.first as usize).filter(|run| run.head.1 == 0)?;
        Some(self.turn.slice(run.first, run.frames))
    }

    /// Notes that all that a queue holds is out, which was all of this turn.
    #[inline]
    pub fn note_all_out(&self, queue: &mut OutboundQueue) -> Out {
        debug_assert!(queue.backlog.is_none(), "only frames of this turn");
        let (frames, deliveries) = (queue.frames, queue.deliveries);
        *queue = OutboundQueue::default();
        Out { arrived_ns: self.arrived_ns, frames, deliveries }
    }

    /// Copies all frames of this turn behind what is in `into`, unless they are more than `bytes_max`
    /// bytes or a large tail is among them. Says whether it did. The queue stays as it is.
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

    /// Keeps what was staged for later turns, but for the first `sent` bytes, which are out.
    pub fn keep_staged(
        &mut self,
        queue: &mut OutboundQueue,
        staged: &FrameRun,
        sent: usize,
    ) -> Out {
        let (out, start) = self.split_at_frame(staged.as_slice(), sent);
        let slice = staged.as_slice().without(start);
        let chunk = self.chunks.keep(Chunk::copied(slice, self.arrived_ns, false));
        queue.backlog.get_or_insert_default().push(chunk, sent - start);
        queue.note_kept(out, sent);
        out
    }

    /// Keeps all frames of this turn for later ones, but for the first `sent` bytes, which are out and
    /// of the only run.
    pub fn keep(&mut self, queue: &mut OutboundQueue, framing: Framing, sent: usize) -> Out {
        let mut out = Out::default();
        let mut next = queue.first;
        while let Some(run) = self.runs.get(next as usize).copied() {
            next = run.next;
            if run.is_whole() {
                let slice = self.turn.slice(run.first, run.frames);
                let start;
                (out, start) = self.split_at_frame(slice, sent);
                let chunk = match start {
                    0 => self.shared_chunk(run.first, run.frames, false),
                    _ => {
                        let rest = self.turn.slice(run.first, run.frames).without(start);
                        self.chunks.keep(Chunk::copied(rest, self.arrived_ns, false))
                    }
                };
                queue.backlog.get_or_insert_default().push(chunk, sent - start);
            } else {
                debug_assert_eq!(sent, 0, "only whole frames are written from where they are");
                self.keep_parts(queue, framing, run);
            }
        }
        queue.note_kept(out, sent);
        out
    }

    /// What a queue has kept from turns before, without what is out of it.
    pub fn backlog<'q>(&self, queue: &'q OutboundQueue) -> impl Iterator<Item = &'q [u8]> {
        queue.backlog.iter().flat_map(|backlog| backlog.pieces())
    }

    /// Copies some of that behind what is in `into`: all of it, or at least `bytes_max` bytes.
    pub fn stage_backlog(&self, queue: &OutboundQueue, bytes_max: usize, into: &mut FrameRun) {
        if let Some(backlog) = &queue.backlog {
            backlog.stage(bytes_max, into);
        }
    }

    /// Notes that so many bytes more of the backlog are out, and tells chunk by chunk what that was.
    pub fn advance_backlog(
        &mut self,
        queue: &mut OutboundQueue,
        bytes: usize,
        note: impl FnMut(Out),
    ) {
        let Some(backlog) = &mut queue.backlog else { return };
        queue.bytes -= bytes as u32;
        queue.frames -= backlog.advance(bytes, &mut self.chunks, note);
        if backlog.is_empty() {
            queue.backlog = None;
        }
    }

    /// How many bytes are missing of a frame that is half out; where it goes on in a further piece of
    /// the backlog, those of the first piece. Zero, where none is half out.
    pub fn half_out(&self, queue: &OutboundQueue) -> usize {
        queue.backlog.as_ref().map_or(0, |backlog| backlog.half_out())
    }

    /// Removes all frames of which nothing is out yet.
    pub fn discard_unsent(&mut self, queue: &mut OutboundQueue) {
        let mut kept = OutboundQueue::default();
        if let Some(begun) = queue.backlog.as_mut().and_then(|one| one.take_begun(&mut self.chunks))
        {
            kept.frames = 1;
            kept.bytes = begun.pieces().map(|piece| piece.len() as u32).sum();
            kept.backlog = Some(Box::new(begun));
        }
        self.discard(queue);
        *queue = kept;
    }

    /// Removes all frames.
    pub fn discard(&mut self, queue: &mut OutboundQueue) {
        if let Some(backlog) = std::mem::take(queue).backlog {
            backlog.discard(&mut self.chunks);
        }
    }

    // -- turns and memory -------------------------------------------------------------------

    /// Forgets what was encoded. No queue may hold frames of this turn any more.
    pub fn end_turn(&mut self) {
        self.turn.clear();
        self.heads.clear();
        self.runs.clear();
        self.arrived_ns = 0;
        self.chunks.end_turn();
    }

    /// Whether nothing was encoded yet in this turn.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.turn.bytes() == 0 && self.arrived_ns == 0
    }

    /// Bytes that were encoded in this turn.
    #[inline]
    pub fn turn_bytes(&self) -> usize {
        self.turn.bytes()
    }

    /// Whether so much was encoded that what can wait for the next turn should: places in lanes have 31
    /// bits.
    pub fn is_full(&self) -> bool {
        self.turn.bytes() >= ENCODED_BYTES_MAX
    }

    /// Memory that queued frames hold.
    #[inline]
    pub fn resident_bytes(&self) -> u64 {
        self.chunks.bytes() + self.turn.bytes() as u64
    }

    /// Whether a past burst has left memory that is worth returning.
    pub fn has_slack(&self) -> bool {
        self.turn.has_slack() || self.runs.capacity() > RUNS_KEPT
    }

    /// Returns the memory of a past burst when nothing is queued.
    pub fn trim(&mut self) {
        if self.runs.is_empty() {
            self.turn.trim();
            self.heads = Vec::new();
            self.runs = Vec::new();
        }
    }

    /// Panics where the account of memory does not hold. `queues` are all that there are.
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
                let length = self.turn.slice(run.first, run.frames).bytes.len();
                bytes += length;
                assert_eq!(length, (run.to - run.first.from) as usize);
                if !run.is_whole() {
                    // Framing depends on who gets it.
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

    /// Writes a run as its receiver gets it.
    fn copy_run(&self, run: Run, framing: Framing, into: &mut FrameRun) {
        if run.is_whole() {
            return into.append(self.turn.slice(run.first, run.frames));
        }
        let head = run.head_in(&self.heads);
        for tail in self.turn.each(run.first, run.frames) {
            let length = head.len() + tail.len() as usize;
            framing.write_header(length, run.first.text, &mut into.bytes);
            into.bytes.extend_from_slice(head);
            into.bytes.extend_from_slice(self.turn.bytes_of(tail));
            into.ends.push(FrameEnd::new(into.bytes.len(), true));
        }
    }

    fn keep_parts(&mut self, queue: &mut OutboundQueue, framing: Framing, run: Run) {
        if !run.has_large_tails() {
            let mut copy = FrameRun::default();
            self.copy_run(run, framing, &mut copy);
            let chunk = self.chunks.keep(Chunk::copied(copy.as_slice(), self.arrived_ns, false));
            return queue.backlog.get_or_insert_default().push(chunk, 0);
        }
        let tails: Vec<_> = self.turn.each(run.first, run.frames).collect();
        for tail in tails {
            let head = run.head_in(&self.heads);
            let mut bytes = Vec::new();
            framing.write_header(head.len() + tail.len() as usize, run.first.text, &mut bytes);
            bytes.extend_from_slice(head);
            let begun = FrameRun { bytes, ends: Vec::new() };
            let begun = self.chunks.keep(Chunk::copied(begun.as_slice(), self.arrived_ns, false));
            let rest = self.shared_chunk(tail, 1, true);
            let backlog = queue.backlog.get_or_insert_default();
            backlog.push(begun, 0);
            backlog.push(rest, 0);
        }
    }

    /// What is out of some frames when the first `sent` bytes are, and where the frame begins that
    /// is half out or next.
    fn split_at_frame(&self, slice: FrameSlice<'_>, sent: usize) -> (Out, usize) {
        let (frames, deliveries) = slice.count_within(sent);
        let start = slice.ends().map(|(at, _)| at).take_while(|at| *at <= sent).last();
        (Out { arrived_ns: self.arrived_ns, frames, deliveries }, start.unwrap_or(0))
    }

    /// Frames of this turn as a chunk: the one that was made for another receiver, if it is the same.
    fn shared_chunk(&mut self, first: Encoded, frames: u32, begins_inside: bool) -> Rc<Chunk> {
        let Self { turn, chunks, arrived_ns, .. } = self;
        let copy = || Chunk::copied(turn.slice(first, frames), *arrived_ns, begins_inside);
        chunks.keep_shared((first, frames), copy)
    }
}

impl OutboundQueue {
    /// Bytes that are not out yet, framing included.
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Frames that are not wholly out yet.
    #[inline]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether something is left of turns before.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether there is something of this turn.
    #[inline]
    pub fn has_runs(&self) -> bool {
        self.first != NONE
    }

    /// Its frames of this turn are kept, but for what is out of them.
    fn note_kept(&mut self, out: Out, sent: usize) {
        self.bytes -= sent as u32;
        self.frames -= out.frames;
        (self.first, self.last, self.deliveries) = (NONE, NONE, 0);
    }
}

impl Default for OutboundQueue {
    fn default() -> Self {
        Self { first: NONE, last: NONE, bytes: 0, frames: 0, deliveries: 0, backlog: None }
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

    const LANE: usize = 0;

    fn encode(arena: &mut OutboundArena, framing: Framing, text: &[u8]) -> Encoded {
        arena.encode(LaneId::messages(LANE, framing), framing, |out| out.extend_from_slice(text))
    }

    /// A frame as its receiver gets it.
    fn framed(framing: Framing, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framing.write(&mut out, |out| out.extend_from_slice(text));
        out
    }

    /// All that a queue holds, as its receiver gets it.
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
            let out = arena.note_all_out(queue);
            assert_eq!((out.frames, out.deliveries), (3, 3));
            assert!(queue.is_empty());
        }
        arena.end_turn();
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn what_shares_a_tail_is_counted_like_what_is_encoded_whole() {
        let mut arena = OutboundArena::default();
        let mut queue = OutboundQueue::default();
        for head in [&b"one"[..], b"one", b"two"] {
            let lane = LaneId::tails(LANE, Framing::Line);
            let tail = arena.encode_tail(lane, Framing::Line, |out| out.extend_from_slice(b"tail"));
            arena.push_parts(&mut queue, Framing::Line, head, tail);
        }
        let out = arena.note_all_out(&mut queue);
        assert_eq!((out.frames, out.deliveries), (3, 3));
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
            let out = arena.note_all_out(&mut queue);
            assert_eq!(out, Out { arrived_ns, frames: 2, deliveries: 1 });
            arena.end_turn();
        }
    }

    #[test]
    fn what_slow_receivers_keep_of_the_same_is_counted_once() {
        let mut arena = OutboundArena::default();
        let mut queues: [OutboundQueue; 3] = Default::default();
        let frame = encode(&mut arena, Framing::Line, &[7; 999]);
        for (sent, queue) in queues.iter_mut().enumerate() {
            arena.push(queue, frame);
            arena.keep(queue, Framing::Line, sent);
        }
        arena.end_turn();
        arena.check_invariants(queues.iter());
        assert!(arena.resident_bytes() < 1200, "{}", arena.resident_bytes());
        for (sent, queue) in queues.iter_mut().enumerate() {
            assert_eq!(queue.bytes() as usize, 1000 - sent);
            let mut deliveries = 0;
            arena.advance_backlog(queue, 1000 - sent, |out| deliveries += out.deliveries);
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
        arena.advance_backlog(&mut queues[0], 55, |out| assert_eq!(out.frames, 0));
        assert_eq!(arena.half_out(&queues[0]), 10_000, "the head is out, the tail is not");
        arena.discard_unsent(&mut queues[0]);
        assert_eq!((queues[0].frames(), queues[0].bytes()), (1, 10_000));
        arena.advance_backlog(&mut queues[0], 10_000, |out| assert_eq!(out.frames, 1));
        queues.iter_mut().for_each(|queue| arena.discard(queue));
        assert_eq!(arena.resident_bytes(), 0);
    }

    #[test]
    fn discarding_keeps_the_frame_that_is_half_out() {
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
            assert_eq!(arena.half_out(&queue), rest, "{sent} bytes are out");
            arena.discard_unsent(&mut queue);
            let left = bytes_of(&arena, &queue, Framing::Line);
            assert_eq!(left, b"on\ntw\nthre\n"[sent..sent + rest], "{sent} bytes are out");
            arena.end_turn();
            arena.check_invariants([&queue].into_iter());
        }
    }

    /// What happens to one of several queues.
    #[derive(Clone, Debug)]
    enum Action {
        Push(usize),
        PushParts(usize, usize),
        Private(usize),
        /// The kernel takes so many bytes of what there is.
        Flush(usize),
        DiscardUnsent,
        EndTurn,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (1..300usize).prop_map(Action::Push),
            2 => (1..4usize, 1..5000usize).prop_map(|(head, tail)| Action::PushParts(head, tail)),
            1 => (1..300usize).prop_map(Action::Private),
            3 => (0..900usize).prop_map(Action::Flush),
            1 => Just(Action::DiscardUnsent),
            1 => Just(Action::EndTurn),
        ]
    }

    /// Writes as the engine does: what can be written at once, the rest kept.
    fn flush(
        arena: &mut OutboundArena,
        queue: &mut OutboundQueue,
        framing: Framing,
        bytes: usize,
    ) -> (Vec<u8>, u32) {
        let (mut written, mut frames) = (Vec::new(), 0);
        if let Some(run) = arena.only_run(queue) {
            let count = bytes.min(run.bytes.len());
            written.extend_from_slice(&run.bytes[..count]);
            frames += match count == run.bytes.len() {
                true => arena.note_all_out(queue).frames,
                false => arena.keep(queue, framing, count).frames,
            };
            return (written, frames);
        }
        let mut staged = FrameRun::default();
        if arena.stage(queue, framing, 3000, &mut staged) {
            let count = bytes.min(staged.bytes.len());
            written.extend_from_slice(&staged.bytes[..count]);
            frames += match count == staged.bytes.len() {
                true => arena.note_all_out(queue).frames,
                false => arena.keep_staged(queue, &staged, count).frames,
            };
            return (written, frames);
        }
        arena.keep(queue, framing, 0);
        let pieces: Vec<u8> = arena.backlog(queue).flatten().copied().collect();
        let count = bytes.min(pieces.len());
        written.extend_from_slice(&pieces[..count]);
        arena.advance_backlog(queue, count, |out| frames += out.frames);
        (written, frames)
    }

    proptest! {
        #[test]
        fn queues_equal_plain_deques(
            steps in prop::collection::vec((0..3usize, action()), 0..120),
        ) {
            let mut arena = OutboundArena::default();
            let mut queues: [OutboundQueue; 3] = Default::default();
            let framings = [Framing::Line, Framing::LengthPrefix, Framing::WebSocket];
            // Of each frame what is not out yet, and whether some of it is.
            let mut models: [VecDeque<(Vec<u8>, bool)>; 3] = Default::default();
            let mut number = 0u8;
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
                    Action::Flush(bytes) => {
                        let (written, frames) = flush(&mut arena, queue, framing, bytes);
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
            queues.iter_mut().for_each(|queue| arena.discard(queue));
            arena.end_turn();
            prop_assert_eq!(arena.resident_bytes(), 0);
        }
    }
}
