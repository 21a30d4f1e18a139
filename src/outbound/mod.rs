//! Queues of encoded frames, one a connection, with all their nodes in one arena.
//!
//! A frame is a short head of its own and, where several receivers get the same, a tail that they
//! share. An idle queue owns nothing; a busy one owns nodes of the arena, which are used again.
//!
//! ```text
//! queue  first ──► node ──► node ──► node ◄── last
//!                 head│tail head│tail head│tail
//!                       └────────┴──────────────► one shared allocation each
//! ```
//!
//! It does not know what the bytes mean, nor how the transport frames them.

use std::rc::Rc;

use slab::Slab;
use smallvec::SmallVec;

/// The nodes of all queues, and the account of the memory that queued frames hold.
#[derive(Debug, Default)]
pub struct OutboundArena {
    nodes: Slab<Node>,
    /// Nodes, spilled heads and shared tails, each tail counted once.
    resident_bytes: u64,
}

/// One connection's frames, first in, first out. `first` and `last` are [`NONE`] together.
#[derive(Debug)]
pub struct OutboundQueue {
    first: u32,
    last: u32,
    frames: u32,
    /// Octets of heads and tails, what was sent of the first frame included.
    bytes: u32,
    /// Octets of the first frame that are out already, the transport's framing included.
    sent: u32,
}

/// A frame in a queue.
#[derive(Debug)]
pub struct OutboundFrame {
    /// What only this receiver gets.
    pub head: Head,
    /// What follows it and is shared with other receivers.
    pub tail: Option<SharedTail>,
    /// What a latency histogram or a message-oriented transport wants to know of the frame.
    pub mark: Mark,
}

/// The private part of a frame.
pub type Head = SmallVec<[u8; HEAD_INLINE_BYTES]>;

/// Facts about a frame that are not part of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When the frame that caused this delivery arrived, in nanoseconds of the engine's clock;
    /// zero where the frame is no delivery.
    pub arrived_ns: u64,
    /// Whether the whole frame is valid UTF-8.
    pub text: bool,
}

/// Encoded bytes that several queues hold together. One thread needs no atomics.
#[derive(Clone, Debug)]
pub struct SharedTail(Rc<[u8]>);

impl AsRef<[u8]> for SharedTail {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Heads of up to this size need no allocation: an ACK, a RECEIPT, the private part of a MESSAGE.
const HEAD_INLINE_BYTES: usize = 96;

/// Nodes that [`OutboundArena::trim`] leaves for the next burst.
const RETAINED_NODES: usize = 1024;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    frame: OutboundFrame,
    next: u32,
}

impl OutboundArena {
    /// Makes the shared part of a message.
    pub fn share(&mut self, bytes: &[u8]) -> SharedTail {
        self.resident_bytes += bytes.len() as u64;
        SharedTail(Rc::from(bytes))
    }

    /// Gives up the maker's own hold on a tail, whether or not it was queued.
    pub fn retire(&mut self, tail: SharedTail) {
        if Rc::strong_count(&tail.0) == 1 {
            self.resident_bytes -= tail.0.len() as u64;
        }
    }

    /// Appends a frame.
    pub fn push(&mut self, queue: &mut OutboundQueue, frame: OutboundFrame) {
        self.resident_bytes += frame.own_bytes();
        queue.bytes += frame.len() as u32;
        queue.frames += 1;
        let index = self.nodes.insert(Node { frame, next: NONE }) as u32;
        match queue.last {
            NONE => queue.first = index,
            last => self.nodes[last as usize].next = index,
        }
        queue.last = index;
    }

    /// Removes the first frame.
    pub fn pop(&mut self, queue: &mut OutboundQueue) -> Option<Mark> {
        if queue.first == NONE {
            return None;
        }
        let node = self.nodes.remove(queue.first as usize);
        queue.first = node.next;
        if queue.first == NONE {
            queue.last = NONE;
        }
        queue.frames -= 1;
        queue.bytes -= node.frame.len() as u32;
        queue.sent = 0;
        let mark = node.frame.mark;
        self.resident_bytes -= node.frame.own_bytes();
        if let Some(tail) = node.frame.tail {
            self.retire(tail);
        }
        Some(mark)
    }

    /// Removes all frames of which nothing was sent yet.
    pub fn discard_unsent(&mut self, queue: &mut OutboundQueue) {
        let mut kept = OutboundQueue::default();
        if queue.sent > 0 {
            let first = queue.first as usize;
            let next = std::mem::replace(&mut self.nodes[first].next, NONE);
            let length = self.nodes[first].frame.len() as u32;
            kept = OutboundQueue {
                first: queue.first,
                last: queue.first,
                frames: 1,
                bytes: length,
                sent: queue.sent,
            };
            queue.first = next;
            queue.frames -= 1;
            queue.bytes -= length;
            if next == NONE {
                queue.last = NONE;
            }
        }
        while self.pop(queue).is_some() {}
        *queue = kept;
    }

    /// The frames of a queue, first to last.
    pub fn frames<'a>(&'a self, queue: &OutboundQueue) -> Frames<'a> {
        Frames { nodes: &self.nodes, next: queue.first }
    }

    /// Memory that queued frames hold.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Returns the memory of a past burst when nothing is queued.
    pub fn trim(&mut self) {
        if self.nodes.is_empty() && self.nodes.capacity() > RETAINED_NODES {
            self.nodes = Slab::with_capacity(RETAINED_NODES);
        }
    }

    /// Panics where the account of memory does not hold. `queues` are all that there are.
    pub fn check_invariants<'a>(&self, queues: impl Iterator<Item = &'a OutboundQueue>) {
        let mut frames = 0;
        let mut resident_bytes = 0;
        let mut tails = std::collections::HashMap::new();
        for queue in queues {
            let mut bytes = 0;
            let mut count = 0;
            for frame in self.frames(queue) {
                count += 1;
                bytes += frame.len() as u32;
                resident_bytes += frame.own_bytes();
                if let Some(tail) = &frame.tail {
                    tails.insert(tail.0.as_ptr(), tail.0.len() as u64);
                }
            }
            assert_eq!((count, bytes), (queue.frames, queue.bytes), "a queue's own account");
            assert!(queue.frames > 0 || queue.sent == 0, "something of nothing was sent");
            frames += count as usize;
        }
        assert_eq!(frames, self.nodes.len(), "nodes that are in no queue");
        let resident_bytes = resident_bytes + tails.values().sum::<u64>();
        assert_eq!(resident_bytes, self.resident_bytes, "memory of queued frames");
    }
}

impl OutboundQueue {
    /// The number of frames.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Octets of heads and tails.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Octets of the first frame that are out already, the transport's framing included.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Notes that `octets` more of the first frame are out.
    pub fn note_sent(&mut self, octets: u32) {
        self.sent += octets;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }
}

impl Default for OutboundQueue {
    fn default() -> Self {
        Self { first: NONE, last: NONE, frames: 0, bytes: 0, sent: 0 }
    }
}

impl OutboundFrame {
    /// Octets of head and tail.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail_bytes().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shared part, empty if there is none.
    pub fn tail_bytes(&self) -> &[u8] {
        self.tail.as_ref().map_or(&[], |tail| &tail.0)
    }

    fn own_bytes(&self) -> u64 {
        let spilled = if self.head.spilled() { self.head.capacity() } else { 0 };
        (size_of::<Node>() + spilled) as u64
    }
}

/// Walks the frames of a queue.
#[derive(Debug)]
pub struct Frames<'a> {
    nodes: &'a Slab<Node>,
    next: u32,
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a OutboundFrame;

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.nodes.get(self.next as usize)?;
        self.next = node.next;
        Some(&node.frame)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn frame(head: &[u8], tail: Option<&SharedTail>) -> OutboundFrame {
        OutboundFrame { head: Head::from_slice(head), tail: tail.cloned(), mark: Mark::default() }
    }

    #[test]
    fn a_shared_tail_is_counted_once_and_returned_with_the_last_queue() {
        let mut arena = OutboundArena::default();
        let mut queues = [OutboundQueue::default(), OutboundQueue::default()];
        let tail = arena.share(b"shared");
        for queue in &mut queues {
            arena.push(queue, frame(b"head", Some(&tail)));
        }
        arena.retire(tail);
        arena.check_invariants(queues.iter());
        arena.pop(&mut queues[0]);
        arena.check_invariants(queues.iter());
        arena.pop(&mut queues[1]);
        assert_eq!(arena.resident_bytes(), 0);
        assert_eq!(arena.pop(&mut queues[1]), None);
    }

    #[test]
    fn discarding_keeps_the_frame_that_is_half_out() {
        let mut arena = OutboundArena::default();
        let mut queue = OutboundQueue::default();
        for head in [&b"one"[..], b"two", b"three"] {
            arena.push(&mut queue, frame(head, None));
        }
        queue.note_sent(1);
        arena.discard_unsent(&mut queue);
        assert_eq!((queue.frames(), queue.bytes(), queue.sent()), (1, 3, 1));
        arena.push(&mut queue, frame(b"last", None));
        let heads: Vec<_> = arena.frames(&queue).map(|frame| frame.head.to_vec()).collect();
        assert_eq!(heads, [b"one".to_vec(), b"last".to_vec()]);
        arena.check_invariants([&queue].into_iter());
        arena.pop(&mut queue);
        arena.discard_unsent(&mut queue);
        assert!(queue.is_empty());
        assert_eq!(arena.resident_bytes(), 0);
    }

    proptest! {
        #[test]
        fn queues_equal_plain_deques(steps in prop::collection::vec((0..3usize, 0..4u8, 0..200usize), 0..200)) {
            let mut arena = OutboundArena::default();
            let mut queues: [OutboundQueue; 3] = Default::default();
            let mut models: [VecDeque<Vec<u8>>; 3] = Default::default();
            let tail = arena.share(&[7; 50]);
            for (index, action, size) in steps {
                match action {
                    0 | 1 => {
                        let shared = (action == 1).then_some(&tail);
                        let frame = frame(&vec![index as u8; size], shared);
                        models[index].push_back([&frame.head[..], frame.tail_bytes()].concat());
                        arena.push(&mut queues[index], frame);
                    }
                    2 => {
                        let popped = arena.pop(&mut queues[index]).is_some();
                        prop_assert_eq!(popped, models[index].pop_front().is_some());
                    }
                    _ => {
                        arena.discard_unsent(&mut queues[index]);
                        models[index].clear();
                    }
                }
                for (queue, model) in queues.iter().zip(&models) {
                    let bytes: Vec<u8> = arena
                        .frames(queue)
                        .flat_map(|frame| [&frame.head[..], frame.tail_bytes()].concat())
                        .collect();
                    prop_assert_eq!(&bytes, &model.iter().flatten().copied().collect::<Vec<_>>());
                    prop_assert_eq!(queue.bytes() as usize, bytes.len());
                }
            }
            for queue in &mut queues {
                arena.discard_unsent(queue);
            }
            arena.retire(tail);
            prop_assert_eq!(arena.resident_bytes(), 0);
        }
    }
}
