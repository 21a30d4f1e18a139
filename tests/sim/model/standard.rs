//! The model of the standard dialect.

use std::collections::BTreeSet;

use com_broker::internal::broker::Profile;

use super::{Model, Number, Seen};

/// A request of a client.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Connect {
        login: String,
        profile: Profile,
        resume: bool,
        inbox: bool,
    },
    Send {
        destination: String,
        body: String,
        inside: bool,
    },
    /// The id begins with the mode.
    Subscribe {
        id: String,
        destination: String,
        prefetch: u64,
    },
    Unsubscribe {
        id: String,
    },
    /// ACK or NACK of a message, and the messages that it settles.
    Settle {
        is_ack: bool,
        subscription: String,
        ack: String,
        bodies: Vec<String>,
        inside: bool,
    },
    Begin,
    Commit,
    Abort,
    Disconnect,
}

/// The state of a session of the standard dialect.
#[derive(Default)]
pub(crate) struct Standard {
    subscriptions: Vec<Subscription>,
    has_inbox: bool,
    resumes: bool,
}

struct Subscription {
    id: String,
    destination: String,
    is_inherited: bool,
}

impl Standard {
    pub(crate) fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// The state after a takeover of an earlier connection.
    pub(crate) fn resume(self, earlier: Self) -> Self {
        let mut subscriptions = if self.resumes { earlier.subscriptions } else { Vec::new() };
        subscriptions.iter_mut().for_each(|one| one.is_inherited = true);
        Self { subscriptions, ..self }
    }

    /// The subscriptions by which a message to its own address is delivered.
    pub(crate) fn hear(&self, own: &str) -> BTreeSet<String> {
        let mut ids = self.ids(|destination| destination == own);
        if ids.is_empty() && self.has_inbox {
            ids.insert("inbox".to_owned());
        }
        ids
    }

    /// The subscriptions of a kind.
    fn ids(&self, is_meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let meant = self.subscriptions.iter().filter(|one| is_meant(&one.destination));
        meant.map(|one| one.id.clone()).collect()
    }
}

impl Model {
    /// A frame of the standard dialect was read.
    pub(super) fn answer(
        &mut self,
        number: Number,
        login: Option<String>,
        ask: &Ask,
        receipt: u64,
        now_ms: u64,
    ) {
        let Some(login) = login else {
            let Ask::Connect { login, profile, resume, inbox } = ask else {
                return self.refuse(number, "NOT_LOGGED_IN");
            };
            let begun = Standard { has_inbox: *inbox, resumes: *resume, ..Standard::default() };
            return self.connect(number, (login, *profile), Some(begun), now_ms);
        };
        match ask {
            Ask::Connect { .. } => return self.refuse(number, "LOGIN_ID_ALREADY_LOGGED"),
            Ask::Send { inside: true, .. } | Ask::Settle { inside: true, .. } => {
                self.connections.get_mut(&number).unwrap().transaction.push(ask.clone());
            }
            Ask::Commit => {
                let asked =
                    std::mem::take(&mut self.connections.get_mut(&number).unwrap().transaction);
                asked.iter().for_each(|ask| self.fulfil(number, &login, ask));
            }
            Ask::Abort => self.connections.get_mut(&number).unwrap().transaction.clear(),
            _ => self.fulfil(number, &login, ask),
        }
        self.expect(number, Seen::Receipt(Some(receipt.to_string())));
        if matches!(ask, Ask::Disconnect) {
            self.end(number, "logout");
        }
    }

    fn fulfil(&mut self, number: Number, login: &str, ask: &Ask) {
        let tick = self.tick;
        match ask {
            Ask::Send { destination, body, .. } => {
                self.deliver(login, destination, None, body);
            }
            Ask::Subscribe { id, destination, .. } => {
                let standard = self.standard_of(login);
                let replaced =
                    |one: &mut Subscription| one.is_inherited && one.destination == *destination;
                let replaced: Vec<_> = standard.subscriptions.extract_if(.., replaced).collect();
                let (id, destination) = (id.clone(), destination.clone());
                self.queues.note_subscribed(number, &id, &destination);
                let new = Subscription { id, destination, is_inherited: false };
                self.standard_of(login).subscriptions.push(new);
                replaced
                    .iter()
                    .for_each(|one| self.queues.note_unsubscribed(number, &one.id, tick));
            }
            Ask::Unsubscribe { id } => {
                self.standard_of(login).subscriptions.retain(|one| one.id != *id);
                self.queues.note_unsubscribed(number, id, tick);
            }
            Ask::Settle { is_ack, subscription, bodies, .. } => {
                // A late one is ignored.
                if !self.standard_of(login).ids(|_| true).contains(subscription) {
                    return;
                }
                bodies
                    .iter()
                    .for_each(|body| self.queues.note_settled(body, number, *is_ack, tick));
            }
            Ask::Connect { .. } | Ask::Begin | Ask::Commit | Ask::Abort | Ask::Disconnect => {}
        }
    }

    fn standard_of(&mut self, login: &str) -> &mut Standard {
        self.sessions.get_mut(login).unwrap().standard.as_mut().expect("a standard session")
    }

    /// Delivers a message to a topic, with one copy for each matching subscription.
    pub(super) fn deliver_to_topic(&mut self, origin: String, topic: &str, body: String) {
        let mut copies = Vec::new();
        for session in self.sessions.values() {
            let Some(standard) = &session.standard else { continue };
            let subscriptions = standard.ids(|destination| selects(destination, topic));
            if !subscriptions.is_empty() {
                let (origin, body) = (origin.clone(), body.clone());
                copies.push((session.connection, Seen::Copies { subscriptions, origin, body }));
            }
        }
        copies.into_iter().for_each(|(connection, seen)| self.expect(connection, seen));
    }
}

/// Whether a topic, possibly with wildcards, matches another one without.
fn selects(pattern: &str, topic: &str) -> bool {
    let mut levels = topic.split(['/', '.']);
    for wanted in pattern.split(['/', '.']) {
        match (wanted, levels.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, level) if Some(wanted) == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
