//! A model of the broker, so simple that it has other faults than the broker, if any.
//!
//! Its input are the frames that the engine reads, in that order; its output is what every client has to
//! see. It does not know transports or bytes. It does not predict which consumer gets a message of a
//! queue; [`Queues`] judges that.

mod queues;
mod standard;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use com_broker::internal::broker::Profile;
use com_broker::limits::Limits;

pub(crate) use self::queues::{DEAD, Fates, Queues};
pub(crate) use self::standard::Ask;
use self::standard::Standard;

/// A frame of a client.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Connect {
        login: String,
        profile: Profile,
    },
    Send {
        destination: String,
        transaction: Option<u64>,
        body: String,
    },
    Subscribe {
        target: Target,
        transaction: u64,
    },
    Unsubscribe {
        target: Option<Target>,
        transaction: u64,
    },
    Disconnect,
    /// A WebSocket close.
    Close,
    /// A request of a client of the standard dialect, and its `receipt`.
    Ask(Ask, u64),
    /// A violation that is refused with this code and ends the connection.
    Breach(&'static str),
}

/// The target of a classic subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Copies of messages to the client at an address.
    Client(String),
    /// Copies of messages to the clients whose addresses one of [`PATTERNS`] matches.
    Clients(usize),
    /// Presence events of these clients.
    Presence(usize),
}

/// A frame that a client sees, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Connected {
        login: String,
        profile: &'static str,
    },
    Message {
        transaction: Option<u64>,
        origin: String,
        body: String,
    },
    /// Messages of the standard dialect with the same content, one by each subscription.
    Copies {
        subscriptions: BTreeSet<String>,
        origin: String,
        body: String,
    },
    /// The sorted logins in its list; the code if it is not `OK`.
    Ack {
        transaction: u64,
        listed: Vec<String>,
        code: Option<String>,
    },
    Error(String),
    /// With its id in the standard dialect.
    Receipt(Option<String>),
}

/// A presence event: what, of whom, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) event: String,
    pub(crate) login: String,
    pub(crate) reason: String,
}

/// A regular expression, and an equivalent function.
type Pattern = (&'static str, fn(&str) -> bool);

/// The regular expressions that clients subscribe to.
pub(crate) const PATTERNS: [Pattern; 5] = [
    (".*", |_| true),
    ("/agent/.*", |name| name.starts_with("/agent/")),
    ("/agent/[a-d].*", |name| {
        name.strip_prefix("/agent/").is_some_and(|login| login.starts_with(['a', 'b', 'c', 'd']))
    }),
    ("/(agent|service)/bob", |name| matches!(name, "/agent/bob" | "/service/bob")),
    ("agent", |_| false),
];

/// A connection, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(pub(crate) u64);

/// The sessions, their subscriptions, and the frames that each client has still to see.
pub(crate) struct Model {
    sessions: BTreeMap<String, Session>,
    connections: BTreeMap<Number, Connection>,
    pub(crate) queues: Queues,
    /// The tick of the current input.
    tick: u64,
    takeovers_max: u32,
    takeover_window_ms: u64,
    is_draining: bool,
}

struct Session {
    connection: Number,
    profile: Profile,
    wishes: Vec<Target>,
    /// `None` for a client of the classic dialect.
    standard: Option<Standard>,
    takeovers: u32,
    window_ms: u64,
}

#[derive(Default)]
struct Connection {
    login: Option<String>,
    is_closing: bool,
    expected: VecDeque<Seen>,
    /// Requests that wait for COMMIT.
    transaction: Vec<Ask>,
    /// By login, since events of different clients have no order.
    events: BTreeMap<String, VecDeque<Event>>,
}

impl Model {
    /// A broker without connections.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            queues: Queues::default(),
            tick: 0,
            takeovers_max: limits.takeovers_max,
            takeover_window_ms: u64::from(limits.takeover_window_ms),
            is_draining: false,
        }
    }

    /// A connection was accepted.
    pub(crate) fn open(&mut self, number: Number) {
        self.connections.insert(number, Connection::default());
    }

    /// Sets the tick of further inputs.
    pub(crate) fn set_tick(&mut self, tick: u64) {
        self.tick = tick;
    }

    /// A frame was read.
    pub(crate) fn handle(&mut self, number: Number, command: &Command, now_ms: u64) {
        if self.is_closing(number) {
            return;
        }
        let login = self.connections[&number].login.clone();
        match (command, login) {
            (Command::Close, _) => self.end(number, "closed"),
            (Command::Breach(code), _) => self.refuse(number, code),
            (Command::Connect { login, profile }, None) => {
                self.connect(number, (login, *profile), None, now_ms);
            }
            (Command::Ask(ask, receipt), login) => {
                self.answer(number, login, ask, *receipt, now_ms)
            }
            (Command::Connect { .. }, Some(_)) => self.refuse(number, "LOGIN_ID_ALREADY_LOGGED"),
            (_, None) => self.refuse(number, "NOT_LOGGED_IN"),
            (Command::Disconnect, Some(_)) => {
                self.expect(number, Seen::Receipt(None));
                self.end(number, "logout");
            }
            (Command::Send { destination, transaction, body }, Some(login)) => {
                self.send(number, &login, destination, *transaction, body);
            }
            (Command::Subscribe { target, transaction }, Some(login)) => {
                let (listed, code) = self.subscribe(&login, target);
                let code = code.map(str::to_owned);
                self.expect(number, Seen::Ack { transaction: *transaction, listed, code });
            }
            (Command::Unsubscribe { target, transaction }, Some(login)) => {
                let listed = self.unsubscribe(&login, target.as_ref());
                let transaction = *transaction;
                self.expect(number, Seen::Ack { transaction, listed, code: None });
            }
        }
    }

    /// The broker drains. The order in which it notifies clients, and so the presence events that
    /// services still get, are not specified.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
    }

    /// A connection ends without an ERROR, and its session with it.
    pub(crate) fn end(&mut self, number: Number, reason: &str) {
        if self.is_closing(number) {
            return;
        }
        let connection = self.connections.get_mut(&number).unwrap();
        connection.is_closing = true;
        self.queues.note_end(number, self.tick);
        if let Some(login) = connection.login.take() {
            self.publish("disconnected", &login, reason);
            self.publish("logout", &login, reason);
            self.sessions.remove(&login);
        }
    }

    /// A connection ends with an ERROR.
    pub(crate) fn end_with_error(&mut self, number: Number, code: &str, reason: &str) {
        if !self.is_closing(number) {
            self.expect(number, Seen::Error(code.to_owned()));
            self.end(number, reason);
        }
    }

    /// Whether a connection is closing.
    pub(crate) fn is_closing(&self, number: Number) -> bool {
        self.connections[&number].is_closing
    }

    /// The login on a connection.
    pub(crate) fn login_of(&self, number: Number) -> Option<&str> {
        self.connections[&number].login.as_deref()
    }

    /// The number of sessions.
    pub(crate) fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// The number of subscriptions.
    pub(crate) fn subscriptions_len(&self) -> usize {
        let len = |session: &Session| {
            let standard = session.standard.as_ref().map_or(0, Standard::subscriptions_len);
            session.wishes.len() + standard
        };
        self.sessions.values().map(len).sum()
    }

    /// Takes the next frame that a client has to see.
    pub(crate) fn next_expected(&mut self, number: Number) -> Option<Seen> {
        self.connections.get_mut(&number).unwrap().expected.pop_front()
    }

    /// Takes a copy out of the expected messages that differ in the subscription alone.
    pub(crate) fn take_copy(&mut self, number: Number, found: &Seen) -> bool {
        let expected = &mut self.connections.get_mut(&number).unwrap().expected;
        let Seen::Copies { subscriptions: of, origin, body } = found else { return false };
        let Some(Seen::Copies { subscriptions, origin: from, body: text }) = expected.front_mut()
        else {
            return false;
        };
        let is_same =
            origin == from && body == text && of.iter().all(|id| subscriptions.remove(id));
        if is_same && subscriptions.is_empty() {
            expected.pop_front();
        }
        is_same
    }

    /// Takes the next presence event of a login that a client has to see.
    pub(crate) fn next_event(&mut self, number: Number, login: &str) -> Option<Event> {
        self.connections.get_mut(&number).unwrap().events.get_mut(login)?.pop_front()
    }

    /// The frames that a client has not seen yet.
    pub(crate) fn missing(&self, number: Number) -> Vec<String> {
        let connection = &self.connections[&number];
        let events = connection.events.values().flatten().map(|event| format!("{event:?}"));
        connection.expected.iter().map(|seen| format!("{seen:?}")).chain(events).collect()
    }

    /// Logs in; `standard` is the initial state of a client of the standard dialect.
    fn connect(
        &mut self,
        number: Number,
        (login, profile): (&str, Profile),
        standard: Option<Standard>,
        now_ms: u64,
    ) {
        if let Some(session) = self.sessions.get_mut(login) {
            if !is_public(session.profile) {
                return self.refuse(number, "LOGIN_ID_ALREADY_LOGGED");
            }
            if session.profile != profile {
                return self.refuse(number, "WRONG_PROFILE_REGISTERED");
            }
            if now_ms - session.window_ms >= self.takeover_window_ms {
                session.window_ms = now_ms;
                session.takeovers = 0;
            }
            if session.takeovers >= self.takeovers_max {
                return self.refuse(number, "LOGIN_ID_ALREADY_LOGGED");
            }
            session.takeovers += 1;
            let older = std::mem::replace(&mut session.connection, number);
            session.standard = match (session.standard.take(), standard) {
                (Some(earlier), Some(newer)) => Some(newer.resume(earlier)),
                (_, standard) => standard,
            };
            self.queues.note_end(older, self.tick);
            self.publish("disconnected", login, "taken-over");
            self.expect(older, Seen::Error("NEW_CONNECTION_LOGGED".to_owned()));
            let older = self.connections.get_mut(&older).unwrap();
            older.is_closing = true;
            older.login = None;
            self.publish("logged", login, "takeover");
        } else {
            let session = Session {
                connection: number,
                profile,
                wishes: Vec::new(),
                standard,
                takeovers: 0,
                window_ms: 0,
            };
            self.sessions.insert(login.to_owned(), session);
            self.publish("logged", login, "login");
        }
        self.connections.get_mut(&number).unwrap().login = Some(login.to_owned());
        let seen = Seen::Connected { login: login.to_owned(), profile: profile.code() };
        self.expect(number, seen);
    }

    fn send(
        &mut self,
        number: Number,
        origin: &str,
        destination: &str,
        transaction: Option<u64>,
        body: &str,
    ) {
        if !self.deliver(origin, destination, transaction, body) {
            return self.expect(number, Seen::Error("NO_SUCH_DESTINATION".to_owned()));
        }
        if let Some(transaction) = transaction {
            self.expect(number, Seen::Ack { transaction, listed: Vec::new(), code: None });
        }
    }

    /// Delivers a message to all receivers. Returns whether the destination exists.
    fn deliver(
        &mut self,
        origin: &str,
        destination: &str,
        transaction: Option<u64>,
        body: &str,
    ) -> bool {
        let (origin, body) = (origin.to_owned(), body.to_owned());
        if destination.starts_with("/queue/") {
            self.queues.note_sent(body, origin, destination, self.tick);
            return true;
        }
        if destination.starts_with("/topic/") {
            self.deliver_to_topic(origin, destination, body);
            return true;
        }
        let Some(owner) = self.owner_of(destination) else { return false };
        let session = &self.sessions[&owner];
        let (owner_profile, first) = (session.profile, session.connection);
        let message = Seen::Message { transaction, origin: origin.clone(), body: body.clone() };
        let to_owner = match &session.standard {
            None => message.clone(),
            Some(standard) => match standard.hear(destination) {
                subscriptions if subscriptions.is_empty() => return false,
                subscriptions => Seen::Copies { subscriptions, origin, body },
            },
        };
        let watches = |session: &&Session| {
            may_watch(session.profile, owner_profile)
                && session.wishes.iter().any(|target| target.selects(destination))
        };
        let watchers = self.sessions.values().filter(watches).map(|session| session.connection);
        let watchers: Vec<_> = watchers.collect();
        self.expect(first, to_owner);
        watchers.into_iter().for_each(|watcher| self.expect(watcher, message.clone()));
        true
    }

    fn subscribe(&mut self, login: &str, target: &Target) -> (Vec<String>, Option<&'static str>) {
        let profile = self.sessions[login].profile;
        let fault = match target {
            Target::Presence(_) if profile != Profile::Service => Some("PROF_NO_RIGHTS"),
            Target::Presence(_) => None,
            _ if !matches!(profile, Profile::SuperAgent | Profile::Service) => {
                Some("PROF_NO_RIGHTS")
            }
            Target::Client(address) => match self.owner_of(address) {
                None => Some("NO_DESTINATION_SUB"),
                Some(owner) if may_watch(profile, self.sessions[&owner].profile) => None,
                Some(_) => Some("PROF_NO_RIGHTS"),
            },
            Target::Clients(_) => None,
        };
        if fault.is_some() {
            return (Vec::new(), fault);
        }
        let wishes = &mut self.sessions.get_mut(login).unwrap().wishes;
        if !wishes.contains(target) {
            wishes.push(target.clone());
        }
        (self.watched(profile, target), None)
    }

    fn unsubscribe(&mut self, login: &str, target: Option<&Target>) -> Vec<String> {
        let session = self.sessions.get_mut(login).unwrap();
        let profile = session.profile;
        let is_meant = |one: &Target| target.is_none_or(|target| target == one);
        let (ended, kept) = std::mem::take(&mut session.wishes).into_iter().partition(is_meant);
        session.wishes = kept;
        let ended: Vec<Target> = ended;
        let mut listed: Vec<_> =
            ended.iter().flat_map(|target| self.watched(profile, target)).collect();
        listed.sort();
        listed
    }

    /// The logins that a target selects among those that the watcher may watch.
    fn watched(&self, watcher: Profile, target: &Target) -> Vec<String> {
        let selected = |(login, session): &(&String, &Session)| {
            may_watch(watcher, session.profile) && target.selects(&address(session.profile, login))
        };
        self.sessions.iter().filter(selected).map(|(login, _)| login.clone()).collect()
    }

    fn owner_of(&self, destination: &str) -> Option<String> {
        let is_at =
            |(login, session): &(&String, &Session)| address(session.profile, login) == destination;
        self.sessions.iter().find(is_at).map(|(login, _)| login.clone())
    }

    fn publish(&mut self, event: &str, login: &str, reason: &str) {
        let profile = self.sessions[login].profile;
        if self.is_draining || !is_public(profile) {
            return;
        }
        let name = address(profile, login);
        let hears = |target: &Target| match target {
            Target::Presence(pattern) => PATTERNS[*pattern].1(&name),
            Target::Client(_) | Target::Clients(_) => false,
        };
        let event =
            Event { event: event.to_owned(), login: login.to_owned(), reason: reason.to_owned() };
        for session in self.sessions.values().filter(|one| one.wishes.iter().any(hears)) {
            let connection = self.connections.get_mut(&session.connection).unwrap();
            connection.events.entry(login.to_owned()).or_default().push_back(event.clone());
        }
    }

    fn refuse(&mut self, number: Number, code: &str) {
        self.expect(number, Seen::Error(code.to_owned()));
        self.end(number, "refused");
    }

    fn expect(&mut self, number: Number, seen: Seen) {
        let connection = self.connections.get_mut(&number).unwrap();
        if !connection.is_closing {
            connection.expected.push_back(seen);
        }
    }
}

impl Target {
    fn selects(&self, address: &str) -> bool {
        match self {
            Self::Client(name) => name == address,
            Self::Clients(pattern) => PATTERNS[*pattern].1(address),
            Self::Presence(_) => false,
        }
    }
}

/// The rule of `docs/protocol.md`.
pub(crate) fn may_watch(watcher: Profile, target: Profile) -> bool {
    match watcher {
        Profile::SuperAgent => target == Profile::Agent,
        Profile::Service => is_public(target),
        Profile::Agent | Profile::Admin => false,
    }
}

/// Whether a profile can be taken over and has presence events: agents and super agents.
fn is_public(profile: Profile) -> bool {
    matches!(profile, Profile::Agent | Profile::SuperAgent)
}

/// The address of a client.
pub(crate) fn address(profile: Profile, login: &str) -> String {
    format!("{}{login}", profile.destination_prefix())
}
