//! The receivers of messages and of presence events: the tables of subscriptions, destinations and groups,
//! against plain lists that are searched for each message.
//!
//! Clients of both dialects log in and out and take sessions over, so that slots of tables are reused; they
//! subscribe to topics by name and by wildcards, to their own address, to other clients by name and by regular
//! expression, and to presence.

use std::collections::BTreeSet;

use com_broker::internal::broker::Profile::{self, Agent, Service, SuperAgent};
use com_broker::limits::Limits;
use proptest::prelude::*;
use proptest::sample::Index;

use super::stage::{Frame, Stage, Who};
use crate::model::may_watch;

/// All logins.
const LOGINS: [(&str, Profile); 6] = [
    ("ana", Agent),
    ("bob", Agent),
    ("sam", SuperAgent),
    ("sid", SuperAgent),
    ("sue", Service),
    ("tom", Service),
];

const TOPICS: [&str; 7] = [
    "/topic/a",
    "/topic/a/b",
    "/topic/a.c",
    "/topic/b/c",
    "/topic/b/c/d",
    "/topic/c++",
    "/topic/many/3",
];

/// A wildcard or a regular expression, and an equivalent function.
type Pattern = (&'static str, fn(&str) -> bool);

/// Topics without and with wildcards. Two differ in their separators only.
const TOPIC_PATTERNS: [Pattern; 11] = [
    ("/topic/a", |name| name == "/topic/a"),
    ("/topic/a/b", |name| name == "/topic/a/b"),
    ("/topic/c++", |name| name == "/topic/c++"),
    ("/topic/a/*", |name| matches!(name, "/topic/a/b" | "/topic/a.c")),
    ("/topic/a.*", |name| matches!(name, "/topic/a/b" | "/topic/a.c")),
    ("/topic/*/c", |name| matches!(name, "/topic/a.c" | "/topic/b/c")),
    ("/topic/*", |name| matches!(name, "/topic/a" | "/topic/c++")),
    ("/topic/a/>", |name| matches!(name, "/topic/a/b" | "/topic/a.c")),
    ("/topic/*/c/>", |name| name == "/topic/b/c/d"),
    ("/topic/many/*", |name| name.starts_with("/topic/many/")),
    ("/topic/>", |_| true),
];

/// Regular expressions on addresses; topics match none of them.
const ADDRESS_PATTERNS: [Pattern; 5] = [
    (".*", |_| true),
    ("/agent/(ana|sam)", |name| matches!(name, "/agent/ana" | "/agent/sam")),
    ("/agent/s.+", |name| name.starts_with("/agent/s")),
    ("/agent/ana", |name| name == "/agent/ana"),
    ("ana", |_| false),
];

#[derive(Clone, Debug)]
enum Step {
    Join { login: Index, manner: Manner },
    Leave { login: Index, is_loss: bool },
    Subscribe { login: Index, what: What, of: Index },
    Unsubscribe { login: Index, which: Index, is_all: bool },
    Send { from: Index, to: Index },
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Classic,
    Standard { has_inbox: bool, resumes: bool },
}

#[derive(Clone, Copy, Debug)]
enum What {
    Topic,
    /// More topics than are searched one by one.
    ManyTopics,
    Own,
    Client,
    Clients,
    Presence {
        has_snapshot: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let manner = prop_oneof![
        2 => Just(Manner::Classic),
        3 => (any::<bool>(), any::<bool>())
            .prop_map(|(has_inbox, resumes)| Manner::Standard { has_inbox, resumes }),
    ];
    let what = prop_oneof![
        6 => Just(What::Topic),
        1 => Just(What::ManyTopics),
        1 => Just(What::Own),
        3 => Just(What::Client),
        4 => Just(What::Clients),
        2 => any::<bool>().prop_map(|has_snapshot| What::Presence { has_snapshot }),
    ];
    prop_oneof![
        4 => (index(), manner).prop_map(|(login, manner)| Step::Join { login, manner }),
        1 => (index(), any::<bool>()).prop_map(|(login, is_loss)| Step::Leave { login, is_loss }),
        8 => (index(), what, index())
            .prop_map(|(login, what, of)| Step::Subscribe { login, what, of }),
        3 => (index(), index(), prop::bool::weighted(0.1))
            .prop_map(|(login, which, is_all)| Step::Unsubscribe { login, which, is_all }),
        7 => (index(), index()).prop_map(|(from, to)| Step::Send { from, to }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn messages_go_to_the_receivers_that_a_plain_list_gives(steps in prop::collection::vec(step(), 1..80)) {
        let mut house = House::new();
        steps.iter().for_each(|step| house.play(step));
    }
}

struct House {
    stage: Stage,
    /// By index in [`LOGINS`].
    clients: [Option<Client>; LOGINS.len()],
    last_id: u32,
}

struct Client {
    who: Who,
    is_classic: bool,
    has_inbox: bool,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    /// None in the classic dialect.
    id: Option<String>,
    is_inherited: bool,
    target: Target,
}

/// Patterns are indices in the tables above.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Topics(usize),
    Many(usize),
    Own,
    Client(usize),
    Clients(usize),
    Presence(usize),
}

/// A MESSAGE that a client gets: the client, the subscription if it has an id, and what it is about.
type Copied = (usize, String, String);

impl House {
    fn new() -> Self {
        let limits = Limits { idle_topics_max: 2, takeovers_max: 1000, ..Limits::default() };
        Self { stage: Stage::new(limits), clients: Default::default(), last_id: 0 }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Join { login, manner } => self.join(login.index(LOGINS.len()), *manner),
            Step::Leave { login, is_loss } => self.leave(login.index(LOGINS.len()), *is_loss),
            Step::Subscribe { login, what, of } => {
                self.subscribe(login.index(LOGINS.len()), *what, of);
            }
            Step::Unsubscribe { login, which, is_all } => {
                self.unsubscribe(login.index(LOGINS.len()), which, *is_all);
            }
            Step::Send { from, to } => self.send(from.index(LOGINS.len()), to),
        }
    }

    fn join(&mut self, at: usize, manner: Manner) {
        let (login, profile) = LOGINS[at];
        let older = self.clients[at].take();
        if older.is_some() && profile == Service {
            self.clients[at] = older;
            return;
        }
        let mut expected = BTreeSet::new();
        if older.is_some() {
            expected.extend(self.events("disconnected", at));
        }
        expected.extend(self.events("logged", at));
        let (who, has_inbox) = match manner {
            Manner::Classic => (self.stage.join_classic(login, profile), true),
            Manner::Standard { has_inbox, resumes } => {
                let more = format!("accept-version:1.2\ninbox:{has_inbox}\nresume:{resumes}\n");
                (self.stage.join_with(login, profile, &more), has_inbox)
            }
        };
        let is_classic = matches!(manner, Manner::Classic);
        let subscriptions = older.map(|older| inherit(older, manner)).unwrap_or_default();
        self.clients[at] = Some(Client { who, is_classic, has_inbox, subscriptions });
        assert_eq!(self.heard(), expected, "{login} logged in");
    }

    fn leave(&mut self, at: usize, is_loss: bool) {
        let Some(client) = self.clients[at].take() else { return };
        let expected: BTreeSet<_> =
            ["disconnected", "logout"].iter().flat_map(|event| self.events(event, at)).collect();
        if is_loss {
            self.stage.lose(client.who);
        } else if client.is_classic {
            self.stage.say_classic(client.who, "DISCONNECT\nreceipt-id:1\n\n");
        } else {
            self.stage.ask(client.who, "DISCONNECT\n\n");
        }
        assert_eq!(self.heard(), expected, "{} left", LOGINS[at].0);
    }

    fn subscribe(&mut self, at: usize, what: What, of: &Index) {
        let profile = LOGINS[at].1;
        let Some(client) = &self.clients[at] else { return };
        let targets = match what {
            What::Topic => vec![Target::Topics(of.index(TOPIC_PATTERNS.len()))],
            What::ManyTopics => (0..12).map(Target::Many).collect(),
            // A classic client has it anyway.
            What::Own if client.is_classic => return,
            What::Own => vec![Target::Own],
            What::Client => {
                let other = of.index(LOGINS.len());
                if !may_watch(profile, LOGINS[other].1) || self.clients[other].is_none() {
                    return;
                }
                vec![Target::Client(other)]
            }
            What::Clients if profile == Agent => return,
            What::Clients => vec![Target::Clients(of.index(ADDRESS_PATTERNS.len()))],
            What::Presence { .. } if profile != Service => return,
            What::Presence { .. } => vec![Target::Presence(of.index(ADDRESS_PATTERNS.len()))],
        };
        let has_snapshot = matches!(what, What::Presence { has_snapshot: true });
        for target in targets {
            self.subscribe_to(at, target, has_snapshot);
        }
    }

    fn subscribe_to(&mut self, at: usize, target: Target, has_snapshot: bool) {
        let client = self.clients[at].as_mut().unwrap();
        let mut lines = target.lines(at);
        if has_snapshot {
            lines.push_str("snapshot:true\n");
        }
        let mut id = None;
        if client.is_classic {
            if !client.subscriptions.iter().any(|one| one.target == target) {
                let new = Subscription { id: None, is_inherited: false, target: target.clone() };
                client.subscriptions.push(new);
            }
            let kind = u8::from(matches!(target, Target::Clients(_)));
            let more = format!("destination-type:{kind}\ntransaction:1\n");
            self.stage.say_classic(client.who, &format!("SUBSCRIBE\n{lines}{more}\n"));
        } else {
            self.last_id += 1;
            id = Some(self.last_id.to_string());
            let name = target.name(at);
            client.subscriptions.retain(|one| !(one.is_inherited && one.target.name(at) == name));
            let new = Subscription { id: id.clone(), is_inherited: false, target: target.clone() };
            client.subscriptions.push(new);
            if matches!(target, Target::Clients(_)) {
                lines.push_str("destination-type:1\n");
            }
            self.stage.ask(client.who, &format!("SUBSCRIBE\nid:{}\n{lines}\n", self.last_id));
        }
        let mut expected = BTreeSet::new();
        if has_snapshot && let Target::Presence(pattern) = target {
            let present = (0..LOGINS.len()).filter(|other| self.clients[*other].is_some());
            let meant = present.filter(|other| is_announced(*other, pattern));
            let id = id.unwrap_or_default();
            expected.extend(meant.map(|other| (at, id.clone(), about("logged", other))));
        }
        assert_eq!(self.heard(), expected, "{} subscribed to {target:?}", LOGINS[at].0);
    }

    fn unsubscribe(&mut self, at: usize, which: &Index, is_all: bool) {
        let Some(client) = &mut self.clients[at] else { return };
        if client.subscriptions.is_empty() {
            return;
        }
        let which = which.index(client.subscriptions.len());
        if let Some(id) = client.subscriptions[which].id.clone() {
            client.subscriptions.remove(which);
            self.stage.ask(client.who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
        } else if is_all {
            client.subscriptions.clear();
            self.stage.say_classic(client.who, "UNSUBSCRIBE\ntransaction:1\n\n");
        } else {
            let target = client.subscriptions[which].target.clone();
            let (name, events) = (target.name(at), target.events());
            let is_meant =
                |one: &Subscription| one.target.name(at) == name && one.target.events() == events;
            client.subscriptions.retain(|one| !is_meant(one));
            let lines = target.lines(at);
            self.stage.say_classic(client.who, &format!("UNSUBSCRIBE\n{lines}transaction:1\n\n"));
        }
        assert_eq!(self.heard(), BTreeSet::new());
    }

    fn send(&mut self, from: usize, to: &Index) {
        let Some(sender) = &self.clients[from] else { return };
        let (sender, is_classic) = (sender.who, sender.is_classic);
        let destination = match to.index(TOPICS.len() + LOGINS.len()) {
            topic if topic < TOPICS.len() => TOPICS[topic].to_owned(),
            other => address(other - TOPICS.len()),
        };
        let expected = self.receivers(&destination);
        if is_classic {
            let frame = format!("SEND\ndestination:{destination}\n\nnews");
            self.stage.say_classic(sender, &frame);
        } else {
            let delivered = self.stage.send(sender, &destination, "", "news");
            let sessions: BTreeSet<_> = expected.iter().map(|(at, ..)| at).collect();
            assert_eq!(delivered as usize, sessions.len(), "{destination}");
        }
        assert_eq!(self.heard(), expected, "{destination}");
    }

    /// Takes the messages that all clients have received.
    fn heard(&mut self) -> BTreeSet<Copied> {
        let mut found = BTreeSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            for told in self.stage.heard(client.who) {
                if told.command != "MESSAGE" {
                    let is_refused = told.get("error-code");
                    assert!(
                        is_refused.is_none_or(|code| code == "NO_SUCH_DESTINATION"),
                        "{told:?}"
                    );
                    continue;
                }
                let subscription = told.get("subscription").unwrap_or_default().to_owned();
                assert_eq!(subscription.is_empty(), client.is_classic, "{told:?}");
                let copied = (at, subscription, content(&told));
                assert!(found.insert(copied), "{told:?} comes twice");
            }
        }
        found
    }

    /// The copies of a presence event about a client.
    fn events(&self, event: &str, about_whom: usize) -> BTreeSet<Copied> {
        let is_meant = |_: usize, target: &Target| match target {
            Target::Presence(pattern) => is_announced(about_whom, *pattern),
            _ => false,
        };
        self.copies(&about(event, about_whom), is_meant)
    }

    /// The copies of a message to a destination.
    fn receivers(&self, destination: &str) -> BTreeSet<Copied> {
        let is_topic = destination.starts_with("/topic/");
        let owner = (0..LOGINS.len()).find(|at| address(*at) == destination);
        let mut receivers = BTreeSet::new();
        if let Some(owner) = owner {
            let Some(client) = &self.clients[owner] else { return receivers };
            receivers = self.copies("news", |at, target| at == owner && *target == Target::Own);
            if receivers.is_empty() && client.has_inbox {
                let inbox = if client.is_classic { "" } else { "inbox" };
                receivers.insert((owner, inbox.to_owned(), "news".to_owned()));
            }
            if receivers.is_empty() {
                return receivers;
            }
        }
        let others = self.copies("news", |at, target| {
            let may_watch = owner.is_some_and(|owner| may_watch(LOGINS[at].1, LOGINS[owner].1));
            match target {
                Target::Topics(pattern) => is_topic && TOPIC_PATTERNS[*pattern].1(destination),
                Target::Many(_) => target.name(at) == destination,
                Target::Client(other) => may_watch && address(*other) == destination,
                Target::Clients(pattern) => may_watch && ADDRESS_PATTERNS[*pattern].1(destination),
                Target::Own | Target::Presence(_) => false,
            }
        });
        receivers.extend(others);
        receivers
    }

    /// The copies of a message to the subscriptions that are meant: one for each session of the classic dialect,
    /// and one for each subscription of the standard one.
    fn copies(&self, content: &str, is_meant: impl Fn(usize, &Target) -> bool) -> BTreeSet<Copied> {
        let mut copies = BTreeSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            for one in client.iter().flat_map(|client| &client.subscriptions) {
                if is_meant(at, &one.target) {
                    copies.insert((at, one.id.clone().unwrap_or_default(), content.to_owned()));
                }
            }
        }
        copies
    }
}

/// The subscriptions that a client keeps when it takes its session over.
fn inherit(older: Client, manner: Manner) -> Vec<Subscription> {
    let mut kept = older.subscriptions;
    match manner {
        Manner::Classic => kept.retain(|one| one.target != Target::Own),
        Manner::Standard { resumes, .. } if !resumes || older.is_classic => kept.clear(),
        Manner::Standard { .. } => {}
    }
    for one in &mut kept {
        one.is_inherited = true;
        one.id.take_if(|_| matches!(manner, Manner::Classic));
    }
    kept
}

impl Target {
    /// The destination of a SUBSCRIBE by the client at `at`.
    fn name(&self, at: usize) -> String {
        match self {
            Self::Topics(pattern) => TOPIC_PATTERNS[*pattern].0.to_owned(),
            Self::Many(number) => format!("/topic/many/{number}"),
            Self::Own => address(at),
            Self::Client(other) => address(*other),
            Self::Clients(pattern) => ADDRESS_PATTERNS[*pattern].0.to_owned(),
            Self::Presence(_) => "STOMP-SERVER".to_owned(),
        }
    }

    /// The pattern of a subscription to presence.
    fn events(&self) -> Option<&'static str> {
        match self {
            Self::Presence(pattern) => Some(ADDRESS_PATTERNS[*pattern].0),
            _ => None,
        }
    }

    /// The header lines that name it.
    fn lines(&self, at: usize) -> String {
        let events = self.events().map(|text| format!("destination-id:{text}\n"));
        format!("destination:{}\n{}", self.name(at), events.unwrap_or_default())
    }
}

/// Whether there are events about a client for a pattern.
fn is_announced(at: usize, pattern: usize) -> bool {
    matches!(LOGINS[at].1, Agent | SuperAgent) && ADDRESS_PATTERNS[pattern].1(&address(at))
}

/// What a message is about: its body, or the event and the login in it.
fn content(told: &Frame) -> String {
    let Some(event) = told.get("event") else { return told.body.clone() };
    let is_named = |(login, _): &(&str, Profile)| told.body.contains(&format!("\"{login}\""));
    let at = LOGINS.iter().position(is_named).expect("a login");
    about(event, at)
}

fn about(event: &str, at: usize) -> String {
    format!("{event} {}", LOGINS[at].0)
}

fn address(at: usize) -> String {
    let (login, profile) = LOGINS[at];
    format!("{}{login}", profile.destination_prefix())
}
