//! The broker: who is logged in, who watches whom, and what each gets.
//!
//! It is a plain value. Frames come in by [`Broker::handle_classic`], encoded frames go out through
//! the queues of [`Peers`], and time is an argument. It does not know that transports, sockets or
//! clocks exist.

use std::borrow::Cow;

pub mod destination;
pub mod fault;
pub mod keys;
pub mod peer;
pub mod profile;
pub mod session;
pub mod subscription;

mod classic;
mod presence;

use self::destination::{DestinationId, DestinationTable};
pub use self::fault::{CloseReason, Code, Fault, Options, Retry};
pub use self::keys::{KeyFault, Keys};
use self::peer::{Closure, Opening, PeerId, PeerState, Peers};
use self::presence::Event;
pub use self::profile::Profile;
use self::session::{Session, SessionId, SessionTable};
use self::subscription::{Pattern, Subscription, SubscriptionIndex, SubscriptionTable, Target};
use crate::limits::{Exceeded, Limits};
use crate::stomp::Name;
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
    entropy: Box<dyn FnMut() -> u128>,
    sessions: SessionTable,
    destinations: DestinationTable,
    subscriptions: SubscriptionTable,
    /// Where frames are encoded before they are queued.
    scratch: Vec<u8>,
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
            entropy: options.entropy,
            sessions: SessionTable::default(),
            destinations: DestinationTable::default(),
            subscriptions: SubscriptionTable::default(),
            scratch: Vec::new(),
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

    /// Tells a client what is wrong and, where the fault says so, ends its session and closes its
    /// connection.
    pub fn refuse(&mut self, peer: PeerId, fault: &Fault, now: Moment) {
        self.count_fault(fault.code);
        let frame = classic::error_frame(&mut self.scratch, fault);
        if fault.retry.is_none() {
            self.peers.push(peer, frame);
            return;
        }
        let reason = CloseReason::Refused(fault.code);
        self.end_session(peer, reason, now);
        if fault.code == Code::SlowConsumer {
            self.peers.discard_unsent(peer);
        }
        self.peers.push_last(peer, Some(frame), Closure { reason });
    }

    /// Ends a connection's session without a word; it still gets what is queued.
    pub fn end_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        self.end_session(peer, reason, now);
        self.peers.push_last(peer, None, Closure { reason });
    }

    /// Forgets a connection, and ends the session on it if there still is one.
    pub fn close_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        self.end_session(peer, reason, now);
        self.peers.close(peer);
    }

    /// Closes the connections whose queues have been too full for too long. Ask after flushing.
    pub fn cut_slow_consumers(&mut self, now: Moment) {
        for peer in self.peers.take_overflowing(now.ms()) {
            let fault = Fault::closing(
                Code::SlowConsumer,
                Retry::Now,
                format!(
                    "{} bytes are queued for you, more than you may leave unread",
                    self.peers.peer(peer).queue.bytes()
                ),
            );
            self.refuse(peer, &fault, now);
        }
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

    /// The login id of the client that was logged in on a connection, once it no longer is.
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
            assert!(!destination.is_unused(), "a destination that nothing keeps in being");
            if let Some(owner) = destination.owner {
                assert_eq!(self.sessions[owner].destination, id);
            }
            assert_eq!(destination.routes(), self.routes_to(id), "routes are what they should be");
        }
        let held: usize = self.sessions.iter().map(|(_, one)| one.subscriptions.len()).sum();
        assert_eq!(held, self.subscriptions.len(), "subscriptions that are no session's");
        let connected = self.peers.iter().filter(|(_, peer)| peer.session().is_some()).count();
        assert_eq!(connected, self.sessions.len(), "sessions and connections that carry them");
    }

    // -- login and logout -------------------------------------------------------------------

    /// Opens a session on a connection, or moves one there, or says why not.
    fn log_in(
        &mut self,
        peer: PeerId,
        login: &[u8],
        profile: Profile,
        now: Moment,
    ) -> Result<SessionId, Fault> {
        let destinations = &self.destinations;
        if let Some(session) = self.sessions.find(login, |s| login_of(destinations, s)) {
            self.take_over(session, peer, profile, now)?;
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
        let frame = classic::error_frame(&mut self.scratch, &fault);
        self.peers.push_last(older, Some(frame), Closure { reason });
        self.attach(session, newcomer);
        self.counters.takeovers += 1;
        self.publish_presence(Event::Logged, session, "takeover", now);
        Ok(())
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
        self.sessions[session].peer = peer;
        let profile = self.sessions[session].profile;
        self.peers.set_limits(peer, self.limits.outbound[profile as usize]);
        self.peers.peer_mut(peer).state = PeerState::Connected(session);
    }

    /// Ends the session on a connection, if there is one. The connection stays.
    fn end_session(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        let Some(id) = self.peers.peer(peer).session() else { return };
        self.publish_presence(Event::Disconnected, id, reason.presence_word(), now);
        self.publish_presence(Event::Logout, id, reason.presence_word(), now);
        for index in std::mem::take(&mut self.sessions[id].subscriptions) {
            self.end_subscription(index);
        }
        let login = login_of(&self.destinations, &self.sessions[id]);
        self.peers.peer_mut(peer).past_login = Some(String::from_utf8_lossy(login).into());
        let session = self.sessions.remove(id, login);
        self.peers.peer_mut(peer).state = PeerState::AwaitingConnect;
        self.destinations[session.destination].owner = None;
        self.rebuild_routes(session.destination);
        self.remove_destination_if_unused(session.destination);
    }

    // -- destinations and subscriptions -----------------------------------------------------

    /// The destination with that name; a new one is attached to every pattern that selects it.
    fn find_or_make_destination(&mut self, name: &[u8]) -> Result<DestinationId, Fault> {
        if let Some(found) = self.destinations.find(name, None) {
            return Ok(found);
        }
        let max = u64::from(self.limits.destinations_max);
        if self.destinations.len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "destinations_max", max }));
        }
        let made = self.destinations.insert(name);
        let attached = self.subscriptions.matching(name);
        if !attached.is_empty() {
            self.destinations[made].watch.get_or_insert_default().attached = attached;
        }
        Ok(made)
    }

    fn remove_destination_if_unused(&mut self, id: DestinationId) {
        if self.destinations[id].is_unused() {
            self.destinations.remove(id);
        }
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

    /// The sessions that get copies of what is sent to a destination: those that subscribed and may
    /// watch whoever is there now. Each gets one copy, by however many subscriptions.
    fn routes_to(&self, id: DestinationId) -> Vec<SessionId> {
        let destination = &self.destinations[id];
        let Some(owner) = destination.owner else { return Vec::new() };
        let owner = self.sessions[owner].profile;
        let mut routes = Vec::new();
        for index in destination.attached() {
            let watcher = self.subscriptions[*index].session;
            if self.sessions[watcher].profile.may_watch(owner) && !routes.contains(&watcher) {
                routes.push(watcher);
            }
        }
        routes
    }

    /// Watches one client, which must be logged in.
    fn watch_client(
        &mut self,
        watcher: SessionId,
        name: &[u8],
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
        if let Some(held) = self.find_subscription(watcher, same) {
            return Ok(held);
        }
        let index = self.begin_subscription(watcher, Target::Client(destination))?;
        let watch = self.destinations[destination].watch.get_or_insert_default();
        watch.attached.push(index);
        watch.direct += 1;
        self.rebuild_routes(destination);
        Ok(index)
    }

    /// Watches every client, present and future, whose destination matches.
    fn watch_clients(
        &mut self,
        watcher: SessionId,
        text: &[u8],
    ) -> Result<SubscriptionIndex, Fault> {
        let same = |one: &Target| matches!(one, Target::Clients(held) if held.text() == text);
        if let Some(held) = self.find_subscription(watcher, same) {
            return Ok(held);
        }
        let pattern = self.compile(text)?;
        let selected: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, destination)| pattern.matches(&destination.name))
            .map(|(id, _)| id)
            .collect();
        let index = self.begin_subscription(watcher, Target::Clients(pattern))?;
        for id in selected {
            self.destinations[id].watch.get_or_insert_default().attached.push(index);
            self.rebuild_routes(id);
        }
        Ok(index)
    }

    fn compile(&self, text: &[u8]) -> Result<Pattern, Fault> {
        let max = u64::from(self.limits.patterns_max);
        if self.subscriptions.patterns_len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "patterns_max", max }));
        }
        Pattern::compile(text, &self.limits)
    }

    fn begin_subscription(
        &mut self,
        session: SessionId,
        target: Target,
    ) -> Result<SubscriptionIndex, Fault> {
        let max = u64::from(self.limits.subscriptions_per_session_max);
        if self.sessions[session].subscriptions.len() as u64 >= max {
            let limit = "subscriptions_per_session_max";
            return Err(Fault::exceeded(Exceeded { limit, max }));
        }
        let index = self.subscriptions.insert(Subscription { session, target });
        self.sessions[session].subscriptions.push(index);
        Ok(index)
    }

    /// Ends a subscription that its session no longer lists.
    fn end_subscription(&mut self, index: SubscriptionIndex) {
        let selected = self.destinations_of(index);
        let subscription = self.subscriptions.remove(index);
        for id in selected {
            if let Some(watch) = &mut self.destinations[id].watch {
                watch.attached.retain(|other| *other != index);
                watch.direct -= u32::from(matches!(subscription.target, Target::Client(_)));
            }
            self.rebuild_routes(id);
            self.remove_destination_if_unused(id);
        }
    }

    /// The destinations that a subscription is attached to.
    fn destinations_of(&self, index: SubscriptionIndex) -> Vec<DestinationId> {
        match &self.subscriptions[index].target {
            Target::Client(id) => vec![*id],
            Target::Clients(_) => self
                .destinations
                .iter()
                .filter(|(_, destination)| destination.attached().contains(&index))
                .map(|(id, _)| id)
                .collect(),
            Target::Presence(_) => Vec::new(),
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
        let Ok(text) = std::str::from_utf8(login) else {
            return Err(Fault::malformed(Name::Login, "is not UTF-8"));
        };
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Fault::malformed(Name::Login, "holds a control character"));
        }
        Ok(())
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
