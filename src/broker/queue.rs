//! Queues: each message goes to one consumer.

use std::collections::VecDeque;
use std::rc::Rc;

use super::message::{Content, Message, Origin, UserLines};
use super::subscription::SubscriptionIndex;
use crate::stomp::Name;
use crate::stomp::frame::OwnedLine;

/// The messages that wait at a queue, and the consumers that take turns.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Rc<Stored>>,
    /// Octets of `waiting`, what each message costs besides included.
    bytes: u64,
    /// No message expires sooner; [`NEVER`] where none waits.
    expires_ms: u64,
    consumers: Vec<SubscriptionIndex>,
    /// Whose turn it is; `next ≤ consumers.len()`.
    next: usize,
    /// Whether it is on the list of those that are served again at the end of the turn.
    pub is_backlogged: bool,
}

/// A message that was kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number, which makes its `message-id`.
    pub number: u64,
    /// How often it was given to a consumer of the queue that it is of.
    pub deliveries: u32,
    /// The last millisecond in which it may be delivered, of [`super::Moment::ms`]; or [`NEVER`].
    pub expires_ms: u64,
    transaction: Option<Box<[u8]>>,
    /// Who sent it.
    pub origin: Origin,
    destination: Box<[u8]>,
    content_type: Option<Box<[u8]>>,
    has_escapes: bool,
    user_lines: Vec<OwnedLine>,
    body: Box<[u8]>,
}

/// When a message expires that does not.
pub const NEVER: u64 = u64::MAX;

impl Queue {
    /// Puts a message at the end.
    pub fn push_back(&mut self, message: Rc<Stored>) {
        self.note_pushed(&message);
        self.waiting.push_back(message);
    }

    /// Puts a message that came back at the front, among others that did in the order of sending.
    pub fn put_back(&mut self, message: Rc<Stored>) {
        self.note_pushed(&message);
        // Those that came back stand before all that were never delivered, in this order.
        let stands_before = |one: &Rc<Stored>| one.deliveries > 0 && one.number < message.number;
        let place = self.waiting.partition_point(stands_before);
        self.waiting.insert(place, message);
    }

    /// The message that is next.
    pub fn pop_front(&mut self) -> Option<Rc<Stored>> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.cost_bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.expires_ms = NEVER;
        }
        Some(message)
    }

    /// Drops what is expired, wherever it stands; says how many messages that was.
    pub fn drop_expired(&mut self, now_ms: u64) -> u64 {
        if self.expires_ms >= now_ms {
            return 0;
        }
        let before = self.waiting.len();
        self.waiting.retain(|message| message.expires_ms >= now_ms);
        self.bytes = self.waiting.iter().map(|message| message.cost_bytes()).sum();
        self.expires_ms = self.waiting.iter().map(|one| one.expires_ms).min().unwrap_or(NEVER);
        (before - self.waiting.len()) as u64
    }

    /// When a message here expires first, or sooner; [`NEVER`] where none does.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Whether the message that is next is expired.
    pub fn is_next_expired(&self, now_ms: u64) -> bool {
        self.waiting.front().is_some_and(|message| message.expires_ms < now_ms)
    }

    fn note_pushed(&mut self, message: &Stored) {
        self.bytes += message.cost_bytes();
        self.expires_ms = self.expires_ms.min(message.expires_ms);
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

impl Default for Queue {
    /// Nothing waits, and nobody wants anything.
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

impl Stored {
    /// Keeps a message.
    pub fn new(message: &Message<'_>, expires_ms: u64) -> Self {
        let content = message.content;
        let mut user_lines = Vec::new();
        content.user_lines.for_each(|name, value| user_lines.push(OwnedLine::new(name, value)));
        Self {
            number: message.number,
            deliveries: 0,
            expires_ms,
            origin: message.origin.clone(),
            transaction: content.transaction.map(Into::into),
            destination: content.destination.into(),
            content_type: content.content_type.map(Into::into),
            has_escapes: content.has_escapes,
            user_lines,
            body: content.body.into(),
        }
    }

    /// The same message as it goes to the dead letter queue, where its count begins anew.
    pub fn buried(self: Rc<Self>, expires_ms: u64) -> Rc<Self> {
        let mut message = Rc::unwrap_or_clone(self);
        message.deliveries = 0;
        message.expires_ms = expires_ms;
        let name = Name::DeadLetterReason.text().as_bytes();
        message.user_lines.push(OwnedLine::new(name, b"deliveries_max"));
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
        Self::cost_of(&self.origin, &self.content())
    }

    /// Octets that a message will hold once it is kept.
    pub fn cost_of(origin: &Origin, content: &Content<'_>) -> u64 {
        let mut lines = 0;
        content.user_lines.for_each(|name, value| lines += OwnedLine::cost_of(name, value));
        (size_of::<Self>()
            + lines
            + origin.held_bytes()
            + content.transaction.map_or(0, <[u8]>::len)
            + content.destination.len()
            + content.content_type.map_or(0, <[u8]>::len)
            + content.body.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
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
    fn what_comes_back_stands_in_the_order_of_sending_before_what_was_never_delivered() {
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
            Rc::new(Stored { deliveries, ..Stored::new(&message, NEVER) })
        };
        let mut queue = Queue::default();
        // A dead letter is older than what was buried before it.
        for number in [9, 7] {
            queue.push_back(stored(number, 0));
        }
        for number in [4, 2, 5, 1, 3] {
            queue.put_back(stored(number, 1));
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(queue.pop_front()?.number)).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 9, 7]);
    }

    #[test]
    fn whatever_is_kept_of_a_message_counts() {
        let cost = |origin: &str, content: &Content<'_>| {
            Stored::cost_of(&Origin::new(origin.as_bytes(), b"/agent/ana"), content)
        };
        let content = || Content {
            transaction: None,
            destination: b"/queue/a",
            content_type: None,
            has_escapes: false,
            user_lines: UserLines::Own(&[]),
            body: b"",
        };
        let long = [b'x'; 1000];
        let least = cost("ana", &content());
        let lines: &[(&[u8], &[u8])] = &[(b"k", &long)];
        for (what, more) in [
            ("transaction", Content { transaction: Some(&long), ..content() }),
            ("destination", Content { destination: &long, ..content() }),
            ("content-type", Content { content_type: Some(&long), ..content() }),
            ("lines", Content { user_lines: UserLines::Own(lines), ..content() }),
            ("body", Content { body: &long, ..content() }),
        ] {
            assert!(cost("ana", &more) >= least + 900, "{what}");
        }
        assert!(cost(std::str::from_utf8(&long).unwrap(), &content()) > least + 900);
        let short = [(&b"k"[..], &b"v"[..]); 100];
        let many = Content { user_lines: UserLines::Own(&short), ..content() };
        let each = size_of::<OwnedLine>() as u64;
        assert!(cost("ana", &many) > least + 100 * each, "lines are kept one by one");
    }

    #[test]
    fn what_is_expired_goes_wherever_it_stands() {
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
            queue.push_back(Rc::new(Stored::new(&message(number), expires_ms)));
        }
        let each = queue.bytes() / 4;
        assert_eq!((queue.drop_expired(5), queue.expires_ms()), (0, 5), "its last millisecond");
        assert_eq!((queue.drop_expired(6), queue.expires_ms()), (1, 7));
        assert_eq!((queue.len(), queue.bytes()), (3, 3 * each));
        let left: Vec<_> = std::iter::from_fn(|| Some(queue.pop_front()?.number)).collect();
        assert_eq!((left, queue.bytes(), queue.expires_ms()), (vec![1, 3, 4], 0, NEVER));
    }
}
