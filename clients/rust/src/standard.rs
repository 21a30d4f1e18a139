//! The client of the standard dialect, STOMP 1.2: it subscribes to topics and queues, and learns the number
//! of deliveries of each message that it sends.

use std::time::Duration;

use crate::BROKER;
use crate::connection::{Arrival, Connection, Dialect};
use crate::error::ClientError;
use crate::event::{Retry, ServerError, Session};
use crate::frame::Frame;
use crate::login::{CONNECTED, log_in};
use crate::options::{Options, SendOptions};
use crate::queue::{ITEM_BYTES, Weighed, WeighedQueue, weight_of_headers};
use crate::wire::Deadline;

/// A client of the standard dialect that is logged in.
///
/// Dropping it closes the connection without a logout; use [`disconnect`](Self::disconnect) for that.
#[derive(Debug)]
pub struct StandardClient {
    connection: Connection,
    session: Session,
    answer_timeout: Duration,
    last_receipt: u64,
    /// Messages that arrived while an answer was awaited.
    queue: WeighedQueue<StandardMessage>,
}

impl StandardClient {
    /// Connects and logs in.
    ///
    /// # Errors
    /// There is no connection, or the broker refuses the login: [`ClientError::Refused`] tells
    /// whether to try again.
    pub fn connect(options: &Options) -> Result<Self, ClientError> {
        let (connection, answer) = log_in(options, Dialect::Standard)?;
        if answer.command != CONNECTED {
            return Err(unexpected(answer, CONNECTED));
        }
        let session = Session::of_standard(&answer);
        Ok(Self {
            connection,
            session,
            answer_timeout: options.answer_timeout,
            last_receipt: 0,
            queue: WeighedQueue::new(options.queued_bytes_max),
        })
    }

    /// Sends a message and waits until the broker has passed it on. Returns the number of deliveries,
    /// including those to clients that watch the receiver.
    ///
    /// # Errors
    /// The message cannot be sent, or the broker refuses it.
    pub fn send(
        &mut self,
        destination: &str,
        body: impl AsRef<[u8]>,
        options: &SendOptions,
    ) -> Result<u64, ClientError> {
        let body = body.as_ref();
        let mut frame = Frame::new("SEND")
            .with("destination", destination)
            .with("content-type", options.content_type_of(body))
            .with("content-length", body.len().to_string());
        frame.headers.extend_from_slice(options.user_headers()?);
        frame.body = body.to_vec();
        let receipt = self.request(frame)?;
        let delivered = receipt.header("delivered").and_then(|count| count.parse().ok());
        delivered.ok_or_else(|| unexpected(receipt, "RECEIPT with delivered"))
    }

    /// Subscribes under an `id` of the caller's choice, and waits for the broker's confirmation.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the profile has no right, no client is at the address, or the
    /// pattern is malformed.
    pub fn subscribe(&mut self, id: &str, target: StandardTarget<'_>) -> Result<(), ClientError> {
        let frame = Frame::new("SUBSCRIBE").with("id", id).with("ack", "auto");
        let frame = match target {
            StandardTarget::Destination(name) => frame.with("destination", name),
            StandardTarget::Pattern(pattern) => {
                frame.with("destination", pattern).with("destination-type", "1")
            }
            StandardTarget::Presence { pattern, with_snapshot } => {
                let frame = frame.with("destination", BROKER).with("destination-id", pattern);
                frame.with("snapshot", with_snapshot.to_string())
            }
        };
        self.request(frame).map(drop)
    }

    /// The next message in order of arrival; `None` if there is none in time. Without a timeout it
    /// waits for ever; with [`Duration::ZERO`] it does not wait.
    ///
    /// # Errors
    /// The connection ended or broke, or an unexpected frame arrived.
    pub fn next(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<StandardMessage>, ClientError> {
        const AWAITED: &str = "a message";
        if let Some(message) = self.queue.take_first() {
            return Ok(Some(message));
        }
        let deadline = timeout.into().map_or(Deadline::NEVER, Deadline::after);
        loop {
            return match self.connection.next_until(deadline)? {
                Arrival::Frame(frame) if frame.command == "MESSAGE" => {
                    Ok(Some(StandardMessage::of(frame)))
                }
                Arrival::Frame(frame) if self.is_late(&frame) => continue,
                Arrival::Frame(frame) => Err(unexpected(frame, AWAITED)),
                Arrival::NotYet => Ok(None),
                Arrival::End => Err(ClientError::Ended { awaited: AWAITED }),
            };
        }
    }

    /// Logs out: sends DISCONNECT and waits until the broker has confirmed it.
    ///
    /// # Errors
    /// The broker did not confirm. The client is logged out all the same, since the connection is
    /// closed.
    pub fn disconnect(mut self) -> Result<(), ClientError> {
        self.request(Frame::new("DISCONNECT")).map(drop)
    }

    /// The session of this client.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether a frame answers a call that has returned already, by a timeout or because of a full queue.
    fn is_late(&self, frame: &Frame) -> bool {
        let id = frame.header("receipt-id").and_then(|id| id.parse::<u64>().ok());
        frame.command == "RECEIPT" && id.is_some_and(|id| (1..=self.last_receipt).contains(&id))
    }

    /// Sends a frame and waits for its receipt. Messages that arrive before it are kept.
    fn request(&mut self, frame: Frame) -> Result<Frame, ClientError> {
        const AWAITED: &str = "RECEIPT";
        self.last_receipt += 1;
        let id = self.last_receipt.to_string();
        let is_logout = frame.command == "DISCONNECT";
        self.connection.send(&frame.with("receipt", &id))?;
        let deadline = Deadline::after(self.answer_timeout);
        loop {
            match self.connection.next_until(deadline)? {
                Arrival::Frame(frame) if frame.command == "MESSAGE" => {
                    // The client is dropped after a logout, and messages with it.
                    if is_logout {
                        continue;
                    }
                    self.queue.push(StandardMessage::of(frame));
                    if self.queue.is_full() {
                        return Err(ClientError::Flooded);
                    }
                }
                Arrival::Frame(frame)
                    if frame.command == "RECEIPT" && frame.header("receipt-id") == Some(&id) =>
                {
                    return Ok(frame);
                }
                Arrival::Frame(frame) if self.is_late(&frame) => {}
                Arrival::Frame(frame) => return Err(unexpected(frame, AWAITED)),
                Arrival::NotYet => return Err(ClientError::NoAnswer { awaited: AWAITED }),
                Arrival::End => return Err(ClientError::Ended { awaited: AWAITED }),
            }
        }
    }
}

/// The target of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardTarget<'a> {
    /// The client's own address, that of a client to watch, a topic, or a queue.
    Destination(&'a str),
    /// All clients, now and later, whose whole address matches this regular expression.
    Pattern(&'a str),
    /// Presence: logins and logouts of clients.
    Presence {
        /// A regular expression for the whole address.
        pattern: &'a str,
        /// Whether to begin with an event for each client that is logged in.
        with_snapshot: bool,
    },
}

/// A message of the standard dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardMessage {
    /// Id of the subscription by which it is received.
    pub subscription: String,
    /// The sender's login id.
    pub origin: String,
    /// The sender's address, to which an answer goes.
    pub origin_destination: String,
    /// The destination that it was sent to.
    pub destination: String,
    /// The media type of the body, if the sender has set it.
    pub content_type: Option<String>,
    /// The sender's further headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl StandardMessage {
    /// The value of a further header.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn of(frame: Frame) -> Self {
        let owned = |key: &str| frame.header(key).unwrap_or_default().to_owned();
        Self {
            subscription: owned("subscription"),
            origin: owned("origin"),
            origin_destination: owned("origin-destination"),
            destination: owned("destination"),
            content_type: frame.header("content-type").map(str::to_owned),
            headers: frame
                .headers
                .into_iter()
                .filter(|(key, _)| !PROTOCOL_HEADERS.contains(&key.as_str()))
                .collect(),
            body: frame.body,
        }
    }
}

impl Weighed for StandardMessage {
    fn weight(&self) -> usize {
        let headers = weight_of_headers(&self.headers);
        ITEM_BYTES + self.body.len() + headers + self.destination.len() + self.origin.len()
    }
}

/// Headers of MESSAGE that are fields of [`StandardMessage`], or have no meaning to a program.
const PROTOCOL_HEADERS: [&str; 12] = [
    "subscription",
    "message-id",
    "destination",
    "origin",
    "origin-destination",
    "content-type",
    "content-length",
    "ack",
    "redelivered",
    "receipt",
    "transaction",
    "undeliverable",
];

/// The error for a frame that is not the expected answer, which most often is an ERROR.
fn unexpected(frame: Frame, awaited: &'static str) -> ClientError {
    if frame.command != "ERROR" {
        return ClientError::Unexpected { command: frame.command, awaited };
    }
    // STOMP 1.2, "ERROR": the server closes the connection behind it.
    let retry = frame.header("retry").map_or(Retry::Never, Retry::parse);
    ClientError::Refused(Box::new(ServerError {
        description: frame.header("message").unwrap_or_default().to_owned(),
        code: frame.header("error-code").map(str::to_owned),
        retry: Some(retry),
        transaction: None,
    }))
}
