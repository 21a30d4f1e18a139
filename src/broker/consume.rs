//! Consumers of queues: delivery in turn, acknowledgement, redelivery, and dead letters.
//!
//! A queue lists the consumers that may take a message. One without credit is listed again by its next ACK, one
//! without room when its connection was flushed, so that none is looked at in vain. What a queue does in one go
//! is bounded; the rest is done in later turns.

use std::collections::VecDeque;

use super::asker::Asker;
use super::deliver::{Sending, Sent};
use super::fan::Fan;
use super::fault::{Code, Fault};
use super::ids::{DeliveryId, DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::members::Route;
use super::message::{Message, NEVER, Stored};
use super::peer::Peer;
use super::queue::Queue;
use super::shares::Wanted;
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
    /// Whether messages were let in for which others were not dropped.
    pub(super) is_excessive: bool,
}

/// Messages that a queue delivers or drops in one go.
const SERVED_MAX: u32 = 256;

/// Consumers that are looked at for one message.
const CONSUMERS_MAX: u32 = 64;

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
        self.destinations.change_consumers(id, |queue| queue.add_consumer(index));
        self.serve_queue(id, now);
        Ok(index)
    }

    /// Removes a consumer, whose subscription has ended, from its queue and returns its unacknowledged messages
    /// to it, if there are any left.
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
        destinations.change_consumers(id, |queue| queue.note_consumer_ended(is_there));
    }

    pub(super) fn send_to_queue(
        &mut self,
        sending: Sending<'_>,
        id: DestinationId,
        now: Moment,
    ) -> Sent {
        let number = self.next_message();
        let queue = self.destinations.queue(id);
        let is_next = queue.is_some_and(|queue| queue.delivers() && queue.is_empty());
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
        let expiry = if expires_ms == NEVER { 0 } else { work::EXPIRY };
        self.meter.spend(work::STORED + content.units_of_keeping() + expiry);
        self.store.insert(Stored::new(&message, expires_ms), id)
    }

    /// Delivers a queue's messages to its consumers in turn, as far as they have credit and the share of the turn
    /// lasts. Returns the number of messages that were delivered or dropped.
    pub(super) fn serve_queue(&mut self, id: DestinationId, now: Moment) -> u32 {
        for served in 0..SERVED_MAX {
            let queue = self.destinations.queue(id).filter(|queue| queue.delivers());
            let Some(first) = queue.and_then(Queue::first) else { return served };
            if served > 0 && self.is_share_spent() {
                break;
            }
            self.meter.spend(work::DELIVERY);
            if self.store.message(first).expires_ms < now.ms() {
                self.drop_waiting(id, first);
                self.counters.messages_expired += 1;
                self.meter.spend(work::DROP + work::EXPIRY);
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

    /// Frees a message that is in no queue and that nobody holds.
    fn free_stored(&mut self, slot: Slot) {
        let stored = self.store.take(slot);
        self.meter.spend(stored.units_of_end());
    }

    /// Drops a message that waits in a queue.
    fn drop_waiting(&mut self, id: DestinationId, slot: Slot) {
        self.change_queue(id, |queue, store| queue.remove(slot, store));
        self.free_stored(slot);
    }

    /// The next consumer of a queue that has credit and room; it is then last in turn. Looks at some consumers only;
    /// if none of them may take a message, the queue is listed.
    fn next_consumer(&mut self, id: DestinationId) -> Option<SubscriptionIndex> {
        for _ in 0..CONSUMERS_MAX {
            let consumer = self.destinations.change_queue(id, Queue::take_turn)??;
            self.meter.spend(work::DELIVERY);
            let Some(subscription) = self.subscriptions.get_mut(consumer) else { continue };
            // A session that has ended leaves consumers behind until a job has removed them.
            let Some(session) = self.sessions.get_mut(subscription.session) else { continue };
            let Some(standard) = &mut subscription.standard else { continue };
            if standard.ready_at != session.moves
                || standard.unacknowledged.len() as u64 >= u64::from(standard.prefetch)
            {
                standard.turn = Turn::AwaitsCredit;
                continue;
            }
            let peer = self.peers.peer_mut(session.peer);
            if !peer.has_room() {
                standard.turn = Turn::AwaitsRoom;
                peer.is_awaited = true;
                session.awaiting_room.push_back(consumer);
                self.forget_ended_waiters(consumer);
                continue;
            }
            self.destinations.change_queue(id, |queue| queue.queue_up(consumer));
            if self.peers.arena.is_full() {
                break;
            }
            return Some(consumer);
        }
        self.destinations.note_backlog(id);
        self.leftover.is_servable = true;
        None
    }

    /// Forgets consumers that waited for room and have ended, if there are many.
    fn forget_ended_waiters(&mut self, of: SubscriptionIndex) {
        let Self { sessions, subscriptions, .. } = self;
        let session = &mut sessions[subscriptions[of].session];
        if session.awaiting_room.len() > 2 * session.subscriptions.all().len() + 8 {
            session.awaiting_room.retain(|one| subscriptions.get(*one).is_some());
        }
    }

    /// Lists a consumer of a session again that waited for room. Returns whether there was one.
    pub(super) fn list_waiter(&mut self, session: SessionId) -> bool {
        let waiting = self.sessions.get_mut(session).map(|one| &mut one.awaiting_room);
        let Some(consumer) = waiting.and_then(VecDeque::pop_front) else { return false };
        self.meter.spend(work::DELIVERY);
        if let Some(id) = self.list_consumer(consumer, Turn::AwaitsRoom) {
            self.destinations.note_backlog(id);
            self.leftover.is_servable = true;
        }
        true
    }

    /// Lists consumers again whose connections have room now, for half of the share at most.
    fn list_roomy(&mut self) {
        for _ in 0..self.slice_units().div_ceil(2) {
            let Some(peer) = self.peers.first_roomy() else { return };
            let open = self.peers.get(peer).and_then(Peer::session);
            if !open.is_some_and(|session| self.list_waiter(session)) {
                self.meter.spend(work::DELIVERY);
                self.peers.forget_first_roomy();
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
        self.meter.spend(stored.content().units_of_encoding());
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
            None => self.free_stored(slot),
        }
    }

    /// Settles messages of a queue by the ACK or NACK of a consumer, until the share of the turn is used up. Returns
    /// whether all are settled.
    pub(super) fn settle(&mut self, delivery: DeliveryId, is_consumed: bool, now: Moment) -> bool {
        let DeliveryId { subscription: consumer, number } = delivery;
        let Some(last) = self.store.find_held(number, consumer) else { return true };
        let Some(subscription) = self.subscriptions.get(consumer) else { return true };
        let Target::Queue(id) = subscription.target else { return true };
        let Some(mode) = subscription.standard.as_ref().map(|one| one.mode) else { return true };
        loop {
            let first = || self.subscriptions[consumer].standard.as_ref()?.unacknowledged.first();
            let settled = if mode == AckMode::Client { first().unwrap_or(last) } else { last };
            self.release_held(settled, consumer);
            if is_consumed {
                self.meter.spend(work::DROP);
                self.free_stored(settled);
            } else {
                self.requeue(id, settled, now);
            }
            if settled == last {
                break;
            }
            if self.is_share_spent() {
                return false;
            }
        }
        self.serve_queue(id, now);
        true
    }

    /// Removes a message from those that a consumer holds, which gives it credit.
    fn release_held(&mut self, slot: Slot, consumer: SubscriptionIndex) {
        if let Some(standard) = &mut self.subscriptions[consumer].standard {
            self.store.unlink(&mut standard.unacknowledged, slot);
        }
        self.list_consumer(consumer, Turn::AwaitsCredit);
    }

    /// Returns messages that a consumer holds unacknowledged to their queue, until the share of the turn is used up.
    /// Returns whether all are returned.
    pub(super) fn return_held(&mut self, consumer: SubscriptionIndex, now: Moment) -> bool {
        loop {
            let Some(one) = self.subscriptions.get_mut(consumer) else { return true };
            let Target::Queue(id) = one.target else { return true };
            let Some(standard) = &mut one.standard else { return true };
            let Some(slot) = standard.unacknowledged.first() else { return true };
            self.store.unlink(&mut standard.unacknowledged, slot);
            let is_last = standard.unacknowledged.len() == 0;
            self.requeue(id, slot, now);
            if is_last || self.is_share_spent() {
                return is_last;
            }
        }
    }

    /// Has a consumer take messages again, of a session that has moved to another connection and has nothing of it
    /// left that the earlier one held.
    pub(super) fn readmit(&mut self, consumer: SubscriptionIndex) {
        let Self { sessions, subscriptions, .. } = self;
        let Some(one) = subscriptions.get_mut(consumer) else { return };
        let (Some(session), Some(standard)) = (sessions.get(one.session), &mut one.standard) else {
            return;
        };
        standard.ready_at = session.moves;
        let Target::Queue(id) = one.target else { return };
        self.list_consumer(consumer, Turn::AwaitsCredit);
        self.destinations.note_backlog(id);
        self.leftover.is_servable = true;
    }

    /// Returns a delivered message to its queue, in front of those never delivered. After `deliveries_max`
    /// deliveries it goes to the dead letter queue, or is dropped; in the dead letter queue itself it stays
    /// until it is acknowledged.
    fn requeue(&mut self, id: DestinationId, slot: Slot, now: Moment) {
        self.meter.spend(work::DROP);
        if self.store.is_hollow(slot) {
            self.free_stored(slot);
            return;
        }
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
            self.free_stored(slot);
            return;
        };
        self.change_queue(id, |queue, store| queue.push_back(id, slot, store));
        self.destinations.note_backlog(id);
        self.leftover.is_servable = true;
    }

    /// Drops a message, wherever it is. If a consumer holds it, its ACK has no effect on it; a cumulative one still
    /// acknowledges what was delivered before it, for which its place is kept as long as there is anything else of
    /// the sender.
    pub(super) fn drop_message(&mut self, slot: Slot) {
        self.meter.spend(work::DROP);
        match self.store.position(slot) {
            Position::Fresh(id) | Position::Returned(id) => {
                self.drop_waiting(id, slot);
                self.release_destination(id);
            }
            Position::Held(_) if self.store.is_hollow(slot) => return self.drop_hollow(slot),
            Position::Held(consumer) if self.is_cumulative(consumer) => self.store.hollow(slot),
            Position::Held(consumer) => {
                self.release_held(slot, consumer);
                self.free_stored(slot);
            }
        }
        self.counters.messages_dropped += 1;
    }

    /// Drops the place of a message that was dropped.
    fn drop_hollow(&mut self, slot: Slot) {
        if let Position::Held(consumer) = self.store.position(slot) {
            self.release_held(slot, consumer);
            self.free_stored(slot);
        }
    }

    /// Whether an ACK of a consumer also acknowledges what was delivered to it before.
    fn is_cumulative(&self, consumer: SubscriptionIndex) -> bool {
        let standard = self.subscriptions.get(consumer).and_then(|one| one.standard.as_ref());
        standard.is_some_and(|standard| standard.mode == AckMode::Client)
    }

    /// Serves the queues that are listed for the end of the turn, and drops expired messages, both within
    /// the share.
    pub(crate) fn serve_backlog(&mut self, now: Moment) {
        if self.peers.has_roomy() {
            self.list_roomy();
        }
        let is_expired = |(expires_ms, _)| expires_ms < now.ms();
        let is_due = self.destinations.first_expiring().is_some_and(is_expired);
        if std::mem::take(&mut self.leftover.has_expired) || is_due {
            self.drop_expired_in_share(now);
        }
        if self.leftover.is_excessive {
            self.drop_rest_of_excess();
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
        let Leftover { is_servable, has_expired, is_excessive } = self.leftover;
        is_servable || has_expired || is_excessive || self.peers.has_roomy()
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
        let mut held_up = self.jobs.held_up_queues();
        held_up.retain(|id| self.destinations.queue(*id).is_some());
        for (id, one) in self.destinations.iter() {
            let returning = one.queue.as_ref().map_or(0, |queue| queue.returning as usize);
            let jobs = held_up.iter().filter(|held_up| **held_up == id).count();
            assert_eq!(returning, jobs, "jobs that return messages to a queue");
        }
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
        broker.handle(speaker, Data::unshared(bytes), Moment::default()).verdict
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
