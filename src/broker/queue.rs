//! Queues: each message goes to one consumer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ids::{DestinationId, SubscriptionIndex};
use super::message::NEVER;
use super::store::{List, Position, Slot, Store};

/// The waiting messages of a queue, and its consumers. The messages themselves are in the [`Store`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Messages that were delivered and came back, by number. They go first.
    returned: BTreeMap<u64, Slot>,
    /// The others, in the order of arrival.
    fresh: List,
    /// Messages that expire, by their expiry.
    expiring: BTreeSet<(u64, Slot)>,
    /// Consumers that may have credit and room, the next in turn first. An entry may outlast its consumer.
    turns: VecDeque<SubscriptionIndex>,
    /// The number of consumers, also of those that are not in `turns`.
    consumers: u32,
    /// How many jobs return messages to it. Until they have, it delivers nothing.
    pub returning: u32,
    /// Whether it is listed to be served again at the end of the turn.
    pub is_backlogged: bool,
}

impl Queue {
    /// Appends a message.
    pub(crate) fn push_back(&mut self, id: DestinationId, slot: Slot, store: &mut Store) {
        store.push_fresh(&mut self.fresh, slot, id);
        self.note_pushed(slot, store);
    }

    /// Returns a delivered message to the front, where such messages are in the order of sending.
    pub(crate) fn push_returned(&mut self, id: DestinationId, slot: Slot, store: &mut Store) {
        store.note_returned(slot, id);
        self.returned.insert(store.message(slot).number, slot);
        self.note_pushed(slot, store);
    }

    /// The next message.
    pub(crate) fn first(&self) -> Option<Slot> {
        self.returned.values().next().copied().or_else(|| self.fresh.first())
    }

    /// Removes the next message from the queue; it stays in the store.
    #[cfg(test)]
    pub(crate) fn pop_front(&mut self, store: &mut Store) -> Option<Slot> {
        let slot = self.first()?;
        self.remove(slot, store);
        Some(slot)
    }

    /// Removes a message that waits here from the queue; it stays in the store.
    pub(crate) fn remove(&mut self, slot: Slot, store: &mut Store) {
        let message = store.message(slot);
        if message.expires_ms != NEVER {
            self.expiring.remove(&(message.expires_ms, slot));
        }
        if let Position::Returned(_) = store.position(slot) {
            self.returned.remove(&message.number);
        } else {
            store.unlink(&mut self.fresh, slot);
        }
    }

    /// Removes the message that expires first, if it has expired; it stays in the store.
    pub(crate) fn pop_expired(&mut self, now_ms: u64, store: &mut Store) -> Option<Slot> {
        let (_, slot) = self.expiring.first().copied().filter(|(at_ms, _)| *at_ms < now_ms)?;
        self.remove(slot, store);
        Some(slot)
    }

    /// When the next message expires; [`NEVER`] if none does.
    pub(crate) fn expires_ms(&self) -> u64 {
        self.expiring.first().map_or(NEVER, |(at_ms, _)| *at_ms)
    }

    fn note_pushed(&mut self, slot: Slot, store: &Store) {
        let expires_ms = store.message(slot).expires_ms;
        if expires_ms != NEVER {
            self.expiring.insert((expires_ms, slot));
        }
    }

    /// Adds a consumer, which is then last in turn.
    pub(crate) fn add_consumer(&mut self, consumer: SubscriptionIndex) {
        self.consumers += 1;
        self.turns.push_back(consumer);
    }

    /// Notes that a consumer has ended. `is_there` is whether another one still exists.
    pub(crate) fn note_consumer_ended(&mut self, is_there: impl Fn(SubscriptionIndex) -> bool) {
        self.consumers -= 1;
        if self.turns.len() > 2 * self.consumers as usize + TURNS_KEPT {
            self.turns.retain(|one| is_there(*one));
            self.turns.shrink_to(2 * self.turns.len());
        }
    }

    /// Takes the consumer that is next in turn.
    pub(crate) fn take_turn(&mut self) -> Option<SubscriptionIndex> {
        self.turns.pop_front()
    }

    /// Puts a consumer, which is not in turn, last in turn.
    pub(crate) fn queue_up(&mut self, consumer: SubscriptionIndex) {
        self.turns.push_back(consumer);
    }

    /// Whether it has consumers.
    pub(crate) fn has_consumers(&self) -> bool {
        self.consumers > 0
    }

    /// Whether it delivers messages, if a consumer has credit and room.
    pub(crate) fn delivers(&self) -> bool {
        self.consumers > 0 && self.returning == 0
    }

    /// The number of consumers.
    pub(crate) fn consumers_len(&self) -> usize {
        self.consumers as usize
    }

    /// The number of waiting messages.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// Whether no message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing keeps the queue alive.
    pub(crate) fn is_unused(&self) -> bool {
        self.is_empty() && self.consumers == 0
    }
}

/// Turns of consumers that have ended, for which it is not worth to look for them.
const TURNS_KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broker::message::{Content, Message, Origin, Stored, UserLines};
    use crate::broker::table::{Key, Place};

    fn consumer(number: u32) -> SubscriptionIndex {
        SubscriptionIndex::new(Place::new(number, NonZeroU32::MIN))
    }

    fn stored(number: u64, expires_ms: u64) -> Stored {
        let origin = Origin::new(b"ana", b"/agent/ana");
        let content = Content {
            transaction: None,
            destination: b"/queue/a",
            content_type: None,
            has_escapes: false,
            user_lines: UserLines::Own(&[]),
            body: b"x",
            shared: None,
        };
        let message = Message { number, is_redelivered: false, origin: &origin, content: &content };
        Stored::new(&message, expires_ms)
    }

    fn drain(queue: &mut Queue, store: &mut Store) -> Vec<u64> {
        let slots: Vec<_> = std::iter::from_fn(|| queue.pop_front(store)).collect();
        slots.into_iter().map(|slot| store.take(slot).number).collect()
    }

    #[test]
    fn turns_of_consumers_that_have_ended_are_forgotten() {
        let mut queue = Queue::default();
        for number in 0..1_000 {
            queue.add_consumer(consumer(number));
        }
        for number in 0..1_000 {
            queue.note_consumer_ended(|one| one.place().index() > number);
            assert!(queue.turns.len() <= 2 * (999 - number as usize) + TURNS_KEPT);
        }
        assert!(queue.is_unused());
    }

    #[test]
    fn returned_messages_stand_in_the_order_of_sending_before_those_never_delivered() {
        let (mut queue, mut store) = (Queue::default(), Store::new(1));
        let id = DestinationId::default();
        // A dead letter may be older than those that became dead letters before it.
        for number in [9, 7] {
            let slot = store.insert(stored(number, NEVER), id);
            queue.push_back(id, slot, &mut store);
        }
        let (mut held, who) = (List::default(), consumer(1));
        for number in [4, 2, 5, 1, 3] {
            let slot = store.insert(stored(number, NEVER), id);
            store.push_held(&mut held, slot, who);
            assert_eq!(store.find_held(number, who), Some(slot));
            assert_eq!(store.find_held(number, consumer(2)), None);
            store.check_invariants();
            store.unlink(&mut held, slot);
            queue.push_returned(id, slot, &mut store);
        }
        store.check_invariants();
        assert_eq!(drain(&mut queue, &mut store), [1, 2, 3, 4, 5, 9, 7]);
        store.check_invariants();
        assert_eq!((store.bytes(), queue.is_unused()), (0, true));
    }

    #[test]
    fn expired_messages_are_dropped_at_any_place() {
        let (mut queue, mut store) = (Queue::default(), Store::new(1));
        let id = DestinationId::default();
        for (number, expires_ms) in [(1, NEVER), (2, 5), (3, 7), (4, NEVER)] {
            let slot = store.insert(stored(number, expires_ms), id);
            queue.push_back(id, slot, &mut store);
        }
        assert_eq!((queue.pop_expired(5, &mut store), queue.expires_ms()), (None, 5), "its last");
        let slot = queue.pop_expired(6, &mut store).unwrap();
        assert_eq!((store.take(slot).number, queue.expires_ms(), queue.len()), (2, 7, 3));
        store.check_invariants();
        assert_eq!(drain(&mut queue, &mut store), [1, 3, 4]);
        assert_eq!((store.bytes(), queue.expires_ms()), (0, NEVER));
    }
}
