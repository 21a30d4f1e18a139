//! What must happen: a model of the broker that is too simple to be wrong in the same way.
//!
//! It is told what the engine read, in the order in which it read it, and says what every client
//! must see. It knows nothing of transports or bytes. Who gets which message of a queue it does not say,
//! but [`Queues`] judges it.

mod queues;
mod standard;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use com_broker::internal::broker::Profile;
use com_broker::limits::Limits;

pub(crate) use self::queues::{DEAD, Fates, Queues};
pub(crate) use self::standard::Ask;
use self::standard::Standard;

/// What a client asks for.
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
        wish: Wish,
        transaction: u64,
    },
    Unsubscribe {
        wish: Option<Wish>,
        transaction: u64,
    },
    Disconnect,
    /// A WebSocket close.
    Close,
    /// What a client of the standard dialect asks for, and the `receipt`.
    Ask(Ask, u64),
    /// Something that is refused with this code, whoever asks for it, and ends the connection.
    Breach(&'static str),
}

/// What is subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Copies of what the client at an address gets.
    Client(String),
    /// Copies of what those get whose addresses one of [`PATTERNS`] matches.
    Clients(usize),
    /// Events of those.
    Presence(usize),
}

/// What a client sees, as far as it matters.
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
    /// The logins that it lists, sorted; the code where it is not `OK`.
    Ack {
        transaction: u64,
        listed: Vec<String>,
        code: Option<String>,
    },
    Error(String),
    /// And its id, in the standard dialect.
    Receipt(Option<String>),
}

/// An event of presence: what, of whom, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) event: String,
    pub(crate) login: String,
    pub(crate) reason: String,
}

/// A regular expression, and the same in a language that cannot be wrong.
type Pattern = (&'static str, fn(&str) -> bool);

/// What clients subscribe to.
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

/// Who is logged in, who subscribed to what, and what each must still see.
pub(crate) struct Model {
    sessions: BTreeMap<String, Session>,
    connections: BTreeMap<Number, Connection>,
    pub(crate) queues: Queues,
    /// When what it is told of happened.
    tick: u64,
    takeovers_max: u32,
    takeover_window_ms: u64,
    is_draining: bool,
}

struct Session {
    connection: Number,
    profile: Profile,
    wishes: Vec<Wish>,
    /// None, where a client of the classic dialect is logged in.
    standard: Option<Standard>,
    takeovers: u32,
    window_ms: u64,
}

#[derive(Default)]
struct Connection {
    login: Option<String>,
    is_closing: bool,
    expected: VecDeque<Seen>,
    /// What waits for COMMIT.
    transaction: Vec<Ask>,
    /// By login: events of different clients have no order between them.
    events: BTreeMap<String, VecDeque<Event>>,
}

impl Model {
    /// Nobody is connected.
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

    /// What is told from here on happened at that time.
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
            (Command::Subscribe { wish, transaction }, Some(login)) => {
                let (listed, code) = self.subscribe(&login, wish);
                let code = code.map(str::to_owned);
                self.expect(number, Seen::Ack { transaction: *transaction, listed, code });
            }
            (Command::Unsubscribe { wish, transaction }, Some(login)) => {
                let listed = self.unsubscribe(&login, wish.as_ref());
                let transaction = *transaction;
                self.expect(number, Seen::Ack { transaction, listed, code: None });
            }
        }
    }

    /// The broker shuts down. In which order it tells its clients, and so which services still hear
    /// of whom, is not specified.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
    }

    /// A connection ends without a word from the broker: its session does, too.
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

    /// Whether it is settled that a connection ends.
    pub(crate) fn is_closing(&self, number: Number) -> bool {
        self.connections[&number].is_closing
    }

    /// Who is logged in on a connection.
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

    /// Takes the next thing that a client must see.
    pub(crate) fn next_expected(&mut self, number: Number) -> Option<Seen> {
        self.connections.get_mut(&number).unwrap().expected.pop_front()
    }

    /// Takes what is expected next of messages that differ by the subscription alone.
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

    /// Takes the next event that a client must hear of that login.
    pub(crate) fn next_event(&mut self, number: Number, login: &str) -> Option<Event> {
        self.connections.get_mut(&number).unwrap().events.get_mut(login)?.pop_front()
    }

    /// What a client must see and has not seen.
    pub(crate) fn missing(&self, number: Number) -> Vec<String> {
        let connection = &self.connections[&number];
        let events = connection.events.values().flatten().map(|event| format!("{event:?}"));
        connection.expected.iter().map(|seen| format!("{seen:?}")).chain(events).collect()
    }

    /// Logs in; `standard` is what a client of the standard dialect begins with.
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

    /// Gives a message to everyone who gets it. Says whether there is such a destination.
    fn deliver(
        &mut self,
        origin: &str,
        destination: &str,
        transaction: Option<u64>,
        body: &str,
    ) -> bool {
        let (origin, body) = (origin.to_owned(), body.to_owned());
        if destination.starts_with("/queue/") {
            self.queues.note_sent(body, destination, self.tick);
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
                && session.wishes.iter().any(|wish| wish.selects(destination))
        };
        let watchers = self.sessions.values().filter(watches).map(|session| session.connection);
        let watchers: Vec<_> = watchers.collect();
        self.expect(first, to_owner);
        watchers.into_iter().for_each(|watcher| self.expect(watcher, message.clone()));
        true
    }

    fn subscribe(&mut self, login: &str, wish: &Wish) -> (Vec<String>, Option<&'static str>) {
        let profile = self.sessions[login].profile;
        let fault = match wish {
            Wish::Presence(_) if profile != Profile::Service => Some("PROF_NO_RIGHTS"),
            Wish::Presence(_) => None,
            _ if !matches!(profile, Profile::SuperAgent | Profile::Service) => {
                Some("PROF_NO_RIGHTS")
            }
            Wish::Client(address) => match self.owner_of(address) {
                None => Some("NO_DESTINATION_SUB"),
                Some(owner) if may_watch(profile, self.sessions[&owner].profile) => None,
                Some(_) => Some("PROF_NO_RIGHTS"),
            },
            Wish::Clients(_) => None,
        };
        if fault.is_some() {
            return (Vec::new(), fault);
        }
        let wishes = &mut self.sessions.get_mut(login).unwrap().wishes;
        if !wishes.contains(wish) {
            wishes.push(wish.clone());
        }
        (self.watched(profile, wish), None)
    }

    fn unsubscribe(&mut self, login: &str, wish: Option<&Wish>) -> Vec<String> {
        let session = self.sessions.get_mut(login).unwrap();
        let profile = session.profile;
        let is_meant = |one: &Wish| wish.is_none_or(|wish| wish == one);
        let (ended, kept) = std::mem::take(&mut session.wishes).into_iter().partition(is_meant);
        session.wishes = kept;
        let ended: Vec<Wish> = ended;
        let mut listed: Vec<_> =
            ended.iter().flat_map(|wish| self.watched(profile, wish)).collect();
        listed.sort();
        listed
    }

    /// Whom a wish selects, of those who are there and may be watched.
    fn watched(&self, watcher: Profile, wish: &Wish) -> Vec<String> {
        let selected = |(login, session): &(&String, &Session)| {
            may_watch(watcher, session.profile) && wish.selects(&address(session.profile, login))
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
        let hears = |wish: &Wish| match wish {
            Wish::Presence(pattern) => PATTERNS[*pattern].1(&name),
            Wish::Client(_) | Wish::Clients(_) => false,
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

impl Wish {
    fn selects(&self, address: &str) -> bool {
        match self {
            Self::Client(name) => name == address,
            Self::Clients(pattern) => PATTERNS[*pattern].1(address),
            Self::Presence(_) => false,
        }
    }
}

/// The table of the protocol.
pub(crate) fn may_watch(watcher: Profile, target: Profile) -> bool {
    match watcher {
        Profile::SuperAgent => target == Profile::Agent,
        Profile::Service => is_public(target),
        Profile::Agent | Profile::Admin => false,
    }
}

/// Agents and super agents yield to a newcomer, and services hear of them.
fn is_public(profile: Profile) -> bool {
    matches!(profile, Profile::Agent | Profile::SuperAgent)
}

/// The address of a client.
pub(crate) fn address(profile: Profile, login: &str) -> String {
    format!("{}{login}", profile.destination_prefix())
}
