//! The receivers of a message: the table of subscriptions and the routes made from it, against a plain list
//! that is searched for each message.
//!
//! Clients log in and out, so that slots of tables are reused; they subscribe to topics by name and by
//! wildcards, to their own address, and to other clients by name and by regular expression.

use std::collections::BTreeSet;

use com_broker::internal::broker::Profile::{self, Agent, Service, SuperAgent};
use com_broker::limits::Limits;
use proptest::prelude::*;
use proptest::sample::Index;

use super::stage::{Stage, Who};
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

const TOPICS: [&str; 6] =
    ["/topic/a", "/topic/a/b", "/topic/a.c", "/topic/b/c", "/topic/b/c/d", "/topic/c++"];

/// A wildcard or a regular expression, and an equivalent function.
type Pattern = (&'static str, fn(&str) -> bool);

/// Topics without and with wildcards.
const TOPIC_PATTERNS: [Pattern; 9] = [
    ("/topic/a", |name| name == "/topic/a"),
    ("/topic/a/b", |name| name == "/topic/a/b"),
    ("/topic/c++", |name| name == "/topic/c++"),
    ("/topic/a/*", |name| matches!(name, "/topic/a/b" | "/topic/a.c")),
    ("/topic/*/c", |name| matches!(name, "/topic/a.c" | "/topic/b/c")),
    ("/topic/*", |name| matches!(name, "/topic/a" | "/topic/c++")),
    ("/topic/a/>", |name| matches!(name, "/topic/a/b" | "/topic/a.c")),
    ("/topic/*/c/>", |name| name == "/topic/b/c/d"),
    ("/topic/>", |_| true),
];

/// Regular expressions on addresses; topics match none of them.
const ADDRESS_PATTERNS: [Pattern; 4] = [
    (".*", |_| true),
    ("/agent/(ana|sam)", |name| matches!(name, "/agent/ana" | "/agent/sam")),
    ("/agent/s.+", |name| name.starts_with("/agent/s")),
    ("ana", |_| false),
];

#[derive(Clone, Debug)]
enum Step {
    Join { login: Index, has_inbox: bool },
    Leave { login: Index, is_loss: bool },
    Subscribe { login: Index, what: What, of: Index },
    Unsubscribe { login: Index, which: Index },
    Send { from: Index, to: Index },
}

#[derive(Clone, Copy, Debug)]
enum What {
    Topic,
    Own,
    Client,
    Clients,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let what = || {
        prop_oneof![
            4 => Just(What::Topic), 1 => Just(What::Own), 2 => Just(What::Client), 2 => Just(What::Clients)
        ]
    };
    prop_oneof![
        3 => (index(), any::<bool>()).prop_map(|(login, has_inbox)| Step::Join { login, has_inbox }),
        1 => (index(), any::<bool>()).prop_map(|(login, is_loss)| Step::Leave { login, is_loss }),
        6 => (index(), what(), index())
            .prop_map(|(login, what, of)| Step::Subscribe { login, what, of }),
        2 => (index(), index()).prop_map(|(login, which)| Step::Unsubscribe { login, which }),
        6 => (index(), index()).prop_map(|(from, to)| Step::Send { from, to }),
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
    has_inbox: bool,
    subscriptions: Vec<(String, Target)>,
}

enum Target {
    Topics(fn(&str) -> bool),
    Own,
    Client(String),
    Clients(fn(&str) -> bool),
}

impl House {
    fn new() -> Self {
        let stage = Stage::new(Limits { idle_topics_max: 2, ..Limits::default() });
        Self { stage, clients: Default::default(), last_id: 0 }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Join { login, has_inbox } => self.join(login.index(LOGINS.len()), *has_inbox),
            Step::Leave { login, is_loss } => self.leave(login.index(LOGINS.len()), *is_loss),
            Step::Subscribe { login, what, of } => {
                self.subscribe(login.index(LOGINS.len()), *what, of);
            }
            Step::Unsubscribe { login, which } => {
                self.unsubscribe(login.index(LOGINS.len()), which);
            }
            Step::Send { from, to } => self.send(from.index(LOGINS.len()), to),
        }
    }

    fn join(&mut self, at: usize, has_inbox: bool) {
        if self.clients[at].is_some() {
            return;
        }
        let (login, profile) = LOGINS[at];
        let more = format!("accept-version:1.2\ninbox:{has_inbox}\n");
        let who = self.stage.join_with(login, profile, &more);
        self.clients[at] = Some(Client { who, has_inbox, subscriptions: Vec::new() });
    }

    fn leave(&mut self, at: usize, is_loss: bool) {
        let Some(client) = self.clients[at].take() else { return };
        if is_loss {
            self.stage.lose(client.who);
        } else {
            self.stage.ask(client.who, "DISCONNECT\n\n");
        }
    }

    fn subscribe(&mut self, at: usize, what: What, of: &Index) {
        let (destination, target, more) = match what {
            What::Topic => {
                let (text, selects) = *of.get(&TOPIC_PATTERNS);
                (text.to_owned(), Target::Topics(selects), "")
            }
            What::Own => (address(at), Target::Own, ""),
            What::Client => {
                let other = of.index(LOGINS.len());
                let may_watch = may_watch(LOGINS[at].1, LOGINS[other].1);
                if !may_watch || self.clients[other].is_none() {
                    return;
                }
                (address(other), Target::Client(address(other)), "")
            }
            What::Clients if LOGINS[at].1 == Agent => return,
            What::Clients => {
                let (text, selects) = *of.get(&ADDRESS_PATTERNS);
                (text.to_owned(), Target::Clients(selects), "destination-type:1\n")
            }
        };
        let Some(client) = &mut self.clients[at] else { return };
        self.last_id += 1;
        let id = self.last_id.to_string();
        client.subscriptions.push((id.clone(), target));
        self.stage.subscribe(client.who, &id, &destination, more);
    }

    fn unsubscribe(&mut self, at: usize, which: &Index) {
        let Some(client) = &mut self.clients[at] else { return };
        if client.subscriptions.is_empty() {
            return;
        }
        let (id, _) = client.subscriptions.remove(which.index(client.subscriptions.len()));
        self.stage.ask(client.who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
    }

    fn send(&mut self, from: usize, to: &Index) {
        let Some(sender) = &self.clients[from] else { return };
        let sender = sender.who;
        let destination = match to.index(TOPICS.len() + LOGINS.len()) {
            topic if topic < TOPICS.len() => TOPICS[topic].to_owned(),
            other => address(other - TOPICS.len()),
        };
        let expected = self.receivers(&destination);
        let delivered = self.stage.send(sender, &destination, "", "news");
        let mut found = BTreeSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            for told in self.stage.heard(client.who) {
                assert_eq!((&*told.command, &*told.body), ("MESSAGE", "news"));
                let subscription = told.get("subscription").unwrap().to_owned();
                assert!(found.insert((at, subscription)), "{told:?} comes twice");
            }
        }
        assert_eq!(found, expected, "{destination}");
        let sessions: BTreeSet<_> = expected.iter().map(|(at, _)| at).collect();
        assert_eq!(delivered as usize, sessions.len(), "{destination}");
    }

    /// The receivers of a message to a destination, and the subscriptions by which they get it.
    fn receivers(&self, destination: &str) -> BTreeSet<(usize, String)> {
        let is_topic = destination.starts_with("/topic/");
        let owner = (0..LOGINS.len()).find(|at| address(*at) == destination);
        let mut receivers = BTreeSet::new();
        if let Some(owner) = owner {
            let Some(client) = &self.clients[owner] else { return receivers };
            let own =
                client.subscriptions.iter().filter(|(_, target)| matches!(target, Target::Own));
            receivers.extend(own.map(|(id, _)| (owner, id.clone())));
            if receivers.is_empty() && client.has_inbox {
                receivers.insert((owner, "inbox".to_owned()));
            }
            if receivers.is_empty() {
                return receivers;
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            let may_watch = owner.is_some_and(|owner| may_watch(LOGINS[at].1, LOGINS[owner].1));
            for (id, target) in client.iter().flat_map(|client| &client.subscriptions) {
                let is_selected = match target {
                    Target::Topics(selects) => is_topic && selects(destination),
                    Target::Client(name) => may_watch && name == destination,
                    Target::Clients(selects) => may_watch && selects(destination),
                    Target::Own => false,
                };
                if is_selected {
                    receivers.insert((at, id.clone()));
                }
            }
        }
        receivers
    }
}

fn address(at: usize) -> String {
    let (login, profile) = LOGINS[at];
    format!("{}{login}", profile.destination_prefix())
}
