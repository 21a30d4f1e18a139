//! The broker: who is logged in, who watches whom, and what each gets.
//!
//! It is a plain value. Frames come in by [`Broker::handle_classic`] and
//! [`Broker::handle_standard`], encoded frames go out through the queues of [`Peers`], and time is
//! an argument. The two dialects are rules at a session's edge: sessions, destinations,
//! subscriptions and delivery are the same. It does not know that transports, sockets or
//! clocks exist.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashbrown::HashSet;

pub mod destination;
pub mod fault;
pub mod keys;
pub mod levels;
pub mod message;
pub mod peer;
pub mod profile;
pub mod queue;
pub mod rights;
pub mod session;
pub mod subscription;
pub mod table;
pub mod transaction;

mod classic;
mod deliver;
mod presence;
mod room;
mod standard;

use self::classic::BROKER_DESTINATION;
use self::destination::{DestinationId, DestinationTable, Route, Space};
pub use self::fault::{CloseReason, Code, Fault, Options, Retry};
pub use self::keys::{KeyFault, Keys};
use self::levels::Levels;
use self::peer::{Closure, Encoding, Opening, PeerId, PeerState, Peers};
use self::presence::Event;
pub use self::profile::Profile;
pub use self::rights::Rights;
use self::session::{Session, SessionId, SessionTable};
use self::subscription::{
    Pattern, Standard, Subscription, SubscriptionIndex, SubscriptionTable, Target,
};
use crate::limits::{Exceeded, Limits};
use crate::stomp::{Frame, Headers, Malformed, Name, Version, lookalike};
use crate::telemetry::Counters;

/// When something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds of a clock that only goes forward.
    pub ns: u64,
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
}

impl Moment {
    /// Milliseconds of the clock that only goes forward.
    pub fn ms(self) -> u64 {
        self.ns / 1_000_000
    }
}

/// Sessions, destinations, subscriptions, and the connections that they are used from.
pub struct Broker {
    /// Every connection's state and outbound queue.
    pub peers: Peers,
    /// What happened so far.
    pub counters: Counters,
    limits: Limits,
    keys: Keys,
    rights: [Rights; 4],
    virtual_hosts: Vec<String>,
    dead_letter_queue: Option<String>,
    entropy: Box<dyn FnMut() -> u128>,
    sessions: SessionTable,
    destinations: DestinationTable,
    subscriptions: SubscriptionTable,
    /// The number of the last message; numbers make `message-id`s.
    last_message: u64,
    /// Topics that nobody subscribes to by name; they are swept away when there are too many.
    idle_topics: usize,
    /// Queues that hold messages which their consumers have credit for, and had no room.
    backlogged: Vec<DestinationId>,
    /// Octets that all queues hold.
    queued_bytes: u64,
    /// Queues with a message that expires, by when the first may.
    expiring: BTreeSet<(u64, DestinationId)>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Broker")
            .field("peers", &self.peers.len())
            .field("sessions", &self.sessions.len())
            .field("destinations", &self.destinations.len())
            .field("subscriptions", &self.subscriptions.len())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker that nobody is connected to.
    pub fn new(options: Options) -> Self {
        Self {
            peers: Peers::new(),
            counters: Counters::default(),
            limits: options.limits,
            keys: options.keys,
            rights: options.rights,
            virtual_hosts: options.virtual_hosts,
            dead_letter_queue: options.dead_letter_queue,
            entropy: options.entropy,
            sessions: SessionTable::default(),
            destinations: DestinationTable::default(),
            subscriptions: SubscriptionTable::default(),
            last_message: 0,
            idle_topics: 0,
            backlogged: Vec::new(),
            queued_bytes: 0,
            expiring: BTreeSet::new(),
        }
    }

    /// Takes a connection in. It has to log in before anything else.
    pub fn open_peer(&mut self, opening: Opening) -> PeerId {
        self.peers.open(opening, self.limits.outbound_before_login())
    }

    /// Handles one frame of the classic dialect. Not to be called for a connection that is closing.
    #[inline]
    pub fn handle_classic(&mut self, peer: PeerId, octets: &[u8], now: Moment) {
        debug_assert!(self.peers.peer(peer).closure().is_none(), "a frame of a closing connection");
        classic::handle(self, peer, octets, now);
    }

    /// Handles one frame of the standard dialect. Not to be called for a connection that is closing.
    #[inline]
    pub fn handle_standard(&mut self, peer: PeerId, frame: &Frame<'_>, now: Moment) {
        standard::handle(self, peer, frame, now);
    }

    /// Tells a client of the standard dialect what is wrong with the frame that it sent.
    pub fn refuse_octets(&mut self, peer: PeerId, malformed: &Malformed, now: Moment) {
        let mut receipt = malformed.receipt.as_deref();
        if self.peers.peer(peer).encoding == Encoding::Standard(Version::V1_0) {
            receipt = receipt.map(<[u8]>::trim_ascii);
        }
        self.refuse_request(peer, &malformed.fault.into(), receipt, now);
    }

    /// Tells a client what is wrong and, where the fault says so, ends its session and closes its
    /// connection.
    pub fn refuse(&mut self, peer: PeerId, fault: &Fault, now: Moment) {
        self.refuse_request(peer, fault, None, now);
    }

    /// The same, where the request that was at fault wanted a receipt. In the standard dialect
    /// every ERROR closes the connection.
    fn refuse_request(&mut self, peer: PeerId, fault: &Fault, receipt: Option<&[u8]>, now: Moment) {
        self.count_fault(fault.code);
        let encoding = self.peers.peer(peer).encoding;
        let retry = match encoding {
            Encoding::Classic => fault.retry,
            Encoding::Standard(_) => Some(fault.retry.unwrap_or(Retry::Never)),
        };
        let write = |out: &mut Vec<u8>| write_error(out, encoding, fault, retry, receipt);
        if retry.is_none() {
            self.peers.reply(peer, write);
            return;
        }
        let reason = fault.close_reason();
        self.end_session(peer, reason, now);
        if fault.code == Code::SlowConsumer {
            self.peers.discard_unsent(peer);
        }
        self.peers.reply_last(peer, Closure { reason, retry }, write);
    }

    /// Ends a connection's session without a word; it still gets what is queued.
    pub fn end_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        self.end_session(peer, reason, now);
        self.peers.begin_close(peer, Closure { reason, retry: None });
    }

    /// Forgets a connection, and ends the session on it if there still is one.
    pub fn close_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        self.end_session(peer, reason, now);
        self.peers.close(peer);
    }

    /// Closes the connections whose queues have been too full for too long. Ask after flushing.
    pub fn cut_slow_consumers(&mut self, now: Moment) {
        for peer in self.peers.take_overflowing(now.ms()) {
            let one = self.peers.peer(peer);
            let fault = Fault::too_slow(one.queue.bytes(), one.overflowed_limit());
            self.refuse(peer, &fault, now);
        }
        self.serve_backlog(now);
    }

    /// Tells every client that the broker is shutting down, and closes its connection.
    pub fn drain(&mut self, now: Moment) {
        let peers: Vec<_> = self.peers.iter().map(|(id, _)| id).collect();
        let fault = Fault::closing(Code::Draining, Retry::Now, "the broker is shutting down");
        for peer in peers {
            self.refuse(peer, &fault, now);
        }
    }

    /// Replaces the keys. Sessions stay.
    pub fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// The login id of the client that was logged in on a connection, once it no longer is, or that
    /// somebody tried to log in with.
    pub fn past_login_of(&self, peer: PeerId) -> Option<&str> {
        self.peers.peer(peer).past_login.as_deref()
    }

    /// The number of sessions.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// The number of destinations.
    pub fn destinations_len(&self) -> usize {
        self.destinations.len()
    }

    /// The number of subscriptions.
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Panics where the tables contradict each other.
    pub fn check_invariants(&self) {
        self.peers.check_invariants();
        for (id, session) in self.sessions.iter() {
            assert_eq!(self.destinations[session.destination].owner, Some(id));
            assert_eq!(self.peers.peer(session.peer).session(), Some(id));
            for index in &session.subscriptions {
                assert_eq!(self.subscriptions[*index].session, id);
            }
        }
        for (id, destination) in self.destinations.iter() {
            let is_topic = Space::of(&destination.name) == Space::Topic;
            assert!(is_topic || !destination.is_unused(), "a destination that nothing keeps");
            if let Some(owner) = destination.owner {
                assert_eq!(self.sessions[owner].destination, id);
            }
            assert_eq!(destination.routes(), self.routes_to(id), "routes are what they should be");
        }
        let idle = |(_, one): &(_, &destination::Destination)| {
            Space::of(&one.name) == Space::Topic && one.is_unused()
        };
        assert_eq!(self.destinations.iter().filter(idle).count(), self.idle_topics);
        let queued = self.destinations.iter().filter_map(|(_, one)| one.queue.as_ref());
        assert_eq!(queued.map(|queue| queue.bytes()).sum::<u64>(), self.queued_bytes);
        let flagged = self.destinations.iter().filter_map(|(id, one)| {
            one.queue.as_ref().is_some_and(|queue| queue.is_backlogged).then_some(id)
        });
        let listed = self.backlogged.iter().copied();
        let listed = listed.filter(|id| self.destinations.get(*id).is_some());
        assert_eq!(flagged.collect::<BTreeSet<_>>(), listed.collect(), "queues to be served again");
        let expiring = self.destinations.iter().filter_map(|(id, one)| {
            let expires_ms = one.queue.as_ref()?.expires_ms();
            (expires_ms != queue::NEVER).then_some((expires_ms, id))
        });
        assert_eq!(expiring.collect::<BTreeSet<_>>(), self.expiring, "which queue expires first");
        let held: usize = self.sessions.iter().map(|(_, one)| one.subscriptions.len()).sum();
        assert_eq!(held, self.subscriptions.len(), "subscriptions that are no session's");
        let connected = self.peers.iter().filter(|(_, peer)| peer.session().is_some()).count();
        assert_eq!(connected, self.sessions.len(), "sessions and connections that carry them");
    }

    // -- login and logout -------------------------------------------------------------------

    /// The profile that a pair of keys opens.
    fn open_with(&self, application_key: &[u8], profile_key: &[u8]) -> Result<Profile, Fault> {
        if !self.keys.opens_application(application_key) {
            let description = "the application key (secret-key) is wrong";
            return Err(Fault::closing(Code::InvalidApplicationKey, Retry::Never, description));
        }
        self.keys.profile_of(profile_key).ok_or_else(|| {
            let description = "the profile key (passcode) is wrong";
            Fault::closing(Code::InvalidProfileKey, Retry::Never, description)
        })
    }

    /// Notes the login id of a login that was refused, for the log: as much of it as helps, and nothing
    /// that is a key, which somebody may have put in its place.
    #[cold]
    fn note_refused_login(&mut self, peer: PeerId, headers: &Headers<'_>) {
        let Some(login) = headers.value(Name::Login) else { return };
        // A wrong key may be the right one somewhere else. A passcode may hold both, with a dot between.
        let given = [Name::Passcode, Name::SecretKey].into_iter().filter_map(|n| headers.value(n));
        let mut given = given.flat_map(|value| value.split(|byte| *byte == b'.'));
        let holds = |key: &[u8]| !key.is_empty() && memchr::memmem::find(login, key).is_some();
        if given.any(holds) || self.keys.appear_in(login) {
            return;
        }
        let end = login.len().min(SHOWN_LOGIN_BYTES);
        let ellipsis = if end < login.len() { "…" } else { "" };
        let shown = format!("{}{ellipsis}", String::from_utf8_lossy(&login[..end]));
        self.peers.peer_mut(peer).past_login = Some(shown.into());
    }

    /// Opens a session on a connection, or moves one there, or says why not. One that is moved keeps its
    /// subscriptions where the client `resumes` them.
    fn log_in(
        &mut self,
        peer: PeerId,
        login: &[u8],
        profile: Profile,
        resumes: bool,
        now: Moment,
    ) -> Result<SessionId, Fault> {
        let destinations = &self.destinations;
        if let Some(session) = self.sessions.find(login, |s| login_of(destinations, s)) {
            self.take_over(session, peer, profile, resumes, now)?;
            return Ok(session);
        }
        let name = [profile.destination_prefix().as_bytes(), login].concat();
        let destination = self.find_or_make_destination(&name)?;
        let session = Session::new(destination, peer, profile, (self.entropy)());
        let destinations = &self.destinations;
        let session = self.sessions.insert(login, session, |s| login_of(destinations, s));
        self.destinations[destination].owner = Some(session);
        self.rebuild_routes(destination);
        self.attach(session, peer);
        self.counters.logins += 1;
        self.publish_presence(Event::Logged, session, "login", now);
        Ok(session)
    }

    /// Moves a session to a newer connection, where its profile yields; the older one is told first.
    fn take_over(
        &mut self,
        session: SessionId,
        newcomer: PeerId,
        profile: Profile,
        resumes: bool,
        now: Moment,
    ) -> Result<(), Fault> {
        let held = self.sessions[session].profile;
        if !held.yields_to_newcomer() {
            let description = "the login id is in use, and its client does not yield to another";
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Later, description));
        }
        if held != profile {
            let description = "the login id is in use under another profile";
            return Err(Fault::closing(Code::WrongProfile, Retry::Later, description));
        }
        self.note_takeover(session, now)?;
        let older = self.sessions[session].peer;
        let login = String::from_utf8_lossy(self.login(session)).into();
        self.peers.peer_mut(older).past_login = Some(login);
        let reason = CloseReason::TakenOver;
        self.publish_presence(Event::Disconnected, session, reason.presence_word(), now);
        let fault = Fault::closing(
            Code::TakenOver,
            Retry::Never,
            "a newer connection logged in with your login id and profile",
        );
        let retry = Some(Retry::Never);
        let encoding = self.peers.peer(older).encoding;
        self.peers.reply_last(older, Closure { reason, retry }, |out| {
            write_error(out, encoding, &fault, retry, None);
        });
        // STOMP 1.2, "BEGIN": the end of the connection aborts its transactions.
        self.sessions[session].transactions = Vec::new();
        let newer = self.peers.peer(newcomer).encoding;
        if !resumes || (newer != encoding && newer != Encoding::Classic) {
            // STOMP 1.2, "SUBSCRIBE id Header": ids belong to a connection. One that has them all the
            // same must be able to name them, and versions write them differently.
            let ended = std::mem::take(&mut self.sessions[session].subscriptions);
            self.end_subscriptions(ended, now);
        } else if newer != encoding {
            self.fit_to_classic(session, now);
        }
        self.put_back_unacknowledged(session, now);
        self.attach(session, newcomer);
        self.counters.takeovers += 1;
        self.publish_presence(Event::Logged, session, "takeover", now);
        Ok(())
    }

    /// A classic client cannot acknowledge, gets direct messages once in any case, and otherwise one copy
    /// by however many subscriptions, which have no ids.
    fn fit_to_classic(&mut self, session: SessionId, now: Moment) {
        let held = std::mem::take(&mut self.sessions[session].subscriptions);
        let is_unfit = |index: &SubscriptionIndex| {
            matches!(self.subscriptions[*index].target, Target::Queue(_) | Target::Own(_))
        };
        let (ended, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(is_unfit);
        self.end_subscriptions(ended, now);
        for index in &kept {
            self.subscriptions[*index].standard = None;
            for id in self.destinations_of(*index) {
                self.rebuild_routes(id);
            }
        }
        self.sessions[session].subscriptions = kept;
    }

    /// Two programs that are configured with the same login id would take it from each other for
    /// ever; past a number of times in a window the newcomer has to wait.
    fn note_takeover(&mut self, session: SessionId, now: Moment) -> Result<(), Fault> {
        let window_ms = u64::from(self.limits.takeover_window_ms);
        let session = &mut self.sessions[session];
        if now.ms() - session.takeover_window_ms >= window_ms {
            session.takeover_window_ms = now.ms();
            session.takeovers = 0;
        }
        if session.takeovers >= self.limits.takeovers_max {
            let description = format!(
                "the login id was taken over more than {} times in {window_ms} ms (takeovers_max): \
                 is it configured twice?",
                self.limits.takeovers_max
            );
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Later, description));
        }
        session.takeovers += 1;
        Ok(())
    }

    fn attach(&mut self, session: SessionId, peer: PeerId) {
        let one = &mut self.sessions[session];
        one.peer = peer;
        // The connection has not published anything yet.
        one.last_sent_to = None;
        let profile = one.profile;
        self.peers.set_limits(peer, self.limits.outbound[profile as usize]);
        self.peers.peer_mut(peer).state = PeerState::Connected(session);
    }

    /// Ends the session on a connection, if there is one. The connection stays.
    fn end_session(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        let Some(id) = self.peers.peer(peer).session() else { return };
        self.publish_presence(Event::Disconnected, id, reason.presence_word(), now);
        self.publish_presence(Event::Logout, id, reason.presence_word(), now);
        self.sessions[id].transactions = Vec::new();
        let subscriptions = std::mem::take(&mut self.sessions[id].subscriptions);
        self.end_subscriptions(subscriptions, now);
        let login = login_of(&self.destinations, &self.sessions[id]);
        self.peers.peer_mut(peer).past_login = Some(String::from_utf8_lossy(login).into());
        let destination = self.sessions[id].destination;
        self.sessions.remove(id, login);
        self.peers.peer_mut(peer).state = PeerState::AwaitingConnect;
        self.destinations[destination].owner = None;
        self.rebuild_routes(destination);
        self.remove_destination_if_unused(destination);
    }

    // -- destinations and subscriptions -----------------------------------------------------

    /// The destination with that name; a new one is attached to every pattern that selects it.
    fn find_or_make_destination(&mut self, name: &[u8]) -> Result<DestinationId, Fault> {
        if let Some(found) = self.destinations.find(name, None) {
            return Ok(found);
        }
        let max = u64::from(self.limits.destinations_max);
        if self.destinations.len() as u64 >= max {
            self.sweep_idle_topics();
        }
        if self.destinations.len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "destinations_max", max }));
        }
        let made = self.destinations.insert(name);
        let attached = self.subscriptions.matching(name);
        if !attached.is_empty() {
            self.destinations[made].watch.get_or_insert_default().attached = attached;
        }
        match Space::of(name) {
            Space::Topic => {
                self.idle_topics += 1;
                self.rebuild_routes(made);
            }
            Space::Queue => self.destinations[made].queue = Some(Box::default()),
            Space::Client | Space::Broker | Space::Unknown => {}
        }
        Ok(made)
    }

    /// Forgets a destination that nothing keeps in being. Topics stay for a while: the next message
    /// finds who gets it without asking the patterns again.
    fn remove_destination_if_unused(&mut self, id: DestinationId) {
        if self.destinations.get(id).is_none_or(|one| !one.is_unused()) {
            return;
        }
        if Space::of(&self.destinations[id].name) == Space::Topic {
            self.idle_topics += 1;
            if self.idle_topics > self.limits.idle_topics_max as usize {
                self.sweep_idle_topics();
            }
            return;
        }
        self.destinations.remove(id);
    }

    fn sweep_idle_topics(&mut self) {
        let idle: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, one)| Space::of(&one.name) == Space::Topic && one.is_unused())
            .map(|(id, _)| id)
            .collect();
        for id in idle {
            self.destinations.remove(id);
        }
        self.idle_topics = 0;
    }

    /// Makes the flat list of who gets copies again.
    fn rebuild_routes(&mut self, id: DestinationId) {
        if self.destinations[id].watch.is_none() {
            return;
        }
        let routes = self.routes_to(id);
        let destination = &mut self.destinations[id];
        match &mut destination.watch {
            Some(watch) if !watch.attached.is_empty() => watch.routes = routes,
            _ => destination.watch = None,
        }
    }

    /// Who gets what is sent to a destination: the owner's own subscriptions, those that subscribed
    /// to the topic, those that watch and may watch whoever is there now.
    fn routes_to(&self, id: DestinationId) -> Vec<Route> {
        let destination = &self.destinations[id];
        let owner = destination.owner.map(|owner| self.sessions[owner].profile);
        let is_topic = Space::of(&destination.name) == Space::Topic;
        let mut own = Vec::new();
        let mut others = Vec::new();
        let mut seen = HashSet::with_hasher(foldhash::fast::RandomState::default());
        for index in destination.attached() {
            let subscription = &self.subscriptions[*index];
            let session = subscription.session;
            if matches!(subscription.target, Target::Own(_)) {
                own.push(Route { session, subscription: *index, is_first: own.is_empty() });
                continue;
            }
            let watcher = self.sessions[session].profile;
            if !is_topic && !owner.is_some_and(|owner| watcher.may_watch(owner)) {
                continue;
            }
            let is_first = seen.insert(session);
            // In the classic dialect a session gets one copy, by however many subscriptions.
            if is_first || subscription.standard.is_some() {
                others.push(Route { session, subscription: *index, is_first });
            }
        }
        own.append(&mut others);
        own
    }

    /// Watches one client, which must be logged in.
    fn watch_client(
        &mut self,
        watcher: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let destination = self.destinations.find(name, None);
        let Some(owner) = destination.and_then(|id| self.destinations[id].owner) else {
            let description = format!("nobody is logged in at {}", printable(name));
            return Err(Fault::staying(Code::NothingToSubscribe, description));
        };
        let destination = self.sessions[owner].destination;
        let target = self.sessions[owner].profile;
        if !self.sessions[watcher].profile.may_watch(target) {
            let description =
                format!("a client of profile {} may not be watched by you", target.description());
            return Err(Fault::staying(Code::NoRights, description));
        }
        let same = |one: &Target| matches!(one, Target::Client(other) if *other == destination);
        if let Some(held) = self.find_classic_subscription(watcher, same, &standard) {
            return Ok(held);
        }
        self.subscribe_to(watcher, destination, Target::Client(destination), standard)
    }

    /// Subscribes to what is sent to one destination.
    fn subscribe_to(
        &mut self,
        session: SessionId,
        destination: DestinationId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let was_idle = self.is_idle_topic(destination);
        let is_direct = target.is_direct();
        let index = self.begin_subscription(session, target, standard)?;
        let watch = self.destinations[destination].watch.get_or_insert_default();
        watch.attached.push(index);
        watch.direct += u32::from(is_direct);
        self.idle_topics -= usize::from(was_idle && !self.is_idle_topic(destination));
        self.rebuild_routes(destination);
        Ok(index)
    }

    fn is_idle_topic(&self, id: DestinationId) -> bool {
        let destination = &self.destinations[id];
        Space::of(&destination.name) == Space::Topic && destination.is_unused()
    }

    /// Subscribes to a topic, or to every topic that a pattern stands for.
    fn subscribe_topic(
        &mut self,
        session: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        self.check_destination_name(name)?;
        self.check_may_subscribe(session, name)?;
        if Levels::is_pattern(name) {
            let text = std::str::from_utf8(name).unwrap_or_default();
            let levels = Levels::parse(text)
                .map_err(|why| Fault::staying(Code::InvalidDestinationType, why))?;
            self.check_wildcards_left()?;
            return self.subscribe_pattern(session, Target::Topics(levels), standard);
        }
        let destination = self.find_or_make_destination(name)?;
        let same = |one: &Target| matches!(one, Target::Topic(other) if *other == destination);
        if let Some(held) = self.find_classic_subscription(session, same, &standard) {
            return Ok(held);
        }
        self.subscribe_to(session, destination, Target::Topic(destination), standard)
    }

    fn check_may_subscribe(&self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
        if self.rights[self.sessions[session].profile as usize].may_subscribe(name) {
            return Ok(());
        }
        let description = format!("your profile may not subscribe to {}", printable(name));
        Err(Fault::staying(Code::NoRights, description))
    }

    /// Checks a destination that a client wants to send to and that may not be there.
    fn check_sendable(&self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
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
        if self.rights[self.sessions[session].profile as usize].may_send(name) {
            return Ok(());
        }
        let description = format!("your profile may not send to {}", printable(name));
        Err(Fault::staying(Code::NoRights, description))
    }

    /// Checks the name of a topic or queue to which a message goes, before it is made.
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

    /// Checks the name of a topic or queue against its bound and against what could be mistaken for
    /// another.
    fn check_destination_name(&self, name: &[u8]) -> Result<(), Fault> {
        let max = u64::from(self.limits.destination_bytes_max);
        if name.len() as u64 > max {
            return Err(Fault::exceeded(Exceeded { limit: "destination_bytes_max", max }));
        }
        lookalike::check(name).map_err(|fault| Fault::malformed(Name::Destination, fault.why()))
    }

    /// What is wrong with a name that is in no space.
    fn unknown_space(name: &[u8], code: Code) -> Fault {
        let (name, why) = (printable(name), Space::why_unknown(name));
        Fault::staying(code, format!("there is no destination {name}: {why}"))
    }

    /// Why a SEND to a name reaches nobody, where it is no topic or queue and nobody gets it.
    fn unreachable(&self, name: &[u8]) -> Option<Fault> {
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

    /// Whether the client at an address gets what is sent there, to which these are the routes.
    fn listens(&self, owner: SessionId, routes: &[Route]) -> bool {
        let is_subscribed = || routes.first().is_some_and(|first| first.session == owner);
        self.sessions[owner].has_inbox || is_subscribed()
    }

    /// Watches every client, present and future, whose destination matches.
    fn watch_clients(
        &mut self,
        watcher: SessionId,
        text: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let same = |one: &Target| matches!(one, Target::Clients(held) if held.text() == text);
        if let Some(held) = self.find_classic_subscription(watcher, same, &standard) {
            return Ok(held);
        }
        let pattern = self.compile(text)?;
        self.subscribe_pattern(watcher, Target::Clients(pattern), standard)
    }

    /// Attaches a pattern to every destination that it selects; those that come later are attached
    /// when they are made.
    fn subscribe_pattern(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let selected: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, destination)| target.selects(&destination.name))
            .map(|(id, _)| id)
            .collect();
        let index = self.begin_subscription(session, target, standard)?;
        for id in selected {
            self.destinations[id].watch.get_or_insert_default().attached.push(index);
            self.rebuild_routes(id);
        }
        Ok(index)
    }

    fn compile(&self, text: &[u8]) -> Result<Pattern, Fault> {
        self.check_patterns_left()?;
        Pattern::compile(text, &self.limits)
    }

    fn check_patterns_left(&self) -> Result<(), Fault> {
        let max = u64::from(self.limits.patterns_max);
        if self.subscriptions.patterns_len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "patterns_max", max }));
        }
        Ok(())
    }

    fn check_wildcards_left(&self) -> Result<(), Fault> {
        let max = u64::from(self.limits.wildcards_max);
        if self.subscriptions.wildcards_len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "wildcards_max", max }));
        }
        Ok(())
    }

    fn begin_subscription(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let max = u64::from(self.limits.subscriptions_per_session_max);
        if self.sessions[session].subscriptions.len() as u64 >= max {
            let limit = "subscriptions_per_session_max";
            return Err(Fault::exceeded(Exceeded { limit, max }));
        }
        let index = self.subscriptions.insert(Subscription { session, target, standard });
        self.sessions[session].subscriptions.push(index);
        Ok(index)
    }

    /// Ends subscriptions that their session no longer lists. What they did not acknowledge goes back to
    /// the front of their queues first, so that none of it goes to another of them.
    fn end_subscriptions(&mut self, ended: Vec<SubscriptionIndex>, now: Moment) {
        let mut queues: Vec<_> =
            ended.into_iter().filter_map(|index| self.end_subscription(index, now)).collect();
        queues.sort_unstable();
        queues.dedup();
        for id in queues {
            self.serve_queue(id, now);
            self.remove_destination_if_unused(id);
        }
    }

    /// Ends a subscription; says from which queue it has taken a consumer.
    fn end_subscription(&mut self, index: SubscriptionIndex, now: Moment) -> Option<DestinationId> {
        let selected = self.destinations_of(index);
        let subscription = self.subscriptions.remove(index)?;
        if let Target::Queue(id) = subscription.target {
            self.remove_consumer(id, index, subscription.standard, now);
            return Some(id);
        }
        let is_direct = subscription.target.is_direct();
        for id in selected {
            let was_idle = self.is_idle_topic(id);
            if let Some(watch) = &mut self.destinations[id].watch {
                watch.attached.retain(|other| *other != index);
                watch.direct -= u32::from(is_direct);
            }
            self.rebuild_routes(id);
            if !was_idle {
                self.remove_destination_if_unused(id);
            }
        }
        None
    }

    /// The destinations that a subscription is attached to.
    fn destinations_of(&self, index: SubscriptionIndex) -> Vec<DestinationId> {
        match &self.subscriptions[index].target {
            Target::Presence(_) => Vec::new(),
            Target::Clients(_) | Target::Topics(_) => self
                .destinations
                .iter()
                .filter(|(_, destination)| destination.attached().contains(&index))
                .map(|(id, _)| id)
                .collect(),
            one => one.destination().into_iter().collect(),
        }
    }

    fn find_subscription(
        &self,
        session: SessionId,
        wanted: impl Fn(&Target) -> bool,
    ) -> Option<SubscriptionIndex> {
        let held = &self.sessions[session].subscriptions;
        held.iter().copied().find(|index| wanted(&self.subscriptions[*index].target))
    }

    /// The same subscription, where it was made before. In the standard dialect each has an id of
    /// its own, and none is the same.
    fn find_classic_subscription(
        &self,
        session: SessionId,
        wanted: impl Fn(&Target) -> bool,
        standard: &Option<Box<Standard>>,
    ) -> Option<SubscriptionIndex> {
        if standard.is_some() { None } else { self.find_subscription(session, wanted) }
    }

    // -- small questions --------------------------------------------------------------------

    fn login(&self, session: SessionId) -> &[u8] {
        login_of(&self.destinations, &self.sessions[session])
    }

    fn count_fault(&mut self, code: Code) {
        match code {
            Code::SlowConsumer => self.counters.slow_consumers += 1,
            Code::LimitExceeded => self.counters.limit_exceeded += 1,
            Code::MalformedCommand
            | Code::UnknownCommand
            | Code::MalformedHeader
            | Code::MalformedFrame
            | Code::MissingHeader
            | Code::WrongSession => self.counters.protocol_errors += 1,
            Code::InvalidApplicationKey
            | Code::InvalidProfileKey
            | Code::WrongProfile
            | Code::AlreadyLogged
            | Code::UnsupportedVersion
            | Code::UnknownHost => self.counters.logins_refused += 1,
            _ => {}
        }
    }

    /// Checks a login id against the bounds and against what could be mistaken for something else.
    fn check_login(&self, login: &[u8]) -> Result<(), Fault> {
        if login.is_empty() {
            return Err(Fault::missing(Name::Login));
        }
        let max = u64::from(self.limits.login_id_bytes_max);
        if login.len() as u64 > max {
            return Err(Fault::exceeded(Exceeded { limit: "login_id_bytes_max", max }));
        }
        lookalike::check(login).map_err(|fault| Fault::malformed(Name::Login, fault.why()))?;
        if login.eq_ignore_ascii_case(BROKER_DESTINATION) {
            return Err(Fault::malformed(Name::Login, "is the name of the broker itself"));
        }
        if memchr::memmem::find(login, LIST_SEPARATOR).is_some() {
            let why = "holds ]:[, which stands between the parts of a line in lists of clients";
            return Err(Fault::malformed(Name::Login, why));
        }
        Ok(())
    }
}

/// So much of a login id that was refused is shown in the log.
const SHOWN_LOGIN_BYTES: usize = 256;

/// In the lists of classic ACKs.
const LIST_SEPARATOR: &[u8] = b"]:[";

/// Writes an ERROR as its receiver reads it. In the standard dialect it always closes.
fn write_error(
    out: &mut Vec<u8>,
    encoding: Encoding,
    fault: &Fault,
    retry: Option<Retry>,
    receipt: Option<&[u8]>,
) {
    match encoding {
        Encoding::Classic => classic::write_error(out, fault),
        Encoding::Standard(version) => {
            standard::write_error(out, version, fault, retry.unwrap_or(Retry::Never), receipt);
        }
    }
}

/// The login id of a session: the end of its destination's name.
fn login_of<'a>(destinations: &'a DestinationTable, session: &Session) -> &'a [u8] {
    &destinations[session.destination].name[session.profile.destination_prefix().len()..]
}

/// What a client wrote, fit for a sentence: not endless, and without line ends.
fn printable(text: &[u8]) -> Cow<'_, str> {
    const SHOWN_BYTES_MAX: usize = 120;
    let shown = &text[..text.len().min(SHOWN_BYTES_MAX)];
    match String::from_utf8_lossy(shown) {
        clean if !clean.contains(|c: char| c.is_control()) => clean,
        other => Cow::Owned(other.replace(|c: char| c.is_control(), "?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Framing;

    #[test]
    fn a_login_with_a_wrong_key_is_told_and_counted() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (encoding, framing) = (Encoding::Classic, Framing::LengthPrefix);
        let opening = Opening { slot: 0, number: 1, framing, encoding };
        let peer = broker.open_peer(opening);
        let connect = b"CONNECT\nlogin:ana\npasscode:wrong\nsecret-key:app\n\n";
        broker.handle_classic(peer, connect, Moment::default());
        let reason = CloseReason::Refused(Code::InvalidProfileKey);
        let closure = broker.peers.peer(peer).closure().unwrap();
        assert_eq!((closure.reason, closure.retry), (reason, Some(Retry::Never)));
        assert_eq!((broker.counters.logins, broker.counters.logins_refused), (0, 1));
        broker.check_invariants();
    }
}
