//! Queues: each message goes to one consumer.

use std::collections::VecDeque;

use super::ids::SubscriptionIndex;
use super::message::NEVER;
use super::message::Stored;

/// The waiting messages of a queue, and its consumers.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: VecDeque<Box<Stored>>,
    /// Memory of `waiting`, bookkeeping included.
    bytes: u64,
    /// A lower bound for the expiry of all messages; [`NEVER`] if none waits.
    expires_ms: u64,
    consumers: Vec<SubscriptionIndex>,
    /// The index of the consumer that is next in turn; `next ≤ consumers.len()`.
    next: usize,
    /// Whether it is listed to be served again at the end of the turn.
    pub is_backlogged: bool,
}

impl Queue {
    /// Appends a message.
    pub(crate) fn push_back(&mut self, message: Box<Stored>) {
        self.note_pushed(&message);
        self.waiting.push_back(message);
    }

    /// Returns a delivered message to the front, where such messages are in the order of sending.
    pub(crate) fn requeue(&mut self, message: Box<Stored>) {
        self.note_pushed(&message);
        // Delivered messages stand before those that never were, in the order of their numbers.
        let stands_before = |one: &Stored| one.deliveries > 0 && one.number < message.number;
        let place = self.waiting.partition_point(|one| stands_before(one));
        self.waiting.insert(place, message);
    }

    /// Removes the next message.
    pub(crate) fn pop_front(&mut self) -> Option<Box<Stored>> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.cost_bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.expires_ms = NEVER;
        }
        Some(message)
    }

    /// Drops all expired messages. Returns their number.
    pub(crate) fn drop_expired(&mut self, now_ms: u64) -> u64 {
        if self.expires_ms >= now_ms {
            return 0;
        }
        let before = self.waiting.len();
        self.waiting.retain(|message| message.expires_ms >= now_ms);
        self.bytes = self.waiting.iter().map(|message| message.cost_bytes()).sum();
        self.expires_ms = self.waiting.iter().map(|one| one.expires_ms).min().unwrap_or(NEVER);
        (before - self.waiting.len()) as u64
    }

    /// A lower bound for the expiry of all messages; [`NEVER`] if none expires.
    pub(crate) fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Whether the next message has expired.
    pub(crate) fn is_next_expired(&self, now_ms: u64) -> bool {
        self.waiting.front().is_some_and(|message| message.expires_ms < now_ms)
    }

    fn note_pushed(&mut self, message: &Stored) {
        self.bytes += message.cost_bytes();
        self.expires_ms = self.expires_ms.min(message.expires_ms);
    }

    /// Adds a consumer.
    pub(crate) fn add_consumer(&mut self, subscription: SubscriptionIndex) {
        self.consumers.push(subscription);
    }

    /// Removes a consumer; the order of the others does not change.
    pub(crate) fn remove_consumer(&mut self, subscription: SubscriptionIndex) {
        if let Some(index) = self.consumers.iter().position(|other| *other == subscription) {
            self.consumers.remove(index);
            self.next -= usize::from(index < self.next);
        }
    }

    /// The next consumer in turn that has credit. The one after it is then next in turn.
    pub(crate) fn next_consumer(
        &mut self,
        has_credit: impl Fn(SubscriptionIndex) -> bool,
    ) -> Option<SubscriptionIndex> {
        let count = self.consumers.len();
        for step in 0..count {
            let index = (self.next + step) % count;
            let consumer = self.consumers[index];
            if has_credit(consumer) {
                self.next = (index + 1) % count;
                return Some(consumer);
            }
        }
        None
    }

    /// The number of waiting messages.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Memory of the waiting messages.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing keeps the queue alive.
    pub(crate) fn is_unused(&self) -> bool {
        self.waiting.is_empty() && self.consumers.is_empty()
    }

    /// Consumers, in the order in which they subscribed.
    pub(crate) fn consumers(&self) -> &[SubscriptionIndex] {
        &self.consumers
    }
}

impl Default for Queue {
    /// A queue without messages and consumers.
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            expires_ms: NEVER,
            consumers: Vec::new(),
            next: 0,
            is_backlogged: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::message::{Content, Message, Origin, UserLines};
    use crate::broker::table::{Key, Place};

    fn consumer(number: u32) -> SubscriptionIndex {
        SubscriptionIndex::new(Place::new(number, NonZeroU32::MIN))
    }

    #[test]
    fn consumers_with_credit_take_turns() {
        let mut queue = Queue::default();
        for number in 0..3 {
            queue.add_consumer(consumer(number));
        }
        let mut turns = |without: u32| {
            queue.next_consumer(|one| one != consumer(without)).map(|one| one.place().index())
        };
        assert_eq!(turns(9), Some(0));
        assert_eq!(turns(1), Some(2));
        assert_eq!(turns(9), Some(0));
        assert_eq!(turns(9), Some(1));
        assert_eq!(queue.next_consumer(|_| false), None);
        queue.remove_consumer(consumer(0));
        assert_eq!(queue.next_consumer(|_| true), Some(consumer(2)), "the turn stays");
        queue.remove_consumer(consumer(2));
        queue.remove_consumer(consumer(1));
        assert_eq!(queue.next_consumer(|_| true), None);
        assert!(queue.is_unused());
    }

    #[test]
    fn returned_messages_stand_in_the_order_of_sending_before_those_never_delivered() {
        let origin = Origin::new(b"ana", b"/agent/ana");
        let content = Content {
            transaction: None,
            destination: b"/queue/a",
            content_type: None,
            has_escapes: false,
            user_lines: UserLines::Own(&[]),
            body: b"",
        };
        let stored = |number, deliveries| {
            let is_redelivered = false;
            let message = Message { number, is_redelivered, origin: &origin, content: &content };
            let mut stored = Stored::new(&message, NEVER);
            stored.deliveries = deliveries;
            Box::new(stored)
        };
        let mut queue = Queue::default();
        // A dead letter may be older than those that became dead letters before it.
        for number in [9, 7] {
            queue.push_back(stored(number, 0));
        }
        for number in [4, 2, 5, 1, 3] {
            queue.requeue(stored(number, 1));
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop_front()?.number)).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 9, 7]);
    }

    #[test]
    fn expired_messages_are_dropped_at_any_place() {
        let origin = Origin::new(b"ana", b"/agent/ana");
        let user_lines = UserLines::Own(&[]);
        let (destination, body) = (&b"/queue/a"[..], &b"x"[..]);
        let content = Content {
            transaction: None,
            destination,
            content_type: None,
            has_escapes: false,
            user_lines,
            body,
        };
        let message =
            |number| Message { number, is_redelivered: false, origin: &origin, content: &content };
        let mut queue = Queue::default();
        for (number, expires_ms) in [(1, NEVER), (2, 5), (3, 7), (4, NEVER)] {
            queue.push_back(Box::new(Stored::new(&message(number), expires_ms)));
        }
        let each = queue.bytes() / 4;
        assert_eq!((queue.drop_expired(5), queue.expires_ms()), (0, 5), "its last millisecond");
        assert_eq!((queue.drop_expired(6), queue.expires_ms()), (1, 7));
        assert_eq!((queue.len(), queue.bytes()), (3, 3 * each));
        let left: Vec<_> = std::iter::from_fn(|| Some(queue.pop_front()?.number)).collect();
        assert_eq!((left, queue.bytes(), queue.expires_ms()), (vec![1, 3, 4], 0, NEVER));
    }
}
