//! Delivery: from one SEND to the queues of all its receivers, in either dialect.

use super::destination::Route;
use super::encode::{Encodings, Head, encode_whole};
use super::encoding::Encoding;
use super::fault::{Code, Fault};
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::message::{Content, Message, Origin};
use super::peer::Peers;
use super::session::{Session, SessionTable};
use super::space::Space;
use super::subscription::SubscriptionTable;
use super::{Broker, Moment, printable};
use crate::telemetry::Counters;

/// A SEND, regardless of dialect.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) session: SessionId,
    pub(super) content: &'a Content<'a>,
    /// The last millisecond in which it may be delivered from a queue; or [`NEVER`].
    pub(super) expires_ms: u64,
}

/// The outcome of a SEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The number of sessions that it was queued to; zero if it waits in a queue or nobody subscribes.
    Queued(u32),
    /// Its destination is a client that is not logged in or does not listen.
    Nobody,
}

/// The parts of the broker that a delivery uses, borrowed apart from the others.
struct Outlet<'b> {
    peers: &'b mut Peers,
    sessions: &'b SessionTable,
    subscriptions: &'b SubscriptionTable,
    counters: &'b mut Counters,
}

impl Broker {
    /// Sends a message.
    #[inline(always)] // the path of a SEND
    pub(super) fn send(&mut self, sending: Sending<'_>, now: Moment) -> Result<Sent, Fault> {
        let Self { peers, sessions, destinations, counters, .. } = self;
        let session = &sessions[sending.session];
        // Most go to the destination of the one before, whose client is logged in and not watched.
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
            return Ok(Sent::Queued(u32::from(is_queued)));
        }
        self.send_anywhere(sending, now)
    }

    #[inline(never)] // keeps the common path in `send` short
    fn send_anywhere(&mut self, sending: Sending<'_>, now: Moment) -> Result<Sent, Fault> {
        let name = sending.content.destination;
        // Ids of destinations are never reused, and the rights of a session change only with its
        // connection, which clears `last_sent_to`: so the last destination needs no check.
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

    /// Sends a message that its sender may send, and for which its queue has room.
    pub(super) fn send_within_room(
        &mut self,
        sending: Sending<'_>,
        now: Moment,
    ) -> Result<Sent, Fault> {
        let name = sending.content.destination;
        let id = match (self.destinations.find(name, None), Space::of(name)) {
            (Some(id), _) => id,
            (None, Space::Topic | Space::Queue) => self.find_or_make_destination(name)?,
            (None, Space::Client | Space::Broker | Space::Unknown) => return Ok(Sent::Nobody),
        };
        self.note_sender(sending.session, id);
        if self.destinations[id].queue.is_some() {
            return Ok(self.send_to_queue(sending, id, now));
        }
        let sent = self.send_at(sending, id, now);
        // It may be an idle topic beyond `idle_topics_max`.
        self.release_destination(id);
        Ok(sent)
    }

    /// Sends a message to a topic or to a client.
    #[inline]
    fn send_at(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> Sent {
        let destination = &self.destinations[id];
        let is_reached = match destination.owner {
            Some(owner) => self.listens(owner, destination.routes()),
            None => Space::of(&destination.name) != Space::Client,
        };
        if is_reached { Sent::Queued(self.deliver_at(sending, id, now)) } else { Sent::Nobody }
    }

    /// Notes the destination that a session sends to.
    fn note_sender(&mut self, id: SessionId, to: DestinationId) {
        let session = &mut self.sessions[id];
        if session.last_sent_to.replace(to).is_none() {
            self.peers.peer_mut(session.peer).publishes = true;
            self.note_origin(id);
        }
    }

    /// Encodes the header lines by which a session's messages name their sender, once.
    pub(super) fn note_origin(&mut self, session: SessionId) {
        let session = &mut self.sessions[session];
        if !session.origin.is_known() {
            let address = &self.destinations[session.destination].name;
            session.origin = Origin::new(session.login(&self.destinations), address);
        }
    }

    /// Delivers a message to the receivers of a destination that is not a queue.
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

    /// Delivers a message to given subscriptions.
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

    /// Checks that a client may send to a destination, which need not exist.
    pub(super) fn check_sendable(&self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
        let space = Space::of(name);
        if matches!(space, Space::Broker | Space::Unknown) {
            return self.unreachable(name).map_or(Ok(()), Err);
        }
        self.check_may_send(session, name)?;
        match space {
            Space::Topic | Space::Queue => self.check_receiver_name(name),
            _ => Ok(()),
        }
    }

    fn check_may_send(&self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
        if self.sessions[session].may_send(name) {
            return Ok(());
        }
        let description = format!("your profile may not send to {}", printable(name));
        Err(Fault::staying(Code::NoRights, description))
    }

    /// Checks the name of a topic or queue before a SEND creates it.
    fn check_receiver_name(&self, name: &[u8]) -> Result<(), Fault> {
        if Levels::is_pattern(name) {
            let description = format!(
                "{} has wildcards, which stand for topics in SUBSCRIBE only",
                printable(name)
            );
            return Err(Fault::staying(Code::NoSuchDestination, description));
        }
        self.check_destination_name(name)
    }

    /// Why a SEND to a name has no receiver; `None` if it has one, or goes to a topic or a queue.
    pub(super) fn unreachable(&self, name: &[u8]) -> Option<Fault> {
        let code = Code::NoSuchDestination;
        let description = match Space::of(name) {
            Space::Topic | Space::Queue => return None,
            Space::Unknown => return Some(Self::unknown_space(name, code)),
            Space::Broker => {
                "the broker itself takes no messages; presence can be subscribed to".to_owned()
            }
            Space::Client => {
                let found = self.destinations.find(name, None).map(|id| &self.destinations[id]);
                let Some((found, owner)) = found.and_then(|one| Some((one, one.owner?))) else {
                    let description = format!("nobody is at the destination {}", printable(name));
                    return Some(Fault::staying(code, description));
                };
                if self.listens(owner, found.routes()) {
                    return None;
                }
                format!(
                    "the client at the destination {} is there and does not listen: it has not \
                     subscribed to its address",
                    printable(name)
                )
            }
        };
        Some(Fault::staying(code, description))
    }

    /// Whether the client at an address gets messages to it; `routes` are those of the address.
    fn listens(&self, owner: SessionId, routes: &[Route]) -> bool {
        let is_subscribed = || routes.first().is_some_and(|first| first.session == owner);
        self.sessions[owner].has_inbox || is_subscribed()
    }
}

impl<'b> Outlet<'b> {
    /// Queues a message to the owner of its destination and along the routes. Returns the number of
    /// sessions.
    fn deliver(
        &mut self,
        message: &Message<'_>,
        owner: Option<SessionId>,
        routes: &[Route],
        now: Moment,
    ) -> u32 {
        // In the classic dialect watchers see the session id of the watched client.
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
        // A session that has ended leaves routes behind until a job has removed them.
        let Some(session) = self.sessions.get(receiver) else { return false };
        let peer = self.peers.peer(session.peer);
        let format = (peer.encoding, peer.framing);
        let head = match format.0 {
            Encoding::Classic => Head::Session(watched.unwrap_or_else(|| session.token())),
            Encoding::Standard(_) => {
                let standard = subscription.and_then(|index| {
                    Some((index, self.subscriptions[index].standard.as_deref()?))
                });
                // A client without an inbox would not know the subscription id.
                if standard.is_none() && !session.has_inbox {
                    return false;
                }
                Head::of(standard)
            }
        };
        encodings.push_to(self.peers, session.peer, format, head)
    }
}

/// Delivers a message to its only receiver. Returns whether it was queued.
#[inline(always)] // into `send`, its only caller
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
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker, Verdict};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    #[test]
    fn each_message_to_the_same_client_has_an_id_of_its_own() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let mut ana = broker.open_peer(Opening { slot: 0, number: 1, framing, dialect });
        let say = |broker: &mut Broker, ana: &mut Speaker, bytes: &[u8]| {
            broker.handle(ana, Data { bytes, is_binary: false }, Moment::default()).verdict
        };
        let login =
            b"CONNECT\naccept-version:1.2\nhost:h\ninbox:true\nlogin:ana\npasscode:app.agent\n\n\0";
        assert_eq!(say(&mut broker, &mut ana, login), Verdict::LoggedIn);
        broker.peers.discard_unsent(ana.peer);
        let send = b"SEND\ndestination:/agent/ana\n\nhello\0".repeat(4);
        assert_eq!(say(&mut broker, &mut ana, &send), Verdict::Stays);
        let (arena, peer) = broker.peers.outbox(ana.peer).unwrap();
        let frames = String::from_utf8_lossy(arena.only_run(&peer.queue).unwrap().bytes);
        let ids = frames.lines().filter_map(|line| line.strip_prefix("message-id:"));
        assert_eq!(ids.collect::<Vec<_>>(), ["1", "2", "3", "4"], "{frames}");
    }
}
