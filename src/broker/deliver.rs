//! Delivery: from one SEND to the queues of everyone who gets it, in either dialect.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::destination::{DestinationId, Route, Space};
use super::fault::{Code, Fault, Retry};
use super::levels::Levels;
use super::message::{Content, Encodings, Head, Message, Origin, encode_whole};
use super::peer::{Encoding, Peers};
use super::queue::{Queue, Stored};
use super::session::{Session, SessionId, SessionTable};
use super::subscription::{
    AckMode, DeliveryId, Standard, SubscriptionIndex, SubscriptionTable, Target,
};
use super::{Broker, Moment};
use crate::telemetry::Counters;

/// A SEND, in neither dialect.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) session: SessionId,
    pub(super) content: &'a Content<'a>,
    /// The last millisecond in which it may be delivered, where it has to wait; or [`NEVER`].
    pub(super) expires_ms: u64,
}

/// The parts of the broker that a delivery changes, apart from those that it reads.
struct Outlet<'b> {
    peers: &'b mut Peers,
    sessions: &'b SessionTable,
    subscriptions: &'b SubscriptionTable,
    counters: &'b mut Counters,
}

impl Broker {
    /// Sends a message. Says to how many sessions it was queued, or `None` where the destination is
    /// the address of a client that is not there or does not listen.
    #[inline(always)]
    pub(super) fn send(&mut self, sending: Sending<'_>, now: Moment) -> Result<Option<u32>, Fault> {
        let Self { peers, sessions, destinations, counters, .. } = self;
        let session = &sessions[sending.session];
        // Most go where the one before went, to a client that is still there and that nobody watches.
        if let Some(id) = session.last_sent_to
            && let Some(destination) = destinations.get(id)
            && *destination.name == *sending.content.destination
            && let Some(owner) = destination.owner
            && destination.watch.is_none()
            && sessions[owner].has_inbox
        {
            self.last_message += 1;
            let number = self.last_message;
            let (origin, content) = (&session.origin, sending.content);
            let message = Message { number, is_redelivered: false, origin, content };
            let is_queued = deliver_only(peers, &message, &sessions[owner], now);
            counters.deliveries += u64::from(is_queued);
            return Ok(Some(u32::from(is_queued)));
        }
        self.send_anywhere(sending, now)
    }

    #[inline(never)]
    fn send_anywhere(&mut self, sending: Sending<'_>, now: Moment) -> Result<Option<u32>, Fault> {
        let name = sending.content.destination;
        // A destination's id is never another's, and rights and profile are a session's for as long
        // as it sends from one connection: so what was sent to last needs no second look.
        let guess = self.sessions[sending.session].last_sent_to;
        let found = self.destinations.find(name, guess);
        match found {
            None => self.check_sendable(sending.session, name)?,
            Some(_) if found != guess => self.check_may_send(sending.session, name)?,
            Some(_) => {}
        }
        match found {
            Some(id) if self.destinations[id].queue.is_none() => {
                self.note_sender(sending.session, id);
                Ok(self.send_at(sending, id, now))
            }
            _ => {
                if Space::of(name) == Space::Queue {
                    self.check_room_of_one(sending, now)?;
                }
                self.send_within_room(sending, now)
            }
        }
    }

    /// Sends a message that its sender has the right to send, and that has room where it is to wait.
    pub(super) fn send_within_room(
        &mut self,
        sending: Sending<'_>,
        now: Moment,
    ) -> Result<Option<u32>, Fault> {
        let name = sending.content.destination;
        let id = match (self.destinations.find(name, None), Space::of(name)) {
            (Some(id), _) => id,
            (None, Space::Topic | Space::Queue) => self.find_or_make_destination(name)?,
            (None, Space::Client | Space::Broker | Space::Unknown) => return Ok(None),
        };
        self.note_sender(sending.session, id);
        if self.destinations[id].queue.is_some() {
            return Ok(Some(self.send_to_queue(sending, id, now)));
        }
        Ok(self.send_at(sending, id, now))
    }

    /// Sends a message to a topic or to a client; `None` where that is not there or does not listen.
    #[inline]
    fn send_at(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> Option<u32> {
        let destination = &self.destinations[id];
        let is_reached = match destination.owner {
            Some(owner) => self.listens(owner, destination.routes()),
            None => Space::of(&destination.name) != Space::Client,
        };
        is_reached.then(|| self.deliver_at(sending, id, now))
    }

    /// Notes that a session sends, and where to.
    fn note_sender(&mut self, id: SessionId, to: DestinationId) {
        let session = &mut self.sessions[id];
        if session.last_sent_to.replace(to).is_none() {
            self.peers.peer_mut(session.peer).publishes = true;
            self.note_origin(id);
        }
    }

    /// Writes down what a session's messages say of it.
    pub(super) fn note_origin(&mut self, session: SessionId) {
        let session = &mut self.sessions[session];
        if !session.origin.is_known() {
            let address = &self.destinations[session.destination].name;
            session.origin = Origin::new(super::login_of(&self.destinations, session), address);
        }
    }

    /// Delivers a message to whoever gets what is sent to a destination that is no queue.
    #[inline]
    fn deliver_at(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> u32 {
        let number = self.next_message();
        let Self { peers, sessions, subscriptions, destinations, counters, .. } = self;
        let (origin, content) = (&sessions[sending.session].origin, sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let destination = &destinations[id];
        let mut outlet = Outlet { peers, sessions, subscriptions, counters };
        outlet.deliver(&message, destination.owner, destination.routes(), now)
    }

    /// Delivers a message of the broker's own to given subscriptions.
    pub(super) fn deliver_to(
        &mut self,
        message: &Message<'_>,
        routes: &[Route],
        now: Moment,
    ) -> u32 {
        let Self { peers, sessions, subscriptions, counters, .. } = self;
        Outlet { peers, sessions, subscriptions, counters }.deliver(message, None, routes, now)
    }

    /// The number of the next message.
    pub(super) fn next_message(&mut self) -> u64 {
        self.last_message += 1;
        self.last_message
    }

    // -- queues -----------------------------------------------------------------------------

    /// Makes a session one of a queue's consumers.
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
        let index = begun.inspect_err(|_| self.remove_destination_if_unused(id))?;
        self.change_queue(id, |queue| queue.add_consumer(index));
        self.serve_queue(id, now);
        Ok(index)
    }

    /// Takes a consumer that goes away from its queue; what it did not acknowledge goes back.
    pub(super) fn remove_consumer(
        &mut self,
        id: DestinationId,
        index: SubscriptionIndex,
        standard: Option<Box<Standard>>,
        now: Moment,
    ) {
        let unacknowledged = standard.map(|one| one.unacknowledged).unwrap_or_default();
        self.put_back(id, unacknowledged, now);
        self.change_queue(id, |queue| queue.remove_consumer(index));
    }

    /// A session moves to another connection, which has not got what is unacknowledged: that goes
    /// back, to be delivered again at the end of the turn, behind the answer to the login.
    pub(super) fn put_back_unacknowledged(&mut self, session: SessionId, now: Moment) {
        for index in self.sessions[session].subscriptions.clone() {
            let subscription = &mut self.subscriptions[index];
            let Some(standard) = &mut subscription.standard else { continue };
            standard.is_inherited = true;
            let unacknowledged = std::mem::take(&mut standard.unacknowledged);
            if let Target::Queue(id) = subscription.target {
                self.put_back(id, unacknowledged, now);
                self.note_backlog(id);
            }
        }
    }

    /// Puts messages that were delivered to the front of their queue again, in order; those that were
    /// delivered as often as they may be go to the dead letter queue, or are dropped. In the dead letter
    /// queue itself a message stays until it is acknowledged.
    fn put_back(&mut self, id: DestinationId, messages: VecDeque<Rc<Stored>>, now: Moment) {
        let Some(queue) = self.destinations.get(id) else { return };
        let is_last = self.dead_letter_queue.as_deref().map(str::as_bytes) == Some(&*queue.name);
        let max = self.limits.deliveries_max;
        let is_dead = |message: &Rc<Stored>| !is_last && message.deliveries >= max;
        let (dead, alive): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_dead);
        for message in alive {
            self.change_queue(id, |queue| queue.put_back(message));
        }
        for message in dead {
            self.bury(message, now);
        }
    }

    /// Puts a message into the dead letter queue, where there is one and it has room.
    fn bury(&mut self, message: Rc<Stored>, now: Moment) {
        self.counters.messages_dropped += 1;
        let Some(name) = self.dead_letter_queue.clone() else { return };
        let message = message.buried(self.waits_until_ms(now));
        let room = self.check_queue_room(name.as_bytes(), 1, now);
        if room.and_then(|()| self.check_queues_room(message.cost_bytes(), now)).is_err() {
            return;
        }
        let Ok(id) = self.find_or_make_destination(name.as_bytes()) else { return };
        self.change_queue(id, |queue| queue.push_back(message));
        self.note_backlog(id);
    }

    /// Settles messages of a queue that a consumer acknowledged, or refused.
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
            self.put_back(id, settled, now);
        }
        self.serve_queue(id, now);
    }

    /// Serves the queues whose consumers had no room.
    pub(super) fn serve_backlog(&mut self, now: Moment) {
        for id in std::mem::take(&mut self.backlogged) {
            let destination = self.destinations.get_mut(id);
            let Some(queue) = destination.and_then(|one| one.queue.as_mut()) else { continue };
            queue.is_backlogged = false;
            self.serve_queue(id, now);
        }
    }

    fn note_backlog(&mut self, id: DestinationId) {
        let destination = self.destinations.get_mut(id);
        let Some(queue) = destination.and_then(|one| one.queue.as_mut()) else { return };
        if !std::mem::replace(&mut queue.is_backlogged, true) {
            self.backlogged.push(id);
        }
    }

    fn send_to_queue(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> u32 {
        let number = self.next_message();
        let (origin, content) = (&self.sessions[sending.session].origin, sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let expires_ms = sending.expires_ms.min(self.waits_until_ms(now));
        let stored = Rc::new(Stored::new(&message, expires_ms));
        self.change_queue(id, |queue| queue.push_back(stored));
        self.serve_queue(id, now);
        let waits = self.destinations[id].queue.as_ref().is_some_and(|queue| !queue.is_empty());
        u32::from(!waits)
    }

    /// Gives a queue's messages to its consumers in turn, as far as they have credit.
    pub(super) fn serve_queue(&mut self, id: DestinationId, now: Moment) {
        loop {
            let Self { peers, sessions, subscriptions, destinations, .. } = self;
            let Some(destination) = destinations.get_mut(id) else { return };
            let Some(queue) = &mut destination.queue else { return };
            if queue.is_empty() || queue.consumers().is_empty() {
                return;
            }
            if queue.is_next_expired(now.ms()) {
                self.change_queue(id, Queue::pop_front);
                self.counters.messages_expired += 1;
                continue;
            }
            let waits_for_room = Cell::new(false);
            let is_ready = |index: SubscriptionIndex| {
                let one = &subscriptions[index];
                let Some(standard) = &one.standard else { return false };
                if standard.unacknowledged.len() as u64 >= u64::from(standard.prefetch) {
                    return false;
                }
                let room = peers.peer(sessions[one.session].peer).has_room();
                let is_ready = room && !peers.arena.is_full();
                waits_for_room.set(waits_for_room.get() || !is_ready);
                is_ready
            };
            let Some(consumer) = queue.next_consumer(is_ready) else {
                // Credit comes by an ACK, which serves the queue again; room comes without a word.
                if waits_for_room.get() {
                    self.note_backlog(id);
                }
                return;
            };
            let Some(mut stored) = self.change_queue(id, Queue::pop_front).flatten() else {
                return;
            };
            Rc::make_mut(&mut stored).deliveries += 1;
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
    }

    /// A subscription of a session by its id.
    pub(super) fn subscription_by_id(
        &self,
        session: SessionId,
        id: &[u8],
    ) -> Option<SubscriptionIndex> {
        let held = self.sessions[session].subscriptions.iter().copied();
        held.into_iter().find(|index| {
            let standard = self.subscriptions[*index].standard.as_ref();
            standard.is_some_and(|one| one.id.as_deref() == Some(id))
        })
    }

    /// Whether messages of a subscription are to be acknowledged.
    pub(super) fn acknowledges(&self, index: SubscriptionIndex) -> bool {
        let standard = self.subscriptions.get(index).and_then(|one| one.standard.as_ref());
        standard.is_some_and(|standard| standard.mode != AckMode::Auto)
    }

    /// The fault of a request for something that is not there.
    pub(super) fn unknown(what: &str, id: &[u8]) -> Fault {
        let description = format!("there is no {what} {}", super::printable(id));
        Fault::closing(Code::UnknownId, Retry::Never, description)
    }
}

impl<'b> Outlet<'b> {
    /// Queues a message to the owner of its destination and to everyone on the routes. Says to how
    /// many sessions.
    fn deliver(
        &mut self,
        message: &Message<'_>,
        owner: Option<SessionId>,
        routes: &[Route],
        now: Moment,
    ) -> u32 {
        // In the classic dialect watchers see the session id of whom they watch.
        let sessions = self.sessions;
        let watched = owner.map(|owner| sessions[owner].token());
        self.peers.arena.note_arrival(now.ns);
        let mut encodings = Encodings::new(message);
        let (mut count, mut deliveries) = (0, 0);
        if let Some(owner) = owner
            && routes.first().is_none_or(|first| first.session != owner)
        {
            count += u32::from(self.push(&mut encodings, owner, None, watched));
            deliveries += u64::from(count);
        }
        for route in routes {
            let subscription = Some(route.subscription);
            let is_queued = self.push(&mut encodings, route.session, subscription, watched);
            count += u32::from(is_queued && route.is_first);
            deliveries += u64::from(is_queued);
        }
        self.counters.deliveries += deliveries;
        count
    }

    #[inline]
    fn push<'m>(
        &mut self,
        encodings: &mut Encodings<'m>,
        receiver: SessionId,
        subscription: Option<SubscriptionIndex>,
        watched: Option<&'m [u8; 32]>,
    ) -> bool
    where
        'b: 'm,
    {
        let session = &self.sessions[receiver];
        let peer = self.peers.peer(session.peer);
        let format = (peer.encoding, peer.framing);
        let head = match format.0 {
            Encoding::Classic => Head::Session(watched.unwrap_or_else(|| session.token())),
            Encoding::Standard(_) => {
                let standard = subscription.and_then(|index| {
                    Some((index, self.subscriptions[index].standard.as_deref()?))
                });
                // Nobody gets messages with a subscription that it does not know.
                if standard.is_none() && !session.has_inbox {
                    return false;
                }
                Head::of(standard)
            }
        };
        encodings.push_to(self.peers, session.peer, format, head)
    }
}

/// Delivers a message to the one client that gets it. Says whether it was queued.
#[inline(always)]
fn deliver_only(peers: &mut Peers, message: &Message<'_>, to: &Session, now: Moment) -> bool {
    let receiver = peers.peer(to.peer);
    let format = (receiver.encoding, receiver.framing);
    let head = match format.0 {
        Encoding::Classic => Head::Session(to.token()),
        Encoding::Standard(_) => Head::Inbox,
    };
    peers.arena.note_arrival(now.ns);
    let frame = encode_whole(message, &mut peers.arena, format, head);
    peers.push(to.peer, frame)
}

#[cfg(test)]
mod tests {
    use super::super::peer::{Opening, PeerId};
    use super::super::{Keys, Options};
    use super::*;
    use crate::limits::Limits;
    use crate::outbound::Framing;
    use crate::stomp::{Assembler, Frame, ScanBounds, Version};

    fn say(broker: &mut Broker, peer: PeerId, mut text: &[u8]) {
        let bounds = ScanBounds::new(&Limits::default(), true);
        let mut assembler = Assembler::default();
        loop {
            let mut frame = Frame::default();
            if !assembler.next_frame(&mut text, &bounds, &mut frame).unwrap() {
                break;
            }
            broker.handle_standard(peer, &frame, Moment::default());
        }
        assert!(broker.peers.peer(peer).closure().is_none());
    }

    #[test]
    fn a_queue_that_waits_for_an_ack_is_not_looked_at_in_every_turn() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (encoding, framing) = (Encoding::Standard(Version::V1_0), Framing::Line);
        let peer = broker.open_peer(Opening { slot: 0, number: 1, framing, encoding });
        say(&mut broker, peer, b"CONNECT\nlogin:bob\npasscode:app.service\n\n\0");
        say(
            &mut broker,
            peer,
            b"SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nprefetch-count:1\n\n\0\
            SEND\ndestination:/queue/a\n\n1\0SEND\ndestination:/queue/a\n\n2\0",
        );
        let id = broker.destinations.find(b"/queue/a", None).unwrap();
        let waiting = |broker: &Broker| broker.destinations[id].queue.as_ref().unwrap().len();
        assert_eq!((waiting(&broker), broker.backlogged.len()), (1, 0));
        say(&mut broker, peer, b"ACK\nmessage-id:0-1-1\n\n\0");
        assert_eq!((waiting(&broker), broker.backlogged.len()), (0, 0));
        broker.check_invariants();
    }
}
