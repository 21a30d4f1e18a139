//! Delivery: from one SEND to the queues of everyone who gets it, in either dialect.

use std::collections::VecDeque;
use std::rc::Rc;

use super::destination::{DestinationId, Route, Space};
use super::fault::{Code, Fault, Retry};
use super::levels::Levels;
use super::message::{Content, Encodings, Head, Message, Origin, encode_whole};
use super::peer::{Encoding, Peers};
use super::queue::Stored;
use super::session::{Session, SessionId, SessionTable};
use super::subscription::{AckMode, Standard, SubscriptionIndex, SubscriptionTable, Target};
use super::{Broker, Moment};
use crate::limits::Exceeded;
use crate::telemetry::Counters;

/// A SEND, in neither dialect.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) session: SessionId,
    pub(super) content: &'a Content<'a>,
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
        let guess = self.sessions[sending.session].last_sent_to;
        let id = match self.destinations.find(name, guess) {
            Some(id) => {
                if Some(id) != guess {
                    self.check_may_send(sending.session, name)?;
                }
                id
            }
            None => match self.make_receiver(sending.session, name)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        self.note_sender(sending.session, id);
        if self.destinations[id].queue.is_some() {
            return self.send_to_queue(sending, id, now).map(Some);
        }
        let owner = self.destinations[id].owner;
        let is_reached = match owner {
            Some(owner) => self.listens(owner, self.destinations[id].routes()),
            None => Space::of(name) != Space::Client,
        };
        if !is_reached {
            return Ok(None);
        }
        Ok(Some(self.deliver_at(sending, id, now)))
    }

    /// Makes the destination of a SEND that is not there yet, unless it is the address of a client.
    #[cold]
    fn make_receiver(
        &mut self,
        session: SessionId,
        name: &[u8],
    ) -> Result<Option<DestinationId>, Fault> {
        self.check_sendable(session, name)?;
        match Space::of(name) {
            Space::Topic | Space::Queue => self.find_or_make_destination(name).map(Some),
            Space::Client | Space::Broker | Space::Unknown => Ok(None),
        }
    }

    /// Notes that a session sends, and where to.
    fn note_sender(&mut self, session: SessionId, to: DestinationId) {
        let session = &mut self.sessions[session];
        if session.last_sent_to.is_none() {
            self.peers.peer_mut(session.peer).publishes = true;
        }
        session.last_sent_to = Some(to);
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
        if let Some(queue) = &mut self.destinations[id].queue {
            queue.add_consumer(index);
        }
        self.serve_queue(id, now);
        Ok(index)
    }

    /// A consumer goes; what it did not acknowledge goes back to the front, in order.
    pub(super) fn end_consumer(
        &mut self,
        id: DestinationId,
        index: SubscriptionIndex,
        standard: Option<Box<Standard>>,
        now: Moment,
    ) {
        self.put_back(id, standard.map(|standard| standard.unacknowledged).unwrap_or_default());
        if let Some(queue) = &mut self.destinations[id].queue {
            queue.remove_consumer(index);
        }
        self.serve_queue(id, now);
        self.remove_destination_if_unused(id);
    }

    /// A session moves to another connection, which has not got what is unacknowledged: that goes
    /// back, to be delivered again at the end of the turn, behind the answer to the login.
    pub(super) fn put_back_unacknowledged(&mut self, session: SessionId) {
        for index in self.sessions[session].subscriptions.clone() {
            let subscription = &mut self.subscriptions[index];
            let Some(standard) = &mut subscription.standard else { continue };
            standard.is_inherited = true;
            let unacknowledged = std::mem::take(&mut standard.unacknowledged);
            if let Target::Queue(id) = subscription.target {
                self.put_back(id, unacknowledged);
                self.note_backlog(id);
            }
        }
    }

    /// Puts messages that were delivered to the front of their queue again, in order.
    fn put_back(&mut self, id: DestinationId, messages: VecDeque<Rc<Stored>>) {
        let Some(queue) = &mut self.destinations[id].queue else { return };
        for message in messages.into_iter().rev() {
            self.queued_bytes += message.cost_bytes();
            queue.push_front(message.returned());
        }
    }

    /// Settles messages of a queue that a consumer acknowledged, or refused.
    pub(super) fn settle(
        &mut self,
        index: SubscriptionIndex,
        number: u64,
        is_consumed: bool,
        now: Moment,
    ) -> Result<(), Fault> {
        let subscription = &mut self.subscriptions[index];
        let Target::Queue(id) = subscription.target else { return Ok(()) };
        let Some(standard) = &mut subscription.standard else { return Ok(()) };
        let held = &mut standard.unacknowledged;
        let Some(position) = held.iter().position(|message| message.number == number) else {
            return Ok(());
        };
        let settled: Vec<_> = match standard.mode {
            AckMode::Client => held.drain(..=position).collect(),
            AckMode::Auto | AckMode::ClientIndividual => {
                held.remove(position).into_iter().collect()
            }
        };
        if !is_consumed {
            for message in settled.into_iter().rev() {
                self.take_back(id, message, now);
            }
        }
        self.serve_queue(id, now);
        Ok(())
    }

    /// Puts a refused message back to the front of its queue, or, past the number of deliveries
    /// that it may have, into the dead letter queue, or drops it.
    fn take_back(&mut self, id: DestinationId, message: Rc<Stored>, now: Moment) {
        let message = message.returned();
        if message.returns < self.limits.deliveries_max {
            self.queued_bytes += message.cost_bytes();
            if let Some(queue) = &mut self.destinations[id].queue {
                queue.push_front(message);
            }
            return;
        }
        self.counters.messages_dropped += 1;
        let Some(name) = self.dead_letter_queue.clone() else { return };
        if *name.as_bytes() == *self.destinations[id].name || self.check_room(&message).is_err() {
            return;
        }
        let Ok(dead) = self.find_or_make_destination(name.as_bytes()) else { return };
        self.queued_bytes += message.cost_bytes();
        if let Some(queue) = &mut self.destinations[dead].queue {
            queue.push_back(message);
        }
        self.serve_queue(dead, now);
    }

    /// Serves the queues whose consumers had no room.
    pub(super) fn serve_backlog(&mut self, now: Moment) {
        for id in std::mem::take(&mut self.backlogged) {
            if self.destinations.get(id).is_some_and(|one| one.queue.is_some()) {
                self.serve_queue(id, now);
            }
        }
    }

    fn note_backlog(&mut self, id: DestinationId) {
        if !self.backlogged.contains(&id) {
            self.backlogged.push(id);
        }
    }

    fn send_to_queue(
        &mut self,
        sending: Sending<'_>,
        id: DestinationId,
        now: Moment,
    ) -> Result<u32, Fault> {
        let number = self.next_message();
        let (origin, content) = (&self.sessions[sending.session].origin, sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let stored = Rc::new(Stored::new(&message));
        self.check_room(&stored)?;
        let Some(queue) = &mut self.destinations[id].queue else { return Ok(0) };
        let max = u64::from(self.limits.queue_messages_max);
        if queue.len() as u64 >= max {
            let exceeded = Exceeded { limit: "queue_messages_max", max };
            return Err(Fault { retry: Some(Retry::Later), ..Fault::exceeded(exceeded) });
        }
        self.queued_bytes += stored.cost_bytes();
        queue.push_back(stored);
        self.serve_queue(id, now);
        let waits = self.destinations[id].queue.as_ref().is_some_and(|queue| !queue.is_empty());
        Ok(u32::from(!waits))
    }

    fn check_room(&self, message: &Stored) -> Result<(), Fault> {
        let max = self.limits.queues_bytes_max;
        if self.queued_bytes + message.cost_bytes() > max {
            let exceeded = Exceeded { limit: "queues_bytes_max", max };
            return Err(Fault { retry: Some(Retry::Later), ..Fault::exceeded(exceeded) });
        }
        Ok(())
    }

    /// Gives a queue's messages to its consumers in turn, as far as they have credit.
    fn serve_queue(&mut self, id: DestinationId, now: Moment) {
        loop {
            let Self { peers, sessions, subscriptions, destinations, .. } = self;
            let Some(queue) = &mut destinations[id].queue else { return };
            if queue.is_empty() {
                return;
            }
            let has_credit = |index: SubscriptionIndex| {
                let one = &subscriptions[index];
                let Some(standard) = &one.standard else { return false };
                let room = peers.peer(sessions[one.session].peer).has_room();
                room && !peers.arena.is_full()
                    && (standard.unacknowledged.len() as u64) < u64::from(standard.prefetch)
            };
            let Some(consumer) = queue.next_consumer(has_credit) else {
                if !queue.consumers().is_empty() {
                    self.note_backlog(id);
                }
                return;
            };
            let Some(stored) = queue.pop_front() else { return };
            self.queued_bytes -= stored.cost_bytes();
            let session = self.subscriptions[consumer].session;
            let route = Route { session, subscription: consumer, is_first: true };
            let message = Message {
                number: stored.number,
                is_redelivered: stored.returns > 0,
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

    /// A subscription of a session by the number in an `ack` header, if it still exists.
    pub(super) fn own_subscription(
        &self,
        session: SessionId,
        index: SubscriptionIndex,
    ) -> Option<SubscriptionIndex> {
        let subscription = self.subscriptions.get(index)?;
        (subscription.session == session).then_some(index)
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
        let mut count = 0;
        if let Some(owner) = owner
            && routes.first().is_none_or(|first| first.session != owner)
        {
            count += u32::from(self.push(&mut encodings, owner, None, watched));
        }
        for route in routes {
            let subscription = Some(route.subscription);
            let is_queued = self.push(&mut encodings, route.session, subscription, watched);
            count += u32::from(is_queued && route.is_first);
        }
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
        let head = match self.peers.peer(session.peer).encoding {
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
        let is_queued = encodings.push_to(self.peers, session.peer, head);
        self.counters.deliveries += u64::from(is_queued);
        is_queued
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
