//! What the protocols have in common: how to log in, subscribe and publish, and what arrives.
//!
//! A protocol is stateless: bytes in, events out. It knows neither sockets nor scenarios.

mod classic;
mod floor;
mod mqtt;
mod nats;
mod redis;
mod stomp;

pub use self::classic::Classic;
pub use self::floor::{ECHO, Floor, HEADER_BYTES, SUBSCRIBE, split_header};
pub use self::mqtt::Mqtt;
pub use self::nats::Nats;
pub use self::redis::Redis;
pub use self::stomp::Stomp;

use crate::fault::Fault;
use crate::target::{Dialect, Target};

/// A protocol, as scenarios need it.
pub trait Protocol {
    /// Logs in. Exactly one [`Event::Confirmed`] answers.
    fn login(&self, login: &Login, out: &mut Vec<u8>);

    /// Subscribes to a destination; `number` tells the subscriptions of a connection apart.
    /// Exactly one [`Event::Confirmed`] answers.
    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>);

    /// What stands around every body of this size that goes to a destination. No answer is asked
    /// for.
    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope;

    /// Takes one event off the front of what arrived.
    ///
    /// # Errors
    /// The bytes are not of this protocol.
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault>;

    /// What a scenario calls its destinations unless it is told.
    fn destination_pattern(&self) -> &'static str;

    /// What it calls destinations of which one connection subscribes to many.
    fn topic_pattern(&self) -> &'static str {
        self.destination_pattern()
    }

    /// Who gets what is sent to a destination without subscribing, where it is an address.
    fn owner(&self, _destination: &str) -> Option<Login> {
        None
    }
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// A name that no other connection of this run has.
    pub name: String,
    /// What the session is for.
    pub role: Role,
}

/// What a session is for. Only protocols with profiles care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It owns an address, or sends.
    Agent,
    /// It subscribes.
    Service,
}

/// What stands before and after a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Before it.
    pub head: Box<[u8]>,
    /// After it.
    pub tail: Box<[u8]>,
}

impl Envelope {
    /// An envelope of these bytes.
    pub fn new(head: Vec<u8>, tail: &[u8]) -> Self {
        Self { head: head.into_boxed_slice(), tail: tail.into() }
    }
}

/// What is at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Not yet a whole event.
    Partial,
    /// An event, and how many bytes it took.
    Whole(usize, Event<'a>),
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A login or a subscription was accepted.
    Confirmed,
    /// A message, of which only the body matters.
    Message(&'a [u8]),
    /// The server wants these bytes back.
    Answer(&'static [u8]),
    /// Nothing that matters.
    Nothing,
    /// The server said no.
    Refused(String),
}

/// What connections log in with.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The login of every connection; `{}` is replaced by a name of its own.
    pub login: Option<String>,
    /// The passcode or password; for com-broker, the key of the profile.
    pub passcode: Option<String>,
    /// com-broker's application key.
    pub application_key: String,
    /// com-broker's key of the agent profile.
    pub agent_key: String,
    /// com-broker's key of the service profile.
    pub service_key: String,
    /// The virtual host.
    pub virtual_host: Option<String>,
}

impl Credentials {
    /// The login to use for a name.
    fn login_for(&self, name: &str) -> String {
        self.login.as_ref().map_or_else(|| name.into(), |pattern| pattern.replace("{}", name))
    }

    /// The key of a role's profile.
    fn passcode_for(&self, role: Role) -> &str {
        match (&self.passcode, role) {
            (Some(passcode), _) => passcode,
            (None, Role::Agent) => &self.agent_key,
            (None, Role::Service) => &self.service_key,
        }
    }
}

/// The protocol of a target.
pub fn protocol_of(target: &Target, credentials: Credentials) -> Box<dyn Protocol> {
    match target.dialect {
        Dialect::Classic => Box::new(Classic::new(credentials, target.carrier.is_websocket())),
        Dialect::Stomp => Box::new(Stomp::new(credentials, &target.host)),
        Dialect::Nats => Box::new(Nats::new(credentials)),
        Dialect::Mqtt => Box::new(Mqtt::new(credentials)),
        Dialect::Redis => Box::new(Redis::new(credentials)),
        Dialect::Floor => Box::new(Floor),
    }
}

/// What the server said, as far as a person can read it.
fn readable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(400)];
    let text = String::from_utf8_lossy(shown);
    let lines: Vec<_> = text.split(['\n', '\r', '\0']).filter(|line| !line.is_empty()).collect();
    lines.join(", ").replace(char::is_control, " ")
}

/// Reads a decimal number.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0'))
    })
}

/// The pieces of the wire that protocol tests share.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// All events of some bytes, whatever the pieces in which they are scanned.
    pub(crate) fn events(protocol: &dyn Protocol, bytes: &[u8]) -> Vec<String> {
        for length in 0..bytes.len() {
            // No prefix may be mistaken for something else than what the whole begins with.
            assert!(protocol.scan(&bytes[..length]).is_ok(), "at {length}");
        }
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Scan::Whole(count, event) = protocol.scan(rest).unwrap() {
            events.push(match event {
                Event::Message(body) => format!("message {}", String::from_utf8_lossy(body)),
                event => format!("{event:?}"),
            });
            rest = &rest[count..];
        }
        assert!(rest.is_empty(), "{rest:?}");
        events
    }

    /// What goes over the wire for a body.
    pub(crate) fn published(protocol: &dyn Protocol, destination: &str, body: &[u8]) -> Vec<u8> {
        let envelope = protocol.envelope(destination, body.len());
        [&*envelope.head, body, &*envelope.tail].concat()
    }

    /// What goes over the wire at login.
    pub(crate) fn login(protocol: &dyn Protocol, name: &str, role: Role) -> String {
        let mut out = Vec::new();
        protocol.login(&Login { name: name.into(), role }, &mut out);
        String::from_utf8(out).unwrap()
    }
}
