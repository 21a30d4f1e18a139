//! Consumers of queues: delivery in turn, acknowledgement, redelivery, and dead letters.

use std::cell::Cell;
use std::collections::VecDeque;

use super::deliver::{Sending, Sent};
use super::destination::Route;
use super::fault::{Code, Fault};
use super::ids::{DeliveryId, DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::message::{Message, Stored};
use super::queue::Queue;
use super::subscription::{AckMode, Standard, Target};
use super::{Broker, Moment};
use crate::work;

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
        let id = self.find_or_make_destination(name)?;
        let begun = self.begin_subscription(session, Target::Queue(id), Some(standard));
        let index = begun.inspect_err(|_| self.release_destination(id))?;
        self.destinations.change_queue(id, |queue| queue.add_consumer(index));
        self.serve_queue(id, now);
        Ok(index)
    }

    /// Removes a consumer from its queue and returns its unacknowledged messages to it.
    pub(super) fn remove_consumer(
        &mut self,
        id: DestinationId,
        index: SubscriptionIndex,
        standard: Option<Box<Standard>>,
        now: Moment,
    ) {
        let unacknowledged = standard.map(|one| one.unacknowledged).unwrap_or_default();
        self.requeue(id, unacknowledged, now);
        self.destinations.change_queue(id, |queue| queue.remove_consumer(index));
    }

    pub(super) fn send_to_queue(
        &mut self,
        sending: Sending<'_>,
        id: DestinationId,
        now: Moment,
    ) -> Sent {
        let number = self.next_message();
        let (origin, content) = (&self.sessions[sending.session].origin, sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let expires_ms = sending.expires_ms.min(self.waits_until_ms(now));
        let stored = Box::new(Stored::new(&message, expires_ms));
        self.destinations.change_queue(id, |queue| queue.push_back(stored));
        self.serve_queue(id, now);
        let waits = self.destinations.queue(id).is_some_and(|queue| !queue.is_empty());
        Sent::Queued(u32::from(!waits))
    }

    /// Delivers a queue's messages to its consumers in turn, as far as they have credit.
    pub(super) fn serve_queue(&mut self, id: DestinationId, now: Moment) {
        while let Some(queue) = self.destinations.queue(id)
            && !queue.is_empty()
            && !queue.consumers().is_empty()
        {
            if self.is_share_spent() {
                return self.destinations.note_unserved(id);
            }
            self.meter.spend(work::DELIVERY);
            if queue.is_next_expired(now.ms()) {
                self.destinations.change_queue(id, Queue::pop_front);
                self.counters.messages_expired += 1;
                continue;
            }
            let Some(consumer) = self.next_consumer(id) else { return };
            let next = self.destinations.change_queue(id, Queue::pop_front);
            if let Some(message) = next.flatten() {
                self.deliver_to_consumer(message, consumer, now);
            }
        }
    }

    /// The next consumer of a queue that has credit and room.
    fn next_consumer(&mut self, id: DestinationId) -> Option<SubscriptionIndex> {
        let Self { peers, sessions, subscriptions, destinations, .. } = self;
        let waits_for_room = Cell::new(false);
        let is_ready = |index: SubscriptionIndex| {
            let one = &subscriptions[index];
            let Some(standard) = &one.standard else { return false };
            if standard.unacknowledged.len() as u64 >= u64::from(standard.prefetch) {
                return false;
            }
            let Some(session) = sessions.get(one.session) else { return false };
            let room = peers.peer(session.peer).has_room();
            let is_ready = room && !peers.arena.is_full();
            waits_for_room.set(waits_for_room.get() || !is_ready);
            is_ready
        };
        let next = destinations.change_queue(id, |queue| queue.next_consumer(is_ready)).flatten();
        // An ACK, which gives credit, serves the queue again; nothing announces room.
        if next.is_none() && waits_for_room.get() {
            destinations.note_backlog(id);
        }
        next
    }

    /// Delivers a message of a queue to a consumer.
    fn deliver_to_consumer(
        &mut self,
        mut stored: Box<Stored>,
        consumer: SubscriptionIndex,
        now: Moment,
    ) {
        stored.deliveries += 1;
        let session = self.subscriptions[consumer].session;
        let route = Route { session, subscription: consumer, is_first: true };
        let message = Message {
            number: stored.number,
            is_redelivered: stored.deliveries > 1,
            origin: &stored.origin,
            content: &stored.content(),
        };
        self.deliver_to(&message, &[route], now);
        let standard = &mut self.subscriptions[consumer].standard;
        if let Some(standard) = standard.as_mut().filter(|one| one.mode != AckMode::Auto) {
            standard.unacknowledged.push_back(stored);
        }
    }

    /// Settles messages of a queue by the ACK or NACK of a consumer.
    pub(super) fn settle(&mut self, delivery: DeliveryId, is_consumed: bool, now: Moment) {
        let Some(subscription) = self.subscriptions.get_mut(delivery.subscription) else { return };
        let Target::Queue(id) = subscription.target else { return };
        let Some(standard) = &mut subscription.standard else { return };
        let held = &mut standard.unacknowledged;
        let Some(position) = held.iter().position(|message| message.number == delivery.number)
        else {
            return;
        };
        let settled: VecDeque<_> = match standard.mode {
            AckMode::Client => held.drain(..=position).collect(),
            AckMode::Auto | AckMode::ClientIndividual => {
                held.remove(position).into_iter().collect()
            }
        };
        if !is_consumed {
            self.requeue(id, settled, now);
        }
        self.serve_queue(id, now);
    }

    /// Returns the unacknowledged messages of a session that moves to another connection to their queues.
    /// They are delivered again at the end of the turn, after CONNECTED.
    pub(super) fn requeue_unacknowledged(&mut self, session: SessionId, now: Moment) {
        for index in self.sessions[session].subscriptions.clone() {
            let subscription = &mut self.subscriptions[index];
            let Some(standard) = &mut subscription.standard else { continue };
            standard.is_inherited = true;
            let unacknowledged = std::mem::take(&mut standard.unacknowledged);
            if let Target::Queue(id) = subscription.target {
                self.requeue(id, unacknowledged, now);
                self.destinations.note_backlog(id);
            }
        }
    }

    /// Returns delivered messages to the front of their queue, in order. After `deliveries_max` deliveries
    /// a message goes to the dead letter queue, or is dropped; in the dead letter queue itself it stays
    /// until it is acknowledged.
    fn requeue(&mut self, id: DestinationId, messages: VecDeque<Box<Stored>>, now: Moment) {
        let Some(queue) = self.destinations.get(id) else { return };
        let is_last = self.dead_letter_queue.as_deref().map(str::as_bytes) == Some(&*queue.name);
        let max = self.limits.deliveries_max;
        let is_dead = |message: &Stored| !is_last && message.deliveries >= max;
        let (dead, alive): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| is_dead(message));
        for message in alive {
            self.destinations.change_queue(id, |queue| queue.requeue(message));
        }
        for message in dead {
            self.move_to_dead_letters(message, now);
        }
    }

    /// Moves a message to the dead letter queue, if there is one and it has room.
    fn move_to_dead_letters(&mut self, mut message: Box<Stored>, now: Moment) {
        self.counters.messages_dropped += 1;
        let Some(name) = self.dead_letter_queue.clone() else { return };
        message.make_dead_letter(self.waits_until_ms(now));
        let room = self.check_queue_room(name.as_bytes(), 1, now);
        if room.and_then(|()| self.check_queues_room(message.cost_bytes(), now)).is_err() {
            return;
        }
        let Ok(id) = self.find_or_make_destination(name.as_bytes()) else { return };
        self.destinations.change_queue(id, |queue| queue.push_back(message));
        self.destinations.note_backlog(id);
    }

    /// Serves the queues that are listed for the end of the turn.
    pub(crate) fn serve_backlog(&mut self, units: u32, now: Moment) {
        self.begin_share(units);
        for id in self.destinations.take_backlog() {
            self.serve_queue(id, now);
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
        assert_eq!((waiting(&broker), broker.destinations.take_backlog().len()), (1, 0));
        assert_eq!(say(&mut broker, &mut bob, b"ACK\nmessage-id:0-1-1\n\n\0"), Verdict::Stays);
        assert_eq!((waiting(&broker), broker.destinations.take_backlog().len()), (0, 0));
        broker.check_invariants();
    }
}
