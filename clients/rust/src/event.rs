//! What a client gets from the broker, as values: its session, messages, answers, errors.
//!
//! It does not know connections.

use std::fmt;

use crate::frame::Frame;
use crate::printable::Printable;
use crate::queue::{ITEM_BYTES, Weighed, weight_of_headers};

/// An event from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message to this client, a copy of one to a watched client, or one from the broker itself.
    Message(Message),
    /// The answer to a request that was not waited for.
    Ack(Ack),
    /// A request was refused, or the connection is about to be closed.
    Error(ServerError),
    /// The connection has ended; nothing follows.
    Closed,
}

/// The session of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Id of the session; a login that takes it over has the same id.
    pub session_id: String,
    /// The login id.
    pub login: String,
    /// `1` to `4`.
    pub profile_code: String,
    /// `agent`, `super agent`, `service` or `admin`.
    pub profile_description: String,
    /// The client's address.
    pub destination: String,
    /// Number of the connection in the broker's log; empty in the standard dialect.
    pub connection_id: String,
}

impl Session {
    pub(crate) fn of(frame: &Frame) -> Self {
        Self {
            session_id: owned(frame, "session-id"),
            login: owned(frame, "login"),
            profile_code: owned(frame, "profile-code"),
            profile_description: owned(frame, "profile-desc"),
            destination: owned(frame, "destination"),
            connection_id: owned(frame, "connection-id"),
        }
    }

    /// The session in a CONNECTED of the standard dialect, which does not number connections.
    pub(crate) fn of_standard(frame: &Frame) -> Self {
        Self { session_id: owned(frame, "session"), ..Self::of(frame) }
    }
}

/// A message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's login id.
    pub origin: String,
    /// The sender's address, to which an answer goes.
    pub destination: String,
    /// The receiver's session: that of this client, or of one that it watches.
    pub session_id: String,
    /// The sender's transaction number, if there is one.
    pub transaction: Option<String>,
    /// The media type of the body, if the sender has set it.
    pub content_type: Option<String>,
    /// The sender's further headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// The value of a further header.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn of(frame: Frame) -> Self {
        Self {
            origin: owned(&frame, "origin"),
            destination: owned(&frame, "destination"),
            session_id: owned(&frame, "session-id"),
            transaction: frame.header("transaction").map(str::to_owned),
            content_type: frame.header("content-type").map(str::to_owned),
            headers: frame
                .headers
                .into_iter()
                .filter(|(key, _)| !PROTOCOL_HEADERS.contains(&key.as_str()))
                .collect(),
            body: frame.body,
        }
    }

    fn bytes(&self) -> usize {
        let headers = weight_of_headers(&self.headers);
        self.body.len() + headers + self.destination.len() + self.origin.len()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Message")
            .field("origin", &self.origin)
            .field("destination", &self.destination)
            .field("session_id", &self.session_id)
            .field("transaction", &self.transaction)
            .field("content_type", &self.content_type)
            .field("headers", &self.headers)
            .field("body", &format_args!("\"{}\"", Printable(&self.body)))
            .finish()
    }
}

/// Headers of MESSAGE that are fields of [`Message`] or describe the frame.
const PROTOCOL_HEADERS: [&str; 6] =
    ["transaction", "session-id", "origin", "destination", "content-type", "content-length"];

/// The broker did what the transaction asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The request that is answered.
    pub transaction: TransactionId,
    /// For SUBSCRIBE and UNSUBSCRIBE, the clients concerned.
    pub clients: Vec<ListedClient>,
}

/// A client in the list that answers SUBSCRIBE and UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedClient {
    /// Its login id.
    pub login: String,
    /// Its session id, or the broker's placeholder for it.
    pub session_id: String,
    /// Its address.
    pub destination: String,
}

impl ListedClient {
    /// Parses `[login]:[session id]:[destination]`, and ignores text before it.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        let (_, rest) = line.split_once('[')?;
        // Split from the right, since a login id may hold any character.
        let (rest, destination) = rest.strip_suffix(']')?.rsplit_once("]:[")?;
        let (login, session_id) = rest.rsplit_once("]:[")?;
        Some(Self {
            login: login.to_owned(),
            session_id: session_id.to_owned(),
            destination: destination.to_owned(),
        })
    }
}

/// A refusal by the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// A sentence for people.
    pub description: String,
    /// A word for programs, such as `NO_SUCH_DESTINATION`.
    pub code: Option<String>,
    /// Whether to try again. Present if and only if the broker closes the connection.
    pub retry: Option<Retry>,
    /// The request that is refused, if the error is about one.
    pub transaction: Option<TransactionId>,
}

impl ServerError {
    /// Whether the broker closes the connection.
    pub fn closes(&self) -> bool {
        self.retry.is_some()
    }

    pub(crate) fn of(frame: &Frame) -> Self {
        Self {
            description: owned(frame, "error-desc"),
            code: frame.header("error-code").map(str::to_owned),
            retry: frame.header("retry").map(Retry::parse),
            transaction: frame.header("transaction").and_then(TransactionId::parse),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the broker refused: {}", Printable(self.description.as_bytes()))?;
        match &self.code {
            Some(code) => write!(out, " ({})", Printable(code.as_bytes())),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {}

/// Whether to try again after the broker closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again, for example because a key is wrong.
    Never,
    /// Not at once.
    Later,
    /// At once: the client is not at fault.
    Now,
}

impl Retry {
    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "never" => Self::Never,
            "now" => Self::Now,
            // An unknown word is taken for the cautious one.
            _ => Self::Later,
        }
    }
}

/// The number under which a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(u64);

impl TransactionId {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn following(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Event {
    /// Whether it is the answer to a transaction.
    pub(crate) fn answers(&self, transaction: TransactionId) -> bool {
        match self {
            Self::Ack(ack) => ack.transaction == transaction,
            Self::Error(error) => error.transaction == Some(transaction),
            Self::Message(_) | Self::Closed => false,
        }
    }
}

impl Weighed for Event {
    fn weight(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Message(message) => message.bytes(),
                Self::Error(error) => error.description.len(),
                Self::Ack(ack) => ack.clients.len() * ITEM_BYTES,
                Self::Closed => 0,
            }
    }
}

fn owned(frame: &Frame, key: &str) -> String {
    frame.header(key).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::Incoming;

    fn incoming(frame: &str) -> Incoming {
        Incoming::of(Frame::parse(frame.as_bytes()).unwrap(), "anything").unwrap()
    }

    #[test]
    fn a_message_has_the_headers_that_its_sender_added() {
        let incoming = incoming(
            "MESSAGE\ntransaction:17\nsession-id:s\norigin:ana\ndestination:/agent/ana\n\
             content-type:text/plain\ncontent-length:5\ncolour:red\n\nhello\0",
        );
        let Incoming::Event(Event::Message(message)) = incoming else { panic!("{incoming:?}") };
        assert_eq!(message.origin, "ana");
        assert_eq!(message.destination, "/agent/ana");
        assert_eq!(message.session_id, "s");
        assert_eq!(message.transaction.as_deref(), Some("17"));
        assert_eq!(message.content_type.as_deref(), Some("text/plain"));
        assert_eq!(message.headers, [("colour".to_owned(), "red".to_owned())]);
        assert_eq!(message.header("colour"), Some("red"));
        assert_eq!(message.body, b"hello");
    }

    #[test]
    fn the_list_in_an_ack_is_read() {
        let listed = |login: &str, session_id: &str, destination: &str| ListedClient {
            login: login.to_owned(),
            session_id: session_id.to_owned(),
            destination: destination.to_owned(),
        };
        for (body, clients) in [
            ("", vec![]),
            ("Destinations subscribed:\n----\n----\0", vec![]),
            (
                "Destinations subscribed:\n----\n[ana]:[1:2]:[/agent/ana]\n[b]:[]:[/agent/b]\n----\0",
                vec![listed("ana", "1:2", "/agent/ana"), listed("b", "", "/agent/b")],
            ),
            (
                "Destinations unsubscribed:\n----\nSubscription: [a]:[x]:[s]:[/agent/a]:[x]\n----\0",
                vec![listed("a]:[x]:[s", "/agent/a", "x")],
            ),
        ] {
            let frame = format!("ACK\ntransaction:7\nerror-desc:OK\n\n{body}");
            let ack = Ack { transaction: TransactionId(7), clients };
            assert_eq!(incoming(&frame), Incoming::Event(Event::Ack(ack)), "{body}");
        }
    }

    #[test]
    fn an_ack_that_is_not_ok_is_an_error_about_its_transaction() {
        let frame = "ACK\ntransaction:7\nerror-desc:no\nerror-code:PROF_NO_RIGHTS\n\n\0";
        let error = ServerError {
            description: "no".to_owned(),
            code: Some("PROF_NO_RIGHTS".to_owned()),
            retry: None,
            transaction: Some(TransactionId(7)),
        };
        assert_eq!(error.to_string(), "the broker refused: no (PROF_NO_RIGHTS)");
        assert!(!error.closes());
        assert_eq!(incoming(frame), Incoming::Event(Event::Error(error)));
    }

    #[test]
    fn retry_is_present_if_the_connection_closes() {
        for (word, retry) in [
            ("never", Retry::Never),
            ("later", Retry::Later),
            ("now", Retry::Now),
            ("whatever", Retry::Later),
        ] {
            let incoming = incoming(&format!("ERROR\nerror-desc:x\nretry:{word}\n\n\0"));
            let Incoming::Event(Event::Error(error)) = incoming else { panic!("{incoming:?}") };
            assert_eq!(error.retry, Some(retry));
            assert!(error.closes());
        }
    }

    #[test]
    fn an_error_cannot_write_to_the_terminal() {
        let error = ServerError {
            description: "\x1b[2J".to_owned(),
            code: None,
            retry: None,
            transaction: None,
        };
        assert_eq!(error.to_string(), "the broker refused: \\x1b[2J");
    }

    #[test]
    fn only_the_answer_to_a_transaction_is_its_answer() {
        let ack = Event::Ack(Ack { transaction: TransactionId(2), clients: Vec::new() });
        assert!(ack.answers(TransactionId(2)) && !ack.answers(TransactionId(3)));
        let refused = incoming("ERROR\nerror-desc:no\ntransaction:2\n\n\0");
        let Incoming::Event(refused) = refused else { panic!("{refused:?}") };
        assert!(refused.answers(TransactionId(2)) && !refused.answers(TransactionId(3)));
        // The transaction in a message is that of its sender.
        let message = incoming("MESSAGE\norigin:ana\ntransaction:2\n\n\0");
        let Incoming::Event(message) = message else { panic!("{message:?}") };
        assert!(!message.answers(TransactionId(2)));
    }

    #[test]
    fn the_weight_of_an_event_is_its_memory() {
        let weight = |frame: &str| match incoming(frame) {
            Incoming::Event(event) => event.weight() - ITEM_BYTES,
            other => panic!("{other:?}"),
        };
        let message = 1 + 2 + 3 + size_of::<(String, String)>() + 5;
        assert_eq!(weight("MESSAGE\norigin:a\ndestination:bc\nx:yz\n\nhello\0"), message);
        assert_eq!(weight("ERROR\nerror-desc:no\n\n\0"), 2);
        assert_eq!(weight("ACK\ntransaction:1\nerror-desc:OK\n\n[a]:[b]:[c]\0"), ITEM_BYTES);
    }
}
