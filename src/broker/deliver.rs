//! Delivery: from one SEND to the queues of all its receivers, in either dialect.

use super::asker::Asker;
use super::destination::Destination;
use super::encode::{Encodings, Head, encode_whole, push_if_large};
use super::encoding::Encoding;
use super::fan::{ByNumber, Fan, Outlet};
use super::fault::{Code, Fault};
use super::groups::Groups;
use super::ids::{DestinationId, PeerId, SessionId};
use super::levels::Levels;
use super::members::Members;
use super::message::{Content, Message, Origin};
use super::peer::Peers;
use super::session::{Session, SessionTable};
use super::space::Space;
use super::wide::{Wide, narrow_max};
use super::{Broker, Moment, printable};
use crate::profile::Profile;
use crate::work::{self, Meter};

/// A SEND, regardless of dialect.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) session: SessionId,
    pub(super) content: &'a Content<'a>,
    /// The last millisecond in which it may be delivered from a queue; or [`NEVER`].
    pub(super) expires_ms: u64,
    /// The sender in the message, if the session may have ended.
    pub(super) origin: Option<&'a Origin>,
}

impl<'a> Sending<'a> {
    /// The sender in the message.
    #[inline]
    pub(super) fn origin_in<'s>(&self, sessions: &'s SessionTable) -> &'s Origin
    where
        'a: 's,
    {
        match self.origin {
            Some(origin) => origin,
            None => &sessions[self.session].origin,
        }
    }
}

/// The outcome of a SEND.
#[derive(Debug)]
pub(super) enum Sent {
    /// The number of sessions that it was queued to; zero if it waits in a queue or nobody subscribes.
    Queued(u32),
    /// It goes to many receivers, none of which it was queued to yet.
    Wide(Box<Wide>),
    /// Its destination is a client that is not logged in or does not listen.
    Nobody,
}

impl Broker {
    /// Sends a message.
    #[inline(always)] // the path of a SEND
    pub(super) fn send(&mut self, sending: Sending<'_>, now: Moment) -> Result<Sent, Fault> {
        let Self { peers, sessions, destinations, counters, meter, .. } = self;
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
            let is_queued = deliver_only(peers, meter, &message, &sessions[owner], now);
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
            (None, Space::Topic | Space::Queue) => {
                self.find_or_make_destination(name, Asker::Session(sending.session), now)?
            }
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

    /// Sends a message for which room was reserved. Returns it if it goes to many receivers.
    pub(super) fn send_reserved(&mut self, sending: Sending<'_>, now: Moment) -> Option<Box<Wide>> {
        let name = sending.content.destination;
        self.meter.spend(work::of_names(LOOKUPS, name.len()));
        let id = match (self.destinations.find(name, None), Space::of(name)) {
            (Some(id), _) => id,
            (None, Space::Topic | Space::Queue) => self.make_destination(name),
            (None, Space::Client | Space::Broker | Space::Unknown) => return None,
        };
        let sent = match self.destinations[id].queue {
            Some(_) => self.send_to_queue(sending, id, now),
            None => self.send_at(sending, id, now),
        };
        self.release_destination(id);
        match sent {
            Sent::Wide(wide) => Some(wide),
            Sent::Queued(_) | Sent::Nobody => None,
        }
    }

    /// Sends a message to a topic or to a client.
    #[inline]
    fn send_at(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> Sent {
        let destination = &self.destinations[id];
        let is_reached = match destination.owner {
            Some(owner) => self.listens(owner, destination),
            None => Space::of(&destination.name) != Space::Client,
        };
        if is_reached { self.deliver_at(sending, id, now) } else { Sent::Nobody }
    }

    /// Whether what a connection's client sends may lengthen queues that are long already. It does not as long as it
    /// sends to a client that keeps up and is not watched.
    #[cold] // asked only while memory is short
    pub(crate) fn adds_to_queues(&self, peer: PeerId) -> bool {
        let peer = self.peers.peer(peer);
        let Some(session) = peer.session().filter(|_| peer.publishes) else { return false };
        let last = self.sessions[session].last_sent_to.and_then(|id| self.destinations.get(id));
        let owner = last.filter(|one| one.watch.is_none()).and_then(|one| one.owner);
        owner.is_none_or(|owner| !self.peers.peer(self.sessions[owner].peer).queue.is_empty())
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
    fn deliver_at(&mut self, sending: Sending<'_>, id: DestinationId, now: Moment) -> Sent {
        let number = self.next_message();
        let owner = self.destinations[id].owner;
        // Most addresses are not watched.
        if let Some(owner) = owner
            && self.destinations[id].watch.is_none()
            && self.sessions[owner].has_inbox
        {
            let Self { peers, sessions, counters, meter, .. } = self;
            let (origin, content) = (sending.origin_in(sessions), sending.content);
            let message = Message { number, is_redelivered: false, origin, content };
            let is_queued = deliver_only(peers, meter, &message, &sessions[owner], now);
            counters.deliveries += u64::from(is_queued);
            return Sent::Queued(u32::from(is_queued));
        }
        let wildcards = &self.groups.wildcards;
        if owner.is_none() && !self.destinations[id].knows_wildcards(wildcards.changed_at()) {
            self.look_up_wildcards(id);
        }
        let Self { peers, sessions, subscriptions, destinations, groups, counters, limits, .. } =
            self;
        let (origin, content) = (sending.origin_in(sessions), sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        let owner = owner.map(|owner| &sessions[owner]);
        let mut fan = fan_of(&destinations[id], groups, owner.map(|owner| owner.profile));
        // In the classic dialect watchers see the session id of the watched client.
        let token = owner.map(Session::token);
        peers.arena.note_arrival(now.ns);
        let mut encodings = Encodings::new(&message);
        let mut outlet = Outlet { peers, sessions, subscriptions };
        if let Some(owner) = owner
            && destinations[id].own().is_empty()
        {
            fan.count = u32::from(outlet.push(&mut encodings, owner, None, true, token));
            fan.deliveries = fan.count.into();
        }
        let receivers = fan.len();
        self.meter.spend(fan.units());
        let is_wide = receivers > narrow_max(limits)
            && needs_slices(outlet.peers, &self.meter, receivers)
            || (content.is_large() || content.has_many_escapes()) && is_costly(content, receivers);
        if is_wide {
            counters.deliveries += fan.deliveries;
            return Sent::Wide(Box::new(Wide::new(&message, fan, token, now)));
        }
        outlet.advance(&mut encodings, &mut fan, &mut ByNumber(number), token, usize::MAX);
        counters.deliveries += fan.deliveries;
        let written = match encodings.take_written() {
            0 | 1 => encodings.take_checks(),
            several => several * content.units_of_encoding() + encodings.take_checks(),
        };
        self.meter.spend(work::of_deliveries(receivers) + written);
        Sent::Queued(fan.count)
    }

    /// Whether a SEND of a client goes to the same receivers as its last message, which is a wide one that has not
    /// begun. It is then wide itself.
    #[cold] // asked only behind a wide message
    pub(super) fn follows_wide(&mut self, client: PeerId, session: SessionId, name: &[u8]) -> bool {
        let Some(wide) = self.jobs.open_wide(client) else { return false };
        let last = self.sessions[session].last_sent_to.and_then(|id| self.destinations.get(id));
        let same = last.filter(|last| *last.name == *name && last.queue.is_none());
        let Some(destination) = same else { return false };
        let is_reached = match destination.owner {
            Some(owner) => self.listens(owner, destination),
            None => destination.knows_wildcards(self.groups.wildcards.changed_at()),
        };
        let watched = destination.owner.map(|owner| self.sessions[owner].profile);
        let fan = wide.fan();
        self.meter.spend(fan.compare_units());
        is_reached
            && needs_slices(&self.peers, &self.meter, fan.len())
            && fan.is_same(sources_of(destination, &self.groups, watched))
    }

    /// Finds the groups that select a topic, after groups have come or gone.
    #[inline(never)] // keeps the common path in `deliver_at` short
    fn look_up_wildcards(&mut self, id: DestinationId) {
        let wildcards = &mut self.groups.wildcards;
        let times = (wildcards.changed_at(), wildcards.tick());
        let mut found = Vec::new();
        if !wildcards.is_empty() {
            let visited = wildcards.look_up(&self.destinations[id].name, &mut found);
            self.meter.spend(work::FRAME + visited / VISITS_PER_UNIT);
        }
        let forgotten = self.destinations.remember_wildcards(id, times, &found);
        self.meter.spend(forgotten * work::DROP);
    }

    /// Delivers a message of the broker itself or of a queue to given receivers.
    pub(super) fn deliver_to(&mut self, message: &Message<'_>, fan: Fan, now: Moment) {
        let Self { peers, sessions, subscriptions, counters, meter, .. } = self;
        peers.arena.note_arrival(now.ns);
        let mut outlet = Outlet { peers, sessions, subscriptions };
        counters.deliveries += outlet.deliver(message, fan, meter);
    }

    /// Delivers a message with that number to given receivers.
    pub(super) fn deliver_along(
        &mut self,
        sending: Sending<'_>,
        number: u64,
        fan: Fan,
        now: Moment,
    ) {
        let Self { peers, sessions, subscriptions, counters, meter, .. } = self;
        let (origin, content) = (sending.origin_in(sessions), sending.content);
        let message = Message { number, is_redelivered: false, origin, content };
        peers.arena.note_arrival(now.ns);
        let mut outlet = Outlet { peers, sessions, subscriptions };
        counters.deliveries += outlet.deliver(&message, fan, meter);
    }

    /// The number of the next message.
    pub(super) fn next_message(&mut self) -> u64 {
        self.last_message += 1;
        self.last_message
    }

    /// Checks that a client may send to a destination, which need not exist.
    pub(super) fn check_sendable(&mut self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
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
    fn check_receiver_name(&mut self, name: &[u8]) -> Result<(), Fault> {
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
                if self.listens(owner, found) {
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

    /// Whether the client at an address, its owner, gets messages to it.
    fn listens(&self, owner: SessionId, address: &Destination) -> bool {
        let is_subscribed = || address.own().iter().any(|route| route.session == owner);
        self.sessions[owner].has_inbox || is_subscribed()
    }
}

/// How often the name of a message for which room was reserved is looked up, at most, until it is sent.
const LOOKUPS: u32 = 4;

impl Outlet<'_> {
    /// Delivers a message to all of its receivers in one go. Returns the number of copies.
    fn deliver(&mut self, message: &Message<'_>, mut fan: Fan, meter: &mut Meter) -> u64 {
        let mut encodings = Encodings::new(message);
        let mut seen = ByNumber(message.number);
        self.advance(&mut encodings, &mut fan, &mut seen, None, usize::MAX);
        meter.spend(encodings.take_checks());
        fan.deliveries
    }
}

/// Whether the share of the turn is too small for a message to so many receivers.
fn needs_slices(peers: &Peers, meter: &Meter, receivers: usize) -> bool {
    let writes = receivers as u64 * u64::from(work::WRITE);
    meter.is_spent(peers.pending_units() + writes)
}

/// Whether writing a message with a large body or many escapes to so many receivers takes long: if the body is shared,
/// the lines before it are written for each; if not, it is copied for each format, unless a job shares it; and so are
/// the lines.
#[cold] // few bodies are large
fn is_costly(content: &Content<'_>, receivers: usize) -> bool {
    if !content.is_shared() {
        return receivers > UNSHARED_MAX;
    }
    receivers > 1 && receivers as u64 * u64::from(content.units_of_lines()) > u64::from(COSTLY)
}

/// Receivers up to which a large body, or many escapes, are copied at once.
const UNSHARED_MAX: usize = 2;

/// Units of that writing from which it is left to a job.
const COSTLY: u32 = 200;

/// Levels or nodes of wildcards that are looked at for a unit of work.
const VISITS_PER_UNIT: u32 = 4;

/// The receivers of a message to a topic or to a client, who is of the given profile.
#[inline]
fn fan_of(destination: &Destination, groups: &Groups, watched: Option<Profile>) -> Fan {
    let mut fan = Fan::default();
    sources_of(destination, groups, watched).for_each(|(members, by)| fan.add(members, by));
    fan
}

/// The lists of these receivers that are not empty, those of watchers with the profile of the client: the client's own
/// subscriptions first.
#[inline]
fn sources_of<'d>(
    destination: &'d Destination,
    groups: &'d Groups,
    watched: Option<Profile>,
) -> impl Iterator<Item = (&'d Members, Option<Profile>)> {
    let own = watched.map(|_| (destination.own(), None));
    let wildcards = destination.wildcards().iter();
    let wildcards = wildcards.filter_map(|id| Some((groups.wildcards.get(*id)?.members(), None)));
    let slots = watched.into_iter().flat_map(|_| destination.groups());
    let watchers =
        slots.filter_map(move |slot| Some((groups.clients.known_at(slot)?.members(), watched)));
    let all = own.into_iter().chain([(destination.direct(), watched)]);
    all.chain(wildcards).chain(watchers).filter(|(members, _)| !members.is_empty())
}

/// Delivers a message to its only receiver. Returns whether it was queued.
#[inline(always)] // on the path of a SEND
fn deliver_only(
    peers: &mut Peers,
    meter: &mut Meter,
    message: &Message<'_>,
    to: &Session,
    now: Moment,
) -> bool {
    peers.arena.note_arrival(now.ns);
    let receiver = peers.receiver(to.peer);
    if receiver.peer.takes_nothing() {
        return peers.note_refused(to.peer);
    }
    let format = (receiver.peer.encoding, receiver.peer.framing);
    let head = match format.0 {
        Encoding::Classic => Head::Session(to.token()),
        Encoding::Standard(_) => Head::Inbox,
    };
    let queue = &mut receiver.peer.queue;
    if message.content.shared.is_some()
        && let Some(units) = push_if_large(message, receiver.arena, queue, format, head)
    {
        meter.spend(units);
    } else {
        let frame = encode_whole(message, receiver.arena, format, head);
        receiver.arena.push(queue, frame);
    }
    receiver.note_queued();
    true
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker, Verdict};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    fn say(broker: &mut Broker, speaker: &mut Speaker, frames: &str) -> u64 {
        let before = broker.meter.spent();
        let data = Data::unshared(frames.as_bytes());
        broker.handle(speaker, data, Moment::default());
        broker.meter.spent() - before
    }

    fn join(broker: &mut Broker, slot: u32) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let mut speaker =
            broker.open_peer(Opening { slot, number: u64::from(slot) + 1, framing, dialect });
        let login = "accept-version:1.2\nhost:h\npasscode:app.super";
        say(broker, &mut speaker, &format!("CONNECT\n{login}\nlogin:{slot}\n\n\0"));
        speaker
    }

    #[test]
    fn each_list_of_receivers_is_counted_even_if_the_message_is_sliced() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let wildcards_per_session_max = crate::profile::ByProfile::all(1_000);
        let limits = Limits { wildcards_per_session_max, ..Limits::default() };
        let mut broker = Broker::new(Options::new(limits, keys, Box::new(|| 1)));
        let [mut ana, mut bob, mut eva] = [0, 1, 2].map(|slot| join(&mut broker, slot));
        for id in 0..256 {
            let levels = (0..8).map(|at| if id >> at & 1 == 0 { "/*" } else { "/a" });
            let pattern: String = levels.collect();
            say(
                &mut broker,
                &mut ana,
                &format!("SUBSCRIBE\nid:{id}\ndestination:/topic{pattern}\n\n\0"),
            );
        }
        let send = format!("SEND\ndestination:/topic{}\n\n\0", "/a".repeat(8));
        say(&mut broker, &mut bob, &send);
        let whole = say(&mut broker, &mut bob, &send);
        assert!(whole >= 256 / 4 + 256 / 2, "{whole}");
        // It does not begin, or is sent in slices; the next one joins it.
        broker.begin_share(work::FRAME + 1);
        let sliced = say(&mut broker, &mut eva, &send);
        assert!(broker.peers.peer(eva.peer).is_busy() && sliced >= 256 / 2, "{sliced}");
        broker.begin_share(10_000_000);
        broker.check_invariants();
    }

    #[test]
    fn each_message_to_the_same_client_has_an_id_of_its_own() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let mut ana = broker.open_peer(Opening { slot: 0, number: 1, framing, dialect });
        let say = |broker: &mut Broker, ana: &mut Speaker, bytes: &[u8]| {
            broker.handle(ana, Data::unshared(bytes), Moment::default()).verdict
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
