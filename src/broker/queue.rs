//! Queues: each message goes to one consumer.

use std::collections::VecDeque;
use std::rc::Rc;

use super::message::{Content, Message, Origin, UserLines};
use super::subscription::SubscriptionIndex;
use crate::stomp::frame::OwnedLine;

/// The messages that wait at a queue, and the consumers that take turns.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Rc<Stored>>,
    /// Octets of `waiting`, what each message costs besides included.
    bytes: u64,
    consumers: Vec<SubscriptionIndex>,
    /// Whose turn it is; `next ≤ consumers.len()`.
    next: usize,
}

/// A message that was kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number, which makes its `message-id`.
    pub number: u64,
    /// How often it was delivered and came back.
    pub returns: u32,
    transaction: Option<Box<[u8]>>,
    /// Who sent it.
    pub origin: Origin,
    destination: Box<[u8]>,
    content_type: Option<Box<[u8]>>,
    has_escapes: bool,
    user_lines: Vec<OwnedLine>,
    body: Box<[u8]>,
}

impl Queue {
    /// Puts a message at the end.
    pub fn push_back(&mut self, message: Rc<Stored>) {
        self.bytes += message.cost_bytes();
        self.waiting.push_back(message);
    }

    /// Puts a message that came back at the front.
    pub fn push_front(&mut self, message: Rc<Stored>) {
        self.bytes += message.cost_bytes();
        self.waiting.push_front(message);
    }

    /// The message that is next.
    pub fn pop_front(&mut self) -> Option<Rc<Stored>> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.cost_bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    /// Adds a consumer.
    pub fn add_consumer(&mut self, subscription: SubscriptionIndex) {
        self.consumers.push(subscription);
    }

    /// Removes a consumer; the turn stays with whoever had it.
    pub fn remove_consumer(&mut self, subscription: SubscriptionIndex) {
        if let Some(index) = self.consumers.iter().position(|other| *other == subscription) {
            self.consumers.remove(index);
            self.next -= usize::from(index < self.next);
        }
    }

    /// The next consumer that has credit; the turn passes to the one after it.
    pub fn next_consumer(
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

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Octets that waiting messages hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing keeps the queue in being.
    pub fn is_unused(&self) -> bool {
        self.waiting.is_empty() && self.consumers.is_empty()
    }

    /// Consumers, in the order of their subscriptions.
    pub fn consumers(&self) -> &[SubscriptionIndex] {
        &self.consumers
    }
}

impl Stored {
    /// Keeps a message.
    pub fn new(message: &Message<'_>) -> Self {
        let content = message.content;
        let mut user_lines = Vec::new();
        content.user_lines.for_each(|name, value| user_lines.push(OwnedLine::new(name, value)));
        Self {
            number: message.number,
            returns: 0,
            origin: message.origin.clone(),
            transaction: content.transaction.map(Into::into),
            destination: content.destination.into(),
            content_type: content.content_type.map(Into::into),
            has_escapes: content.has_escapes,
            user_lines,
            body: content.body.into(),
        }
    }

    /// The same message, having come back once more.
    pub fn returned(self: Rc<Self>) -> Rc<Self> {
        let mut message = Rc::unwrap_or_clone(self);
        message.returns += 1;
        Rc::new(message)
    }

    /// What was sent, to be delivered.
    pub fn content(&self) -> Content<'_> {
        Content {
            transaction: self.transaction.as_deref(),
            destination: &self.destination,
            content_type: self.content_type.as_deref(),
            has_escapes: self.has_escapes,
            user_lines: UserLines::Stored(&self.user_lines),
            body: &self.body,
        }
    }

    /// Octets that it holds.
    pub fn cost_bytes(&self) -> u64 {
        let lines: usize =
            self.user_lines.iter().map(|line| line.name.len() + line.value.len()).sum();
        (size_of::<Self>()
            + lines
            + self.origin.held_bytes()
            + self.destination.len()
            + self.body.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(number: u32) -> SubscriptionIndex {
        SubscriptionIndex::from_number(number)
    }

    #[test]
    fn consumers_with_credit_take_turns() {
        let mut queue = Queue::default();
        for number in 0..3 {
            queue.add_consumer(consumer(number));
        }
        let mut turns = |without: u32| {
            queue.next_consumer(|one| one != consumer(without)).map(SubscriptionIndex::number)
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
}
