//! Consumers of queues: delivery in turn, acknowledgement, redelivery, and dead letters.
//!
//! A queue lists the consumers that may take a message. One without credit is listed again by its next ACK, one
//! without room when its connection was flushed, so that none is looked at in vain. What a queue does in one go
//! is bounded; the rest is done in later turns.

use super::deliver::{Sending, Sent};
use super::fan::Fan;
use super::fault::{Code, Fault};
use super::ids::{DeliveryId, DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::members::Route;
use super::message::{Message, Stored};
use super::queue::Queue;
use super::shares::{Asker, Wanted};
use super::store::{Position, Slot};
use super::subscription::{AckMode, Standard, Target, Turn};
use super::{Broker, Moment};
use crate::work;

/// What queues left to later turns.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// Whether queues are listed that can be served at once.
    pub(super) is_servable: bool,
    /// Whether messages have expired that were not dropped.
    pub(super) has_expired: bool,
}

/// Messages that a queue delivers or drops in one go.
const SERVED_MAX: u32 = 256;

/// Messages that all queues together deliver or drop at the end of a turn.
const SERVED_PER_TURN_MAX: u32 = 1024;

impl Broker {
    /// Subscribes a session to a queue, as one of its consumers.
    pub(super) fn subscribe_queue(
        &mut self,
        session: SessionId,
        name: &[u8],
        standard: Box<Standard>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        self.check_destination_name(name)?;
        self.check_may_subscribe(session, name)?;
        if Levels::is_pattern(name) {
            let description = "queues have no wildcards: a subscription is to one queue";
            return Err(Fault::staying(Code::InvalidDestinationType, description));
        }
        self.make_subscription_room(session, Wanted::Name(name), now)?;
        let id = self.find_or_make_destination(name, Asker::Nobody, now)?;
        let index = self.begin_subscription(session, Target::Queue(id), Some(standard));
        self.destinations.change_queue(id, |queue| queue.add_consumer(index));
        self.serve_queue(id, now);
        Ok(index)
    }

    /// Removes a consumer, whose subscription has ended, from its queue and returns its unacknowledged messages
    /// to it.
    pub(super) fn remove_consumer(
        &mut self,
        id: DestinationId,
        standard: Option<Box<Standard>>,
        now: Moment,
    ) {
        let mut held = standard.map(|one| one.unacknowledged).unwrap_or_default();
        while let Some(slot) = held.first() {
            self.store.unlink(&mut held, slot);
            self.requeue(id, slot, now);
        }
        let Self { destinations, subscriptions, .. } = self;
        let is_there = |one| subscriptions.get(one).is_some();
        destinations.change_queue(id, |queue| queue.note_consumer_ended(is_there));
    }

    pub(super) fn send_to_queue(
        &mut self,
        sending: Sending<'_>,
        id: DestinationId,
        now: Moment,
    ) -> Sent {
        let number = self.next_message();
        let queue = self.destinations.queue(id);
        let is_next = queue.is_some_and(|queue| queue.has_consumers() && queue.is_empty());
        let consumer = if is_next { self.next_consumer(id) } else { None };
        if let Some(consumer) = consumer {
            self.meter.spend(work::DELIVERY);
            let subscription = &self.subscriptions[consumer];
            if subscription.standard.as_ref().is_none_or(|one| one.mode == AckMode::Auto) {
                // Nothing has to be kept of it.
                let route = Route { session: subscription.session, subscription: consumer };
                self.deliver_along(sending, number, Fan::to(route), now);
                return Sent::Queued(1);
            }
        }
        let slot = self.store_message(sending, number, id, now);
        if let Some(consumer) = consumer {
            self.deliver_to_consumer(slot, consumer, now);
            return Sent::Queued(1);
        }
        self.change_queue(id, |queue, store| queue.push_back(id, slot, store));
        self.serve_queue(id, now);
        let waits = self.destinations.queue(id).is_some_and(|queue| !queue.is_empty());
        Sent::Queued(u32::from(!waits))
    }

    /// Stores a message for a queue, into which it has yet to be put.
    fn store_message(
        &mut self,
        sending: Sending<'_>,
        number: u64,
        id: DestinationId,
        now: Moment,
    ) -> Slot {
        let (origin, content) = (sending.origin_in(&self.sessions), sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let expires_ms = sending.expires_ms.min(self.waits_until_ms(now));
        self.store.insert(Stored::new(&message, expires_ms), id)
    }

    /// Delivers a queue's messages to its consumers in turn, as far as they have credit and the share of the turn
    /// lasts. Returns the number of messages that were delivered or dropped.
    pub(super) fn serve_queue(&mut self, id: DestinationId, now: Moment) -> u32 {
        for served in 0..SERVED_MAX {
            let queue = self.destinations.queue(id).filter(|queue| queue.has_consumers());
            let Some(first) = queue.and_then(Queue::first) else { return served };
            if served > 0 && self.is_share_spent() {
                break;
            }
            self.meter.spend(work::DELIVERY);
            if self.store.message(first).expires_ms < now.ms() {
                self.drop_waiting(id, first);
                self.counters.messages_expired += 1;
                continue;
            }
            let Some(consumer) = self.next_consumer(id) else { return served };
            self.change_queue(id, |queue, store| queue.remove(first, store));
            self.deliver_to_consumer(first, consumer, now);
        }
        self.destinations.note_backlog(id);
        self.leftover.is_servable = true;
        SERVED_MAX
    }

    /// Drops a message that waits in a queue.
    fn drop_waiting(&mut self, id: DestinationId, slot: Slot) {
        self.change_queue(id, |queue, store| queue.remove(slot, store));
        self.store.take(slot);
    }

    /// The next consumer of a queue that has credit and room; it is then last in turn.
    fn next_consumer(&mut self, id: DestinationId) -> Option<SubscriptionIndex> {
        loop {
            let consumer = self.destinations.change_queue(id, Queue::take_turn)??;
            let Some(subscription) = self.subscriptions.get_mut(consumer) else { continue };
            // A session that has ended leaves consumers behind until a job has removed them.
            let Some(session) = self.sessions.get_mut(subscription.session) else { continue };
            let Some(standard) = &mut subscription.standard else { continue };
            if standard.unacknowledged.len() as u64 >= u64::from(standard.prefetch) {
                standard.turn = Turn::AwaitsCredit;
                continue;
            }
            let peer = self.peers.peer_mut(session.peer);
            if !peer.has_room() {
                standard.turn = Turn::AwaitsRoom;
                peer.is_awaited = true;
                session.awaiting_room.push(consumer);
                self.forget_ended_waiters(consumer);
                continue;
            }
            self.destinations.change_queue(id, |queue| queue.queue_up(consumer));
            if self.peers.arena.is_full() {
                self.destinations.note_backlog(id);
                self.leftover.is_servable = true;
                return None;
            }
            return Some(consumer);
        }
    }

    /// Forgets consumers that waited for room and have ended, if there are many.
    fn forget_ended_waiters(&mut self, of: SubscriptionIndex) {
        let Self { sessions, subscriptions, .. } = self;
        let session = &mut sessions[subscriptions[of].session];
        if session.awaiting_room.len() > 2 * session.subscriptions.all().len() + 8 {
            session.awaiting_room.retain(|one| subscriptions.get(*one).is_some());
        }
    }

    /// Lists the consumers of a session again that waited for room.
    fn list_waiters(&mut self, session: SessionId) {
        for consumer in std::mem::take(&mut self.sessions[session].awaiting_room) {
            if let Some(id) = self.list_consumer(consumer, Turn::AwaitsRoom) {
                self.destinations.note_backlog(id);
            }
        }
    }

    /// Puts a consumer last in turn, if that was what it waited for. Returns its queue.
    fn list_consumer(
        &mut self,
        consumer: SubscriptionIndex,
        awaited: Turn,
    ) -> Option<DestinationId> {
        let subscription = self.subscriptions.get_mut(consumer)?;
        let Target::Queue(id) = subscription.target else { return None };
        let standard = subscription.standard.as_mut().filter(|one| one.turn == awaited)?;
        standard.turn = Turn::Listed;
        self.destinations.change_queue(id, |queue| queue.queue_up(consumer));
        Some(id)
    }

    /// Delivers a message of a queue to a consumer.
    fn deliver_to_consumer(&mut self, slot: Slot, consumer: SubscriptionIndex, now: Moment) {
        let mut stored = self.store.lend(slot);
        stored.deliveries += 1;
        let session = self.subscriptions[consumer].session;
        let route = Route { session, subscription: consumer };
        let message = Message {
            number: stored.number,
            is_redelivered: stored.deliveries > 1,
            origin: &stored.origin,
            content: &stored.content(),
        };
        self.deliver_to(&message, Fan::to(route), now);
        self.store.give_back(slot, stored);
        let standard = &mut self.subscriptions[consumer].standard;
        match standard.as_mut().filter(|one| one.mode != AckMode::Auto) {
            Some(standard) => self.store.push_held(&mut standard.unacknowledged, slot, consumer),
            None => drop(self.store.take(slot)),
        }
    }

    /// Settles messages of a queue by the ACK or NACK of a consumer.
    pub(super) fn settle(&mut self, delivery: DeliveryId, is_consumed: bool, now: Moment) {
        let DeliveryId { subscription: consumer, number } = delivery;
        let Some(last) = self.store.find_held(number, consumer) else { return };
        let Some(subscription) = self.subscriptions.get(consumer) else { return };
        let Target::Queue(id) = subscription.target else { return };
        let Some(mode) = subscription.standard.as_ref().map(|one| one.mode) else { return };
        loop {
            let first = || self.subscriptions[consumer].standard.as_ref()?.unacknowledged.first();
            let settled = if mode == AckMode::Client { first().unwrap_or(last) } else { last };
            self.release_held(settled, consumer);
            if is_consumed {
                self.store.take(settled);
            } else {
                self.requeue(id, settled, now);
            }
            if settled == last {
                break;
            }
        }
        self.serve_queue(id, now);
    }

    /// Removes a message from those that a consumer holds, which gives it credit.
    fn release_held(&mut self, slot: Slot, consumer: SubscriptionIndex) {
        if let Some(standard) = &mut self.subscriptions[consumer].standard {
            self.store.unlink(&mut standard.unacknowledged, slot);
        }
        self.list_consumer(consumer, Turn::AwaitsCredit);
    }

    /// Returns the unacknowledged messages of a session that moves to another connection to their queues.
    /// They are delivered again at the end of the turn, after CONNECTED.
    pub(super) fn requeue_unacknowledged(&mut self, session: SessionId, now: Moment) {
        self.list_waiters(session);
        for index in self.sessions[session].subscriptions.all().to_vec() {
            let subscription = &mut self.subscriptions[index];
            let Some(standard) = &mut subscription.standard else { continue };
            standard.is_inherited = true;
            let mut held = std::mem::take(&mut standard.unacknowledged);
            let Target::Queue(id) = subscription.target else { continue };
            self.list_consumer(index, Turn::AwaitsCredit);
            while let Some(slot) = held.first() {
                self.store.unlink(&mut held, slot);
                self.requeue(id, slot, now);
            }
            self.destinations.note_backlog(id);
        }
    }

    /// Returns a delivered message to its queue, in front of those never delivered. After `deliveries_max`
    /// deliveries it goes to the dead letter queue, or is dropped; in the dead letter queue itself it stays
    /// until it is acknowledged.
    fn requeue(&mut self, id: DestinationId, slot: Slot, now: Moment) {
        self.meter.spend(work::DROP);
        let Some(queue) = self.destinations.get(id) else { return };
        let is_last = self.dead_letter_queue.as_deref().map(str::as_bytes) == Some(&*queue.name);
        if !is_last && self.store.message(slot).deliveries >= self.limits.deliveries_max {
            return self.move_to_dead_letters(slot, now);
        }
        self.change_queue(id, |queue, store| queue.push_returned(id, slot, store));
    }

    /// Moves a message to the dead letter queue, if there is one and it has room.
    fn move_to_dead_letters(&mut self, slot: Slot, now: Moment) {
        self.counters.messages_dropped += 1;
        let expires_ms = self.waits_until_ms(now);
        self.store.change(slot, |message| message.make_dead_letter(expires_ms));
        let is_within = self.store.bytes() <= self.limits.queues_bytes_max;
        let queue = self.dead_letter_queue.clone().filter(|_| is_within).and_then(|name| {
            self.check_queue_room(name.as_bytes(), 1, now).ok()?;
            self.find_or_make_destination(name.as_bytes(), Asker::Nobody, now).ok()
        });
        let Some(id) = queue else {
            self.store.take(slot);
            return;
        };
        self.change_queue(id, |queue, store| queue.push_back(id, slot, store));
        self.destinations.note_backlog(id);
        self.leftover.is_servable = true;
    }

    /// Drops a message, wherever it is. If a consumer holds it, its ACK has no effect.
    pub(super) fn drop_message(&mut self, slot: Slot) {
        self.meter.spend(work::DROP);
        match self.store.position(slot) {
            Position::Fresh(id) | Position::Returned(id) => {
                self.drop_waiting(id, slot);
                self.release_destination(id);
            }
            Position::Held(consumer) => {
                self.release_held(slot, consumer);
                self.store.take(slot);
            }
        }
        self.counters.messages_dropped += 1;
    }

    /// Serves the queues that are listed for the end of the turn, and drops expired messages, both within
    /// the share.
    pub(crate) fn serve_backlog(&mut self, now: Moment) {
        for peer in self.peers.take_roomy() {
            let open = self.peers.outbox(peer).and_then(|(_, peer)| peer.session());
            open.into_iter().for_each(|session| self.list_waiters(session));
        }
        let is_expired = |(expires_ms, _)| expires_ms < now.ms();
        let is_due = self.destinations.first_expiring().is_some_and(is_expired);
        if std::mem::take(&mut self.leftover.has_expired) || is_due {
            self.drop_some_expired(SERVED_MAX, now);
        }
        self.leftover.is_servable = false;
        let mut left = SERVED_PER_TURN_MAX;
        for _ in 0..self.destinations.backlogged_len() {
            if left == 0 || self.is_share_spent() {
                self.leftover.is_servable = true;
                break;
            }
            let Some(id) = self.destinations.take_backlogged() else { break };
            left = left.saturating_sub(1 + self.serve_queue(id, now));
            self.release_destination(id);
        }
    }

    /// Whether there is work for the next turn even without an event.
    pub(super) fn has_queue_work(&self) -> bool {
        self.leftover.is_servable || self.leftover.has_expired || self.peers.has_roomy()
    }

    /// Changes a queue and the messages in it.
    pub(super) fn change_queue<T>(
        &mut self,
        id: DestinationId,
        change: impl FnOnce(&mut Queue, &mut super::store::Store) -> T,
    ) -> Option<T> {
        let Self { destinations, store, .. } = self;
        destinations.change_queue(id, |queue| change(queue, store))
    }

    /// Panics if queues, consumers and the store contradict each other.
    pub(super) fn check_queue_invariants(&self) {
        self.store.check_invariants();
        let waiting: usize =
            self.destinations.iter().filter_map(|(_, one)| Some(one.queue.as_ref()?.len())).sum();
        // Also those of sessions that have ended, which a job returns.
        let held: usize = self
            .subscriptions
            .iter()
            .filter_map(|(_, subscription)| subscription.standard.as_ref())
            .map(|standard| standard.unacknowledged.len())
            .sum();
        assert_eq!(waiting + held, self.store.len(), "messages of queues");
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker, Verdict};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    /// Handles frames of a client.
    fn say(broker: &mut Broker, speaker: &mut Speaker, bytes: &[u8]) -> Verdict {
        broker.handle(speaker, Data { bytes, is_binary: false }, Moment::default()).verdict
    }

    #[test]
    fn a_queue_that_waits_for_an_ack_is_not_served_at_the_end_of_each_turn() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let mut bob = broker.open_peer(Opening { slot: 0, number: 1, framing, dialect });
        let login = b"CONNECT\nlogin:bob\npasscode:app.service\n\n\0";
        assert_eq!(say(&mut broker, &mut bob, login), Verdict::LoggedIn);
        let frames = b"SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nprefetch-count:1\n\n\0\
            SEND\ndestination:/queue/a\n\n1\0SEND\ndestination:/queue/a\n\n2\0";
        assert_eq!(say(&mut broker, &mut bob, frames), Verdict::Stays);
        let id = broker.destinations.find(b"/queue/a", None).unwrap();
        let waiting = |broker: &Broker| broker.destinations.queue(id).unwrap().len();
        assert_eq!((waiting(&broker), broker.destinations.backlogged_len()), (1, 0));
        assert_eq!(say(&mut broker, &mut bob, b"ACK\nmessage-id:0-1-1\n\n\0"), Verdict::Stays);
        assert_eq!((waiting(&broker), broker.destinations.backlogged_len()), (0, 0));
        broker.check_invariants();
    }
}
