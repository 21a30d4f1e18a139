//! The protocols: encoding of logins, subscriptions and messages, and parsing of events.
//!
//! A protocol is stateless: bytes in, events out. It does not know sockets or scenarios.

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
use crate::target::{ProtocolName, Target};

/// A protocol.
pub trait Protocol {
    /// Writes a login, which exactly one [`Event::Confirmed`] answers.
    fn login(&self, login: &Login, out: &mut Vec<u8>);

    /// Writes a subscription to a destination, which exactly one [`Event::Confirmed`] answers. `number`
    /// is unique among the subscriptions of a connection.
    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>);

    /// The envelope of every body of this size to a destination, which asks for no answer.
    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope;

    /// Scans the event at the beginning of `bytes`.
    ///
    /// # Errors
    /// The bytes are not of this protocol.
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault>;

    /// The default name of destinations, with `{}` for what distinguishes them.
    fn destination_template(&self) -> &'static str;

    /// The default name of destinations if one connection subscribes to many of them.
    fn topic_template(&self) -> &'static str {
        self.destination_template()
    }

    /// The login that receives messages to a destination without a subscription, if it is an address.
    fn owner(&self, _destination: &str) -> Option<Login> {
        None
    }
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// A name that no other connection of this run has.
    pub name: String,
    /// The role of the session.
    pub role: Role,
}

/// The role of a session, which matters only to protocols with profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It owns an address, or sends.
    Agent,
    /// It subscribes.
    Service,
}

/// The bytes before and behind a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The bytes before it.
    pub head: Box<[u8]>,
    /// The bytes behind it.
    pub tail: Box<[u8]>,
}

impl Envelope {
    /// An envelope of these bytes.
    pub fn new(head: Vec<u8>, tail: &[u8]) -> Self {
        Self { head: head.into_boxed_slice(), tail: tail.into() }
    }
}

/// Result of scanning.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// The event is torn.
    Partial,
    /// An event and its size.
    Whole(usize, Event<'a>),
}

/// An event from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A login or a subscription was accepted.
    Confirmed,
    /// A message, of which only the body matters.
    Message(&'a [u8]),
    /// The server expects these bytes as an answer.
    Answer(&'static [u8]),
    /// An event without meaning to a scenario.
    Nothing,
    /// The server refused a request.
    Refused(String),
}

/// The credentials of connections.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The login of every connection; `{}` is replaced by its name.
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
    /// The login for a name.
    fn login_for(&self, name: &str) -> String {
        self.login.as_ref().map_or_else(|| name.into(), |template| template.replace("{}", name))
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
    match target.protocol {
        ProtocolName::Classic => Box::new(Classic::new(credentials, target.carrier.is_websocket())),
        ProtocolName::Stomp => Box::new(Stomp::new(credentials, &target.host)),
        ProtocolName::Nats => Box::new(Nats::new(credentials)),
        ProtocolName::Mqtt => Box::new(Mqtt::new(credentials)),
        ProtocolName::Redis => Box::new(Redis::new(credentials)),
        ProtocolName::Floor => Box::new(Floor),
    }
}

/// A message of the server made readable.
fn readable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(400)];
    let text = String::from_utf8_lossy(shown);
    let lines: Vec<_> = text.split(['\n', '\r', '\0']).filter(|line| !line.is_empty()).collect();
    lines.join(", ").replace(char::is_control, " ")
}

/// Parses a decimal number.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0'))
    })
}

/// Helpers of the protocols' tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// All events of some bytes.
    pub(crate) fn events(protocol: &dyn Protocol, bytes: &[u8]) -> Vec<String> {
        for length in 0..bytes.len() {
            // A prefix must not be refused.
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

    /// The bytes that are sent for a body.
    pub(crate) fn published(protocol: &dyn Protocol, destination: &str, body: &[u8]) -> Vec<u8> {
        let envelope = protocol.envelope(destination, body.len());
        [&*envelope.head, body, &*envelope.tail].concat()
    }

    /// The bytes that are sent for a login.
    pub(crate) fn login(protocol: &dyn Protocol, name: &str, role: Role) -> String {
        let mut out = Vec::new();
        protocol.login(&Login { name: name.into(), role }, &mut out);
        String::from_utf8(out).unwrap()
    }
}
